import Runtime

/// The alerts that are pending or firing, as a checkpoint keeps them.
extension AlertTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func capture() -> (any StateCapture)? { active.isEmpty ? nil : AlertCapture(active: active) }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    let version = try reader.integer(UInt16.self)
    guard AlertCapture.versions.contains(version) else {
      throw StateCorruption("the state of alerts has version \(version); this program reads \(AlertCapture.versions)")
    }
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let key = try reader.counted()
      let hash = try reader.integer(UInt64.self)
      let state = try AlertState(from: &reader)
      let seen = try reader.time()
      let labels = try reader.counted()
      let evidence = try reader.counted()
      var instance = Instance(
        key: key, state: state, hash: hash, seen: seen, labelSet: AlertLabels([]), fingerprint: 0, labels: labels,
        evidence: evidence)
      if version == 1 {
        // Before labels were kept as such: they stand in the record's text.
        instance.labelSet = AlertLabels(json: labels)
        if case .firing = state.phase { instance.notice = AlertNotice(told: state.since) }
      } else {
        if try reader.bool() { instance.notice = try AlertNotice(from: &reader) }
        instance.labelSet = try AlertLabels(from: &reader)
      }
      if scope.owns(hash) { restore(instance) }
    }
    guard reader.isAtEnd else { throw StateCorruption("the alerts of the state have bytes behind them") }
  }
}

private struct AlertCapture: StateCapture {
  static let versions: ClosedRange<UInt16> = 1...2
  let active: [AlertTask.Instance]

  var keyCount: Int { active.count }

  func encode(into writer: StateWriter) {
    writer.append(Self.versions.upperBound)
    writer.append(UInt32(active.count))
    for instance in active.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      writer.append(instance.key)
      writer.append(instance.hash)
      instance.state.encode(into: writer)
      writer.append(instance.seen)
      writer.append(instance.labels)
      writer.append(instance.evidence)
      writer.append(instance.notice != nil)
      instance.notice?.encode(into: writer)
      instance.labelSet.encode(into: writer)
    }
  }
}

extension AlertLabels {
  /// Out of `"labels":{…}`.
  init(json: [UInt8]) {
    let members = JSONValue([UInt8(ascii: "{")] + json + [UInt8(ascii: "}")])?["labels"]?.members ?? []
    self.init(members.compactMap { member in member.value.text.map { (Array(member.name.utf8), Array($0.utf8)) } })
  }
}

extension AlertState {
  fileprivate func encode(into writer: StateWriter) {
    switch phase {
    case .pending(let since):
      writer.append(UInt8(0))
      writer.append(since)
    case .firing(let since, nil):
      writer.append(UInt8(1))
      writer.append(since)
    case .firing(let since, let falseSince?):
      writer.append(UInt8(2))
      writer.append(since)
      writer.append(falseSince)
    }
  }

  fileprivate init(from reader: inout StateReader) throws(StateCorruption) {
    let form = try reader.integer(UInt8.self)
    let since = try reader.time()
    switch form {
    case 0: self.init(phase: .pending(since: since))
    case 1: self.init(phase: .firing(since: since, falseSince: nil))
    case 2: self.init(phase: .firing(since: since, falseSince: try reader.time()))
    default: throw StateCorruption("an alert of the state is in no known phase")
    }
  }
}
