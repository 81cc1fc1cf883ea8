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

  // MARK: Checkpoints

  /// What the stored bytes are. A number is never used again for anything else.
  var kind: UInt8 { preconditionFailure("an aggregate state without a kind") }

  /// The same state, to go on by itself: later results are the same, bit for bit.
  func copy() -> AggregateState { preconditionFailure("an aggregate state without a copy") }

  /// Writes all groups that `ensure` has made room for.
  func encode(into writer: StateWriter) {}

  /// Reads what `encode` wrote of `groups` groups. On a fresh state.
  func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {}
}

/// State of an aggregate that outlives a pane, by key.
class AggregateCarry {
  /// Captures that share it: it is copied before it is changed while there are any.
  let holds = CaptureHolds()

  var bytes: Int { 0 }
  func copy() -> AggregateCarry { preconditionFailure("a carry without a copy") }
  func encode(into writer: StateWriter) {}
  /// Adds the keys in `scope` of what `encode` wrote.
  func restore(from reader: inout StateReader, scope: KeyScope) throws(StateCorruption) {}
}

extension StateReader {
  /// One element a group.
  mutating func array<T: BitwiseCopyable>(of type: T.Type, groups: Int) throws(StateCorruption) -> NativeArray<T> {
    let array = try array(of: type)
    guard array.count == groups else {
      throw StateCorruption("the state has \(array.count) aggregates for \(groups) keys")
    }
    return array
  }

  /// One flag a group.
  mutating func flags(groups: Int) throws(StateCorruption) -> NativeArray<UInt8> {
    let flags = try array(of: UInt8.self, groups: groups)
    for index in 0..<groups where flags[index] > 1 {
      throw StateCorruption("a flag of the state is \(flags[index])")
    }
    return flags
  }
}

/// Most rows that a stored count may name: sums of many of them are still far from the end of Int64.
let storedCountMax: Int64 = 1 << 50

/// Times that stored state may name: event times, and ends of windows over them. Two of them can be subtracted.
let storedTimes: ClosedRange<Int64> = {
  let slack: Int64 = 400 * 86_400 * 1_000_000_000
  return eventTimeNanos.lowerBound - slack...eventTimeNanos.upperBound + slack
}()

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
