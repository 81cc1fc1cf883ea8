import Catalog
import Runtime

/// The router at work; all but one shard's have nothing to do.
final class AlertRouterTask: KeyedTask {
  struct GroupKey: Hashable, Sendable {
    var group: Int
    var values: [UInt8]
  }
  private struct Inhibitor: Hashable {
    var inhibition: Int
    var source: Int
    var values: [UInt8]
  }

  let definition: AlertRouter
  private let output: RecordWriter
  private let origins: [RecordOrigin]
  private let groupOrigins: [RecordOrigin]
  private var maintenances: [OpenMaintenances]
  /// By member.
  var firing: [[[UInt8]: RoutedAlert]]
  var groups: [GroupKey: AlertGroupState] = [:]
  /// Changes that lie behind the watermark.
  var waiting: [AlertEvent] = []
  /// Everything up to then has been done.
  var clock = beforeAllTime
  /// Alerts that fire and inhibit what has these values: how many, and since when rows are needed to know that again.
  private var inhibitors: [Inhibitor: (count: Int, neededSince: Int64)] = [:]
  /// By member, the inhibitions that it is a target of, and those that it is a source of.
  private let inhibitionsOf: [(asTarget: [Int], asSource: [Int])]
  /// Each group's part of the state goes by its own id.
  private var groupTasks: [AlertGroupTask] = []

  init(_ definition: AlertRouter, _ context: TaskContext) {
    self.definition = definition
    output = context.output
    origins = definition.members.map { RecordOrigin($0.isBurn ? .slo : .alert, rule: $0.rule, name: $0.name) }
    groupOrigins = definition.groups.map { RecordOrigin(.alert, rule: $0.rule, name: $0.name) }
    maintenances = definition.members.map { OpenMaintenances($0.maintenances) }
    firing = definition.members.map { _ in [:] }
    inhibitionsOf = definition.members.indices.map { member in
      (
        definition.inhibitions.indices.filter { definition.inhibitions[$0].targets.contains(member) },
        definition.inhibitions.indices.filter { definition.inhibitions[$0].sources.contains(member) }
      )
    }
    super.init()
    context.register(stateful: self)
    groupTasks = definition.groups.indices.map { AlertGroupTask(self, group: $0) }
    for task in groupTasks { context.register(stateful: task) }
  }

  override func accept(_ rows: RowsChunk) { waiting += AlertEvent.events(of: rows) }

  override func advance(to watermark: Int64) {
    if waiting.isEmpty, groups.isEmpty, firing.allSatisfy(\.isEmpty) { return }
    var due = waiting.filter { $0.time <= watermark }
    waiting.removeAll { $0.time <= watermark }
    due.sort(by: AlertEvent.precedes)
    var next = 0
    while true {
      var time = next < due.count ? due[next].time : afterAllTime
      // Behind the end of a recording nothing is evaluated any more that nobody has spoken of.
      if watermark < afterAllTime || next < due.count {
        for (member, alerts) in firing.enumerated() where !alerts.isEmpty && isTold(member) {
          let hop = definition.members[member].hopNanos
          time = min(time, floorToMultiple(clock, of: hop) + hop)
        }
      }
      for group in groups.values { time = min(time, group.nextFlush) }
      guard time < afterAllTime, time <= watermark else { return }
      let first = next
      while next < due.count, due[next].time == time { next += 1 }
      process(due[first..<next], at: time)
      clock = time
    }
  }

  /// Whether the router looks at each of the member's evaluations. One that only inhibits others speaks for itself, and
  /// one of a group is looked at when the group is.
  private func isTold(_ member: Int) -> Bool { definition.members[member].writes == .pending }

  /// All that happens at one time: changes of state first, then evaluations, which see all of them, then groups.
  private func process(_ events: ArraySlice<AlertEvent>, at time: Int64) {
    for event in events { apply(event) }
    for (member, alerts) in firing.enumerated() where !alerts.isEmpty && isTold(member) {
      guard time % definition.members[member].hopNanos == 0 else { continue }
      for key in alerts.keys { evaluate(member, key, at: time) }
    }
    for (key, group) in groups where group.nextFlush <= time { flush(key, at: time) }
  }

  private func apply(_ event: AlertEvent) {
    let member = event.alert
    let known = firing[member][event.key]
    switch event.kind {
    case .announcement where known != nil:
      // A group that is new, or that begins anew, has not seen it begin to fire.
      if let known, let group = groupKey(member, known),
        groups[group]?.alerts.keys.contains(RoutedKey(member: member, key: event.key)) != true
      {
        join(member, event.key, known, at: event.time)
      }
    case .update, .announcement:
      if known != nil {
        firing[member][event.key]?.evidence = event.evidence
        firing[member][event.key]?.labels = event.labels
        return
      }
      let alert = RoutedAlert(event, name: definition.members[member].name, maintenances[member])
      firing[member][event.key] = alert
      count(member, alert, by: 1)
      join(member, event.key, alert, at: event.time)
    case .resolved:
      guard var alert = known else { return }
      firing[member][event.key] = nil
      count(member, alert, by: -1)
      alert.evidence = event.evidence
      leave(member, event.key, alert)
      // Of an alert that nobody was told of nobody wants to know that it is over.
      if definition.members[member].writes == .pending, alert.notice.notifiedAt != nil {
        write(.resolved, member, event.key, alert, nil, at: event.time)
      }
    }
  }

  // MARK: Inhibitions

  private func count(_ member: Int, _ alert: RoutedAlert, by change: Int) {
    let needed = neededSince(member, alert)
    for inhibition in inhibitionsOf[member].asSource {
      let key = Inhibitor(
        inhibition: inhibition, source: member, values: alert.labelSet.key(definition.inhibitions[inhibition].equal))
      var entry = inhibitors[key] ?? (0, needed)
      entry.count += change
      entry.neededSince = min(entry.neededSince, needed)
      inhibitors[key] = entry.count > 0 ? entry : nil
    }
  }

  /// Since when rows are needed to know that an alert fires.
  private func neededSince(_ member: Int, _ alert: RoutedAlert) -> Int64 {
    alert.since - definition.members[member].reachNanos
  }

  /// Who keeps an alert silent at a time: a maintenance window, else the first inhibition that does; and since when rows
  /// are needed to know that again.
  private func suppressor(
    _ member: Int, _ alert: RoutedAlert, at time: Int64
  ) -> (by: AlertRecord.Suppressor, neededSince: Int64)? {
    if let name = maintenances[member].silencer(among: alert.maintenances, at: time) {
      return (.maintenance(name), afterAllTime)
    }
    for index in inhibitionsOf[member].asTarget {
      let inhibition = definition.inhibitions[index]
      let values = alert.labelSet.key(inhibition.equal)
      for source in inhibition.sources {
        if let entry = inhibitors[Inhibitor(inhibition: index, source: source, values: values)] {
          return (.inhibition(by: definition.members[source].name), entry.neededSince)
        }
      }
    }
    return nil
  }

  /// An evaluation of an alert that is told of by itself.
  private func evaluate(_ member: Int, _ key: [UInt8], at time: Int64) {
    guard let alert = firing[member][key] else { return }
    let suppressor = suppressor(member, alert, at: time)
    if let suppressor, suppressor.neededSince < alert.neededSince {
      firing[member][key]?.neededSince = suppressor.neededSince
    }
    guard
      let told = firing[member][key]?.notice.evaluate(
        at: time, definition.members[member].policy, isSuppressed: suppressor != nil),
      let changed = firing[member][key]
    else { return }
    write(.notice(told), member, key, changed, told == .suppressed ? suppressor?.by : nil, at: time)
  }

  private func write(
    _ kind: AlertRecord.Kind, _ member: Int, _ key: [UInt8], _ alert: RoutedAlert, _ suppressor: AlertRecord.Suppressor?,
    at time: Int64
  ) {
    let spec = definition.members[member]
    let record = AlertRecord(
      kind, step: alert.notice.step, spec.policy, since: alert.since, fingerprint: alert.fingerprint, suppressor)
    output.open(origins[member], time: time, windowNanos: spec.windowNanos) {
      $0.append(bytes: key)
      if spec.isBurn { AlertRecord.appendBurn(spec.policy, to: &$0) }
    }
    output.append {
      record.append(to: &$0, condition: spec.conditionText, labels: alert.labels, evidence: alert.evidence)
    }
    output.close(origins[member], time: time)
  }

  // MARK: Groups

  private func groupKey(_ member: Int, _ alert: RoutedAlert) -> GroupKey? {
    definition.members[member].group.map { GroupKey(group: $0, values: alert.labelSet.key(definition.groups[$0].by)) }
  }

  private func join(_ member: Int, _ key: [UInt8], _ alert: RoutedAlert, at time: Int64) {
    guard let group = groupKey(member, alert) else { return }
    let spec = definition.groups[group.group]
    let needed = neededSince(member, alert)
    var state =
      groups[group]
      ?? AlertGroupState(
        since: alert.since, neededSince: needed, nextFlush: time + spec.waitNanos,
        labels: AlertLabels(
          spec.by.compactMap { name in alert.labelSet[name].map { (Array(name.utf8), Array($0)) } }))
    state.since = min(state.since, alert.since)
    state.neededSince = min(state.neededSince, needed)
    state.alerts[RoutedKey(member: member, key: key)] = .some(nil)
    groups[group] = state
  }

  private func leave(_ member: Int, _ key: [UInt8], _ alert: RoutedAlert) {
    guard let group = groupKey(member, alert) else { return }
    groups[group]?.alerts[RoutedKey(member: member, key: key)] = .some(alert)
  }

  /// A group's wait or interval is over. When it is told of is Alertmanager's (`DedupStage.needsUpdate`); that it is also
  /// when the group has got worse is ours, as escalation is.
  private func flush(_ key: GroupKey, at time: Int64) {
    guard var group = groups[key] else { return }
    let spec = definition.groups[key.group]
    var firing: [(key: RoutedKey, alert: RoutedAlert)] = []
    var resolved: [(key: RoutedKey, alert: RoutedAlert)] = []
    for (member, over) in group.alerts {
      if let over {
        if group.notified.contains(member) { resolved.append((member, over)) }
      } else if let alert = self.firing[member.member][member.key] {
        if let suppressor = suppressor(member.member, alert, at: time) {
          group.neededSince = min(group.neededSince, suppressor.neededSince)
        } else {
          firing.append((member, alert))
        }
      }
    }
    let severity = firing.map { rank($0.key.member, $0.alert, at: time) }.min() ?? group.severity
    let isNew = firing.contains { !group.notified.contains($0.key) }
    let isWorse = group.notifiedAt != nil && !firing.isEmpty && severity < group.severity
    var isAgain = false
    if let last = group.notifiedAt, !firing.isEmpty, spec.repeatNanos > 0 { isAgain = time - last >= spec.repeatNanos }
    if isNew || isWorse || isAgain || !resolved.isEmpty {
      if isAgain, !isNew, !isWorse, resolved.isEmpty {
        group.repeats = group.repeats == .max ? .max : group.repeats + 1
      } else {
        group.repeats = 0
      }
      group.severity = severity
      group.notifiedAt = time
      group.notified = Set(firing.map(\.key))
      firing.sort { RoutedKey.precedes($0.key, $1.key) }
      resolved.sort { RoutedKey.precedes($0.key, $1.key) }
      write(key, group, firing, resolved, at: time)
    }
    group.alerts = group.alerts.filter { $0.value == nil }
    group.nextFlush = time + spec.intervalNanos
    groups[key] = group.alerts.isEmpty ? nil : group
  }

  /// The place of the alert's severity among all, the worst being 0.
  private func rank(_ member: Int, _ alert: RoutedAlert, at time: Int64) -> Int {
    definition.severities.firstIndex(of: severity(member, alert, at: time)) ?? definition.severities.count
  }

  private func severity(_ member: Int, _ alert: RoutedAlert, at time: Int64) -> String {
    let policy = definition.members[member].policy
    return policy.severity(policy.step(firingForNanos: time - alert.notice.firedAt))
  }

  private func write(
    _ key: GroupKey, _ group: AlertGroupState, _ firing: [(key: RoutedKey, alert: RoutedAlert)],
    _ resolved: [(key: RoutedKey, alert: RoutedAlert)], at time: Int64
  ) {
    let spec = definition.groups[key.group]
    let origin = groupOrigins[key.group]
    output.open(origin, time: time) { $0.append(bytes: key.values) }
    output.append { bytes in
      bytes.append(json: ",\"state\":")
      bytes.append(json: firing.isEmpty ? "\"resolved\"" : "\"firing\"")
      bytes.append(json: ",\"severity\":")
      bytes.append(
        jsonString: group.severity < definition.severities.count ? definition.severities[group.severity] : "info")
      if group.repeats > 0 {
        bytes.append(json: ",\"repeat\":")
        bytes.append(json: Int64(group.repeats))
      }
      bytes.append(json: ",\"since\":")
      bytes.append(jsonTime: group.since)
      bytes.append(json: ",\"fingerprint\":\"")
      bytes.append(hex: group.labels.fingerprint(alert: spec.name))
      bytes.append(json: "\",\"labels\":{")
      for index in 0..<group.labels.count {
        if index > 0 { bytes.append(UInt8(ascii: ",")) }
        bytes.append(jsonString: Array(group.labels.name(index)))
        bytes.append(UInt8(ascii: ":"))
        bytes.append(jsonString: Array(group.labels.value(index)))
      }
      bytes.append(json: "},\"firing\":")
      bytes.append(json: Int64(firing.count))
      bytes.append(json: ",\"resolved\":")
      bytes.append(json: Int64(resolved.count))
      bytes.append(json: ",\"alerts\":[")
      let listed = (firing.map { ($0, false) } + resolved.map { ($0, true) }).prefix(spec.listedMax)
      for (index, (item, isOver)) in listed.enumerated() {
        if index > 0 { bytes.append(UInt8(ascii: ",")) }
        append(item.key.member, item.alert, isOver: isOver, at: time, to: &bytes)
      }
      bytes.append(json: "],\"left_off\":")
      bytes.append(json: Int64(firing.count + resolved.count - listed.count))
    }
    output.close(origin, time: time)
  }

  private func append(_ member: Int, _ alert: RoutedAlert, isOver: Bool, at time: Int64, to bytes: inout some TextOutput & ~Copyable) {
    let spec = definition.members[member]
    bytes.append(json: "{\"rule\":")
    bytes.append(jsonString: spec.name)
    bytes.append(json: isOver ? ",\"state\":\"resolved\"" : ",\"state\":\"firing\"")
    bytes.append(json: ",\"severity\":")
    bytes.append(jsonString: severity(member, alert, at: time))
    bytes.append(json: ",\"since\":")
    bytes.append(jsonTime: alert.since)
    bytes.append(json: ",\"fingerprint\":\"")
    bytes.append(hex: alert.fingerprint)
    bytes.append(json: "\",\"when\":")
    bytes.append(jsonString: spec.conditionText)
    bytes.append(UInt8(ascii: ","))
    bytes.append(bytes: alert.labels)
    bytes.append(UInt8(ascii: ","))
    bytes.append(bytes: alert.evidence)
    bytes.append(UInt8(ascii: "}"))
  }

  // MARK: What others ask

  override func neededSince(watermark: Int64) -> Int64 {
    var needed = groups.values.reduce(watermark) { min($0, $1.neededSince) }
    for alerts in firing { for alert in alerts.values { needed = min(needed, alert.neededSince) } }
    guard definition.isMeeting else { return needed }
    // While the router waits for another source, an alert may fire and be resolved of which its own source then knows nothing. It fires
    // behind this watermark, so it has been true for no longer before it than it waits to fire. Not what has arrived decides: a
    // commit would go back behind one before it.
    let slack = definition.members.map { $0.forNanos + $0.hopNanos + $0.reachNanos }.max() ?? 0
    return min(needed, watermark <= slack ? min(watermark, 0) : watermark - slack)
  }

  override var stateSize: (keys: Int, bytes: Int) {
    var keys = groups.count
    var bytes = groups.values.reduce(0) { $0 + 200 + 96 * ($1.alerts.count + $1.notified.count) }
    for alerts in firing {
      keys += alerts.count
      for alert in alerts.values { bytes += alert.bytes }
    }
    for event in waiting { bytes += 200 + event.labels.count + event.evidence.count }
    return (keys, bytes)
  }

  /// An alert out of a checkpoint, with what follows from the rules.
  func completed(_ alert: RoutedAlert, member: Int) -> RoutedAlert {
    var alert = alert
    alert.fingerprint = alert.labelSet.fingerprint(alert: definition.members[member].name)
    alert.maintenances = maintenances[member].matching(alert.labelSet)
    return alert
  }

  func restore(_ alert: RoutedAlert, member: Int, key: [UInt8]) {
    guard firing[member][key] == nil else { return }
    let alert = completed(alert, member: member)
    firing[member][key] = alert
    count(member, alert, by: 1)
  }
}
