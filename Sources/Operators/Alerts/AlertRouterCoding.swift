import Runtime

/// What the router keeps, as a checkpoint has it. Members and groups go by name, so that it means the same to rules that have
/// more of them, or fewer.
extension AlertRouterTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func capture() -> (any StateCapture)? {
    if groups.isEmpty, waiting.isEmpty, firing.allSatisfy(\.isEmpty) { return nil }
    return AlertRouterCapture(
      members: definition.members.map(\.operatorID), groupNames: definition.groups.map { Self.identity($0) },
      firing: firing, groups: groups, waiting: waiting, clock: clock)
  }

  /// A group that is made by other labels is another one.
  private static func identity(_ group: AlertRouter.Group) -> String {
    "\(group.name) by \(group.by.joined(separator: ", "))"
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: AlertRouterCapture.version, of: "a router of alerts")
    let stored = try reader.integer(Int64.self)
    guard storedTimes.contains(stored) || stored == beforeAllTime else {
      throw StateCorruption("a router of alerts in the state stands at no time")
    }
    let members = try Self.names(&reader).map { name in definition.members.firstIndex { $0.operatorID == name } }
    let names = try Self.names(&reader).map { name in definition.groups.firstIndex { Self.identity($0) == name } }
    guard scope.owns(AlertRouter.ownerHash) else { return }
    clock = max(clock, stored)
    func member(_ number: UInt32) throws(StateCorruption) -> Int? {
      guard number < members.count else { throw StateCorruption("an alert of the state is of no rule") }
      return members[Int(number)]
    }
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      let known = try member(try reader.integer())
      let key = try reader.counted()
      let alert = try RoutedAlert(from: &reader)
      if let known { restore(alert, member: known, key: key) }
    }
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      let number = try reader.integer(UInt32.self)
      guard number < names.count else { throw StateCorruption("a group of alerts in the state has no name") }
      let values = try reader.counted()
      let group = try AlertGroupState(from: &reader) { number throws(StateCorruption) in try member(number) }
      // Those whose rules have left the group, or are gone, leave no trace in it.
      guard let known = names[Int(number)] else { continue }
      var kept = group
      kept.alerts = group.alerts.filter { definition.members[$0.key.member].group == known }
      if !kept.alerts.isEmpty { groups[GroupKey(group: known, values: values)] = kept }
    }
    for _ in 0..<(try reader.count(bytesEach: 8)) {
      var event = try AlertEvent(from: &reader)
      guard let known = try member(UInt32(truncatingIfNeeded: event.alert)) else { continue }
      event.alert = known
      waiting.append(event)
    }
    guard reader.isAtEnd else { throw StateCorruption("the router of alerts in the state has bytes behind it") }
  }

  private static func names(_ reader: inout StateReader) throws(StateCorruption) -> [String] {
    var names: [String] = []
    for _ in 0..<(try reader.count(bytesEach: 8)) { names.append(try reader.text()) }
    return names
  }
}

private struct AlertRouterCapture: StateCapture {
  static let version: UInt16 = 1
  let members: [String]
  let groupNames: [String]
  let firing: [[[UInt8]: RoutedAlert]]
  let groups: [AlertRouterTask.GroupKey: AlertGroupState]
  let waiting: [AlertEvent]
  let clock: Int64

  var keyCount: Int { firing.reduce(groups.count) { $0 + $1.count } }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(clock)
    for names in [members, groupNames] {
      writer.append(UInt64(names.count))
      for name in names { writer.append(name) }
    }
    writer.append(UInt64(firing.reduce(0) { $0 + $1.count }))
    for (member, alerts) in firing.enumerated() {
      for (key, alert) in alerts.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
        writer.append(UInt32(member))
        writer.append(key)
        alert.encode(into: writer)
      }
    }
    writer.append(UInt64(groups.count))
    let ordered = groups.sorted {
      $0.key.group != $1.key.group
        ? $0.key.group < $1.key.group : $0.key.values.lexicographicallyPrecedes($1.key.values)
    }
    for (key, group) in ordered {
      writer.append(UInt32(key.group))
      writer.append(key.values)
      group.encode(into: writer)
    }
    writer.append(UInt64(waiting.count))
    for event in waiting.sorted(by: AlertEvent.precedes) { event.encode(into: writer) }
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

  /// `member` says which rule of now a number stands for; alerts of rules that are gone are left out.
  fileprivate init(
    from reader: inout StateReader, member: (UInt32) throws(StateCorruption) -> Int?
  ) throws(StateCorruption) {
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
      let known = try member(try reader.integer(UInt32.self))
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
