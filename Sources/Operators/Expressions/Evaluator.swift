import CColumns
import Catalog
import Runtime

/// An expression at work: fills a column for the selected rows of a batch. One instance a worker; it owns its result column.
///
/// Null handling lives in the evaluators, so that kernels see plain numbers: a row whose operand is null gets a null
/// result and whatever value the kernel made of the operand's unspecified one.
class Evaluator {
  let type: PhysicalType
  init(type: PhysicalType) { self.type = type }

  /// The result for the selected rows. Valid until the evaluator runs again.
  func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    preconditionFailure("an evaluator overrides evaluate")
  }
}

/// A slot of the batch.
final class SlotEvaluator: Evaluator {
  let slot: Int
  init(slot: Int, type: PhysicalType) {
    self.slot = slot
    super.init(type: type)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column { batch.columns[slot] }
}

/// The same value in every row, written once.
final class ConstantEvaluator: Evaluator {
  private let column: Column
  /// Keeps the bytes of a string constant alive.
  private var arena = ByteArena()

  init(_ value: Value, type: PhysicalType, capacity: Int) {
    column = Column(type: type, capacity: capacity)
    if case .null = value {
      column.hasNulls = true
      column.validity.update(repeating: 0, count: capacity)
    }
    switch type {
    case .bool:
      if case .bool(let flag) = value { column.bools.update(repeating: flag ? 1 : 0, count: capacity) }
    case .int64: column.ints.update(repeating: value.intBits, count: capacity)
    case .float64: column.doubles.update(repeating: value.number ?? 0, count: capacity)
    case .string:
      if case .string(let text) = value {
        let string = arena.intern(text)
        column.strings.update(repeating: string, count: capacity)
      }
    }
    super.init(type: type)
  }

  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column { column }
}

extension Value {
  /// The bits of an int or a timestamp; 0 for anything else.
  var intBits: Int64 {
    switch self {
    case .int(let value), .timestamp(let value): value
    default: 0
    }
  }
}

extension ByteArena {
  /// A copy of a text as a column value, hash included.
  mutating func intern(_ text: String) -> rd_string {
    var text = text
    return text.withUTF8 { bytes in
      let copy = self.copy(bytes.baseAddress, bytes.count)
      return rd_string(
        data: copy, length: UInt32(bytes.count),
        hash: rd_hash_bytes(bytes.baseAddress, UInt32(bytes.count)))
    }
  }
}

/// Calls `body` for each selected row; a dense selection is a plain counting loop.
@inline(__always)
func forEachRow(_ selection: Selection, _ body: (Int) -> Void) {
  if selection.isDense {
    for row in 0..<selection.count { body(row) }
  } else {
    for index in 0..<selection.count { body(Int(selection.rows[index])) }
  }
}

/// Sets the result's validity to that of both operands, and `hasNulls` where a selected row is null.
@inline(__always)
func combineValidity(_ a: Column, _ b: Column?, into result: Column, _ selection: Selection) {
  let aNulls = a.hasNulls
  let bNulls = b?.hasNulls ?? false
  guard aNulls || bNulls else {
    result.hasNulls = false
    return
  }
  let left = a.validity
  let right = b?.validity ?? a.validity
  let target = result.validity
  if aNulls && bNulls {
    forEachRow(selection) { target[$0] = left[$0] & right[$0] }
  } else {
    let source = aNulls ? left : right
    forEachRow(selection) { target[$0] = source[$0] }
  }
  result.hasNulls = true
}

/// Makes the rows present before a kernel that marks single rows null.
@inline(__always)
func ensureValidityWritten(_ column: Column, _ selection: Selection) {
  guard !column.hasNulls else { return }
  let validity = column.validity
  forEachRow(selection) { validity[$0] = 1 }
}
