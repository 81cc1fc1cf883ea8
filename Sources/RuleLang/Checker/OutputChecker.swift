import Catalog

/// Metrics and alerts.
extension Checker {
  /// The worst first.
  static let severities = TypedAlert.severities

  // MARK: Metrics

  mutating func checkMetric(_ metric: MetricSyntax) {
    guard let value = metric.value else { return }
    guard let name = firstQualifier(value) else {
      if case .broken = value.kind { return }
      let column = firstName(value)
      let owner = syntax.streams.indices.first {
        column != nil && streamInfos[$0]?.scope.index(of: column ?? "") != nil
      }.map { syntax.streams[$0].name.text }
      reporter.report(
        .badMetric, "the metric `\(metric.name.text)` reads no stream", at: value.range,
        hint: "write `\(owner ?? "stream").\(column ?? "column")`")
      return
    }
    guard let stream = windowedStream(name, for: "metric"), let info = streamInfos[stream] else {
      return
    }
    var scope = info.scope
    scope.kind = .metric
    let checked = expressions.check(value, in: scope)
    if let checked, checked.type?.isNumeric != true {
      reporter.report(
        .badMetric,
        "a metric is a number, and \(expressions.quoted(checked)) is "
          + (checked.type?.withArticle ?? "null"), at: value.range,
        hint: checked.type == .bool ? "`if(condition, 1, 0)` makes a number of it" : nil)
      return
    }
    if let keys = metric.keys, !info.isWindowingUnknown { checkKeys(keys, info, name) }
    guard let checked, let windowing = info.windowing else { return }
    program.metrics.append(
      TypedMetric(
        name: metric.name.text, origin: reporter.place(metric.name.range),
        stream: streamPlaces[stream], value: checked.expression, labels: windowing.keyColumns))
  }

  func checkKeys(_ keys: [NameSyntax], _ info: StreamInfo, _ stream: NameSyntax) {
    let wanted = (info.windowing?.keyColumns ?? []).map { info.scope.columns[$0].name }
    var given: Set<String> = []
    for key in keys {
      if !wanted.contains(key.text) {
        reporter.report(
          .badMetric, "`\(key.text)` is no key of `\(stream.text)`", at: key.range,
          hint: wanted.isEmpty
            ? "the stream has no keys; leave `by` out"
            : "its keys: \(wanted.joined(separator: ", ")); aggregate again for fewer")
      } else if !given.insert(key.text).inserted {
        reporter.report(
          .duplicateName, "the key `\(key.text)` is given twice", at: key.range,
          hint: "leave it out")
      }
    }
    let left = wanted.filter { !given.contains($0) }
    if let last = keys.last, !left.isEmpty, given.count == keys.count {
      reporter.report(
        .badMetric,
        "`by` leaves out the key\(left.count == 1 ? "" : "s") "
          + left.map { "`\($0)`" }.joined(separator: ", "), at: last.range,
        hint: "a metric has all keys of its stream: leave `by` out, or aggregate again for fewer")
    }
  }

  /// The stream's place in the syntax tree; `nil`, and reported, when there is none or it has no
  /// windows.
  private mutating func windowedStream(_ name: NameSyntax, for what: String) -> Int? {
    switch inputs[name.text] {
    case .stream(let index)?:
      usedStreams.insert(index)
      if let info = streamInfos[index], info.windowing == nil, !info.isWindowingUnknown {
        reporter.report(
          .notWindowed,
          "the stream `\(name.text)` has no windows, and "
            + "\(what == "alert" ? "an alert" : "a metric") is evaluated when one ends",
          at: name.range, context: [(syntax.streams[index].name.range, "declared here")],
          hint: "add `| window tumbling 1m by … | aggregate …` to it")
        return nil
      }
      return index
    case .source(let index)?:
      usedSources.insert(index)
      reporter.report(
        .notWindowed,
        "`\(name.text)` is a source, and "
          + "\(what == "alert" ? "an alert" : "a metric") reads a stream with windows",
        at: name.range,
        hint: "declare `stream x = \(name.text) | window tumbling 1m by … | aggregate …`")
      return nil
    case nil:
      unknownInput(name, "stream")
      return nil
    }
  }

  private func firstQualifier(_ syntax: ExprSyntax) -> NameSyntax? {
    var found: NameSyntax?
    Self.visit(syntax) { node in
      if found == nil, case .member(let stream, _) = node.kind { found = stream }
    }
    return found
  }

  private func firstName(_ syntax: ExprSyntax) -> String? {
    var found: String?
    Self.visit(syntax) { node in
      if found == nil, case .name(let text) = node.kind { found = text }
    }
    return found
  }

  private static func visit(_ syntax: ExprSyntax, _ body: (ExprSyntax) -> Void) {
    body(syntax)
    switch syntax.kind {
    case .literal, .name, .member, .broken: break
    case .negate(let inner), .not(let inner), .isNull(let inner): visit(inner, body)
    case .arithmetic(_, _, let left, let right), .compare(_, _, let left, let right):
      visit(left, body)
      visit(right, body)
    case .logical(_, let operands): operands.forEach { visit($0, body) }
    case .between(let value, let low, let high): [value, low, high].forEach { visit($0, body) }
    case .isIn(let value, let members): ([value] + members).forEach { visit($0, body) }
    case .call(_, let arguments, let filter):
      (arguments + (filter.map { [$0] } ?? [])).forEach { visit($0, body) }
    }
  }

  // MARK: Alerts

  mutating func checkAlert(_ alert: AlertSyntax) {
    if alert.seen[.on] == nil {
      missing("on", of: "alert", at: alert.name, hint: "add `on stream`")
    }
    if alert.seen[.when] == nil {
      missing("when", of: "alert", at: alert.name, hint: "add `when condition`")
    }
    let stream = alert.stream.flatMap { windowedStream($0, for: "alert") }
    let info = stream.flatMap { streamInfos[$0] }
    var scope = info?.scope ?? Scope(kind: .rows, owner: alert.stream?.text ?? "")
    if info == nil { scope.isOpen = true }
    let condition = alert.condition.flatMap {
      expressions.condition($0, in: scope, of: "`when`")
    }
    func wait(_ syntax: ExprSyntax?, _ word: String) -> Int64 {
      syntax.flatMap {
        duration($0, "`\(word)`", code: .badDuration, in: 0...Self.waitNanosMax)
      } ?? 0
    }
    let forNanos = wait(alert.hold, "for")
    let keepNanos = wait(alert.keepFiring, "keep_firing")
    if let severity = alert.severity, !Self.severities.contains(severity.text) { unknownSeverity(severity) }
    let escalations = escalations(alert)
    let again = repeatNanos(alert.repeatEvery)
    let keys = info?.windowing?.keyColumns ?? []
    let labels = templates(alert.labels, "label", in: scope) { expression, syntax in
      guard let info, !info.isWindowingUnknown else { return }
      checkLabel(expression, syntax, keys: keys, scope: info.scope)
    }
    for label in alert.labels {
      if let index = scope.index(of: label.name.text), keys.contains(index) {
        reporter.report(
          .duplicateName, "the label `\(label.name.text)` is a key of the stream already",
          at: label.name.range, hint: "keys label every alert; choose another name")
      }
    }
    let annotations = templates(alert.annotations, "annotation", in: scope) { _, _ in }
    guard let stream, let condition else { return }
    var typed = TypedAlert(
      name: alert.name.text, origin: reporter.place(alert.name.range),
      stream: streamPlaces[stream], condition: condition.expression,
      conditionText: alert.conditionText, forNanos: forNanos, keepFiringNanos: keepNanos,
      severity: alert.severity?.text ?? "ticket", labels: labels, annotations: annotations)
    typed.escalations = escalations
    // That of an alert with a group of its own is the group's.
    typed.repeatNanos = alert.group == nil ? again : 0
    program.alerts.append(typed)
  }

  func templates(
    _ list: [TemplateSyntax], _ what: String, in scope: Scope,
    each: (TypedExpr, ExprSyntax) -> Void
  ) -> [TypedTemplate] {
    var first: [String: TextRange] = [:]
    return list.map { template in
      let name = template.name
      if let place = first[name.text] {
        duplicate(name, what, first: place)
      } else {
        first[name.text] = name.range
      }
      if !Self.isName(name.text) {
        reporter.report(
          .badName, "\"\(printable(String(name.text.prefix(60))))\" is no name of \(what)s",
          at: name.range, hint: "names have letters, digits and `_`, and begin with no digit")
      }
      var parts: [TypedTemplate.Part] = []
      for part in template.parts {
        switch part {
        case .text(let text): parts.append(.text(text))
        case .value(let syntax):
          guard let checked = expressions.check(syntax, in: scope) else { continue }
          if checked.type == nil {
            reporter.report(.alwaysNull, "this value is always null", at: syntax.range)
          }
          each(checked.expression, syntax)
          parts.append(.value(checked.expression))
        }
      }
      return TypedTemplate(name: name.text, parts: parts)
    }
  }

  private static func isName(_ text: String) -> Bool {
    guard let first = text.utf8.first, !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first)
    else { return false }
    return text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
        true
      default: false
      }
    }
  }

  func checkLabel(
    _ expression: TypedExpr, _ syntax: ExprSyntax, keys: [Int], scope: Scope
  ) {
    guard let column = expression.columnIndexes.sorted().first(where: { !keys.contains($0) })
    else { return }
    let name = scope.columns[column].name
    let names = keys.map { scope.columns[$0].name }.joined(separator: ", ")
    reporter.report(
      .labelNotKey, "a label cannot hold `\(name)`: it changes with the value", at: syntax.range,
      "each value would be another alert",
      hint: "put it in annotations" + (names.isEmpty ? "" : "; labels may use \(names)"))
  }
}
