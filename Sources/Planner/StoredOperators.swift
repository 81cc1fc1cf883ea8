import Operators
import Runtime

extension Plan {
  /// What of the plan keeps state under an operator id, sorted by it.
  public var storedOperators: [StoredOperator] {
    var names = InputNames()
    let windows = panes.map { $0.stored(names.of($0)) }
    let rules = alerts.map(\.stored) + anomalies.map(\.stored) + slos.map(\.stored)
    let others = routers.flatMap(\.stored) + ordered.map(\.stored) + gathers.map(\.stored)
    return (windows + rules + others + detectors.map { $0.stored(names.of($0)) }).sorted { utf8Precedes($0.id, $1.id) }
  }

  /// Whether some operator keeps what the rows that `rereadOffset` goes back to do not tell: baselines, templates, open anomalies,
  /// and budgets over more than the longest burn window.
  var learns: Bool {
    !detectors.isEmpty || !ordered.isEmpty || !anomalies.isEmpty
      || slos.contains { slo in
        guard case .rolling(let nanos) = slo.definition.period else { return true }
        return nanos > slo.definition.burnWindows.last ?? 0
      }
  }

  var alerts: [AlertPlan] {
    consumers.compactMap { if case .alert(let alert) = $0 { alert } else { nil } }
  }

  var slos: [SloPlan] {
    consumers.compactMap { if case .slo(let slo) = $0 { slo } else { nil } }
  }

  /// Those that have open episodes to keep.
  var anomalies: [AnomalyPlan] {
    consumers.compactMap { if case .anomaly(let anomaly) = $0, anomaly.keepsState { anomaly } else { nil } }
  }

  private var consumers: [RowSetPlan.Consumer] {
    var found: [RowSetPlan.Consumer] = []
    func visit(_ rows: RowSetPlan) {
      for consumer in rows.consumers {
        found.append(consumer)
        switch consumer {
        case .panes(let panes): for window in panes.windows { visit(window.rows) }
        case .ordered(let ordered): visit(ordered.rows)
        case .slo(let slo): visit(slo.rows)
        case .detector(let detector): visit(detector.rows)
        case .gather(let gather, input: 0): for output in gather.outputs { visit(output.rows) }
        case .alert, .metric, .pattern, .anomaly, .gather: break
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
    of(panes.input, of: panes.source)
  }

  mutating func of(_ detector: DetectorPlan) -> SlotNames { of(detector.input, of: nil) }

  private mutating func of(_ rows: RowSetPlan, of source: SourcePlan?) -> SlotNames {
    if let slo = rows.slo { return slo.rowNames }
    if let window = rows.window, let below = window.panes { return SlotNames(window, over: of(below)) }
    if let ordered = rows.ordered { return SlotNames(ordered, over: ordered.inputNames) }
    if rows.output != nil { return SlotNames(of: rows) }
    guard let source else { preconditionFailure("a detector stands behind windows or an exchange") }
    if let known = bySource[ObjectIdentifier(source)] { return known }
    let names = SlotNames(source)
    bySource[ObjectIdentifier(source)] = names
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
    let what: String
    switch operation {
    case .cluster:
      what = "patterns of \(title(inputNames)) over \(source.definition.name), and rows that wait for their order"
    case .order: what = "rows of \(source.definition.name) that wait for their order, \(title(inputNames))"
    }
    return StoredOperator(id: operatorID, kind: operation.word, summary: what, rules: users.sorted(by: utf8Precedes))
  }
}

extension DetectorPlan {
  fileprivate func stored(_ names: SlotNames) -> StoredOperator {
    StoredOperator(
      id: operatorID, kind: "detector", summary: "\(title(names)): \(stateText)", rules: users.sorted(by: utf8Precedes))
  }
}

extension AnomalyPlan {
  fileprivate var stored: StoredOperator {
    let by = labels.isEmpty ? "" : " by \(labels.map(\.name).joined(separator: ", "))"
    return StoredOperator(
      id: operatorID, kind: "anomaly", summary: "open anomalies\(by)", rules: [definition.name])
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

extension RouterPlan {
  /// What the router itself knows the alerts know as well: no rule loses anything with it.
  fileprivate var stored: [StoredOperator] {
    let own = StoredOperator(
      id: operatorID, kind: "router", summary: "alerts over \(sourceText) that others depend on", rules: [])
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
      id: operatorID, kind: "alert",
      summary: definition.burn == nil ? "pending and firing alerts\(by)" : "firing burn alerts\(by)", rules: [definition.name])
  }
}
