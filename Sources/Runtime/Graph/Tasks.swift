import Catalog

/// An operator at work on rows: one instance a worker, one call a batch. Emits only through what its definition bound it to.
open class RowTask {
  public init() {}

  /// Takes the selected rows of a batch.
  open func process(_ batch: Batch, _ selection: Selection) {}

  /// Behind a window: all rows of the windows that end at `end` have been processed. That is the evaluation of an alert.
  open func windowEnded(_ end: Int64) {}

  /// Behind a window: the window that ends at `end` cannot be evaluated, because rows or aggregates of it are
  /// missing. Whether a condition was true all the time is not known then: what is pending starts anew, what fires goes on
  /// firing, and windows over its rows are not whole either.
  open func windowSkipped(_ end: Int64) {}

  /// Behind a window: the next window holds nothing in these slots, whose aggregates are too young for it. Answers
  /// whether nothing here can do without them: then who called calls `windowSkipped` instead of `process` and
  /// `windowEnded`, until it has been called with no slots. Who does not say otherwise needs them all.
  open func lack(_ slots: Set<Int>) -> Bool { !slots.isEmpty }

  /// Behind a window: whether `windowEnded` without rows would do nothing, so that empty windows may be skipped.
  open var isQuiet: Bool { true }

  /// The first evaluation that the state held here depends on, if any: offsets before its window must not be committed.
  open var holdSince: Int64? { nil }

  /// Behind a window: no window will have a row any more, because the input has ended. Windows may still be evaluated, so that
  /// what is open can end; what tells silence from speech stops here.
  open func inputEnded() {}

  /// Keys and bytes held here and by what stands behind, as far as that is in proportion to keys times windows; for `/metrics`
  /// and the memory limit.
  open var stateSize: (keys: Int, bytes: Int) { (0, 0) }
}

/// What makes a task: immutable, shared by all workers.
public protocol RowTaskDefinition: Sendable {
  func makeTask(_ context: TaskContext) -> RowTask
}

/// A finished pane of one partition, on its way to the shards that own its keys. Immutable once sent. Itself counts
/// the captures that have yet to read it.
open class PanePartial: CaptureHolds, @unchecked Sendable {
  // @unchecked: written by one worker before it is sent, read by others after; the inbox's lock orders the two.
  /// Start of the pane, nanoseconds.
  public let start: Int64
  public init(start: Int64) { self.start = start }
}

/// The partition side of an exchange: collects panes of partial aggregates, apart for each partition.
open class PartialTask: RowTask {
  /// Hands over every pane of `partition` that ends at or before `watermark`, in ascending order.
  open func closePanes(
    partition: Int, watermark: Int64, emit: (PanePartial) -> Void
  ) {}

  /// Keys (of the largest pane) and bytes in open panes, for `/metrics` and the memory limit.
  open override var stateSize: (keys: Int, bytes: Int) { (0, 0) }
  /// Rows that were not taken because their pane held as many keys as it may.
  open var rowsOverLimit: Int { 0 }

  /// Start of the earliest pane that is still open for the partition.
  open func firstOpenPane(partition: Int) -> Int64? { nil }

  /// As `StatefulTask`'s, for what is kept apart for each partition: it moves with the partition, not by key.
  open var operatorID: String { "" }
  /// What is open for the partition; nil when that is nothing.
  open func capture(partition: Int) -> (any StateCapture)? { nil }
  open func restore(partition: Int, from reader: inout StateReader) throws {}
}

/// Rows of one shard's windows on their way to the shard that owns their next key. Strings point into `arena`.
public final class RowsChunk: @unchecked Sendable {
  // @unchecked: as PanePartial.
  public let batch: Batch
  /// Set instead of rows: the window that ends here was not evaluated, so its rows are missing.
  public let skippedEnd: Int64?
  private let arena: ArenaBox
  /// Which input of the receiving exchange they are for, where it has several.
  public let input: Int
  public init(batch: Batch, arena: ArenaBox, input: Int = 0) {
    self.batch = batch
    self.input = input
    self.arena = arena
    skippedEnd = nil
  }

  public init(skippedEnd: Int64, input: Int = 0) {
    self.input = input
    batch = Batch(types: [], capacity: 0)
    arena = ArenaBox()
    self.skippedEnd = skippedEnd
  }
}

/// An arena that several owners keep alive.
public final class ArenaBox {
  public var arena = ByteArena()
  public init() {}
}

/// The owning side of an exchange: merges partials of the keys that hash to its shard, and runs windows over them.
open class KeyedTask {
  public init() {}
  /// Takes a finished pane of a partition (by its ordinal). Level 0.
  open func accept(_ pane: PanePartial, partition: Int) {}
  /// Takes rows of windows before. Level 1 and up.
  open func accept(_ rows: RowsChunk) {}
  /// Every pane that ends at or before `watermark` has arrived: emits all windows that end by then, in order.
  open func advance(to watermark: Int64) {}
  /// No row older than this is needed any more once `advance(to: watermark)` has returned.
  open func neededSince(watermark: Int64) -> Int64 { watermark }
  /// Rows that were not kept because a limit of the operator was reached.
  open var rowsOverLimit: Int { 0 }
  /// Where the exchange resumes: rows before `time` are missing, so windows that start earlier must not be emitted.
  open func resume(at time: Int64) {}
  /// Keys and bytes held now, for `/metrics`.
  open var stateSize: (keys: Int, bytes: Int) { (0, 0) }
}

/// Both sides of one exchange.
public protocol ExchangeDefinition: Sendable {
  /// Only at level 0.
  func makePartial(_ context: TaskContext) -> PartialTask
  func makeKeyed(_ context: TaskContext) -> KeyedTask
}

/// An exchange in the graph: which flow it belongs to, and how many exchanges of the flow stand before it.
public struct Exchange: Sendable {
  /// Index among the graph's flows; a source's own flow has the source's index.
  public var flow: Int
  public var level: Int
  public var definition: any ExchangeDefinition
  /// Rules that use it, sorted: whose state it is.
  public var rules: [String]
  public init(flow: Int, level: Int, definition: any ExchangeDefinition, rules: [String] = []) {
    self.flow = flow
    self.level = level
    self.definition = definition
    self.rules = rules
  }
}

/// `require … else "reason"` bound to a slot.
public struct Requirement: Sendable, Hashable {
  /// Slot of a bool column among the batch's slots.
  public var slot: Int
  public var reason: String
  public init(slot: Int, reason: String) {
    self.slot = slot
    self.reason = reason
  }
}

/// A source in the graph.
public struct SourceNode: Sendable {
  public var schema: SourceSchema
  /// Slots behind the schema's fields.
  public var computedSlots: [PhysicalType]
  /// Fills the requirements' slots over all rows, before anything else.
  public var prepare: (any RowTaskDefinition)?
  public var requirements: [Requirement]
  /// Where rows in time go.
  public var root: any RowTaskDefinition
  /// Greatest common divisor of the panes over this source: watermarks matter only where they pass a multiple. 0: no panes.
  public var stepNanos: Int64
  /// Rank of the source's name among the graph's rules: who late rows and dead letters are from.
  public var rule: Int32
  /// Indexes into the graph's `topics`, or -1.
  public var deadLetterTopic: Int32
  public var lateTopic: Int32
  /// Which of the schema's fields separate the keys of its partitions, by the rules' word; empty where they say
  /// nothing, or need not all of them.
  public var partitionedBy: [Int] = []

  public init(
    schema: SourceSchema, computedSlots: [PhysicalType], prepare: (any RowTaskDefinition)?,
    requirements: [Requirement], root: any RowTaskDefinition, stepNanos: Int64, rule: Int32,
    deadLetterTopic: Int32 = -1, lateTopic: Int32 = -1
  ) {
    self.schema = schema
    self.computedSlots = computedSlots
    self.prepare = prepare
    self.requirements = requirements
    self.root = root
    self.stepNanos = stepNanos
    self.rule = rule
    self.deadLetterTopic = deadLetterTopic
    self.lateTopic = lateTopic
  }
}

/// The operator DAG, ready to be instantiated by every worker.
public struct Graph: Sendable {
  public var sources: [SourceNode]
  /// A later level stands behind an earlier one.
  public var exchanges: [Exchange]
  /// One for each source, in their order; behind them those of operators with several inputs, inputs first.
  public private(set) var flows: [Flow]
  /// Names of rules (metrics, alerts) and sources, sorted: a record's `rule` is an index, and output order follows it.
  public var rules: [String]
  /// Topics that sources name for their dead letters and late rows.
  public var topics: [String]
  /// What keeps state, for people and for checkpoints: an entry for each operator id, sorted by it.
  public var operators: [StoredOperator] = []
  /// Whether some operator keeps more than the rows of open windows tell, a detector its baseline: no commit may pass its rows
  /// before a checkpoint has them.
  public var learns = false

  /// `gathered` are the flows behind those of the sources.
  public init(
    sources: [SourceNode], exchanges: [Exchange], rules: [String], topics: [String], gathered: [Flow] = []
  ) {
    flows = sources.indices.map { Flow(name: sources[$0].schema.name, sources: [$0]) } + gathered
    self.sources = sources
    self.exchanges = exchanges
    self.rules = rules
    self.topics = topics
  }

  /// Number of exchange levels of a flow.
  func levels(of flow: Int) -> Int {
    (exchanges.filter { $0.flow == flow }.map(\.level).max() ?? -1) + 1
  }
}

/// What a task may reach beyond its own state: of one source, on one worker.
public final class TaskContext {
  /// Rows of windows are handled this many at a time: there are few of them, and a thousand rules' buffers add up.
  static let windowRowsMax = 256

  /// Which of `shardCount` key ranges this worker owns.
  public let shard: Int
  public let shardCount: Int
  public let batchRows: Int
  /// Records that tasks emit; the shard sorts and publishes them when it has advanced.
  public let output: RecordWriter
  private let sender: RowsSender
  /// Partial tasks made so far, by exchange.
  public private(set) var partials: [Int: PartialTask] = [:]
  private var sharedObjects: [ObjectIdentifier: AnyObject] = [:]
  private let registry: StateRegistry
  private var windows: TaskContext?

  /// Keyed tasks with state, also of the contexts derived from this one.
  final class StateRegistry {
    /// Whoever made a task owns it; most of them hold the context.
    struct Entry {
      weak var task: (any StatefulTask)?
    }
    var entries: [Entry] = []
    var partitionNames: [String] = []
  }

  final class RowsSender {
    var send: (_ exchange: Int, _ shard: Int, RowsChunk) -> Void = { _, _, _ in }
  }

  public convenience init(shard: Int, shardCount: Int, batchRows: Int, output: RecordWriter) {
    self.init(
      shard: shard, shardCount: shardCount, batchRows: batchRows, output: output, sender: RowsSender(),
      registry: StateRegistry())
  }

  private init(
    shard: Int, shardCount: Int, batchRows: Int, output: RecordWriter, sender: RowsSender, registry: StateRegistry
  ) {
    self.registry = registry
    self.shard = shard
    self.shardCount = shardCount
    self.batchRows = batchRows
    self.output = output
    self.sender = sender
  }

  /// The context of tasks behind windows: the same but for smaller batches. All of them have one, and what is shared in it.
  public func forWindows() -> TaskContext {
    if let windows { return windows }
    let made = TaskContext(
      shard: shard, shardCount: shardCount, batchRows: min(batchRows, Self.windowRowsMax),
      output: output, sender: sender, registry: registry)
    windows = made
    return made
  }

  /// A keyed task with state says so when it is made; in the same order on every worker.
  public func register(stateful task: any StatefulTask) { registry.entries.append(.init(task: task)) }
  public var statefulTasks: [any StatefulTask] { registry.entries.compactMap(\.task) }

  /// What a partition is called in every run, by its ordinal in this one: stored panes are told apart by it.
  /// Set before anything is captured or restored.
  public var partitionNames: [String] {
    get { registry.partitionNames }
    set { registry.partitionNames = newValue }
  }

  /// A partial task tells the worker that it has panes to close.
  public func register(_ task: PartialTask, exchange: Int) { partials[exchange] = task }

  /// Sends rows to another shard's keyed task.
  public func send(_ rows: RowsChunk, exchange: Int, to shard: Int) { sender.send(exchange, shard, rows) }

  func setSender(_ send: @escaping (_ exchange: Int, _ shard: Int, RowsChunk) -> Void) {
    sender.send = send
  }

  /// The one object of a type that all tasks of this context use in turn, such as scratch memory.
  public func shared<T: AnyObject>(_ make: () -> T) -> T {
    if let known = sharedObjects[ObjectIdentifier(T.self)] as? T { return known }
    let object = make()
    sharedObjects[ObjectIdentifier(T.self)] = object
    return object
  }
}
