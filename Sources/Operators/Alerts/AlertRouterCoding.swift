import Runtime

/// What the router keeps, as a checkpoint has it: alerts that fire, and changes that wait. Members go by name, so that it means
/// the same to rules that have more of them, or fewer.
extension AlertRouterTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func capture() -> (any StateCapture)? {
    if waiting.isEmpty, firing.allSatisfy(\.isEmpty) { return nil }
    return AlertRouterCapture(
      members: definition.members.map(\.operatorID), firing: firing, waiting: waiting, clock: clock)
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: AlertRouterCapture.version, of: "a router of alerts")
    let stored = try reader.integer(Int64.self)
    guard storedTimes.contains(stored) || stored == beforeAllTime else {
      throw StateCorruption("a router of alerts in the state stands at no time")
    }
    let members = try StoredMembers(definition, from: &reader)
    guard scope.owns(AlertRouter.ownerHash) else { return }
    clock = max(clock, stored)
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      let known = try members.index(try reader.integer())
      let key = try reader.counted()
      let alert = try RoutedAlert(from: &reader)
      if let known { restore(alert, member: known, key: key) }
    }
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      var event = try AlertEvent(from: &reader)
      guard let known = try members.index(UInt32(truncatingIfNeeded: event.alert)) else { continue }
      event.alert = known
      waiting.append(event)
    }
    guard reader.isAtEnd else { throw StateCorruption("the router of alerts in the state has bytes behind it") }
  }
}

/// One group's part of the router's state.
final class AlertGroupTask: StatefulTask {
  // The router owns it.
  private unowned let router: AlertRouterTask
  private let group: Int

  init(_ router: AlertRouterTask, group: Int) {
    self.router = router
    self.group = group
  }

  var operatorID: String { router.definition.groups[group].operatorID }

  func capture() -> (any StateCapture)? {
    let own = router.groups.filter { $0.key.group == group }
    if own.isEmpty { return nil }
    return AlertGroupCapture(
      members: router.definition.members.map(\.operatorID), groups: own.map { ($0.key.values, $0.value) })
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: AlertGroupCapture.version, of: "a group of alerts")
    let members = try StoredMembers(router.definition, from: &reader)
    guard scope.owns(AlertRouter.ownerHash) else { return }
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      let values = try reader.counted()
      var state = try AlertGroupState(from: &reader, members)
      // Alerts whose rules have left the group leave no trace in it.
      let alerts = state.alerts
      state.alerts = [:]
      for (key, over) in alerts where router.definition.members[key.member].group == group {
        state.alerts[key] = .some(over.map { router.completed($0, member: key.member) })
      }
      if !state.alerts.isEmpty { router.groups[.init(group: group, values: values)] = state }
    }
    guard reader.isAtEnd else { throw StateCorruption("the group of alerts in the state has bytes behind it") }
  }
}

/// Which member of now each stored one is.
private struct StoredMembers {
  private let indexes: [Int?]

  init(_ definition: AlertRouter, from reader: inout StateReader) throws(StateCorruption) {
    var indexes: [Int?] = []
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      let name = try reader.text()
      indexes.append(definition.members.firstIndex { $0.operatorID == name })
    }
    self.indexes = indexes
  }

  /// Nil for a member that is no longer there.
  func index(_ stored: UInt32) throws(StateCorruption) -> Int? {
    guard stored < indexes.count else { throw StateCorruption("an alert of the state is of no rule") }
    return indexes[Int(stored)]
  }
}

private struct AlertRouterCapture: StateCapture {
  static let version: UInt16 = 1
  let members: [String]
  let firing: [[[UInt8]: RoutedAlert]]
  let waiting: [AlertEvent]
  let clock: Int64

  var keyCount: Int { firing.reduce(0) { $0 + $1.count } }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(clock)
    writer.append(UInt64(members.count))
    for name in members { writer.append(name) }
    writer.append(UInt64(keyCount))
    for (member, alerts) in firing.enumerated() {
      for (key, alert) in alerts.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
        writer.append(UInt32(member))
        writer.append(key)
        alert.encode(into: writer)
      }
    }
    writer.append(UInt64(waiting.count))
    for event in waiting.sorted(by: AlertEvent.precedes) { event.encode(into: writer) }
  }
}

private struct AlertGroupCapture: StateCapture {
  static let version: UInt16 = 1
  let members: [String]
  let groups: [(values: [UInt8], state: AlertGroupState)]

  var keyCount: Int { groups.count }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(UInt64(members.count))
    for name in members { writer.append(name) }
    writer.append(UInt64(groups.count))
    for group in groups.sorted(by: { $0.values.lexicographicallyPrecedes($1.values) }) {
      writer.append(group.values)
      group.state.encode(into: writer)
    }
  }
}

extension RoutedAlert {
  fileprivate func encode(into writer: StateWriter) {
    writer.append(since)
    notice.encode(into: writer)
    labelSet.encode(into: writer)
    writer.append(labels)
    writer.append(evidence)
    writer.append(neededSince)
  }

  /// Without what follows from the rules: the fingerprint and its maintenance windows.
  fileprivate init(from reader: inout StateReader) throws(StateCorruption) {
    since = try reader.time()
    notice = try AlertNotice(from: &reader)
    labelSet = try AlertLabels(from: &reader)
    fingerprint = 0
    labels = try reader.counted()
    evidence = try reader.counted()
    neededSince = try reader.integer(Int64.self)
  }
}

extension AlertGroupState {
  fileprivate func encode(into writer: StateWriter) {
    writer.append(since)
    writer.append(neededSince)
    writer.append(nextFlush)
    labels.encode(into: writer)
    writer.append(notifiedAt != nil)
    writer.append(notifiedAt ?? 0)
    writer.append(UInt32(severity))
    writer.append(repeats)
    writer.append(UInt64(alerts.count))
    for (key, over) in alerts.sorted(by: { RoutedKey.precedes($0.key, $1.key) }) {
      writer.append(UInt32(key.member))
      writer.append(key.key)
      writer.append(notified.contains(key))
      writer.append(over != nil)
      over?.encode(into: writer)
    }
  }

  /// Alerts of rules that are gone are left out.
  fileprivate init(from reader: inout StateReader, _ members: StoredMembers) throws(StateCorruption) {
    since = try reader.time()
    neededSince = try reader.integer(Int64.self)
    nextFlush = try reader.time()
    labels = try AlertLabels(from: &reader)
    let isNotified = try reader.bool()
    let last = try reader.integer(Int64.self)
    guard !isNotified || storedTimes.contains(last) else {
      throw StateCorruption("a group of alerts in the state was told of at no time")
    }
    notifiedAt = isNotified ? last : nil
    severity = Int(try reader.integer(UInt32.self))
    repeats = try reader.integer(Int32.self)
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      let known = try members.index(try reader.integer(UInt32.self))
      let key = try reader.counted()
      let wasNotified = try reader.bool()
      let over = try reader.bool() ? try RoutedAlert(from: &reader) : nil
      guard let known else { continue }
      let routed = RoutedKey(member: known, key: key)
      alerts[routed] = .some(over)
      if wasNotified { notified.insert(routed) }
    }
  }
}
