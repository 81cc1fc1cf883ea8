import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// Episodes, and silence, across restarts with other numbers of workers: records are those of a run that never stopped.
@Suite struct AnomalyRestartTests {
  private static let minute: Int64 = 60_000_000_000
  private static let start: Int64 = 1_800_000_000_000_000_000
  private static let keys = (0..<12).map { "k\($0)" }

  private struct Setup {
    var detector: any Detector
    var types: [PhysicalType]
    var argument: Int?
    var forgetNanos: Int64 = 604_800_000_000_000
  }

  private static let setups = [
    "absent": Setup(
      detector: Absent(settings(["after": .duration(3 * minute)], hopNanos: minute)), types: [.int64, .float64, .bool],
      argument: nil, forgetNanos: 14 * minute),
    "changed": Setup(
      detector: Changed(settings(["warmup": .rows(4), "threshold": .number(3)])),
      types: [.float64, .float64, .float64, .bool], argument: 1),
  ]

  /// Tasks of all shards, and what they have written.
  private final class Shards {
    let contexts: [TaskContext]
    private let writers: [RecordWriter]
    private let tasks: [RowTask]
    private let batch: Batch
    private let pool = TextPool()

    init(_ setup: Setup, count: Int) {
      let slots = setup.types.indices.map { 2 + $0 }
      let anomaly = Anomaly(
        name: "odd", operatorID: "anomaly:odd", rule: 0, labels: [NamedSlot(name: "key", slot: 0, type: .string)],
        ownerSlots: [0], flag: slots[slots.count - 1],
        values: [NamedSlot(name: "second", slot: slots[1], type: setup.types[1] == .float64 ? .float : .int)],
        windowNanos: minute, missingNanos: Anomaly.missingWindowsMax * minute, offset: nil)
      let stage = DetectorStage(
        operatorID: "detector", detector: setup.detector, keySlots: [0], keyTypes: [.string], ownerSlots: [0],
        argument: setup.argument, argumentType: .float, outputs: slots, outputTypes: setup.types,
        slotTypes: [.string, .float64] + setup.types, seriesMax: 1_000, forgetNanos: setup.forgetNanos,
        rows: RowSet(consumers: [anomaly]))
      let writers = (0..<count).map { _ in RecordWriter() }
      contexts = writers.enumerated().map { TaskContext(shard: $0, shardCount: count, batchRows: 8, output: $1) }
      tasks = contexts.map { stage.makeTask($0) }
      self.writers = writers
      batch = Batch(types: [.string, .float64], computed: setup.types, capacity: 64)
    }

    /// Rows of one window, by key, and its end.
    func window(_ number: Int, _ rows: [(key: String, value: Double)]) {
      let end = start + Int64(number + 1) * minute
      for (shard, task) in tasks.enumerated() {
        var count = 0
        for row in rows {
          batch.columns[0].strings[count] = pool.string(row.key)
          batch.columns[1].doubles[count] = row.value
          batch.times[count] = end - 1
          if owner(count) == shard { count += 1 }
        }
        batch.rowCount = count
        if count > 0 { feed(task, count) }
        task.windowEnded(end)
      }
    }

    private func feed(_ task: RowTask, _ count: Int) {
      let all = batch.all
      var done = 0
      while done < count {
        let part = min(8, count - done)
        task.process(batch, Selection(rows: all.rows + done, count: part, isDense: false))
        done += part
      }
    }

    private func owner(_ row: Int) -> Int {
      var keys = KeyColumns()
      var place = Int32(row)
      var hash: UInt64 = 0
      keys.bind(batch, slots: [0])
      keys.hashRows(&place, count: 1, into: &hash)
      return KeyGroup.owner(hash, shardCount: tasks.count)
    }

    func end() {
      for task in tasks { task.inputEnded() }
    }

    var isQuiet: Bool { tasks.allSatisfy(\.isQuiet) }

    func lines() -> [String] {
      writers.flatMap { writer in
        let sorted = writer.drain()
        return sorted.order.map { place in
          let entry = sorted.batch.entries[place]
          return String(decoding: sorted.batch.bytes[entry.start..<entry.start + entry.length], as: UTF8.self)
        }
      }.sorted()
    }

    func capture() -> [String: [[UInt8]]] {
      var parts: [String: [[UInt8]]] = [:]
      for task in contexts.flatMap(\.statefulTasks) {
        guard let capture = task.capture() else { continue }
        let writer = StateWriter()
        capture.encode(into: writer)
        parts[task.operatorID, default: []].append(writer.bytes)
      }
      return parts
    }

    func restore(_ parts: [String: [[UInt8]]]) throws {
      for context in contexts {
        for task in context.statefulTasks {
          for part in parts[task.operatorID] ?? [] {
            var reader = StateReader(part)
            try task.restore(from: &reader, scope: KeyScope(shard: context.shard, shardCount: context.shardCount))
          }
        }
      }
    }
  }

  /// Windows in which keys come, go and change their level.
  private static func windows() -> [[(key: String, value: Double)]] {
    var random = SeededRandom(21)
    var silentUntil = [Int](repeating: 0, count: keys.count)
    return (0..<50).map { number in
      keys.enumerated().compactMap { index, key in
        if silentUntil[index] > number { return nil }
        if random.below(14) == 0 { silentUntil[index] = number + 1 + random.below(20) }
        let level = (number / (9 + index % 5)) % 2 == 0 ? 10.0 : 40
        return (key, level + Double(random.below(100)) / 50)
      }
    }
  }

  private func run(_ setup: Setup, shards: Int, restartAt: Int? = nil, with newShards: Int = 1) throws -> [String] {
    var parts = Shards(setup, count: shards)
    var lines: [String] = []
    for (number, rows) in Self.windows().enumerated() {
      if number == restartAt {
        let state = parts.capture()
        lines += parts.lines()
        parts = Shards(setup, count: newShards)
        try parts.restore(state)
      }
      parts.window(number, rows)
    }
    // The input ends; what is open is over ten windows later, and nobody is missed any more.
    parts.end()
    for number in 50..<62 where !parts.isQuiet { parts.window(number, []) }
    #expect(parts.isQuiet)
    return (lines + parts.lines()).sorted()
  }

  @Test(arguments: setups.keys.sorted()) func recordsAreThoseOfARunThatNeverStopped(_ name: String) throws {
    let setup = try #require(Self.setups[name])
    let expected = try run(setup, shards: 1)
    let firing = expected.filter { $0.contains("\"state\":\"firing\"") }
    let resolved = expected.filter { $0.contains("\"state\":\"resolved\"") }
    #expect(firing.count > 10 && firing.count == resolved.count, "\(firing.count) \(resolved.count)")
    #expect(try run(setup, shards: 4) == expected)
    for restartAt in stride(from: 1, to: 50, by: 3) {
      #expect(try run(setup, shards: 1, restartAt: restartAt, with: 3) == expected, "at \(restartAt)")
      #expect(try run(setup, shards: 3, restartAt: restartAt, with: 2) == expected, "at \(restartAt)")
    }
  }
}
