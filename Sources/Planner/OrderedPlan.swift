import Catalog
import Operators
import RuleLang
import Runtime

/// The exchange that brings rows of a source into their order at the owners of their keys, the operator that goes through them
/// there, and the rows that come out of it.
public final class OrderedPlan {
  /// Among the plan's ordered operators; their exchanges stand behind those of panes.
  let number: Int
  // Owned by the plan, and own this through their consumers.
  unowned let input: RowSetPlan
  unowned let source: SourcePlan
  /// What is done with the rows at their owner.
  enum Operation {
    case cluster(TypedCluster, messageSlot: Int)
    /// Nothing: they come in their order, for whoever stands behind.
    case order
  }
  let operation: Operation
  let keySlots: [Int]
  let operatorID: String
  let space = SlotSpace()
  let rows: RowSetPlan
  /// Slots of the input that rows take along, in the order of `space`'s keys: the operator's keys, the message, and what
  /// somebody reads behind it.
  private(set) var carried: [Int] = []
  private var slotOfCarried: [Int: Int] = [:]
  private(set) var outputs: [(output: Cluster.Output, slot: Int)] = []
  let partitionSlot: Int
  let offsetSlot: Int
  var users: Set<String> = []

  init(number: Int, input: RowSetPlan, source: SourcePlan, operation: Operation, keySlots: [Int]) {
    self.number = number
    self.input = input
    self.source = source
    self.operation = operation
    self.keySlots = keySlots
    let keys = keySlots.map { "\(input.space.types[$0].rawValue) \(input.space.identities[$0])" }
    let names = keySlots.map { input.space.fieldName($0) ?? "computed" }
    let what: String
    switch operation {
    case .cluster(let definition, let messageSlot):
      let fingerprint = String(PatternOptions(definition).fingerprint, radix: 16)
      what = "\(input.identity) cluster \(input.space.identities[messageSlot]) by \(keys.joined(separator: ", ")) \(fingerprint)"
    case .order: what = "\(input.identity) order by \(keys.joined(separator: ", "))"
    }
    operatorID = Planner.operatorID(
      operation.word, "\(source.definition.name).\(names.isEmpty ? "all" : names.joined(separator: "."))", of: what)
    partitionSlot = space.add(.output(0), .int, name: "partition", identity: "\(operatorID) partition")
    offsetSlot = space.add(.output(1), .int, name: "offset", identity: "\(operatorID) offset")
    rows = RowSetPlan(origin: .ordered, space: space, identity: "\(operatorID) rows")
    rows.ordered = self
    for slot in keySlots + operation.slots { _ = carry(slot) }
  }

  /// The keys as slots of the rows that come out.
  var ownerSlots: [Int] { keySlots.map { carry($0) } }

  /// The slot behind the operator of a slot of its input.
  func carry(_ slot: Int) -> Int {
    if let known = slotOfCarried[slot] { return known }
    let made = space.add(
      .key(carried.count), input.space.types[slot], name: input.space.names[slot],
      identity: input.space.identities[slot], root: input.space.roots[slot])
    carried.append(slot)
    slotOfCarried[slot] = made
    return made
  }

  /// The slot of a column that the operator adds, made when somebody first reads it.
  func slot(of output: Cluster.Output, name: String) -> Int {
    if let known = outputs.first(where: { $0.output == output }) { return known.slot }
    let slot = space.add(
      .output(2 + outputs.count), output.type, name: name, identity: "\(operatorID) \(output.identity)")
    outputs.append((output, slot))
    return slot
  }

  /// `message by service`, `by service`
  func title(_ names: SlotNames) -> String {
    let keys = keySlots.map { names.name($0) }.joined(separator: ", ")
    switch operation {
    case .cluster(_, let messageSlot): return "\(names.name(messageSlot))\(keys.isEmpty ? "" : " by \(keys)")"
    case .order: return keys.isEmpty ? "without keys" : "by \(keys)"
    }
  }
}

extension OrderedPlan.Operation {
  /// The word in operators' ids.
  var word: String {
    switch self {
    case .cluster: "cluster"
    case .order: "order"
    }
  }

  /// Slots of the input that it reads, beside the keys.
  var slots: [Int] {
    switch self {
    case .cluster(_, let messageSlot): [messageSlot]
    case .order: []
    }
  }
}

extension Cluster.Output {
  var identity: String {
    switch self {
    case .templateID: "template_id"
    case .template: "template"
    case .isNew: "is_new"
    case .isChanged: "is_changed"
    case .parameters: "parameters"
    case .parameter(let mask, let number): "value \(mask ?? "") \(number)"
    }
  }
}

extension PatternOptions {
  /// What a stage says, and the defaults for what it leaves out.
  init(_ cluster: TypedCluster) {
    self.init()
    if let similarity = cluster.similarity { self.similarity = similarity }
    if let depth = cluster.depth { self.depth = depth }
    if let limit = cluster.limit { self.limit = limit }
    if let siblings = cluster.siblings { self.siblings = siblings }
    if let mergesRuns = cluster.mergesRuns { self.mergesRuns = mergesRuns }
    delimiters = cluster.delimiters
    masks = cluster.masks.map { PatternMask(name: $0.name, pattern: $0.pattern) }
  }
}

final class PatternPlan {
  let definition: TypedPattern
  /// Keys, then the template's id.
  let labels: [(name: String, slot: Int)]
  let template: Int
  let isNew: Int
  let isChanged: Int
  let parameters: Int
  let offset: Int
  init(
    _ definition: TypedPattern, labels: [(name: String, slot: Int)], template: Int, isNew: Int, isChanged: Int,
    parameters: Int, offset: Int
  ) {
    self.definition = definition
    self.labels = labels
    self.template = template
    self.isNew = isNew
    self.isChanged = isChanged
    self.parameters = parameters
    self.offset = offset
  }
}
