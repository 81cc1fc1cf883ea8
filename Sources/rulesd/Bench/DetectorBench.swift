import CColumns
import Catalog
import Operators
import RuleLang
import Runtime
import Traffic

/// What detectors cost: rows of windows of many keys, as they come out of an `aggregate`, through one detector on one core. Neither
/// decoding nor windows are in it.
struct DetectorBench {
  /// 2026-11-21T03:00:00Z.
  private static let startNanos: Int64 = 1_795_230_000_000_000_000
  private static let minuteNanos: Int64 = 60_000_000_000
  /// Rows of windows are passed on this many at a time.
  private static let batchRows = 256

  private static let stages = [
    ("zscore_rolling_60", "zscore value by key baseline 60 windows smoothing none normalise none"),
    ("zscore_constant_memory", "zscore value by key baseline all smoothing none normalise none"),
    ("zscore_defaults", "zscore value by key"),
    ("changed", "changed value by key"),
    ("forecast_linear_60", "forecast value by key reaches 1000 within 4h"),
    ("absent", "absent after 5m"),
  ]

  let keys: Int
  let windows: Int

  /// One line a detector: its name and million rows a second.
  func run(_ environment: CommandEnvironment) throws {
    for (name, text) in Self.stages {
      let seconds = try measure(text)
      let rate = Double(keys * windows) / seconds / 1e6
      try environment.say("\(name) \((rate * 100).rounded() / 100)")
    }
  }

  private final class Sum: RowTask {
    var rows = 0
    override func process(_ batch: Batch, _ selection: Selection) { rows += selection.count }
  }

  private struct Count: RowTaskDefinition {
    func makeTask(_ context: TaskContext) -> RowTask { Sum() }
  }

  private func measure(_ text: String) throws -> Double {
    let stage = try makeStage(text)
    let task = stage.makeTask(
      TaskContext(shard: 0, shardCount: 1, batchRows: Self.batchRows, output: RecordWriter()))
    let batch = Batch(types: Array(stage.slotTypes.prefix(2)), computed: Array(stage.slotTypes.dropFirst(2)), capacity: Self.batchRows)
    let names = KeyNames(keys)
    var random = TrafficRandom(seed: 7)
    // The noise is made beforehand; every series takes it from another place.
    let noise = (0..<8_192).map { _ in Double(random.below(10_000)) / 100 }
    let started = monotonicNanos()
    for window in 0..<windows {
      let end = Self.startNanos + Int64(window + 1) * Self.minuteNanos
      var key = 0
      while key < keys {
        let count = min(Self.batchRows, keys - key)
        for row in 0..<count {
          batch.columns[0].strings[row] = names.texts[key + row]
          batch.columns[1].doubles[row] = noise[(key + row &* 31 &+ window &* 977) & 8_191]
          batch.times[row] = end - 1
        }
        batch.rowCount = count
        task.process(batch, batch.all)
        key += count
      }
      task.windowEnded(end)
    }
    return Double(monotonicNanos() - started) / 1e9
  }

  /// The stage that a rule's text becomes, over rows of a key and a value.
  private func makeStage(_ text: String) throws -> DetectorStage {
    let rules = """
      source samples { time ts  fields { ts: timestamp(ms), key: string, value: float } }
      stream minutes = samples | window tumbling 1m by key | aggregate value = avg(value)
      anomaly odd = minutes | \(text)
      """
    let result = compileRules([SourceFile(path: "bench.rules", text: rules)], catalog: makeCatalog(formats: []))
    guard let program = result.program, case .detector(let typed)? = program.streams.last?.stages.last,
      let spec = detectorSpec(typed.name)
    else { throw CommandFailure.environment("the bench's rules do not compile: \(text)") }
    let types = typed.columns.map(\.type.physical)
    return DetectorStage(
      operatorID: "bench", detector: makeDetector(spec, typed.settings), keySlots: [0], keyTypes: [.string], ownerSlots: [0],
      argument: typed.argument.map { _ in 1 }, argumentType: .float, outputs: types.indices.map { 2 + $0 }, outputTypes: types,
      slotTypes: [.string, .float64] + types, seriesMax: typed.seriesMax,
      forgetNanos: typed.settings.nanos("forget", in: spec), rows: RowSet(consumers: [Count()]))
  }
}

/// Names of keys as a window's group table holds them: with their hash.
private final class KeyNames {
  let texts: UnsafeMutablePointer<rd_string>
  private let bytes: UnsafeMutablePointer<UInt8>
  private static let length = 10

  init(_ count: Int) {
    texts = .allocate(capacity: count)
    bytes = .allocate(capacity: count * Self.length)
    for key in 0..<count {
      let start = bytes + key * Self.length
      let digits = "\(key)".utf8
      start.initialize(repeating: UInt8(ascii: "k"), count: Self.length)
      for (place, digit) in digits.suffix(Self.length).enumerated() { start[Self.length - min(digits.count, Self.length) + place] = digit }
      let hash = rd_hash_bytes(start, UInt32(Self.length))
      (texts + key).initialize(to: rd_string(data: UnsafePointer(start), length: UInt32(Self.length), hash: hash))
    }
  }

  deinit {
    texts.deallocate()
    bytes.deallocate()
  }
}
