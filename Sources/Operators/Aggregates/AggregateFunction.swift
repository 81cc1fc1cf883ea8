import Catalog
import Runtime

/// An aggregate function: what users read, and what makes its state. One a file; listed in `aggregateFunctionList`.
protocol AggregateFunction: SendableMetatype {
  static var spec: AggregateFunctionSpec { get }
  /// Whether calls that differ in their constants alone can share one state (`quantile` with several q).
  static var sharesStateAcrossConstants: Bool { get }
  /// How far before a window its value depends on rows; more than 0 for `increase` only.
  static func lookbackNanos(windowNanos: Int64) -> Int64
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState
}

extension AggregateFunction {
  static var sharesStateAcrossConstants: Bool { false }
  static func lookbackNanos(windowNanos: Int64) -> Int64 { 0 }
}

let aggregateFunctions: [String: any AggregateFunction.Type] = Dictionary(
  uniqueKeysWithValues: aggregateFunctionList.map { ($0.spec.name, $0) })

/// The state of one aggregate for all groups of a pane: arrays indexed by group id.
///
/// Partial states of one pane are merged in the order of partitions, and panes in the order of time; a state may rely on that.
class AggregateState {
  /// Makes room for groups `0..<count`.
  func ensure(groups count: Int) {}

  /// Takes `count` rows: row `rows[i]` belongs to group `groups[i]`. `column` is the argument, where there is one.
  /// Rows come in the order of their partition's offsets.
  func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {}

  /// Adds groups `sources[i]` of another state of the same kind to groups `targets[i]` of this one.
  func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {}

  /// Called once for a pane, when it is complete: what the state must know of the panes before it (`increase`).
  func seal(_ table: GroupTable, carry: AggregateCarry?) {}

  /// What `seal` keeps between panes; nil where nothing is kept.
  func makeCarry(keyTypes: [PhysicalType], windowNanos: Int64) -> AggregateCarry? { nil }

  /// Writes the values of `groups` to rows 0, 1, … of the column. `windowNanos` is the length of the window.
  func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {}

  var bytes: Int { 0 }
}

/// State of an aggregate that outlives a pane, by key.
class AggregateCarry {
  var bytes: Int { 0 }
}

/// Calls `body(row, group)` for each row whose argument is not null.
@inline(__always)
func forEachPresent(
  _ column: Column, _ rows: UnsafePointer<Int32>, _ groups: UnsafePointer<Int32>, _ count: Int,
  _ body: (Int, Int) -> Void
) {
  if column.hasNulls {
    let validity = column.validity
    for index in 0..<count {
      let row = Int(rows[index])
      if validity[row] != 0 { body(row, Int(groups[index])) }
    }
  } else {
    for index in 0..<count { body(Int(rows[index]), Int(groups[index])) }
  }
}

let numericTypes: Set<ValueType> = [.int, .float, .duration, .bytes, .ratio]

/// The signature of an aggregate over numbers.
func overNumbers(_ result: @escaping @Sendable (ValueType) -> ValueType)
  -> @Sendable (ValueType?) -> SignatureMatch
{
  { type in
    guard let type else { return .mismatch("needs a value, such as `latency`") }
    guard numericTypes.contains(type) else {
      return .mismatch("takes a number, not a \(type.rawValue)")
    }
    return .result(result(type))
  }
}
