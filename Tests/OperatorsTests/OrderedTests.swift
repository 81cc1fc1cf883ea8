import CColumns
import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// Numbers the rows of each key, and remembers the number and the offset of the row before.
private struct Numbering: OrderedOperator {
  var outputTypes: [PhysicalType] { [.int64, .int64] }
  func makeTask(batchRows: Int) -> OrderedOperatorTask { Task() }

  final class State: OrderedState, @unchecked Sendable {
    var number: Int64 = 0
    var last: Int64 = -1
    override func encode(into writer: StateWriter) {
      writer.append(number)
      writer.append(last)
    }
    override func copy() -> OrderedState {
      let copy = State()
      copy.number = number
      copy.last = last
      return copy
    }
  }

  final class Task: OrderedOperatorTask {
    override func makeState() -> OrderedState { State() }
    override func restoreState(from reader: inout StateReader) throws -> OrderedState {
      let state = State()
      state.number = try reader.integer()
      state.last = try reader.integer()
      return state
    }
    override func process(
      _ batch: Batch, firstOutput: Int, groups: UnsafePointer<Int32>, states: UnsafePointer<Unmanaged<OrderedState>>
    ) {
      for row in 0..<batch.rowCount {
        guard let state = states[Int(groups[row])].takeUnretainedValue() as? State else { continue }
        state.number += 1
        batch.columns[firstOutput].ints[row] = state.number
        batch.columns[firstOutput + 1].ints[row] = state.last
        state.last = batch.columns[firstOutput - 1].ints[row]
      }
    }
  }
}

/// One source with all its partitions on the first of some workers, and a shard on each.
private final class OrderedEngine {
  let contexts: [TaskContext]
  let partial: OrderedPartialTask
  let keyed: [OrderedTask]
  var watermarks: [Int64]
  private let records: RecordBatch
  private let batch: Batch
  private let pool = TextPool()

  init(_ seen: SeenLines, shards: Int, partitions: Int, batchRows: Int) {
    contexts = (0..<shards).map {
      TaskContext(shard: $0, shardCount: shards, batchRows: batchRows, output: RecordWriter())
    }
    for context in contexts { context.partitionNames = (0..<partitions).map { "p\($0)" } }
    let exchange = OrderedExchange(
      exchange: 0, operatorID: "test", carried: [
        .init(slot: 1, type: .string, identity: "key"), .init(slot: 2, type: .float64, identity: "value"),
      ], keys: [0], operation: Numbering(), rows: RowSet(consumers: [RowCollecting(seen: seen) { "\($0) " + $1.joined(separator: " ") }]))
    partial = OrderedPartialTask(exchange, contexts[0])
    keyed = contexts.map { OrderedTask(exchange, $0) }
    watermarks = Array(repeating: beforeAllTime, count: partitions)
    func field(_ name: String, _ type: ValueType) -> DecodedField {
      DecodedField(name: name, path: [name], type: type, unit: .native, absence: .null, wantsHash: false)
    }
    let schema = SourceSchema(
      name: "s", index: 0, topic: nil, format: "json",
      fields: [field("ts", .timestamp), field("key", .string), field("value", .float)], timeField: 0, boundNanos: 10,
      idleNanos: 0, maxAheadNanos: 0)
    records = RecordBatch(schema: schema, capacity: 64)
    batch = Batch(over: records, computed: [])
  }

  struct Row {
    var time: Int64
    var key: String?
    var value: Double
    var offset: Int64
  }

  func feed(_ rows: [Row], partition: Int) {
    records.clear()
    for (row, given) in rows.enumerated() {
      records.columns[0].ints[row] = given.time
      records.columns[1].validity[row] = given.key == nil ? 0 : 1
      if given.key == nil { records.columns[1].hasNulls = true }
      records.columns[1].strings[row] = given.key.map { pool.string($0) } ?? rd_string()
      records.columns[2].doubles[row] = given.value
      records.offsets[row] = given.offset
    }
    records.rowCount = rows.count
    batch.rowCount = rows.count
    batch.partition = partition
    partial.process(batch, batch.all)
  }

  func progress(_ partition: Int, to watermark: Int64) {
    watermarks[partition] = watermark
    partial.closePanes(partition: partition, watermark: watermark) { pane in
      for task in keyed { task.accept(pane, partition: partition) }
    }
    let combined = watermarks.min() ?? afterAllTime
    for task in keyed { task.advance(to: combined) }
  }

  func capture() -> [(isKeyed: Bool, partition: Int, capture: any StateCapture)] {
    var captures: [(Bool, Int, any StateCapture)] = []
    for partition in watermarks.indices {
      if let capture = partial.capture(partition: partition) { captures.append((false, partition, capture)) }
    }
    for task in keyed { if let capture = task.capture() { captures.append((true, 0, capture)) } }
    return captures
  }

  func restore(_ parts: [(isKeyed: Bool, partition: Int, bytes: [UInt8])], watermarks: [Int64]) throws {
    for part in parts {
      var reader = StateReader(part.bytes)
      if !part.isKeyed {
        try partial.restore(partition: part.partition, from: &reader)
        continue
      }
      for (shard, task) in keyed.enumerated() {
        var reader = StateReader(part.bytes)
        try task.restore(from: &reader, scope: KeyScope(shard: shard, shardCount: keyed.count))
      }
    }
    self.watermarks = watermarks
  }
}

@Suite struct OrderedTests {
  private struct Step {
    var partition: Int
    var rows: [OrderedEngine.Row]
    var watermark: Int64
  }

  private static func steps(_ random: inout SeededRandom, partitions: Int) -> [Step] {
    var steps: [Step] = []
    var offsets = Array(repeating: Int64(0), count: partitions)
    var fronts = Array(repeating: Int64(1_000), count: partitions)
    for _ in 0..<60 {
      let partition = Int.random(in: 0..<partitions, using: &random)
      let rows = (0..<Int.random(in: 1...20, using: &random)).map { _ in
        fronts[partition] += Int64.random(in: 0...3, using: &random)
        offsets[partition] += Int64.random(in: 1...2, using: &random)
        return OrderedEngine.Row(
          time: fronts[partition] - Int64.random(in: 0...9, using: &random),
          key: Int.random(in: 0..<12, using: &random) == 0 ? nil : "key\(Int.random(in: 0..<7, using: &random))",
          value: Double(Int.random(in: 0..<5, using: &random)), offset: offsets[partition])
      }
      steps.append(Step(partition: partition, rows: rows, watermark: fronts[partition] - 10))
    }
    return steps
  }

  /// The slow obvious way: all rows sorted, then numbered.
  private static func expected(_ steps: [Step]) -> [String] {
    var all: [(row: OrderedEngine.Row, partition: Int)] = []
    for step in steps { all += step.rows.map { ($0, step.partition) } }
    all.sort { ($0.row.time, $0.partition, $0.row.offset) < ($1.row.time, $1.partition, $1.row.offset) }
    var numbers: [String?: Int64] = [:]
    var last: [String?: Int64] = [:]
    return all.map { row, partition in
      let number = numbers[row.key, default: 0] + 1
      numbers[row.key] = number
      let before = last[row.key] ?? -1
      last[row.key] = row.offset
      let key = row.key.map { "\"\($0)\"" } ?? "null"
      return "\(row.time) \(key) \(row.value) \(partition) \(row.offset) \(number) \(before)"
    }
  }

  @Test(arguments: [1, 2, 3, 8], [1, 7, 64])
  func rowsComeInTheirOrder(_ shards: Int, _ batchRows: Int) {
    for seed in 0..<6 {
      var random = SeededRandom(UInt64(seed) &+ 31)
      let steps = Self.steps(&random, partitions: 3)
      let seen = SeenLines()
      let engine = OrderedEngine(seen, shards: shards, partitions: 3, batchRows: 64)
      for step in steps {
        for start in stride(from: 0, to: step.rows.count, by: batchRows) {
          engine.feed(Array(step.rows[start..<min(step.rows.count, start + batchRows)]), partition: step.partition)
        }
        engine.progress(step.partition, to: step.watermark)
      }
      for partition in 0..<3 { engine.progress(partition, to: afterAllTime) }
      if shards == 1 { #expect(seen.lines == Self.expected(steps)) }
      // Shards go on side by side; each key's rows are in order, which their numbers say.
      #expect(seen.lines.sorted() == Self.expected(steps).sorted())
    }
  }

  @Test(arguments: 0..<12) func restoredRunsGoOnUnchanged(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed) &+ 900)
    let steps = Self.steps(&random, partitions: 3)
    let seen = SeenLines()
    var engine = OrderedEngine(seen, shards: 2, partitions: 3, batchRows: 64)
    for (index, step) in steps.enumerated() {
      engine.feed(step.rows, partition: step.partition)
      // Sometimes the watermark stays: rows lie at the partition then.
      if index % 3 != 1 { engine.progress(step.partition, to: step.watermark) }
      guard index % 13 == 7 else { continue }
      let captures = engine.capture()
      let watermarks = engine.watermarks
      let known = seen.lines.count
      // What comes behind the barrier changes nothing of the capture, encoded afterwards.
      for later in steps[(index + 1)...].prefix(5) {
        engine.feed(later.rows, partition: later.partition)
        engine.progress(later.partition, to: later.watermark)
      }
      seen.lines.removeSubrange(known...)
      let parts = captures.map { isKeyed, partition, capture in
        let writer = StateWriter()
        capture.encode(into: writer)
        let again = StateWriter()
        capture.encode(into: again)
        #expect(writer.bytes == again.bytes)
        return (isKeyed: isKeyed, partition: partition, bytes: writer.bytes)
      }
      let shards = [1, 2, 5, 8][Int.random(in: 0..<4, using: &random)]
      engine = OrderedEngine(seen, shards: shards, partitions: 3, batchRows: 64)
      try engine.restore(parts, watermarks: watermarks)
    }
    for partition in 0..<3 { engine.progress(partition, to: afterAllTime) }
    #expect(seen.lines.sorted() == Self.expected(steps).sorted())
  }

  @Test func damagedStateIsRefusedOrReadWhole() throws {
    var random = SeededRandom(7)
    let steps = Self.steps(&random, partitions: 3)
    let engine = OrderedEngine(SeenLines(), shards: 1, partitions: 3, batchRows: 64)
    for step in steps.prefix(20) {
      engine.feed(step.rows, partition: step.partition)
      if step.partition != 2 { engine.progress(step.partition, to: step.watermark) }
    }
    for (isKeyed, partition, capture) in engine.capture() {
      let writer = StateWriter()
      capture.encode(into: writer)
      for length in stride(from: 0, to: writer.bytes.count, by: 5) {
        let other = OrderedEngine(SeenLines(), shards: 1, partitions: 3, batchRows: 64)
        let cut = (isKeyed: isKeyed, partition: partition, bytes: Array(writer.bytes.prefix(length)))
        var isRefused = false
        do { try other.restore([cut], watermarks: engine.watermarks) } catch { isRefused = true }
        #expect(isRefused, "cut at \(length)")
      }
      for _ in 0..<500 {
        var bytes = writer.bytes
        bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        let other = OrderedEngine(SeenLines(), shards: 1, partitions: 3, batchRows: 64)
        do { try other.restore([(isKeyed, partition, bytes)], watermarks: engine.watermarks) } catch { continue }
        for partition in 0..<3 { other.progress(partition, to: afterAllTime) }
      }
    }
  }
}
