import CColumns
import Catalog
import Runtime

/// Keeps the rows for which a condition is true (not false, not null): makes a selection, copies nothing.
final class FilterTask: RowTask {
  private let select: (Batch, Selection, UnsafeMutablePointer<Int32>) -> Int
  private let kept: UnsafeMutablePointer<Int32>
  private let rows: RowTask
  private let operands: Set<Int>

  init(_ condition: TypedExpr, _ rows: RowTask, _ context: TaskContext) {
    kept = .allocate(capacity: context.batchRows)
    kept.initialize(repeating: 0, count: context.batchRows)
    self.rows = rows
    operands = Set(condition.columnIndexes)
    select = makeSelector(condition, capacity: context.batchRows)
  }

  deinit { kept.deallocate() }

  override func process(_ batch: Batch, _ selection: Selection) {
    let count = select(batch, selection, kept)
    guard count > 0 else { return }
    if count == selection.count { return rows.process(batch, selection) }
    rows.process(batch, Selection(rows: kept, count: count, isDense: false))
  }

  override func lack(_ slots: Set<Int>) -> Bool {
    let isBelow = rows.lack(slots)
    return isBelow || !operands.isDisjoint(with: slots)
  }

  override func windowEnded(_ end: Int64) { rows.windowEnded(end) }
  override func windowSkipped(_ end: Int64) { rows.windowSkipped(end) }
  override func inputEnded() { rows.inputEnded() }
  override var stateSize: (keys: Int, bytes: Int) { rows.stateSize }
  override var isQuiet: Bool { rows.isQuiet }
  override var holdSince: Int64? { rows.holdSince }
}

/// Writes the selected rows that satisfy a condition to the third argument and returns how many they are.
private func makeSelector(
  _ condition: TypedExpr, capacity: Int
) -> (Batch, Selection, UnsafeMutablePointer<Int32>) -> Int {
  // A number against a constant needs no boolean column in between.
  if case .compare(let operation, .column(let slot, let type), .constant(let value, _)) = condition,
    value != .null
  {
    switch type.physical {
    case .int64:
      let bound = value.intBits
      return { batch, selection, kept in
        let column = batch.columns[slot]
        return selectCompared(column.ints, operation, bound, column, selection, kept)
      }
    case .float64:
      let bound = value.number ?? 0
      return { batch, selection, kept in
        let column = batch.columns[slot]
        return selectCompared(column.doubles, operation, bound, column, selection, kept)
      }
    case .bool, .string: break
    }
  }
  let evaluator = makeEvaluator(condition, capacity: capacity)
  return { batch, selection, kept in
    let flags = evaluator.evaluate(batch, selection)
    let values = flags.bools
    return keepRows(selection, flags, kept) { values[$0] != 0 }
  }
}

@inline(__always)
private func selectCompared<T: Comparable & BitwiseCopyable>(
  _ values: UnsafeMutablePointer<T>, _ operation: ComparisonOperator, _ bound: T, _ column: Column,
  _ selection: Selection, _ kept: UnsafeMutablePointer<Int32>
) -> Int {
  switch operation {
  case .equal: keepRows(selection, column, kept) { values[$0] == bound }
  case .notEqual: keepRows(selection, column, kept) { values[$0] != bound }
  case .less: keepRows(selection, column, kept) { values[$0] < bound }
  case .lessOrEqual: keepRows(selection, column, kept) { values[$0] <= bound }
  case .greater: keepRows(selection, column, kept) { values[$0] > bound }
  case .greaterOrEqual: keepRows(selection, column, kept) { values[$0] >= bound }
  }
}

/// Branch-free: every row is written, and the place moves on where the row counts.
@inline(__always)
private func keepRows(
  _ selection: Selection, _ column: Column, _ kept: UnsafeMutablePointer<Int32>,
  _ isKept: (Int) -> Bool
) -> Int {
  var count = 0
  if column.hasNulls {
    let validity = column.validity
    forEachRow(selection) { row in
      kept[count] = Int32(truncatingIfNeeded: row)
      count += validity[row] != 0 && isKept(row) ? 1 : 0
    }
  } else {
    forEachRow(selection) { row in
      kept[count] = Int32(truncatingIfNeeded: row)
      count += isKept(row) ? 1 : 0
    }
  }
  return count
}
