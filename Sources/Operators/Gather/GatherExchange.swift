import Catalog
import Runtime

/// Rows of several inputs, in one order, at the shard that owns their key: for operators that take rows of more than one
/// place, or make other rows of them (joins, traces).
///
/// ```
/// source rows   ▶ GatherPartialTask ═exchange═▶ ┐
///                                               ├ GatherTask: waits for all inputs, sorts ▶ operator ▶ row sets
/// rows of windows, of joins ▶ GatherSender ═══▶ ┘
/// ```
///
/// The order is (time, input, partition, offset) for rows of sources, and (time, input, key) for others, whose rows of one
/// key come from one shard in their order. A row is released when the watermark of the flow, the least of all inputs, has
/// passed it; so the operator sees the same rows in the same order whatever the workers and the batches are.
public struct GatherExchange: ExchangeDefinition {
  /// Index among the graph's exchanges.
  public var exchange: Int
  /// See `StatefulTask.operatorID`.
  public var operatorID: String
  public var inputs: [GatherInput]
  public var operation: any GatherOperation
  /// Rows that come out, one set for each kind that the operator makes.
  public var outputs: [GatherOutput]

  public init(
    exchange: Int, operatorID: String, inputs: [GatherInput], operation: any GatherOperation, outputs: [GatherOutput]
  ) {
    self.exchange = exchange
    self.operatorID = operatorID
    self.inputs = inputs
    self.operation = operation
    self.outputs = outputs
  }

  public func makePartial(_ context: TaskContext) -> PartialTask { GatherPartialTask(exchange, operatorID, context) }

  public func makeKeyed(_ context: TaskContext) -> KeyedTask { operation.makeTask(self, context) }

  var keyTypes: [PhysicalType] { inputs[0].keyTypes }
}

/// Where rows of one input come from, and what is taken along of them.
public struct GatherInput: Sendable {
  /// Columns that rows take along.
  public var carried: [OrderedExchange.Carried]
  /// Indexes into `carried` of the columns whose values decide who owns a row.
  public var keys: [Int]
  /// Indexes into `carried` of what puts rows of one time in order; nil for rows of a source, which have partitions and
  /// offsets.
  public var order: [Int]?
  /// Whether a row with a null among its keys concerns nobody.
  public var dropsNullKeys: Bool
  /// How far back before a row's time the rows reach that it comes from.
  public var reachNanos: Int64

  public init(
    carried: [OrderedExchange.Carried], keys: [Int], order: [Int]? = nil, dropsNullKeys: Bool, reachNanos: Int64 = 0
  ) {
    self.carried = carried
    self.keys = keys
    self.order = order
    self.dropsNullKeys = dropsNullKeys
    self.reachNanos = reachNanos
  }

  var keyTypes: [PhysicalType] { keys.map { carried[$0].type } }
  var types: [PhysicalType] { carried.map(\.type) }

  func splitter(_ context: TaskContext) -> RowSplitter {
    RowSplitter(carried, keys: keys, dropsNullKeys: dropsNullKeys, context)
  }

  /// The same columns, as those who store rows know them.
  var stored: OrderedExchange {
    OrderedExchange(exchange: -1, operatorID: "", carried: carried, keys: keys, operation: NoOperation(), rows: RowSet())
  }

  private struct NoOperation: OrderedOperator {
    var outputTypes: [PhysicalType] { [] }
    func makeTask(batchRows: Int) -> OrderedOperatorTask { OrderedOperatorTask() }
  }
}

/// Rows that come out of a gathering operator.
public struct GatherOutput: Sendable {
  public var columnTypes: [PhysicalType]
  /// Types of the slots behind the columns.
  public var computedSlots: [PhysicalType]
  public var rows: RowSet
  public init(columnTypes: [PhysicalType], computedSlots: [PhysicalType], rows: RowSet) {
    self.columnTypes = columnTypes
    self.computedSlots = computedSlots
    self.rows = rows
  }
}

/// What is done with gathered rows.
public protocol GatherOperation: Sendable {
  func makeTask(_ definition: GatherExchange, _ context: TaskContext) -> KeyedTask
}

/// The way of one input's rows into the exchange: hangs on the row set whose rows they are.
public struct GatherFeed: RowTaskDefinition {
  public var exchange: Int
  public var operatorID: String
  public var number: Int
  public var input: GatherInput
  public init(exchange: Int, operatorID: String, number: Int, input: GatherInput) {
    self.exchange = exchange
    self.operatorID = operatorID
    self.number = number
    self.input = input
  }

  public func makeTask(_ context: TaskContext) -> RowTask {
    guard input.order == nil else { return GatherSender(self, context) }
    // A source that is joined with itself feeds one exchange twice.
    let known = context.partials[exchange] as? GatherPartialTask
    let partial = known ?? GatherPartialTask(exchange, operatorID, context)
    return GatherFeedTask(self, partial, context)
  }
}
