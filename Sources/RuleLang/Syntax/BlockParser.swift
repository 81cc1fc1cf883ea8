import Catalog

/// The blocks of `source` and `alert`.
extension Parser {
  private static let sourceItems: [Keyword] = [
    .kafka, .partitioned, .format, .time, .fields, .require, .deadLetter, .late,
  ]
  private static let alertItems: [Keyword] = [
    .on, .when, .for, .keepFiring, .severity, .escalate, .repeat, .group, .labels, .annotations,
  ]

  mutating func source() throws(SyntaxFailure) -> SourceSyntax {
    var source = SourceSyntax(name: try name("the source's name"))
    let open = currentRange
    guard take(.leftBrace) else {
      _ = unexpected("`{`")
      skipToDeclaration()
      // Nothing is known of it: whatever is asked of it is not complained about.
      source.hasBrokenFields = true
      source.seen = [.time: open, .fields: open]
      return source
    }
    while !endsBlock(open) {
      do throws(SyntaxFailure) {
        try sourceItem(&source)
      } catch {
        skipItem(Self.sourceItems)
      }
    }
    return source
  }

  /// Whether the block ends here; takes its `}` and reports when there is none.
  mutating func endsBlock(_ open: TextRange) -> Bool {
    if take(.rightBrace) { return true }
    guard isAtEnd || isAtDeclaration else { return false }
    reporter.report(
      .unclosedBlock, "this block is not closed", at: open, "no `}` for this",
      context: [(currentRange, isAtEnd ? "the text ends here" : "the next declaration begins")],
      hint: "add `}`")
    return true
  }

  /// Takes an item's keyword, and notes that it was there.
  mutating func item(
    _ word: Keyword, _ seen: inout [Keyword: TextRange]
  ) throws(SyntaxFailure) {
    let place = currentRange
    advance()
    if let first = seen[word], word != .require, word != .escalate, word != .burn {
      throw fail(
        .duplicateItem, "`\(word.rawValue)` is given twice", at: place, "again",
        context: [(first, "first here")])
    }
    seen[word] = place
  }

  func unknownItem(
    of block: String, _ items: [Keyword], later: Set<String> = [],
    seen: inout [Keyword: TextRange]
  ) -> SyntaxFailure {
    let list = items.map(\.rawValue).joined(separator: ", ")
    guard kind == .identifier else {
      return unexpected("an item of the \(block) or `}`", hint: "items: \(list)")
    }
    let word = text(current)
    if later.contains(word) {
      return fail(
        .notInThisVersion, "this version has no `\(word)` in a \(block)", at: currentRange)
    }
    let meant = closest(to: word, among: items.map(\.rawValue))
    // What was meant is not missing.
    if let meant, let keyword = Keyword.byText[meant] { seen[keyword] = currentRange }
    return fail(
      .unknownItem, "\(["alert", "slo"].contains(block) ? "an" : "a") \(block) has no `\(word)`", at: currentRange,
      hint: meant.map { "did you mean `\($0)`?" } ?? "items: \(list)")
  }

  // MARK: Source

  private mutating func sourceItem(_ source: inout SourceSyntax) throws(SyntaxFailure) {
    let word = keyword
    guard Self.sourceItems.contains(word) else {
      throw unknownItem(
        of: "source", Self.sourceItems, later: ["file", "http", "otlp", "postgres", "mask"],
        seen: &source.seen)
    }
    try item(word, &source.seen)
    switch word {
    case .kafka: source.topic = try string("the topic's name")
    case .partitioned:
      guard take(.by) else {
        throw unexpected("`by`", hint: "name the fields that producers partition the topic by: `partitioned by service`")
      }
      source.partitionedBy = try names("a field")
    case .format: source.format = try name("a format")
    case .time: source.time = try time()
    case .fields: try fields(&source)
    case .require:
      let condition = try expression()
      guard take(.else) else {
        throw unexpected(
          "`else`", hint: "say why a record is turned away: `else \"latency out of range\"`")
      }
      source.requirements.append(
        RequirementSyntax(condition: condition, reason: try string("the reason")))
    case .deadLetter: source.deadLetterTopic = try topic()
    default: source.lateTopic = try topic()
    }
  }

  private mutating func topic() throws(SyntaxFailure) -> TextSyntax {
    guard take(.kafka) else { throw unexpected("`kafka`", hint: "write `kafka \"topic\"`") }
    return try string("the topic's name")
  }

  private mutating func time() throws(SyntaxFailure) -> TimeSyntax {
    var time = TimeSyntax(field: try name("the field that holds the event time"))
    while true {
      switch keyword {
      case .watermark, .idle, .maxAhead, .allowedLateness:
        let option = keyword
        let place = currentRange
        advance()
        if let first = time.options[option] {
          throw fail(
            .duplicateItem, "`\(option.rawValue)` is given twice", at: place, "again",
            context: [(first.range, "first here")])
        }
        time.options[option] = try expression()
      default:
        // A word on the same line was meant as an option.
        if kind == .identifier, !current.startsLine, !Self.sourceItems.contains(keyword) {
          let options: [Keyword] = [.watermark, .idle, .maxAhead, .allowedLateness]
          let list = options.map(\.rawValue)
          reporter.report(
            .unknownItem, "`time` has no `\(text(current))`", at: currentRange,
            hint: closest(to: text(current), among: list).map { "did you mean `\($0)`?" }
              ?? "options: \(list.joined(separator: ", "))")
          advance()
          _ = try expression()
          continue
        }
        return time
      }
    }
  }

  private mutating func fields(_ source: inout SourceSyntax) throws(SyntaxFailure) {
    let open = currentRange
    try expect(.leftBrace, "`{`")
    while kind != .rightBrace {
      if isAtEnd || isAtDeclaration {
        throw fail(
          .unclosedBlock, "this block is not closed", at: open, "no `}` for this", hint: "add `}`")
      }
      do throws(SyntaxFailure) {
        let field = try field()
        source.fields.append(field)
        if kind == .rightBrace || take(.comma) || current.startsLine { continue }
        source.hasBrokenFields = true
        throw unexpected("`,` or `}`")
      } catch {
        source.hasBrokenFields = true
        skipEntry()
      }
    }
    advance()
  }

  /// Goes on behind the next comma, or to the next line that looks like `name:`, or to `}`.
  private mutating func skipEntry() {
    var open = 0
    let first = index
    while !isAtEnd, !isAtDeclaration {
      switch kind {
      case .leftParen: open += 1
      case .rightParen: open -= 1
      case .rightBrace: return
      case .comma where open <= 0:
        advance()
        return
      case .identifier, .string:
        if index > first, current.startsLine, ahead(1).kind == .colon { return }
      default: break
      }
      advance()
    }
  }

  private mutating func field() throws(SyntaxFailure) -> FieldSyntax {
    let name = try name("a field's name")
    try expect(.colon, "`:`", hint: "a field is written `name: type`")
    var field = FieldSyntax(name: name, type: try self.name("a type"))
    if take(.leftParen) {
      guard kind == .identifier || kind == .number else { throw unexpected("a unit") }
      field.unit = NameSyntax(text: text(current), range: currentRange)
      advance()
      try expect(.rightParen, "`)`")
    }
    field.isOptional = take(.question)
    if take(.from) { field.path = try path() }
    if take(.equal) { field.defaultValue = try expression() }
    return field
  }

  /// `ctx.route`, `"k8s.host"`, `resource."service.name"`
  private mutating func path() throws(SyntaxFailure) -> [String] {
    /// Deeper members are not found in any record that we know of.
    let membersMax = 16
    var path: [String] = []
    let start = currentRange
    repeat {
      switch kind {
      case .identifier:
        path.append(text(current))
        advance()
      case .string:
        path.append(try string("a member's name").text)
      default:
        throw unexpected("a member's name", hint: "quote what is no plain name: from \"k8s.host\"")
      }
    } while take(.dot)
    if path.count > membersMax {
      throw fail(
        .nestedTooDeep, "this path has more than \(membersMax) members", at: range(from: start))
    }
    return path
  }

  // MARK: Alert

  mutating func alert() throws(SyntaxFailure) -> AlertSyntax {
    var alert = AlertSyntax(name: try name("the alert's name"))
    let open = currentRange
    guard take(.leftBrace) else {
      _ = unexpected("`{`")
      skipToDeclaration()
      alert.seen = [.on: open, .when: open]
      return alert
    }
    while !endsBlock(open) {
      do throws(SyntaxFailure) {
        try alertItem(&alert)
      } catch {
        skipItem(Self.alertItems)
      }
    }
    return alert
  }

  private mutating func alertItem(_ alert: inout AlertSyntax) throws(SyntaxFailure) {
    let word = keyword
    guard Self.alertItems.contains(word) else {
      throw unknownItem(
        of: "alert", Self.alertItems, later: ["notify"],
        seen: &alert.seen)
    }
    try item(word, &alert.seen)
    switch word {
    case .on: alert.stream = try name("a stream")
    case .when:
      let first = index
      alert.condition = try expression()
      alert.conditionText = textOfTokens(first..<index)
    case .for: alert.hold = try expression()
    case .keepFiring: alert.keepFiring = try expression()
    case .severity: alert.severity = try name("a severity")
    case .escalate: alert.escalations.append(try escalation())
    case .repeat: alert.repeatEvery = try expression()
    case .group: alert.group = try ownGroup(alert.name, options: [.wait, .interval, .limit])
    case .labels: alert.labels = try templates()
    default: alert.annotations = try templates()
    }
  }

  /// Text as its author wrote it, comments left out and every run of blanks made one.
  func textOfTokens(_ range: Range<Int>) -> String {
    var result = ""
    for position in range {
      if position > range.lowerBound, tokens[position].start > tokens[position - 1].end {
        result += " "
      }
      result += text(tokens[position])
    }
    return result
  }

  mutating func templates() throws(SyntaxFailure) -> [TemplateSyntax] {
    let open = currentRange
    try expect(.leftBrace, "`{`")
    var list: [TemplateSyntax] = []
    while kind != .rightBrace {
      if isAtEnd || isAtDeclaration {
        throw fail(
          .unclosedBlock, "this block is not closed", at: open, "no `}` for this", hint: "add `}`")
      }
      do throws(SyntaxFailure) {
        list.append(try template())
        if kind == .rightBrace || take(.comma) || current.startsLine { continue }
        throw unexpected("`,` or `}`")
      } catch {
        skipEntry()
      }
    }
    advance()
    return list
  }

  private mutating func template() throws(SyntaxFailure) -> TemplateSyntax {
    // A quoted name is taken, so that one with a dash in it gets the diagnostic that it deserves.
    let name: NameSyntax
    if kind == .string {
      let text = try string("a name")
      name = NameSyntax(text: text.text, range: text.range)
    } else if kind == .identifier {
      name = NameSyntax(text: text(current), range: currentRange)
      advance()
      if kind == .minus {
        throw fail(
          .badName, "names have letters, digits and `_`", at: currentRange, "no `-` in a name")
      }
    } else {
      throw unexpected("a name")
    }
    try expect(.colon, "`:`", hint: "write `team: \"search\"`")
    guard kind == .string else {
      throw unexpected("a string", hint: "quote it; values go in braces: \"{service}\"")
    }
    let value = TextRange(file: file, start: current.start + 1, end: current.end - 1)
    advance()
    return TemplateSyntax(name: name, parts: try StringLiteral.parts(value, reporter: reporter))
  }
}
