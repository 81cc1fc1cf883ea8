import Catalog

/// Thrown after a syntax error has been reported, to the nearest place that can go on.
struct SyntaxFailure: Error {}

/// Makes a syntax tree of a file's tokens, by recursive descent. A syntax error ends a block item,
/// a pipeline stage or a declaration; what follows is parsed as if nothing had happened.
struct Parser {
  /// Most levels that an expression nests, so that neither the parser nor whoever walks the tree
  /// overflows the stack.
  static let depthMax = 64
  private static let declarationsText = "declarations: \(Keyword.declarations.map(\.rawValue).joined(separator: ", "))"

  let file: Int32
  let reporter: Reporter
  /// Stages of the catalog, whose options the parser knows.
  let detectors: [DetectorSpec]
  var tokens: [Token]
  var index = 0
  /// Levels of the expression that is being parsed.
  var depth = 0
  /// Whether the text is what stands between the braces of a template.
  let isTemplate: Bool
  /// End of the token taken last.
  var lastEnd: Int32 = 0

  init(file: Int, reporter: Reporter, detectors: [DetectorSpec] = []) {
    self.detectors = detectors
    self.file = Int32(file)
    self.reporter = reporter
    isTemplate = false
    tokens = Lexer.tokens(of: file, reporter: reporter)
  }

  /// A parser for an expression between the braces of a template.
  init(template range: TextRange, reporter: Reporter) {
    detectors = []
    file = range.file
    self.reporter = reporter
    isTemplate = true
    tokens = Lexer.tokens(inTemplate: range, reporter: reporter)
  }

  // MARK: Tokens

  var current: Token { tokens[index] }
  var kind: TokenKind { tokens[index].kind }
  var keyword: Keyword { tokens[index].keyword }
  var isAtEnd: Bool { tokens[index].kind == .end }

  func ahead(_ count: Int) -> Token { tokens[min(index + count, tokens.count - 1)] }

  func range(_ token: Token) -> TextRange {
    TextRange(file: file, start: token.start, end: token.end)
  }
  var currentRange: TextRange { range(current) }
  func range(from start: TextRange) -> TextRange {
    TextRange(file: file, start: start.start, end: max(lastEnd, start.start))
  }

  func text(_ token: Token) -> String { reporter.texts[Int(file)].string(range(token)) }

  mutating func advance() {
    lastEnd = tokens[index].end
    if tokens[index].kind != .end { index += 1 }
  }

  mutating func take(_ kind: TokenKind) -> Bool {
    guard tokens[index].kind == kind else { return false }
    advance()
    return true
  }

  mutating func take(_ keyword: Keyword) -> Bool {
    guard tokens[index].keyword == keyword else { return false }
    advance()
    return true
  }

  mutating func expect(_ kind: TokenKind, _ what: String, hint: String? = nil) throws(SyntaxFailure) {
    guard take(kind) else { throw unexpected(what, hint: hint) }
  }

  /// Reports that something else than `what` stands here.
  func unexpected(_ what: String, hint: String? = nil) -> SyntaxFailure {
    // What the lexer has complained about needs no second complaint.
    if kind != .bad {
      reporter.report(
        .syntax, "expected \(what), found \(describe(current))", at: place(of: current),
        "expected \(what)", hint: hint)
    }
    return SyntaxFailure()
  }

  func fail(
    _ code: DiagnosticCode, _ message: String, at range: TextRange, _ label: String = "",
    context: [(TextRange, String)] = [], hint: String? = nil
  ) -> SyntaxFailure {
    reporter.report(code, message, at: range, label, context: context, hint: hint)
    return SyntaxFailure()
  }

  /// Where a text or declaration ends too early, the place is right behind the last token.
  private func place(of token: Token) -> TextRange {
    lastEnd > 0 && (token.kind == .end || isAtDeclaration)
      ? TextRange(file: file, start: lastEnd, end: lastEnd) : range(token)
  }

  func describe(_ token: Token) -> String {
    switch token.kind {
    case .end: isTemplate ? "`}`" : "the end of the text"
    case .string: "a string"
    case .timestamp: "a timestamp"
    case .number: "`\(text(token))`"
    default: "`\(printable(String(text(token).prefix(40))))`"
    }
  }

  /// A name that is no reserved word. `what` completes "expected …".
  mutating func name(_ what: String) throws(SyntaxFailure) -> NameSyntax {
    guard kind == .identifier else {
      if kind == .string {
        throw unexpected(what, hint: "names are written without quotes")
      }
      throw unexpected(what)
    }
    if keyword.isReserved {
      throw fail(
        .badName, "`\(text(current))` is a reserved word", at: currentRange,
        "expected \(what)", hint: "choose another name")
    }
    let name = NameSyntax(text: text(current), range: currentRange)
    advance()
    return name
  }

  /// A string without templates in it.
  mutating func string(_ what: String) throws(SyntaxFailure) -> TextSyntax {
    guard kind == .string else {
      throw unexpected(what, hint: kind == .identifier ? "quote it: \"\(text(current))\"" : nil)
    }
    let range = currentRange
    advance()
    // Inside a template the quotes are escaped themselves.
    let isEscaped = reporter.texts[Int(file)].bytes[Int(range.start)] == UInt8(ascii: "\\")
    let quote: Int32 = isEscaped ? 2 : 1
    let text = try StringLiteral.text(
      TextRange(file: file, start: range.start + quote, end: range.end - quote),
      reporter: reporter)
    return TextSyntax(text: text, range: range)
  }

  // MARK: Recovery

  /// Whether a declaration begins here: its word at the start of a line and a name behind it (or a
  /// string, for tests). Strict enough that a field or column called `source` is none.
  var isAtDeclaration: Bool {
    guard current.startsLine, current.kind == .identifier else { return false }
    let second = ahead(1)
    guard !second.startsLine else { return false }
    if current.keyword.isDeclaration {
      if current.keyword == .test, second.kind == .string { return true }
      // An alert has an item `group by service`.
      if current.keyword == .group, ahead(2).kind != .leftBrace { return false }
      return second.kind == .identifier && !second.keyword.isReserved
    }
    let third = ahead(2).kind
    return second.kind == .identifier && (third == .leftBrace || third == .equal)
      && misspelledDeclaration(text(current)) != nil
  }

  func misspelledDeclaration(_ word: String) -> Keyword? {
    closest(to: word, among: Keyword.declarations.map(\.rawValue)).flatMap { Keyword.byText[$0] }
  }

  mutating func skipToDeclaration() {
    while !isAtEnd, !isAtDeclaration { advance() }
  }

  /// Goes on to the next `|` or declaration.
  mutating func skipStage() {
    while !isAtEnd, kind != .pipe, !isAtDeclaration { advance() }
  }

  /// Goes on to the block's `}` or the next item, misspelled ones included, that stands at the
  /// start of a line.
  mutating func skipItem(_ items: [Keyword]) {
    var open = 0
    let first = index
    while !isAtEnd, !isAtDeclaration {
      if open == 0 {
        if kind == .rightBrace { return }
        if index > first, current.startsLine, kind == .identifier, !keyword.isReserved,
          items.contains(keyword)
            || closest(to: text(current), among: items.map(\.rawValue)) != nil
        {
          return
        }
      }
      if kind == .leftBrace { open += 1 }
      if kind == .rightBrace { open -= 1 }
      advance()
    }
  }

  // MARK: Declarations

  mutating func parseFile(into program: inout ProgramSyntax) {
    while !isAtEnd {
      let first = current
      var word = first.keyword
      if !word.isDeclaration {
        guard let meant = unknownDeclaration() else {
          advance()
          skipToDeclaration()
          continue
        }
        word = meant
      }
      do throws(SyntaxFailure) {
        try declaration(word, into: &program)
      } catch {
        // A failure that took no token would be met again.
        if index < tokens.count, tokens[index].start == first.start { advance() }
        skipToDeclaration()
      }
    }
  }

  /// Reports what is no declaration, and returns the one that was meant when that is plain.
  private func unknownDeclaration() -> Keyword? {
    guard kind == .identifier else {
      _ = unexpected(
        "a declaration",
        hint: kind == .rightBrace
          ? "this `}` closes nothing" : Self.declarationsText)
      return nil
    }
    guard current.startsLine else {
      _ = unexpected("the end of the declaration")
      return nil
    }
    let word = text(current)
    let meant = misspelledDeclaration(word)
    reporter.report(
      .unknownDeclaration, "unknown declaration `\(word)`", at: currentRange,
      hint: meant.map { "did you mean `\($0.rawValue)`?" }
        ?? Self.declarationsText)
    let shape = ahead(2).kind
    return ahead(1).kind == .identifier && (shape == .equal || shape == .leftBrace) ? meant : nil
  }

  private mutating func declaration(
    _ word: Keyword, into program: inout ProgramSyntax
  ) throws(SyntaxFailure) {
    if Keyword.laterDeclarations.contains(word) {
      throw fail(
        .notInThisVersion, "this version has no `\(word.rawValue)` declarations", at: currentRange,
        hint: Self.declarationsText)
    }
    advance()
    switch word {
    case .let:
      var declaration = LetSyntax(name: try name("the constant's name"))
      do throws(SyntaxFailure) {
        try expect(.equal, "`=`")
        declaration.value = try expression()
      } catch {
        program.lets.append(declaration)
        throw error
      }
      program.lets.append(declaration)
    case .source:
      program.sources.append(try source())
    case .stream:
      program.streams.append(try stream())
    case .metric:
      program.metrics.append(try metric())
    case .pattern:
      program.patterns.append(try pattern())
    case .group:
      program.groups.append(try group())
    case .inhibit:
      program.inhibitions.append(try inhibition())
    case .maintenance:
      program.maintenances.append(try maintenance())
    case .slo:
      program.streams.append(try slo())
    case .anomaly:
      let stream = try stream()
      program.anomalies.append(AnomalySyntax(name: stream.name, stream: program.streams.count))
      program.streams.append(stream)
    default:
      program.alerts.append(try alert())
    }
  }

  private mutating func metric() throws(SyntaxFailure) -> MetricSyntax {
    var declaration = MetricSyntax(name: try name("the metric's name"))
    do throws(SyntaxFailure) {
      try expect(.equal, "`=`")
      declaration.value = try expression()
      if take(.by) { declaration.keys = try names("a key column") }
    } catch {
      declaration.value = nil
      skipToDeclaration()
    }
    return declaration
  }

  /// `a, b, c`
  mutating func names(_ what: String) throws(SyntaxFailure) -> [NameSyntax] {
    var names = [try name(what)]
    while take(.comma) { names.append(try name(what)) }
    return names
  }
}
