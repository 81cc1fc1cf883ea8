import Catalog
import Operators
import RuleLang

/// One thing that can be said of a rule, a source or an operator. It has changed when `identity` has; `text` is for people.
struct Facet {
  var name: String
  var identity: String
  var text: String

  init(_ name: String, _ identity: String, _ text: String? = nil) {
    self.name = name
    self.identity = identity
    self.text = text ?? identity
  }

  /// What tells two lists apart, a line each. A facet's name stands at most once in a list.
  static func differences(_ old: [Facet], _ new: [Facet]) -> [String] {
    var lines: [String] = []
    // What looks the same but is made of something else: told where nothing says what that is.
    var hidden: [String] = []
    let before = Dictionary(old.map { ($0.name, $0) }) { first, _ in first }
    let after = Set(new.map(\.name))
    for facet in new {
      guard let known = before[facet.name] else {
        if facet.identity.isEmpty { continue }
        lines.append("\(facet.name): \(shown(facet.text)), which was not there")
        continue
      }
      if known.identity == facet.identity { continue }
      if known.text == facet.text {
        hidden.append("\(facet.name): what `\(facet.text)` is made of")
      } else {
        lines.append("\(facet.name): \(shown(known.text)) → \(shown(facet.text))")
      }
    }
    for facet in old where !after.contains(facet.name) && !facet.identity.isEmpty {
      lines.append("\(facet.name): no longer \(shown(facet.text))")
    }
    return lines.isEmpty ? hidden : lines
  }

  /// Names of what differs where both lists have it.
  static func namesOfDifferences(_ old: [Facet], _ new: [Facet]) -> [String] {
    let before = Dictionary(old.map { ($0.name, $0.identity) }) { first, _ in first }
    return new.filter { before[$0.name].map { [identity = $0.identity] in $0 != identity } ?? false }.map(\.name)
  }

  private static func shown(_ text: String) -> String { text.isEmpty ? "none" : text }
}

// MARK: Rows

extension RowSetPlan {
  /// The slots that the set's conditions read, and those of the sets it was taken from.
  private var conditionList: [(expression: TypedExpr, space: SlotSpace)] {
    var found: [(TypedExpr, SlotSpace)] = []
    var place: RowSetPlan? = self
    while let rows = place {
      if case .filter(let condition) = rows.origin { found.append((condition, rows.space)) }
      place = rows.parent
    }
    return found.reversed()
  }

  /// Fields of the source that decide which rows these are and what stands in `slots` of them.
  func fields(behind slots: some Sequence<Int>) -> Set<Int> {
    var bases = slots.reduce(into: Set<Int>()) { $0.formUnion(space.bases[$1]) }
    for (condition, space) in conditionList { bases.formUnion(space.bases(of: condition)) }
    var fields: Set<Int> = []
    var below: Set<Int> = []
    for slot in bases {
      switch space.kinds[slot] {
      case .field(let field): fields.insert(field)
      case .key, .computed: break
      case .output(let number):
        if let slo { fields.formUnion(slo.fields) }
        guard let window, let panes = window.panes else { continue }
        let state = panes.states[window.outputs[number].output.state]
        below.formUnion([state.argument, state.filter].compactMap { $0 })
      }
    }
    if let ordered { fields.formUnion(ordered.fields) }
    if let gather { fields.formUnion(gather.inputs[0].rows.fields(behind: gather.inputs[0].keySlots)) }
    if let slo { fields.formUnion(slo.input.fields(behind: slo.inputKeySlots)) }
    if let panes = window?.panes { fields.formUnion(panes.input.fields(behind: below.union(panes.keySlots))) }
    return fields
  }

  /// Aggregates of the window from which `slots` are made, as a rule would spell them, sorted.
  func aggregates(behind slots: some Sequence<Int>, _ names: SlotNames) -> [(identity: String, text: String)] {
    let bases = slots.reduce(into: Set<Int>()) { $0.formUnion(space.bases[$1]) }
    return bases.compactMap { slot in names.aggregate(slot).map { (space.identities[slot], $0) } }
      .sorted { utf8Precedes($0.1, $1.1) }
  }

  /// `where` behind the source or the window, in order.
  func conditionTexts(_ names: SlotNames) -> String {
    conditionList.map { names.text($0.expression) }.joined(separator: " and ")
  }

  /// What decides which rows these are, as far as the window that they come from; `labels` are the keys' names in a
  /// rule's records.
  func ownFacets(_ names: SlotNames, labels: [String]? = nil) -> [Facet] {
    let conditions = Set(conditionList.map { $0.space.identity($0.expression) })
    var facets = [
      Facet(
        slo != nil
          ? "where behind the slo"
          : window != nil
            ? "where behind the windows"
            : ordered != nil ? "where behind `cluster`" : gather.map { "where behind the \($0.kind)" } ?? "where",
        conditions.sorted(by: utf8Precedes).joined(separator: " "), conditionTexts(names))
    ]
    facets += detectorFacets(names)
    if let ordered { facets.append(ordered.optionsFacet(ordered.inputNames)) }
    if let gather { facets.append(gather.facet) }
    if let slo { facets += slo.countFacets }
    guard let window, let panes = window.panes else { return facets }
    facets.append(Facet("windows", window.spec.ruleText))
    return facets + [panes.keyFacet(labels: labels), panes.limitFacet]
  }

  /// The detectors that the rows have gone through, the last one first.
  private func detectorFacets(_ names: SlotNames) -> [Facet] {
    var found: [Facet] = []
    var place: RowSetPlan? = self
    while let rows = place {
      if let detector = rows.detector {
        var facet = detector.facet(names)
        if !found.isEmpty { facet.name += " \(found.count + 1)" }
        found.append(facet)
      }
      place = rows.parent
    }
    return found
  }

  /// What is behind the window that they come from; nothing for rows of a source.
  var belowFacets: [Facet] {
    if let ordered {
      return ordered.input.ownFacets(ordered.inputNames).map { Facet("\($0.name) before `cluster`", $0.identity, $0.text) }
    }
    if let gather {
      return zip(gather.inputs, gather.inputNames).enumerated().map { number, input in
        Facet(
          gather.inputs.count == 1 ? "spans" : number == 0 ? "left side" : "right side", input.0.rows.identity,
          input.1.title(of: input.0.rows))
      }
    }
    if let slo {
      return (slo.input.ownFacets(slo.inputNames) + slo.input.belowFacets).map {
        $0.name == "where" ? $0 : Facet("\($0.name) below", $0.identity, $0.text)
      }
    }
    guard let panes = window?.panes else { return [] }
    let below = panes.input.ownFacets(panes.inputNames) + panes.input.belowFacets
    return below.map { facet in
      // There is one source; of windows there may be levels.
      facet.name == "where" ? facet : Facet("\(facet.name) below", facet.identity, facet.text)
    }
  }
}

// MARK: Operators

extension PanesPlan {
  func keyFacet(labels: [String]? = nil) -> Facet {
    let names = inputNames
    let keys = keySlots.map { "\(input.space.types[$0].rawValue) \(input.space.identities[$0])" }
    return Facet(
      "keys", (keys + (labels ?? [])).joined(separator: ", "),
      (labels ?? keySlots.map { names.name($0) }).joined(separator: ", "))
  }

  /// A limit of keys counts in panes of one length.
  var limitFacet: Facet {
    Facet(
      "limit of keys",
      keyLimit.map { "\($0) in \(Value.duration(Double(paneNanos)).ruleText)" } ?? "")
  }

  /// What its id is made of, but for what is below.
  var ownFacets: [Facet] {
    let below = input.ownFacets(inputNames).map { facet in
      facet.name == "where" ? facet : Facet("\(facet.name) below", facet.identity, facet.text)
    }
    return [keyFacet(), limitFacet] + below
  }

  /// Fields of the source on which its id depends.
  var fields: Set<Int> { input.fields(behind: keySlots) }
}

extension OrderedPlan {
  /// What decides which pattern a row has, but for which rows come.
  func optionsFacet(_ names: SlotNames) -> Facet {
    let keys = keySlots.map { input.space.identities[$0] }.joined(separator: ", ")
    switch operation {
    case .cluster(let definition, let messageSlot):
      let options = PatternOptions(definition)
      return Facet(
        "cluster", "\(input.space.identities[messageSlot]) by \(keys) \(options.fingerprint)",
        title(names) + (options == PatternOptions() ? "" : ", with options"))
    case .order: return Facet("order", keys, title(names))
    }
  }

  /// Fields of the source on which its id depends.
  var fields: Set<Int> { input.fields(behind: keySlots + operation.slots) }
}

extension DetectorPlan {
  /// What decides what a series keeps, but for which rows come.
  func facet(_ names: SlotNames) -> Facet {
    let space = input.space
    let identity = ([argumentSlot].compactMap { $0 } + keySlots).map { space.identities[$0] }
    let options = definition.settings.text
    return Facet(
      "detector", "\(identity.joined(separator: " ")) \(Self.fingerprint(definition, spec))",
      title(names) + (options.isEmpty ? "" : " \(options)"))
  }
}

extension GatherPlan {
  /// What decides which rows come out, but for which come in.
  var facet: Facet { Facet(kind, operatorID, title(inputNames)) }
}

extension SlotNames {
  /// `spans where status >= 500`
  func title(of rows: RowSetPlan) -> String {
    let conditions = rows.conditionTexts(self)
    let name = rows.anySource?.definition.name ?? ""
    return conditions.isEmpty ? name : "\(name) where \(conditions)"
  }
}

extension SloPlan {
  /// Fields of the source on which its counts depend.
  var fields: Set<Int> { input.fields(behind: inputKeySlots + [measure] + [total].compactMap { $0 }) }

  /// What its id is made of, but for the rows that it reads.
  var countFacets: [Facet] {
    let names = inputNames
    let slots = [measure] + [total].compactMap { $0 }
    let aggregates = input.aggregates(behind: slots, names)
    return [
      Facet(
        "keys of the slo", keySlots.map { space.identities[$0] }.joined(separator: ", "),
        keySlots.map { space.names[$0] }.joined(separator: ", ")),
      Facet(
        definition.isBad ? "bad" : "good",
        slots.map { input.space.identities[$0] }.joined(separator: " of ") + aggregates.map(\.identity).joined(),
        aggregates.isEmpty ? slots.map { names.definition($0) }.joined(separator: " of ") : aggregates.map(\.text).joined(separator: " and ")),
    ]
  }

  /// What may change over counts that stay.
  var objectiveFacets: [Facet] {
    [
      Facet("objective", definition.objectiveText),
      Facet("period", definition.period.text),
    ]
  }
}

extension AlertPlan {
  /// What its id is made of, but for the rows that it reads.
  func conditionFacets(over rows: RowSetPlan, _ names: SlotNames) -> [Facet] {
    let aggregates = rows.aggregates(behind: [condition], names)
    return [
      Facet("condition", rows.space.identities[condition], names.definition(condition)),
      Facet(
        "aggregates of the condition", aggregates.map(\.identity).joined(separator: " "),
        aggregates.map(\.text).joined(separator: ", ")),
    ]
  }
}

// MARK: Sources

extension TypedSource {
  /// What may change under state that stays: it counts from the deploy on.
  private var settings: [Facet] {
    func duration(_ nanos: Int64) -> String { Value.duration(Double(nanos)).ruleText }
    return [
      Facet("format", format),
      Facet("watermark", duration(time.boundNanos)),
      Facet("idle", duration(time.idleNanos)),
      Facet("max_ahead", duration(time.maxAheadNanos)),
      Facet("require", requirements.map { requirement(of: $0) }.joined(separator: "; "), requirementText),
    ]
  }

  private func requirement(of requirement: TypedRequirement) -> String {
    "\(requirement.condition.identity { fields[$0].identity }) else \(Value.string(requirement.reason).ruleText)"
  }

  private var requirementText: String {
    requirements.map { $0.condition.text(columns: fields.map(\.name)) }.joined(separator: "; ")
  }

  /// What a person reads of a field.
  func text(of field: TypedField) -> String {
    var text = field.type.rawValue
    switch field.unit {
    case .native: break
    case .rfc3339: text += "(rfc3339)"
    case .scaled(let factor):
      switch field.type {
      // `1ms` without its number is the unit.
      case .duration, .timestamp: text += "(\(Value.duration(factor).ruleText.dropFirst()))"
      case .bytes: text += "(\(Value.bytes(factor).ruleText.dropFirst()))"
      case .ratio: text += "(percent)"
      case .bool, .int, .float, .string: break
      }
    }
    if field.isNullable { text += "?" }
    if field.path != [field.name] { text += " from \(field.path.joined(separator: "."))" }
    if let value = field.defaultValue { text += " = \(value.ruleText)" }
    return text
  }

  private func facet(_ field: TypedField) -> Facet {
    Facet("field \(field.name)", "\(field.identity) \(field.isNullable)", text(of: field))
  }

  /// What makes its rows other rows.
  private var origins: [Facet] {
    [
      Facet("topic", topic ?? ""),
      Facet("time", fields[time.field].identity, "\(fields[time.field].name): \(text(of: fields[time.field]))"),
    ]
  }

  /// What of it the results depend on of a rule that reads `fields`.
  func facets(reading read: Set<Int>) -> [Facet] {
    origins + settings + read.sorted().map { facet(fields[$0]) }
  }

  /// What of it an operator's id depends on that reads `fields`.
  func identityFacets(reading read: Set<Int>) -> [Facet] {
    // Not whether it may be missing.
    let read = read.sorted().map { fields[$0] }
    return origins + read.map { Facet("field \($0.name)", $0.identity, text(of: $0)) }
  }

  /// Everything, with what a change of it does.
  var effects: [(facet: Facet, effect: String)] {
    func setting(_ name: String) -> String {
      switch name {
      case "format": "records are read so from the deploy on"
      case "watermark": "rows are late by it from the deploy on; what is kept stays"
      case "idle": "silent partitions are waited for so long from the deploy on; what is kept stays"
      case "max_ahead": "times ahead of the clock are refused by it from the deploy on"
      default: "counts from the deploy on; rows that are in windows already stay there"
      }
    }
    var all: [(Facet, String)] = [
      (origins[0], "offsets of another topic: there is nothing to carry, its operators are rebuilt"),
      (origins[1], "rows have another time: its operators are rebuilt"),
    ]
    all += settings.map { ($0, setting($0.name)) }
    all.append(
      (
        Facet("partitioned by", partitionedBy.map { fields[$0].name }.joined(separator: ", ")),
        "no state depends on it; it decides whether several daemons can share the work"
      ))
    all.append((Facet("dead_letter", deadLetterTopic ?? ""), "from the deploy on"))
    all.append((Facet("late", lateTopic ?? ""), "from the deploy on"))
    // The time field has been named above.
    for (index, field) in fields.enumerated() where index != time.field {
      all.append((facet(field), "operators whose rows or keys it decides, and aggregates of it, are rebuilt"))
    }
    return all
  }
}
