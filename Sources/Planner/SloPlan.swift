import Catalog
import Operators
import RuleLang
import Runtime

/// An SLO over rows of windows, and the rows that it gives at each evaluation.
public final class SloPlan {
  let name: String
  // Owns this as a consumer, and lives as long as the plan does.
  unowned let input: RowSetPlan
  let definition: TypedSlo
  let measure: Int
  let total: Int?
  /// Key slots of the input, in the order of its windows' keys.
  let inputKeySlots: [Int]
  /// What is counted of which rows by which keys: neither the objective nor the burn conditions, which may change over counts
  /// that stay.
  let operatorID: String
  let space = SlotSpace()
  let rows: RowSetPlan
  let keySlots: [Int]
  private(set) var outputs: [(output: SloColumn, slot: Int)] = []
  var users: Set<String> = []

  init(
    name: String, input: RowSetPlan, definition: TypedSlo, keySlots inputKeySlots: [Int], measure: Int, total: Int?
  ) {
    self.name = name
    self.input = input
    self.definition = definition
    self.inputKeySlots = inputKeySlots
    self.measure = measure
    self.total = total
    var keySlots: [Int] = []
    for (index, slot) in inputKeySlots.enumerated() {
      keySlots.append(
        space.add(
          .key(index), input.space.types[slot], name: input.space.names[slot], identity: input.space.identities[slot],
          root: input.space.roots[slot]))
    }
    self.keySlots = keySlots
    let of = total.map { " of \(input.space.identities[$0])" } ?? ""
    let hint = inputKeySlots.map { input.space.fieldName($0) ?? "computed" }.joined(separator: ".")
    operatorID = Planner.operatorID(
      "slo", hint.isEmpty ? name : "\(name).\(hint)",
      of: "\(name) on \(input.identity) \(definition.isBad ? "bad" : "good") \(input.space.identities[measure])\(of)")
    rows = RowSetPlan(origin: .slo, space: space, identity: "\(operatorID) rows")
    rows.slo = self
  }

  /// The windows whose ends are its evaluations; below another SLO's rows, that one's.
  var base: WindowPlan? { input.window ?? input.slo?.base }

  /// The slot of a column behind the keys, made when somebody first reads it.
  func slot(of output: SloColumn) -> Int {
    if let known = outputs.first(where: { $0.output == output }) { return known.slot }
    let slot = space.add(
      .output(outputs.count), output.type, name: output.name, identity: "\(operatorID) \(output.identity(definition))")
    outputs.append((output, slot))
    return slot
  }

  /// How far back in the source's time a row reaches.
  var reachNanos: Int64 {
    let longest = definition.burnWindows.last ?? 0
    return longest + input.reachNanos
  }

  /// `by service good status < 500` as the input's names have it.
  func title(_ names: SlotNames) -> String {
    let by = inputKeySlots.isEmpty ? "" : " by \(inputKeySlots.map { names.name($0) }.joined(separator: ", "))"
    return "\(name): \(definition.objectiveText) over \(definition.period.text)\(by)"
  }
}

extension SloColumn {
  /// What the column means, whatever the rules call it.
  fileprivate func identity(_ slo: TypedSlo) -> String {
    switch self {
    case .good, .total, .errorRatio, .periodLeft: "\(name) over \(slo.period.text)"
    case .since: name
    case .events: name
    case .burn: "\(name) of \(slo.objective)"
    case .budgetLeft: "\(name) of \(slo.objective) over \(slo.period.text)"
    case .exhaustsIn: "\(name) of \(slo.objective) over \(slo.period.text) by \(slo.exhaustionNanos)"
    }
  }
}

extension RowSetPlan {
  /// The windows that these rows come from, through SLOs as well.
  var baseWindow: WindowPlan? { window ?? slo?.base }

  /// How far back in the source's time a row reaches.
  var reachNanos: Int64 { window?.reachNanos ?? slo?.reachNanos ?? gather?.reachNanos ?? 0 }

  /// The slots that tell rows of one time apart, in the order of keys.
  var rowKeySlots: [Int]? { window?.keySlots ?? slo?.keySlots }
}
