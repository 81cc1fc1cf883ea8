import Operators
import Runtime

extension Plan {
  /// What of the plan keeps state under an operator id, sorted by it.
  public var storedOperators: [StoredOperator] {
    var names = InputNames()
    let windows = panes.map { $0.stored(names.of($0)) }
    return (windows + alerts.map(\.stored) + ordered.map(\.stored) + routers.flatMap(\.stored)).sorted { utf8Precedes($0.id, $1.id) }
  }

  var alerts: [AlertPlan] {
    var found: [AlertPlan] = []
    func visit(_ rows: RowSetPlan) {
      for consumer in rows.consumers {
        switch consumer {
        case .alert(let alert): found.append(alert)
        case .panes(let panes): for window in panes.windows { visit(window.rows) }
        case .ordered(let ordered): visit(ordered.rows)
        case .metric, .pattern: break
        }
      }
      for child in rows.children { visit(child.rows) }
    }
    for source in sources { visit(source.root) }
    return found
  }
}

/// What the rows of panes are called. To name a source's columns takes a look at all of them, of which a thousand rules have
/// thousands: it is done once for all panes.
private struct InputNames {
  private var bySource: [ObjectIdentifier: SlotNames] = [:]

  mutating func of(_ panes: PanesPlan) -> SlotNames {
    if let window = panes.input.window, let below = window.panes { return SlotNames(window, over: of(below)) }
    if let ordered = panes.input.ordered { return SlotNames(ordered, over: ordered.inputNames) }
    let source = ObjectIdentifier(panes.source)
    if let known = bySource[source] { return known }
    let names = SlotNames(panes.source)
    bySource[source] = names
    return names
  }
}

extension PanesPlan {
  /// What the panes' rows are called: by the source's fields, or by the windows below.
  var inputNames: SlotNames {
    if let ordered = input.ordered { return SlotNames(ordered, over: ordered.inputNames) }
    guard let window = input.window, let below = window.panes else { return SlotNames(source) }
    return SlotNames(window, over: below.inputNames)
  }

  /// `by service` or `without keys`.
  func keyText(_ names: SlotNames) -> String {
    keySlots.isEmpty ? "without keys" : "by \(keySlots.map { names.name($0) }.joined(separator: ", "))"
  }

  fileprivate func stored(_ names: SlotNames) -> StoredOperator {
    let keeps = states.map { names.text(of: $0, constants: $0.constants) }.joined(separator: ", ")
    let sizes = windows.map(\.spec.ruleText).joined(separator: ", ")
    return StoredOperator(
      id: operatorID, kind: "window",
      summary: "windows \(sizes) \(keyText(names)) over \(source.definition.name): \(keeps)",
      rules: users.sorted(by: utf8Precedes))
  }
}

extension OrderedPlan {
  /// What the slots of its input are called.
  var inputNames: SlotNames { SlotNames(source) }

  fileprivate var stored: StoredOperator {
    StoredOperator(
      id: operatorID, kind: "cluster",
      summary: "patterns of \(title(inputNames)) over \(source.definition.name), and rows that wait for their order",
      rules: users.sorted(by: utf8Precedes))
  }
}

extension RouterPlan {
  /// What the router itself knows the alerts know as well: no rule loses anything with it.
  fileprivate var stored: [StoredOperator] {
    let own = StoredOperator(
      id: operatorID, kind: "router", summary: "alerts over \(source.definition.name) that others depend on", rules: [])
    return [own]
      + groups.map { group in
        let by = group.by.isEmpty ? "" : " by \(group.by.joined(separator: ", "))"
        return StoredOperator(
          id: operatorID(of: group), kind: "group", summary: "groups of alerts\(by), and what was told of them",
          rules: [group.name])
      }
  }
}

extension AlertPlan {
  fileprivate var stored: StoredOperator {
    let by = keys.isEmpty ? "" : " by \(keys.map(\.name).joined(separator: ", "))"
    return StoredOperator(
      id: operatorID, kind: "alert", summary: "pending and firing alerts\(by)", rules: [definition.name])
  }
}
