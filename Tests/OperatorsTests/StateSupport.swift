import CColumns
import Catalog

@testable import Operators
@testable import Runtime

let second: Int64 = 1_000_000_000
let minute: Int64 = 60 * second

/// Lines that the windows of all shards gave, to be compared.
final class Lines: @unchecked Sendable {
  // @unchecked: tests run their shards one after the other.
  private(set) var all: [String] = []
  func add(_ line: String) { all.append(line) }
}

/// Writes down each row that it is given, doubles by their bits, and which windows were skipped.
struct RowRecorder: RowTaskDefinition {
  var name: String
  var columns: Int
  var lines: Lines

  func makeTask(_ context: TaskContext) -> RowTask { Task(self) }

  private final class Task: RowTask {
    let definition: RowRecorder
    init(_ definition: RowRecorder) { self.definition = definition }

    override func process(_ batch: Batch, _ selection: Selection) {
      for index in 0..<selection.count {
        let row = Int(selection.rows[index])
        var line = "\(batch.times[row] + 1) \(definition.name)"
        for column in batch.columns[0..<definition.columns] {
          switch column[row] {
          case .double(let value): line += " \(value)/\(String(value.bitPattern, radix: 16))"
          case let cell: line += " \(cell)"
          }
        }
        definition.lines.add(line)
      }
    }
  }
}

/// An input row of the tests: see `inputTypes`.
struct InputRow {
  var time: Int64
  var cells: [Cell]
}

/// text, int and float that serve as keys; a double, an int, a text, a flag, a counter.
let inputTypes: [ValueType] = [.string, .int, .float, .duration, .int, .string, .bool, .float]

func randomRow(_ time: Int64, keys: Int, _ random: inout SeededRandom) -> InputRow {
  func maybe(_ cell: Cell, _ random: inout SeededRandom) -> Cell {
    Int.random(in: 0..<9, using: &random) == 0 ? .null : cell
  }
  let key = Int.random(in: 0..<keys, using: &random)
  return InputRow(
    time: time,
    cells: [
      maybe(.text(key == 0 ? "" : "service-\(key) ü"), &random), maybe(.int(Int64(key) - 2), &random),
      maybe(.double(key == 1 ? -0.0 : Double(key) / 3 - 1), &random),
      maybe(.double(Double.random(in: -5...1_000, using: &random)), &random),
      maybe(.int(Int64.random(in: -100...100, using: &random)), &random),
      maybe(.text("value \(Int.random(in: 0..<3_000, using: &random))"), &random),
      maybe(.bool(Bool.random(using: &random)), &random),
      .double(Double(time / second % 500) * 3 + Double(key)),
    ])
}

/// One of each kind of aggregate, with the type of what it shows.
let allAggregates: [(state: PaneAggregation.State, constants: [[Value]], type: PhysicalType)] = {
  func state(_ id: String, _ function: String, _ argument: Int?, filter: Int? = nil) -> PaneAggregation.State {
    var state = PaneAggregation.State(
      function: function, argument: argument, argumentType: argument.map { inputTypes[$0] }, filter: filter,
      constants: [])
    state.id = id
    return state
  }
  return [
    (state("count()", "count", nil), [[]], .int64),
    (state("count(flag)", "count", nil, filter: 6), [[]], .int64),
    (state("rate()", "rate", nil), [[]], .float64),
    (state("sum(d)", "sum", 3), [[]], .float64),
    (state("sum(d where flag)", "sum", 3, filter: 6), [[]], .float64),
    (state("sum(i)", "sum", 4), [[]], .int64),
    (state("avg(d)", "avg", 3), [[]], .float64),
    (state("min(i)", "min", 4), [[]], .int64),
    (state("max(i)", "max", 4), [[]], .int64),
    (state("min(d)", "min", 3), [[]], .float64),
    (state("max(d)", "max", 3), [[]], .float64),
    (state("stddev(d)", "stddev", 3), [[]], .float64),
    (state("quantile(d)", "quantile", 3), [[.float(0.01)], [.float(0.5)], [.float(0.99)]], .float64),
    (state("distinct(t)", "distinct", 5), [[]], .int64),
    (state("distinct(i)", "distinct", 4), [[]], .int64),
    (state("top(t)", "top", 5), [[.int(2)], [.int(5)]], .string),
    (state("top(i)", "top", 4), [[.int(3)]], .string),
    (state("first(t)", "first", 5), [[]], .string),
    (state("last(t)", "last", 5), [[]], .string),
    (state("last(d)", "last", 3), [[]], .float64),
    (state("first(i)", "first", 4), [[]], .int64),
    (state("last(flag)", "last", 6), [[]], .bool),
    (state("increase(c)", "increase", 7), [[]], .float64),
  ]
}()

/// A pane aggregation over the input rows, recorded, with an alert and a second level of windows on request.
struct TestPlan {
  var keySlots: [Int] = [0]
  /// Indexes into `allAggregates`.
  var aggregates: [Int] = Array(allAggregates.indices)
  var windows: [(size: Int64, hop: Int64)] = [(minute, minute)]
  var paneNanos = minute
  /// Behind the first window: an alert on its first aggregate.
  var hasAlert = false
  var forNanos: Int64 = 0
  var keepFiringNanos: Int64 = 0
  /// Behind the first window: windows over its rows, by its first key or none.
  var level1: [(size: Int64, hop: Int64)] = []
  var level1PaneNanos: Int64 = 0
  var lines = Lines()

  var keyTypes: [PhysicalType] { keySlots.map { inputTypes[$0].physical } }

  private var outputs: [PaneAggregation.Output] {
    aggregates.enumerated().flatMap { index, aggregate in
      allAggregates[aggregate].constants.map {
        PaneAggregation.Output(state: index, constants: $0, type: allAggregates[aggregate].type)
      }
    }
  }

  private func consumers(_ window: (size: Int64, hop: Int64), behindFirst: Bool) -> RowSet {
    let columns = keySlots.count + outputs.count
    let name = "\(window.size / second)/\(window.hop / second)"
    var set = RowSet(consumers: [RowRecorder(name: name, columns: columns, lines: lines)])
    guard behindFirst else { return set }
    if hasAlert {
      let value = TypedExpr.column(keySlots.count, .int)
      set.computed = [
        RowSet.ComputedSlot(slot: columns, expression: .compare(.greater, value, .constant(.int(3), .int)))
      ]
      var alert = Alert(
        name: "Busy", rule: 0, condition: columns, conditionText: "n > 3", forNanos: forNanos,
        keepFiringNanos: keepFiringNanos, severity: "page",
        keys: keySlots.indices.map { NamedSlot(name: "k\($0)", slot: $0, type: inputTypes[keySlots[$0]]) },
        labels: [], annotations: [], values: [NamedSlot(name: "n", slot: keySlots.count, type: .int)],
        windowNanos: windows[0].size)
      alert.operatorID = "alert Busy"
      set.consumers.append(alert)
    }
    if !level1.isEmpty { set.consumers.append(secondLevel) }
    return set
  }

  private var secondLevel: PaneAggregation {
    let first = keySlots.count
    func state(_ function: String, _ argument: Int?, _ type: ValueType?, _ id: String) -> PaneAggregation.State {
      var state = PaneAggregation.State(
        function: function, argument: argument, argumentType: type, filter: nil, constants: [])
      state.id = id
      return state
    }
    var definition = PaneAggregation(
      exchange: 1, paneNanos: level1PaneNanos, keySlots: keySlots.isEmpty ? [] : [0],
      keyTypes: Array(keyTypes.prefix(1)),
      states: [
        state("count", nil, nil, "count()"), state("sum", first, .int, "sum(n)"),
        state("stddev", first, .int, "stddev(n)"), state("increase", first, .int, "increase(n)"),
      ],
      windows: level1.map { window in
        PaneAggregation.Window(
          sizeNanos: window.size, hopNanos: window.hop,
          outputs: [
            .init(state: 0, constants: [], type: .int64), .init(state: 1, constants: [], type: .int64),
            .init(state: 2, constants: [], type: .float64), .init(state: 3, constants: [], type: .float64),
          ], computedSlots: [],
          rows: RowSet(consumers: [
            RowRecorder(
              name: "second:\(window.size / second)/\(window.hop / second)", columns: min(1, keySlots.count) + 4, lines: lines)
          ]))
      }, inputTypes: keyTypes + outputs.map(\.type), isOverWindows: true,
      upstreamKeySlots: Array(keySlots.indices), upstreamNanos: windows[0].size
        + PaneAggregation.lookbackNanos(
          functions: aggregates.map { allAggregates[$0].state.function }, windowNanos: windows.map(\.size)))
    definition.operatorID = "second"
    return definition
  }

  var definition: PaneAggregation {
    var definition = PaneAggregation(
      exchange: 0, paneNanos: paneNanos, keySlots: keySlots, keyTypes: keyTypes,
      states: aggregates.map { allAggregates[$0].state },
      windows: windows.enumerated().map { index, window in
        PaneAggregation.Window(
          sizeNanos: window.size, hopNanos: window.hop, outputs: outputs,
          computedSlots: index == 0 && hasAlert ? [.bool] : [], rows: consumers(window, behindFirst: index == 0))
      })
    definition.operatorID = "first"
    return definition
  }

  var levels: [PaneAggregation] { level1.isEmpty ? [definition] : [definition, secondLevel] }
}

/// What a checkpoint is to these tests.
struct TestSection: Sendable {
  var operatorID: String
  /// Key groups; nil for a partition's.
  var groups: Range<Int>?
  var partition: Int?
  var capture: any StateCapture

  func encoded() -> StoredPart {
    let writer = StateWriter()
    capture.encode(into: writer)
    return StoredPart(operatorID: operatorID, groups: groups, partition: partition, bytes: writer.bytes)
  }
}

struct StoredPart: Sendable {
  var operatorID: String
  var groups: Range<Int>?
  var partition: Int?
  var bytes: [UInt8]
}

/// The workers of one source without their threads: partitions are cut into panes, panes are sent to every shard, and
/// levels are advanced one after the other.
final class TestEngine {
  let plan: TestPlan
  let shardCount: Int
  private let contexts: [TaskContext]
  private let outputs: [RecordWriter]
  private let partials: [PartialTask]
  private var keyed: [[KeyedTask]] = []
  private(set) var watermarks: [Int64]
  private let pool = TextPool()
  private(set) var alerts: [String] = []

  init(_ plan: TestPlan, shards: Int, partitions: Int) {
    self.plan = plan
    shardCount = shards
    outputs = (0..<shards).map { _ in RecordWriter() }
    let outputs = outputs
    contexts = (0..<shards).map {
      TaskContext(shard: $0, shardCount: shards, batchRows: 64, output: outputs[$0])
    }
    watermarks = Array(repeating: beforeAllTime, count: partitions)
    for context in contexts { context.partitionNames = (0..<partitions).map { "events/\($0)" } }
    let levels = plan.levels
    partials = contexts.map { levels[0].makePartial($0) }
    for context in contexts { keyed.append(levels.map { $0.makeKeyed(context) }) }
    for context in contexts {
      context.setSender { [unowned self] exchange, shard, rows in keyed[shard][exchange].accept(rows) }
    }
  }

  private func partial(of partition: Int) -> PartialTask { partials[partition % shardCount] }

  /// Takes rows of a partition in batches of at most `batchRows`.
  func process(_ rows: [InputRow], partition: Int, batchRows: Int = 50) {
    var start = 0
    while start < rows.count {
      let part = rows[start..<min(rows.count, start + batchRows)]
      let batch = Batch(types: inputTypes.map(\.physical), capacity: batchRows)
      for slot in inputTypes.indices { batch.columns[slot].fill(part.map { $0.cells[slot] }, pool) }
      for (index, row) in part.enumerated() { batch.times[index] = row.time }
      batch.rowCount = part.count
      batch.partition = partition
      partial(of: partition).process(batch, batch.all)
      start += batchRows
    }
  }

  /// Moves a partition's watermark, and what follows from it.
  func advance(_ partition: Int, to watermark: Int64) {
    guard watermark >= watermarks[partition] else { return }
    watermarks[partition] = watermark
    partial(of: partition).closePanes(partition: partition, watermark: watermark) { pane in
      for shard in keyed { shard[0].accept(pane, partition: partition) }
    }
    let least = watermarks.min() ?? watermark
    guard least > beforeAllTime else { return }
    for level in plan.levels.indices {
      for shard in keyed { shard[level].advance(to: least) }
    }
    for output in outputs {
      let records = output.drain()
      for index in records.order {
        let entry = records.batch.entries[index]
        alerts.append(
          String(decoding: records.batch.bytes[entry.start..<entry.start + entry.length], as: UTF8.self))
      }
    }
  }

  /// Sorted: shards have no order among each other.
  var lines: [String] { (plan.lines.all + alerts).sorted() }

  func capture() -> [TestSection] {
    var sections: [TestSection] = []
    for partition in watermarks.indices {
      let task = partial(of: partition)
      guard let capture = task.capture(partition: partition) else { continue }
      sections.append(TestSection(operatorID: task.operatorID, partition: partition, capture: capture))
    }
    for (shard, context) in contexts.enumerated() {
      for task in context.statefulTasks {
        guard let capture = task.capture() else { continue }
        sections.append(TestSection(
            operatorID: task.operatorID, groups: KeyGroup.range(of: shard, shardCount: shardCount), capture: capture))
      }
    }
    return sections
  }

  func stored() -> [StoredPart] { capture().map { $0.encoded() } }

  /// What is done instead of `restore` for tasks of which nothing was stored.
  func startAll(missingBefore time: Int64) {
    for task in contexts.flatMap(\.statefulTasks) { task.start(missingBefore: time) }
  }

  /// Restores parts in the order of shards, then lets every partition say where it stands, as workers do.
  func restore(_ parts: [StoredPart], watermarks: [Int64]) throws {
    for part in parts {
      if let partition = part.partition {
        let task = partial(of: partition)
        guard task.operatorID == part.operatorID else { continue }
        var reader = StateReader(part.bytes)
        try task.restore(partition: partition, from: &reader)
      } else {
        for (shard, context) in contexts.enumerated() {
          let groups = KeyGroup.range(of: shard, shardCount: shardCount)
          guard part.groups?.overlaps(groups) == true else { continue }
          for task in context.statefulTasks where task.operatorID == part.operatorID {
            var reader = StateReader(part.bytes)
            try task.restore(from: &reader, scope: KeyScope(shard: shard, shardCount: shardCount))
          }
        }
      }
    }
    for (partition, watermark) in watermarks.enumerated() where watermark > beforeAllTime {
      advance(partition, to: watermark)
    }
  }
}

/// What partitions hold: rows in disorder of up to 10 s, and where their watermarks stand after each stretch.
struct TestInput {
  var partitions: Int
  /// Stretches in the order in which they are read.
  var steps: [(partition: Int, rows: [InputRow], watermark: Int64)] = []

  init(partitions: Int, steps count: Int, keys: Int, from start: Int64 = 1_000 * minute, _ random: inout SeededRandom) {
    self.partitions = partitions
    var fronts = Array(repeating: start, count: partitions)
    var high = Array(repeating: start, count: partitions)
    for _ in 0..<count {
      let partition = Int.random(in: 0..<partitions, using: &random)
      // Partitions do not run away from each other, and are silent for minutes at times.
      fronts[partition] = max(fronts[partition], (fronts.max() ?? start) - 90 * second)
      if Int.random(in: 0..<25, using: &random) == 0 { fronts[partition] += 7 * minute }
      let rows = (0..<Int.random(in: 0...40, using: &random)).map { _ in
        fronts[partition] += Int64.random(in: 0...2_000_000_000, using: &random)
        return randomRow(
          fronts[partition] - Int64.random(in: 0...8_000_000_000, using: &random), keys: keys, &random)
      }
      high[partition] = max(high[partition], rows.map(\.time).max() ?? start)
      steps.append((partition, rows, high[partition] - 10 * second))
    }
  }

  func run(_ engine: TestEngine, _ range: Range<Int>) {
    for step in steps[range] {
      engine.process(step.rows, partition: step.partition)
      engine.advance(step.partition, to: step.watermark)
    }
  }

  /// Behind every row that was read before step `count`.
  func front(before count: Int) -> Int64 {
    (steps[..<count].flatMap { $0.rows.map(\.time) }.max() ?? 0) + 1
  }

  func finish(_ engine: TestEngine) {
    for partition in 0..<partitions { engine.advance(partition, to: afterAllTime) }
  }
}
