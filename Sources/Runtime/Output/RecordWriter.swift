import CColumns

/// Collects output records with what they are ordered by: time, rule, key.
///
/// One a shard (and one a worker for late rows and dead letters). A record is opened, its members are appended to
/// `bytes`, and it is closed.
public final class RecordWriter {
  public private(set) var pending = OutputBatch()
  private(set) var times: [Int64] = []
  /// Records at or before this time were written before a restart and are dropped.
  public var suppressThrough = beforeAllTime
  private var openStart = 0
  private var openKeyStart = 0

  public init() {}

  public var isEmpty: Bool { pending.entries.isEmpty }

  /// Opens a record and writes everything up to its labels:
  /// `{"type":…,"rule":…,"time":…,"window":{"start":…,"end":…},"labels":{`. `time` nil prints as null.
  ///
  /// `key` orders the record among those of its rule and time, and partitions it on Kafka.
  public func open(
    _ kind: RecordKind, ruleName: String, time: Int64?, window: (start: Int64, end: Int64)?,
    key: some Collection<UInt8>
  ) {
    openStart = pending.bytes.count
    openKeyStart = pending.keys.count
    pending.keys.append(contentsOf: key)
    pending.bytes.append(json: "{\"type\":\"")
    pending.bytes.append(contentsOf: kind.name.utf8)
    pending.bytes.append(json: "\",\"rule\":")
    pending.bytes.append(jsonString: ruleName)
    pending.bytes.append(json: ",\"time\":")
    append(time: time)
    if let window {
      pending.bytes.append(json: ",\"window\":{\"start\":")
      append(time: window.start)
      pending.bytes.append(json: ",\"end\":")
      append(time: window.end)
      pending.bytes.append(json: "}")
    }
  }

  /// Writes members of the open record.
  @inlinable public func append(_ write: (inout [UInt8]) -> Void) { write(&bytesOfOpenRecord) }

  @usableFromInline var bytesOfOpenRecord: [UInt8] {
    get { pending.bytes }
    _modify { yield &pending.bytes }
  }

  private func append(time: Int64?) {
    guard let time else { return pending.bytes.append(json: "null") }
    pending.bytes.append(UInt8(ascii: "\""))
    appendTimestamp(time, to: &pending.bytes)
    pending.bytes.append(UInt8(ascii: "\""))
  }

  /// Adds the id (a hash of kind, rule, key and time: the same event has the same id in every run) and ends the record.
  /// `orderTime` is its place in the order, where that is not its time.
  public func close(
    _ kind: RecordKind, rule: Int32, ruleName: String, time: Int64, orderTime: Int64? = nil,
    topic: Int32 = -1
  ) {
    let place = orderTime ?? time
    if place <= suppressThrough, suppressThrough != beforeAllTime {
      pending.bytes.removeSubrange(openStart...)
      pending.keys.removeSubrange(openKeyStart...)
      return
    }
    pending.bytes.append(json: ",\"id\":\"")
    appendIdentity(kind, ruleName: ruleName, time: time)
    pending.bytes.append(json: "\"}")
    pending.entries.append(
      OutputBatch.Entry(
        kind: kind, rule: rule, topic: topic, start: openStart,
        length: pending.bytes.count - openStart, keyStart: openKeyStart,
        keyLength: pending.keys.count - openKeyStart))
    times.append(place)
  }

  private func appendIdentity(_ kind: RecordKind, ruleName: String, time: Int64) {
    var text: [UInt8] = []
    text.append(contentsOf: kind.name.utf8)
    text.append(0x1F)
    text.append(contentsOf: ruleName.utf8)
    text.append(0x1F)
    text.append(contentsOf: pending.keys[openKeyStart...])
    withUnsafeBytes(of: time.littleEndian) { text.append(contentsOf: $0) }
    for salt in [UInt8(1), 2] {
      text.append(salt)
      let hash = text.withUnsafeBufferPointer { rd_hash64($0.baseAddress, UInt32($0.count)) }
      for shift in stride(from: 60, through: 0, by: -4) {
        pending.bytes.append(hexDigit(UInt8(truncatingIfNeeded: hash >> UInt64(shift)) & 15))
      }
    }
  }

  /// Moves out what lies at or before `bound`, sorted by (time, rule, key); equal ones stay in the order in which they
  /// were written.
  func drain(through bound: Int64 = afterAllTime) -> SortedRecords {
    let taken = pending.entries.indices.filter { times[$0] <= bound }
    var order = taken
    let isSorted = zip(order, order.dropFirst()).allSatisfy { !isBefore($1, $0) }
    if !isSorted { order.sort { isBefore($0, $1) || (!isBefore($1, $0) && $0 < $1) } }
    let records = SortedRecords(batch: pending, times: times, order: order)
    if taken.count == pending.entries.count {
      pending = OutputBatch()
      times = []
    } else {
      keepOnly { self.times[$0] > bound }
    }
    return records
  }

  private func keepOnly(_ isKept: (Int) -> Bool) {
    var kept = OutputBatch()
    var keptTimes: [Int64] = []
    for index in pending.entries.indices where isKept(index) {
      var entry = pending.entries[index]
      let start = kept.bytes.count
      let keyStart = kept.keys.count
      kept.bytes.append(contentsOf: pending.bytes[entry.start..<entry.start + entry.length])
      kept.keys.append(contentsOf: pending.keys[entry.keyStart..<entry.keyStart + entry.keyLength])
      entry.start = start
      entry.keyStart = keyStart
      kept.entries.append(entry)
      keptTimes.append(times[index])
    }
    pending = kept
    times = keptTimes
  }

  private func isBefore(_ a: Int, _ b: Int) -> Bool {
    if times[a] != times[b] { return times[a] < times[b] }
    return recordIsBefore(pending, pending.entries[a], pending, pending.entries[b])
  }
}

/// The order of two records of the same time: by rule, then by key.
func recordIsBefore(
  _ a: OutputBatch, _ x: OutputBatch.Entry, _ b: OutputBatch, _ y: OutputBatch.Entry
) -> Bool {
  if x.rule != y.rule { return x.rule < y.rule }
  return a.keys[x.keyStart..<x.keyStart + x.keyLength].lexicographicallyPrecedes(
    b.keys[y.keyStart..<y.keyStart + y.keyLength])
}

/// Records in order: `order` walks `batch.entries`.
struct SortedRecords {
  var batch: OutputBatch
  var times: [Int64]
  var order: [Int]
}
