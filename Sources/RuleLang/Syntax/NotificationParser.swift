import Catalog

/// `escalate`, `group`, `inhibit` and `maintenance`.
extension Parser {
  private static let groupItems: [Keyword] = [.alerts, .by, .wait, .interval, .repeat, .limit]
  private static let maintenanceItems: [Keyword] = [.from, .to, .every, .zone, .alerts, .matching]

  /// Behind `escalate`: `to page after 15m`.
  mutating func escalation() throws(SyntaxFailure) -> EscalationSyntax {
    guard take(.to) else { throw unexpected("`to`", hint: "write `escalate to page after 15m`") }
    let severity = try name("a severity")
    guard take(.after) else { throw unexpected("`after`", hint: "write `escalate to \(severity.text) after 15m`") }
    return EscalationSyntax(severity: severity, after: try expression())
  }

  /// Behind `group` in an alert or an SLO: `by service wait 30s interval 5m limit 100`.
  mutating func ownGroup(_ alert: NameSyntax, options: [Keyword]) throws(SyntaxFailure) -> GroupSyntax {
    guard take(.by) else {
      throw unexpected("`by`", hint: "name the labels that alerts of a group have in common: `group by service`")
    }
    var group = GroupSyntax(name: alert, alerts: [alert], by: try names("a label"))
    while options.contains(keyword) {
      let word = keyword
      try item(word, &group.seen)
      group.options[word] = try expression()
    }
    return group
  }

  /// `group NAME { alerts A, B  by service  wait 30s  interval 5m  repeat 4h  limit 100 }`
  mutating func group() throws(SyntaxFailure) -> GroupSyntax {
    var group = GroupSyntax(name: try name("the group's name"))
    let open = currentRange
    guard take(.leftBrace) else {
      throw unexpected("`{`", hint: "write `group \(group.name.text) { alerts A, B  by service }`")
    }
    while !endsBlock(open) {
      do throws(SyntaxFailure) {
        let word = keyword
        guard Self.groupItems.contains(word) else {
          throw unknownItem(of: "group", Self.groupItems, seen: &group.seen)
        }
        try item(word, &group.seen)
        switch word {
        case .alerts: group.alerts = try names("an alert")
        case .by: group.by = try names("a label")
        default: group.options[word] = try expression()
        }
      } catch {
        skipItem(Self.groupItems)
      }
    }
    return group
  }

  /// `inhibit A, B when C, D equal service`
  mutating func inhibition() throws(SyntaxFailure) -> InhibitionSyntax {
    let start = currentRange
    var inhibition = InhibitionSyntax(range: start, targets: try names("an alert that is silent"))
    guard take(.when) else {
      throw unexpected("`when`", hint: "write `inhibit \(inhibition.targets[0].text) when OtherAlert equal service`")
    }
    inhibition.sources = try names("an alert that fires")
    if take(.equalLabels) { inhibition.equal = try names("a label") }
    inhibition.range = range(from: start)
    return inhibition
  }

  /// `maintenance NAME { every sunday 02:00 for 2h  zone "Europe/Berlin"  matching service == "search" }`
  mutating func maintenance() throws(SyntaxFailure) -> MaintenanceSyntax {
    var maintenance = MaintenanceSyntax(name: try name("the maintenance window's name"))
    let open = currentRange
    guard take(.leftBrace) else { throw unexpected("`{`") }
    while !endsBlock(open) {
      do throws(SyntaxFailure) {
        let word = keyword
        guard Self.maintenanceItems.contains(word) else {
          throw unknownItem(of: "maintenance", Self.maintenanceItems, seen: &maintenance.seen)
        }
        try item(word, &maintenance.seen)
        switch word {
        case .from: maintenance.from = try expression()
        case .to: maintenance.until = try expression()
        case .every: try every(&maintenance)
        case .zone: maintenance.zone = try string("a time zone, such as \"Europe/Berlin\"")
        case .alerts: maintenance.alerts = try names("an alert")
        default: maintenance.matchers = try matchers()
        }
      } catch {
        skipItem(Self.maintenanceItems)
      }
    }
    return maintenance
  }

  /// Behind `every`: `saturday, sunday 02:00 for 2h`.
  private mutating func every(_ maintenance: inout MaintenanceSyntax) throws(SyntaxFailure) {
    maintenance.days = try names("a day of the week, `day` or `weekday`")
    let hint = "write `every sunday 02:00 for 2h`"
    let place = currentRange
    guard kind == .number, let hours = digits(), take(.colon), kind == .number, let minutes = digits() else {
      throw unexpected("a time of day", hint: hint)
    }
    guard hours < 24, minutes < 60 else {
      throw fail(.badMaintenance, "a day has no such time", at: range(from: place), hint: "from 00:00 to 23:59")
    }
    maintenance.start = hours * 3_600 + minutes * 60
    guard take(.for) else { throw unexpected("`for`", hint: hint) }
    maintenance.length = try expression()
  }

  /// One or two digits.
  private mutating func digits() -> Int64? {
    let text = text(current)
    guard text.utf8.count <= 2, text.utf8.allSatisfy({ (48...57).contains($0) }), let number = Int64(text) else { return nil }
    advance()
    return number
  }

  /// `service == "search", env in ("prod", "stage")`
  private mutating func matchers() throws(SyntaxFailure) -> [MaintenanceSyntax.Matcher] {
    var list: [MaintenanceSyntax.Matcher] = []
    repeat {
      var matcher = MaintenanceSyntax.Matcher(label: try name("a label"), values: [], isNegated: false)
      if take(.not) {
        matcher.isNegated = true
        guard keyword == .in else { throw unexpected("`in`") }
      }
      if take(.in) {
        try expect(.leftParen, "`(`")
        repeat { matcher.values.append(try string("a text")) } while take(.comma)
        try expect(.rightParen, "`,` or `)`")
      } else {
        if take(.notEqual) { matcher.isNegated = true } else {
          guard take(.equalEqual) else {
            throw unexpected(
              "`==`, `!=`, `in` or `not in`", hint: "labels are compared with texts: \(matcher.label.text) == \"…\"")
          }
        }
        matcher.values = [try string("a text")]
      }
      list.append(matcher)
    } while take(.comma) || take(.and)
    return list
  }
}
