import CColumns
import Catalog
import Runtime

/// Where a column's values lie, and its validity where it has nulls: for rows that are compared or copied one by one, since to
/// count references to a batch and its columns for each costs more than the rest. Good while the column lives and its
/// `hasNulls` stays.
struct ColumnMemory: BitwiseCopyable {
  let type: PhysicalType
  let values: UnsafeMutableRawPointer
  let validity: UnsafeMutablePointer<UInt8>?

  init(_ column: Column) {
    type = column.type
    values = column.raw
    validity = column.hasNulls ? column.validity : nil
  }

  @inline(__always)
  func isNull(_ row: Int) -> Bool {
    guard let validity else { return false }
    return validity[row] == 0
  }
}

extension Column {
  /// Writes values of other columns of its type to its first `count` rows. `place` says where each is; without a column it is
  /// null. Strings still point where they pointed.
  @inline(__always)
  func fill(_ count: Int, from place: (Int) -> (column: ColumnMemory?, row: Int)) {
    switch type {
    case .bool: fill(bools, count, place)
    case .int64: fill(ints, count, place)
    case .float64: fill(doubles, count, place)
    case .string: fill(strings, count, place)
    }
  }

  @inline(__always)
  private func fill<T: BitwiseCopyable>(
    _ values: UnsafeMutablePointer<T>, _ count: Int, _ place: (Int) -> (column: ColumnMemory?, row: Int)
  ) {
    let validity = validity
    var nulls = false
    for index in 0..<count {
      let (column, row) = place(index)
      guard let column else {
        validity[index] = 0
        nulls = true
        continue
      }
      values[index] = column.values.assumingMemoryBound(to: T.self)[row]
      let isNull = column.isNull(row)
      validity[index] = isNull ? 0 : 1
      nulls = nulls || isNull
    }
    hasNulls = nulls
  }
}

/// Three-way order of two values of one type, null first.
func compareValues(_ a: ColumnMemory, _ x: Int, _ b: ColumnMemory, _ y: Int) -> Int {
  let aIsNull = a.isNull(x)
  let bIsNull = b.isNull(y)
  if aIsNull || bIsNull { return (aIsNull ? 0 : 1) - (bIsNull ? 0 : 1) }
  @inline(__always) func order<T: Comparable>(_: T.Type) -> Int {
    let p = a.values.assumingMemoryBound(to: T.self)[x]
    let q = b.values.assumingMemoryBound(to: T.self)[y]
    return p == q ? 0 : (p < q ? -1 : 1)
  }
  switch a.type {
  case .bool: return order(UInt8.self)
  case .int64: return order(Int64.self)
  case .float64: return order(Double.self)
  case .string:
    return Int(
      compareBytes(
        a.values.assumingMemoryBound(to: rd_string.self)[x], b.values.assumingMemoryBound(to: rd_string.self)[y]))
  }
}
