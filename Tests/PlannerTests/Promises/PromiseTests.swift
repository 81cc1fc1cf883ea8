import Foundation
import Planner
import RuleLang
import Runtime
import Testing

/// What `rulesd plan` promises is what happens. Every change under `Changes`, in both directions, and with the rules left as
/// they are: the old rules run over rows, a checkpoint is taken, the new ones take over (in the running daemon, or in one
/// that starts from the checkpoint with another number of workers), and go on over more rows. Each operator's state and
/// each rule's output is then compared with what the plan says about it:
///
/// - what is kept: as if the new rules had always been there, byte for byte where the rule did not change;
/// - windows that begin again: nothing until the first whole one, which comes within the gap that the plan names, and from
///   then on as if they had always been there;
/// - alerts, burn alerts among them: the reports of a slow reference (`PromisedAlert`) that is kept, or starts empty, as the
///   plan says;
/// - alerts that groups, inhibitions and maintenance decide of: what another slow reference tells (`PromisedTelling`);
/// - detectors, anomalies and budgets that begin anew: as if the rows had begun with the first whole window;
/// - what is gone: silence.
@Suite struct PromiseTests {
  /// What was seen of all changes together; a test in which nothing is at stake proves nothing.
  struct Seen: Sendable {
    var changes = 0
    var problems: [String] = []
    var happened: [String: Int] = [:]
    mutating func note(_ what: String, _ count: Int = 1) { happened[what, default: 0] += count }
  }

  @Test func whatPlanPromisesHappens() async {
    let total = await withTaskGroup(of: Seen.self) { group in
      for (number, name) in ChangeCaseTests.names.enumerated() {
        for isReversed in [false, true] {
          group.addTask {
            var seen = Seen()
            do {
              let given = try ChangeCaseTests.Case(name)
              let (old, new) = isReversed ? (given.new, given.old) : (given.old, given.new)
              try PromisedChange(old, new, seed: UInt64(number * 2 + (isReversed ? 1 : 0))).check(&seen)
            } catch {
              seen.problems.append("\(error)")
            }
            seen.problems = seen.problems.map { "\(name)\(isReversed ? ", reversed" : ""): \($0)" }
            return seen
          }
        }
      }
      var total = Seen()
      for await seen in group {
        total.changes += seen.changes
        total.problems += seen.problems
        total.happened.merge(seen.happened, uniquingKeysWith: +)
      }
      return total
    }
    for problem in total.problems.sorted() { Issue.record("\(problem)") }
    print("\(total.changes) changes: \(total.happened.sorted { $0.key < $1.key })")
    for fate in RuleSetChange.OperatorFate.allCases {
      #expect((total.happened["operators \(fate.rawValue)"] ?? 0) > 0, "no operator with state was \(fate.rawValue)")
    }
    for what in ["metrics that go on", "metrics that begin again", "alerts that go on", "alerts that start anew",
      "alerts active at the change, kept", "alerts active at the change, not kept", "burn alerts that go on",
      "groups that go on", "groups that begin anew",
      "groups' records", "slo rules that a past would have changed", "anomaly rules that a past would have changed"]
    {
      #expect((total.happened[what] ?? 0) > 0, "none: \(what)")
    }
  }
}

/// One change and all that was promised of it.
struct PromisedChange {
  private let old: TypedProgram
  private let new: TypedProgram
  private let change: RuleSetChange
  private let input: PromiseInput
  /// What the new rules write that were always there.
  private let always: [WrittenRecord]
  /// What alerts report without `for` and `keep_firing`, and each by itself.
  private let oldTruth: [WrittenRecord]
  private let newTruth: [WrittenRecord]
  /// Rules over sources that nobody read before.
  private let freshRules: Set<String>

  init(_ old: TypedProgram, _ new: TypedProgram, seed: UInt64) throws {
    self.old = old
    self.new = new
    change = RuleSetChange(from: old, to: new)
    input = PromiseInput(old, new, seed: seed)
    always = try PromiseWorld.output(new, input)
    oldTruth = try PromiseWorld.output(Self.bare(old), input)
    newTruth = try PromiseWorld.output(Self.bare(new), input)
    let read = Set(PromiseWorld.rules(old, "").graph.sources.map(\.schema.name))
    let now = PromiseWorld.rules(new, "").graph.sources.map(\.schema.name)
    // A rule of which the plan says that it reads another source; and all, where all sources are others.
    freshRules =
      now.contains(where: read.contains)
      ? Set(change.rules.filter { $0.differences.contains { $0.hasPrefix("source: ") } }.map(\.name))
      : Set(change.rules.filter { $0.fate != .removed }.map(\.name))
  }

  private static func bare(_ program: TypedProgram) -> TypedProgram {
    var program = program
    for index in program.alerts.indices {
      program.alerts[index].forNanos = 0
      program.alerts[index].keepFiringNanos = 0
      program.alerts[index].escalations = []
      program.alerts[index].repeatNanos = 0
    }
    program.groups = []
    program.inhibitions = []
    program.maintenances = []
    return program
  }

  func check(_ seen: inout PromiseTests.Seen) throws {
    for way in PromiseWorld.Way.allCases {
      let world = PromiseWorld(input)
      let oldRules = PromiseWorld.rules(old, "old")
      try world.start(oldRules, workers: 2)
      var before: PromiseWorld.Kept = [:]
      if !oldRules.graph.sources.isEmpty {
        try world.feed(all: false)
        before = try world.checkpoint()
      }
      let written = try world.output()
      try world.change(to: PromiseWorld.rules(new, "new"), way, workers: way == .reload ? 2 : 3)
      let after = try world.checkpoint()
      try world.feed(all: true)
      try world.finish()
      let output = try world.output()
      guard output.starts(with: written) else { throw SourceFailure("\(way): what was written has changed") }
      seen.changes += 1
      var problems: [String] = []
      checkOperators(before, after, &problems, &seen)
      checkRules(Array(output.dropFirst(written.count)), &problems, &seen)
      seen.problems += problems.map { "\(way.rawValue): \($0)" }
    }
  }

  // MARK: Operators

  private func checkOperators(
    _ before: PromiseWorld.Kept, _ after: PromiseWorld.Kept, _ problems: inout [String],
    _ seen: inout PromiseTests.Seen
  ) {
    for part in change.operators {
      func claim(_ holds: Bool, _ what: String) {
        if !holds { problems.append("\(part.id) is to be \(part.fate.rawValue), but \(what)") }
      }
      let had = before[part.replaces ?? part.id] ?? 0
      switch part.fate {
      case .kept, .partlyKept:
        // What a router knows the alerts know as well: those that nothing ties any more leave it.
        claim(had == 0 || part.kind == "router" || (after[part.id] ?? 0) > 0, "its \(had) keys are gone")
      case .rebuilt, .new:
        claim(before[part.id] == nil, "it was there before")
        let keys = after[part.id] ?? 0
        claim(keys == 0 || !isKnown(part), "it has \(keys) keys before it has seen a row")
      case .dropped:
        claim(after[part.id] == nil, "is in the checkpoint behind it")
      }
      if had > 0 || part.fate == .new { seen.note("operators \(part.fate.rawValue)") }
    }
    let told = Set(change.operators.map(\.id) + change.operators.compactMap(\.replaces))
    // Beside operators: what partitions and shards keep of their own.
    let others = Set(after.keys).subtracting(told).filter { $0.contains(":") && !$0.hasPrefix("shard:") }
    if !others.isEmpty { problems.append("state of which the plan says nothing: \(others.sorted())") }
  }

  /// Whether the source of an operator was read before. One that was not is read from its topic's beginning.
  private func isKnown(_ part: RuleSetChange.Operator) -> Bool { !part.rules.contains { freshRules.contains($0) } }

  // MARK: Rules

  private func checkRules(
    _ output: [WrittenRecord], _ problems: inout [String], _ seen: inout PromiseTests.Seen
  ) {
    let names = Set(change.rules.filter { $0.fate != .removed }.map(\.name))
    if let ghost = output.first(where: { !names.contains($0.rule) }) { problems.append("a rule that is gone: \(ghost.line)") }
    for rule in change.rules where rule.fate != .removed {
      let own = output.filter { $0.rule == rule.name }
      let windows = change.operators.flatMap(\.windows).filter { $0.rules.contains(rule.name) }
      var failures: [String] = []
      if freshRules.contains(rule.name) {
        let due = always.filter { $0.rule == rule.name }.map(\.line)
        if Set(own.map(\.line)) != Set(due) { problems.append("\(rule.name): a source that is new is not read from its beginning") }
        seen.note("rules over a source that is new")
        continue
      }
      let alerts = new.alerts.filter { $0.name == rule.name }
      if isTied, !alerts.isEmpty || rule.kind == "group" {
        // All together, below.
      } else if beginsAnew(rule) {
        checkBeginning(rule, own, windows, &failures, &seen)
      } else if alerts.isEmpty {
        checkMetric(rule, own, windows, &failures, &seen)
      } else {
        for alert in alerts { checkAlert(alert, rule, own, windows, &failures, &seen) }
      }
      problems += failures.map { "\(rule.kind) \(rule.name): \($0)" }
    }
    if isTied { checkTelling(output, &problems, &seen) }
  }

  // MARK: Alerts that others decide of

  private var isTied: Bool {
    [old, new].contains { !$0.groups.isEmpty || !$0.inhibitions.isEmpty || !$0.maintenances.isEmpty }
  }

  /// All that alerts and groups write is what the reference says that goes on with what the plan promises to keep.
  private func checkTelling(_ output: [WrittenRecord], _ problems: inout [String], _ seen: inout PromiseTests.Seen) {
    let windows = change.operators.flatMap(\.windows)
    guard let hop = windows.map(\.hopNanos).min(), windows.allSatisfy({ $0.hopNanos == hop && $0.start == .goesOn }) else {
      return problems.append("the reference takes alerts of one hop, whose windows go on")
    }
    func truths(_ program: TypedProgram, _ records: [WrittenRecord]) -> [String: PromisedAlert.Truth] {
      var truths: [String: PromisedAlert.Truth] = [:]
      for alert in program.alerts {
        truths[PromisedTelling.id(alert)] = PromisedAlert.Truth(
          records.filter { $0.rule == alert.name && (alert.burn == nil || $0.severity == alert.severity) }.map {
            PromisedAlert.Report(time: $0.time, state: $0.state, labels: $0.labels)
          })
      }
      return truths
    }
    let (past, future) = (truths(old, oldTruth), truths(new, newTruth))
    let first = (barrier / hop + 1) * hop
    var telling = PromisedTelling(old)
    for time in stride(from: PromiseInput.start / hop * hop, to: first, by: Int64.Stride(hop)) {
      _ = telling.evaluate(at: time) { past[PromisedTelling.id($0)]?.at(time) ?? [] }
    }
    let kept = change.operators.filter { $0.fate == .kept }
    let alerts = new.alerts.filter { alert in
      kept.contains {
        $0.rules == [alert.name]
          && $0.id.hasPrefix(alert.burn == nil ? "alert:\(alert.name):" : "burn:\(alert.name).\(alert.severity):")
      }
    }
    let groups = new.groups.filter { group in kept.contains { $0.id.hasPrefix("group:\(group.name):") } }.map(\.name)
    telling.adopt(new, alerts: Set(alerts.map(PromisedTelling.id)), groups: Set(groups))
    var due: [PromisedTelling.Told] = []
    let end = future.values.compactMap(\.last).max() ?? first
    for time in stride(from: first, through: end + 4 * 3_600_000_000_000, by: Int64.Stride(hop)) {
      due += telling.evaluate(at: time) { future[PromisedTelling.id($0)]?.at(time) ?? [] }
    }
    do {
      let rules = Set(new.alerts.map(\.name) + new.groups.map(\.name))
      let told = try output.filter { rules.contains($0.rule) && ["alert", "slo"].contains($0.kind) }.map { try PromisedTelling.Told($0) }
      for rule in rules.sorted() {
        let (wanted, got) = (due.filter { $0.rule == rule }.sorted(), told.filter { $0.rule == rule }.sorted())
        if wanted == got {
          seen.note("told of as promised", got.count)
          seen.note(new.groups.contains { $0.name == rule } ? "groups' records" : "records of alerts that others decide of", got.count)
          continue
        }
        let wrong = zip(wanted, got).first { $0 != $1 }
        problems.append(
          "\(rule): expected \(wrong.map { "\($0.0)" } ?? "\(wanted.count) records"), got \(wrong.map { "\($0.1)" } ?? "\(got.count)")")
      }
    } catch { problems.append("\(error)") }
    for group in new.groups where old.groups.contains(where: { $0.name == group.name }) {
      seen.note("groups that \(groups.contains(group.name) ? "go on" : "begin anew")")
    }
  }

  /// Event time up to which every window had been written before the change.
  private var barrier: Int64 {
    var newest: [SimulatedPlace: Int64] = [:]
    for record in input.records.prefix(input.cut) { newest[record.place] = max(newest[record.place] ?? 0, record.time) }
    let bound = old.sources.map(\.time.boundNanos).max() ?? 0
    return (newest.values.min() ?? PromiseInput.start) - bound
  }

  private func isWhole(_ windows: [RuleSetChange.Window]) -> Bool { windows.allSatisfy { $0.start == .goesOn } }

  /// Whether what a rule has learnt or counted over windows is gone: a detector's baseline, an open anomaly, an slo's counts.
  private func beginsAnew(_ rule: RuleSetChange.Rule) -> Bool {
    change.operators.contains {
      $0.rules.contains(rule.name) && ["detector", "anomaly", "slo"].contains($0.kind) && ![.kept, .dropped].contains($0.fate)
    }
  }

  /// It writes what the new rules write over rows that begin with the first whole window, byte for byte.
  private func checkBeginning(
    _ rule: RuleSetChange.Rule, _ own: [WrittenRecord], _ windows: [RuleSetChange.Window], _ failures: inout [String],
    _ seen: inout PromiseTests.Seen
  ) {
    guard let hop = windows.map(\.hopNanos).min() else { return failures.append("the plan names no windows for it") }
    seen.note("\(rule.kind) rules that begin anew")
    if own.isEmpty { failures.append("nothing is ever written") }
    var nearest: String?
    for waking in wakings(windows, hop: hop) {
      guard let all = try? PromiseWorld.output(new, input.from(waking - hop)) else {
        return failures.append("the new rules alone fail")
      }
      let due = all.filter { $0.rule == rule.name }.map(\.line)
      guard let other = Set(due).symmetricDifference(own.map(\.line)).min() ?? (due.count == own.count ? nil : "twice") else {
        if Set(due) != Set(always.filter { $0.rule == rule.name && $0.time > barrier }.map(\.line)) {
          seen.note("\(rule.kind) rules that a past would have changed")
        }
        return
      }
      nearest = nearest ?? other
    }
    failures.append("not as if it had begun at the change: \(nearest ?? "")")
  }

  /// The ends of windows of which one is the first that is evaluated.
  private func wakings(_ windows: [RuleSetChange.Window], hop: Int64) -> [Int64] {
    let first = (barrier / hop + 1) * hop
    if isWhole(windows) { return [first] }
    return Array(stride(from: first, through: input.front + (windows.map(\.gapNanos).max() ?? 0), by: Int64.Stride(hop)))
  }

  private func checkMetric(
    _ rule: RuleSetChange.Rule, _ own: [WrittenRecord], _ windows: [RuleSetChange.Window], _ failures: inout [String],
    _ seen: inout PromiseTests.Seen
  ) {
    let all = always.filter { $0.rule == rule.name }
    let known = Set(all.map(\.line))
    let operators = change.operators.filter { $0.rules.contains(rule.name) }
    if rule.kind == "pattern", operators.contains(where: { $0.fate != .kept }) {
      // Learnt anew: what was new once is new once more, under the same name.
      let labels = Set(all.map(\.labels))
      if let wrong = own.first(where: { !labels.contains($0.labels) || $0.time <= barrier }) {
        failures.append("no pattern of these lines: \(wrong.line)")
      }
      seen.note("patterns that are learnt anew")
      return
    }
    if let wrong = own.first(where: { !known.contains($0.line) }) { failures.append("never to be written: \(wrong.line)") }
    if Set(own.map(\.line)).count != own.count { failures.append("a record comes twice") }
    let since: Int64
    if isWhole(windows), operators.allSatisfy({ $0.fate == .kept || $0.fate == .partlyKept }) {
      since = barrier + 1
      seen.note("metrics that go on")
    } else {
      // From the first that comes on all come; and it comes in time.
      since = min(own.map(\.time).min() ?? .max, input.front + (windows.map(\.gapNanos).max() ?? 0))
      seen.note("metrics that begin again")
    }
    let there = Set(own.map(\.line))
    if let missing = all.first(where: { $0.time >= since && !there.contains($0.line) }) {
      failures.append("missing, since \(since): \(missing.line)")
    }
    if all.isEmpty { failures.append("nothing is ever written") }
  }

  private func checkAlert(
    _ alert: TypedAlert, _ rule: RuleSetChange.Rule, _ own: [WrittenRecord], _ windows: [RuleSetChange.Window],
    _ failures: inout [String], _ seen: inout PromiseTests.Seen
  ) {
    let isBurn = alert.burn != nil
    let before = old.alerts.first { $0.name == alert.name && (!isBurn || $0.severity == alert.severity) }
    // Label sets go by the keys: what rules add to them may change under an alert that stays.
    let added = Set((alert.labels + (before?.labels ?? [])).map(\.name))
    func reports(_ records: [WrittenRecord]) -> [PromisedAlert.Report] {
      records.filter {
        $0.rule == alert.name && $0.kind == (isBurn ? "slo" : "alert") && (!isBurn || $0.severity == alert.severity)
      }.map { record in
        PromisedAlert.Report(
          time: record.time, state: record.state,
          labels: record.labels.filter { label in !added.contains { label.hasPrefix("\($0)=") } })
      }
    }
    let truth = PromisedAlert.Truth(reports(newTruth))
    guard let size = (newTruth + oldTruth).first(where: { $0.rule == alert.name })?.windowNanos, truth.first != nil else {
      failures.append("its condition is never true")
      return
    }
    // A burn alert's record shows its burn window.
    guard let hop = isBurn ? windows.map(\.hopNanos).min() : windows.first(where: { $0.sizeNanos == size })?.hopNanos else {
      failures.append("the plan names no window of \(size) ns for it")
      return
    }
    let isKept = change.operators.contains {
      $0.kind == "alert" && $0.rules == [alert.name] && $0.fate == .kept
        && (!isBurn || $0.id.hasPrefix("burn:\(alert.name).\(alert.severity):"))
    }
    let gap = windows.map(\.gapNanos).max() ?? 0
    let wakings = wakings(windows, hop: hop)
    let first = wakings[0]
    let got = reports(own).sorted()
    var nearest: [PromisedAlert.Report] = []
    for waking in wakings {
      var promised = PromisedAlert(before ?? alert)
      if isKept {
        let past = PromisedAlert.Truth(reports(oldTruth))
        for time in stride(from: PromiseInput.start / hop * hop, to: first, by: Int64.Stride(hop)) {
          _ = promised.evaluate(at: time, past.at(time))
        }
      }
      if waking == first {
        seen.note(isKept ? "alerts that go on" : "alerts that start anew")
        if isBurn { seen.note(isKept ? "burn alerts that go on" : "burn alerts that start anew") }
        var had = PromisedAlert(before ?? alert)
        let past = PromisedAlert.Truth(reports(oldTruth))
        for time in stride(from: PromiseInput.start / hop * hop, to: first, by: Int64.Stride(hop)) {
          _ = had.evaluate(at: time, past.at(time))
        }
        if before != nil, had.isAnyActive { seen.note("alerts active at the change, \(isKept ? "" : "not ")kept") }
      }
      promised.adopt(alert)
      if waking > first { promised.skip() }
      var expected: [PromisedAlert.Report] = []
      for time in stride(from: waking, through: (truth.last ?? first) + 3_600_000_000_000, by: Int64.Stride(hop)) {
        expected += promised.evaluate(at: time, truth.at(time))
      }
      expected.sort()
      if expected == got {
        if isKept, isWhole(windows), rule.fate == .unchanged { checkBytes(own, &failures) }
        return
      }
      if nearest.isEmpty { nearest = expected }
    }
    let wrong = zip(nearest, got).first { $0 != $1 }
    failures.append(
      "reports are not those of one that \(isKept ? "goes on" : "starts anew") within \(gap) ns of \(input.front): "
        + "expected \(wrong.map { "\($0.0)" } ?? "\(nearest.count) reports"), got \(wrong.map { "\($0.1)" } ?? "\(got.count)")")
  }

  /// An alert that nothing has happened to writes what it would have written.
  private func checkBytes(_ own: [WrittenRecord], _ failures: inout [String]) {
    guard let name = own.first?.rule else { return }
    let due = Set(always.filter { $0.rule == name && $0.time > barrier }.map(\.line))
    if let other = due.symmetricDifference(own.map(\.line)).min() { failures.append("other bytes: \(other)") }
  }
}
