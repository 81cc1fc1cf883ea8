/// Which of 256 groups a key belongs to. State is stored by ranges of key groups, so that a checkpoint of any
/// number of workers restores with any other (Flink, "key groups").
public enum KeyGroup {
  public static let count = 256

  @inlinable public static func of(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: (hash >> 32) & 255) }

  /// The shard that owns a key: shards own contiguous ranges of key groups. At most 256 shards.
  @inlinable public static func owner(_ hash: UInt64, shardCount: Int) -> Int {
    of(hash) * shardCount / count
  }

  /// The key groups of a shard.
  public static func range(of shard: Int, shardCount: Int) -> Range<Int> {
    func first(_ shard: Int) -> Int { (shard * count + shardCount - 1) / shardCount }
    return first(shard)..<first(shard + 1)
  }
}

/// Which keys a task may take out of stored state.
public struct KeyScope: Sendable {
  public var shard: Int
  public var shardCount: Int
  public init(shard: Int, shardCount: Int) {
    self.shard = shard
    self.shardCount = shardCount
  }
  @inlinable public func owns(_ hash: UInt64) -> Bool {
    shardCount == 1 || KeyGroup.owner(hash, shardCount: shardCount) == shard
  }
}

/// What a task kept at a barrier. Taken in microseconds (by reference, or by small copies), encoded later on
/// another thread while the task goes on: a task that would change what it shares with a capture copies it first.
public protocol StateCapture: Sendable {
  /// Keys held, for those who look into a checkpoint.
  var keyCount: Int { get }
  /// The same state gives the same bytes.
  func encode(into writer: StateWriter)
}

/// A keyed task that has something to keep. It registers with `TaskContext.register(stateful:)` when it is
/// made; the worker captures it at barriers and restores it before the first row.
public protocol StatefulTask: AnyObject {
  /// The operator's id: from the rule's name or the shape of its state, the same in every run and unchanged by
  /// edits to other rules.
  var operatorID: String { get }
  /// Nil when there is nothing to keep.
  func capture() -> (any StateCapture)?
  /// Adds the keys in `scope` of one stored part. Called once for each part that may hold some, in the order of
  /// shards; throws for bytes that it did not write.
  func restore(from reader: inout StateReader, scope: KeyScope) throws
  /// Instead of `restore`, where others are restored and nothing of this task was stored: rows before `time` will
  /// not come.
  func start(missingBefore time: Int64)
  /// After the last `restore`: rows before `time` had been read. Where operators in front of this one keep some of them (a join
  /// does), they lack the columns that nobody needed then.
  func restored(readThrough time: Int64)
  /// What it keeps for one rule, where that is no exchange's and so not counted there.
  var ruleState: RuleState? { get }
}

extension StatefulTask {
  public func start(missingBefore time: Int64) {}
  public func restored(readThrough time: Int64) {}
  public var ruleState: RuleState? { nil }
}

/// What a task keeps for a rule, for `/metrics` and the memory limit.
public struct RuleState: Sendable, Hashable {
  /// Index among the graph's rules.
  public var rule: Int32
  public var keys: Int
  public var bytes: Int
  /// Rows that were not taken because the rule kept as many keys as it may.
  public var rowsOverLimit: Int
  public init(rule: Int32, keys: Int, bytes: Int, rowsOverLimit: Int) {
    self.rule = rule
    self.keys = keys
    self.bytes = bytes
    self.rowsOverLimit = rowsOverLimit
  }
}
