/// What a `read` found.
public enum ReadOutcome: Sendable, Hashable {
  /// The batch holds at least one row or reject.
  case records
  /// Nothing at the moment. Live sources only; says nothing about the partition's end (the broker may be away).
  case nothingYet
  /// Nothing, and the broker confirmed, after the last record was read, that there is nothing more. Live sources only.
  case caughtUp
  /// The recording, or a bounded read of a topic, is at its end. Every later read says the same.
  case end
}

/// Who a partition is, in records and in commits.
public struct PartitionIdentity: Sendable, Hashable, Comparable {
  /// Index among the program's sources.
  public var source: Int
  /// The Kafka topic, or the file's name.
  public var topic: String
  public var partition: Int32
  public init(source: Int, topic: String, partition: Int32) {
    self.source = source
    self.topic = topic
    self.partition = partition
  }
  /// The order in which partials are merged: source, then partition, then topic.
  public static func < (a: Self, b: Self) -> Bool {
    (a.source, a.partition, a.topic) < (b.source, b.partition, b.topic)
  }
}

/// Reads one partition of a source. Owned by one worker thread at a time.
public protocol PartitionReader: AnyObject {
  var identity: PartitionIdentity { get }
  /// Clears the batch and fills it with at most `batch.capacity` rows. Does not block for longer than a few milliseconds when
  /// the source is live. Throws `SourceFailure` when the partition cannot be read any further.
  func read(into batch: RecordBatch) throws -> ReadOutcome
}

/// A source that cannot go on: a recording that cannot be opened or is corrupt in the middle.
public struct SourceFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }
}

/// Where a partition may be resumed: everything before `offset` is done, flushed and forgotten.
public struct CommitPoint: Sendable, Hashable {
  public var partition: PartitionIdentity
  public var offset: Int64
  /// At most 4 KiB of ASCII that comes back with `PartitionStart.metadata`.
  public var metadata: String
  public init(partition: PartitionIdentity, offset: Int64, metadata: String) {
    self.partition = partition
    self.offset = offset
    self.metadata = metadata
  }
}

/// A partition that a live source was given.
public struct PartitionStart: @unchecked Sendable {
  // @unchecked: the reader is handed over to one worker and not touched by the sender again.
  public var reader: any PartitionReader
  /// Where reading starts, and the metadata that was committed with that offset; `nil` when nothing was committed.
  public var committedOffset: Int64?
  public var metadata: String
  public init(reader: any PartitionReader, committedOffset: Int64?, metadata: String) {
    self.reader = reader
    self.committedOffset = committedOffset
    self.metadata = metadata
  }
}

public enum AssignmentChange: Sendable {
  /// Empty when the group gives nothing to this process, which is worth knowing once.
  case assigned([PartitionStart])
  /// The worker must stop reading these; the source waits for `LiveSource.released` before it gives them away.
  case revoked([PartitionIdentity])
}

/// Which partitions of its topic a source reads.
public enum SourceOwnership: Sendable, Hashable {
  /// Those that the group assigns to it.
  case shared
  /// All or none: one process at a time reads, the others stand by. Where `leads` is set the group decides, by whom
  /// it gives one certain partition; a source that does not lead follows `setLeading`.
  case standby(leads: Bool)
}

/// A source whose partitions come and go: a Kafka consumer. All calls come from the control thread.
public protocol LiveSource: AnyObject {
  var schema: SourceSchema { get }
  /// Serves callbacks and reports assignment changes; blocks for at most `timeoutMillis`.
  func poll(timeoutMillis: Int) -> [AssignmentChange]
  /// Answers a `revoked`: no reader of these will be called again. Commits, if any, were made before.
  func released(_ partitions: [PartitionIdentity])
  /// Takes every assigned partition back to its committed offset: its reader is dead from now on, and a later `poll` reports
  /// it as assigned again. No reader may be in use.
  func restart()
  /// Other fields are needed from now on: readers that are made later decode these. A `restart` follows.
  func adopt(_ schema: SourceSchema)
  /// The metadata that the group has committed for any partition of the topic, whoever reads it. Throws when the
  /// brokers do not say.
  func committedMetadata() throws -> [String]
  /// Commits synchronously; throws when the broker refuses or cannot be reached (the caller tries again later), and
  /// `GroupFenced` when this process is no member of the group any more.
  func commit(_ points: [CommitPoint]) throws
  /// What is wrong now, for `/readyz`: `nil` when connected and assigned.
  var problem: String? { get }
  /// Broker's end minus position, by partition, as far as known.
  func lagRecords() -> [PartitionIdentity: Int64]
  /// Leaves the group.
  func close()
  /// Whether this process is the one that reads. Always, unless the source lets others stand by; then it changes
  /// in `poll`.
  var holdsLead: Bool { get }
  /// For a source that does not lead but follows another's lead: whether it shall read. `poll` reports what that
  /// gives or takes.
  func setLeading(_ isLeading: Bool)
  /// This member of the group, for the offsets of a transaction. Throws `GroupFenced` when the group has expelled
  /// it.
  func groupHandle() throws -> any ConsumerGroupHandle
}

extension LiveSource {
  public var holdsLead: Bool { true }
  public func setLeading(_ isLeading: Bool) {}
  public func groupHandle() throws -> any ConsumerGroupHandle {
    throw SourceFailure("source `\(schema.name)` cannot be committed in a transaction")
  }
}
