import Catalog
import RuleLang

extension TypedExpr {
  /// Calls `body` for each column reference.
  func forEachColumn(_ body: (Int) -> Void) {
    switch self {
    case .constant: break
    case .column(let index, _): body(index)
    case .not(let operand), .negate(let operand, _), .isNull(let operand), .isIn(let operand, _),
      .toFloat(let operand, _):
      operand.forEachColumn(body)
    case .logical(_, let left, let right), .compare(_, let left, let right),
      .arithmetic(_, let left, let right, _):
      left.forEachColumn(body)
      right.forEachColumn(body)
    case .call(_, let arguments, _):
      for argument in arguments { argument.forEachColumn(body) }
    }
  }

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

  /// The expression as a rule would spell it, with `name` for each column.
  func text(_ name: (Int) -> String) -> String {
    switch self {
    case .constant(let value, _): return value.text
    case .column(let index, _): return name(index)
    case .not(let operand): return "not \(operand.nested(name))"
    case .negate(let operand, _): return "-\(operand.nested(name))"
    case .isNull(let operand): return "\(operand.nested(name)) is null"
    case .isIn(let operand, let values):
      return "\(operand.nested(name)) in (\(values.map(\.text).joined(separator: ", ")))"
    case .toFloat(let operand, _): return operand.text(name)
    case .logical(let operation, let left, let right):
      return "\(left.nested(name)) \(operation.rawValue) \(right.nested(name))"
    case .compare(let operation, let left, let right):
      return "\(left.nested(name)) \(operation.rawValue) \(right.nested(name))"
    case .arithmetic(let operation, let left, let right, _):
      return "\(left.nested(name)) \(operation.rawValue) \(right.nested(name))"
    case .call(let function, let arguments, _):
      return "\(function)(\(arguments.map { $0.text(name) }.joined(separator: ", ")))"
    }
  }

  private func nested(_ name: (Int) -> String) -> String {
    switch self {
    case .logical, .compare, .arithmetic, .isIn, .isNull: "(\(text(name)))"
    case .toFloat(let operand, _): operand.nested(name)
    case .constant, .column, .not, .negate, .call: text(name)
    }
  }
}

extension Value {
  /// The constant as a rule would spell it.
  var text: String {
    switch self {
    case .null: "null"
    case .bool(let flag): "\(flag)"
    case .int(let number): "\(number)"
    case .float(let number): "\(number)"
    case .string(let string): "\"\(string)\""
    case .timestamp(let nanos): "t\(nanos)"
    case .duration(let nanos): durationText(nanos)
    case .bytes(let count): "\(Int64(clamping: Int(count.rounded())))B"
    case .ratio(let part): "\((part * 1e6).rounded() / 1e4)%"
    }
  }
}

/// `90s`, `5m`, `1.5ms`: the largest unit that leaves a whole number, or milliseconds.
func durationText(_ nanos: Double) -> String {
  let units: [(Double, String)] = [
    (86_400e9, "d"), (3_600e9, "h"), (60e9, "m"), (1e9, "s"), (1e6, "ms"), (1e3, "us"), (1, "ns"),
  ]
  if nanos == 0 { return "0s" }
  for (scale, unit) in units where nanos / scale == (nanos / scale).rounded() {
    return "\(Int64(nanos / scale))\(unit)"
  }
  return "\(nanos / 1e6)ms"
}
