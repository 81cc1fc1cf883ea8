import Catalog

/// Resolves names and types of expressions. `nil` means that an error has been reported; the caller
/// says nothing more.
struct ExpressionChecker {
  let catalog: Catalog
  let reporter: Reporter
  /// `let` names; a value of `nil` has errors.
  var constants: [String: Checked?] = [:]

  func check(_ syntax: ExprSyntax, in scope: Scope) -> Checked? {
    let range = syntax.range
    switch syntax.kind {
    case .literal(let value): return .constant(value, range)
    case .name(let text): return name(text, at: range, in: scope)
    case .member(let stream, let column): return member(stream, column, at: range, in: scope)
    case .negate(let inner):
      guard let operand = check(inner, in: scope) else { return nil }
      return negate(operand, at: range)
    case .not(let inner):
      guard let operand = condition(inner, in: scope, of: "`not`") else { return nil }
      return Checked(
        expression: .not(operand.expression), type: .bool, isNullable: operand.isNullable,
        range: range)
    case .arithmetic(let operation, let place, let left, let right):
      let l = check(left, in: scope)
      let r = check(right, in: scope)
      guard let l, let r else { return nil }
      return arithmetic(operation, l, r, operatorAt: place, at: range)
    case .compare(let operation, let place, let left, let right):
      let l = check(left, in: scope)
      let r = check(right, in: scope)
      guard let l, let r else { return nil }
      return compare(operation, l, r, operatorAt: place, at: range)
    case .logical(let operation, let operands):
      let checked = operands.map { condition($0, in: scope, of: "`\(operation.rawValue)`") }
      let known = checked.compactMap { $0 }
      guard known.count == checked.count else { return nil }
      return Checked(
        expression: balanced(operation, known[...]), type: .bool,
        isNullable: known.contains(where: \.isNullable), range: range)
    case .between(let value, let low, let high):
      return between(
        check(value, in: scope), check(low, in: scope), check(high, in: scope), at: range)
    case .isIn(let value, let members):
      return isIn(check(value, in: scope), members, at: range, in: scope)
    case .isNull(let inner):
      guard let operand = check(inner, in: scope) else { return nil }
      return isNull(operand, at: range)
    case .call(let name, let arguments, let filter):
      return call(name, arguments, filter: filter, at: range, in: scope)
    case .broken: return nil
    }
  }

  /// An expression that must be a bool. `what` takes it: "`where`".
  func condition(_ syntax: ExprSyntax, in scope: Scope, of what: String) -> Checked? {
    guard let checked = check(syntax, in: scope) else { return nil }
    if checked.type == .bool { return checked }
    let type = checked.type?.withArticle ?? "null"
    var hint: String?
    if let type = checked.type, checked.constant == nil {
      hint =
        switch type {
        case .string: "compare it: `\(words(checked)) == \"…\"`"
        case .duration: "compare it: `\(words(checked)) > 2s`"
        default: type.isNumeric ? "compare it: `\(words(checked)) > 0`" : nil
        }
    }
    reporter.report(
      .notBool, "\(what) takes a condition, and \(quoted(checked)) is \(type)", at: checked.range,
      "\(type), not a bool", hint: hint)
    return nil
  }

  /// `a and b and c` as a tree whose height is the logarithm of their number.
  private func balanced(_ operation: LogicalOperator, _ operands: ArraySlice<Checked>) -> TypedExpr {
    guard operands.count > 1 else { return operands[operands.startIndex].expression }
    let middle = operands.startIndex + (operands.count + 1) / 2
    return .logical(
      operation, balanced(operation, operands[..<middle]),
      balanced(operation, operands[middle...]))
  }

  // MARK: Names

  private func name(_ text: String, at range: TextRange, in scope: Scope) -> Checked? {
    if let index = scope.index(of: text), scope.kind == .rows {
      if constants[text] != nil {
        reporter.report(
          .hidesConstant, "`\(text)` is a column and a constant", at: range, "the column is meant",
          hint: "give the constant another name")
      }
      return column(index, at: range, in: scope)
    }
    if let constant = constants[text] {
      guard var checked = constant else { return nil }
      checked.range = range
      return checked
    }
    if scope.isOpen { return nil }
    switch scope.kind {
    case .rows: unknownColumn(text, at: range, in: scope)
    case .metric:
      reporter.report(
        .qualifiedName, "a metric says which stream a column is of", at: range,
        hint: "write `\(scope.owner).\(text)`")
    case .constant:
      let hint =
        reporter.closest(to: text, among: constants.keys)
        .map { "did you mean `\($0)`?" } ?? "literals and `let` names are constants"
      reporter.report(
        .unknownField, "unknown constant `\(text)`", at: range, "a constant is needed here",
        hint: hint)
    }
    return nil
  }

  private func column(_ index: Int, at range: TextRange, in scope: Scope) -> Checked? {
    let column = scope.columns[index]
    guard let type = column.type else { return nil }
    return Checked(
      expression: .column(index, type), type: type, isNullable: column.isNullable, range: range)
  }

  /// Reports a name that is no column.
  func unknownColumn(_ text: String, at range: TextRange, in scope: Scope) {
    let hint: String
    if scope.lost.contains(text) {
      hint = "`aggregate` keeps keys and aggregates only: \(scope.columnList)"
    } else if let joined = scope.columns.first(where: { $0.name.hasSuffix(".\(text)") }) {
      hint = "columns of a joined stream say whose they are: `\(joined.name)`"
    } else if let meant = closest(
      to: text, among: scope.columns.map(\.name) + Array(constants.keys))
    {
      hint = "did you mean `\(meant)`?"
    } else if catalog.scalarFunction(text) != nil || catalog.aggregateFunction(text) != nil {
      hint = "`\(text)` is a function: `\(text)(…)`"
    } else {
      hint = "columns: \(scope.columnList)"
    }
    reporter.report(
      .unknownField, "unknown field `\(text)`", at: range, "not a column of `\(scope.owner)`",
      hint: hint)
  }

  private func member(
    _ stream: NameSyntax, _ member: NameSyntax, at range: TextRange, in scope: Scope
  ) -> Checked? {
    if scope.kind == .rows, let index = scope.index(of: "\(stream.text).\(member.text)") {
      return column(index, at: range, in: scope)
    }
    switch scope.kind {
    case .rows where scope.joined[stream.text] != nil:
      unknownColumn("\(stream.text).\(member.text)", at: range, in: scope)
      return nil
    case .rows where scope.isOpen: return nil
    case .metric:
      guard stream.text == scope.owner else {
        reporter.report(
          .badMetric, "a metric reads one stream", at: stream.range,
          "not `\(scope.owner)`", hint: "bring the columns together in one stream first")
        return nil
      }
      if let index = scope.index(of: member.text) { return column(index, at: range, in: scope) }
      if !scope.isOpen { unknownColumn(member.text, at: member.range, in: scope) }
      return nil
    case .rows where scope.index(of: member.text) != nil && stream.text == scope.owner:
      reporter.report(
        .qualifiedName, "columns go by their own names here", at: range,
        hint: "write `\(member.text)`")
      return nil
    case .rows, .constant:
      let path = "\(stream.text).\(member.text)"
      reporter.report(
        .qualifiedName, "there is no `\(path)` here", at: range,
        hint: "members of a record become fields in the source: "
          + "`\(member.text): string from \(path)`")
      return nil
    }
  }

  // MARK: Conditions on one value

  private func isNull(_ operand: Checked, at range: TextRange) -> Checked? {
    guard operand.type != nil, operand.constant == nil else {
      reporter.report(
        .alwaysNull, "\(quoted(operand)) is a constant; whether it is null is known", at: range)
      return nil
    }
    return Checked(
      expression: .isNull(operand.expression), type: .bool, isNullable: false, range: range)
  }

  private func between(
    _ value: Checked?, _ low: Checked?, _ high: Checked?, at range: TextRange
  ) -> Checked? {
    guard let value else { return nil }
    let above = low.flatMap {
      compare(.greaterOrEqual, value, $0, operatorAt: $0.range, at: range)
    }
    let below = high.flatMap { compare(.lessOrEqual, value, $0, operatorAt: $0.range, at: range) }
    guard let low, let high, let above, let below else { return nil }
    if let lowest = low.constant?.number, let highest = high.constant?.number, lowest > highest {
      reporter.report(
        .neverTrue, "nothing lies between \(quoted(low)) and \(quoted(high))", at: range,
        hint: "the lower bound comes first")
    }
    return Checked(
      expression: .logical(.and, above.expression, below.expression), type: .bool,
      isNullable: above.isNullable || below.isNullable, range: range)
  }

  private func isIn(
    _ value: Checked?, _ members: [ExprSyntax], at range: TextRange, in scope: Scope
  ) -> Checked? {
    var values: [Value] = []
    var isGood = value != nil
    for member in members {
      guard let checked = check(member, in: scope) else {
        isGood = false
        continue
      }
      guard checked.type != nil else {
        reporter.report(
          .alwaysNull, "`in` never finds null", at: member.range, hint: "write `or … is null`")
        isGood = false
        continue
      }
      guard let constant = checked.constant else {
        reporter.report(
          .notConstant, "the members of `in` are constants", at: member.range,
          hint: "compare with `==` and `or`")
        isGood = false
        continue
      }
      guard let value else { continue }
      guard let type = value.type else { continue }
      if let converted = convert(constant, to: type) {
        if !values.contains(converted) || values.count > 64 { values.append(converted) }
      } else {
        mismatch(value, checked, at: member.range)
        isGood = false
      }
    }
    guard let value, isGood else { return nil }
    guard value.type != nil else {
      reporter.report(.alwaysNull, "`null in (…)` is always null", at: range)
      return nil
    }
    return Checked(
      expression: .isIn(value.expression, values), type: .bool, isNullable: value.isNullable,
      range: range)
  }

  /// A constant as a value of a column of this type; `nil` when it is none.
  func convert(_ value: Value, to type: ValueType) -> Value? {
    if value.type == type { return value }
    switch (value, type) {
    case (.int(let number), .float): return .float(Double(number))
    case (.int(let number), .ratio): return .ratio(Double(number))
    case (.float(let number), .ratio): return .ratio(number)
    case (.float(let number), .int): return Self.integer(number).map { .int($0) }
    default: return nil
    }
  }

  /// A float as an int when nothing is lost.
  static func integer(_ number: Double) -> Int64? {
    guard number.rounded() == number, abs(number) <= 9_007_199_254_740_992 else { return nil }
    return Int64(number)
  }

  // MARK: Words

  /// The text of an expression, for messages; cut when long.
  func words(_ checked: Checked) -> String { words(checked.range) }

  func words(_ range: TextRange) -> String {
    let text = printable(reporter.texts[Int(range.file)].string(range))
    return text.count <= 40 ? text : String(text.prefix(37)) + "…"
  }

  func quoted(_ checked: Checked) -> String { "`\(words(checked))`" }
}
