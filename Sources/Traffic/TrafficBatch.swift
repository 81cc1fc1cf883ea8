/// The topics that a search service writes to.
public enum TrafficTopic: UInt8, Sendable, Hashable, CaseIterable {
  case events, logs, spans, lag, disk

  public var name: String {
    switch self {
    case .events: "search.events"
    case .logs: "search.logs"
    case .spans: "search.spans"
    case .lag: "ops.lag"
    case .disk: "ops.disk"
    }
  }
}

/// Records in the order in which they arrive, one payload behind the other in `bytes`. Reused from fill to
/// fill.
public struct TrafficBatch: Sendable {
  public struct Entry: Sendable {
    public var topic: TrafficTopic
    /// When the record reaches its topic, nanoseconds since the epoch; never below that of the entry before
    /// it.
    public var arrivalNanos: Int64
    /// What the payload's own time field says, to the field's unit; at most some seconds before
    /// `arrivalNanos`.
    public var eventNanos: Int64
    /// The JSON object in `bytes`, without a line end.
    public var payload: Range<Int>
    /// What the topic is partitioned by, in `keys`.
    public var key: Range<Int>
  }
  public internal(set) var bytes: [UInt8] = []
  public internal(set) var keys: [UInt8] = []
  public internal(set) var entries: [Entry] = []

  public init() {}

  public mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    keys.removeAll(keepingCapacity: true)
    entries.removeAll(keepingCapacity: true)
  }

  /// Ends the record whose payload starts at `start`; `writeKey` appends its key.
  @inline(__always)
  mutating func close(
    _ topic: TrafficTopic, from start: Int, arrival: Int64, event: Int64,
    writeKey: (inout [UInt8]) -> Void
  ) {
    let keyStart = keys.count
    writeKey(&keys)
    entries.append(
      Entry(
        topic: topic, arrivalNanos: arrival, eventNanos: event, payload: start..<bytes.count,
        key: keyStart..<keys.count))
  }

  /// The partition of an entry among `count`, above 0: by FNV-1a of its key. A recording and a topic made
  /// with the same count hold the same rows in the same partitions, and therefore give the same output.
  public func partition(of entry: Entry, count: Int) -> Int {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for index in entry.key {
      hash = (hash ^ UInt64(keys[index])) &* 0x100_0000_01b3
    }
    // The low bits of FNV-1a over short keys are poor; fold the high ones in.
    return Int(truncatingIfNeeded: (hash ^ hash &>> 32) & 0x7fff_ffff) % count
  }
}
