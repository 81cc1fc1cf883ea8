import Catalog

/// Expressions, loosest first: `or`; `and`; `not`; comparisons, `between`, `in`, `is` (no two in a
/// row); `+ -`; `* / %`; unary `-`; literals, names, calls, parentheses.
extension Parser {
  private enum Precedence {
    static let or = 1
    static let and = 2
    static let comparison = 4
    static let sum = 5
    static let product = 6
  }

  mutating func expression() throws(SyntaxFailure) -> ExprSyntax {
    try expression(atLeast: Precedence.or)
  }

  /// An expression in which `and`, `or` and comparisons stand in parentheses only: they mean something else behind it.
  mutating func value() throws(SyntaxFailure) -> ExprSyntax { try expression(atLeast: Precedence.sum) }

  private mutating func enter() throws(SyntaxFailure) {
    depth += 1
    if depth > Self.depthMax {
      throw fail(
        .nestedTooDeep, "this expression is nested more than \(Self.depthMax) levels deep",
        at: currentRange, hint: "name its parts with `derive`")
    }
  }

  /// Builds a node, unless the tree grows too high (`1 + 1 + 1 + …`).
  func node(
    _ kind: ExprSyntax.Kind, _ range: TextRange, below children: Int...
  ) throws(SyntaxFailure) -> ExprSyntax {
    let depth = (children.max() ?? 0) + 1
    if depth > Self.depthMax {
      throw fail(
        .nestedTooDeep, "this expression is nested more than \(Self.depthMax) levels deep",
        at: range, hint: "name its parts with `derive`")
    }
    return ExprSyntax(kind: kind, range: range, depth: depth)
  }

  private mutating func expression(atLeast lowest: Int) throws(SyntaxFailure) -> ExprSyntax {
    try enter()
    defer { depth -= 1 }
    var left = try operand(lowest)
    while let precedence = binaryPrecedence(), precedence >= lowest {
      switch precedence {
      case Precedence.or: left = try logical(.or, left, precedence)
      case Precedence.and: left = try logical(.and, left, precedence)
      case Precedence.comparison: left = try comparison(left)
      default: left = try arithmetic(left, precedence)
      }
    }
    return left
  }

  private mutating func operand(_ lowest: Int) throws(SyntaxFailure) -> ExprSyntax {
    let start = currentRange
    if keyword == .not || kind == .foreignNot {
      if kind == .foreignNot {
        reporter.report(
          .foreignOperator, "negation is written `not`", at: start, hint: "write `not`")
      }
      advance()
      let inner = try expression(atLeast: Precedence.comparison)
      return try node(.not(inner), start.through(inner.range), below: inner.depth)
    }
    if kind == .minus {
      advance()
      try enter()
      defer { depth -= 1 }
      let inner = try operand(Precedence.product)
      return try node(.negate(inner), start.through(inner.range), below: inner.depth)
    }
    return try primary()
  }

  private func binaryPrecedence() -> Int? {
    switch kind {
    case .plus, .minus: return Precedence.sum
    case .star, .slash, .percent: return Precedence.product
    case .equal, .equalEqual, .notEqual, .less, .lessOrEqual, .greater, .greaterOrEqual:
      return Precedence.comparison
    case .foreignAnd: return Precedence.and
    case .foreignOr: return Precedence.or
    case .identifier:
      switch keyword {
      case .and: return Precedence.and
      case .or: return Precedence.or
      case .between, .in, .is: return Precedence.comparison
      case .not:
        let next = ahead(1).keyword
        return next == .in || next == .between ? Precedence.comparison : nil
      default: return nil
      }
    default: return nil
    }
  }

  /// `a and b and c` as one node, so that a long list of alternatives is no deep tree.
  private mutating func logical(
    _ operation: LogicalOperator, _ left: ExprSyntax, _ precedence: Int
  ) throws(SyntaxFailure) -> ExprSyntax {
    var operands = [left]
    var deepest = left.depth
    while binaryPrecedence() == precedence {
      if kind == .foreignAnd || kind == .foreignOr {
        reporter.report(
          .foreignOperator, "`\(text(current))` is written `\(operation.rawValue)`",
          at: currentRange, hint: "write `\(operation.rawValue)`")
      }
      advance()
      let next = try expression(atLeast: precedence + 1)
      deepest = max(deepest, next.depth)
      operands.append(next)
    }
    // The checker folds them into a balanced tree: its height grows by the logarithm.
    let height = operands.count.bitWidth - operands.count.leadingZeroBitCount
    return try node(
      .logical(operation, operands), range(from: left.range), below: deepest + height)
  }

  private mutating func arithmetic(
    _ left: ExprSyntax, _ precedence: Int
  ) throws(SyntaxFailure) -> ExprSyntax {
    let operation: ArithmeticOperator =
      switch kind {
      case .plus: .add
      case .minus: .subtract
      case .star: .multiply
      case .slash: .divide
      default: .remainder
      }
    let place = currentRange
    advance()
    let right = try expression(atLeast: precedence + 1)
    return try node(
      .arithmetic(operation, place, left, right), left.range.through(right.range),
      below: left.depth, right.depth)
  }

  private mutating func comparison(_ left: ExprSyntax) throws(SyntaxFailure) -> ExprSyntax {
    let result = try oneComparison(left)
    if binaryPrecedence() == Precedence.comparison {
      let second = currentRange
      reporter.report(
        .chainedComparison, "comparisons cannot be chained", at: second,
        "a second comparison",
        context: [(result.range, "the result of the first is true or false")],
        hint: chainHint(result))
      // Take the rest, so that it is not complained about again.
      while binaryPrecedence() == Precedence.comparison {
        _ = try oneComparison(result)
      }
      return ExprSyntax(kind: .broken, range: range(from: left.range), depth: 1)
    }
    return result
  }

  private func chainHint(_ first: ExprSyntax) -> String {
    switch kind {
    case .less, .lessOrEqual, .greater, .greaterOrEqual:
      "write `b between a and c`, or `a < b and b < c`"
    default: "join two comparisons with `and`"
    }
  }

  private mutating func oneComparison(_ left: ExprSyntax) throws(SyntaxFailure) -> ExprSyntax {
    let place = currentRange
    let isNegated = take(.not)
    let result: ExprSyntax
    switch keyword {
    case .between:
      advance()
      let low = try expression(atLeast: Precedence.sum)
      guard take(.and) else {
        throw unexpected("`and`", hint: "a range is written `between 0 and 10`")
      }
      let high = try expression(atLeast: Precedence.sum)
      result = try node(
        .between(left, low, high), range(from: left.range),
        below: left.depth + 1, low.depth + 1, high.depth + 1)
    case .in:
      advance()
      result = try membership(left)
    case .is:
      advance()
      let isNot = take(.not)
      guard take(.null) else {
        throw unexpected("`null`", hint: "only `is null` and `is not null`; equality is `==`")
      }
      let test = try node(.isNull(left), range(from: left.range), below: left.depth)
      return isNot ? try node(.not(test), test.range, below: test.depth) : test
    default:
      let operation = comparisonOperator(place)
      advance()
      let right = try expression(atLeast: Precedence.sum)
      return try node(
        .compare(operation, place, left, right), left.range.through(right.range),
        below: left.depth, right.depth)
    }
    return isNegated ? try node(.not(result), result.range, below: result.depth) : result
  }

  private func comparisonOperator(_ place: TextRange) -> ComparisonOperator {
    switch kind {
    case .notEqual: return .notEqual
    case .less: return .less
    case .lessOrEqual: return .lessOrEqual
    case .greater: return .greater
    case .greaterOrEqual: return .greaterOrEqual
    case .equal:
      reporter.report(
        .foreignOperator, "equality is written `==`", at: place, "`=` gives a name to a value",
        hint: "write `==`")
      return .equal
    default: return .equal
    }
  }

  private mutating func membership(_ left: ExprSyntax) throws(SyntaxFailure) -> ExprSyntax {
    try expect(.leftParen, "`(`", hint: "a set is written `in (200, 204)`")
    var members: [ExprSyntax] = []
    var deepest = left.depth
    repeat {
      if kind == .rightParen, !members.isEmpty { break }
      let member = try expression(atLeast: Precedence.sum)
      deepest = max(deepest, member.depth)
      members.append(member)
    } while take(.comma)
    try expect(.rightParen, "`,` or `)`")
    return try node(.isIn(left, members), range(from: left.range), below: deepest)
  }

  // MARK: Primaries

  private mutating func primary() throws(SyntaxFailure) -> ExprSyntax {
    let start = currentRange
    if isAtDeclaration { throw unexpected("an expression") }
    switch kind {
    case .number:
      return number(start)
    case .string:
      let value = try string("a string")
      return ExprSyntax(kind: .literal(.string(value.text)), range: start, depth: 1)
    case .timestamp:
      advance()
      return timestamp(start)
    case .bad:
      advance()
      return ExprSyntax(kind: .broken, range: start, depth: 1)
    case .leftParen:
      advance()
      var inner = try expression()
      try expect(.rightParen, "`)`")
      inner.range = range(from: start)
      return inner
    case .dot where ahead(1).kind == .number:
      throw unexpected("an expression", hint: "write `0.\(text(ahead(1)))`")
    case .identifier:
      return try named(start)
    default:
      throw unexpected("an expression")
    }
  }

  private mutating func number(_ start: TextRange) -> ExprSyntax {
    let bytes = reporter.texts[Int(file)].bytes[Int(start.start)..<Int(start.end)]
    let digits = text(current)
    advance()
    if kind == .identifier, !current.startsLine, let unit = Units.meant(by: text(current)) {
      reporter.report(
        .badNumber, "a unit stands right behind its number", at: currentRange,
        hint: "write `\(digits)\(unit)`")
      advance()
      return ExprSyntax(kind: .broken, range: range(from: start), depth: 1)
    }
    do throws(LiteralProblem) {
      return ExprSyntax(kind: .literal(try NumberLiteral.value(bytes)), range: start, depth: 1)
    } catch {
      reporter.report(error.code, error.message, at: start, hint: error.hint)
      return ExprSyntax(kind: .broken, range: start, depth: 1)
    }
  }

  private func timestamp(_ range: TextRange) -> ExprSyntax {
    let text = reporter.texts[Int(file)].string(
      TextRange(file: file, start: range.start + 2, end: range.end - 1))
    guard let nanos = TimestampLiteral.nanos(text) else {
      reporter.report(
        .badTimestamp, "`\(printable(text))` is not a timestamp", at: range,
        hint: "write t\"2026-11-21T03:00:00Z\"; years 1678 to 2261")
      return ExprSyntax(kind: .broken, range: range, depth: 1)
    }
    return ExprSyntax(kind: .literal(.timestamp(nanos)), range: range, depth: 1)
  }

  private mutating func named(_ start: TextRange) throws(SyntaxFailure) -> ExprSyntax {
    switch keyword {
    case .true, .false:
      let value = keyword == .true
      advance()
      return ExprSyntax(kind: .literal(.bool(value)), range: start, depth: 1)
    case .null:
      advance()
      return ExprSyntax(kind: .literal(.null), range: start, depth: 1)
    case _ where keyword.isReserved:
      throw unexpected("an expression")
    default:
      break
    }
    let name = NameSyntax(text: text(current), range: start)
    advance()
    if kind == .leftParen { return try call(name) }
    if kind == .dot {
      advance()
      guard kind == .identifier else { throw unexpected("a column name") }
      let member = NameSyntax(text: text(current), range: currentRange)
      advance()
      if kind == .dot {
        var path = range(from: start)
        while take(.dot) {
          guard kind == .identifier else { throw unexpected("a name") }
          advance()
        }
        path = range(from: start)
        reporter.report(
          .qualifiedName, "there is no `\(reporter.texts[Int(file)].string(path))` here", at: path,
          hint: "members of a record become fields in the source: "
            + "`name: string from \(reporter.texts[Int(file)].string(path))`")
        return ExprSyntax(kind: .broken, range: path, depth: 1)
      }
      return ExprSyntax(kind: .member(name, member), range: range(from: start), depth: 1)
    }
    return ExprSyntax(kind: .name(name.text), range: start, depth: 1)
  }

  /// `f(a, b)`, `count(where c)`, `sum(x where c)`, `sum(x, where c)`
  private mutating func call(_ name: NameSyntax) throws(SyntaxFailure) -> ExprSyntax {
    advance()
    var arguments: [ExprSyntax] = []
    var filter: ExprSyntax?
    var deepest = 0
    while kind != .rightParen {
      if take(.where) {
        let condition = try expression()
        deepest = max(deepest, condition.depth)
        filter = condition
        break
      }
      let argument = try expression()
      deepest = max(deepest, argument.depth)
      arguments.append(argument)
      if keyword == .where { continue }
      guard take(.comma) else { break }
    }
    try expect(
      .rightParen, filter == nil ? "`,` or `)`" : "`)`",
      hint: kind == .comma ? "`where` comes last" : nil)
    return try node(
      .call(name, arguments, filter: filter), range(from: name.range), below: deepest)
  }
}
