import CColumns

/// Who makes a record: made once by a task, so that a record costs only what is its own.
public struct RecordOrigin: Sendable {
  let kind: RecordKind
  /// Index among the graph's rules.
  let rule: Int32
  /// Index among the graph's topics, or -1.
  let topic: Int32
  /// `{"type":"metric","rule":"name","time":`
  let head: [UInt8]
  /// What Kafka partitions a record by that has no labels: the rule's name, so that its records stay in order.
  let keyWithoutLabels: [UInt8]
  /// Two independent hashes of kind and rule: what the ids of its records start from.
  let seeds: (UInt64, UInt64)

  public init(_ kind: RecordKind, rule: Int32, name: String, topic: Int32 = -1) {
    self.kind = kind
    self.rule = rule
    self.topic = topic
    keyWithoutLabels = Array(name.utf8)
    var head: [UInt8] = []
    head.append(json: "{\"type\":\"")
    head.append(contentsOf: kind.name.utf8)
    head.append(json: "\",\"rule\":")
    head.append(jsonString: name)
    head.append(json: ",\"time\":")
    self.head = head
    func seed(_ salt: UInt8) -> UInt64 {
      let text = head + [salt]
      return text.withUnsafeBufferPointer { rd_hash64($0.baseAddress, UInt32($0.count)) }
    }
    seeds = (seed(1), seed(2))
  }
}

/// Collects output records with what they are ordered by: time, rule, key.
///
/// One a shard and source, and one a partition for late rows and dead letters. A record is opened, its
/// members are appended, and it is closed.
public final class RecordWriter {
  private(set) var pending = OutputBatch()
  private(set) var times: [Int64] = []
  /// Records at or before this time were written before a restart and are dropped.
  public var suppressThrough = beforeAllTime
  private var openStart = 0
  private var openKeyStart = 0
  /// The text of the last time and window: rows of a window come together.
  private var stamp: (time: Int64, window: Int64, text: [UInt8]) = (.min, .min, [])

  public init() {}

  public var isEmpty: Bool { pending.entries.isEmpty }

  /// Opens a record and writes `{"type":…,"rule":…,"time":…` and, where it has one,
  /// `,"window":{"start":…,"end":…}`. The window is the `windowNanos` before `time`; 0 for none. A `time` of
  /// nil prints as null.
  ///
  /// `key` appends what orders the record among those of its rule and time, tells it from them in its id, and
  /// partitions it on Kafka.
  @inline(__always)
  public func open(
    _ origin: RecordOrigin, time: Int64?, windowNanos: Int64 = 0, key: (inout [UInt8]) -> Void
  ) {
    openStart = pending.bytes.count
    openKeyStart = pending.keys.count
    key(&pending.keys)
    pending.bytes.append(contentsOf: origin.head)
    guard let time else { return pending.bytes.append(json: "null") }
    if stamp.time != time || stamp.window != windowNanos { makeStamp(time, windowNanos) }
    pending.bytes.append(contentsOf: stamp.text)
  }

  private func makeStamp(_ time: Int64, _ windowNanos: Int64) {
    var text: [UInt8] = []
    text.append(jsonTime: time)
    if windowNanos > 0 {
      text.append(json: ",\"window\":{\"start\":")
      text.append(jsonTime: time - windowNanos)
      text.append(json: ",\"end\":")
      text.append(jsonTime: time)
      text.append(json: "}")
    }
    stamp = (time, windowNanos, text)
  }

  /// Writes members of the open record.
  @inline(__always)
  public func append(_ write: (inout [UInt8]) -> Void) { write(&pending.bytes) }

  /// Adds the id (a hash of kind, rule, key and time: the same event has the same id in every run) and ends
  /// the record. `orderTime` is its place in the order, where that is not its time.
  public func close(_ origin: RecordOrigin, time: Int64, orderTime: Int64? = nil) {
    let place = orderTime ?? time
    if place <= suppressThrough, suppressThrough != beforeAllTime {
      pending.bytes.removeSubrange(openStart...)
      pending.keys.removeSubrange(openKeyStart...)
      return
    }
    appendIdentity(origin, time: time)
    // Behind the id, which was made without it. It orders nothing: all records of such a rule have the same.
    if pending.keys.count == openKeyStart { pending.keys.append(contentsOf: origin.keyWithoutLabels) }
    pending.entries.append(
      OutputBatch.Entry(
        kind: origin.kind, rule: origin.rule, topic: origin.topic, start: openStart,
        length: pending.bytes.count - openStart, keyStart: openKeyStart,
        keyLength: pending.keys.count - openKeyStart))
    times.append(place)
  }

  private func appendIdentity(_ origin: RecordOrigin, time: Int64) {
    let keyHash = pending.keys.withUnsafeBufferPointer { keys in
      keys.baseAddress.map { rd_hash64($0 + openKeyStart, UInt32(keys.count - openKeyStart)) } ?? 0
    }
    let moment = UInt64(bitPattern: time)
    let first = rd_hash_word(rd_hash_word(origin.seeds.0 ^ keyHash) ^ moment)
    let second = rd_hash_word(rd_hash_word(origin.seeds.1 &+ keyHash) &+ moment)
    pending.bytes.append(json: ",\"id\":\"")
    pending.bytes.append(hex: first)
    pending.bytes.append(hex: second)
    pending.bytes.append(json: "\"}")
  }

  /// Moves out what lies at or before `bound`, sorted by (time, rule, key); equal ones stay in the order in
  /// which they were written.
  func drain(through bound: Int64 = afterAllTime) -> SortedRecords {
    var order: [Int] = []
    order.reserveCapacity(times.count)
    var isSorted = true
    for index in times.indices where times[index] <= bound {
      if isSorted, let last = order.last, isBefore(index, last) { isSorted = false }
      order.append(index)
    }
    if !isSorted { order.sort { isBefore($0, $1) || ($0 < $1 && !isBefore($1, $0)) } }
    let records = SortedRecords(batch: pending, times: times, order: order)
    if order.count == times.count {
      // The next advance writes about as much.
      let sizes = (pending.bytes.count, pending.keys.count, pending.entries.count)
      pending = OutputBatch()
      pending.bytes.reserveCapacity(sizes.0)
      pending.keys.reserveCapacity(sizes.1)
      pending.entries.reserveCapacity(sizes.2)
      times = []
      times.reserveCapacity(sizes.2)
    } else {
      keepOnly { self.times[$0] > bound }
    }
    return records
  }

  private func keepOnly(_ isKept: (Int) -> Bool) {
    var kept = OutputBatch()
    var keptTimes: [Int64] = []
    for index in pending.entries.indices where isKept(index) {
      kept.append(pending, pending.entries[index])
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

extension OutputBatch {
  /// Copies a record of another batch behind this one's.
  mutating func append(_ other: OutputBatch, _ entry: Entry) {
    var entry = entry
    let start = bytes.count
    let keyStart = keys.count
    other.bytes.withUnsafeBufferPointer {
      bytes.append(contentsOf: UnsafeBufferPointer(rebasing: $0[entry.start..<entry.start + entry.length]))
    }
    other.keys.withUnsafeBufferPointer {
      keys.append(
        contentsOf: UnsafeBufferPointer(rebasing: $0[entry.keyStart..<entry.keyStart + entry.keyLength]))
    }
    entry.start = start
    entry.keyStart = keyStart
    entries.append(entry)
  }
}

/// The order of two records of the same time: by rule, then by key.
func recordIsBefore(
  _ a: OutputBatch, _ x: OutputBatch.Entry, _ b: OutputBatch, _ y: OutputBatch.Entry
) -> Bool {
  if x.rule != y.rule { return x.rule < y.rule }
  return a.keys.withUnsafeBufferPointer { a in
    b.keys.withUnsafeBufferPointer { b in
      let shared = min(x.keyLength, y.keyLength)
      guard shared > 0, let p = a.baseAddress, let q = b.baseAddress else {
        return x.keyLength < y.keyLength
      }
      let order = memcmp(p + x.keyStart, q + y.keyStart, shared)
      return order == 0 ? x.keyLength < y.keyLength : order < 0
    }
  }
}

/// Records in order: `order` walks `batch.entries`.
struct SortedRecords {
  var batch: OutputBatch
  var times: [Int64]
  var order: [Int]
}
