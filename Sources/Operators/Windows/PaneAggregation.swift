import Catalog
import Runtime

/// Windowed aggregates over the rows of one row set by one list of keys: panes of partial aggregates by partition, merged by
/// the shards that own the keys, and the windows that are put together from them.
///
/// Every rule with the same rows and keys shares it: each distinct aggregate is kept once, whatever windows and streams ask
/// for it.
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
  public var keyTypes: [PhysicalType]
  public let states: [State]
  /// The functions of `states`, looked up once: panes are made by the thousand.
  private let functions: [any AggregateFunction.Type]
  public var windows: [Window]
  /// Types of all slots of the rows that come in; at level 1 and up, where rows travel between shards.
  public var inputTypes: [PhysicalType]
  /// Whether the rows come from windows (level 1 and up) rather than from a source.
  public var isOverWindows: Bool
  /// Key slots of the windows that the rows come from: with the time, they put the rows in order.
  public var upstreamKeySlots: [Int]
  /// How far back before a row's time the windows reach that it comes from.
  public var upstreamNanos: Int64

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
    functions = states.map { state in
      guard let function = aggregateFunctions[state.function] else {
        preconditionFailure("the checker let an unknown aggregate `\(state.function)` through")
      }
      return function
    }
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

  /// The same, from the names of the aggregates and the sizes of the windows.
  public static func lookbackNanos(functions: [String], windowNanos sizes: [Int64]) -> Int64 {
    let longest = sizes.max() ?? 0
    return functions.map { aggregateFunctions[$0]?.lookbackNanos(windowNanos: longest) ?? 0 }.max() ?? 0
  }

  func makeStates() -> [AggregateState] {
    zip(states, functions).map { $1.makeState(argument: $0.argumentType, constants: $0.constants) }
  }

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

/// A pane: its groups and their aggregates.
final class Pane: PanePartial, @unchecked Sendable {
  // @unchecked: as PanePartial says.
  let table: GroupTable
  let states: [AggregateState]
  /// The same, to be called without counting references.
  let calls: ContiguousArray<Unmanaged<AggregateState>>

  init(start: Int64, _ definition: PaneAggregation, expectedGroups: Int = 16) {
    table = GroupTable(keyTypes: definition.keyTypes, expectedGroups: expectedGroups)
    states = definition.makeStates()
    calls = ContiguousArray(states.map { Unmanaged.passUnretained($0) })
    super.init(start: start)
  }

  /// Adds the groups of another pane, those whose key belongs to `shard`.
  func merge(_ other: Pane, shard: Int, shardCount: Int) {
    var sources: [Int32] = []
    var targets: [Int32] = []
    for group in 0..<other.table.count {
      let hash = other.table.hash(of: group)
      if shardCount > 1, Self.owner(hash, shardCount) != shard { continue }
      sources.append(Int32(group))
      targets.append(Int32(table.assign(group: group, of: other.table)))
    }
    for (mine, theirs) in zip(states, other.states) {
      mine.ensure(groups: table.count)
      mine.merge(theirs, sources: sources, targets: targets, count: sources.count)
    }
  }

  /// The shard that owns a key. The table uses the low bits of the hash; these are the high ones.
  static func owner(_ hash: UInt64, _ shardCount: Int) -> Int {
    Int((hash >> 32) % UInt64(shardCount))
  }

  var bytes: Int { table.bytes + states.reduce(0) { $0 + $1.bytes } }
}
