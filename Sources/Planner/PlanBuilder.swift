import Catalog
import Operators
import RuleLang
import Runtime

/// Builds the shared plan of a program: `buildPlan(program)`.
///
/// Streams are followed from their source, and each step asks for the node that does it: the same filter on the same rows,
/// the same keys over the same rows, the same aggregate are found again rather than made again, whatever the rules call
/// them. Columns are resolved only when somebody reads them, so what nobody reads is never in the plan.
public func buildPlan(_ program: TypedProgram) -> Plan {
  var builder = PlanBuilder(program)
  return builder.build()
}

/// What a column of a stream is made of.
fileprivate indirect enum Binding {
  /// A slot of the rows.
  case slot(Int, ValueType)
  /// An expression over other bindings.
  case derived(name: String, TypedExpr, over: [Binding])
  /// An aggregate of a window over these rows, added to it on demand.
  case aggregate(TypedAggregate, WindowPlan, over: StreamRows)
  /// A column of rows that goes through an ordered operator as it is.
  case carried(Binding, OrderedPlan, over: StreamRows)
  /// A column that an ordered operator adds.
  case clustered(Cluster.Output, OrderedPlan, name: String)
  /// A column of one side of a join.
  case joined(Binding, GatherPlan, side: Int, over: StreamRows)
  /// A column of traces (output 0) or of calls between services (1).
  case traced(Trace.Column, TypedColumn, GatherPlan, output: Int)
  /// A column that an SLO gives.
  case slo(SloColumn, SloPlan)
  /// A column that a detector adds, by its place.
  case detected(Int, DetectorPlan)
}

/// The rows of a stream, and its columns.
fileprivate struct StreamRows {
  var rows: RowSetPlan
  var columns: [Binding]
  var names: [String]
}

private struct PlanBuilder {
  let program: TypedProgram
  let plan = Plan()
  private var sources: [Int: SourcePlan] = [:]
  private var streams: [Int: StreamRows] = [:]
  /// In the program's order.
  private var alerts: [AlertPlan] = []

  init(_ program: TypedProgram) { self.program = program }

  mutating func build() -> Plan {
    for metric in program.metrics { add(metric) }
    for alert in program.alerts { add(alert) }
    for pattern in program.patterns { add(pattern) }
    for anomaly in program.anomalies { add(anomaly) }
    plan.connect(alerts, program)
    for source in plan.sources { source.root.prune() }
    var names = program.metrics.map(\.name)
    for alert in program.alerts where alert.burn == nil || names.last != alert.name { names.append(alert.name) }
    plan.rules = names + program.patterns.map(\.name) + program.anomalies.map(\.name)
    // One that stands in an alert has that one's name.
    for group in program.groups where !plan.rules.contains(group.name) { plan.rules.append(group.name) }
    return plan
  }

  // MARK: Rules

  private mutating func add(_ metric: TypedMetric) {
    let stream = program.streams[metric.stream]
    let rows = self.rows(ofStream: metric.stream)
    let value = slot(metric.value, at: rows.rows, rows.columns, name: metric.name)
    let labels = metric.labels.map { slot(of: rows.columns[$0], at: rows.rows) }
    rows.rows.consumers.append(
      .metric(
        MetricPlan(
          metric, labels: labels, labelNames: metric.labels.map { stream.columns[$0].name },
          value: value, windowNanos: stream.windowing?.window.sizeNanos ?? 0)))
    rows.rows.note(user: metric.name)
  }

  private mutating func add(_ alert: TypedAlert) {
    let stream = program.streams[alert.stream]
    let rows = self.rows(ofStream: alert.stream)
    let condition = slot(alert.condition, at: rows.rows, rows.columns, name: alert.name)
    let keyColumns = stream.windowing?.keyColumns ?? []
    let keys = keyColumns.map {
      (name: stream.columns[$0].name, slot: slot(of: rows.columns[$0], at: rows.rows))
    }
    // The evidence: what the condition and the annotations look at.
    var seen = Set(keyColumns)
    var read = alert.burn?.evidence ?? []
    seen.formUnion(read)
    var expressions = alert.burn == nil ? [alert.condition] : []
    for template in alert.annotations {
      for case .value(let expression) in template.parts { expressions.append(expression) }
    }
    for expression in expressions {
      expression.forEachColumn { if seen.insert($0).inserted { read.append($0) } }
    }
    let values = read.map {
      (name: stream.columns[$0].name, slot: slot(of: rows.columns[$0], at: rows.rows))
    }
    let labels = alert.labels.map { template($0, rows) }
    let annotations = alert.annotations.map { template($0, rows) }
    let plan = AlertPlan(
      alert, over: rows.rows, condition: condition, keys: keys, labels: labels, annotations: annotations,
      values: values, windowNanos: alert.burn?.windowNanos ?? stream.windowing?.window.sizeNanos ?? 0)
    alerts.append(plan)
    rows.rows.consumers.append(.alert(plan))
    rows.rows.note(user: alert.name)
  }

  private mutating func add(_ pattern: TypedPattern) {
    let stream = program.streams[pattern.stream]
    let rows = self.rows(ofStream: pattern.stream)
    guard let ordered = rows.rows.ordered else { preconditionFailure("a pattern rule reads a stream behind `cluster`") }
    let labels = (pattern.keys + [pattern.columns[0]]).map {
      (name: stream.columns[$0].name, slot: slot(of: rows.columns[$0], at: rows.rows))
    }
    let slots = pattern.columns.dropFirst().map { slot(of: rows.columns[$0], at: rows.rows) }
    rows.rows.consumers.append(
      .pattern(
        PatternPlan(
          pattern, labels: labels, template: slots[0], isNew: slots[1], isChanged: slots[2], parameters: slots[3],
          offset: ordered.offsetSlot)))
    rows.rows.note(user: pattern.name)
  }

  private mutating func add(_ anomaly: TypedAnomaly) {
    let stream = program.streams[anomaly.stream]
    let rows = self.rows(ofStream: anomaly.stream)
    let labels = anomaly.labels.map { (name: stream.columns[$0].name, slot: slot(of: rows.columns[$0], at: rows.rows)) }
    let flag = anomaly.flag.map { slot(of: rows.columns[$0], at: rows.rows) }
    let values = anomaly.values.map { (name: $0.name, slot: slot(of: rows.columns[$0.column], at: rows.rows)) }
    rows.rows.consumers.append(
      .anomaly(
        AnomalyPlan(
          anomaly, over: rows.rows, labels: labels, flag: flag, values: values, window: stream.windowing?.window,
          offset: stream.windowing == nil ? rows.rows.ordered?.offsetSlot : nil)))
    rows.rows.note(user: anomaly.name)
  }

  /// A template over virtual slots.
  private mutating func template(_ template: TypedTemplate, _ rows: StreamRows) -> Template {
    Template(
      name: template.name,
      parts: template.parts.map { part in
        switch part {
        case .text(let text): .text(text)
        case .value(let expression):
          .slot(slot(expression, at: rows.rows, rows.columns, name: template.name), expression.type)
        }
      })
  }

  // MARK: Streams

  private mutating func source(_ index: Int) -> SourcePlan {
    if let known = sources[index] { return known }
    let source = SourcePlan(program.sources[index])
    source.arriving.source = source
    source.root.source = source
    sources[index] = source
    plan.sources.append(source)
    let columns = fields(of: source)
    for requirement in source.definition.requirements {
      let slot = slot(requirement.condition, at: source.arriving, columns, name: "require")
      source.requirements.append((slot, requirement.reason))
    }
    return source
  }

  private func fields(of source: SourcePlan) -> [Binding] {
    source.definition.fields.enumerated().map { .slot($0.offset, $0.element.type) }
  }

  private mutating func rows(ofStream index: Int) -> StreamRows {
    if let known = streams[index] { return known }
    let stream = program.streams[index]
    var rows = self.rows(of: stream.input)
    for stage in stream.stages {
      switch stage {
      case .filter(let condition): filter(condition, &rows)
      case .derive(let assignments):
        for assignment in assignments {
          let over = rows.columns
          rows.columns.append(.derived(name: assignment.name, assignment.expression, over: over))
          rows.names.append(assignment.name)
        }
      case .aggregate(let aggregation): aggregate(aggregation, &rows)
      case .cluster(let definition): cluster(definition, &rows)
      case .join(let definition): join(definition, &rows)
      case .trace(let definition): trace(definition, &rows)
      case .slo(let definition): slo(definition, name: stream.name, &rows)
      case .detector(let definition): detector(definition, &rows)
      }
    }
    streams[index] = rows
    return rows
  }

  /// One row set a conjunct, in an order that does not depend on how the rule was written: tests for equality with a
  /// constant first, since those are dispatched.
  private mutating func filter(_ condition: TypedExpr, _ rows: inout StreamRows) {
    var conjuncts: [TypedExpr] = []
    func split(_ expression: TypedExpr) {
      if case .logical(.and, let left, let right) = expression {
        split(left)
        split(right)
      } else {
        conjuncts.append(expression)
      }
    }
    split(condition)
    var resolved = conjuncts.map { resolve($0, at: rows.rows, rows.columns).canonical }
    resolved.sort { a, b in
      let x = a.dispatchSlot
      let y = b.dispatchSlot
      if (x == nil) != (y == nil) { return x != nil }
      if let x, let y, x != y { return x < y }
      return a.orderText < b.orderText
    }
    for conjunct in resolved {
      noteFields(conjunct, rows.rows)
      if let slot = conjunct.dispatchSlot { noteHashed(slot, rows.rows) }
      rows.rows = rows.rows.filtered(by: conjunct)
    }
  }

  private mutating func aggregate(_ aggregation: TypedAggregation, _ rows: inout StreamRows) {
    let keys = aggregation.keys.map { slot(of: rows.columns[$0], at: rows.rows) }
    for key in keys { noteHashed(key, rows.rows) }
    let panes = self.panes(
      over: rows.rows, keys: keys, window: aggregation.window, keyLimit: aggregation.keyLimit)
    let window: WindowPlan
    if let known = panes.windows.first(where: { $0.spec == aggregation.window }) {
      window = known
    } else {
      window = WindowPlan(panes, aggregation.window)
      panes.windows.append(window)
    }
    var columns: [Binding] = []
    for (index, key) in keys.enumerated() {
      columns.append(.slot(window.keySlots[index], rows.rows.space.types[key]))
    }
    let keyNames = aggregation.keys.map { keyName(rows.names[$0]) }
    for aggregate in aggregation.aggregates {
      columns.append(.aggregate(aggregate, window, over: rows))
    }
    rows = StreamRows(
      rows: window.rows, columns: columns, names: keyNames + aggregation.aggregates.map(\.name))
  }

  private mutating func cluster(_ definition: TypedCluster, _ rows: inout StreamRows) {
    let over = rows
    let message = slot(of: over.columns[definition.message], at: over.rows)
    let keys = definition.keys.map { slot(of: over.columns[$0], at: over.rows) }
    for key in keys { noteHashed(key, over.rows) }
    guard let source = over.rows.source else { preconditionFailure("`cluster` reads rows of a source") }
    let ordered = self.ordered(over.rows, source, keys, .cluster(definition, messageSlot: message)) { known in
      guard case .cluster(let other, message) = known else { return false }
      return PatternOptions(other) == PatternOptions(definition)
    }
    rows.rows = ordered.rows
    rows.columns = over.columns.map { .carried($0, ordered, over: over) }
    let outputs: [Cluster.Output] = [.templateID, .template, .isNew, .isChanged, .parameters]
    for (name, output) in zip(TypedCluster.columnNames, outputs) {
      rows.columns.append(.clustered(output, ordered, name: name))
    }
    for value in definition.values {
      rows.columns.append(
        .clustered(.parameter(mask: value.mask, number: value.number), ordered, name: value.name))
    }
    rows.names += TypedCluster.columnNames + definition.values.map(\.name)
  }

  private mutating func rows(of input: StreamInput) -> StreamRows {
    switch input {
    case .source(let index):
      let source = self.source(index)
      return StreamRows(
        rows: source.root, columns: fields(of: source), names: source.definition.fields.map(\.name))
    case .stream(let index): return rows(ofStream: index)
    }
  }

  private mutating func join(_ definition: TypedJoin, _ rows: inout StreamRows) {
    let left = rows
    let right = self.rows(of: definition.right)
    let leftKeys = definition.leftKeys.map { slot(of: left.columns[$0], at: left.rows) }
    let rightKeys = definition.rightKeys.map { slot(of: right.columns[$0], at: right.rows) }
    for key in leftKeys { noteHashed(key, left.rows) }
    for key in rightKeys { noteHashed(key, right.rows) }
    var found: GatherPlan?
    for case .gather(let known, input: 0) in left.rows.consumers {
      guard case .join(let other) = known.definition, known.inputs[1].rows === right.rows,
        known.inputs[0].keySlots == leftKeys, known.inputs[1].keySlots == rightKeys,
        GatherPlan.joinIdentity(other) == GatherPlan.joinIdentity(definition)
      else { continue }
      found = known
    }
    let gather = found ?? add(
      .join(definition),
      [GatherPlan.Input(left.rows, keySlots: leftKeys), GatherPlan.Input(right.rows, keySlots: rightKeys)])
    rows.rows = gather.outputs[0].rows
    rows.columns = left.columns.map { .joined($0, gather, side: 0, over: left) }
    guard definition.kind != .unless else { return }
    rows.columns += right.columns.map { .joined($0, gather, side: 1, over: right) }
    rows.names += definition.addedColumns.map(\.name)
  }

  private mutating func trace(_ definition: TypedTrace, _ rows: inout StreamRows) {
    let over = rows
    let keys = definition.keys.map { slot(of: over.columns[$0], at: over.rows) }
    for key in keys { noteHashed(key, over.rows) }
    let columns = [
      definition.span, definition.parent, definition.service, definition.start, definition.duration, definition.error,
      definition.name,
    ]
    var slots: [Int?] = []
    for column in columns {
      if let column { slots.append(slot(of: over.columns[column], at: over.rows)) } else { slots.append(nil) }
    }
    var found: GatherPlan?
    for case .gather(let known, input: 0) in over.rows.consumers {
      guard case .trace(let other) = known.definition, known.inputs[0].keySlots == keys, known.spanSlots == slots,
        GatherPlan.traceIdentity(other) == GatherPlan.traceIdentity(definition)
      else { continue }
      found = known
    }
    let gather = found ?? add(.trace(definition), [GatherPlan.Input(over.rows, keySlots: keys)], spanSlots: slots)
    let output = definition.isEdges ? 1 : 0
    rows.rows = gather.outputs[output].rows
    rows.columns = gather.outputs[output].keySlots.map { .slot($0, gather.outputs[output].space.types[$0]) }
    for (column, typed) in zip(definition.isEdges ? Trace.Column.ofEdges : Trace.Column.ofTraces, definition.columns) {
      rows.columns.append(.traced(column, typed, gather, output: output))
    }
    rows.names = definition.keys.map { keyName(over.names[$0]) } + definition.columns.map(\.name)
  }

  private func add(
    _ definition: GatherPlan.Definition, _ inputs: [GatherPlan.Input], spanSlots: [Int?] = []
  ) -> GatherPlan {
    guard let source = inputs[0].rows.anySource else { preconditionFailure("rows come from a source in the end") }
    let gather = GatherPlan(
      number: plan.gathers.count, definition, inputs: inputs, source: source, spanSlots: spanSlots)
    plan.gathers.append(gather)
    for (number, input) in inputs.enumerated() { input.rows.consumers.append(.gather(gather, input: number)) }
    return gather
  }

  private mutating func slo(_ definition: TypedSlo, name: String, _ rows: inout StreamRows) {
    let over = rows
    let keys = definition.keys.map { slot(of: over.columns[$0], at: over.rows) }
    let word = definition.isBad ? "bad" : "good"
    let measure = slot(
      definition.measure, at: over.rows, over.columns, name: definition.measure.columnName(over.names) ?? word)
    let total = definition.total.map {
      slot($0, at: over.rows, over.columns, name: $0.columnName(over.names) ?? "total")
    }
    // In the order of the windows' keys, whose hash says which shard owns a key.
    let ordered = keys.sorted()
    let slo = SloPlan(
      name: name, input: over.rows, definition: definition, keySlots: ordered, measure: measure, total: total)
    over.rows.consumers.append(.slo(slo))
    rows.rows = slo.rows
    rows.columns = keys.compactMap { key in
      ordered.firstIndex(of: key).map { .slot(slo.keySlots[$0], slo.space.types[slo.keySlots[$0]]) }
    }
    rows.columns += definition.outputs.map { .slo($0, slo) }
    rows.names = definition.keys.map { over.names[$0] } + definition.outputs.map(\.name)
  }

  /// The exchange over these rows by these keys whose operation fits, or a new one.
  private func ordered(
    _ rows: RowSetPlan, _ source: SourcePlan, _ keys: [Int], _ operation: OrderedPlan.Operation,
    fits: (OrderedPlan.Operation) -> Bool
  ) -> OrderedPlan {
    for case .ordered(let known) in rows.consumers where known.keySlots == keys && fits(known.operation) { return known }
    let made = OrderedPlan(number: plan.ordered.count, input: rows, source: source, operation: operation, keySlots: keys)
    plan.ordered.append(made)
    rows.consumers.append(.ordered(made))
    return made
  }

  private mutating func detector(_ definition: TypedDetector, _ rows: inout StreamRows) {
    guard let spec = detectorSpec(definition.name) else { preconditionFailure("the checker knows its detectors") }
    if definition.isExchanged {
      let over = rows
      let keys = definition.keys.map { slot(of: over.columns[$0], at: over.rows) }
      for key in keys { noteHashed(key, over.rows) }
      guard let source = over.rows.source else { preconditionFailure("records are ordered once") }
      let ordered = self.ordered(over.rows, source, keys, .order) { if case .order = $0 { true } else { false } }
      rows.rows = ordered.rows
      rows.columns = over.columns.map { .carried($0, ordered, over: over) }
    }
    let over = rows
    let keys = definition.keys.map { slot(of: over.columns[$0], at: over.rows) }
    let argument = definition.argument.map { slot(of: over.columns[$0], at: over.rows) }
    var found: DetectorPlan?
    for case .detector(let known) in over.rows.consumers where known.isSame(definition, keys: keys, argument: argument) {
      found = known
    }
    let detector =
      found
      ?? DetectorPlan(
        number: plan.detectors.count, input: over.rows, spec: spec, definition: definition, keySlots: keys,
        argumentSlot: argument)
    if found == nil {
      plan.detectors.append(detector)
      over.rows.consumers.append(.detector(detector))
    }
    rows.rows = detector.rows
    if definition.isOwnRows {
      rows.columns = definition.keys.map { over.columns[$0] }
      rows.names = definition.keys.map { over.names[$0] }
    }
    rows.columns += definition.columns.indices.map { .detected($0, detector) }
    rows.names += definition.columns.map(\.name)
  }

  /// The slot of an aggregate's value among its window's rows; its state is made when somebody first reads it.
  private mutating func slot(
    of aggregate: TypedAggregate, in window: WindowPlan, over rows: StreamRows
  ) -> Int {
    guard let panes = window.panes else { preconditionFailure("a window hangs on panes") }
    let argument = aggregate.argument.map {
      slot($0, at: rows.rows, rows.columns, name: $0.columnName(rows.names) ?? aggregate.name)
    }
    let filter = aggregate.filter.map {
      slot($0, at: rows.rows, rows.columns, name: $0.text(columns: rows.names))
    }
    var described = PaneAggregation.State(
      function: aggregate.function, argument: argument, argumentType: aggregate.argument?.type,
      filter: filter,
      constants: sharesStateAcrossConstants(aggregate.function) ? [] : aggregate.constants)
    described.id = described.identity(in: panes.input.space)
    let state = panes.state(described)
    return window.slot(
      of: PaneAggregation.Output(
        state: state, constants: aggregate.constants, type: aggregate.type.physical),
      type: aggregate.type, name: aggregate.name)
  }

  /// Panes over these rows by these keys whose length fits the window's, or new ones.
  private mutating func panes(
    over rows: RowSetPlan, keys: [Int], window: WindowSpec, keyLimit: Int?
  ) -> PanesPlan {
    let pane = greatestCommonDivisor(window.sizeNanos, window.hopNanos)
    for case .panes(let known) in rows.consumers
    where known.keySlots == keys && known.family == window.paneFamily && known.keyLimit == keyLimit {
      // In shorter panes a limit would let more keys through: what a rule's limit does must not depend on other rules.
      guard keyLimit == nil || known.paneNanos == pane else { continue }
      known.paneNanos = greatestCommonDivisor(known.paneNanos, pane)
      return known
    }
    guard let source = rows.anySource else {
      preconditionFailure("rows hang on a source, a window or an ordered operator")
    }
    let level = plan.origin(of: rows).map { $0.level + 1 } ?? 0
    let panes = PanesPlan(
      number: plan.panes.count, input: rows, source: source, level: level, keySlots: keys,
      keyLimit: keyLimit, paneNanos: pane, family: window.paneFamily)
    plan.panes.append(panes)
    rows.consumers.append(.panes(panes))
    return panes
  }

  // MARK: Columns

  /// An expression over a stream's columns as one over slots.
  private mutating func resolve(
    _ expression: TypedExpr, at rows: RowSetPlan, _ columns: [Binding]
  ) -> TypedExpr {
    expression.mapColumns { index, type in
      switch columns[index] {
      case .derived(_, let inner, let over):
        // A renamed column or a constant needs no slot of its own.
        let resolved = resolve(inner, at: rows, over)
        switch resolved {
        case .column, .constant: return resolved
        default: return .column(slot(of: columns[index], at: rows), type)
        }
      case .slot, .aggregate, .carried, .clustered, .slo, .detected, .joined, .traced: return .column(slot(of: columns[index], at: rows), type)
      }
    }
  }

  private mutating func slot(of binding: Binding, at rows: RowSetPlan) -> Int {
    switch binding {
    case .slot(let slot, _):
      noteField(slot, rows)
      return slot
    case .aggregate(let aggregate, let window, let over):
      return slot(of: aggregate, in: window, over: over)
    case .carried(let inner, let ordered, let over):
      return ordered.carry(slot(of: inner, at: over.rows))
    case .clustered(let output, let ordered, let name):
      return ordered.slot(of: output, name: name)
    case .joined(let inner, let gather, let side, let over):
      return gather.slot(ofInput: side, slot(of: inner, at: over.rows), prefix: side == 0 ? nil : gather.joinName)
    case .traced(let column, let typed, let gather, let output):
      return gather.slot(of: column, typed, output: output)
    case .slo(let output, let slo): return slo.slot(of: output)
    case .detected(let column, let detector): return detector.slot(of: column)
    case .derived(let name, let expression, let over):
      return slot(expression, at: rows, over, name: name)
    }
  }

  private mutating func slot(
    _ expression: TypedExpr, at rows: RowSetPlan, _ columns: [Binding], name: String
  ) -> Int {
    let resolved = resolve(expression, at: rows, columns).canonical
    noteFields(resolved, rows)
    return rows.slot(for: resolved, name: name)
  }

  private func noteFields(_ expression: TypedExpr, _ rows: RowSetPlan) {
    expression.forEachColumn { noteField($0, rows) }
  }

  private func noteField(_ slot: Int, _ rows: RowSetPlan) {
    if case .field(let field) = rows.space.kinds[slot] { rows.source?.usedFields.insert(field) }
  }

  private func noteHashed(_ slot: Int, _ rows: RowSetPlan) {
    if case .field(let field) = rows.space.kinds[slot] { rows.source?.hashedFields.insert(field) }
  }
}

func greatestCommonDivisor(_ a: Int64, _ b: Int64) -> Int64 {
  var (a, b) = (a, b)
  while b != 0 { (a, b) = (b, a % b) }
  return a
}
