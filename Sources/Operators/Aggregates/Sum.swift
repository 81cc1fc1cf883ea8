import Catalog
import Runtime

/// `sum(x)`
enum Sum: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "sum",
    summary: "The sum of a value; 0 when no row has one. An int sum stops at the largest int.",
    takesValue: true, signature: overNumbers { $0 == .ratio ? .float : $0 }, mayBeNull: false,
    state: "16 bytes a key", example: "sum(latency where status < 500)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    argument == .int ? IntSumState() : DoubleSumState()
  }
}

/// `avg(x)`
enum Average: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "avg", summary: "The mean of a value; null when no row has one.", takesValue: true,
    signature: overNumbers { $0 == .int ? .float : $0 }, mayBeNull: true, state: "24 bytes a key",
    example: "avg(latency)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    DoubleSumState(isMean: true)
  }
}

final class IntSumState: AggregateState {
  private var sums = NativeArray<Int64>()

  override func ensure(groups count: Int) { sums.grow(to: count, filling: 0) }

  @inline(__always)
  private static func add(_ a: Int64, _ b: Int64) -> Int64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? (b > 0 ? .max : .min) : sum
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    let values = column.ints
    let base = sums.base
    forEachPresent(column, rows, groups, count) { row, group in
      base[group] = Self.add(base[group], values[row])
    }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: IntSumState.self)
    for index in 0..<count {
      let target = Int(targets[index])
      sums[target] = Self.add(sums[target], other.sums[Int(sources[index])])
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count { column.ints[row] = sums[Int(groups[row])] }
  }

  override var bytes: Int { sums.count * 8 }

  override var kind: UInt8 { 2 }
  override func copy() -> AggregateState {
    let copy = IntSumState()
    copy.sums = NativeArray(copying: sums)
    return copy
  }
  override func encode(into writer: StateWriter) { writer.append(sums) }
  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    sums = try reader.array(of: Int64.self, groups: groups)
  }
}

/// A compensated sum of doubles (Neumaier 1974): the error does not grow with the number of rows.
final class DoubleSumState: AggregateState {
  private struct Cell: BitwiseCopyable {
    var sum = 0.0
    var compensation = 0.0
    var count: Int64 = 0

    @inline(__always)
    mutating func add(_ value: Double) {
      let next = sum + value
      compensation += abs(sum) >= abs(value) ? (sum - next) + value : (value - next) + sum
      sum = next
    }
    /// An infinite sum has a compensation that is no number.
    var total: Double { sum.isFinite ? sum + compensation : sum }
  }
  private var cells = NativeArray<Cell>()
  private let isMean: Bool

  init(isMean: Bool = false) { self.isMean = isMean }

  override func ensure(groups count: Int) { cells.grow(to: count, filling: Cell()) }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    let base = cells.base
    if column.type == .int64 {
      let values = column.ints
      forEachPresent(column, rows, groups, count) { row, group in
        base[group].add(Double(values[row]))
        base[group].count &+= 1
      }
    } else {
      let values = column.doubles
      forEachPresent(column, rows, groups, count) { row, group in
        base[group].add(values[row])
        base[group].count &+= 1
      }
    }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: DoubleSumState.self)
    for index in 0..<count {
      let source = other.cells[Int(sources[index])]
      guard source.count > 0 else { continue }
      let target = Int(targets[index])
      if cells[target].count == 0 {
        cells[target] = source
        continue
      }
      cells.base[target].add(source.sum)
      cells.base[target].compensation += source.compensation
      cells.base[target].count &+= source.count
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count {
      let cell = cells[Int(groups[row])]
      let value = isMean ? cell.total / Double(cell.count) : cell.total
      // A mean of nothing, or +Inf and -Inf in one sum.
      let isNull = value.isNaN
      column.doubles[row] = isNull ? 0 : value
      column.validity[row] = isNull ? 0 : 1
      if isNull { column.hasNulls = true }
    }
  }

  override var bytes: Int { cells.count * MemoryLayout<Cell>.stride }

  override var kind: UInt8 { 3 }
  override func copy() -> AggregateState {
    let copy = DoubleSumState(isMean: isMean)
    copy.cells = NativeArray(copying: cells)
    return copy
  }
  override func encode(into writer: StateWriter) { writer.append(cells) }
  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    cells = try reader.array(of: Cell.self, groups: groups)
  }
}
