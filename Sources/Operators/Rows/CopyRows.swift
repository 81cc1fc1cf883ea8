import CColumns
import Catalog
import Runtime

/// Where a row stands among several batches.
struct RowPlace {
  var time: Int64
  var batch: Int32
  var row: Int32
}

/// A column to be read row by row, without its reference being counted for each: valid while its column lives and its batch
/// has those rows.
struct ColumnView {
  let values: UnsafeRawPointer
  /// Nil where nothing is null.
  let validity: UnsafePointer<UInt8>?

  init(_ column: Column) {
    values = UnsafeRawPointer(column.raw)
    validity = column.hasNulls ? UnsafePointer(column.validity) : nil
  }

  func isNull(_ row: Int) -> Bool { validity.map { $0[row] == 0 } ?? false }
}

/// Brings rows of several batches to the front of a column of their type, nulls included; `views` has the column of each
/// batch. Strings still point where they pointed.
func gather(_ places: ArraySlice<RowPlace>, from views: [ColumnView], to target: Column) {
  precondition(places.count <= target.capacity, "more rows than the column holds")
  func move<T: BitwiseCopyable>(_ out: UnsafeMutablePointer<T>, null: T) -> Bool {
    views.withUnsafeBufferPointer { views in
      var hasNulls = false
      var index = 0
      for place in places {
        let view = views[Int(place.batch)]
        let isNull = view.isNull(Int(place.row))
        out[index] = isNull ? null : view.values.assumingMemoryBound(to: T.self)[Int(place.row)]
        target.validity[index] = isNull ? 0 : 1
        if isNull { hasNulls = true }
        index += 1
      }
      return hasNulls
    }
  }
  target.hasNulls =
    switch target.type {
    case .bool: move(target.bools, null: 0)
    case .int64: move(target.ints, null: 0)
    case .float64: move(target.doubles, null: 0)
    case .string: move(target.strings, null: rd_string())
    }
}

/// Brings rows of one column to the front of another, as `gather` does.
func copyRows(_ rows: [Int32], of source: Column, to target: Column) {
  precondition(rows.count <= target.capacity, "more rows than the column holds")
  let view = ColumnView(source)
  func move<T: BitwiseCopyable>(_ out: UnsafeMutablePointer<T>, null: T) -> Bool {
    let values = view.values.assumingMemoryBound(to: T.self)
    var hasNulls = false
    for (index, row) in rows.enumerated() {
      let isNull = view.isNull(Int(row))
      out[index] = isNull ? null : values[Int(row)]
      target.validity[index] = isNull ? 0 : 1
      if isNull { hasNulls = true }
    }
    return hasNulls
  }
  target.hasNulls =
    switch target.type {
    case .bool: move(target.bools, null: 0)
    case .int64: move(target.ints, null: 0)
    case .float64: move(target.doubles, null: 0)
    case .string: move(target.strings, null: rd_string())
    }
}

/// Copies one value between columns of one type, null included. A string still points where it pointed.
func copyRow(_ source: Column, _ row: Int, to target: Column, _ targetRow: Int) {
  let isNull = source.hasNulls && source.validity[row] == 0
  target.validity[targetRow] = isNull ? 0 : 1
  if isNull { target.hasNulls = true }
  switch target.type {
  case .bool: target.bools[targetRow] = source.bools[row]
  case .int64: target.ints[targetRow] = source.ints[row]
  case .float64: target.doubles[targetRow] = source.doubles[row]
  case .string: target.strings[targetRow] = isNull ? rd_string() : source.strings[row]
  }
}

/// Three-way order of two values of one type, null first.
func compareValues(_ a: Column, _ x: Int, _ b: Column, _ y: Int) -> Int {
  compareValues(ColumnView(a), x, ColumnView(b), y, type: a.type)
}

func compareValues(_ a: ColumnView, _ x: Int, _ b: ColumnView, _ y: Int, type: PhysicalType) -> Int {
  let aIsNull = a.isNull(x)
  let bIsNull = b.isNull(y)
  if aIsNull || bIsNull { return (aIsNull ? 0 : 1) - (bIsNull ? 0 : 1) }
  func value<T: BitwiseCopyable>(_ view: ColumnView, _ row: Int, _ type: T.Type) -> T {
    view.values.assumingMemoryBound(to: T.self)[row]
  }
  func order<T: Comparable>(_ p: T, _ q: T) -> Int { p == q ? 0 : (p < q ? -1 : 1) }
  switch type {
  case .bool: return order(value(a, x, UInt8.self), value(b, y, UInt8.self))
  case .int64: return order(value(a, x, Int64.self), value(b, y, Int64.self))
  case .float64: return order(value(a, x, Double.self), value(b, y, Double.self))
  case .string: return Int(compareBytes(value(a, x, rd_string.self), value(b, y, rd_string.self)))
  }
}
