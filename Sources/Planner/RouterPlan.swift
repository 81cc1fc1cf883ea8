import Catalog
import Operators
import RuleLang
import Runtime

/// Alerts that depend on one another, or that are told of in groups: what `AlertRouter` is made of. Those of one source, or those
/// of several whose event times meet here and nowhere else.
public final class RouterPlan {
  let number: Int
  /// In which it stands: that of its members, or one of its own, whose watermark is the least of theirs.
  let flow: Int
  /// The flows of its members, ascending.
  let memberFlows: [Int]
  /// The sources by which people know these, in the same order.
  let sources: [SourcePlan]
  /// The flows alone: state goes by the names of alerts and groups in it, so that an edit of one of them leaves the
  /// others what they have.
  let operatorID: String
  var members: [AlertPlan] = []
  var groups: [TypedGroup] = []
  /// Indexes among the members.
  var inhibitions: [AlertRouter.Inhibition] = []

  /// `identities` say what flows these are, whatever else there is.
  init(number: Int, flow: Int, memberFlows: [Int], sources: [SourcePlan], identities: [String]) {
    self.number = number
    self.flow = flow
    self.memberFlows = memberFlows
    self.sources = sources
    operatorID = Planner.operatorID(
      "router", distinct(sources.map(\.definition.name)).joined(separator: "."),
      of: "router of \(identities.sorted(by: utf8Precedes).joined(separator: ", "))")
  }

  /// Whether its members have event times of their own, that meet here.
  var isMeeting: Bool { memberFlows.count > 1 }

  /// The source at which people find it.
  var source: SourcePlan { sources[0] }

  /// `requests`, or `probes and requests`.
  var sourceText: String { distinct(sources.map(\.definition.name)).joined(separator: " and ") }

  /// What a flow of its own is called in stored state and in commits.
  var flowName: String { "alerts-\(operatorID.suffix(12))" }

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
    let together = alertsTogether(alerts, program)
    func router(of alert: Int) -> RouterPlan {
      let flows = together[alert]
      if let known = routers.first(where: { $0.memberFlows == flows }) { return known }
      let own = sources.count + gathers.count + routers.count(where: \.isMeeting)
      let made = RouterPlan(
        number: routers.count, flow: flows.count == 1 ? flows[0] : own, memberFlows: flows,
        sources: flows.map { $0 < sources.count ? sources[$0] : gathers[$0 - sources.count].source },
        identities: flows.map { $0 < sources.count ? sources[$0].root.identity : gathers[$0 - sources.count].operatorID })
      routers.append(made)
      return made
    }
    for maintenance in program.maintenances {
      for alert in maintenance.alerts { alerts[alert].maintenances.append(maintenance) }
    }
    for group in program.groups {
      guard let router = group.alerts.first.map(router) else { continue }
      router.groups.append(group)
      for alert in group.alerts {
        _ = router.member(alerts[alert])
        alerts[alert].group = group
        alerts[alert].writes = .nothing
      }
    }
    for inhibition in program.inhibitions {
      guard let router = inhibition.targets.first.map(router) else { continue }
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

  /// By alert, the flows of all that groups and inhibitions tie it to, ascending: whose state has to be known to tell of it.
  private func alertsTogether(_ alerts: [AlertPlan], _ program: TypedProgram) -> [[Int]] {
    var leader = Array(alerts.indices)
    func find(_ alert: Int) -> Int {
      var place = alert
      while leader[place] != place { place = leader[place] }
      return place
    }
    for tied in program.groups.map(\.alerts) + program.inhibitions.map({ $0.targets + $0.sources }) {
      for alert in tied.dropFirst() { leader[find(alert)] = find(tied[0]) }
    }
    var flows: [Int: Set<Int>] = [:]
    for (number, alert) in alerts.enumerated() {
      guard let rows = alert.input else { preconditionFailure("an alert reads rows of the plan") }
      flows[find(number), default: []].insert(flow(of: rows))
    }
    return alerts.indices.map { (flows[find($0)] ?? []).sorted() }
  }

  /// The flows of routers whose members' event times meet there, behind those of joins and traces.
  var meetingFlows: [Flow] {
    routers.filter(\.isMeeting).map { router in
      var inputs: [Flow.Input] = []
      for case let origin? in router.members.map({ $0.input.flatMap(origin) }) where !inputs.contains(origin) {
        inputs.append(origin)
      }
      return Flow(name: router.flowName, sources: [], inputs: inputs)
    }
  }

  /// The exchange of a router among the graph's.
  func exchange(of router: RouterPlan) -> Int { panes.count + ordered.count + gathers.count + router.number }

  /// Behind all windows of its flow.
  func level(of router: RouterPlan) -> Int {
    if router.isMeeting { return 0 }
    return (panes.filter { flow(of: $0.input) == router.flow }.map(\.level).max() ?? 0) + 1
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
