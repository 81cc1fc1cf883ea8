import Catalog
import RuleLang

extension TypedExpr {
  /// The same tree with other columns.
  func mapColumns(_ body: (Int, ValueType) -> TypedExpr) -> TypedExpr {
    switch self {
    case .constant: self
    case .column(let index, let type): body(index, type)
    case .not(let operand): .not(operand.mapColumns(body))
    case .negate(let operand, let type): .negate(operand.mapColumns(body), type)
    case .isNull(let operand): .isNull(operand.mapColumns(body))
    case .isIn(let operand, let values): .isIn(operand.mapColumns(body), values)
    case .toFloat(let operand, let type): .toFloat(operand.mapColumns(body), type)
    case .logical(let operation, let left, let right):
      .logical(operation, left.mapColumns(body), right.mapColumns(body))
    case .compare(let operation, let left, let right):
      .compare(operation, left.mapColumns(body), right.mapColumns(body))
    case .arithmetic(let operation, let left, let right, let type):
      .arithmetic(operation, left.mapColumns(body), right.mapColumns(body), type)
    case .call(let name, let arguments, let type):
      .call(name, arguments.map { $0.mapColumns(body) }, type)
    }
  }

  /// The same condition however it was written: operands of `and` and `or` in one order, constants on the right.
  var canonical: TypedExpr {
    switch self {
    case .logical(let operation, _, _):
      var operands: [(text: String, expression: TypedExpr)] = []
      func split(_ expression: TypedExpr) {
        if case .logical(operation, let left, let right) = expression {
          split(left)
          split(right)
        } else {
          let operand = expression.canonical
          operands.append(("\(operand)", operand))
        }
      }
      split(self)
      operands.sort { $0.text < $1.text }
      let first = operands[0].expression
      return operands.dropFirst().reduce(first) { .logical(operation, $0, $1.expression) }
    case .not(let operand): return .not(operand.canonical)
    case .compare: return constantOnTheRight
    case .constant, .column, .negate, .arithmetic, .isNull, .isIn, .call, .toFloat: return self
    }
  }

  /// `5 < x` as `x > 5`.
  var constantOnTheRight: TypedExpr {
    guard case .compare(let operation, let left, let right) = self, case .constant = left else {
      return self
    }
    if case .constant = right { return self }
    let mirrored: ComparisonOperator =
      switch operation {
      case .equal: .equal
      case .notEqual: .notEqual
      case .less: .greater
      case .lessOrEqual: .greaterOrEqual
      case .greater: .less
      case .greaterOrEqual: .lessOrEqual
      }
    return .compare(mirrored, right, left)
  }

  /// The name of the column that this is, if it is nothing more.
  func columnName(_ names: [String]) -> String? {
    if case .column(let index, _) = self { return names[index] }
    return nil
  }

  /// The slot of `slot == constant`.
  var dispatchSlot: Int? {
    guard case .compare(.equal, .column(let slot, _), .constant(let value, _)) = self, value != .null
    else { return nil }
    return slot
  }
}
