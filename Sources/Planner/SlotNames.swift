import Catalog
import Operators
import RuleLang

/// What the slots of one space are called when the plan is shown.
///
/// Rules name columns each for themselves, and one slot may have many names, or one name stand for two slots. A slot is called
/// as the first rule that asked for it calls it; where that name is taken, by what it is computed from.
final class SlotNames {
  private let space: SlotSpace
  private var computed: [Int: TypedExpr] = [:]
  /// Aggregates as a rule would spell them, by the slot of their value.
  private var aggregates: [Int: String] = [:]
  /// Names that two slots of different meaning have.
  private var ambiguous: Set<String> = []
  private var identities: [Int: String] = [:]
  /// Of keys: where they come from.
  private let upstream: (names: SlotNames, slots: [Int])?

  init(_ source: SourcePlan) {
    space = source.space
    upstream = nil
    collect(source.arriving)
    collect(source.root)
    findAmbiguous()
  }

  init(_ window: WindowPlan, over names: SlotNames) {
    space = window.space
    upstream = (names, window.panes?.keySlots ?? [])
    for (output, slot) in window.outputs {
      guard let state = window.panes?.states[output.state] else { continue }
      aggregates[slot] = names.text(of: state, constants: output.constants)
    }
    collect(window.rows)
    findAmbiguous()
  }

  init(_ ordered: OrderedPlan, over names: SlotNames) {
    space = ordered.space
    upstream = (names, ordered.carried)
    collect(ordered.rows)
    findAmbiguous()
  }

  init(_ output: GatherPlan.Output) {
    space = output.space
    upstream = nil
    collect(output.rows)
    findAmbiguous()
  }

  /// What the slots of any rows are called.
  convenience init(of rows: RowSetPlan) {
    if let slo = rows.slo {
      self.init(slo, over: slo.inputNames)
    } else if let output = rows.output {
      self.init(output)
    } else if let window = rows.window, let panes = window.panes {
      self.init(window, over: SlotNames(of: panes.input))
    } else if let ordered = rows.ordered {
      self.init(ordered, over: ordered.inputNames)
    } else if let source = rows.source {
      self.init(source)
    } else {
      preconditionFailure("rows come from somewhere")
    }
  }

  init(_ slo: SloPlan, over names: SlotNames) {
    space = slo.space
    upstream = (names, slo.inputKeySlots)
    collect(slo.rows)
    findAmbiguous()
  }

  private func findAmbiguous() {
    var meaning: [String: String] = [:]
    for (slot, name) in space.names.enumerated() {
      let identity = identity(slot)
      if meaning.updateValue(identity, forKey: name) ?? identity != identity { ambiguous.insert(name) }
    }
  }

  private func collect(_ rows: RowSetPlan) {
    for (slot, expression) in rows.computed { computed[slot] = expression }
    for child in rows.children { collect(child.rows) }
  }

  /// What a slot is called.
  func name(_ slot: Int) -> String {
    if ambiguous.contains(space.names[slot]) {
      if let aggregate = aggregates[slot] { return aggregate }
      // One level only: what stands inside keeps its name, so that a text cannot grow without bounds.
      if let expression = computed[slot] { return "(\(expression.text { space.names[$0] }))" }
    }
    return space.names[slot]
  }

  func text(_ expression: TypedExpr) -> String { expression.text { name($0) } }

  /// The aggregate whose value a slot of a window's rows holds, as a rule would spell it.
  func aggregate(_ slot: Int) -> String? { aggregates[slot] }

  /// What a slot is computed from; its name for one that is not computed.
  func definition(_ slot: Int) -> String { computed[slot].map { text($0) } ?? name(slot) }

  /// `error_ratio = errors / n`; the expression alone where it has no name of its own and is called by its text.
  func assignment(_ slot: Int) -> String {
    let name = space.names[slot]
    let isText = name.utf8.contains { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "(") }
    return isText ? definition(slot) : "\(name) = \(definition(slot))"
  }

  /// An aggregate as a rule would spell it: `sum(latency, where status >= 500)`.
  func text(of state: PaneAggregation.State, constants: [Value]) -> String {
    var inside = state.argument.map { [name($0)] } ?? []
    inside += constants.map(\.ruleText)
    if let filter = state.filter { inside.append("where \(name(filter))") }
    return "\(state.function)(\(inside.joined(separator: ", ")))"
  }

  /// A text that is the same for the same values whatever rules call them.
  func identity(_ slot: Int) -> String {
    if let known = identities[slot] { return known }
    let identity: String
    switch space.kinds[slot] {
    case .field: identity = space.names[slot]
    case .key(let index):
      // Columns of joins and traces are what their operator says.
      identity = upstream.map { $0.names.identity($0.slots[index]) } ?? space.identities[slot]
    case .output: identity = aggregates[slot] ?? space.names[slot]
    case .computed: identity = computed[slot].map { shortHash(self.identity($0)) } ?? space.names[slot]
    }
    identities[slot] = identity
    return identity
  }

  func identity(_ expression: TypedExpr) -> String { expression.text { identity($0) } }
}

/// Eight hexadecimal digits of FNV-1a.
func shortHash(_ text: String) -> String {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
  let digits = String(UInt32(truncatingIfNeeded: hash ^ hash >> 32), radix: 16)
  return String(repeating: "0", count: 8 - digits.utf8.count) + digits
}
