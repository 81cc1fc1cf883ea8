import Catalog

/// Arithmetic and comparison: which units go together, and what comes of it.
extension ExpressionChecker {
  /// A number as a double of the type given (`float` or `ratio`).
  func asFloat(_ operand: Checked, _ type: ValueType = .float) -> TypedExpr {
    switch operand.expression {
    case .constant(let value, _):
      if let number = value.number, operand.type?.isDimensionless == true {
        return .constant(type == .ratio ? .ratio(number) : .float(number), type)
      }
      return operand.expression
    default:
      return operand.type == .int ? .toFloat(operand.expression, type) : operand.expression
    }
  }

  func negate(_ operand: Checked, at range: TextRange) -> Checked? {
    guard let type = operand.type, type.isNumeric else {
      reporter.report(
        .typeMismatch,
        "\(operand.type.map { "\(quoted(operand)) is \($0.withArticle)" } ?? "null"): "
          + "it has no negative", at: range)
      return nil
    }
    if let constant = operand.constant {
      let negated: Value? =
        switch constant {
        case .int(let value): value == .min ? nil : .int(-value)
        case .float(let value): .float(-value)
        case .duration(let value): .duration(-value)
        case .bytes(let value): .bytes(-value)
        case .ratio(let value): .ratio(-value)
        case .null, .bool, .string, .timestamp: nil
        }
      if let negated { return .constant(negated, range) }
    }
    return Checked(
      expression: .negate(operand.expression, type), type: type, isNullable: true, range: range)
  }

  // MARK: Arithmetic

  func arithmetic(
    _ operation: ArithmeticOperator, _ left: Checked, _ right: Checked,
    operatorAt place: TextRange, at range: TextRange
  ) -> Checked? {
    guard let leftType = left.type, let rightType = right.type else {
      reporter.report(
        .alwaysNull, "arithmetic with null is always null", at: range,
        hint: "`coalesce(value, 0)` replaces a null value")
      return nil
    }
    if operation == .divide || operation == .remainder, right.constant?.number == 0 {
      reporter.report(
        .alwaysNull, "division by zero is always null", at: range, hint: "divide by something else")
      return nil
    }
    guard let (l, r, type) = operands(operation, left, leftType, right, rightType) else {
      arithmeticMismatch(operation, left, leftType, right, rightType, at: place)
      return nil
    }
    if case .constant(let a, _) = l, case .constant(let b, _) = r {
      guard let value = Self.fold(operation, a, b, type) else {
        reporter.report(
          .numberOutOfRange,
          "the result of \(quoted(left)) \(operation.rawValue) \(quoted(right)) "
            + "does not fit \(type.withArticle)", at: range)
        return nil
      }
      return .constant(value, range)
    }
    return Checked(
      expression: .arithmetic(operation, l, r, type), type: type, isNullable: true, range: range)
  }

  /// Operands of one physical type (but for timestamp and duration), and the type of the result;
  /// `nil` when the units do not go together. See "Arithmetic" in docs/language.md.
  private func operands(
    _ operation: ArithmeticOperator, _ left: Checked, _ leftType: ValueType, _ right: Checked,
    _ rightType: ValueType
  ) -> (TypedExpr, TypedExpr, ValueType)? {
    let areDimensionless = leftType.isDimensionless && rightType.isDimensionless
    switch operation {
    case .add, .subtract:
      switch (leftType, rightType, operation) {
      case (.timestamp, .timestamp, .subtract): return (left.expression, right.expression, .duration)
      case (.timestamp, .duration, _): return (left.expression, right.expression, .timestamp)
      // The timestamp goes first, so that executors know one order.
      case (.duration, .timestamp, .add): return (right.expression, left.expression, .timestamp)
      default: break
      }
      if leftType == rightType, leftType.isNumeric {
        return (left.expression, right.expression, leftType)
      }
      guard areDimensionless else { return nil }
      // `1 - error_ratio` is a ratio.
      let type: ValueType = leftType == .float || rightType == .float ? .float : .ratio
      return (asFloat(left, type), asFloat(right, type), type)
    case .multiply:
      if leftType == .int, rightType == .int { return (left.expression, right.expression, .int) }
      if areDimensionless {
        let type: ValueType = leftType == .ratio && rightType == .ratio ? .ratio : .float
        return (asFloat(left), asFloat(right), type)
      }
      if leftType.hasUnit, rightType.isDimensionless {
        return (left.expression, asFloat(right), leftType)
      }
      if rightType.hasUnit, leftType.isDimensionless {
        return (asFloat(left), right.expression, rightType)
      }
      return nil
    case .divide:
      if areDimensionless { return (asFloat(left), asFloat(right), quotient(leftType, right)) }
      if leftType.hasUnit, leftType == rightType {
        // `latency / 1ms` counts milliseconds; `used / 500GiB` is a part of a whole.
        let type: ValueType = right.constant.map(Self.isOneUnit) ?? false ? .float : .ratio
        return (left.expression, right.expression, type)
      }
      if leftType.hasUnit, rightType.isDimensionless {
        return (left.expression, asFloat(right), leftType)
      }
      return nil
    case .remainder:
      guard leftType == .int, rightType == .int else { return nil }
      return (left.expression, right.expression, .int)
    }
  }

  /// `errors / requests` is a part of a whole, `requests / 60` is not.
  private func quotient(_ leftType: ValueType, _ right: Checked) -> ValueType {
    switch (leftType, right.type) {
    case (.ratio, .int): .ratio
    case (.int, .int): right.constant == nil ? .ratio : .float
    default: .float
    }
  }

  private static func isOneUnit(_ value: Value) -> Bool {
    switch value {
    case .duration(let nanos): Units.durations.contains { Double($0.nanos) == nanos }
    case .bytes(let bytes): Units.sizes.contains { Double($0.bytes) == bytes }
    default: false
    }
  }

  private static func fold(
    _ operation: ArithmeticOperator, _ left: Value, _ right: Value, _ type: ValueType
  ) -> Value? {
    if case .int(let a) = left, case .int(let b) = right, type == .int {
      let (result, overflow): (Int64, Bool) =
        switch operation {
        case .add: a.addingReportingOverflow(b)
        case .subtract: a.subtractingReportingOverflow(b)
        case .multiply: a.multipliedReportingOverflow(by: b)
        case .divide: a.dividedReportingOverflow(by: b)
        case .remainder: a.remainderReportingOverflow(dividingBy: b)
        }
      return overflow ? nil : .int(result)
    }
    if case .timestamp(let a) = left {
      switch right {
      case .timestamp(let b):
        let (nanos, overflow) = a.subtractingReportingOverflow(b)
        return overflow ? nil : .duration(Double(nanos))
      case .duration(let b):
        guard let whole = Int64(exactly: b.rounded()) else { return nil }
        let (nanos, overflow) =
          operation == .add
          ? a.addingReportingOverflow(whole) : a.subtractingReportingOverflow(whole)
        return overflow ? nil : .timestamp(nanos)
      default: return nil
      }
    }
    guard let a = left.number, let b = right.number else { return nil }
    let result: Double =
      switch operation {
      case .add: a + b
      case .subtract: a - b
      case .multiply: a * b
      case .divide: a / b
      case .remainder: a.truncatingRemainder(dividingBy: b)
      }
    guard result.isFinite else { return nil }
    switch type {
    case .float: return .float(result)
    case .ratio: return .ratio(result)
    case .duration: return .duration(result)
    case .bytes: return .bytes(result)
    case .bool, .int, .string, .timestamp: return nil
    }
  }

  private func arithmeticMismatch(
    _ operation: ArithmeticOperator, _ left: Checked, _ leftType: ValueType, _ right: Checked,
    _ rightType: ValueType, at place: TextRange
  ) {
    let hint: String?
    switch operation {
    case .add, .subtract:
      if leftType == .string, rightType == .string {
        hint = "text is put together in a template: \"{a}{b}\""
      } else {
        hint = unitHint(left, right)
      }
    case .multiply:
      hint =
        leftType.hasUnit && rightType.hasUnit
        ? "one side of `*` is a plain number: `latency * 2`" : nil
    case .divide:
      if leftType.hasUnit, rightType.hasUnit {
        hint = "make the divisor a plain number first: `elapsed / 1s` is a float"
      } else if rightType.hasUnit {
        hint =
          "make the divisor a plain number first: "
          + "`\(words(right)) / \(rightType == .duration ? "1s" : "1MiB")`"
      } else {
        hint = nil
      }
    case .remainder:
      hint =
        right.range.start - place.end == 0 || place.start - left.range.end == 0
        ? "`%` between two values is the remainder of ints; a percentage is written `5%`"
        : "the remainder is defined on ints alone"
    }
    reporter.report(
      .typeMismatch,
      "\(quoted(left)) is \(leftType.withArticle), \(quoted(right)) is \(rightType.withArticle): "
        + "`\(operation.rawValue)` does not take them", at: place, hint: hint)
  }

  // MARK: Comparison

  func compare(
    _ operation: ComparisonOperator, _ left: Checked, _ right: Checked,
    operatorAt place: TextRange, at range: TextRange
  ) -> Checked? {
    guard let leftType = left.type, let rightType = right.type else {
      return compareWithNull(operation, left, right, at: range)
    }
    var l = left.expression
    var r = right.expression
    if leftType == rightType {
      if leftType == .bool, operation != .equal, operation != .notEqual {
        reporter.report(.typeMismatch, "bools have no order", at: place, hint: "use `==` or `!=`")
        return nil
      }
    } else {
      guard leftType.isDimensionless, rightType.isDimensionless else {
        mismatch(left, right, at: place)
        return nil
      }
      if percentOfNumber(left, right, at: right.range) || percentOfNumber(right, left, at: left.range) {
        return nil
      }
      warnOfRatioAboveOne(left, right)
      warnOfRatioAboveOne(right, left)
      if leftType == .int, let constant = right.constant, rightType == .float,
        let whole = convert(constant, to: .int)
      {
        r = .constant(whole, .int)
      } else if rightType == .int, let constant = left.constant, leftType == .float,
        let whole = convert(constant, to: .int)
      {
        l = .constant(whole, .int)
      } else {
        let type: ValueType = leftType == .ratio || rightType == .ratio ? .ratio : .float
        (l, r) = (asFloat(left, type), asFloat(right, type))
      }
    }
    return Checked(
      expression: .compare(operation, l, r), type: .bool,
      isNullable: left.isNullable || right.isNullable, range: range)
  }

  private func compareWithNull(
    _ operation: ComparisonOperator, _ left: Checked, _ right: Checked, at range: TextRange
  ) -> Checked? {
    let value = left.type == nil ? right : left
    guard operation == .equal || operation == .notEqual, value.type != nil, value.constant == nil
    else {
      reporter.report(
        .alwaysNull, "this comparison with null is always null", at: range,
        hint: "only `is null` and `is not null` ask for null")
      return nil
    }
    let test = TypedExpr.isNull(value.expression)
    return Checked(
      expression: operation == .equal ? test : .not(test), type: .bool, isNullable: false,
      range: range)
  }

  /// Reports a plain field compared with a percentage.
  private func percentOfNumber(_ value: Checked, _ constant: Checked, at place: TextRange) -> Bool {
    guard case .ratio(let ratio)? = constant.constant, value.type == .int || value.type == .float,
      case .column = value.expression
    else { return false }
    reporter.report(
      .percentOfNumber,
      "\(quoted(value)) is \(value.type?.withArticle ?? "a number"), \(quoted(constant)) is a "
        + "percentage", at: place,
      hint: "declare the field `ratio` or `ratio(percent)`, or write `\(numberText(ratio))`")
    return true
  }

  private func warnOfRatioAboveOne(_ value: Checked, _ constant: Checked) {
    guard value.type == .ratio, value.constant == nil, constant.type != .ratio,
      let number = constant.constant?.number, abs(number) > 1
    else { return }
    reporter.report(
      .ratioAboveOne, "\(quoted(value)) is a ratio, and 1 is the whole", at: constant.range,
      "this is \(numberText(number * 100)) %", hint: "write `\(numberText(number))%`")
  }

  /// Reports two values that cannot be compared.
  func mismatch(_ left: Checked, _ right: Checked, at place: TextRange) {
    // A constant is what its author will change.
    let constant = right.constant != nil ? right.range : left.constant != nil ? left.range : place
    reporter.report(
      .typeMismatch, "\(quoted(left)) is \(kindOf(left)), \(quoted(right)) is \(kindOf(right))",
      at: constant, hint: unitHint(left, right))
  }

  private func kindOf(_ value: Checked) -> String {
    switch value.type {
    case .int?, .float?: value.constant != nil ? "a bare number" : value.type?.withArticle ?? ""
    case let type?: type.withArticle
    case nil: "null"
    }
  }

  /// What to write so that two values go together.
  private func unitHint(_ left: Checked, _ right: Checked) -> String? {
    for (value, other) in [(left, right), (right, left)] {
      let isBareNumber = other.constant != nil && (other.type == .int || other.type == .float)
      let text = words(other)
      switch value.type {
      case .duration? where isBareNumber: return "write `\(text)s` or `\(text)ms`"
      case .bytes? where isBareNumber: return "write `\(text)MiB` or `\(text)MB`"
      case .timestamp? where other.type == .string: return "write `t\(text)`"
      case .timestamp? where isBareNumber:
        return "write a timestamp, `t\"2026-11-21T03:00:00Z\"`, or subtract two"
      case .int? where isNumber(other), .float? where isNumber(other):
        return "leave out the quotes"
      case .string? where isBareNumber: return "write `\"\(text)\"`"
      case .bool? where other.type == .int: return "a bool is a condition by itself"
      case .bool? where other.type == .string: return "write `true` or `false`, without quotes"
      case .duration? where other.type?.isDimensionless == true:
        return "if the number is a field, declare its unit: `duration(ms)`"
      case .bytes? where other.type?.isDimensionless == true:
        return "if the number is a field, declare its unit: `bytes`"
      default: continue
      }
    }
    return nil
  }
}

/// Whether a string constant spells a number.
private func isNumber(_ checked: Checked) -> Bool {
  if case .string(let text)? = checked.constant { return Double(text) != nil }
  return false
}

/// A number as people write it: no exponent where it can be helped, no `.0`.
func numberText(_ number: Double) -> String {
  if number.rounded() == number, abs(number) < 1e15 { return "\(Int64(number))" }
  // Twelve digits are enough for a hint, and 0.1 * 3 prints as 0.3.
  var scale = 1.0
  var size = abs(number)
  while size < 1e11, size > 0, scale < 1e15 {
    size *= 10
    scale *= 10
  }
  let rounded = (number * scale).rounded() / scale
  return "\(rounded)"
}
