/// How a coordinator runs, beyond the engine's own options.
public struct CoordinatorOptions: Sendable {
  public var engine: EngineOptions
  /// Who takes checkpoints: the consumer group.
  public var group: String
  public var commitNanos: Int64 = 1_000_000_000
  public var checkpointNanos: Int64 = 10_000_000_000
  /// Checkpoints kept, besides those that are in use and savepoints.
  public var checkpointsKept = 3
  /// An engine for each partition, so that partitions can move between daemons with their state.
  public var isShared = false
  /// Ends when every partition has been read to the end that it had.
  public var isBounded = false
  /// How long a barrier may take when everything must end: behind a sink that hangs it never comes.
  public var stopNanos: Int64 = 20_000_000_000
  /// How long a checkpoint is asked for again whose store does not answer, before its state is rebuilt by reading.
  public var storeWaitNanos: Int64 = 60_000_000_000
  /// How long a start waits for all sources before the others go on without those that have no partitions yet: a topic that
  /// nobody has made must not silence the rules on others.
  public var assignmentNanos: Int64 = 10_000_000_000
  /// Whether the workers are stepped by who made the coordinator, instead of by threads.
  public var runsByHand = false
  /// The checkpoint to begin with, whatever was committed: its name.
  public var restore: String?
  public init(engine: EngineOptions, group: String) {
    self.engine = engine
    self.group = group
  }
}

/// What the coordinator runs: a graph, and the revision of the rules that it came from.
public struct RunningRules: Sendable {
  public var graph: Graph
  public var revision: String
  public init(graph: Graph, revision: String) {
    self.graph = graph
    self.revision = revision
  }
}

/// What happened, for metrics, the log and the audit.
public enum CoordinatorEvent: Sendable {
  /// `without`: sources that have no partitions yet.
  case engineStarted(partitions: Int, restored: String?, without: [String])
  case checkpoint(name: String, keys: Int, bytes: Int, nanos: Int64)
  case checkpointFailed(String)
  case committed
  case commitFailed(String)
  /// A checkpoint that was committed is lost; its state is rebuilt by reading again.
  case rereads(String)
  /// The store does not answer, and the state cannot be restored yet; it is asked again.
  case restoreDelayed(String)
  case barrier(pauseNanos: Int64)
  case transactionAborted(String)
  case reloaded(RunningRules)
  case reloadFailed(String)
  /// Its counts, by the indexes of its graph.
  case engineEnded(EngineStatus, Graph)
}
