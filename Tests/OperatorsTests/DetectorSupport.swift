import CColumns
import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// Rows of series, and what a detector says of them, however the work is divided.
struct DetectorTrial {
  struct Row {
    var time: Int64
    var key: String
    /// Nil for null.
    var value: Double?
  }

  /// What comes out for a row: the columns in the order of the spec, nil for null; a flag as 0 or 1.
  struct Result: Equatable {
    var time: Int64
    var key: String
    var columns: [Double?]
  }

  var detector: any Detector
  var seriesMax = 1_000_000
  var forgetNanos: Int64 = 604_800_000_000_000

  private static let valueSlots = 2

  private var spec: DetectorSpec { type(of: detector).spec }
  private var types: [PhysicalType] { spec.columns.map { $0.type(argument: .float).physical } }

  private func stage(_ seen: Seen) -> DetectorStage {
    DetectorStage(
      operatorID: "test", detector: detector, keySlots: [0], keyTypes: [.string], ownerSlots: [0], argument: 1,
      argumentType: .float, outputs: types.indices.map { Self.valueSlots + $0 }, outputTypes: types,
      slotTypes: [.string, .float64] + types, seriesMax: seriesMax, forgetNanos: forgetNanos,
      rows: RowSet(consumers: [Collector(seen: seen, width: types.count)]))
  }

  final class Seen: @unchecked Sendable {
    // @unchecked: a test's one thread.
    var results: [Result] = []
  }

  private struct Collector: RowTaskDefinition {
    let seen: Seen
    let width: Int
    func makeTask(_ context: TaskContext) -> RowTask { Task(seen, width) }
    final class Task: RowTask {
      let seen: Seen
      let width: Int
      init(_ seen: Seen, _ width: Int) {
        self.seen = seen
        self.width = width
      }
      override func process(_ batch: Batch, _ selection: Selection) {
        for index in 0..<selection.count {
          let row = Int(selection.rows[index])
          let text = batch.columns[0].strings[row]
          let key = String(decoding: UnsafeBufferPointer(start: text.data, count: Int(text.length)), as: UTF8.self)
          let columns = (0..<width).map { place -> Double? in
            let column = batch.columns[DetectorTrial.valueSlots + place]
            if column.hasNulls, column.validity[row] == 0 { return nil }
            return column.type == .bool ? Double(column.bools[row]) : column.doubles[row]
          }
          seen.results.append(Result(time: batch.times[row], key: key, columns: columns))
        }
      }
    }
  }

  /// Tasks of all shards.
  final class Shards {
    let tasks: [RowTask]
    let seen = Seen()
    private let batch: Batch
    private let pool = TextPool()

    init(_ trial: DetectorTrial, shards: Int, batchRows: Int) {
      let stage = trial.stage(seen)
      tasks = (0..<shards).map {
        stage.makeTask(TaskContext(shard: $0, shardCount: shards, batchRows: batchRows, output: RecordWriter()))
      }
      batch = Batch(types: [.string, .float64], computed: trial.types, capacity: batchRows)
    }

    /// Rows in the order of time, each to the shard that owns its key.
    func feed(_ rows: [Row]) {
      var next = 0
      while next < rows.count {
        let part = rows[next..<min(next + batch.capacity, rows.count)]
        for (index, row) in part.enumerated() {
          batch.times[index] = row.time
          batch.columns[0].strings[index] = pool.string(row.key)
          batch.columns[1].doubles[index] = row.value ?? .nan
          batch.columns[1].validity[index] = row.value == nil ? 0 : 1
        }
        batch.columns[1].hasNulls = true
        batch.rowCount = part.count
        for (shard, task) in tasks.enumerated() {
          var mine = (0..<Int32(part.count)).filter { owner($0) == shard }
          let count = mine.count
          mine.withUnsafeMutableBufferPointer { rows in
            guard let base = rows.baseAddress else { return }
            task.process(batch, Selection(rows: base, count: count, isDense: false))
          }
        }
        next += part.count
      }
    }

    private func owner(_ row: Int32) -> Int {
      var keys = KeyColumns()
      var row = row
      var hash: UInt64 = 0
      keys.bind(batch, slots: [0])
      keys.hashRows(&row, count: 1, into: &hash)
      return KeyGroup.owner(hash, shardCount: tasks.count)
    }

    /// What a checkpoint would hold, a part a shard.
    func capture() -> [[UInt8]] {
      tasks.compactMap { task in
        guard let capture = (task as? any StatefulTask)?.capture() else { return nil }
        let writer = StateWriter()
        capture.encode(into: writer)
        return writer.bytes
      }
    }

    func restore(_ parts: [[UInt8]]) throws {
      for (shard, task) in tasks.enumerated() {
        for part in parts {
          var reader = StateReader(part)
          try (task as? any StatefulTask)?.restore(from: &reader, scope: KeyScope(shard: shard, shardCount: tasks.count))
        }
      }
    }
  }

  /// Results in the order of (time, key, order of coming).
  func run(_ rows: [Row], shards: Int = 1, batchRows: Int = 256, restartAt: Int? = nil, with newShards: Int = 1) throws -> [Result] {
    let first = Shards(self, shards: shards, batchRows: batchRows)
    guard let restartAt else {
      first.feed(rows)
      return Self.sorted(first.seen.results)
    }
    first.feed(Array(rows[..<restartAt]))
    let parts = first.capture()
    // What happens behind the capture must not be in it.
    let taken = first.seen.results
    let second = Shards(self, shards: newShards, batchRows: batchRows)
    try second.restore(parts)
    second.feed(Array(rows[restartAt...]))
    return Self.sorted(taken + second.seen.results)
  }

  static func sorted(_ results: [Result]) -> [Result] {
    results.enumerated().sorted { a, b in
      (a.element.time, a.element.key, a.offset) < (b.element.time, b.element.key, b.offset)
    }.map(\.element)
  }

  /// Series that wander, jump and fall silent, one row of each about every `stepNanos`.
  static func rows(seed: UInt64, keys: Int, count: Int, stepNanos: Int64, nulls: Bool = true) -> [Row] {
    var random = SeededRandom(seed)
    var rows: [Row] = []
    for index in 0..<count {
      for key in 0..<keys where random.below(20) > 0 {
        let time = 1_800_000_000_000_000_000 + Int64(index) * stepNanos + Int64(key)
        let level = key % 3 == 2 ? 7.0 : 100 + 20 * Double(index % 7) + (index > count / 2 ? 60 : 0)
        let noise = key % 3 == 2 ? 0 : Double(random.below(2_000)) / 100
        let spike = random.below(40) == 0 ? 300.0 : 0
        rows.append(
          Row(time: time, key: "k\(key)", value: nulls && random.below(25) == 0 ? nil : level + noise + spike))
      }
    }
    return rows
  }
}

extension SeededRandom {
  mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

func settings(
  _ given: [String: DetectorValue] = [:], members: [DetectorSettings.Member] = [], hopNanos: Int64 = 0
) -> DetectorSettings {
  DetectorSettings(given: given, members: members, hopNanos: hopNanos, argumentType: .float)
}
