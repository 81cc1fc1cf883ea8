/// A consumer group's member, as its brokers know it at this moment: whose offsets a transaction commits. Made by
/// a source, read by a sink of the same make.
public protocol ConsumerGroupHandle: AnyObject, Sendable {}

/// What one source has read, for a transaction.
public struct SourceOffsets: Sendable {
  /// Index among the program's sources.
  public var source: Int
  public var points: [CommitPoint]
  public var group: any ConsumerGroupHandle
  public init(source: Int, points: [CommitPoint], group: any ConsumerGroupHandle) {
    self.source = source
    self.points = points
    self.group = group
  }
}

/// A sink whose records appear together with the offsets of what they were made of, or not at all.
///
/// `prepare`, then `write`s and `barrier`s from the engine's threads and a `commit` for each barrier from the
/// control thread; `abort` when the engine has to be given up, and `prepare` before the next engine. Records
/// behind a barrier that is not committed yet wait in memory, and `write` blocks when that is full.
public protocol TransactionalSink: RecordSink {
  /// Takes over from whoever wrote before, this process or another: what they left open is aborted, they are
  /// fenced. To be called when the sources lead and before their committed offsets are read. Forgets an
  /// `abort`. Blocks for some seconds at most; throws an error that a later try may not meet.
  func prepare() throws
  /// Commits what lies before the barrier of this epoch, and the offsets, in one transaction. Nothing happens
  /// when there is neither. Throws `TransactionAborted` or `GroupFenced` (none of it counts: restart from the
  /// committed offsets), `SinkFenced` (somebody else writes now), or what ends the run.
  func commit(_ epoch: UInt64, _ offsets: [SourceOffsets]) throws
  /// Gives up everything that is not committed. Until `prepare`, writes return at once and are dropped, also
  /// one that is blocked now. Any thread; does not wait for a broker for longer than some seconds.
  func abort()
}

/// A transaction was not committed, or nobody can say whether it was. The group's committed offsets tell, once
/// `prepare` has returned: an engine that starts from them loses nothing and repeats nothing.
public struct TransactionAborted: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }
}

/// A newer instance writes under this one's name. This one must not write any more: it ends, or stands by.
public struct SinkFenced: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }
}

/// The group has gone on without this member: its partitions are somebody else's, its offsets were refused. The
/// source reports what was revoked; the work since the last commit is done again by whoever reads now.
public struct GroupFenced: Error, CustomStringConvertible, Sendable {
  public var description: String
  /// Another process uses this one's instance id: joining again would throw that one out.
  public var isFinal: Bool
  public init(_ description: String, isFinal: Bool = false) {
    self.description = description
    self.isFinal = isFinal
  }
}

/// Thrown by `complete`: records before the barrier were refused for good. No later barrier may count as done;
/// an engine that starts from the committed offsets writes them again.
public struct RecordsLost: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }
}
