import Catalog
import Operators
import RuleLang
import Runtime

/// An operator that takes rows of one or more inputs in one order and makes other rows of them: a join, or traces.
public final class GatherPlan {
  enum Definition {
    case join(TypedJoin)
    /// `isEdges` and names of columns play no part: both kinds of rows come from one operator.
    case trace(TypedTrace)
  }

  /// A way in.
  final class Input {
    // Owned by the plan through the rows' consumers.
    unowned let rows: RowSetPlan
    let keySlots: [Int]
    /// Slots of `rows` that are taken along.
    private(set) var carried: [Int] = []

    init(_ rows: RowSetPlan, keySlots: [Int]) {
      self.rows = rows
      self.keySlots = keySlots
      for slot in keySlots + (rows.orderSlots ?? []) { _ = carry(slot) }
    }

    /// The index of a slot among those that are taken along.
    func carry(_ slot: Int) -> Int {
      if let known = carried.firstIndex(of: slot) { return known }
      carried.append(slot)
      return carried.count - 1
    }
  }

  /// Rows that come out, and what their columns are made of.
  final class Output {
    let space = SlotSpace()
    let rows: RowSetPlan
    fileprivate(set) var joined: [(column: Join.Column, slot: Int)] = []
    fileprivate(set) var traced: [(column: Trace.Column, slot: Int)] = []
    fileprivate(set) var keySlots: [Int] = []
    var users: Set<String> = []

    init(_ identity: String) { rows = RowSetPlan(origin: .gathered, space: space, identity: identity) }

    /// Whether somebody takes its rows.
    var isRead: Bool { !rows.users.isEmpty }
  }

  /// Among the plan's gathering operators; their exchanges stand behind all others, their flows behind those of sources.
  let number: Int
  let definition: Definition
  let inputs: [Input]
  let outputs: [Output]
  let operatorID: String
  /// The source by which people know it: of its first input.
  unowned let source: SourcePlan
  var users: Set<String> = []
  /// Columns of a span, as indexes among what the input takes along.
  let spanColumns: Trace.SpanColumns?
  /// Slots of the input that hold them: span, parent, service, start, duration, error, name.
  let spanSlots: [Int?]

  init(
    number: Int, _ definition: Definition, inputs: [Input], source: SourcePlan, spanSlots: [Int?] = []
  ) {
    self.number = number
    self.definition = definition
    self.inputs = inputs
    self.source = source
    self.spanSlots = spanSlots
    let keys = inputs.map { input in
      input.keySlots.map { "\(input.rows.space.types[$0].rawValue) \(input.rows.space.identities[$0])" }
        .joined(separator: ", ")
    }
    let names = inputs[0].keySlots.map { inputs[0].rows.space.fieldName($0) ?? "computed" }.joined(separator: ".")
    switch definition {
    case .join(let join):
      let kind = Self.joinIdentity(join)
      operatorID = Planner.operatorID(
        "join", "\(source.definition.name).\(names)",
        of: "\(inputs[0].rows.identity) by \(keys[0]) \(kind) \(inputs[1].rows.identity) by \(keys[1])")
      outputs = [Output("\(operatorID) rows")]
      spanColumns = nil
    case .trace(let trace):
      let spans = spanSlots.map { $0.map { inputs[0].rows.space.identities[$0] } ?? "none" }.joined(separator: ", ")
      operatorID = Planner.operatorID(
        "trace", "\(source.definition.name).\(names)",
        of: "\(inputs[0].rows.identity) trace by \(keys[0]) of \(spans) \(Self.traceIdentity(trace))")
      outputs = [Output("\(operatorID) traces"), Output("\(operatorID) edges")]
      let places = spanSlots.map { $0.map { inputs[0].carry($0) } }
      func place(_ index: Int) -> Int { places[index] ?? 0 }
      spanColumns = Trace.SpanColumns(
        span: place(0), parent: place(1), service: place(2), start: places[3], duration: place(4), error: places[5],
        name: places[6])
    }
    for output in outputs {
      output.rows.gather = self
      output.rows.output = output
      for index in inputs[0].keySlots.indices { output.keySlots.append(keySlot(index, of: output)) }
    }
  }

  static func joinIdentity(_ join: TypedJoin) -> String {
    "\(join.kind.rawValue) \(join.lowNanos) \(join.highNanos) \(join.isByWindow) \(join.rowLimit ?? 0) "
      + "\(join.keyLimit ?? 0) \(join.byteLimit ?? 0)"
  }

  static func traceIdentity(_ trace: TypedTrace) -> String {
    "\(trace.gapNanos) \(trace.longestNanos) \(trace.spanLimit ?? 0)"
  }

  private func keySlot(_ index: Int, of output: Output) -> Int {
    switch definition {
    case .join: slot(ofInput: 0, inputs[0].keySlots[index], prefix: nil)
    case .trace: traceSlot(.key(index), of: output, input: inputs[0].keySlots[index])
    }
  }

  /// The slot of a joined row that holds a slot of one side, made when somebody first reads it.
  func slot(ofInput side: Int, _ slot: Int, prefix: String?) -> Int {
    let output = outputs[0]
    let column = Join.Column(side: side, index: inputs[side].carry(slot))
    if let known = output.joined.first(where: { $0.column == column }) { return known.slot }
    let space = inputs[side].rows.space
    let made = output.space.add(
      .key(output.joined.count), space.types[slot], name: (prefix.map { "\($0)." } ?? "") + space.names[slot],
      identity: "\(side == 0 ? "left" : "right") \(space.identities[slot])", root: space.roots[slot])
    output.joined.append((column, made))
    return made
  }

  private func traceSlot(_ column: Trace.Column, of output: Output, input slot: Int) -> Int {
    let space = inputs[0].rows.space
    let made = output.space.add(
      .key(output.traced.count), space.types[slot], name: space.names[slot], identity: space.identities[slot],
      root: space.roots[slot])
    output.traced.append((column, made))
    return made
  }

  /// The slot of a column of traces or calls.
  func slot(of column: Trace.Column, _ typed: TypedColumn, output number: Int) -> Int {
    let output = outputs[number]
    if let known = output.traced.first(where: { $0.column == column }) { return known.slot }
    let made = output.space.add(
      .key(output.traced.count), typed.type, name: typed.name, identity: "\(operatorID) \(number) \(typed.name)")
    output.traced.append((column, made))
    return made
  }

  /// How far back before the time of a row that comes out rows decide about it.
  var reachNanos: Int64 {
    let before = inputs.map(\.rows.reachNanos).max() ?? 0
    switch definition {
    case .join(let join):
      return before + Join.reachNanos(join.kind.operation, low: join.lowNanos, high: join.highNanos)
    case .trace(let trace): return before + max(trace.gapNanos, trace.longestNanos)
    }
  }

  /// What columns of a join's right side are called by.
  var joinName: String? {
    if case .join(let join) = definition { return join.name }
    return nil
  }

  var kind: String {
    switch definition {
    case .join: "join"
    case .trace: "trace"
    }
  }

  /// What its flow is called in stored state and in commits.
  var flowName: String { "\(kind)-\(operatorID.suffix(12))" }

  /// `left join spans on trace_id == id within 30s`
  func title(_ names: [SlotNames]) -> String {
    func keys(_ input: Int) -> [String] { inputs[input].keySlots.map { names[input].name($0) } }
    switch definition {
    case .join(let join):
      let on = zip(keys(0), keys(1)).map { $0 == $1 ? $0 : "\($0) == \($1)" }.joined(separator: ", ")
      let word = join.kind == .left ? "left " : join.kind == .unless ? "unless " : ""
      return "\(word)\(join.name) on \(on)" + (join.isByWindow ? " window by window" : " \(join.withinText)")
    case .trace(let trace):
      return "by \(keys(0).joined(separator: ", ")) gap \(Value.duration(Double(trace.gapNanos)).ruleText)"
    }
  }
}

extension TypedJoin.Kind {
  var operation: Join.Kind {
    switch self {
    case .inner: .inner
    case .left: .left
    case .unless: .unless
    }
  }
}

extension Trace.Column {
  /// Columns in the order of `TypedTrace.traceColumns` and `edgeColumns`.
  static let ofTraces: [Trace.Column] = [
    .start, .duration, .root, .rootService, .error, .spans, .errors, .services, .criticalPath, .slowestSpan,
    .slowestService, .slowestTime, .selfTimes, .missingRoot, .orphans, .loops, .skewed, .lostSpans,
  ]
  static let ofEdges: [Trace.Column] = [.caller, .callee, .error, .duration, .start]
}

extension RowSetPlan {
  /// What puts its rows of one time in order; nil for rows of a source, which have partitions and offsets.
  var orderSlots: [Int]? {
    if let ordered { return [ordered.partitionSlot, ordered.offsetSlot] }
    return rowKeySlots ?? output?.keySlots
  }

  /// How far apart its windows end; 0 for rows of none.
  var hopNanos: Int64 {
    if let slo { return slo.definition.stepNanos }
    if let window { return window.spec.hopNanos }
    if case .join(let join)? = gather?.definition, join.isByWindow { return gather?.inputs[0].rows.hopNanos ?? 0 }
    return 0
  }

  /// The source by which people know them.
  var anySource: SourcePlan? {
    source ?? window?.panes?.source ?? slo?.input.anySource ?? ordered?.source ?? gather?.source
  }
}

extension Plan {
  /// The flow in which rows come out, and the level of the operator from which they do; nil for a source's own rows.
  func origin(of rows: RowSetPlan) -> Flow.Input? {
    if let gather = rows.gather { return Flow.Input(flow: sources.count + gather.number, level: 0) }
    if let slo = rows.slo { return origin(of: slo.input) }
    if let panes = rows.window?.panes { return Flow.Input(flow: flow(of: panes.input), level: panes.level) }
    if let ordered = rows.ordered { return Flow.Input(flow: index(of: ordered.source), level: 0) }
    return nil
  }

  /// The flow to which operators over these rows belong.
  func flow(of rows: RowSetPlan) -> Int {
    if let origin = origin(of: rows) { return origin.flow }
    return rows.source.map { index(of: $0) } ?? 0
  }

  private func index(of source: SourcePlan) -> Int { sources.firstIndex { $0 === source } ?? 0 }

  /// The flows behind those of the sources.
  var gatheredFlows: [Flow] {
    gathers.map { gather in
      let origins = gather.inputs.map { origin(of: $0.rows) }
      let direct = zip(gather.inputs, origins).filter { $1 == nil }.compactMap { input, _ in
        input.rows.source.map { index(of: $0) }
      }
      var inputs: [Flow.Input] = []
      for case let origin? in origins where !inputs.contains(origin) { inputs.append(origin) }
      return Flow(name: gather.flowName, sources: Set(direct).sorted(), inputs: inputs)
    }
  }
}
