import Catalog
import Runtime

/// An alert's label set: names and values as text, sorted by name. It tells the alert from others, and is what groups,
/// inhibitions and maintenance windows look at.
struct AlertLabels: Hashable, Sendable {
  /// Names and values in turn, one behind the other.
  private var bytes: [UInt8] = []
  /// Where each of them ends.
  private var ends: [Int32] = []

  init(_ pairs: [(name: [UInt8], value: [UInt8])]) {
    for pair in pairs.sorted(by: { $0.name.lexicographicallyPrecedes($1.name) }) {
      for part in [pair.name, pair.value] {
        bytes += part
        ends.append(Int32(clamping: bytes.count))
      }
    }
  }

  var count: Int { ends.count / 2 }
  var byteCount: Int { bytes.count + 4 * ends.count }

  private func part(_ index: Int) -> ArraySlice<UInt8> {
    bytes[(index == 0 ? 0 : Int(ends[index - 1]))..<Int(ends[index])]
  }

  func name(_ index: Int) -> ArraySlice<UInt8> { part(2 * index) }
  func value(_ index: Int) -> ArraySlice<UInt8> { part(2 * index + 1) }

  /// The label's value; nil when there is none of the name.
  subscript(_ label: String) -> ArraySlice<UInt8>? {
    for index in 0..<count where name(index).elementsEqual(label.utf8) { return value(index) }
    return nil
  }

  /// The fingerprint of the label set with the alert's name as `alertname`: FNV-1a with 64 bits over names and values in the
  /// order of names, a byte 0xFF behind each. That is Alertmanager's (prometheus/common, `labelSetToFingerprint`), so that the
  /// same labels have the same fingerprint there.
  func fingerprint(alert: String) -> UInt64 {
    var hash: UInt64 = 14_695_981_039_346_656_037
    func add(_ text: some Sequence<UInt8>) {
      for byte in text { hash = (hash ^ UInt64(byte)) &* 1_099_511_628_211 }
      hash = (hash ^ 0xFF) &* 1_099_511_628_211
    }
    let own = Array("alertname".utf8)
    var isNamed = false
    for index in 0..<count {
      if !isNamed, own.lexicographicallyPrecedes(name(index)) {
        add(own)
        add(alert.utf8)
        isNamed = true
      }
      if name(index).elementsEqual(own) { continue }
      add(name(index))
      add(value(index))
    }
    if !isNamed {
      add(own)
      add(alert.utf8)
    }
    return hash
  }

  /// The values of some labels, told apart: what a group is called by, and what must be equal for an inhibition.
  func key(_ labels: [String]) -> [UInt8] {
    var key: [UInt8] = []
    for (index, label) in labels.enumerated() {
      if index > 0 { key.append(0x1F) }
      guard let value = self[label] else {
        key.append(0x1E)
        continue
      }
      for byte in value {
        if (0x1D...0x1F).contains(byte) { key += [0x1D, byte ^ 0x40] } else { key.append(byte) }
      }
    }
    return key
  }

  func matches(_ matcher: LabelMatcher) -> Bool {
    let value = self[matcher.label] ?? []
    return matcher.values.contains { value.elementsEqual($0.utf8) } != matcher.isNegated
  }

  func encode(into writer: StateWriter) {
    writer.append(UInt32(count))
    for index in 0..<2 * count { writer.append(Array(part(index))) }
  }

  init(from reader: inout StateReader) throws(StateCorruption) {
    let count = Int(try reader.integer(UInt32.self))
    guard count <= reader.left / 16 else { throw StateCorruption("an alert of the state has \(count) labels") }
    for _ in 0..<2 * count {
      bytes += try reader.counted()
      guard bytes.count < 1 << 30 else { throw StateCorruption("labels of the state are too long") }
      ends.append(Int32(bytes.count))
    }
  }
}

/// A maintenance window: alerts that match it are silent while it is open.
public struct Maintenance: Sendable, Hashable {
  public var name: String
  public var schedule: MaintenanceSchedule
  /// All of them must match; those for other alerts have been left out.
  public var matchers: [LabelMatcher]
  public init(name: String, schedule: MaintenanceSchedule, matchers: [LabelMatcher]) {
    self.name = name
    self.schedule = schedule
    self.matchers = matchers
  }

  func matches(_ labels: AlertLabels) -> Bool { matchers.allSatisfy { labels.matches($0) } }
}

/// Which of some maintenance windows are open, asked for again and again at one time.
struct OpenMaintenances {
  private let all: [Maintenance]
  private var time = beforeAllTime
  private var isOpen: [Bool]

  init(_ all: [Maintenance]) {
    self.all = all
    isOpen = all.map { _ in false }
  }

  /// Those that an alert with these labels is subject to.
  func matching(_ labels: AlertLabels) -> [Int32] {
    all.indices.filter { all[$0].matches(labels) }.map { Int32(truncatingIfNeeded: $0) }
  }

  /// The name of the first of them that is open.
  mutating func silencer(among matching: [Int32], at time: Int64) -> String? {
    if matching.isEmpty { return nil }
    if time != self.time {
      self.time = time
      for index in all.indices { isOpen[index] = all[index].schedule.isOpen(at: time) }
    }
    return matching.first { isOpen[Int($0)] }.map { all[Int($0)].name }
  }
}
