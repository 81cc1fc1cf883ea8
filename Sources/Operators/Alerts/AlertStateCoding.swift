import Runtime

/// The alerts that are pending or firing, as a checkpoint keeps them.
extension AlertTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func capture() -> (any StateCapture)? { active.isEmpty ? nil : AlertCapture(active: active) }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: AlertCapture.version, of: "alerts")
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let key = try reader.counted()
      let hash = try reader.integer(UInt64.self)
      let state = try AlertState(from: &reader)
      let seen = try reader.time()
      let instance = Instance(
        state: state, hash: hash, seen: seen, labels: try reader.counted(), evidence: try reader.counted())
      if scope.owns(hash) { active[key] = instance }
    }
    guard reader.isAtEnd else { throw StateCorruption("the alerts of the state have bytes behind them") }
  }
}

private struct AlertCapture: StateCapture {
  static let version: UInt16 = 1
  let active: [[UInt8]: AlertTask.Instance]

  var keyCount: Int { active.count }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(UInt32(active.count))
    for (key, instance) in active.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      writer.append(key)
      writer.append(instance.hash)
      instance.state.encode(into: writer)
      writer.append(instance.seen)
      writer.append(instance.labels)
      writer.append(instance.evidence)
    }
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
