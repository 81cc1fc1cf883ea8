/// `join`, `left join`, `unless`, `trace`, `edges`.
extension Parser {
  /// `spans on trace_id within 30s`
  mutating func join(_ start: TextRange, _ kind: TypedJoin.Kind) throws(SyntaxFailure) -> JoinSyntax {
    var join = JoinSyntax(range: start, kind: kind, right: try name("a source or stream"))
    if isWord("as") {
      advance()
      join.alias = try name("another name for `\(join.right.text)`")
    }
    guard take(.on) else {
      throw unexpected("`on`", hint: "rows are joined on equal keys: `\(join.right.text) on trace_id within 30s`")
    }
    repeat {
      let left = try qualifiedName("a key column")
      var right = left
      if take(.equalEqual) { right = try qualifiedName("a key column of `\(join.right.text)`") }
      join.keys.append((left, right))
    } while take(.comma)
    if take(.within) {
      join.within = try expression()
      if isWord("before") || isWord("after") {
        join.direction = NameSyntax(text: text(current), range: currentRange)
        advance()
      }
    }
    while take(.limit) {
      let value = try expression()
      guard isOneOf(["rows", "keys", "state"]) else {
        throw unexpected(
          "`rows`, `keys` or `state`", hint: "limits read `limit 10000 rows`, `limit 1000000 keys`, `limit 1GiB state`")
      }
      join.limits.append((NameSyntax(text: text(current), range: currentRange), value))
      advance()
    }
    join.range = range(from: start)
    return join
  }

  private static let traceItems = ["span", "parent", "service", "start", "duration", "error", "name"]

  /// `by trace_id gap 30s { span span_id parent parent_id service service duration duration }`
  mutating func trace(_ start: TextRange, isEdges: Bool) throws(SyntaxFailure) -> TraceSyntax {
    var trace = TraceSyntax(range: start, isEdges: isEdges)
    guard take(.by) else { throw unexpected("`by`", hint: "spans are put together by their trace: `by trace_id gap 30s`") }
    trace.keys = try qualifiedNames("the column with the trace's id")
    guard take(.gap) else {
      throw unexpected("`gap`", hint: "`gap 30s`: a trace is over when none of its spans has come for that long")
    }
    trace.gap = try expression()
    while kind == .identifier, !isAtDeclaration {
      if isWord("longest") {
        advance()
        trace.longest = try expression()
      } else if take(.limit) {
        trace.limit = try expression()
        guard isWord("spans") else { throw unexpected("`spans`", hint: "a limit reads `limit 50000 spans`") }
        advance()
      } else {
        throw fail(
          .unknownItem, "`\(isEdges ? "edges" : "trace")` has no option `\(text(current))`", at: currentRange,
          hint: "options: gap, longest, limit")
      }
    }
    try expect(
      .leftBrace, "`{`",
      hint: "which columns are what: `{ span span_id parent parent_id service service duration duration }`")
    while kind != .rightBrace {
      guard kind == .identifier, Self.traceItems.contains(text(current)) else {
        let meant = kind == .identifier ? closest(to: text(current), among: Self.traceItems) : nil
        throw fail(
          .unknownItem, "a span has no \(describe(current))", at: currentRange,
          hint: meant.map { "did you mean `\($0)`?" } ?? "a span has: \(Self.traceItems.joined(separator: ", "))")
      }
      let item = NameSyntax(text: text(current), range: currentRange)
      advance()
      _ = take(.colon)
      if trace.columns.contains(where: { $0.item.text == item.text }) {
        throw fail(.duplicateItem, "`\(item.text)` is given twice", at: item.range, hint: "leave one out")
      }
      trace.columns.append((item, try qualifiedName("the column with the span's \(item.text)")))
      _ = take(.comma)
    }
    try expect(.rightBrace, "`}`")
    trace.range = range(from: start)
    return trace
  }

  private func isWord(_ word: String) -> Bool { kind == .identifier && !isAtDeclaration && text(current) == word }
  private func isOneOf(_ words: [String]) -> Bool { words.contains { isWord($0) } }

  /// `column`, or `spans.column` for a column of a joined stream: one name with a dot in it.
  mutating func qualifiedName(_ what: String) throws(SyntaxFailure) -> NameSyntax {
    let first = try name(what)
    guard kind == .dot, ahead(1).kind == .identifier else { return first }
    advance()
    let member = try name(what)
    return NameSyntax(text: "\(first.text).\(member.text)", range: first.range.through(member.range))
  }

  mutating func qualifiedNames(_ what: String) throws(SyntaxFailure) -> [NameSyntax] {
    var names = [try qualifiedName(what)]
    while take(.comma) { names.append(try qualifiedName(what)) }
    return names
  }
}
