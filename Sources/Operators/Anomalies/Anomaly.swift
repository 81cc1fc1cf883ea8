import Catalog
import Runtime

/// `anomaly name = pipeline`: one record when an episode of a series begins, one when it ends.
///
/// Behind a detector an episode lasts while `is_anomaly` is true. Over windows without one, a series is out of the ordinary
/// while it has a row. Records without one, such as the first line of a new log pattern, are an episode each that ends at once
/// and of which only the beginning is told.
public struct Anomaly: RowTaskDefinition {
  /// Windows without a row of its series after which an open anomaly behind a detector is taken to be over.
  public static let missingWindowsMax: Int64 = 10

  public var name: String
  /// See `StatefulTask.operatorID`.
  public var operatorID: String
  /// Rank among the graph's rules.
  public var rule: Int32
  /// They tell one series from another.
  public var labels: [NamedSlot]
  /// Slots by whose hash rows have their shard.
  public var ownerSlots: [Int]
  /// Slot of `is_anomaly`; nil where every row is one.
  public var flag: Int?
  public var values: [NamedSlot]
  /// 0 for records.
  public var windowNanos: Int64
  /// How long a series may have no row before its episode is over.
  public var missingNanos: Int64
  /// Of records: slot of their offset, which tells records of one time apart.
  public var offset: Int?

  public init(
    name: String, operatorID: String, rule: Int32, labels: [NamedSlot], ownerSlots: [Int], flag: Int?,
    values: [NamedSlot], windowNanos: Int64, missingNanos: Int64, offset: Int?
  ) {
    self.name = name
    self.operatorID = operatorID
    self.rule = rule
    self.labels = labels
    self.ownerSlots = ownerSlots
    self.flag = flag
    self.values = values
    self.windowNanos = windowNanos
    self.missingNanos = missingNanos
    self.offset = offset
  }

  public func makeTask(_ context: TaskContext) -> RowTask {
    flag == nil && windowNanos == 0 ? EventTask(self, context) : AnomalyTask(self, context)
  }
}

extension Anomaly {
  /// `"labels":{…}`
  func appendLabels(_ batch: Batch, _ row: Int, to bytes: inout some TextOutput & ~Copyable) {
    bytes.append(json: "\"labels\":{")
    _ = bytes.appendLabels(labels, batch, row)
    bytes.append(UInt8(ascii: "}"))
  }

  /// `"values":{…}`
  func appendValues(_ batch: Batch, _ row: Int, to bytes: inout some TextOutput & ~Copyable) {
    bytes.append(json: "\"values\":{")
    for (index, value) in values.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: value.name)
      bytes.append(UInt8(ascii: ":"))
      bytes.appendJSON(batch.columns[value.slot], row, type: value.type)
    }
    bytes.append(UInt8(ascii: "}"))
  }
}

/// Records that are an episode each.
private final class EventTask: RowTask {
  private let definition: Anomaly
  private let output: RecordWriter
  private let origin: RecordOrigin

  init(_ definition: Anomaly, _ context: TaskContext) {
    self.definition = definition
    output = context.output
    origin = RecordOrigin(.anomaly, rule: definition.rule, name: definition.name)
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      // As for rows of windows, the record lies one nanosecond behind the row: what the watermark has passed is out.
      let time = batch.times[row] + 1
      output.open(origin, time: time) { key in
        key.appendKey(definition.labels, batch, row)
        if let offset = definition.offset {
          key.append(0x1F)
          key.append(json: batch.columns[offset].ints[row])
        }
      }
      output.append { bytes in
        bytes.append(json: ",\"state\":\"firing\",")
        definition.appendLabels(batch, row, to: &bytes)
        bytes.append(UInt8(ascii: ","))
        definition.appendValues(batch, row, to: &bytes)
      }
      output.close(origin, time: time)
    }
  }
}

/// Follows the episodes of each series.
final class AnomalyTask: RowTask {
  /// An open episode.
  struct Episode {
    /// Time of its first record.
    var since: Int64
    /// The last evaluation at which the series had a row.
    var seen: Int64
    /// By which the series has its shard.
    var hash: UInt64
    /// `"labels":{…}`, made once.
    var labels: [UInt8]
    /// `"values":{…}` of its last row.
    var values: [UInt8]
  }

  let definition: Anomaly
  private let output: RecordWriter
  private let origin: RecordOrigin
  var open: [[UInt8]: Episode] = [:]
  private var key: [UInt8] = []
  private var keyColumns = KeyColumns()

  init(_ definition: Anomaly, _ context: TaskContext) {
    self.definition = definition
    output = context.output
    origin = RecordOrigin(.anomaly, rule: definition.rule, name: definition.name)
    super.init()
    context.register(stateful: self)
  }

  override var isQuiet: Bool { open.isEmpty }
  /// What a detector has learnt is not learnt again from the rows since an episode began: only what depends on windows alone
  /// can be rebuilt from them.
  override var holdSince: Int64? { definition.flag == nil ? open.values.map(\.since).min() : nil }
  override var stateSize: (keys: Int, bytes: Int) {
    (open.count, open.reduce(0) { $0 + 96 + $1.key.count + $1.value.labels.count + $1.value.values.count })
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    let flags = definition.flag.map { batch.columns[$0] }
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      let isAnomaly = flags.map { $0.bools[row] != 0 && (!$0.hasNulls || $0.validity[row] != 0) } ?? true
      // Most series are neither out of the ordinary nor have been, and cost nothing more.
      if !isAnomaly && open.isEmpty { continue }
      key.removeAll(keepingCapacity: true)
      key.appendKey(definition.labels, batch, row)
      evaluate(isAnomaly, at: batch.times[row] + 1, batch, row)
    }
  }

  private func evaluate(_ isAnomaly: Bool, at time: Int64, _ batch: Batch, _ row: Int) {
    var episode: Episode
    if let known = open[key] {
      episode = known
    } else {
      guard isAnomaly else { return }
      episode = Episode(since: time, seen: time, hash: hash(batch, row), labels: [], values: [])
      definition.appendLabels(batch, row, to: &episode.labels)
    }
    let isNew = episode.values.isEmpty
    episode.seen = time
    episode.values.removeAll(keepingCapacity: true)
    definition.appendValues(batch, row, to: &episode.values)
    if isNew { write("firing", episode, key: key, time: time) }
    if !isAnomaly { write("resolved", episode, key: key, time: time) }
    open[key] = isAnomaly ? episode : nil
  }

  override func windowEnded(_ end: Int64) {
    guard !open.isEmpty else { return }
    let missing = open.filter { $0.value.seen < end && end - $0.value.seen >= definition.missingNanos }.keys
      .sorted { $0.lexicographicallyPrecedes($1) }
    for key in missing {
      guard let episode = open.removeValue(forKey: key) else { continue }
      write("resolved", episode, key: key, time: end)
    }
  }

  private func hash(_ batch: Batch, _ row: Int) -> UInt64 {
    var place = Int32(row)
    var hash: UInt64 = 0
    keyColumns.bind(batch, slots: definition.ownerSlots)
    keyColumns.hashRows(&place, count: 1, into: &hash)
    return hash
  }

  private func write(_ state: StaticString, _ episode: Episode, key: [UInt8], time: Int64) {
    output.open(origin, time: time, windowNanos: definition.windowNanos) { $0.append(bytes: key) }
    output.append { bytes in
      bytes.append(json: ",\"state\":\"")
      bytes.append(json: state)
      bytes.append(json: "\",\"since\":")
      bytes.append(jsonTime: episode.since)
      bytes.append(UInt8(ascii: ","))
      bytes.append(bytes: episode.labels)
      bytes.append(UInt8(ascii: ","))
      bytes.append(bytes: episode.values)
    }
    output.close(origin, time: time)
  }
}

// MARK: State

/// The open episodes, as a checkpoint keeps them.
extension AnomalyTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func capture() -> (any StateCapture)? { open.isEmpty ? nil : AnomalyCapture(open: open) }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: AnomalyCapture.version, of: "anomalies")
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let key = try reader.counted()
      let hash = try reader.integer(UInt64.self)
      let episode = Episode(
        since: try reader.time(), seen: try reader.time(), hash: hash, labels: try reader.counted(),
        values: try reader.counted())
      if scope.owns(hash) { open[key] = episode }
    }
    guard reader.isAtEnd else { throw StateCorruption("the anomalies of the state have bytes behind them") }
  }
}

private struct AnomalyCapture: StateCapture {
  static let version: UInt16 = 1
  let open: [[UInt8]: AnomalyTask.Episode]

  var keyCount: Int { open.count }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(UInt32(open.count))
    for (key, episode) in open.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      writer.append(key)
      writer.append(episode.hash)
      writer.append(episode.since)
      writer.append(episode.seen)
      writer.append(episode.labels)
      writer.append(episode.values)
    }
  }
}
