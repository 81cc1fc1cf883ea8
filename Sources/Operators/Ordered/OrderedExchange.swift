import Catalog
import Runtime

/// Rows of a source, in the order of (time, partition, offset), at the shard that owns their key: for operators that go
/// through rows one by one and depend on their order (clustering, differences, deduplication, joins).
///
/// ```
/// source rows ▶ OrderedPartialTask ═exchange═▶ OrderedTask: waits for the watermark, sorts ▶ operator ▶ row set
/// ```
///
/// The partition side (`OrderedPartialTask`) copies what is needed of each row, apart for each owner; the owning side
/// (`OrderedTask`) keeps rows until no earlier one can come, brings them into their order, and lets the operator
/// fill its columns, batch by batch. So the operator sees the same rows in the same order whatever the workers and batches are.
///
/// The rows that come out have as columns: what was taken along (`carried`), the partition's ordinal and the offset, by which
/// windows over these rows put them in order again, then the operator's `outputTypes`.
public struct OrderedExchange: ExchangeDefinition, RowTaskDefinition {
  /// Index among the graph's exchanges.
  public var exchange: Int
  /// See `StatefulTask.operatorID`.
  public var operatorID: String
  /// A column that rows take along.
  public struct Carried: Sendable, Hashable {
    /// Its slot in the source's rows.
    public var slot: Int
    public var type: PhysicalType
    /// What it is, whatever its slot: rows in a checkpoint are matched by it.
    public var identity: String
    public init(slot: Int, type: PhysicalType, identity: String) {
      self.slot = slot
      self.type = type
      self.identity = identity
    }
  }
  public var carried: [Carried]
  /// Indexes into `carried` of the columns that the operator's state is kept by; empty for one state.
  public var keys: [Int]
  /// Nil where rows are brought into their order for whoever stands behind.
  public var operation: (any OrderedOperator)?
  /// Types of the slots behind the columns.
  public var computedSlots: [PhysicalType]
  public var rows: RowSet

  public init(
    exchange: Int, operatorID: String, carried: [Carried], keys: [Int], operation: (any OrderedOperator)?,
    computedSlots: [PhysicalType] = [], rows: RowSet
  ) {
    self.exchange = exchange
    self.operatorID = operatorID
    self.carried = carried
    self.keys = keys
    self.operation = operation
    self.computedSlots = computedSlots
    self.rows = rows
  }

  /// Types of the columns of the rows that come out.
  public var columnTypes: [PhysicalType] {
    carried.map(\.type) + [.int64, .int64] + (operation?.outputTypes ?? [])
  }

  public func makeTask(_ context: TaskContext) -> RowTask { makePartial(context) }

  public func makePartial(_ context: TaskContext) -> PartialTask {
    let task = OrderedPartialTask(self, context)
    context.register(task, exchange: exchange)
    return task
  }

  public func makeKeyed(_ context: TaskContext) -> KeyedTask { OrderedTask(self, context) }

  var keyTypes: [PhysicalType] { keys.map { carried[$0].type } }
}

/// What is done with rows in their order.
public protocol OrderedOperator: Sendable {
  /// Columns that it adds to rows.
  var outputTypes: [PhysicalType] { get }
  func makeTask(batchRows: Int) -> OrderedOperatorTask
}

/// An ordered operator at work: one instance a shard.
open class OrderedOperatorTask {
  public init() {}
  /// The state of a key that has not been seen.
  open func makeState() -> OrderedState { preconditionFailure("an operator makes its states") }
  /// Reads what a state's `encode` wrote, to its end.
  open func restoreState(from reader: inout StateReader) throws -> OrderedState {
    preconditionFailure("an operator reads its states")
  }
  /// Fills the operator's columns of `batch`, which begin at `firstOutput`, for all of its rows. `states[groups[row]]` is
  /// the state of the row's key. What columns point to must live until the next call.
  open func process(
    _ batch: Batch, firstOutput: Int, groups: UnsafePointer<Int32>, states: UnsafePointer<Unmanaged<OrderedState>>
  ) {}
}

/// What an ordered operator keeps for one key.
///
/// A capture shares it: while the capture is being encoded, on another thread, the task goes on with a copy.
open class OrderedState: @unchecked Sendable {
  // @unchecked: changed by its shard's thread alone, and not while a capture may read it.
  public init() {}
  open func encode(into writer: StateWriter) {}
  /// The same state, independent of this one.
  open func copy() -> OrderedState { preconditionFailure("a state copies itself") }
  /// Bytes held, for `/metrics` and the memory limit.
  open var bytes: Int { 0 }
}
