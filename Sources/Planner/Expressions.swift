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
          operands.append((operand.orderText, operand))
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

  /// What conditions are put in order by: the text that `"\(self)"` gives, which takes reflection some 20 µs, and a thousand
  /// rules have thousands of conditions.
  var orderText: String {
    var text = ""
    appendOrderText(to: &text)
    return text
  }

  private func appendOrderText(to text: inout String) {
    func add(_ operand: TypedExpr) {
      text += "Catalog.TypedExpr."
      operand.appendOrderText(to: &text)
    }
    func end(_ type: ValueType) { text += ", Catalog.ValueType.\(type.rawValue))" }
    func list<T>(_ items: [T], _ add: (T) -> Void) {
      text += ", ["
      for (index, item) in items.enumerated() {
        if index > 0 { text += ", " }
        add(item)
      }
      text += "]"
    }
    switch self {
    case .constant(let value, let type):
      text += "constant(\(value.orderText)"
      end(type)
    case .column(let index, let type):
      text += "column(\(index)"
      end(type)
    case .not(let operand):
      text += "not("
      add(operand)
      text += ")"
    case .negate(let operand, let type):
      text += "negate("
      add(operand)
      end(type)
    case .logical(let operation, let left, let right):
      text += "logical(Catalog.LogicalOperator.\(operation.rawValue), "
      add(left)
      text += ", "
      add(right)
      text += ")"
    case .compare(let operation, let left, let right):
      text += "compare(Catalog.ComparisonOperator.\(operation.orderText), "
      add(left)
      text += ", "
      add(right)
      text += ")"
    case .arithmetic(let operation, let left, let right, let type):
      text += "arithmetic(Catalog.ArithmeticOperator.\(operation.orderText), "
      add(left)
      text += ", "
      add(right)
      end(type)
    case .isNull(let operand):
      text += "isNull("
      add(operand)
      text += ")"
    case .isIn(let operand, let values):
      text += "isIn("
      add(operand)
      list(values) { text += $0.orderText }
      text += ")"
    case .call(let name, let arguments, let type):
      text += "call(\(name.debugDescription)"
      list(arguments, add)
      end(type)
    case .toFloat(let operand, let type):
      text += "toFloat("
      add(operand)
      end(type)
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

extension Value {
  fileprivate var orderText: String {
    switch self {
    case .null: "Catalog.Value.null"
    case .bool(let flag): "Catalog.Value.bool(\(flag))"
    case .int(let number): "Catalog.Value.int(\(number))"
    case .float(let number): "Catalog.Value.float(\(number))"
    case .string(let text): "Catalog.Value.string(\(text.debugDescription))"
    case .timestamp(let number): "Catalog.Value.timestamp(\(number))"
    case .duration(let number): "Catalog.Value.duration(\(number))"
    case .bytes(let number): "Catalog.Value.bytes(\(number))"
    case .ratio(let number): "Catalog.Value.ratio(\(number))"
    }
  }
}

extension ComparisonOperator {
  fileprivate var orderText: String {
    switch self {
    case .equal: "equal"
    case .notEqual: "notEqual"
    case .less: "less"
    case .lessOrEqual: "lessOrEqual"
    case .greater: "greater"
    case .greaterOrEqual: "greaterOrEqual"
    }
  }
}

extension ArithmeticOperator {
  fileprivate var orderText: String {
    switch self {
    case .add: "add"
    case .subtract: "subtract"
    case .multiply: "multiply"
    case .divide: "divide"
    case .remainder: "remainder"
    }
  }
}
