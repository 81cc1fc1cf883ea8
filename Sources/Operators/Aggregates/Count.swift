import Catalog
import Runtime

/// `count()`: rows.
enum Count: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "count", summary: "How many rows.",
    takesValue: false,
    signature: { _ in .result(.int) }, mayBeNull: false, state: "8 bytes a key",
    example: "count(where status >= 500)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState { CountState() }
}

/// `rate()`: rows a second.
enum Rate: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "rate", summary: "Rows a second: the count over the length of the window.",
    takesValue: false,
    signature: { _ in .result(.float) }, mayBeNull: false, state: "8 bytes a key",
    example: "rate(where status >= 500)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState { CountState() }
}

final class CountState: AggregateState {
  private var counts = NativeArray<Int64>()

  override func ensure(groups count: Int) { counts.grow(to: count, filling: 0) }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    let base = counts.base
    for index in 0..<count { base[Int(groups[index])] &+= 1 }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: CountState.self)
    for index in 0..<count { counts[Int(targets[index])] &+= other.counts[Int(sources[index])] }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    switch column.type {
    case .int64: for row in 0..<count { column.ints[row] = counts[Int(groups[row])] }
    default:
      let seconds = Double(windowNanos) / 1e9
      for row in 0..<count { column.doubles[row] = Double(counts[Int(groups[row])]) / seconds }
    }
  }

  override var bytes: Int { counts.count * 8 }

  override var kind: UInt8 { 1 }
  override func copy() -> AggregateState {
    let copy = CountState()
    copy.counts = NativeArray(copying: counts)
    return copy
  }
  override func encode(into writer: StateWriter) { writer.append(counts) }
  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    counts = try reader.array(of: Int64.self, groups: groups)
  }
}
