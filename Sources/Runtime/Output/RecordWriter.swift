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
  /// What was drained last.
  private var expected = (bytes: 0, keys: 0, entries: 0)
  /// The open record and its key.
  private var text = RecordText()
  private var key = RecordText()
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
    _ origin: RecordOrigin, time: Int64?, windowNanos: Int64 = 0, key writeKey: (inout RecordText) -> Void
  ) {
    text.removeAll()
    key.removeAll()
    writeKey(&key)
    text.append(bytes: origin.head)
    guard let time else { return text.append(json: "null") }
    if stamp.time != time || stamp.window != windowNanos { makeStamp(time, windowNanos) }
    text.append(bytes: stamp.text)
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
  public func append(_ write: (inout RecordText) -> Void) { write(&text) }

  /// Adds the id (a hash of kind, rule, key and time: the same event has the same id in every run) and ends
  /// the record. `orderTime` is its place in the order, where that is not its time.
  public func close(_ origin: RecordOrigin, time: Int64, orderTime: Int64? = nil) {
    let place = orderTime ?? time
    if place <= suppressThrough, suppressThrough != beforeAllTime { return }
    if pending.entries.isEmpty { makeRoom() }
    appendIdentity(origin, time: time)
    // Behind the id, which was made without it.
    let hasOwnKey = key.count > 0
    if !hasOwnKey { key.append(bytes: origin.keyWithoutLabels) }
    var entry = OutputBatch.Entry(
      kind: origin.kind, rule: origin.rule, topic: origin.topic, start: pending.bytes.count, length: text.count,
      keyStart: pending.keys.count, keyLength: key.count)
    pending.bytes.append(bytes: text.base, count: text.count)
    pending.keys.append(bytes: key.base, count: key.count)
    entry.hasOwnKey = hasOwnKey
    pending.entries.append(entry)
    times.append(place)
  }

  private func appendIdentity(_ origin: RecordOrigin, time: Int64) {
    let keyHash = rd_hash64(key.base, UInt32(key.count))
    let moment = UInt64(bitPattern: time)
    let first = rd_hash_word(rd_hash_word(origin.seeds.0 ^ keyHash) ^ moment)
    let second = rd_hash_word(rd_hash_word(origin.seeds.1 &+ keyHash) &+ moment)
    text.append(json: ",\"id\":\"")
    text.append(hex: first)
    text.append(hex: second)
    text.append(json: "\"}")
  }

  /// The next advance writes about as much as the last one. Not when that is drained: its memory is free by the first record.
  private func makeRoom() {
    pending.bytes.reserveCapacity(expected.bytes)
    pending.keys.reserveCapacity(expected.keys)
    pending.entries.reserveCapacity(expected.entries)
    times.reserveCapacity(expected.entries)
  }

  /// Moves out what lies at or before `bound`, sorted by (time, rule, key); equal ones stay in the order in
  /// which they were written.
  func drain(through bound: Int64 = afterAllTime) -> SortedRecords {
    let order = RecordOrder.sorted(pending, times, through: bound)
    let records = SortedRecords(batch: pending, times: times, order: order)
    if order.count == times.count {
      expected = (pending.bytes.count, pending.keys.count, pending.entries.count)
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
      kept.append(pending, pending.entries[index])
      keptTimes.append(times[index])
    }
    pending = kept
    times = keptTimes
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

/// Records in order: `order` walks `batch.entries`.
struct SortedRecords {
  var batch: OutputBatch
  var times: [Int64]
  var order: [Int]
}
