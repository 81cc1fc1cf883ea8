import Catalog
import Runtime

/// A pane: its groups and their aggregates.
final class Pane: PanePartial, @unchecked Sendable {
  // @unchecked: as PanePartial says.
  /// Nanoseconds: the definition's, but for panes from before the rules changed.
  let length: Int64
  let table: GroupTable
  let states: [AggregateState]
  /// The same, to be called without counting references.
  let calls: ContiguousArray<Unmanaged<AggregateState>>
  /// While rows come: by number of a `KeyCoder`, the group of that key and one; 0 where it has not come yet.
  private var places = NativeArray<UInt16>()
  /// By state, whether rows of the pane were read before the state was there; nil as a rule.
  private(set) var lacking: [Bool]?
  /// Whether it only says what is to come of a pane that is still open.
  let isAnnouncement: Bool

  var end: Int64 { start + length }

  convenience init(start: Int64, length: Int64? = nil, _ definition: PaneAggregation, expectedGroups: Int = 16) {
    self.init(
      start: start, length: length ?? definition.paneNanos, definition.contents, expectedGroups: expectedGroups)
  }

  init(start: Int64, length: Int64, _ contents: PaneContents, expectedGroups: Int) {
    self.length = length
    table = GroupTable(keyTypes: contents.keyTypes, expectedGroups: expectedGroups)
    states = contents.makeStates()
    calls = ContiguousArray(states.map { Unmanaged.passUnretained($0) })
    isAnnouncement = false
    super.init(start: start)
  }

  /// Of stored parts.
  init(start: Int64, length: Int64, table: GroupTable, states: [AggregateState], lacking: [Bool]?) {
    self.length = length
    self.table = table
    self.states = states
    self.lacking = lacking
    calls = ContiguousArray(states.map { Unmanaged.passUnretained($0) })
    isAnnouncement = false
    super.init(start: start)
  }

  /// The same groups and aggregates, to go on by itself.
  init(copying other: Pane) {
    length = other.length
    table = GroupTable(copying: other.table)
    states = other.states.map { $0.copy() }
    calls = ContiguousArray(states.map { Unmanaged.passUnretained($0) })
    lacking = other.lacking
    isAnnouncement = false
    super.init(start: other.start)
  }

  private init(announcing other: Pane, keyTypes: [PhysicalType]) {
    length = other.length
    table = GroupTable(keyTypes: keyTypes)
    states = []
    calls = []
    lacking = other.lacking
    isAnnouncement = true
    super.init(start: other.start)
  }

  /// What the shards must know of it before it closes; nil for a pane like any other.
  func announcement(_ definition: PaneAggregation) -> Pane? {
    guard length != definition.paneNanos || lacking != nil else { return nil }
    return Pane(announcing: self, keyTypes: definition.keyTypes)
  }

  /// Writes the group of each row's key, as `GroupTable.assign`. Only ever with one coder.
  func assign(
    _ coder: KeyCoder, rows: UnsafePointer<Int32>, count: Int, groups: UnsafeMutablePointer<Int32>
  ) {
    places.grow(to: coder.count, filling: 0)
    let codes = coder.codes
    let known = places.base
    for index in 0..<count {
      let code = Int(codes[Int(rows[index])])
      let place = known[code]
      if place != 0 {
        groups[index] = Int32(place) &- 1
      } else {
        var hash = coder.hash(of: code)
        table.assign(coder.keys, rows: rows + index, hashes: &hash, count: 1, groups: groups + index)
        // Restored panes may have more groups than fit.
        if groups[index] < Int32(UInt16.max) { known[code] = UInt16(truncatingIfNeeded: groups[index] &+ 1) }
      }
    }
  }

  /// No more rows will come.
  func forgetCodes() { places = NativeArray() }

  /// Adds the groups of another pane, those whose key belongs to `shard`.
  func merge(_ other: Pane, shard: Int, shardCount: Int) {
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: 2 * other.table.count) { memory in
      guard let sources = memory.baseAddress else { return }
      let targets = sources + other.table.count
      var count = 0
      for group in 0..<other.table.count {
        let hash = other.table.hash(of: group)
        if shardCount > 1, KeyGroup.owner(hash, shardCount: shardCount) != shard { continue }
        (sources + count).initialize(to: Int32(truncatingIfNeeded: group))
        (targets + count).initialize(to: Int32(truncatingIfNeeded: table.assign(group: group, of: other.table)))
        count += 1
      }
      let groupCount = table.count
      for index in calls.indices {
        calls[index]._withUnsafeGuaranteedRef { mine in
          other.calls[index]._withUnsafeGuaranteedRef { theirs in
            mine.ensure(groups: groupCount)
            mine.merge(theirs, sources: sources, targets: targets, count: count)
          }
        }
      }
    }
    if let theirs = other.lacking { lacking = lacking.map { zip($0, theirs).map { $0 || $1 } } ?? theirs }
  }

  /// Whether all its keys are in `scope`.
  func lies(in scope: KeyScope) -> Bool {
    scope.shardCount == 1 || (0..<table.count).allSatisfy { scope.owns(table.hash(of: $0)) }
  }

  var bytes: Int { table.bytes + 2 * places.count + states.reduce(0) { $0 + $1.bytes } }
}
