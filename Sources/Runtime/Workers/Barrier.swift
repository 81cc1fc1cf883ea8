/// A cut through everything that is in flight: what lies before it has been read, aggregated and handed to the
/// sink; what lies behind it has not been begun. Chandy and Lamport's snapshot as Flink takes it, with aligned
/// barriers; a worker does not read while it aligns, which takes it a batch and the messages before the barrier.
public struct BarrierRequest: Sendable, Hashable {
  /// Ascending; the sink hears it as `barrier(epoch)`.
  public var epoch: UInt64
  /// Whether every task's state is captured.
  public var captures: Bool
  /// Whether the workers end behind it, so that nothing follows.
  public var isLast: Bool
  public init(epoch: UInt64, captures: Bool, isLast: Bool = false) {
    self.epoch = epoch
    self.captures = captures
    self.isLast = isLast
  }
}

/// A partition at a barrier, and the ways back to it.
public struct PartitionStand: Sendable, Hashable {
  public var identity: PartitionIdentity
  /// The next offset to be read; -1 when nothing has been read.
  public var position: Int64
  /// The first offset that this engine read of a partition that it had no state of; -1 for none.
  public var firstOffset: Int64
  public var watermark: Int64
  /// Resumption by reading again: from `rereadOffset`, where rows since `resume.neededSince` lie behind.
  public var rereadOffset: Int64
  public var resume: ResumePoint
}

/// An engine at a barrier.
public struct BarrierResult: Sendable {
  public var request: BarrierRequest
  public var partitions: [PartitionStand]
  /// What was captured; empty unless that was asked for.
  public var sections: [StateSection]
  /// The longest that a worker did not read: from the beginning of its alignment to the end of its capture.
  public var pauseNanos: Int64
}

/// What one worker answers to a barrier.
struct BarrierPart: Sendable {
  var snapshot: SnapshotPart
  var sections: [StateSection]
  var pauseNanos: Int64
}

/// Where a worker stands in a barrier that it has begun.
struct Alignment {
  let request: BarrierRequest
  let startNanos: Int64
  /// Barriers that have come, by level.
  private var arrived: [Int]
  /// Whether a sender's barrier of the last level has come: what follows from it lies behind the barrier.
  private var isPast: [Bool]
  private(set) var level = 0
  private let workers: Int

  init(_ request: BarrierRequest, levels: Int, workers: Int) {
    self.request = request
    self.workers = workers
    startNanos = monotonicNanos()
    arrived = Array(repeating: 0, count: levels)
    isPast = Array(repeating: false, count: workers)
  }

  func holds(_ sender: Int) -> Bool { isPast[sender] }

  /// Notes a barrier; answers whether its level has them all.
  mutating func note(level: Int, from sender: Int) -> Bool {
    arrived[level] += 1
    if level == arrived.count - 1 { isPast[sender] = true }
    guard level == self.level, arrived[level] == workers else { return false }
    self.level += 1
    return true
  }

  var isDone: Bool { level == arrived.count }
}

/// State out of a checkpoint, or out of an engine before: read by workers when they begin.
public struct RestoredState: Sendable {
  public struct Section: Sendable {
    public var operatorID: String
    public var scope: SectionScope
    public var bytes: [UInt8]
    public init(operatorID: String, scope: SectionScope, bytes: [UInt8]) {
      self.operatorID = operatorID
      self.scope = scope
      self.bytes = bytes
    }
  }
  private let keyed: [String: [(groups: Range<Int>, bytes: [UInt8])]]
  private let partitioned: [String: [SectionScope: [UInt8]]]

  public init(_ sections: [Section]) {
    var keyed: [String: [(groups: Range<Int>, bytes: [UInt8])]] = [:]
    var partitioned: [String: [SectionScope: [UInt8]]] = [:]
    for section in sections {
      switch section.scope {
      case .keys(let groups): keyed[section.operatorID, default: []].append((groups, section.bytes))
      case .partition: partitioned[section.operatorID, default: [:]][section.scope] = section.bytes
      }
    }
    self.keyed = keyed.mapValues { $0.sorted { $0.groups.lowerBound < $1.groups.lowerBound } }
    self.partitioned = partitioned
  }

  /// Encodes what an engine captured, to go on from it without a store.
  public static func encoded(_ sections: [StateSection]) -> [Section] {
    sections.map { section in
      let writer = StateWriter()
      section.capture.encode(into: writer)
      return Section(operatorID: section.operatorID, scope: section.scope, bytes: writer.bytes)
    }
  }

  /// The stored parts that may hold keys of these groups, in the order of groups.
  func parts(of operatorID: String, groups: Range<Int>) -> [[UInt8]] {
    (keyed[operatorID] ?? []).filter { $0.groups.overlaps(groups) }.map(\.bytes)
  }

  /// What partitions keep beside their operators goes by this id.
  static let partitionID = "partition"

  /// One past the latest event time that may have been read of a source; nil when nothing was.
  func readThrough(source: SourceSchema) -> Int64? {
    var latest: Int64?
    for (scope, bytes) in partitioned[Self.partitionID] ?? [:] {
      guard case .partition(source.name, _, _) = scope else { continue }
      let watermark = PartitionState.watermark(stored: bytes)
      guard let watermark, watermark > beforeAllTime, watermark < afterAllTime else { continue }
      latest = max(latest ?? beforeAllTime, watermark)
    }
    return latest.map { $0 + source.boundNanos + 1 }
  }

  func part(of operatorID: String, partition: SectionScope) -> [UInt8]? { partitioned[operatorID]?[partition] }
}

/// State that is small enough to be encoded at once.
struct EncodedCapture: StateCapture {
  var keyCount = 0
  var bytes: [UInt8]

  init(_ encode: (StateWriter) -> Void) {
    let writer = StateWriter()
    encode(writer)
    bytes = writer.bytes
  }

  func encode(into writer: StateWriter) { bytes.withUnsafeBytes { writer.append(raw: $0) } }
}
