import Catalog
import Runtime

/// What stands in front of stored panes: which keys and aggregates they have. Panes of one list share it.
struct StoredLayout {
  /// By stored aggregate, its index in the definition; nil for one that is not there any more.
  let places: [Int?]
  /// By state of the definition, whether no stored aggregate is the same.
  let isNew: [Bool]
  private let definition: PaneAggregation

  static func encode(_ definition: PaneAggregation, into writer: StateWriter) {
    writer.append(definition.keyTypes.map(\.rawValue))
    writer.append(UInt32(definition.states.count))
    for index in definition.states.indices { writer.append(definition.stateID(index)) }
  }

  init(_ definition: PaneAggregation, from reader: inout StateReader) throws(StateCorruption) {
    self.definition = definition
    let keyTypes = try reader.counted()
    guard keyTypes == definition.keyTypes.map(\.rawValue) else {
      throw StateCorruption("the state of \(definition.operatorID) has keys of other types")
    }
    let count = Int(try reader.integer(UInt32.self))
    guard count <= reader.left / 8 else { throw StateCorruption("the state names \(count) aggregates") }
    var indexes: [String: Int] = [:]
    for index in definition.states.indices.reversed() { indexes[definition.stateID(index)] = index }
    var places: [Int?] = []
    var isNew = Array(repeating: true, count: definition.states.count)
    for _ in 0..<count {
      let place = indexes.removeValue(forKey: try reader.text())
      places.append(place)
      if let place { isNew[place] = false }
    }
    self.places = places
    self.isNew = isNew
  }

  func pane(from reader: inout StateReader) throws(StateCorruption) -> Pane {
    let start = try reader.time()
    let length = try reader.integer(Int64.self)
    guard length > 0, length <= Seam.paneNanosMax, start % length == 0 else {
      throw StateCorruption("a pane of the state begins at \(start) and is \(length) ns long")
    }
    let table = try GroupTable(keyTypes: definition.keyTypes, from: &reader)
    let states = definition.makeStates()
    var lacking = Array(repeating: true, count: states.count)
    for place in places {
      guard try reader.bool() else { continue }
      let kind = try reader.integer(UInt8.self)
      let bytes = try reader.count()
      guard let place, states[place].kind == kind else {
        try reader.skip(bytes)
        continue
      }
      let end = reader.position + bytes
      try states[place].restore(from: &reader, groups: table.count)
      guard reader.position == end else { throw StateCorruption("an aggregate of the state has another length") }
      lacking[place] = false
    }
    for state in states { state.ensure(groups: table.count) }
    return Pane(
      start: start, length: length, table: table, states: states, lacking: lacking.contains(true) ? lacking : nil)
  }
}

extension Pane {
  /// By start, the shorter first.
  static func isBefore(_ a: Pane, _ b: Pane) -> Bool { (a.start, a.length) < (b.start, b.length) }
}

extension PaneAggregation {
  /// What a state is matched by.
  func stateID(_ index: Int) -> String { states[index].id.isEmpty ? "#\(index)" : states[index].id }
}

extension Pane {
  /// Start, length, keys, and the aggregates that it has, each with its kind and length, so that whoever does not
  /// know one can pass over it.
  func encode(into writer: StateWriter) {
    writer.append(start)
    writer.append(length)
    table.encode(into: writer)
    for (index, state) in states.enumerated() {
      let isThere = lacking?[index] != true
      writer.append(isThere)
      guard isThere else { continue }
      writer.append(state.kind)
      let part = StateWriter()
      state.encode(into: part)
      writer.append(part.bytes)
    }
  }

  /// The keys of a shard alone.
  func part(shard: Int, shardCount: Int, _ definition: PaneAggregation) -> Pane {
    let scope = KeyScope(shard: shard, shardCount: shardCount)
    if lies(in: scope) { return self }
    let part = Pane(start: start, length: length, definition)
    part.merge(self, shard: shard, shardCount: shardCount)
    return part
  }
}

extension [Pane] {
  /// Adds the keys in `scope` of a stored part to what other parts have given of the same pane. One without such keys
  /// is kept as well: that rows were there is part of what is known.
  mutating func restore(_ part: Pane, _ scope: KeyScope, _ definition: PaneAggregation) {
    if let known = first(where: { $0.start == part.start && $0.length == part.length }) {
      known.merge(part, shard: scope.shard, shardCount: scope.shardCount)
    } else {
      append(part.part(shard: scope.shard, shardCount: scope.shardCount, definition))
    }
  }
}

/// Open panes of one partition at a barrier.
final class OpenPanesCapture: StateCapture {
  static let version: UInt16 = 1
  let keyCount: Int
  private let definition: PaneAggregation
  private let panes: [(pane: Pane, hold: CaptureHold)]

  init(_ definition: PaneAggregation, _ panes: [Pane]) {
    self.definition = definition
    keyCount = panes.reduce(0) { max($0, $1.table.count) }
    self.panes = panes.sorted(by: Pane.isBefore).map { ($0, CaptureHold($0.holds)) }
  }

  /// Once: behind it the panes are written on.
  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    StoredLayout.encode(definition, into: writer)
    writer.append(UInt32(panes.count))
    for (pane, hold) in panes {
      pane.encode(into: writer)
      hold.release()
    }
  }
}

extension StateReader {
  /// A time that state may name.
  mutating func time() throws(StateCorruption) -> Int64 {
    let time = try integer(Int64.self)
    guard storedTimes.contains(time) else { throw StateCorruption("a time of the state is \(time)") }
    return time
  }

  /// The same, or one of the two that lie outside of all time.
  mutating func anyTime() throws(StateCorruption) -> Int64 {
    let time = try integer(Int64.self)
    guard storedTimes.contains(time) || time == beforeAllTime || time == afterAllTime else {
      throw StateCorruption("a time of the state is \(time)")
    }
    return time
  }
}
