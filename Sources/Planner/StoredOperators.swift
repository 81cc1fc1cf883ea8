import Operators
import Runtime

extension Plan {
  /// What of the plan keeps state under an operator id, sorted by it.
  public var storedOperators: [StoredOperator] {
    var names = InputNames()
    let windows = panes.map { $0.stored(names.of($0)) }
    let others = ordered.map(\.stored) + gathers.map(\.stored) + slos.map(\.stored)
    return (windows + alerts.map(\.stored) + others).sorted { utf8Precedes($0.id, $1.id) }
  }

  var alerts: [AlertPlan] { outputs.alerts }
  var slos: [SloPlan] { outputs.slos }

  private var outputs: (alerts: [AlertPlan], slos: [SloPlan]) {
    var found: [AlertPlan] = []
    var slos: [SloPlan] = []
    func visit(_ rows: RowSetPlan) {
      for consumer in rows.consumers {
        switch consumer {
        case .alert(let alert): found.append(alert)
        case .panes(let panes): for window in panes.windows { visit(window.rows) }
        case .ordered(let ordered): visit(ordered.rows)
        case .gather(let gather, input: 0): for output in gather.outputs { visit(output.rows) }
        case .gather: break
        case .slo(let slo):
          slos.append(slo)
          visit(slo.rows)
        case .metric, .pattern: break
        }
      }
      for child in rows.children { visit(child.rows) }
    }
    for source in sources { visit(source.root) }
    return (found, slos)
  }
}

/// What the rows of panes are called. To name a source's columns takes a look at all of them, of which a thousand rules have
/// thousands: it is done once for all panes.
private struct InputNames {
  private var bySource: [ObjectIdentifier: SlotNames] = [:]

  mutating func of(_ panes: PanesPlan) -> SlotNames {
    if let slo = panes.input.slo { return slo.rowNames }
    if let window = panes.input.window, let below = window.panes { return SlotNames(window, over: of(below)) }
    if let ordered = panes.input.ordered { return SlotNames(ordered, over: ordered.inputNames) }
    if panes.input.output != nil { return SlotNames(of: panes.input) }
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
    SlotNames(of: input)
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

extension GatherPlan {
  var inputNames: [SlotNames] { inputs.map { SlotNames(of: $0.rows) } }

  fileprivate var stored: StoredOperator {
    let what = kind == "join" ? "rows of both sides that may have a partner" : "spans of traces that are not over"
    return StoredOperator(
      id: operatorID, kind: kind, summary: "\(kind) \(title(inputNames)) over \(source.definition.name): \(what)",
      rules: users.sorted(by: utf8Precedes))
  }
}

extension SloPlan {
  /// What the slots of its input are called.
  var inputNames: SlotNames {
    SlotNames(of: input)
  }

  /// What the slots of its rows are called.
  var rowNames: SlotNames { SlotNames(self, over: inputNames) }

  fileprivate var stored: StoredOperator {
    StoredOperator(
      id: operatorID, kind: "slo", summary: "counts of \(title(inputNames))", rules: users.sorted(by: utf8Precedes))
  }
}

extension AlertPlan {
  fileprivate var stored: StoredOperator {
    let by = keys.isEmpty ? "" : " by \(keys.map(\.name).joined(separator: ", "))"
    return StoredOperator(
      id: operatorID, kind: "alert",
      summary: definition.burn == nil ? "pending and firing alerts\(by)" : "firing burn alerts\(by)", rules: [definition.name])
  }
}
