import Catalog
import Operators
import RuleLang
import Runtime

/// A detector over rows that come in the order of each series, and the rows behind it: the same with its columns, or rows
/// of its own. Neither needs an exchange: whoever owns the rows' keys owns the series.
public final class DetectorPlan {
  let number: Int
  /// Owns this as a consumer, and lives as long as the plan does.
  unowned let input: RowSetPlan
  let spec: DetectorSpec
  let definition: TypedDetector
  let keySlots: [Int]
  let argumentSlot: Int?
  let operatorID: String
  let rows: RowSetPlan
  /// Slots of its columns, by their place in the spec: made when somebody first reads one.
  private(set) var outputs: [Int: Int] = [:]
  var users: Set<String> { rows.users }

  init(
    number: Int, input: RowSetPlan, spec: DetectorSpec, definition: TypedDetector, keySlots: [Int], argumentSlot: Int?
  ) {
    self.number = number
    self.input = input
    self.spec = spec
    self.definition = definition
    self.keySlots = keySlots
    self.argumentSlot = argumentSlot
    let space = input.space
    let keys = keySlots.map { "\(space.types[$0].rawValue) \(space.identities[$0])" }
    operatorID = Planner.operatorID(
      spec.name, argumentSlot.map { space.names[$0] } ?? spec.name,
      of: "\(input.identity) \(spec.name) \(argumentSlot.map { space.identities[$0] } ?? "") "
        + "by \(keys.joined(separator: ", ")) \(Self.fingerprint(definition, spec))")
    rows = RowSetPlan(origin: .detected, space: space, identity: "\(operatorID) rows")
    rows.parent = input
    rows.detector = self
    rows.source = input.source
    rows.window = input.window
    rows.ordered = input.ordered
    rows.slo = input.slo
    rows.gather = input.gather
    rows.output = input.output
  }

  /// What decides what a series keeps and what comes of it: the options, whether the rule writes them or leaves them out.
  static func fingerprint(_ definition: TypedDetector, _ spec: DetectorSpec) -> String {
    "\(makeDetector(spec, definition.settings).fingerprint) limit \(definition.seriesMax)"
  }

  func isSame(_ other: TypedDetector, keys: [Int], argument: Int?) -> Bool {
    keySlots == keys && argumentSlot == argument && definition.name == other.name
      && Self.fingerprint(definition, spec) == Self.fingerprint(other, spec)
  }

  /// The slots by which the rows have their owner.
  var ownerSlots: [Int] { input.rowKeySlots ?? input.output?.keySlots ?? input.ordered?.ownerSlots ?? [] }

  func slot(of column: Int) -> Int {
    if let known = outputs[column] { return known }
    let space = input.space
    let made = space.add(
      .computed, definition.columns[column].type, name: definition.columns[column].name,
      identity: "\(operatorID) \(spec.columns[column].name)",
      bases: (keySlots + [argumentSlot].compactMap { $0 }).reduce(into: []) { $0.formUnion(space.bases[$1]) })
    outputs[column] = made
    return made
  }

  /// `zscore p99 by service threshold 3`
  func title(_ names: SlotNames) -> String {
    var title = spec.name
    if let argumentSlot { title += " \(names.name(argumentSlot))" }
    if !keySlots.isEmpty { title += " by \(keySlots.map { names.name($0) }.joined(separator: ", "))" }
    return title
  }

  var stateText: String {
    let bytes = spec.stateBytes(definition.settings)
    let forget = Value.duration(Double(definition.settings.nanos("forget", in: spec))).ruleText
    return "\(bytes) bytes a series, at most about \(definition.seriesMax) of them; forgotten after \(forget) without a row"
  }
}

final class AnomalyPlan {
  let definition: TypedAnomaly
  let labels: [(name: String, slot: Int)]
  let flag: Int?
  let values: [(name: String, slot: Int)]
  let window: WindowSpec?
  /// Of records: the slot of their offset.
  let offset: Int?
  let operatorID: String
  init(
    _ definition: TypedAnomaly, over rows: RowSetPlan, labels: [(name: String, slot: Int)], flag: Int?,
    values: [(name: String, slot: Int)], window: WindowSpec?, offset: Int?
  ) {
    self.definition = definition
    self.labels = labels
    self.flag = flag
    self.values = values
    self.window = window
    self.offset = offset
    let space = rows.space
    let told = labels.map { "\($0.name) \(space.types[$0.slot].rawValue) \(space.identities[$0.slot])" }
    operatorID = Planner.operatorID(
      "anomaly", definition.name,
      of: "\(definition.name) on \(rows.identity) by \(told.joined(separator: ", ")) "
        + "when \(flag.map { space.identities[$0] } ?? "there")")
  }

  /// Whether it has open episodes to keep: records without a flag are one each.
  var keepsState: Bool { flag != nil || window != nil }
}
