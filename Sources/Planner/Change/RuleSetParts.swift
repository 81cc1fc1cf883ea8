import Catalog
import Operators
import RuleLang
import Runtime

/// A plan as comparing needs it: rules, sources and operators by name, each with what can be said of it.
struct RuleSetParts {
  struct Rule {
    var name: String
    var kind: String
    var facets: [Facet]
    /// The source that it reads in the end, and what of it the results depend on.
    var source: String
    var sourceFacets: [Facet]
  }

  struct Operator {
    var id: String
    var kind: String
    var title: String
    /// What its id is made of, but for what is below it.
    var facets: [Facet]
    /// What its id owes to windows below.
    var deepFacets: [Facet]
    var source: String
    /// What it owes to the source.
    var sourceFacets: [Facet]
    /// The operator whose windows it reads, which windows these are, and how far back they reach.
    var below: String?
    var belowSpec: WindowSpec?
    var upstreamNanos: Int64 = 0
    /// Of windows: how long their panes are.
    var paneNanos: Int64 = 0
    var level: Int
    var family: Int64
    var rules: Set<String>
    var states: [(id: String, function: String, text: String)]
    var windows: [Window]
  }

  struct Window {
    var spec: WindowSpec
    /// Aggregates that it gives, by `PaneAggregation.State.id`.
    var states: Set<String>
    var rules: Set<String>
    /// By rule, and by the id of each operator whose windows take its rows: the aggregates that it cannot do without.
    var needs: [String: Set<String>]
    /// Rules by operator over its rows.
    var above: [String: Set<String>]
  }

  var rules: [Rule] = []
  var rule: [String: Rule] = [:]
  var sources: [TypedSource] = []
  var operators: [Operator] = []
  var operatorWith: [String: Operator] = [:]

  init(_ plan: Plan) {
    for source in plan.sources {
      sources.append(source.definition)
      visit(source.root, source, SlotNames(source))
    }
    for router in plan.routers {
      let source = router.source.definition.name
      operators.append(
        Operator(
          id: router.operatorID, kind: "router", title: "router of alerts over \(router.sourceText)", facets: [], deepFacets: [],
          source: source, sourceFacets: [], below: nil, level: 0, family: 1, rules: [], states: [], windows: []))
      for group in router.groups { add(group, router) }
    }
    for rule in rules { self.rule[rule.name] = rule }
    for part in operators { operatorWith[part.id] = part }
  }

  private mutating func visit(_ rows: RowSetPlan, _ source: SourcePlan, _ names: SlotNames) {
    for consumer in rows.consumers {
      switch consumer {
      case .metric(let metric): add(metric, rows, source, names)
      case .alert(let alert): add(alert, rows, source, names)
      case .pattern(let pattern): add(pattern, rows, source, names)
      case .anomaly(let anomaly): add(anomaly, rows, source, names)
      case .detector(let detector):
        add(detector, source, names)
        visit(detector.rows, source, names)
      case .ordered(let ordered):
        add(ordered, source, names)
        visit(ordered.rows, source, SlotNames(ordered, over: names))
      case .gather(let gather, input: 0):
        add(gather, source)
        for output in gather.outputs where output.isRead { visit(output.rows, source, SlotNames(output)) }
      case .gather: break
      case .slo(let slo):
        add(slo, source, names)
        visit(slo.rows, source, SlotNames(slo, over: names))
      case .panes(let panes):
        add(panes, source, names)
        for window in panes.windows { visit(window.rows, source, SlotNames(window, over: names)) }
      }
    }
    for child in rows.children { visit(child.rows, source, names) }
  }

  private mutating func add(_ metric: MetricPlan, _ rows: RowSetPlan, _ source: SourcePlan, _ names: SlotNames) {
    let slots = metric.labels + [metric.value]
    var facets = [
      Facet("value", rows.space.identities[metric.value], names.definition(metric.value))
    ]
    facets += depends(on: rows, slots, labels: metric.labelNames, names)
    rules.append(
      Rule(
        name: metric.definition.name, kind: "metric", facets: facets, source: source.definition.name,
        sourceFacets: sourceFacets(rows, slots, source)))
  }

  private mutating func add(_ alert: AlertPlan, _ rows: RowSetPlan, _ source: SourcePlan, _ names: SlotNames) {
    let definition = alert.definition
    func text(_ template: Template, identities: Bool) -> String {
      template.parts.map { part in
        switch part {
        case .text(let text): identities ? Value.string(text).ruleText : text
        case .slot(let slot, let type):
          identities ? "{\(rows.space.identities[slot]) \(type.rawValue)}" : "{\(names.name(slot))}"
        }
      }.joined()
    }
    var facets = alert.conditionFacets(over: rows, names)
    facets += [
      // As records show it.
      Facet("text of the condition", definition.conditionText),
      Facet("for", Value.duration(Double(definition.forNanos)).ruleText),
      Facet("keep_firing", Value.duration(Double(definition.keepFiringNanos)).ruleText),
      Facet("severity", definition.severity),
      Facet(
        "escalate",
        definition.escalations.map { "to \($0.severity) after \(Value.duration(Double($0.afterNanos)).ruleText)" }
          .joined(separator: ", ")),
      Facet("repeat", definition.repeatNanos == 0 ? "" : Value.duration(Double(definition.repeatNanos)).ruleText),
      Facet("group", alert.group?.name ?? ""),
      Facet("inhibited when", alert.inhibitedBy.sorted(by: utf8Precedes).joined(separator: "; ")),
      Facet(
        "maintenance",
        alert.maintenances.map { maintenance in
          let matching = maintenance.matchers.map(\.ruleText).joined(separator: ", ")
          return "\(maintenance.name) \(maintenance.schedule.ruleText)" + (matching.isEmpty ? "" : " matching \(matching)")
        }.sorted(by: utf8Precedes).joined(separator: "; ")),
    ]
    for (kind, templates) in [("label", alert.labels), ("annotation", alert.annotations)] {
      facets += templates.map {
        Facet("\(kind) \($0.name)", text($0, identities: true), "\"\(text($0, identities: false))\"")
      }
    }
    facets.append(
      Facet(
        "values",
        alert.values.map { "\($0.name) \(rows.space.identities[$0.slot])" }.sorted(by: utf8Precedes)
          .joined(separator: " "),
        alert.values.map(\.name).sorted(by: utf8Precedes).joined(separator: ", ")))
    var slots = [alert.condition] + alert.keys.map(\.slot) + alert.values.map(\.slot)
    for template in alert.labels + alert.annotations {
      for case .slot(let slot, _) in template.parts { slots.append(slot) }
    }
    let labels = alert.keys.map(\.name)
    let isBurn = definition.burn != nil
    if isBurn {
      facets = facets.map { Facet("\(definition.severity): \($0.name)", $0.identity, $0.text) }
      facets += rows.slo?.objectiveFacets ?? []
    }
    facets += depends(on: rows, slots, labels: labels, names)
    add(
      Rule(
        name: definition.name, kind: isBurn ? "slo" : "alert", facets: facets, source: source.definition.name,
        sourceFacets: sourceFacets(rows, slots, source)))
    let fields = rows.fields(behind: [alert.condition] + alert.keys.map(\.slot))
    operators.append(
      Operator(
        id: alert.operatorID, kind: "alert",
        title: isBurn ? "burn alert \(definition.name) \(definition.severity)" : "alert \(definition.name)",
        facets: (isBurn ? [] : alert.conditionFacets(over: rows, names)) + rows.ownFacets(names, labels: labels), deepFacets: rows.belowFacets,
        source: source.definition.name, sourceFacets: source.definition.identityFacets(reading: fields),
        below: rows.slo?.operatorID ?? rows.window?.panes?.operatorID, level: 0, family: 1, rules: [definition.name],
        states: [], windows: []))
  }

  /// An SLO's alerts are one rule.
  private mutating func add(_ rule: Rule) {
    guard rule.kind == "slo", let known = rules.firstIndex(where: { $0.name == rule.name && $0.kind == rule.kind }) else {
      return rules.append(rule)
    }
    let names = Set(rules[known].facets.map(\.name))
    rules[known].facets += rule.facets.filter { !names.contains($0.name) }
  }

  private mutating func add(_ slo: SloPlan, _ source: SourcePlan, _ names: SlotNames) {
    operators.append(
      Operator(
        id: slo.operatorID, kind: "slo", title: "slo \(slo.name)", facets: slo.countFacets + slo.input.ownFacets(names),
        deepFacets: slo.input.belowFacets, source: source.definition.name,
        sourceFacets: source.definition.identityFacets(reading: slo.fields),
        below: slo.input.slo?.operatorID ?? slo.input.window?.panes?.operatorID, level: 0, family: 1, rules: slo.users,
        states: [], windows: []))
  }

  /// A group is a rule, and what was told of it is kept by its name and labels.
  private mutating func add(_ group: TypedGroup, _ router: RouterPlan) {
    let name = group.name
    let by = Facet("by", group.by.joined(separator: ", "))
    // Where alerts of another source come to it, what it knows belongs to another time.
    let times = Facet("event time of", router.isMeeting ? router.operatorID : "", router.isMeeting ? router.sourceText : "")
    let source = router.source.definition
    let facets = [
      by, times,
      Facet("wait", Value.duration(Double(group.waitNanos)).ruleText),
      Facet("interval", Value.duration(Double(group.intervalNanos)).ruleText),
      Facet("repeat", group.repeatNanos == 0 ? "" : Value.duration(Double(group.repeatNanos)).ruleText),
      Facet("limit", String(group.listedMax)),
    ]
    // That of an alert is part of the alert, and that of an slo of the slo.
    if let own = rules.firstIndex(where: { $0.name == name && ["alert", "slo"].contains($0.kind) }) {
      rules[own].facets += facets.map { Facet("group \($0.name)", $0.identity, $0.text) }
    } else {
      let alerts = router.alertNames(of: group)
      rules.append(
        Rule(
          name: name, kind: "group",
          facets: [Facet("alerts", alerts.sorted(by: utf8Precedes).joined(separator: ", "))] + facets, source: source.name,
          sourceFacets: []))
    }
    operators.append(
      Operator(
        id: router.operatorID(of: group), kind: "group",
        title: "group \(name)", facets: [by, times], deepFacets: [], source: source.name, sourceFacets: [], below: nil, level: 0,
        family: 1, rules: [name], states: [], windows: []))
  }

  private mutating func add(_ pattern: PatternPlan, _ rows: RowSetPlan, _ source: SourcePlan, _ names: SlotNames) {
    let slots = pattern.labels.map(\.slot)
    rules.append(
      Rule(
        name: pattern.definition.name, kind: "pattern",
        facets: depends(on: rows, slots, labels: pattern.labels.map(\.name), names), source: source.definition.name,
        sourceFacets: sourceFacets(rows, slots, source)))
  }

  private mutating func add(_ anomaly: AnomalyPlan, _ rows: RowSetPlan, _ source: SourcePlan, _ names: SlotNames) {
    let name = anomaly.definition.name
    let slots = anomaly.labels.map(\.slot) + [anomaly.flag].compactMap { $0 } + anomaly.values.map(\.slot)
    let labels = anomaly.labels.map(\.name)
    var facets = depends(on: rows, slots, labels: labels, names)
    facets.append(
      Facet(
        "values", anomaly.values.map { "\($0.name) \(rows.space.identities[$0.slot])" }.joined(separator: " "),
        anomaly.values.map(\.name).joined(separator: ", ")))
    rules.append(
      Rule(
        name: name, kind: "anomaly", facets: facets, source: source.definition.name,
        sourceFacets: sourceFacets(rows, slots, source)))
    guard anomaly.keepsState else { return }
    let fields = rows.fields(behind: anomaly.labels.map(\.slot) + [anomaly.flag].compactMap { $0 })
    operators.append(
      Operator(
        id: anomaly.operatorID, kind: "anomaly", title: "anomaly \(name)", facets: rows.ownFacets(names, labels: labels),
        deepFacets: rows.belowFacets, source: source.definition.name,
        sourceFacets: source.definition.identityFacets(reading: fields), below: rows.window?.panes?.operatorID, level: 0,
        family: 1, rules: [name], states: [], windows: []))
  }

  private mutating func add(_ detector: DetectorPlan, _ source: SourcePlan, _ names: SlotNames) {
    let fields = detector.input.fields(behind: detector.keySlots + [detector.argumentSlot].compactMap { $0 })
    operators.append(
      Operator(
        id: detector.operatorID, kind: "detector", title: detector.title(names),
        facets: [detector.facet(names)] + detector.input.ownFacets(names), deepFacets: detector.input.belowFacets,
        source: source.definition.name, sourceFacets: source.definition.identityFacets(reading: fields),
        below: detector.input.slo?.operatorID ?? detector.input.window?.panes?.operatorID, level: 0, family: 1, rules: detector.users, states: [],
        windows: []))
  }

  private mutating func add(_ ordered: OrderedPlan, _ source: SourcePlan, _ names: SlotNames) {
    operators.append(
      Operator(
        id: ordered.operatorID, kind: ordered.operation.word,
        title: ordered.operation.word == "order" ? "rows of \(source.definition.name) in order \(ordered.title(names))"
          : "cluster \(ordered.title(names))",
        facets: [ordered.optionsFacet(names)] + ordered.input.ownFacets(names), deepFacets: [],
        source: source.definition.name, sourceFacets: source.definition.identityFacets(reading: ordered.fields),
        below: nil, level: 0, family: 1, rules: ordered.users, states: [], windows: []))
  }

  private mutating func add(_ gather: GatherPlan, _ source: SourcePlan) {
    let names = gather.inputNames
    var deep: [Facet] = []
    for (input, name) in zip(gather.inputs, names).dropFirst() {
      deep.append(Facet("right side", input.rows.identity, name.title(of: input.rows)))
    }
    operators.append(
      Operator(
        id: gather.operatorID, kind: gather.kind, title: "\(gather.kind) \(gather.title(names))",
        facets: [gather.facet] + gather.inputs[0].rows.ownFacets(names[0]), deepFacets: deep,
        source: source.definition.name,
        sourceFacets: source.definition.identityFacets(reading: gather.inputs[0].rows.fields(behind: gather.inputs[0].keySlots)),
        below: nil, level: 0, family: 1, rules: gather.users, states: [], windows: []))
  }

  private mutating func add(_ panes: PanesPlan, _ source: SourcePlan, _ names: SlotNames) {
    let states = panes.states.map {
      (id: $0.id, function: $0.function, text: names.text(of: $0, constants: $0.constants))
    }
    operators.append(
      Operator(
        id: panes.operatorID, kind: "window",
        title: "windows over \(source.definition.name) \(panes.keyText(names))", facets: panes.ownFacets,
        deepFacets: panes.input.belowFacets, source: source.definition.name,
        sourceFacets: source.definition.identityFacets(reading: panes.fields),
        below: panes.input.slo?.operatorID ?? panes.input.window?.panes?.operatorID,
        belowSpec: panes.input.baseWindow?.spec, upstreamNanos: panes.input.reachNanos, paneNanos: panes.paneNanos,
        level: panes.level, family: panes.family,
        rules: panes.users, states: states,
        windows: panes.windows.map { window in
          var needs = WindowNeeds(window, panes)
          needs.visit(window.rows, behind: [])
          return Window(
            spec: window.spec, states: Set(window.outputs.map { panes.states[$0.output.state].id }),
            rules: window.users, needs: needs.states, above: needs.above)
        }))
  }

  /// What a rule's results depend on behind `slots` of its rows.
  private func depends(
    on rows: RowSetPlan, _ slots: [Int], labels: [String], _ names: SlotNames
  ) -> [Facet] {
    let aggregates = rows.aggregates(behind: slots, names)
    let facets = [
      Facet(
        "aggregates", aggregates.map(\.identity).joined(separator: " "),
        aggregates.map(\.text).joined(separator: ", "))
    ]
    return facets + rows.ownFacets(names, labels: labels) + rows.belowFacets
  }

  private func sourceFacets(_ rows: RowSetPlan, _ slots: [Int], _ source: SourcePlan) -> [Facet] {
    let fields = rows.fields(behind: slots).subtracting([source.definition.time.field])
    return source.definition.facets(reading: fields)
  }
}

/// What each reader of a window's rows needs of its aggregates, `where` on the way to it included: what
/// `RowTask.lack` finds out of the graph.
private struct WindowNeeds {
  private let window: WindowPlan
  private let panes: PanesPlan
  private(set) var states: [String: Set<String>] = [:]
  private(set) var above: [String: Set<String>] = [:]

  init(_ window: WindowPlan, _ panes: PanesPlan) {
    self.window = window
    self.panes = panes
  }

  /// `all`: behind something that takes a row whole or not at all.
  mutating func visit(_ rows: RowSetPlan, behind conditions: Set<Int>, all: Bool = false) {
    let everything = Set(window.outputs.map { panes.states[$0.output.state].id })
    func need(_ reader: String, _ slots: [Int]) {
      if all { return states[reader, default: []].formUnion(everything) }
      let bases = slots.reduce(into: conditions) { $0.formUnion(rows.space.bases[$1]) }
      for base in bases {
        guard case .output(let number) = rows.space.kinds[base] else { continue }
        states[reader, default: []].insert(panes.states[window.outputs[number].output.state].id)
      }
    }
    for consumer in rows.consumers {
      switch consumer {
      case .metric(let metric): need(metric.definition.name, metric.labels + [metric.value])
      case .alert(let alert):
        var slots = [alert.condition] + alert.keys.map(\.slot) + alert.values.map(\.slot)
        for template in alert.labels + alert.annotations {
          for case .slot(let slot, _) in template.parts { slots.append(slot) }
        }
        need(alert.definition.name, slots)
      case .panes(let next):
        let upstream = next.input.window?.keySlots ?? []
        need(next.operatorID, next.keySlots + next.states.flatMap { [$0.argument, $0.filter].compactMap { $0 } } + upstream)
        above[next.operatorID] = next.users
      case .anomaly(let anomaly): states[anomaly.definition.name, default: []].formUnion(everything)
      case .slo(let slo): for user in slo.users { states[user, default: []].formUnion(everything) }
      case .detector(let detector):
        for user in detector.users { states[user, default: []].formUnion(everything) }
        visit(detector.rows, behind: conditions, all: true)
      case .gather(let gather, _): for user in gather.users { states[user, default: []].formUnion(everything) }
      // Neither stands behind windows.
      case .pattern, .ordered: break
      }
    }
    for child in rows.children {
      visit(child.rows, behind: conditions.union(rows.space.bases(of: child.condition)), all: all)
    }
  }
}

extension RuleSetParts.Operator {
  /// How far back before a window the values of these of its states reach; of all when nil.
  func lookbackNanos(of ids: Set<String>? = nil) -> Int64 {
    PaneAggregation.lookbackNanos(
      functions: states.filter { ids?.contains($0.id) ?? true }.map(\.function),
      windowNanos: windows.map(\.spec.sizeNanos))
  }
}

extension RuleSetParts.Operator {
  /// How long panes of the old length may still be open, and new ones be put together with them, when windows would cut
  /// those in two: the windows begin behind them. 0 when they do not.
  func mixedPaneNanos(_ before: RuleSetParts.Operator, cutBy window: WindowSpec) -> Int64 {
    guard paneNanos > 0, before.paneNanos > 0, paneNanos != before.paneNanos else { return 0 }
    let (common, overflow) = (paneNanos / greatestCommonDivisor(paneNanos, before.paneNanos))
      .multipliedReportingOverflow(by: before.paneNanos)
    // Panes that fit together with none are left out.
    let mixed = overflow ? before.paneNanos : common
    return window.sizeNanos % mixed == 0 && window.hopNanos % mixed == 0 ? 0 : mixed
  }
}

extension RuleSetParts.Window {
  /// The window as those read it that need aggregates of which nothing is known, and as all others do.
  func divided(known: Set<String>) -> [RuleSetParts.Window] {
    func isWaiting(_ reader: String) -> Bool { !(needs[reader] ?? []).isSubset(of: known) }
    let waitingAbove = above.filter { isWaiting($0.key) }
    let waiting = rules.filter(isWaiting).union(waitingAbove.values.joined())
    if waiting.isEmpty || waiting == rules { return [self] }
    var parts = [self, self]
    parts[0].rules.subtract(waiting)
    parts[0].states.formIntersection(known)
    parts[0].above = above.filter { waitingAbove[$0.key] == nil }
    parts[1].rules = waiting
    parts[1].above = waitingAbove
    return parts
  }
}
