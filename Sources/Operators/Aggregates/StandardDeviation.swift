import Catalog
import Runtime

/// `stddev(x)`
enum StandardDeviation: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "stddev",
    summary: "The sample standard deviation (n - 1); null for fewer than two rows with a value.",
    takesValue: true, signature: overNumbers { $0 == .int ? .float : $0 }, mayBeNull: true,
    state: "24 bytes a key", example: "stddev(latency)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    MomentsState()
  }
}

/// Mean and sum of squared deviations, updated by Welford's method (1962) and merged by Chan, Golub and LeVeque's (1979).
final class MomentsState: AggregateState {
  private struct Cell: BitwiseCopyable {
    var count = 0.0
    var mean = 0.0
    var squares = 0.0

    @inline(__always)
    mutating func add(_ value: Double) {
      count += 1
      let delta = value - mean
      mean += delta / count
      squares += delta * (value - mean)
    }
  }
  private var cells = NativeArray<Cell>()

  override func ensure(groups count: Int) { cells.grow(to: count, filling: Cell()) }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    let base = cells.base
    if column.type == .int64 {
      let values = column.ints
      forEachPresent(column, rows, groups, count) { base[$1].add(Double(values[$0])) }
    } else {
      let values = column.doubles
      forEachPresent(column, rows, groups, count) { base[$1].add(values[$0]) }
    }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: MomentsState.self)
    for index in 0..<count {
      let b = other.cells[Int(sources[index])]
      guard b.count > 0 else { continue }
      let target = Int(targets[index])
      let a = cells[target]
      if a.count == 0 {
        cells[target] = b
        continue
      }
      let count = a.count + b.count
      let delta = b.mean - a.mean
      cells[target] = Cell(
        count: count, mean: a.mean + delta * b.count / count,
        squares: a.squares + b.squares + delta * delta * a.count * b.count / count)
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count {
      let cell = cells[Int(groups[row])]
      let value = (max(0, cell.squares) / (cell.count - 1)).squareRoot()
      let isNull = cell.count < 2 || value.isNaN
      column.doubles[row] = isNull ? 0 : value
      column.validity[row] = isNull ? 0 : 1
      if isNull { column.hasNulls = true }
    }
  }

  override var bytes: Int { cells.count * MemoryLayout<Cell>.stride }

  override var kind: UInt8 { 4 }
  override func copy() -> AggregateState {
    let copy = MomentsState()
    copy.cells = NativeArray(copying: cells)
    return copy
  }
  override func encode(into writer: StateWriter) { writer.append(cells) }
  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    cells = try reader.array(of: Cell.self, groups: groups)
  }
}
