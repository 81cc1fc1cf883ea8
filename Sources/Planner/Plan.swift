import Catalog
import Operators
import RuleLang
import Runtime

/// The shared logical plan: row sets hang on a source or on windows, pane aggregations hang on row sets. Built by
/// `PlanBuilder`, which makes each distinct node once, printed by `explain`, turned into a `Graph` by `lower`.
public final class Plan {
  public internal(set) var sources: [SourcePlan] = []
  public internal(set) var panes: [PanesPlan] = []
  public internal(set) var ordered: [OrderedPlan] = []
  public internal(set) var routers: [RouterPlan] = []
  public internal(set) var detectors: [DetectorPlan] = []
  /// Joins and traces; each stands behind those whose rows it takes.
  public internal(set) var gathers: [GatherPlan] = []
  /// Names of metrics and alerts, as `explain` and `/metrics` show them.
  public internal(set) var rules: [String] = []
}

/// Columns of rows that flow through one part of the plan, by virtual slot: a number that never changes while the plan
/// grows. Lowering gives the slots that are used their places in a batch.
final class SlotSpace {
  enum Kind {
    case field(Int)
    case key(Int)
    case output(Int)
    case computed
  }
  private(set) var kinds: [Kind] = []
  private(set) var types: [ValueType] = []
  private(set) var names: [String] = []
  /// What each slot is, whatever its number and its name in this plan.
  private(set) var identities: [String] = []
  /// The source's field that a field or key slot passes on, by name.
  private(set) var roots: [String?] = []
  /// The slots that are not computed from which each slot is made; itself when it is not computed.
  private(set) var bases: [Set<Int>] = []

  func add(
    _ kind: Kind, _ type: ValueType, name: String, identity: String, root: String? = nil, bases: Set<Int>? = nil
  ) -> Int {
    self.bases.append(bases ?? [kinds.count])
    kinds.append(kind)
    types.append(type)
    names.append(name)
    identities.append(identity)
    roots.append(root)
    return kinds.count - 1
  }

  func identity(_ expression: TypedExpr) -> String { expression.identity { identities[$0] } }

  func bases(of expression: TypedExpr) -> Set<Int> {
    expression.columnIndexes.reduce(into: []) { $0.formUnion(bases[$1]) }
  }
}

/// A used source.
public final class SourcePlan {
  let definition: TypedSource
  let space = SlotSpace()
  /// Rows before the requirements have been checked: what those compute.
  let arriving: RowSetPlan
  /// Rows in time that meet all requirements.
  let root: RowSetPlan
  var requirements: [(slot: Int, reason: String)] = []
  /// Fields that somebody reads.
  var usedFields: Set<Int> = []
  /// String fields that are grouped or dispatched by.
  var hashedFields: Set<Int> = []

  init(_ definition: TypedSource) {
    self.definition = definition
    for (index, field) in definition.fields.enumerated() {
      _ = space.add(.field(index), field.type, name: field.name, identity: field.identity, root: field.name)
    }
    arriving = RowSetPlan(origin: .arriving, space: space, identity: "arriving \(definition.identity)")
    root = RowSetPlan(origin: .source, space: space, identity: definition.identity)
    root.parent = arriving
    usedFields.insert(definition.time.field)
  }
}

/// A set of rows: all of a source's, all of a window's, or those of another set that satisfy a condition.
final class RowSetPlan {
  enum Origin {
    case arriving
    case source
    case window
    case ordered
    case gathered
    case slo
    case detected
    case filter(TypedExpr)
  }
  enum Consumer {
    case panes(PanesPlan)
    case ordered(OrderedPlan)
    /// And which of its inputs these rows are.
    case gather(GatherPlan, input: Int)
    case slo(SloPlan)
    case detector(DetectorPlan)
    case pattern(PatternPlan)
    case anomaly(AnomalyPlan)
    case metric(MetricPlan)
    case alert(AlertPlan)
  }
  let origin: Origin
  let space: SlotSpace
  /// Which rows these are: equal in two plans where they are the same.
  let identity: String
  weak var parent: RowSetPlan?
  /// Set on the root of a source, a window, an ordered operator or an SLO, and on what is taken from it.
  weak var source: SourcePlan?
  weak var window: WindowPlan?
  weak var ordered: OrderedPlan?
  weak var gather: GatherPlan?
  /// Which of the operator's outputs.
  weak var output: GatherPlan.Output?
  weak var slo: SloPlan?
  /// Of a detector's own rows: which.
  weak var detector: DetectorPlan?
  /// Columns computed for this set's rows, in order, and where to find them again.
  private(set) var computed: [(slot: Int, expression: TypedExpr)] = []
  private var slotOf: [TypedExpr: Int] = [:]
  private(set) var children: [(condition: TypedExpr, rows: RowSetPlan)] = []
  private var childOf: [TypedExpr: RowSetPlan] = [:]
  /// Of a source's or a window's rows: all sets taken from them, by identity.
  private var taken: [String: Weak] = [:]
  private struct Weak { weak var rows: RowSetPlan? }
  /// Identities of the conditions that narrow a source's or a window's rows down to these.
  private let conditions: Set<String>
  var consumers: [Consumer] = []
  /// Rules that depend on this set.
  var users: Set<String> = []

  init(origin: Origin, space: SlotSpace, identity: String, conditions: Set<String> = []) {
    self.origin = origin
    self.space = space
    self.identity = identity
    self.conditions = conditions
  }

  /// The source's, the window's or the detector's rows that these are taken from.
  private var top: RowSetPlan {
    var rows = self
    while case .filter = rows.origin, let parent = rows.parent { rows = parent }
    return rows
  }

  /// The slot that holds an expression over slots for this set's rows, computed here unless a wider set has it already.
  func slot(for expression: TypedExpr, name: String) -> Int {
    if case .column(let slot, _) = expression { return slot }
    var place: RowSetPlan? = self
    while let rows = place {
      if let slot = rows.slotOf[expression] { return slot }
      place = rows.parent
    }
    // Hashed, or the text of a column of columns of columns would grow without bounds.
    let identity = "=\(StableHash(space.identity(expression)).digits)"
    let slot = space.add(
      .computed, expression.type, name: name, identity: identity, bases: space.bases(of: expression))
    computed.append((slot, expression))
    slotOf[expression] = slot
    return slot
  }

  /// Where two or more children test one column for equality: a lookup of its value finds the child.
  var dispatches: [(slot: Int, branches: [(value: Value, rows: RowSetPlan)])] {
    var bySlot: [Int: [(value: Value, rows: RowSetPlan)]] = [:]
    var slots: [Int] = []
    for (condition, child) in children {
      guard let slot = condition.dispatchSlot,
        case .compare(_, _, .constant(let value, _)) = condition
      else { continue }
      if bySlot[slot] == nil { slots.append(slot) }
      bySlot[slot, default: []].append((value, child))
    }
    return slots.compactMap { slot in
      guard let branches = bySlot[slot], branches.count > 1 else { return nil }
      return (slot, branches)
    }
  }

  /// The children that are tried one after another.
  var branches: [(condition: TypedExpr, rows: RowSetPlan)] {
    let dispatched = Set(dispatches.map(\.slot))
    return children.filter { child in
      guard let slot = child.condition.dispatchSlot else { return true }
      return !dispatched.contains(slot)
    }
  }

  func filtered(by condition: TypedExpr) -> RowSetPlan {
    if let known = childOf[condition] { return known }
    // The same conditions in another order are the same rows, and must have one identity: they are one set.
    let top = top
    let conditions = conditions.union([space.identity(condition)])
    let identity = "\(top.identity) where \(conditions.sorted(by: utf8Precedes).joined(separator: " and "))"
    if conditions == self.conditions { return self }
    if let known = top.taken[identity]?.rows { return known }
    let rows = RowSetPlan(
      origin: .filter(condition), space: space, identity: identity, conditions: conditions)
    top.taken[identity] = Weak(rows: rows)
    rows.parent = self
    rows.source = source
    rows.window = window
    rows.ordered = ordered
    rows.gather = gather
    rows.output = output
    rows.slo = slo
    children.append((condition, rows))
    childOf[condition] = rows
    return rows
  }

  /// Takes out sets that no rule depends on: steps to rows that were there already by another way.
  func prune() {
    children.removeAll { $0.rows.users.isEmpty }
    for child in children { child.rows.prune() }
    for case .panes(let panes) in consumers { for window in panes.windows { window.rows.prune() } }
    for case .ordered(let ordered) in consumers { ordered.rows.prune() }
    for case .gather(let gather, input: 0) in consumers { for output in gather.outputs { output.rows.prune() } }
    for case .slo(let slo) in consumers { slo.rows.prune() }
    for case .detector(let detector) in consumers { detector.rows.prune() }
  }

  /// Notes that a rule depends on this set, and so on everything before it.
  func note(user: String) {
    var place: RowSetPlan? = self
    while let rows = place {
      rows.users.insert(user)
      place = rows.parent
    }
    if let window {
      window.users.insert(user)
      window.panes?.users.insert(user)
      window.panes?.input.note(user: user)
    }
    if let ordered {
      ordered.users.insert(user)
      ordered.input.note(user: user)
    }
    // Once for each rule: rows that are joined with themselves, again and again, have many ways back.
    if let gather, gather.users.insert(user).inserted {
      for input in gather.inputs { input.rows.note(user: user) }
    }
    if let slo {
      slo.users.insert(user)
      slo.input.note(user: user)
    }
  }
}

/// Panes of partial aggregates over a row set by one list of keys.
public final class PanesPlan {
  let number: Int
  // Both own this as a consumer, and live as long as the plan does.
  unowned let input: RowSetPlan
  unowned let source: SourcePlan
  let level: Int
  let keySlots: [Int]
  /// What the rules say; panes with a limit are cut by it, so they are not shared with windows of other panes.
  let keyLimit: Int?
  var paneNanos: Int64
  /// Which windows may share these panes.
  let family: Int64
  /// What the panes hold, but for which aggregates: see `PaneAggregation.operatorID`.
  let operatorID: String
  private(set) var states: [PaneAggregation.State] = []
  var windows: [WindowPlan] = []
  var users: Set<String> = []

  init(
    number: Int, input: RowSetPlan, source: SourcePlan, level: Int, keySlots: [Int], keyLimit: Int?,
    paneNanos: Int64, family: Int64
  ) {
    self.number = number
    self.input = input
    self.source = source
    self.level = level
    self.keySlots = keySlots
    self.keyLimit = keyLimit
    self.paneNanos = paneNanos
    self.family = family
    let keys = keySlots.map { "\(input.space.types[$0].rawValue) \(input.space.identities[$0])" }
    let names = keySlots.map { input.space.fieldName($0) ?? "computed" }
    operatorID = Planner.operatorID(
      "window", "\(source.definition.name).\(names.isEmpty ? "all" : names.joined(separator: "."))",
      of: "\(input.identity) by \(keys.joined(separator: ", ")) family \(family)"
        + (keyLimit.map { " limit \($0) in \(paneNanos)" } ?? ""))
  }

  /// The index of a state, made once however many aggregates share it.
  func state(_ state: PaneAggregation.State) -> Int {
    if let known = states.firstIndex(of: state) { return known }
    states.append(state)
    return states.count - 1
  }
}

/// Windows of one size and hop over panes, and their rows.
public final class WindowPlan {
  weak var panes: PanesPlan?
  let spec: WindowSpec
  let space = SlotSpace()
  let rows: RowSetPlan
  let keySlots: [Int]
  private(set) var outputs: [(output: PaneAggregation.Output, slot: Int)] = []
  var users: Set<String> = []

  init(_ panes: PanesPlan, _ spec: WindowSpec) {
    self.panes = panes
    self.spec = spec
    let input = panes.input.space
    var keySlots: [Int] = []
    for (index, slot) in panes.keySlots.enumerated() {
      keySlots.append(
        space.add(
          .key(index), input.types[slot], name: input.names[slot], identity: input.identities[slot],
          root: input.roots[slot]))
    }
    self.keySlots = keySlots
    rows = RowSetPlan(
      origin: .window, space: space,
      identity: "\(panes.operatorID) window \(spec.sizeNanos) every \(spec.hopNanos)")
    rows.window = self
  }

  /// The slot of an aggregate's value, added when somebody first asks for it.
  func slot(of output: PaneAggregation.Output, type: ValueType, name: String) -> Int {
    if let known = outputs.first(where: { $0.output == output && space.types[$0.slot] == type }) {
      return known.slot
    }
    let constants = output.constants.map(\.identity).joined(separator: " ")
    let identity = "\(panes?.states[output.state].id ?? "") \(constants) \(type.rawValue)"
    let slot = space.add(.output(outputs.count), type, name: name, identity: identity)
    outputs.append((output, slot))
    return slot
  }
}

final class MetricPlan {
  let definition: TypedMetric
  let labels: [Int]
  let labelNames: [String]
  let value: Int
  let windowNanos: Int64
  init(_ definition: TypedMetric, labels: [Int], labelNames: [String], value: Int, windowNanos: Int64) {
    self.definition = definition
    self.labels = labels
    self.labelNames = labelNames
    self.value = value
    self.windowNanos = windowNanos
  }
}

final class AlertPlan {
  let definition: TypedAlert
  let condition: Int
  /// Name and slot of each key.
  let keys: [(name: String, slot: Int)]
  let labels: [Template]
  let annotations: [Template]
  let values: [(name: String, slot: Int)]
  let windowNanos: Int64
  /// The rule's name and what its state means: which rows of which windows, told apart by which keys, and the condition.
  /// Neither how long it must hold, nor what is said of it, nor how bad it is: those may change under an alert that fires.
  let operatorID: String
  weak var input: RowSetPlan?
  /// The windows whose ends are its evaluations.
  weak var window: WindowPlan?
  /// How often that is.
  let hopNanos: Int64
  /// How far back in the source's time its rows reach.
  let reachNanos: Int64
  /// Those that name it, or all alerts.
  var maintenances: [TypedMaintenance] = []
  /// What tells of it instead.
  var group: TypedGroup?
  /// By each `inhibit` in which it is a target, what stands behind `when`.
  var inhibitedBy: [String] = []
  /// Who hears of its changes of state, as which of its members.
  weak var router: RouterPlan?
  var member = 0
  var writes = AlertRoute.Writes.everything
  init(
    _ definition: TypedAlert, over rows: RowSetPlan, condition: Int, keys: [(name: String, slot: Int)],
    labels: [Template], annotations: [Template], values: [(name: String, slot: Int)],
    windowNanos: Int64
  ) {
    input = rows
    window = rows.baseWindow
    hopNanos = rows.baseWindow?.spec.hopNanos ?? windowNanos
    reachNanos = rows.reachNanos
    self.definition = definition
    self.condition = condition
    self.keys = keys
    self.labels = labels
    self.annotations = annotations
    self.values = values
    self.windowNanos = windowNanos
    let space = rows.space
    if definition.burn != nil {
      // A threshold that is changed under an alert that fires is met or not at the next evaluation.
      operatorID = Planner.operatorID(
        "burn", "\(definition.name).\(definition.severity)",
        of: "\(definition.name) \(definition.severity) on \(rows.identity) by \(keys.map(\.name).joined(separator: ", "))")
      return
    }
    let told = keys.map { "\($0.name) \(space.types[$0.slot].rawValue) \(space.identities[$0.slot])" }
    operatorID = Planner.operatorID(
      "alert", definition.name,
      of: "\(definition.name) on \(rows.identity) by \(told.joined(separator: ", ")) "
        + "when \(space.identities[condition])")
  }
}
