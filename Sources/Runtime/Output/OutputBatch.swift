/// The type of an output record, as its `type` member spells it.
public enum RecordKind: UInt8, Sendable, Hashable, CaseIterable {
  case metric, anomaly, alert, slo, pattern, row, deadLetter, late

  public var name: String {
    switch self {
    case .metric: "metric"
    case .anomaly: "anomaly"
    case .alert: "alert"
    case .slo: "slo"
    case .pattern: "pattern"
    case .row: "row"
    case .deadLetter: "dead_letter"
    case .late: "late"
    }
  }
}

/// Finished records on their way to the sinks: JSON objects without a line end, one behind the other in
/// `bytes`.
public struct OutputBatch: Sendable {
  public struct Entry: Sendable {
    public var kind: RecordKind
    /// Index among the engine's rule names (sources included): which rule made it.
    public var rule: Int32
    /// Index into the engine's topic overrides, or -1: a source's own dead-letter or late topic.
    public var topic: Int32
    /// The JSON text in `bytes`.
    public var start: Int
    public var length: Int
    /// What Kafka should partition by, in `keys`: the labels, encoded; the rule's name for a record without any.
    public var keyStart: Int
    public var keyLength: Int
    public init(
      kind: RecordKind, rule: Int32, topic: Int32, start: Int, length: Int, keyStart: Int,
      keyLength: Int
    ) {
      self.kind = kind
      self.rule = rule
      self.topic = topic
      self.start = start
      self.length = length
      self.keyStart = keyStart
      self.keyLength = keyLength
    }
  }
  public var bytes: [UInt8] = []
  public var keys: [UInt8] = []
  public var entries: [Entry] = []
  public init() {}
  public mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    keys.removeAll(keepingCapacity: true)
    entries.removeAll(keepingCapacity: true)
  }
}

/// Where records go. Called by one thread at a time, but for `problem`, which another may ask meanwhile.
public protocol RecordSink: AnyObject {
  /// Takes all entries, in order. Blocks under back-pressure; retries what a retry can mend; throws only what
  /// ends the run.
  func write(_ batch: OutputBatch) throws
  /// Returns when everything written is out of this process's hands (on the broker, in the file). Throws when
  /// it is not.
  func flush() throws
  /// Everything written so far belongs to this epoch, everything after to the next. Called in the order of the
  /// records; quick.
  func barrier(_ epoch: UInt64)
  /// As `flush`, for what lies before a barrier. Called while another thread may be inside `write`.
  func complete(_ epoch: UInt64) throws
  /// Other rules follow: `OutputBatch.Entry.topic` points into these names from the next record on. Called while
  /// nothing is written.
  func adopt(topics: [String])
  /// What is wrong now, for `/readyz`: asked from any thread, above all while `write` waits for a broker.
  var problem: String? { get }
  func close()
}

extension RecordSink {
  public func barrier(_ epoch: UInt64) {}
  public func adopt(topics: [String]) {}
  public func complete(_ epoch: UInt64) throws { try flush() }
}
