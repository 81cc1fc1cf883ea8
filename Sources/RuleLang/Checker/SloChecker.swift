import Catalog

/// What is known of an SLO when its burn alerts are checked.
struct CheckedSlo {
  var typed: TypedSlo
  var burns: [CheckedBurn]
  var minEvents: Int64
  /// Columns that the burn alerts' records always show begin behind the keys.
  var keyCount: Int
}

/// The burn conditions of one severity.
struct CheckedBurn {
  struct Condition {
    var isInclusive: Bool
    var rate: Double
    var windows: [Int64]
    /// Of its own; the SLO's holds where it is nil.
    var minEvents: Int64?
  }
  var severity: String
  var conditions: [Condition]
  var text: String
}

/// `slo` declarations.
extension Checker {
  /// Google's SRE workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts": of a 30-day budget 2 % in an hour and 5 % in six page, 10 % in one day or three
  /// are a ticket; the short window is a twelfth of the long one.
  private static let workbook: [(severity: String, rate: Double, long: Int64, short: Int64)] = [
    ("page", 14.4, 3_600 * secondNanos, 300 * secondNanos),
    ("page", 6, 6 * 3_600 * secondNanos, 1_800 * secondNanos),
    ("ticket", 3, dayNanos, 2 * 3_600 * secondNanos),
    ("ticket", 1, 3 * dayNanos, 6 * 3_600 * secondNanos),
  ]

  mutating func checkSlo(
    _ slo: SloSyntax, of stream: StreamSyntax, at index: Int, _ pipeline: inout Pipeline
  ) {
    let isOfWindows = pipeline.windowing != nil
    let isKnown = !pipeline.isWindowingUnknown
    let objective = self.objective(slo)
    let step = self.step(slo, pipeline)
    let period = self.period(slo, step: step)
    let burns = self.burns(slo, step: step, period: period, objective: objective)
    // One that is wrong has been reported.
    let minEvents = slo.minEvents.map(self.minEvents) ?? (slo.seen[.minEvents] == nil ? 0 : nil)
    let counted = isOfWindows || !isKnown ? amounts(slo, pipeline) : events(slo, step: step, &pipeline)
    let keys = pipeline.windowing?.keyColumns ?? []
    let keyColumns = keys.map { pipeline.scope.columns[$0] }
    var after = Scope(kind: .rows, owner: stream.name.text, columns: keyColumns)
    guard isKnown, let objective, let step, let period, let burns, let counted, let minEvents else {
      after.isOpen = true
      pipeline.scope = after
      pipeline.isWindowingUnknown = true
      return
    }
    let windows = Set(burns.flatMap { $0.conditions.flatMap(\.windows) }).sorted()
    let conditions = burns.flatMap(\.conditions)
    let typed = TypedSlo(
      keys: keys, measure: counted.measure, isBad: slo.isBad, total: counted.total, objective: objective, period: period,
      stepNanos: step, burnWindows: windows, idleNanos: conditions.compactMap { $0.windows.min() }.max() ?? step,
      exhaustionNanos: conditions.compactMap { $0.windows.max() }.min() ?? step)
    for column in typed.outputs {
      if after.index(of: column.name) != nil {
        columnExists(NameSyntax(text: column.name, range: slo.seen[.by] ?? slo.name.range), of: stream.name.text)
      }
      after.add(ColumnInfo(name: column.name, type: column.type, isNullable: column.isNullable))
    }
    after.lost = Set(pipeline.scope.columns.map(\.name))
    pipeline.scope = after
    pipeline.stages.append(.slo(typed))
    pipeline.windowing = Windowing(
      window: WindowSpec(sizeNanos: step, hopNanos: step), keyColumns: Array(keys.indices))
    pipeline.clustering = nil
    slos[index] = CheckedSlo(typed: typed, burns: burns, minEvents: minEvents, keyCount: keys.count)
  }

  // MARK: What is counted

  private typealias Counted = (measure: TypedExpr, total: TypedExpr?)

  /// Over records: a window of one evaluation that counts them, and the two counts.
  private func events(_ slo: SloSyntax, step: Int64?, _ pipeline: inout Pipeline) -> Counted? {
    var isGood = true
    if let total = slo.total {
      isGood = false
      reporter.report(
        .badSlo, "`total` has no meaning over records: each is one event", at: total.range,
        hint: "say which records count by `on … where condition`; `total` goes with a stream with windows")
    }
    let condition = slo.measure.flatMap {
      expressions.condition($0, in: pipeline.scope, of: slo.isBad ? "`bad`" : "`good`")
    }
    let list = keyList(slo.keys ?? [], in: pipeline.scope)
    let keys = list.columns
    if !list.areKnown || !list.areDistinct { isGood = false }
    let limit = keyLimit(slo.keyLimit, keys: slo.keys ?? [], over: pipeline)
    missingMeasure(slo)
    guard isGood, let condition, let step else { return nil }
    let measure = slo.isBad ? "bad" : "good"
    func count(_ name: String, _ filter: TypedExpr?) -> TypedAggregate {
      TypedAggregate(name: name, function: "count", argument: nil, constants: [], filter: filter, type: .int)
    }
    let window = WindowSpec(sizeNanos: step, hopNanos: step)
    pipeline.stages.append(
      .aggregate(
        TypedAggregation(
          window: window, keys: keys, aggregates: [count(measure, condition.expression), count("total", nil)],
          keyLimit: limit)))
    var after = Scope(kind: .rows, owner: pipeline.scope.owner, columns: keys.map { pipeline.scope.columns[$0] })
    for name in [measure, "total"] { after.add(ColumnInfo(name: name, type: .int, isNullable: false)) }
    pipeline.scope = after
    pipeline.windowing = Windowing(window: window, keyColumns: Array(keys.indices))
    return (.column(keys.count, .int), .column(keys.count + 1, .int))
  }

  /// Over rows of windows: slices of time, or amounts.
  private func amounts(_ slo: SloSyntax, _ pipeline: Pipeline) -> Counted? {
    if let keys = slo.keys, !pipeline.isWindowingUnknown {
      checkKeys(
        keys, StreamInfo(scope: pipeline.scope, windowing: pipeline.windowing),
        NameSyntax(text: pipeline.scope.owner, range: slo.name.range))
    }
    if let limit = slo.keyLimit, !pipeline.isWindowingUnknown {
      reporter.report(
        .badSlo, "a limit of keys belongs to the first window", at: limit.range,
        hint: "limit the keys of `\(pipeline.scope.owner)`")
    }
    missingMeasure(slo)
    guard let syntax = slo.measure else { return nil }
    let word = slo.isBad ? "bad" : "good"
    guard let total = slo.total else {
      guard let measure = expressions.check(syntax, in: pipeline.scope) else { return nil }
      if measure.type == .bool { return (measure.expression, nil) }
      reporter.report(
        measure.type?.isNumeric == true ? .badSlo : .notBool,
        "`\(word)` is \(measure.type?.withArticle ?? "null"), and nothing says of how much", at: syntax.range,
        hint: "write a condition, which makes each row of `\(pipeline.scope.owner)` a slice of time, or add `total`")
      return nil
    }
    let measure = amount(syntax, word, pipeline)
    let whole = amount(total, "total", pipeline)
    guard let measure, let whole else { return nil }
    return (measure, whole)
  }

  private func amount(_ syntax: ExprSyntax, _ word: String, _ pipeline: Pipeline) -> TypedExpr? {
    guard let checked = expressions.check(syntax, in: pipeline.scope) else { return nil }
    guard let type = checked.type, type == .int || type == .float else {
      reporter.report(
        .typeMismatch, "with `total`, `\(word)` is a number of events, and this is \(checked.type?.withArticle ?? "null")",
        at: syntax.range, hint: "for example `good ok total requests`")
      return nil
    }
    return checked.expression
  }

  private func missingMeasure(_ slo: SloSyntax) {
    if slo.seen[.good] == nil, slo.seen[.bad] == nil {
      missing("good", of: "slo", at: slo.name, hint: "add `good condition`, or `bad condition`")
    }
  }

  // MARK: Objective

  private func objective(_ slo: SloSyntax) -> Double? {
    if slo.seen[.objective] == nil {
      missing("objective", of: "slo", at: slo.name, hint: "add `objective 99.9% over 30d`")
    }
    guard let syntax = slo.objective, let checked = expressions.check(syntax, in: .constant) else { return nil }
    var share: Double?
    switch checked.constant {
    case .ratio(let value)?, .float(let value)?: share = value
    case .int(let value)?: share = Double(value)
    default: break
    }
    guard let share else {
      reporter.report(
        checked.constant == nil ? .notConstant : .typeMismatch, "an objective is a constant share, such as 99.9%",
        at: syntax.range)
      return nil
    }
    // A budget of less than a millionth of a millionth would be lost in the last bits.
    guard share > 0, share <= 1 - 1e-9 else {
      let isPercent = share > 1 && share < 100
      reporter.report(
        .badSlo, "an objective lies above 0% and below 100%", at: syntax.range,
        "this is \(numberText(share * 100))%",
        hint: isPercent
          ? "write `\(numberText(share))%`"
          : share == 1 ? "without an error budget there is nothing to burn: 99.999% leaves 26 s a month" : nil)
      return nil
    }
    return share
  }

  private func step(_ slo: SloSyntax, _ pipeline: Pipeline) -> Int64? {
    let bounds = SloLimits.stepNanos
    if let window = pipeline.windowing?.window {
      let hop = durationText(Double(window.hopNanos))
      if let syntax = slo.step {
        guard let step = duration(syntax, "the time between evaluations", code: .badSlo, in: bounds) else { return nil }
        if step != window.hopNanos {
          reporter.report(
            .badSlo, "this slo is evaluated each \(hop), when a window of `\(pipeline.scope.owner)` ends", at: syntax.range,
            hint: "leave `every` out")
          return nil
        }
      }
      guard bounds.contains(window.hopNanos) else {
        reporter.report(
          .badSlo, "the windows of `\(pipeline.scope.owner)` end each \(hop)", at: slo.seen[.on] ?? slo.name.range,
          hint: "an slo is evaluated each \(durationText(Double(bounds.lowerBound))) to "
            + durationText(Double(bounds.upperBound)))
        return nil
      }
      return window.hopNanos
    }
    guard let syntax = slo.step else { return SloLimits.stepNanosDefault }
    return duration(syntax, "the time between evaluations", code: .badSlo, in: bounds)
  }

  private func period(_ slo: SloSyntax, step: Int64?) -> SloPeriod? {
    switch slo.period {
    case .rolling(let syntax)?:
      let nanos = duration(
        syntax, "a rolling objective's period", code: .badSlo,
        in: SloLimits.stepNanos.lowerBound...SloLimits.periodNanosMax)
      guard let nanos, let step else { return nil }
      guard nanos >= step, nanos % step == 0 else {
        reporter.report(
          .badSlo, "the period is no multiple of the time between evaluations, \(durationText(Double(step)))",
          at: syntax.range)
        return nil
      }
      return .rolling(nanos: nanos)
    case .calendar(let name)?:
      guard let calendar = SloCalendar(rawValue: name.text) else {
        let words = SloCalendar.allCases.map(\.rawValue)
        reporter.report(
          .badSlo, "there is no period `\(name.text)`", at: name.range,
          hint: reporter.closest(to: name.text, among: words).map { "did you mean `\($0)`?" }
            ?? "a length such as 30d, or \(words.joined(separator: ", "))")
        return nil
      }
      if let step, Self.dayNanos % step != 0 {
        reporter.report(
          .badSlo, "a day is no multiple of the time between evaluations, \(durationText(Double(step)))", at: name.range,
          hint: "calendar periods begin at midnight (UTC)")
        return nil
      }
      return .calendar(calendar)
    case nil: return nil
    }
  }

  private func minEvents(_ syntax: ExprSyntax) -> Int64? {
    guard let checked = expressions.check(syntax, in: .constant) else { return nil }
    guard case .int(let count)? = checked.constant, (0...1_000_000_000_000).contains(count) else {
      reporter.report(
        .badSlo, "`min_events` is a whole number", at: syntax.range,
        hint: "a burn condition holds only with so many events in its longest window")
      return nil
    }
    return count
  }

  // MARK: Burn conditions

  private func burns(
    _ slo: SloSyntax, step: Int64?, period: SloPeriod?, objective: Double?
  ) -> [CheckedBurn]? {
    var burns: [CheckedBurn] = []
    var isGood = slo.seen[.burn] == nil || !slo.burns.isEmpty
    for burn in slo.burns {
      if !Self.severities.contains(burn.severity.text) {
        reporter.report(
          .unknownSeverity, "unknown severity `\(burn.severity.text)`", at: burn.severity.range,
          hint: reporter.closest(to: burn.severity.text, among: Self.severities).map { "did you mean `\($0)`?" }
            ?? "severities: \(Self.severities.joined(separator: ", "))")
        isGood = false
      }
      var conditions: [CheckedBurn.Condition] = []
      for syntax in burn.conditions {
        guard let condition = self.condition(syntax, step: step, period: period, objective: objective) else {
          isGood = false
          continue
        }
        conditions.append(condition)
      }
      if let known = burns.firstIndex(where: { $0.severity == burn.severity.text }) {
        burns[known].conditions += conditions
        burns[known].text += " or \(burn.text)"
      } else {
        burns.append(CheckedBurn(severity: burn.severity.text, conditions: conditions, text: burn.text))
      }
    }
    for burn in burns where burn.conditions.count > SloLimits.conditionsMax {
      reporter.report(
        .badBurn, "`\(burn.severity)` has \(burn.conditions.count) burn conditions, and at most \(SloLimits.conditionsMax) are taken",
        at: slo.seen[.burn] ?? slo.name.range)
      isGood = false
    }
    guard isGood, let step, let period, let objective else { return nil }
    if !slo.burns.isEmpty { return burns }
    return workbookBurns(slo, step: step, period: period, objective: objective)
  }

  /// The conditions of the workbook's table that this SLO can have.
  private func workbookBurns(
    _ slo: SloSyntax, step: Int64, period: SloPeriod, objective: Double
  ) -> [CheckedBurn]? {
    var burns: [CheckedBurn] = []
    for row in Self.workbook where fits(row.long, step: step, period: period) && row.short % step == 0 {
      let text =
        "rate > \(numberText(row.rate)) over \(durationText(Double(row.long))) and \(durationText(Double(row.short)))"
      let condition = CheckedBurn.Condition(isInclusive: false, rate: row.rate, windows: [row.long, row.short])
      if !isReachable(row.rate, objective) {
        reporter.report(
          .neverTrue, "`\(text)` can never hold", at: slo.objective?.range ?? slo.name.range,
          "a total outage burns at \(numberText((1 / sloBudget(objective) * 100).rounded() / 100))",
          hint: "write `burn \(row.severity) when …` with rates of your own; without `burn`, those of the SRE workbook hold")
      }
      if let known = burns.firstIndex(where: { $0.severity == row.severity }) {
        burns[known].conditions.append(condition)
        burns[known].text += " or \(text)"
      } else {
        burns.append(CheckedBurn(severity: row.severity, conditions: [condition], text: text))
      }
    }
    guard burns.isEmpty else { return burns }
    reporter.report(
      .badBurn, "none of the SRE workbook's burn windows fits this slo", at: slo.name.range,
      hint: "write `burn page when rate > 14.4 over 1h and 5m` with windows of your own")
    return nil
  }

  private func fits(_ window: Int64, step: Int64, period: SloPeriod) -> Bool {
    if window < step || window % step != 0 || window / step > SloLimits.stepsMax { return false }
    if case .rolling(let nanos) = period { return window <= nanos }
    return true
  }

  private func isReachable(_ rate: Double, _ objective: Double) -> Bool { rate * sloBudget(objective) < 1 }

  private func condition(
    _ syntax: BurnSyntax.Condition, step: Int64?, period: SloPeriod?, objective: Double?
  ) -> CheckedBurn.Condition? {
    var isGood = true
    var windows: [Int64] = []
    for place in syntax.windows {
      let bounds = SloLimits.stepNanos.lowerBound...SloLimits.periodNanosMax
      guard let window = duration(place, "a burn window", code: .badBurn, in: bounds) else {
        isGood = false
        continue
      }
      if let step, let period, !fits(window, step: step, period: period) {
        isGood = false
        report(window, at: place.range, step: step, period: period)
      }
      if windows.contains(window) {
        isGood = false
        reporter.report(.badBurn, "a burn condition has this window twice", at: place.range, hint: "leave it out")
      }
      windows.append(window)
    }
    if windows.count > SloLimits.windowsMax {
      isGood = false
      reporter.report(
        .badBurn, "a burn condition has at most \(SloLimits.windowsMax) windows", at: syntax.range)
    }
    guard let checked = expressions.check(syntax.rate, in: .constant) else { return nil }
    var rate: Double?
    switch checked.constant {
    case .int(let value)?: rate = Double(value)
    case .float(let value)?: rate = value
    default: break
    }
    guard let rate, rate > 0, rate <= 1e9 else {
      reporter.report(
        .badBurn, "a burn rate is a number above 0", at: syntax.rate.range,
        hint: "1 spends the budget in exactly the objective's period, 14.4 spends 2% of 30 days in an hour")
      return nil
    }
    if let objective, !(syntax.isInclusive ? rate * sloBudget(objective) <= 1 : isReachable(rate, objective)) {
      reporter.report(
        .neverTrue, "this can never hold", at: syntax.rate.range,
        "a total outage burns at \(numberText((1 / sloBudget(objective) * 100).rounded() / 100))",
        hint: "ask for less")
    }
    let minEvents = syntax.minEvents.map(self.minEvents)
    if case .some(nil) = minEvents { return nil }
    return isGood
      ? CheckedBurn.Condition(isInclusive: syntax.isInclusive, rate: rate, windows: windows, minEvents: minEvents ?? nil) : nil
  }

  private func report(_ window: Int64, at range: TextRange, step: Int64, period: SloPeriod) {
    let stepText = durationText(Double(step))
    if window < step || window % step != 0 {
      return reporter.report(
        .badBurn, "a burn window is a multiple of the time between evaluations, \(stepText)", at: range)
    }
    if window / step > SloLimits.stepsMax {
      return reporter.report(
        .badBurn, "this window holds \(window / step) evaluations, and at most \(SloLimits.stepsMax) are kept", at: range,
        hint: "evaluate less often than every \(stepText), or take a shorter window")
    }
    reporter.report(.badBurn, "this window is longer than the objective's period, \(period.text)", at: range)
  }

  // MARK: Alerts

  /// The alerts that an SLO fires: one a severity and key.
  mutating func checkBurns(_ syntax: SloSyntax, at index: Int) {
    guard let info = streamInfos[index] else { return }
    var scope = info.scope
    if slos[index] == nil { scope.isOpen = true }
    let keys = info.windowing?.keyColumns ?? []
    let labels = templates(syntax.labels, "label", in: scope) { expression, place in
      if slos[index] != nil { checkLabel(expression, place, keys: keys, scope: info.scope) }
    }
    for label in syntax.labels {
      if let column = scope.index(of: label.name.text), keys.contains(column) {
        reporter.report(
          .duplicateName, "the label `\(label.name.text)` is a key of the slo already", at: label.name.range,
          hint: "keys label every alert; choose another name")
      }
    }
    let annotations = templates(syntax.annotations, "annotation", in: scope) { _, _ in }
    guard let slo = slos[index] else { return }
    let place = slo.typed.outputs
    func column(_ wanted: SloColumn) -> Int { slo.keyCount + (place.firstIndex(of: wanted) ?? 0) }
    for burn in slo.burns {
      let conditions = burn.conditions.map { condition($0, minEvents: slo.minEvents, column) }
      let windows = Set(burn.conditions.flatMap(\.windows)).sorted(by: >)
      let evidence = windows.map { column(.burn(nanos: $0)) }
        + [SloColumn.errorRatio, .budgetLeft, .exhaustsIn, .good, .total].map(column)
      program.alerts.append(
        TypedAlert(
          name: syntax.name.text, origin: reporter.place(syntax.name.range), stream: streamPlaces[index],
          condition: Self.folded(.or, conditions), conditionText: burn.text, forNanos: 0, keepFiringNanos: 0,
          severity: burn.severity, labels: labels, annotations: annotations,
          burn: TypedBurn(windowNanos: burn.conditions[0].windows.max() ?? slo.typed.stepNanos, evidence: evidence)))
    }
  }

  private func condition(
    _ condition: CheckedBurn.Condition, minEvents: Int64, _ column: (SloColumn) -> Int
  ) -> TypedExpr {
    var parts = condition.windows.map { window -> TypedExpr in
      .compare(
        condition.isInclusive ? .greaterOrEqual : .greater, .column(column(.burn(nanos: window)), .float),
        .constant(.float(condition.rate), .float))
    }
    let minEvents = condition.minEvents ?? minEvents
    if minEvents > 0, let longest = condition.windows.max() {
      parts.append(
        .compare(
          .greaterOrEqual, .column(column(.events(nanos: longest)), .float), .constant(.float(Double(minEvents)), .float)))
    }
    return Self.folded(.and, parts)
  }

  private static func folded(_ operation: LogicalOperator, _ parts: [TypedExpr]) -> TypedExpr {
    parts.dropFirst().reduce(parts[0]) { .logical(operation, $0, $1) }
  }
}
