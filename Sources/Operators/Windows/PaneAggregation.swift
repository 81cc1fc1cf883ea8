import Catalog
import Runtime

/// Windowed aggregates over the rows of one row set by one list of keys: panes of partial aggregates by partition, merged by
/// the shards that own the keys, and the windows that are put together from them.
///
/// Every rule with the same rows and keys shares it: each distinct aggregate is kept once, whatever windows and streams ask
/// for it.
///
/// What a checkpoint keeps of it when the rules have changed in between. `operatorID` comes from the rows and the keys
/// alone, so the stored state is that of the same rows by the same keys, but its aggregates, windows and panes may be others:
///
/// - An aggregate is kept when a state of the same `State.id` (and of the same stored form) is there; others are dropped.
/// - A window is kept when one of the same size and hop was there: it goes on where it was.
/// - A window that was not there begins with its first one that starts at or after the barrier (the level's watermark
///   then); with `increase` whose look-back has grown, that much later.
/// - A window with an aggregate that was not there begins, for who reads that, with its first one that starts behind every row that had been
///   read at the barrier: behind the level's watermark rounded up to a stored pane, and behind each stored pane; for
///   `increase` that much later again. Until then the window goes on for everybody who reads none of these: see
///   `RowTask.lack`.
/// - Panes keep the length that they were stored with. While panes of the old length are still open, panes of both lengths
///   are put together into ones of their least common multiple; every window that was there before is made of whole ones
///   of those, a new one that would cut one in two begins behind them.
/// - Windows over the rows of a window that is not evaluated for one of these reasons are not evaluated either.
/// - Other types of keys are `StateCorruption`: the planner gives such an operator another id.
public struct PaneAggregation: ExchangeDefinition, RowTaskDefinition {
  /// One aggregate's state: all that call the same function on the same rows share it.
  public struct State: Sendable, Hashable {
    public var function: String
    /// Slot of the argument in the rows that come in; nil for `count()`.
    public var argument: Int?
    public var argumentType: ValueType?
    /// Slot of a bool column: rows where it is not true do not count.
    public var filter: Int?
    /// Empty where the function shares its state across constants.
    public var constants: [Value]
    /// What it aggregates, as a text that does not depend on slots or on other rules: stored state is matched by it.
    public var id = ""
    public init(
      function: String, argument: Int?, argumentType: ValueType?, filter: Int?, constants: [Value]
    ) {
      self.function = function
      self.argument = argument
      self.argumentType = argumentType
      self.filter = filter
      self.constants = constants
    }
  }

  /// A column of a window's rows behind the keys.
  public struct Output: Sendable, Hashable {
    public var state: Int
    public var constants: [Value]
    public var type: PhysicalType
    public init(state: Int, constants: [Value], type: PhysicalType) {
      self.state = state
      self.constants = constants
      self.type = type
    }
  }

  /// Windows over the panes, and who gets their rows: keys first, then the outputs, then computed slots.
  public struct Window: Sendable {
    public var sizeNanos: Int64
    public var hopNanos: Int64
    public var outputs: [Output]
    public var computedSlots: [PhysicalType]
    public var rows: RowSet
    public init(
      sizeNanos: Int64, hopNanos: Int64, outputs: [Output], computedSlots: [PhysicalType],
      rows: RowSet
    ) {
      self.sizeNanos = sizeNanos
      self.hopNanos = hopNanos
      self.outputs = outputs
      self.computedSlots = computedSlots
      self.rows = rows
    }
  }

  /// Index among the graph's exchanges.
  public var exchange: Int
  /// From the rows, the keys and nothing else: see `StatefulTask.operatorID`.
  public var operatorID = ""
  public var paneNanos: Int64
  public var keySlots: [Int]
  public let keyTypes: [PhysicalType]
  public let states: [State]
  let contents: PaneContents
  public var windows: [Window]
  /// Types of all slots of the rows that come in; at level 1 and up, where rows travel between shards.
  public var inputTypes: [PhysicalType]
  /// Whether the rows come from windows (level 1 and up) rather than from a source.
  public var isOverWindows: Bool
  /// Key slots of the windows that the rows come from: with the time, they put the rows in order.
  public var upstreamKeySlots: [Int]
  /// How far back before a row's time the windows reach that it comes from.
  public var upstreamNanos: Int64
  /// Most keys in a pane of one partition. Rows of further keys are counted and dropped: in the order of offsets and
  /// before anything is exchanged, so that neither batches nor workers change which.
  public var keyLimit = Int.max
  /// Where neither the rule nor the command line says anything.
  public static let keyLimitDefault = 1_000_000

  public init(
    exchange: Int, paneNanos: Int64, keySlots: [Int], keyTypes: [PhysicalType], states: [State],
    windows: [Window], inputTypes: [PhysicalType] = [], isOverWindows: Bool = false,
    upstreamKeySlots: [Int] = [], upstreamNanos: Int64 = 0
  ) {
    self.exchange = exchange
    self.paneNanos = paneNanos
    self.keySlots = keySlots
    self.keyTypes = keyTypes
    self.states = states
    contents = PaneContents(keyTypes: keyTypes, states: states)
    self.windows = windows
    self.inputTypes = inputTypes
    self.isOverWindows = isOverWindows
    self.upstreamKeySlots = upstreamKeySlots
    self.upstreamNanos = upstreamNanos
  }

  /// Slots of the incoming rows that are read; others may hold what an earlier batch left there.
  var neededSlots: [Int] {
    Set(keySlots + states.compactMap(\.argument) + states.compactMap(\.filter) + upstreamKeySlots).sorted()
  }

  /// How far back before a window its values may depend on rows.
  public var lookbackNanos: Int64 {
    Self.lookbackNanos(functions: states.map(\.function), windowNanos: windows.map(\.sizeNanos))
  }

  /// The same for one state.
  func lookbackNanos(state: Int) -> Int64 {
    Self.lookbackNanos(functions: [states[state].function], windowNanos: windows.map(\.sizeNanos))
  }

  /// The same, from the names of the aggregates and the sizes of the windows.
  public static func lookbackNanos(functions: [String], windowNanos sizes: [Int64]) -> Int64 {
    let longest = sizes.max() ?? 0
    return functions.map { aggregateFunctions[$0]?.lookbackNanos(windowNanos: longest) ?? 0 }.max() ?? 0
  }

  func makeStates() -> [AggregateState] { contents.makeStates() }

  /// The side that takes rows: partial aggregates over a source, or the sender of rows over windows.
  public func makeTask(_ context: TaskContext) -> RowTask {
    isOverWindows ? RowSender(self, context) : makePartial(context)
  }

  public func makePartial(_ context: TaskContext) -> PartialTask {
    let task = PanePartialTask(self, context)
    context.register(task, exchange: exchange)
    return task
  }

  public func makeKeyed(_ context: TaskContext) -> KeyedTask { WindowTask(self, context) }
}

/// What a new pane of an aggregation holds. Panes are made by the thousand: functions are looked up once, and nothing else
/// of the aggregation is touched.
final class PaneContents: Sendable {
  private struct Part {
    let function: any AggregateFunction.Type
    let argument: ValueType?
    let constants: [Value]
  }
  let keyTypes: [PhysicalType]
  private let parts: [Part]

  init(keyTypes: [PhysicalType], states: [PaneAggregation.State]) {
    self.keyTypes = keyTypes
    parts = states.map { state in
      guard let function = aggregateFunctions[state.function] else {
        preconditionFailure("the checker let an unknown aggregate `\(state.function)` through")
      }
      return Part(function: function, argument: state.argumentType, constants: state.constants)
    }
  }

  func makeStates() -> [AggregateState] {
    parts.map { $0.function.makeState(argument: $0.argument, constants: $0.constants) }
  }
}
