import Catalog

/// `escalate`, `repeat`, `group`, `inhibit` and `maintenance`.
extension Checker {
  private static let alertsListedDefault: Int64 = 100
  private static let alertsListedMax: Int64 = 1_000

  // MARK: Alerts

  /// An alert's escalations, in order.
  func escalations(_ alert: AlertSyntax) -> [TypedEscalation] {
    var steps: [TypedEscalation] = []
    var last = (severity: alert.severity?.text ?? "ticket", after: Int64(0))
    for step in alert.escalations {
      let nanos = duration(step.after, "`after`", code: .badDuration, in: Self.secondNanos...Self.waitNanosMax)
      guard let rank = Self.severities.firstIndex(of: step.severity.text) else {
        unknownSeverity(step.severity)
        continue
      }
      if let before = Self.severities.firstIndex(of: last.severity), rank >= before {
        reporter.report(
          .badEscalation, "`\(step.severity.text)` is no worse than `\(last.severity)`", at: step.severity.range,
          "escalations raise the severity",
          hint: before == 0
            ? "`\(last.severity)` is the highest; begin with a lower `severity`"
            : "worse than `\(last.severity)`: \(Self.severities[..<before].joined(separator: ", "))")
      }
      guard let nanos else { continue }
      if nanos <= last.after {
        reporter.report(
          .badEscalation, "this escalation is due no later than the one before", at: step.after.range,
          hint: "`after` counts from when the alert fires; the one before is due after \(durationText(Double(last.after)))")
      }
      last = (step.severity.text, nanos)
      steps.append(TypedEscalation(severity: step.severity.text, afterNanos: nanos))
    }
    return steps
  }

  func unknownSeverity(_ name: NameSyntax) {
    reporter.report(
      .unknownSeverity, "unknown severity `\(name.text)`", at: name.range,
      hint: reporter.closest(to: name.text, among: Self.severities).map { "did you mean `\($0)`?" }
        ?? "severities: \(Self.severities.joined(separator: ", "))")
  }

  /// How long until a firing alert or group is told of again; 0 for never.
  func repeatNanos(_ syntax: ExprSyntax?) -> Int64 {
    syntax.flatMap { duration($0, "`repeat`", code: .badDuration, in: Self.secondNanos...Self.waitNanosMax) } ?? 0
  }

  // MARK: Between alerts

  /// After all alerts.
  mutating func checkNotifications() {
    checkUnique(syntax.alerts.map(\.name) + syntax.groups.map(\.name), "alert")
    checkUnique(syntax.maintenances.map(\.name), "maintenance window")
    for group in syntax.groups {
      if let slo = sloSyntax.first(where: { $0.name.text == group.name.text }) {
        duplicate(group.name, "rule", first: slo.name.range)
      }
    }
    var groupOf: [Int: NameSyntax] = [:]
    for group in syntax.groups { check(group, &groupOf) }
    for alert in syntax.alerts {
      guard var group = alert.group else { continue }
      if let again = alert.repeatEvery { group.options[.repeat] = again }
      check(group, &groupOf)
    }
    for case let group? in sloSyntax.map(\.group) { check(group, &groupOf) }
    checkInhibitions()
    checkMeetings()
    for maintenance in syntax.maintenances { check(maintenance) }
  }

  private var sloSyntax: [SloSyntax] {
    syntax.streams.compactMap { if case .slo(let slo)? = $0.stages.last { slo } else { nil } }
  }

  /// An alert by its name, or the burn alerts of an SLO, which are one for each severity and of one stream and labels. Places in
  /// the program.
  private struct NamedAlerts {
    var name: NameSyntax
    var first: Int
    var all: [Int]
  }

  /// Nil for one that is unknown, which is reported, and for one that has errors.
  private func alerts(_ names: [NameSyntax]) -> [NamedAlerts?] {
    let slos = sloSyntax
    return names.map { name in
      let isAlert = syntax.alerts.contains { $0.name.text == name.text }
      let slo = slos.first { $0.name.text == name.text }
      if isAlert, let slo {
        reporter.report(
          .badGrouping, "`\(name.text)` is an alert and an slo", at: name.range,
          context: [(slo.name.range, "the slo")], hint: "which of them is meant nobody can tell: rename one")
        return nil
      }
      if !isAlert, slo == nil {
        reporter.report(
          .badGrouping, "unknown alert `\(name.text)`", at: name.range,
          hint: reporter.closest(to: name.text, among: syntax.alerts.map(\.name.text) + slos.map(\.name.text)).map {
            "did you mean `\($0)`?"
          })
      }
      let found = program.alerts.indices.filter {
        program.alerts[$0].name == name.text && (program.alerts[$0].burn == nil) == isAlert
      }
      return found.first.map { NamedAlerts(name: name, first: $0, all: isAlert ? [$0] : found) }
    }
  }

  /// The labels of an alert's records.
  private func labels(of alert: Int) -> [String] {
    let stream = program.streams[program.alerts[alert].stream]
    return (stream.windowing?.keyColumns ?? []).map { stream.columns[$0].name } + program.alerts[alert].labels.map(\.name)
  }

  /// Whose event time an alert has: that of a source, or that of a join or trace and the stream it stands in.
  private enum Timeline: Hashable {
    case source(Int)
    case gathered(Int)
  }

  private func timeline(of alert: Int) -> Timeline {
    var stream = program.alerts[alert].stream
    while true {
      if program.streams[stream].stages.contains(where: \.isGathering) { return .gathered(stream) }
      switch program.streams[stream].input {
      case .source(let source): return .source(source)
      case .stream(let below): stream = below
      }
    }
  }

  /// Reports labels that an alert lacks.
  private func checkLabels(_ alerts: [NamedAlerts], _ names: [NameSyntax]) {
    for name in names {
      guard let lacking = alerts.first(where: { !labels(of: $0.first).contains(name.text) }) else { continue }
      let known = labels(of: lacking.first)
      reporter.report(
        .badGrouping, "`\(lacking.name.text)` has no label `\(name.text)`", at: name.range,
        hint: known.isEmpty
          ? "it has no labels"
          : reporter.closest(to: name.text, among: known).map { "did you mean `\($0)`?" }
            ?? "its labels: \(known.joined(separator: ", "))")
    }
  }

  /// Where alerts of several event times come together they have a time of their own, of which a commit has room for as many as
  /// of joins.
  private func checkMeetings() {
    var timelines = program.alerts.indices.map { [timeline(of: $0)] as Set }
    var leader = Array(program.alerts.indices)
    func find(_ alert: Int) -> Int { leader[alert] == alert ? alert : find(leader[alert]) }
    for tied in program.groups.map(\.alerts) + program.inhibitions.map({ $0.targets + $0.sources }) {
      for alert in tied.dropFirst() {
        let (from, to) = (find(alert), find(tied[0]))
        timelines[to].formUnion(timelines[from])
        leader[from] = to
      }
    }
    let meetings = Set(program.alerts.indices.filter { leader[$0] == $0 && timelines[$0].count > 1 }.map { timelines[$0] })
    guard meetings.count + gatherings > Self.gatheringsMax, let last = syntax.groups.last?.name.range ?? syntax.inhibitions.last?.range
    else { return }
    reporter.report(
      .badGrouping,
      "alerts of different sources come together in \(meetings.count) ways, and there are \(gatherings) stages that join or put "
        + "traces together: at most \(Self.gatheringsMax) in all", at: last,
      hint: "put alerts of the same sources into groups; those count once")
  }

  private func checkDistinct(_ names: [NameSyntax], _ what: String) {
    var seen: Set<String> = []
    for name in names where !seen.insert(name.text).inserted {
      reporter.report(.duplicateName, "the \(what) `\(name.text)` is given twice", at: name.range, hint: "leave it out")
    }
  }

  private mutating func check(_ group: GroupSyntax, _ groupOf: inout [Int: NameSyntax]) {
    let isOwn = group.seen[.alerts] == nil && group.alerts.count == 1
    if group.alerts.isEmpty, group.seen[.alerts] == nil {
      missing("alerts", of: "group", at: group.name, hint: "add `alerts SearchSlow, SearchErrors`")
    }
    checkDistinct(group.alerts, "alert")
    checkDistinct(group.by, "label")
    func option(_ word: Keyword, _ bounds: ClosedRange<Int64>, _ defaultNanos: Int64) -> Int64 {
      group.options[word].flatMap { duration($0, "`\(word.rawValue)`", code: .badDuration, in: bounds) } ?? defaultNanos
    }
    let day = 86_400 * Self.secondNanos
    let wait = option(.wait, 0...day, 30 * Self.secondNanos)
    let interval = option(.interval, Self.secondNanos...7 * day, 300 * Self.secondNanos)
    let again = repeatNanos(group.options[.repeat])
    var listed = Self.alertsListedDefault
    if let limit = group.options[.limit], let checked = expressions.check(limit, in: .constant) {
      if case .int(let number)? = checked.constant, (1...Self.alertsListedMax).contains(number) {
        listed = number
      } else {
        reporter.report(
          .badGrouping, "`limit` is how many alerts a record lists: 1 to \(Self.alertsListedMax)", at: limit.range)
      }
    }
    let members = alerts(group.alerts).compactMap { $0 }
    checkLabels(members, group.by)
    for member in members {
      if let other = groupOf[member.first] {
        reporter.report(
          .badGrouping, "`\(member.name.text)` is in a group already", at: member.name.range,
          context: [(other.range, "this one")], hint: "an alert is told of by one group")
      }
      groupOf[member.first] = group.name
      if !isOwn, let own = syntax.alerts.first(where: { $0.name.text == member.name.text })?.repeatEvery {
        reporter.report(
          .badGrouping, "`\(member.name.text)` is told of by the group `\(group.name.text)`, so its own `repeat` means nothing",
          at: own.range, context: [(member.name.range, "in the group here")], hint: "write `repeat` in the group")
      }
    }
    guard !members.isEmpty, members.count == group.alerts.count else { return }
    program.groups.append(
      TypedGroup(
        name: group.name.text, origin: reporter.place(group.name.range), alerts: members.flatMap(\.all),
        by: group.by.map(\.text), waitNanos: wait, intervalNanos: interval, repeatNanos: again, listedMax: Int(listed)))
  }

  // MARK: Inhibitions

  private mutating func checkInhibitions() {
    /// By alert, those that are silent while it fires.
    var silences: [Int: [Int]] = [:]
    func reaches(_ from: Int, _ to: Int) -> Bool {
      var open = [from]
      var seen: Set<Int> = []
      while let alert = open.popLast() {
        if alert == to { return true }
        if seen.insert(alert).inserted { open += silences[alert] ?? [] }
      }
      return false
    }
    for inhibition in syntax.inhibitions {
      let targets = alerts(inhibition.targets)
      let sources = alerts(inhibition.sources)
      checkDistinct(inhibition.targets, "alert")
      checkDistinct(inhibition.sources, "alert")
      checkDistinct(inhibition.equal, "label")
      let all = (targets + sources).compactMap { $0 }
      checkLabels(all, inhibition.equal)
      var isSound = all.count == targets.count + sources.count
      for case let source? in sources {
        for case let target? in targets {
          // The burn alerts of an slo go together: the first stands for all.
          if reaches(target.first, source.first) {
            isSound = false
            reporter.report(
              .badGrouping,
              target.first == source.first
                ? "`\(source.name.text)` would silence itself"
                : "`\(source.name.text)` and `\(target.name.text)` would silence each other", at: source.name.range,
              hint: "nobody would be told of either; name the alert that explains the others as the only source")
          } else {
            silences[source.first, default: []].append(target.first)
          }
        }
      }
      guard isSound else { continue }
      program.inhibitions.append(
        TypedInhibition(
          origin: reporter.place(inhibition.range), targets: targets.compactMap { $0 }.flatMap(\.all),
          sources: sources.compactMap { $0 }.flatMap(\.all), equal: inhibition.equal.map(\.text)))
    }
  }

  // MARK: Maintenance

  private mutating func check(_ maintenance: MaintenanceSyntax) {
    let found = alerts(maintenance.alerts)
    checkDistinct(maintenance.alerts, "alert")
    let concerned = maintenance.alerts.isEmpty ? Array(program.alerts.indices) : found.compactMap { $0 }.flatMap(\.all)
    let known = Set(concerned.flatMap { labels(of: $0) })
    for matcher in maintenance.matchers where !known.contains(matcher.label.text) && !reporter.hasErrors {
      reporter.report(
        .badMaintenance, "no alert that this concerns has a label `\(matcher.label.text)`", at: matcher.label.range,
        hint: reporter.closest(to: matcher.label.text, among: Array(known)).map { "did you mean `\($0)`?" }
          ?? (known.isEmpty ? nil : "labels: \(known.sorted().joined(separator: ", "))"))
    }
    guard let schedule = schedule(maintenance) else { return }
    program.maintenances.append(
      TypedMaintenance(
        name: maintenance.name.text, origin: reporter.place(maintenance.name.range), schedule: schedule, alerts: concerned,
        matchers: maintenance.matchers.map {
          LabelMatcher(label: $0.label.text, values: $0.values.map(\.text), isNegated: $0.isNegated)
        }))
  }

  private func schedule(_ maintenance: MaintenanceSyntax) -> MaintenanceSchedule? {
    if let every = maintenance.seen[.every] {
      if let other = maintenance.seen[.from] ?? maintenance.seen[.to] {
        reporter.report(
          .badMaintenance, "`\(maintenance.name.text)` is open either once or again and again", at: other,
          context: [(every, "again and again")], hint: "write two `maintenance` windows")
        return nil
      }
      return weekly(maintenance)
    }
    if let zone = maintenance.zone {
      reporter.report(
        .badMaintenance, "`zone` belongs to `every`", at: zone.range, hint: "timestamps say their offset: t\"2026-11-21T02:00:00+01:00\"")
    }
    guard maintenance.seen[.from] != nil, maintenance.seen[.to] != nil else {
      missing(
        maintenance.seen[.from] == nil ? "from" : "to", of: "maintenance", at: maintenance.name,
        hint: "add `from t\"…\" to t\"…\"`, or `every sunday 02:00 for 2h`")
      return nil
    }
    func moment(_ syntax: ExprSyntax?) -> Int64? {
      guard let syntax, let checked = expressions.check(syntax, in: .constant) else { return nil }
      if case .timestamp(let nanos)? = checked.constant { return nanos }
      reporter.report(
        .badMaintenance, "a timestamp is needed here", at: syntax.range, hint: "write t\"2026-11-21T02:00:00Z\"")
      return nil
    }
    guard let from = moment(maintenance.from), let until = moment(maintenance.until) else { return nil }
    guard until > from else {
      reporter.report(
        .badMaintenance, "`\(maintenance.name.text)` ends before it begins", at: maintenance.until?.range ?? maintenance.name.range)
      return nil
    }
    return .once(from: from, until: until)
  }

  private func weekly(_ maintenance: MaintenanceSyntax) -> MaintenanceSchedule? {
    var days: UInt8 = 0
    var isSound = true
    for day in maintenance.days {
      switch day.text {
      case "day": days = 0x7F
      case "weekday": days |= 0x1F
      case "weekend": days |= 0x60
      default:
        if let index = MaintenanceSchedule.dayNames.firstIndex(of: day.text) {
          days |= 1 << UInt8(index)
        } else {
          isSound = false
          let names = MaintenanceSchedule.dayNames + ["day", "weekday", "weekend"]
          reporter.report(
            .badMaintenance, "`\(day.text)` is no day", at: day.range,
            hint: reporter.closest(to: day.text, among: names).map { "did you mean `\($0)`?" }
              ?? "days: \(names.joined(separator: ", "))")
        }
      }
    }
    var zone = TimeZoneRules.utc
    if let name = maintenance.zone {
      if let loaded = TimeZoneRules.load(name.text) {
        zone = loaded
      } else {
        isSound = false
        reporter.report(
          .badMaintenance, "unknown time zone \"\(printable(String(name.text.prefix(60))))\"", at: name.range,
          hint: "names are those of the tz database, such as \"Europe/Berlin\"; it is in Debian's package tzdata")
      }
    }
    let minute = 60 * Self.secondNanos
    guard
      let length = maintenance.length.flatMap({
        duration($0, "a maintenance window", code: .badMaintenance, in: minute...7 * 1_440 * minute)
      }), isSound, days != 0
    else { return nil }
    return .weekly(.init(days: days, startSeconds: maintenance.start, lengthNanos: length, zone: zone))
  }
}
