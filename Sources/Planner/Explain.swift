import Catalog
import Operators
import RuleLang

extension Plan {
  /// The plan for people and tools.
  public var explanation: Explanation {
    var explainer = Explainer()
    for source in sources {
      explainer.add(source)
      for router in routers where router.source === source { explainer.add(router) }
    }
    explainer.link()
    return explainer.result
  }
}

/// Walks the plan from its sources. Every node has one input, so it is a tree; what rules share is a node that many are behind.
private struct Explainer {
  var result = Explanation()
  private var ids: Set<String> = []
  /// Further inputs of joins: the node whose rows they are, and the join.
  private var others: [(input: String, node: String)] = []

  /// To be called when all nodes are there.
  mutating func link() {
    for (input, node) in others {
      guard let place = result.nodes.firstIndex(where: { $0.id == node }) else { continue }
      result.nodes[place].otherInputs.append(input)
    }
  }

  private mutating func add(
    _ kind: Explanation.Kind, id: String, _ title: String, input: String?, rules: Set<String>,
    _ facts: [Explanation.Fact]
  ) -> String {
    var unique = id
    var number = 1
    while !ids.insert(unique).inserted {
      number += 1
      unique = "\(id)-\(number)"
    }
    result.nodes.append(
      Explanation.Node(
        id: unique, kind: kind, title: title, facts: facts.filter { !$0.isEmpty }, input: input,
        rules: rules.sorted()))
    return unique
  }

  private func id(_ kind: Explanation.Kind, _ input: String, _ identity: String) -> String {
    "\(kind.rawValue):\(shortHash("\(input) \(identity)"))"
  }

  // MARK: Sources

  mutating func add(_ source: SourcePlan) {
    let names = SlotNames(source)
    let definition = source.definition
    let isRead = definition.fields.indices.map { source.usedFields.contains($0) }
    func fields(read: Bool) -> [String] {
      definition.fields.indices.filter { isRead[$0] == read }.map { definition.fields[$0].name }
    }
    let requirementSlots = Set(source.requirements.map(\.slot))
    let id = add(
      .source, id: "source:\(definition.name)", definition.name, input: nil,
      rules: source.arriving.users,
      [
        .text("topic", definition.topic ?? ""),
        .text("format", definition.format),
        .text("time", definition.fields[definition.time.field].name),
        .text("watermark", duration(definition.time.boundNanos)),
        .text("idle", duration(definition.time.idleNanos)),
        .list("decodes", fields(read: true)),
        .list("not_read", fields(read: false)),
        .list(
          "requires",
          source.requirements.map {
            "\(names.definition($0.slot)) else \(Value.string($0.reason).ruleText)"
          }),
        computes(source.arriving, names, except: requirementSlots),
        computes(source.root, names),
        .text("dead_letter_topic", definition.deadLetterTopic ?? ""),
        .text("late_topic", definition.lateTopic ?? ""),
        .text("state", "a watermark for each partition"),
      ])
    addConsumers(of: source.root, names, input: id)
  }

  private func computes(
    _ rows: RowSetPlan, _ names: SlotNames, except: Set<Int> = []
  ) -> Explanation.Fact {
    // What only an alert's condition or a metric's value needs is shown there.
    var hidden = except
    for consumer in rows.consumers {
      switch consumer {
      case .alert(let alert): hidden.insert(alert.condition)
      case .metric(let metric): hidden.insert(metric.value)
      case .panes, .ordered, .pattern, .slo, .detector, .anomaly, .gather: break
      }
    }
    return .list(
      "computes", rows.computed.filter { !hidden.contains($0.slot) }.map { names.assignment($0.slot) })
  }

  // MARK: Rows

  private mutating func addConsumers(of rows: RowSetPlan, _ names: SlotNames, input: String) {
    for consumer in rows.consumers {
      switch consumer {
      case .panes(let panes): add(panes, names, input: input)
      case .metric(let metric): add(metric, names, input: input)
      case .alert(let alert): add(alert, names, input: input)
      case .ordered(let ordered): add(ordered, names, input: input)
      case .pattern(let pattern): add(pattern, input: input)
      case .gather(let gather, let number): add(gather, number, input: input)
      case .slo(let slo): add(slo, names, input: input)
      case .detector(let detector): add(detector, names, input: input)
      case .anomaly(let anomaly): add(anomaly, input: input)
      }
    }
    for (condition, child) in rows.branches { add(condition, child, names, input: input) }
    for (slot, branches) in rows.dispatches {
      let users = branches.reduce(into: Set<String>()) { $0.formUnion($1.rows.users) }
      let dispatch = add(
        .dispatch, id: id(.dispatch, input, names.identity(slot)), names.name(slot), input: input,
        rules: users, [.number("branches", branches.count)])
      for (value, child) in branches {
        let type = rows.space.types[slot]
        add(
          .compare(.equal, .column(slot, type), .constant(value, type)), child, names, input: dispatch)
      }
    }
  }

  private mutating func add(
    _ condition: TypedExpr, _ rows: RowSetPlan, _ names: SlotNames, input: String
  ) {
    let id = add(
      .filter, id: id(.filter, input, names.identity(condition)), "where \(names.text(condition))",
      input: input, rules: rows.users, [computes(rows, names)])
    addConsumers(of: rows, names, input: id)
  }

  // MARK: Windows

  private mutating func add(_ panes: PanesPlan, _ names: SlotNames, input: String) {
    let keys = panes.keySlots.map { names.name($0) }
    let longest = panes.windows.map(\.spec.sizeNanos).max() ?? panes.paneNanos
    let lookback = PaneAggregation.lookbackNanos(
      functions: panes.states.map(\.function), windowNanos: panes.windows.map(\.spec.sizeNanos))
    let reach = "panes of the last \(duration(longest)) until their windows have ended"
    let limit = panes.keyLimit.map { " limit \($0)" } ?? ""
    let identity = id(
      .panes, input, panes.keySlots.map { names.identity($0) }.joined(separator: " ") + limit)
    let id = add(
      .panes, id: identity, "of \(duration(panes.paneNanos)) \(by(keys))", input: input, rules: panes.users,
      [
        .list("keys", keys),
        .text("pane", duration(panes.paneNanos)),
        .number("exchange", panes.number),
        .number("level", panes.level),
      ] + (panes.keyLimit.map { [.number("key_limit", $0)] } ?? []) + [
        .list(
          "keeps",
          panes.states.map {
            "\(names.text(of: $0, constants: $0.constants)): \(stateDescription(ofAggregate: $0.function))"
          }),
        .text(
          "state", lookback > 0 ? "\(reach); samples of \(duration(lookback)) before them" : reach),
      ])
    for window in panes.windows {
      let windowNames = SlotNames(window, over: names)
      let spec = window.spec.ruleText
      let windowId = add(
        .window, id: self.id(.window, identity, spec), "\(spec) \(by(keys))", input: id,
        rules: window.users,
        [
          .list(
            "gives",
            window.outputs.map { output, slot in
              let aggregate = names.text(of: panes.states[output.state], constants: output.constants)
              return "\(window.space.names[slot]) = \(aggregate)"
            }),
          computes(window.rows, windowNames),
        ])
      addConsumers(of: window.rows, windowNames, input: windowId)
    }
  }

  private func by(_ keys: [String]) -> String {
    keys.isEmpty ? "without keys" : "by \(keys.joined(separator: ", "))"
  }

  // MARK: Ordered operators

  private mutating func add(_ ordered: OrderedPlan, _ names: SlotNames, input: String) {
    let keys = ordered.keySlots.map { names.name($0) }
    let rowNames = SlotNames(ordered, over: names)
    var identity = ordered.keySlots.map { names.identity($0) }.joined(separator: " ")
    let state: String
    switch ordered.operation {
    case .cluster(let definition, let messageSlot):
      let options = PatternOptions(definition)
      identity = "\(names.identity(messageSlot)) \(identity) " + String(options.fingerprint, radix: 16)
      state = "up to \(options.limit) patterns\(keys.isEmpty ? "" : " \(by(keys))"); rows until the watermark has passed them"
    case .order: state = "rows until the watermark has passed them"
    }
    let kind = ordered.operation.kind
    let id = add(
      kind, id: self.id(kind, input, identity), ordered.title(names), input: input, rules: ordered.users,
      [
        .list("keys", keys),
        .list("takes_along", ordered.carried.map { names.name($0) }),
        .list("adds", ordered.outputs.map { ordered.space.names[$0.slot] }),
        computes(ordered.rows, rowNames),
        .text("state", state),
      ])
    addConsumers(of: ordered.rows, rowNames, input: id)
  }

  private mutating func add(_ detector: DetectorPlan, _ names: SlotNames, input: String) {
    let fingerprint = DetectorPlan.fingerprint(detector.definition, detector.spec)
    let identity = (detector.keySlots + [detector.argumentSlot].compactMap { $0 }).map { names.identity($0) }
    let id = add(
      .detector, id: id(.detector, input, "\(identity.joined(separator: " ")) \(fingerprint)"),
      detector.title(names), input: input, rules: detector.users,
      [
        .list("keys", detector.keySlots.map { names.name($0) }),
        .text("with", detector.definition.settings.text),
        .list("adds", detector.definition.columns.indices.filter { detector.outputs[$0] != nil }
          .map { detector.definition.columns[$0].name }),
        computes(detector.rows, names),
        .text("state", detector.stateText),
      ])
    addConsumers(of: detector.rows, names, input: id)
  }

  private mutating func add(_ anomaly: AnomalyPlan, input: String) {
    let name = anomaly.definition.name
    _ = add(
      .anomaly, id: "anomaly:\(name)", name, input: input, rules: [],
      [
        .list("labels", anomaly.labels.map(\.name)), .list("values", anomaly.values.map(\.name)),
        .text("state", anomaly.keepsState ? "an entry for each open anomaly" : ""),
      ])
  }

  // MARK: Joins and traces

  /// Shown under its first input; the others point to it.
  private mutating func add(_ gather: GatherPlan, _ number: Int, input: String) {
    if number > 0 {
      others.append((input, gather.operatorID))
      return
    }
    let names = gather.inputNames
    let kind: Explanation.Kind
    var facts: [Explanation.Fact] = []
    let limits = Join.Limits()
    switch gather.definition {
    case .join(let join):
      kind = .join
      facts = [
        .text("right", names[1].title(of: gather.inputs[1].rows)),
        .text("within", join.isByWindow ? "the same window" : String(join.withinText.dropFirst("within ".count))),
        .list("takes_along", gather.inputs[0].carried.map { names[0].name($0) }),
        .list("takes_along_right", gather.inputs[1].carried.map { names[1].name($0) }),
        .text(
          "state",
          "rows of both sides for the time in which a partner may come, up to \(join.rowLimit ?? limits.rows) a key and side"),
      ]
    case .trace(let trace):
      kind = .trace
      facts = [
        .text("gap", duration(trace.gapNanos)), .text("longest", duration(trace.longestNanos)),
        .list("takes_along", gather.inputs[0].carried.map { names[0].name($0) }),
        .list("adds", gather.outputs.filter(\.isRead).flatMap { output in output.traced.map { output.space.names[$0.slot] } }),
        .text("state", "spans of traces that are not over, up to \(trace.spanLimit ?? Trace.spanLimitDefault) a trace"),
      ]
    }
    let keys = gather.inputs[0].keySlots.map { names[0].name($0) }
    facts.insert(.list("keys", keys), at: 0)
    let outputs = gather.outputs.map { SlotNames($0) }
    for (output, names) in zip(gather.outputs, outputs) where output.isRead { facts.append(computes(output.rows, names)) }
    let id = add(kind, id: gather.operatorID, gather.title(names), input: input, rules: gather.users, facts)
    for (output, names) in zip(gather.outputs, outputs) where output.isRead { addConsumers(of: output.rows, names, input: id) }
  }

  private mutating func add(_ pattern: PatternPlan, input: String) {
    let name = pattern.definition.name
    _ = add(
      .pattern, id: "pattern:\(name)", name, input: input, rules: [], [.list("labels", pattern.labels.map(\.name))])
  }

  // MARK: SLOs

  private mutating func add(_ slo: SloPlan, _ names: SlotNames, input: String) {
    let definition = slo.definition
    let rowNames = SlotNames(slo, over: names)
    let word = definition.isBad ? "bad" : "good"
    var counts = "\(word) \(names.aggregate(slo.measure) ?? names.name(slo.measure))"
    if let total = slo.total { counts += " of \(names.aggregate(total) ?? names.name(total))" }
    let longest = duration(definition.burnWindows.last ?? 0)
    var state = "for each key two counts each \(duration(definition.stepNanos)) of the last \(longest)"
    switch SloBudget(of: definition.period, burnWindows: definition.burnWindows, stepNanos: definition.stepNanos) {
    case .burnWindows: break
    case .coarse(_, let length): state += ", each \(duration(length)) of the last \(definition.period.text)"
    case .calendar(let calendar): state += ", and of the present \(calendar.rawValue)"
    }
    let id = add(
      .slo, id: "slo:\(slo.name)", slo.title(names), input: input, rules: slo.users,
      [
        .list("keys", slo.keySlots.map { slo.space.names[$0] }),
        .text("counts", counts),
        .text("evaluated", "every \(duration(definition.stepNanos))"),
        .list("burn_windows", definition.burnWindows.map { duration($0) }),
        .list("gives", slo.outputs.map { slo.space.names[$0.slot] }),
        computes(slo.rows, rowNames),
        .text("state", state),
      ])
    addConsumers(of: slo.rows, rowNames, input: id)
  }

  // MARK: Rules

  private mutating func add(_ metric: MetricPlan, _ names: SlotNames, input: String) {
    let name = metric.definition.name
    let value = names.name(metric.value)
    _ = add(
      .metric, id: "metric:\(name)",
      "\(name) = \(value == name ? names.definition(metric.value) : value)", input: input, rules: [],
      [
        .list("labels", metric.labelNames),
        .text("type", metric.definition.value.type.rawValue),
      ])
  }

  private mutating func add(_ alert: AlertPlan, _ names: SlotNames, input: String) {
    let definition = alert.definition
    let keys = alert.keys.map(\.name)
    let keptBy = keys.isEmpty ? "" : " \(keys.joined(separator: ", "))"
    let isBurn = definition.burn != nil
    _ = add(
      .alert, id: isBurn ? "alert:\(definition.name).\(definition.severity)" : "alert:\(definition.name)",
      "\(definition.name)\(isBurn ? " \(definition.severity)" : "") when \(definition.conditionText)",
      input: input, rules: [],
      [
        .text("for", duration(definition.forNanos)),
        .text("keep_firing", duration(definition.keepFiringNanos)),
        .text("severity", definition.severity),
        .list(
          "escalates", definition.escalations.map { "to \($0.severity) after \(duration($0.afterNanos))" }),
        .text("repeat", definition.repeatNanos > 0 ? duration(definition.repeatNanos) : ""),
        .text("group", alert.group?.name ?? ""),
        .list("inhibited_when", alert.inhibitedBy),
        .list("maintenance", alert.maintenances.map(\.name)),
        .list("labels", keys + alert.labels.map(\.name)),
        .list("values", alert.values.map(\.name)),
        .text("state", "an entry for each pending or firing\(keptBy.isEmpty ? " alert" : keptBy)"),
      ])
  }

  /// Groups hang on the source whose alerts they put together.
  fileprivate mutating func add(_ router: RouterPlan) {
    for group in router.groups {
      let node = add(
        .group, id: "group:\(group.name)", "\(group.name) \(by(group.by))", input: "source:\(router.source.definition.name)",
        rules: [],
        [
          .list("alerts", router.alertNames(of: group)),
          .list("waits_for", router.isMeeting ? distinct(router.sources.map(\.definition.name)) : []),
          .text("wait", duration(group.waitNanos)),
          .text("interval", duration(group.intervalNanos)),
          .text("repeat", group.repeatNanos > 0 ? duration(group.repeatNanos) : ""),
          .number("lists", group.listedMax),
          .text("state", "an entry for each group with an alert that fires, until all are over and told of"),
        ])
      for other in distinct(router.sources.map(\.definition.name)) where other != router.source.definition.name {
        others.append(("source:\(other)", node))
      }
    }
  }

  private func duration(_ nanos: Int64) -> String { Value.duration(Double(nanos)).ruleText }
}

extension OrderedPlan.Operation {
  fileprivate var kind: Explanation.Kind {
    switch self {
    case .cluster: .cluster
    case .order: .order
    }
  }
}

extension Explanation.Fact {
  fileprivate var isEmpty: Bool {
    switch value {
    case .text(let text): text.isEmpty
    case .list(let items): items.isEmpty
    case .number: false
    }
  }
}
