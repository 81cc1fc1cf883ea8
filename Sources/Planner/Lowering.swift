import Catalog
import Operators
import RuleLang
import Runtime

extension Plan {
  /// The graph that runs this plan: virtual slots get their places in batches, row sets their consumers, and equality
  /// tests over one column become a dispatch. `keyLimit` is for windows whose rules name none.
  public func lower(keyLimit: Int = PaneAggregation.keyLimitDefault) -> Graph {
    let names = Set(rules + sources.map(\.definition.name)).sorted {
      Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8))
    }
    var topics: [String] = []
    func topic(_ name: String?) -> Int32 {
      guard let name else { return -1 }
      if let known = topics.firstIndex(of: name) { return Int32(known) }
      topics.append(name)
      return Int32(topics.count - 1)
    }
    let lowering = Lowering(plan: self, ranks: names, keyLimit: keyLimit)
    var nodes: [SourceNode] = []
    for (index, source) in sources.enumerated() {
      nodes.append(
        lowering.node(
          source, index: index, deadLetterTopic: topic(source.definition.deadLetterTopic),
          lateTopic: topic(source.definition.lateTopic)))
    }
    let exchanges = panes.map { panes in
      Exchange(
        flow: flow(of: panes.input), level: panes.level,
        definition: lowering.aggregation(panes), rules: panes.users.sorted())
    }
    let orderedExchanges = ordered.map { ordered in
      Exchange(
        flow: sources.firstIndex { $0 === ordered.source } ?? 0, level: 0, definition: lowering.ordered(ordered),
        rules: ordered.users.sorted())
    }
    let gatherExchanges = gathers.map { gather in
      Exchange(
        flow: sources.count + gather.number, level: 0, definition: lowering.gather(gather), rules: gather.users.sorted())
    }
    let routerExchanges = routers.map { router in
      Exchange(flow: router.flow, level: level(of: router), definition: lowering.router(router), rules: router.rules)
    }
    var graph = Graph(
      sources: nodes, exchanges: exchanges + orderedExchanges + gatherExchanges + routerExchanges, rules: names,
      topics: topics, gathered: gatheredFlows + meetingFlows)
    graph.operators = storedOperators
    graph.learns = learns
    return graph
  }

  /// The program's sources that the plan reads, in the order of the graph's.
  public var sourceNames: [String] { sources.map(\.definition.name) }
}

/// Where each virtual slot of a space lies in its batches.
private struct Layout {
  /// Place by virtual slot; -1 for one that nobody uses.
  var places: [Int]
  /// Types of the slots behind the first ones (fields, or keys and outputs).
  var computed: [PhysicalType]
  /// Types of all places.
  var types: [PhysicalType]

  func place(_ slot: Int) -> Int {
    precondition(places[slot] >= 0, "a slot that is read has a place")
    return places[slot]
  }

  func place(_ expression: TypedExpr) -> TypedExpr {
    expression.mapColumns { .column(place($0), $1) }
  }
}

private final class Lowering {
  let plan: Plan
  private let rankOf: [String: Int32]
  private var layouts: [ObjectIdentifier: Layout] = [:]

  private let keyLimit: Int

  init(plan: Plan, ranks: [String], keyLimit: Int) {
    self.plan = plan
    self.keyLimit = keyLimit
    rankOf = Dictionary(uniqueKeysWithValues: ranks.enumerated().map { ($1, Int32($0)) })
  }

  private func rank(_ name: String) -> Int32 { rankOf[name] ?? 0 }

  // MARK: Layouts

  private func layout(_ space: SlotSpace, fields: Set<Int>? = nil) -> Layout {
    if let known = layouts[ObjectIdentifier(space)] { return known }
    var order: [Int] = []
    for slot in space.kinds.indices {
      if case .field(let field) = space.kinds[slot], fields?.contains(field) == true { order.append(slot) }
    }
    for slot in space.kinds.indices { if case .key = space.kinds[slot] { order.append(slot) } }
    for slot in space.kinds.indices { if case .output = space.kinds[slot] { order.append(slot) } }
    let given = order.count
    for slot in space.kinds.indices { if case .computed = space.kinds[slot] { order.append(slot) } }
    var places = [Int](repeating: -1, count: space.kinds.count)
    for (place, slot) in order.enumerated() { places[slot] = place }
    let types = order.map { space.types[$0].physical }
    let layout = Layout(places: places, computed: Array(types[given...]), types: types)
    layouts[ObjectIdentifier(space)] = layout
    return layout
  }

  private func layout(of rows: RowSetPlan) -> Layout {
    layout(rows.space, fields: rows.source?.usedFields)
  }

  // MARK: Sources

  func node(_ source: SourcePlan, index: Int, deadLetterTopic: Int32, lateTopic: Int32) -> SourceNode {
    let definition = source.definition
    let layout = layout(of: source.root)
    let used = definition.fields.indices.filter { source.usedFields.contains($0) }
    let fields = used.map { field -> DecodedField in
      let declared = definition.fields[field]
      let absence: DecodedField.Absence =
        declared.defaultValue.map { .defaultValue($0) } ?? (declared.isNullable ? .null : .reject)
      return DecodedField(
        name: declared.name, path: declared.path, type: declared.type, unit: declared.unit,
        absence: absence,
        wantsHash: declared.type == .string && source.hashedFields.contains(field))
    }
    let schema = SourceSchema(
      name: definition.name, index: index, topic: definition.topic, format: definition.format,
      fields: fields, timeField: layout.place(definition.time.field),
      boundNanos: definition.time.boundNanos, idleNanos: definition.time.idleNanos,
      maxAheadNanos: definition.time.maxAheadNanos)
    let steps = plan.panes.filter { $0.source === source && $0.level == 0 }.map(\.paneNanos)
    // Ordered rows go on as soon as the watermark has passed them, at whatever time that is.
    let isOrdered =
      plan.ordered.contains { $0.source === source }
      || plan.gathers.contains { $0.inputs.contains { $0.rows.source === source } }
    var node = SourceNode(
      schema: schema, computedSlots: layout.computed,
      prepare: source.requirements.isEmpty ? nil : computedOnly(source.arriving, layout),
      requirements: source.requirements.map {
        Requirement(slot: layout.place($0.slot), reason: $0.reason)
      },
      root: rowSet(source.root), stepNanos: isOrdered ? 1 : steps.reduce(0) { greatestCommonDivisor($0, $1) },
      rule: rank(definition.name), deadLetterTopic: deadLetterTopic, lateTopic: lateTopic)
    let places = definition.partitionedBy.compactMap { used.firstIndex(of: $0) }
    if places.count == definition.partitionedBy.count { node.partitionedBy = places }
    return node
  }

  private func computedOnly(_ rows: RowSetPlan, _ layout: Layout) -> RowSet {
    RowSet(computed: computed(rows, layout))
  }

  private func computed(_ rows: RowSetPlan, _ layout: Layout) -> [RowSet.ComputedSlot] {
    rows.computed.map {
      RowSet.ComputedSlot(slot: layout.place($0.slot), expression: layout.place($0.expression))
    }
  }

  // MARK: Row sets

  private func rowSet(_ rows: RowSetPlan) -> RowSet {
    let layout = layout(of: rows)
    var set = RowSet(computed: computed(rows, layout))
    for consumer in rows.consumers {
      switch consumer {
      case .panes(let panes): set.consumers.append(aggregation(panes))
      case .ordered(let ordered): set.consumers.append(self.ordered(ordered))
      case .gather(let gather, let input): set.consumers.append(feed(gather, input))
      case .pattern(let pattern): set.consumers.append(self.pattern(pattern, rows, layout))
      case .slo(let slo): set.consumers.append(self.slo(slo, layout))
      case .detector(let detector): set.consumers.append(self.detector(detector, layout))
      case .anomaly(let anomaly): set.consumers.append(self.anomaly(anomaly, rows, layout))
      case .metric(let metric): set.consumers.append(self.metric(metric, rows, layout))
      case .alert(let alert): set.consumers.append(self.alert(alert, rows, layout))
      }
    }
    for dispatch in rows.dispatches {
      set.dispatches.append(
        RowSet.Dispatch(
          slot: layout.place(dispatch.slot), type: rows.space.types[dispatch.slot],
          branches: dispatch.branches.map { ($0.value, rowSet($0.rows)) }))
    }
    for (condition, child) in rows.branches {
      set.branches.append(
        RowSet.Branch(condition: layout.place(condition), rows: rowSet(child)))
    }
    return set
  }

  private func named(_ name: String, _ slot: Int, _ rows: RowSetPlan, _ layout: Layout) -> NamedSlot {
    NamedSlot(name: name, slot: layout.place(slot), type: rows.space.types[slot])
  }

  private func metric(_ metric: MetricPlan, _ rows: RowSetPlan, _ layout: Layout) -> Metric {
    Metric(
      name: metric.definition.name, rule: rank(metric.definition.name),
      labels: zip(metric.labelNames, metric.labels).map { named($0, $1, rows, layout) },
      value: named("value", metric.value, rows, layout), windowNanos: metric.windowNanos)
  }

  private func alert(_ alert: AlertPlan, _ rows: RowSetPlan, _ layout: Layout) -> Alert {
    func placed(_ template: Template) -> Template {
      Template(
        name: template.name,
        parts: template.parts.map { part in
          switch part {
          case .text: part
          case .slot(let slot, let type): .slot(layout.place(slot), type)
          }
        })
    }
    var lowered = Alert(
      name: alert.definition.name, rule: rank(alert.definition.name),
      condition: layout.place(alert.condition), conditionText: alert.definition.conditionText,
      forNanos: alert.definition.forNanos, keepFiringNanos: alert.definition.keepFiringNanos,
      severity: alert.definition.severity,
      keys: alert.keys.map { named($0.name, $0.slot, rows, layout) },
      labels: alert.labels.map(placed), annotations: alert.annotations.map(placed),
      values: alert.values.map { named($0.name, $0.slot, rows, layout) },
      windowNanos: alert.windowNanos)
    lowered.operatorID = alert.operatorID
    lowered.isBurn = alert.definition.burn != nil
    lowered.policy = alert.policy
    lowered.maintenances = alert.loweredMaintenances
    // Windows over windows have the keys of those before them.
    var first = alert.window?.panes
    while let below = first?.input.baseWindow?.panes { first = below }
    lowered.alertsMax = first?.keyLimit ?? keyLimit
    if let router = alert.router {
      lowered.route = AlertRoute(exchange: plan.exchange(of: router), alert: alert.member, writes: alert.writes)
    }
    return lowered
  }

  func router(_ router: RouterPlan) -> AlertRouter {
    AlertRouter(
      exchange: plan.exchange(of: router), operatorID: router.operatorID,
      members: router.members.map { alert in
        AlertRouter.Member(
          name: alert.definition.name, rule: rank(alert.definition.name), operatorID: alert.operatorID,
          conditionText: alert.definition.conditionText, policy: alert.policy, maintenances: alert.loweredMaintenances,
          writes: alert.writes, forNanos: alert.definition.forNanos, hopNanos: alert.hopNanos, windowNanos: alert.windowNanos, reachNanos: alert.reachNanos,
          group: alert.group.flatMap { group in router.groups.firstIndex { $0.name == group.name } },
          isBurn: alert.definition.burn != nil)
      },
      groups: router.groups.map { group in
        AlertRouter.Group(
          name: group.name, operatorID: router.operatorID(of: group), rule: rank(group.name), by: group.by,
          waitNanos: group.waitNanos, intervalNanos: group.intervalNanos, repeatNanos: group.repeatNanos,
          listedMax: group.listedMax)
      }, inhibitions: router.inhibitions, severities: TypedAlert.severities, isMeeting: router.isMeeting)
  }

  private func slo(_ slo: SloPlan, _ input: Layout) -> Slo {
    let definition = slo.definition
    return Slo(
      name: slo.name, operatorID: slo.operatorID, keySlots: slo.inputKeySlots.map { input.place($0) },
      keyTypes: slo.keySlots.map { slo.space.types[$0].physical },
      measure: Slo.Measure(
        slot: input.place(slo.measure), total: slo.total.map { input.place($0) }, isBad: definition.isBad,
        isWhole: [slo.measure, slo.total].allSatisfy { $0.map { slo.input.space.types[$0] != .float } ?? true }),
      budget: sloBudget(definition.objective), period: definition.period, stepNanos: definition.stepNanos,
      burnWindows: definition.burnWindows, idleNanos: definition.idleNanos,
      exhaustionNanos: definition.exhaustionNanos, outputs: slo.outputs.map(\.output),
      computedSlots: layout(of: slo.rows).computed, rows: rowSet(slo.rows))
  }

  // MARK: Ordered operators

  func ordered(_ ordered: OrderedPlan) -> OrderedExchange {
    let input = layout(of: ordered.input)
    let space = ordered.input.space
    let keys = ordered.keySlots.compactMap { ordered.carried.firstIndex(of: $0) }
    return OrderedExchange(
      exchange: plan.panes.count + ordered.number, operatorID: ordered.operatorID,
      carried: ordered.carried.map {
        OrderedExchange.Carried(
          slot: input.place($0), type: space.types[$0].physical, identity: space.identities[$0])
      }, keys: keys,
      operation: operation(ordered),
      computedSlots: layout(of: ordered.rows).computed, rows: rowSet(ordered.rows))
  }

  private func operation(_ ordered: OrderedPlan) -> (any OrderedOperator)? {
    switch ordered.operation {
    case .cluster(let definition, let messageSlot):
      Cluster(
        options: PatternOptions(definition), message: ordered.carried.firstIndex(of: messageSlot) ?? 0,
        outputs: ordered.outputs.map(\.output))
    case .order: nil
    }
  }

  private func detector(_ plan: DetectorPlan, _ layout: Layout) -> DetectorStage {
    let space = plan.input.space
    return DetectorStage(
      operatorID: plan.operatorID, detector: makeDetector(plan.spec, plan.definition.settings),
      keySlots: plan.keySlots.map { layout.place($0) }, keyTypes: plan.keySlots.map { space.types[$0].physical },
      ownerSlots: plan.ownerSlots.map { layout.place($0) }, argument: plan.argumentSlot.map { layout.place($0) },
      argumentType: plan.argumentSlot.map { space.types[$0] },
      outputs: plan.definition.columns.indices.map { plan.outputs[$0].map { layout.place($0) } },
      outputTypes: plan.definition.columns.map(\.type.physical), slotTypes: layout.types,
      seriesMax: plan.definition.seriesMax, forgetNanos: plan.definition.settings.nanos("forget", in: plan.spec),
      rows: rowSet(plan.rows))
  }

  private func anomaly(_ plan: AnomalyPlan, _ rows: RowSetPlan, _ layout: Layout) -> Anomaly {
    let owners = rows.rowKeySlots ?? rows.output?.keySlots ?? rows.ordered?.ownerSlots ?? []
    return Anomaly(
      name: plan.definition.name, operatorID: plan.operatorID, rule: rank(plan.definition.name),
      labels: plan.labels.map { named($0.name, $0.slot, rows, layout) }, ownerSlots: owners.map { layout.place($0) },
      flag: plan.flag.map { layout.place($0) }, values: plan.values.map { named($0.name, $0.slot, rows, layout) },
      windowNanos: plan.window?.sizeNanos ?? 0,
      missingNanos: plan.flag == nil ? 0 : (plan.window?.hopNanos ?? 0) * Anomaly.missingWindowsMax,
      offset: plan.offset.map { layout.place($0) })
  }

  private func pattern(_ pattern: PatternPlan, _ rows: RowSetPlan, _ layout: Layout) -> PatternRecord {
    PatternRecord(
      name: pattern.definition.name, rule: rank(pattern.definition.name),
      labels: pattern.labels.map { named($0.name, $0.slot, rows, layout) }, template: layout.place(pattern.template),
      isNew: layout.place(pattern.isNew), isChanged: layout.place(pattern.isChanged),
      parameters: layout.place(pattern.parameters), offset: layout.place(pattern.offset))
  }

  // MARK: Joins and traces

  private func exchange(_ gather: GatherPlan) -> Int { plan.panes.count + plan.ordered.count + gather.number }

  private func input(_ gather: GatherPlan, _ number: Int) -> GatherInput {
    let input = gather.inputs[number]
    let layout = layout(of: input.rows)
    let space = input.rows.space
    var dropsNullKeys = true
    if case .join(let join) = gather.definition, join.kind != .inner, number == 0 { dropsNullKeys = false }
    return GatherInput(
      carried: input.carried.map {
        OrderedExchange.Carried(slot: layout.place($0), type: space.types[$0].physical, identity: space.identities[$0])
      }, keys: input.keySlots.map { input.carry($0) }, order: input.rows.orderSlots?.map { input.carry($0) },
      dropsNullKeys: dropsNullKeys, reachNanos: input.rows.reachNanos)
  }

  private func feed(_ gather: GatherPlan, _ number: Int) -> GatherFeed {
    GatherFeed(
      exchange: exchange(gather), operatorID: gather.operatorID, number: number, input: input(gather, number))
  }

  func gather(_ gather: GatherPlan) -> GatherExchange {
    let outputs = gather.outputs.map { output in
      let layout = layout(of: output.rows)
      return GatherOutput(
        columnTypes: Array(layout.types.dropLast(layout.computed.count)), computedSlots: layout.computed,
        rows: rowSet(output.rows))
    }
    let operation: any GatherOperation
    switch gather.definition {
    case .join(let join):
      let defaults = Join.Limits()
      operation = Join(
        kind: join.kind.operation, lowNanos: join.lowNanos, highNanos: join.highNanos,
        limits: Join.Limits(
          rows: join.rowLimit ?? defaults.rows, keys: join.keyLimit ?? keyLimit, bytes: join.byteLimit ?? defaults.bytes),
        columns: gather.outputs[0].joined.map(\.column),
        hopNanos: join.isByWindow ? gather.inputs[0].rows.hopNanos : 0)
    case .trace(let trace):
      guard let columns = gather.spanColumns else { preconditionFailure("traces are made of spans") }
      operation = Trace(
        gapNanos: trace.gapNanos, longestNanos: trace.longestNanos, spanLimit: trace.spanLimit ?? Trace.spanLimitDefault,
        limits: Join.Limits(keys: keyLimit), columns: columns, traces: gather.outputs[0].traced.map(\.column),
        edges: gather.outputs[1].traced.map(\.column), readsTraces: gather.outputs[0].isRead,
        readsEdges: gather.outputs[1].isRead)
    }
    return GatherExchange(
      exchange: exchange(gather), operatorID: gather.operatorID,
      inputs: gather.inputs.indices.map { input(gather, $0) }, operation: operation, outputs: outputs)
  }

  // MARK: Aggregations

  func aggregation(_ panes: PanesPlan) -> PaneAggregation {
    let input = layout(of: panes.input)
    let windows = panes.windows.map { window in
      let rows = layout(of: window.rows)
      return PaneAggregation.Window(
        sizeNanos: window.spec.sizeNanos, hopNanos: window.spec.hopNanos,
        outputs: window.outputs.map(\.output), computedSlots: rows.computed,
        rows: rowSet(window.rows))
    }
    let upstream = panes.input.baseWindow
    var aggregation = PaneAggregation(
      exchange: panes.number, paneNanos: panes.paneNanos,
      keySlots: panes.keySlots.map { input.place($0) },
      keyTypes: panes.keySlots.map { panes.input.space.types[$0].physical },
      states: panes.states.map { state in
        var placed = state
        placed.argument = state.argument.map { input.place($0) }
        placed.filter = state.filter.map { input.place($0) }
        return placed
      },
      windows: windows, inputTypes: panes.input.orderSlots == nil ? [] : input.types,
      isOverWindows: panes.input.orderSlots != nil,
      upstreamKeySlots: (panes.input.orderSlots ?? []).map { input.place($0) },
      upstreamNanos: panes.input.reachNanos)
    aggregation.operatorID = panes.operatorID
    // Rows of windows are as many as those windows have keys.
    if upstream == nil { aggregation.keyLimit = panes.keyLimit ?? keyLimit }
    return aggregation
  }

}

extension WindowPlan {
  /// How far back in the source's time a row of these windows reaches.
  var reachNanos: Int64 {
    guard let panes else { return spec.sizeNanos }
    let before = panes.input.reachNanos
    // Not through `aggregation(panes)`: that lowers what stands behind these windows, us included.
    let lookback = PaneAggregation.lookbackNanos(
      functions: panes.states.map(\.function), windowNanos: panes.windows.map(\.spec.sizeNanos))
    return spec.sizeNanos + lookback + before
  }
}
