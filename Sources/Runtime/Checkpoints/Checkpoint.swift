/// Whose state a section holds.
public enum SectionScope: Sendable, Hashable {
  /// Keys of these key groups.
  case keys(Range<Int>)
  /// Everything of one partition of a source.
  case partition(source: String, topic: String, partition: Int32)
}

/// A part of a checkpoint on its way to a store.
public struct StateSection: Sendable {
  /// The operator that wrote it.
  public var operatorID: String
  public var scope: SectionScope
  public var capture: any StateCapture
  public init(operatorID: String, scope: SectionScope, capture: any StateCapture) {
    self.operatorID = operatorID
    self.scope = scope
    self.capture = capture
  }
}

/// Where a section lies and what it should be.
public struct StoredSection: Sendable, Hashable {
  public var operatorID: String
  public var scope: SectionScope
  public var keys: Int
  /// Name of the state file, and the place of the compressed section in it.
  public var file: String
  public var offset: Int
  public var storedBytes: Int
  public var rawBytes: Int
  /// Of the stored bytes.
  public var checksum: UInt64
  public init(
    operatorID: String, scope: SectionScope, keys: Int, file: String, offset: Int, storedBytes: Int, rawBytes: Int,
    checksum: UInt64
  ) {
    self.operatorID = operatorID
    self.scope = scope
    self.keys = keys
    self.file = file
    self.offset = offset
    self.storedBytes = storedBytes
    self.rawBytes = rawBytes
    self.checksum = checksum
  }
}

/// Where a partition stood at the barrier.
public struct StoredPartition: Sendable, Hashable {
  /// The source's name in the rules.
  public var source: String
  public var topic: String
  public var partition: Int32
  /// The next offset to be read; -1 when nothing had been read.
  public var offset: Int64
  public var watermark: Int64
  public init(source: String, topic: String, partition: Int32, offset: Int64, watermark: Int64) {
    self.source = source
    self.topic = topic
    self.partition = partition
    self.offset = offset
    self.watermark = watermark
  }
}

/// What an operator is, for people and for `plan`.
public struct StoredOperator: Sendable, Hashable {
  public var id: String
  /// `window`, `alert`, …
  public var kind: String
  /// What it keeps, as `explain` says it.
  public var summary: String
  /// Rules that use it, sorted.
  public var rules: [String]
  public init(id: String, kind: String, summary: String, rules: [String]) {
    self.id = id
    self.kind = kind
    self.summary = summary
    self.rules = rules
  }
}

/// What a checkpoint is, before and after it is stored. Written last: a checkpoint without a manifest is none.
public struct CheckpointManifest: Sendable, Hashable {
  /// Unique in its store and in the order of time: `c-<number, 10 digits>-<random, 8 hex digits>`.
  public var name: String
  public var number: UInt64
  /// Wall clock, nanoseconds since the epoch.
  public var createdNanos: Int64
  /// Who took it: the consumer group.
  public var group: String
  /// Hash of the rule text that ran.
  public var revision: String
  public var workers: Int
  /// Taken by a person; never removed by the daemon.
  public var isSavepoint: Bool
  public var partitions: [StoredPartition]
  public var operators: [StoredOperator]
  public var sections: [StoredSection]

  public init(
    name: String, number: UInt64, createdNanos: Int64, group: String, revision: String, workers: Int,
    isSavepoint: Bool = false, partitions: [StoredPartition] = [], operators: [StoredOperator] = [],
    sections: [StoredSection] = []
  ) {
    self.name = name
    self.number = number
    self.createdNanos = createdNanos
    self.group = group
    self.revision = revision
    self.workers = workers
    self.isSavepoint = isSavepoint
    self.partitions = partitions
    self.operators = operators
    self.sections = sections
  }

  public var storedBytes: Int { sections.reduce(0) { $0 + $1.storedBytes } }
}

/// A checkpoint cannot be stored or read. The engine goes on; a metric and `/readyz` say so.
public struct CheckpointFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  /// The store did not answer, so that the same may succeed later: a database that restarts, a share that hangs. Not so
  /// for what is damaged or not there.
  public var mayPass: Bool
  public init(_ description: String, mayPass: Bool = false) {
    self.description = description
    self.mayPass = mayPass
  }

  /// Whether an error that a store met may not be met later.
  public static func mayPass(_ error: any Error) -> Bool {
    switch error {
    case let failure as CheckpointFailure: failure.mayPass
    case let failure as FileSystemFailure: !failure.isMissing
    default: false
    }
  }
}

/// Where checkpoints are kept. Called by one thread at a time, and never by a worker.
public protocol CheckpointStore: AnyObject {
  /// Writes every section and, when all of that is safe, the manifest: atomic, durable when it returns. Fills in
  /// `sections`. Throws `CheckpointFailure`, and leaves nothing that would be taken for a checkpoint.
  func write(_ manifest: CheckpointManifest, _ sections: [StateSection]) throws -> CheckpointManifest
  /// Every complete checkpoint, ascending by number. A damaged manifest is passed over, and reported by `verify`.
  func list() throws -> [CheckpointManifest]
  /// Nil when there is none of that name.
  func manifest(named name: String) throws -> CheckpointManifest?
  /// The bytes of a section, decompressed; throws when the checksum or the length is wrong.
  func read(_ section: StoredSection, of manifest: CheckpointManifest) throws -> [UInt8]
  /// Removes all but the newest `keep`, savepoints, and the names in `alive`; and what crashes left half-written.
  func prune(keep: Int, alive: Set<String>) throws
}
