import Catalog

/// `slo` declarations: each is a stream with one stage behind its `where`.
extension Parser {
  private static let sloItems: [Keyword] = [
    .on, .by, .good, .bad, .total, .objective, .every, .minEvents, .burn, .group, .labels, .annotations,
  ]

  mutating func slo() throws(SyntaxFailure) -> StreamSyntax {
    let name = try name("the SLO's name")
    var declaration = StreamSyntax(name: name)
    var slo = SloSyntax(name: name)
    let open = currentRange
    guard take(.leftBrace) else {
      _ = unexpected("`{`")
      skipToDeclaration()
      declaration.stages.append(.broken)
      return declaration
    }
    while !endsBlock(open) {
      do throws(SyntaxFailure) {
        try sloItem(&slo, &declaration)
      } catch {
        skipItem(Self.sloItems)
      }
    }
    if slo.seen[.on] == nil {
      reporter.report(
        .missingItem, "the slo `\(name.text)` has no `on`", at: name.range,
        hint: "add `on requests`: the source or stream whose events count")
      declaration.stages.append(.broken)
    }
    declaration.stages.append(.slo(slo))
    return declaration
  }

  private mutating func sloItem(_ slo: inout SloSyntax, _ declaration: inout StreamSyntax) throws(SyntaxFailure) {
    let word = keyword
    guard Self.sloItems.contains(word) else {
      throw unknownItem(of: "slo", Self.sloItems, seen: &slo.seen)
    }
    let place = currentRange
    try item(word, &slo.seen)
    switch word {
    case .on:
      declaration.input = try name("a source or stream")
      if take(.where) { declaration.stages.append(.filter(try expression())) }
    case .by:
      slo.keys = try names("a key column")
      if take(.limit) {
        slo.keyLimit = try value()
        guard kind == .identifier, text(current) == "keys" else {
          throw unexpected("`keys`", hint: "write it like `limit 10000 keys`")
        }
        advance()
      }
    case .good, .bad:
      if let other = slo.seen[word == .good ? .bad : .good] {
        reporter.report(
          .duplicateItem, "an slo has either `good` or `bad`", at: place, "again", context: [(other, "first here")],
          hint: "one follows from the other")
        _ = try expression()
        return
      }
      slo.isBad = word == .bad
      slo.measure = try expression()
    case .total: slo.total = try expression()
    case .objective:
      slo.objective = try value()
      guard take(.over) else {
        throw unexpected("`over`", hint: "write `objective 99.9% over 30d` or `objective 99.9% over month`")
      }
      if kind == .identifier {
        slo.period = .calendar(try name("a period"))
      } else {
        slo.period = .rolling(try value())
      }
    case .every: slo.step = try value()
    case .minEvents: slo.minEvents = try value()
    case .burn: slo.burns.append(try burn())
    // An slo has no `repeat` beside it.
    case .group: slo.group = try ownGroup(slo.name, options: [.wait, .interval, .repeat, .limit])
    case .labels: slo.labels = try templates()
    default: slo.annotations = try templates()
    }
  }

  private mutating func burn() throws(SyntaxFailure) -> BurnSyntax {
    let severity = try name("a severity")
    guard take(.when) else { throw unexpected("`when`", hint: Self.burnHint) }
    let first = index
    var conditions = [try burnCondition()]
    while take(.or) { conditions.append(try burnCondition()) }
    return BurnSyntax(severity: severity, conditions: conditions, text: textOfTokens(first..<index))
  }

  private static let burnHint = "write `burn page when rate > 14.4 over 1h and 5m`"

  private mutating func burnCondition() throws(SyntaxFailure) -> BurnSyntax.Condition {
    let start = currentRange
    guard kind == .identifier, text(current) == "rate" else { throw unexpected("`rate`", hint: Self.burnHint) }
    advance()
    guard kind == .greater || kind == .greaterOrEqual else {
      throw unexpected("`>` or `>=`", hint: "an alert fires when the budget burns fast")
    }
    let isInclusive = kind == .greaterOrEqual
    advance()
    let rate = try value()
    guard take(.over) else { throw unexpected("`over`", hint: Self.burnHint) }
    var windows = [try value()]
    while take(.and) { windows.append(try value()) }
    var minEvents: ExprSyntax?
    // `min_events` alone would be the next item of the slo.
    if kind == .identifier, text(current) == "with" {
      advance()
      guard take(.minEvents) else {
        throw unexpected("`min_events`", hint: "write `rate > 14.4 over 1h and 5m with min_events 100`")
      }
      minEvents = try value()
    }
    return BurnSyntax.Condition(
      range: range(from: start), isInclusive: isInclusive, rate: rate, windows: windows, minEvents: minEvents)
  }
}
