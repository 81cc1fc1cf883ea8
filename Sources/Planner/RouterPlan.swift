import Catalog
import Operators
import RuleLang
import Runtime

/// Alerts of one source that depend on one another, or that are told of in groups: what `AlertRouter` is made of.
public final class RouterPlan {
  let number: Int
  /// Whose event time its members have.
  let flow: Int
  /// By which people know it.
  unowned let source: SourcePlan
  /// The flow alone: state goes by the names of alerts and groups in it, so that an edit of one of them leaves the
  /// others what they have.
  let operatorID: String
  var members: [AlertPlan] = []
  var groups: [TypedGroup] = []
  /// Indexes among the members.
  var inhibitions: [AlertRouter.Inhibition] = []

  init(number: Int, flow: Int, source: SourcePlan, gather: GatherPlan?) {
    self.number = number
    self.flow = flow
    self.source = source
    operatorID = Planner.operatorID(
      "router", source.definition.name, of: "router of \(gather?.operatorID ?? source.root.identity)")
  }

  /// Who has state in it.
  var rules: [String] { Array(Set(members.map(\.definition.name) + groups.map(\.name))).sorted(by: utf8Precedes) }

  /// Where what was told of a group is kept: by its name and labels.
  func operatorID(of group: TypedGroup) -> String {
    Planner.operatorID(
      "group", group.name, of: "group \(group.name) by \(group.by.joined(separator: ", ")) of \(operatorID)")
  }

  /// The names of a group's alerts, each once: those of an slo have one.
  func alertNames(of group: TypedGroup) -> [String] {
    distinct(members.filter { $0.group?.name == group.name }.map(\.definition.name))
  }

  fileprivate func member(_ alert: AlertPlan) -> Int {
    if let known = members.firstIndex(where: { $0 === alert }) { return known }
    members.append(alert)
    alert.router = self
    alert.member = members.count - 1
    return members.count - 1
  }
}

extension Plan {
  /// Tells alerts of the groups, inhibitions and maintenance windows of the program.
  func connect(_ alerts: [AlertPlan], _ program: TypedProgram) {
    func router(of alert: AlertPlan) -> RouterPlan? {
      guard let rows = alert.input, let source = rows.anySource else { return nil }
      let flow = self.flow(of: rows)
      if let known = routers.first(where: { $0.flow == flow }) { return known }
      let made = RouterPlan(
        number: routers.count, flow: flow, source: source,
        gather: flow < sources.count ? nil : gathers[flow - sources.count])
      routers.append(made)
      return made
    }
    for maintenance in program.maintenances {
      for alert in maintenance.alerts { alerts[alert].maintenances.append(maintenance) }
    }
    for group in program.groups {
      guard let router = group.alerts.first.flatMap({ router(of: alerts[$0]) }) else { continue }
      router.groups.append(group)
      for alert in group.alerts {
        _ = router.member(alerts[alert])
        alerts[alert].group = group
        alerts[alert].writes = .nothing
      }
    }
    for inhibition in program.inhibitions {
      guard let router = inhibition.targets.first.flatMap({ router(of: alerts[$0]) }) else { continue }
      let sources = distinct(inhibition.sources.map { program.alerts[$0].name }).joined(separator: ", ")
      for target in inhibition.targets {
        if alerts[target].writes == .everything { alerts[target].writes = .pending }
        alerts[target].inhibitedBy.append(
          sources + (inhibition.equal.isEmpty ? "" : " equal \(inhibition.equal.joined(separator: ", "))"))
      }
      router.inhibitions.append(
        AlertRouter.Inhibition(
          targets: inhibition.targets.map { router.member(alerts[$0]) },
          sources: inhibition.sources.map { router.member(alerts[$0]) }, equal: inhibition.equal))
    }
  }

  /// The exchange of a router among the graph's.
  func exchange(of router: RouterPlan) -> Int { panes.count + ordered.count + gathers.count + router.number }

  /// Behind all windows of its flow.
  func level(of router: RouterPlan) -> Int {
    (panes.filter { flow(of: $0.input) == router.flow }.map(\.level).max() ?? 0) + 1
  }
}

extension AlertPlan {
  var policy: NotificationPolicy {
    NotificationPolicy(
      severity: definition.severity, escalations: definition.escalations.map { ($0.severity, $0.afterNanos) },
      repeatNanos: definition.repeatNanos)
  }

  var loweredMaintenances: [Maintenance] {
    maintenances.map { Maintenance(name: $0.name, schedule: $0.schedule, matchers: $0.matchers) }
  }
}

/// Each once, in their order.
func distinct(_ names: [String]) -> [String] {
  var seen: Set<String> = []
  return names.filter { seen.insert($0).inserted }
}
