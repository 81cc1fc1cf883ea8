import Catalog
import Runtime

/// What a join keeps, as it is stored and read again.
extension JoinTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func start(missingBefore time: Int64) { resume(at: time) }

  func capture() -> (any StateCapture)? {
    settleRestored()
    return JoinCapture(
      rows: captureRows(), emitFrom: emitFrom, openEnd: openEnd, skippedEnds: skippedEnds.sorted(),
      sides: stores.indices.map { storedRows($0) }, lost: lostKeys(),
      groupLostAt: (0..<KeyGroup.count).map { groupLostAt[$0] }, range: ownGroups, keyCount: stateSize.keys)
  }

  private var ownGroups: Range<Int> { KeyGroup.range(of: context.shard, shardCount: context.shardCount) }

  /// A side's rows, those without a partner apart. Shares chunks, which later rows do not change; what does is copied.
  private func storedRows(_ side: Int) -> GatherStoredInput {
    let store = stores[side]
    var selected: [OrderedCoding.Selected] = []
    for (index, chunk) in store.chunks.enumerated() {
      let first = store.base + Int64(index * JoinChunk.capacity)
      let numbers = NativeArray<Int64>(repeating: 0, count: chunk.batch.rowCount)
      var remaining: [[Int32]] = [[], []]
      for row in 0..<chunk.batch.rowCount {
        numbers[row] = first + Int64(row)
        guard first + Int64(row) >= store.head else { continue }
        // A row in no list is of use only when it will leave without a partner.
        if chunk.groups[row] == -1, chunk.matched[row] == 1 || side == 1 { continue }
        remaining[Int(chunk.matched[row])].append(Int32(row))
      }
      let rows = OrderedRows(batch: chunk.batch, offsets: numbers, hashes: NativeArray(), arena: chunk.arena)
      for (matched, remaining) in remaining.enumerated() where !remaining.isEmpty {
        selected.append(OrderedCoding.Selected(partition: matched, rows: rows, remaining: remaining))
      }
    }
    return GatherStoredInput(
      definition: definition.inputs[side].stored, selected: selected, partitionNames: JoinCapture.parts)
  }

  private func lostKeys() -> (table: GroupTable, times: [Int64]) {
    let lost = GroupTable(keyTypes: definition.keyTypes)
    var times: [Int64] = []
    for group in 0..<min(states.count, table.count) where states[group].lostAt > .min {
      _ = lost.assign(group: group, of: table)
      times.append(states[group].lostAt)
    }
    return (lost, times)
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: JoinCapture.version, of: "a join")
    try restoreWaiting(from: &reader, scope: scope)
    emitFrom = max(emitFrom, try reader.anyTime())
    if try reader.bool() {
      let end = try reader.time()
      openEnd = min(openEnd ?? end, end)
    }
    let skipped = Int(try reader.integer(UInt32.self))
    for _ in 0..<skipped { skippedEnds.insert(try reader.time()) }
    for side in stores.indices {
      let input = definition.inputs[side]
      for (part, rows) in try OrderedCoding.read(input.stored, partitionNames: JoinCapture.parts, from: &reader) {
        guard part < JoinCapture.parts.count else { throw StateCorruption("a row of a join is of part \(part)") }
        if let mine = rows.part(in: scope, input) { restored.append((side, part == 1, mine)) }
      }
    }
    let lost = try GroupTable(keyTypes: definition.keyTypes, from: &reader)
    var times: [Int64] = []
    for _ in 0..<lost.count { times.append(try reader.time()) }
    restoredLost.append((lost, times))
    let first = Int(try reader.integer(UInt16.self))
    let count = Int(try reader.integer(UInt16.self))
    guard first + count <= KeyGroup.count else { throw StateCorruption("a join's state names \(first + count) key groups") }
    for group in first..<first + count {
      let time = try reader.integer(Int64.self)
      if ownGroups.contains(group) { groupLostAt[group] = max(groupLostAt[group], time) }
    }
    guard reader.isAtEnd else { throw StateCorruption("the state of a join has bytes behind it") }
  }

  /// Brings rows of all parts into their order, as they were.
  func settleRestored() {
    guard !restored.isEmpty || !restoredLost.isEmpty else { return }
    for side in stores.indices {
      var order: [(time: Int64, number: Int64, part: Int, row: Int)] = []
      for (part, entry) in restored.enumerated() where entry.side == side {
        for row in 0..<entry.rows.batch.rowCount {
          order.append((entry.rows.batch.times[row], entry.rows.offsets[row], part, row))
        }
      }
      order.sort { ($0.time, $0.number, $0.part, $0.row) < ($1.time, $1.number, $1.part, $1.row) }
      let groups = restored.map { $0.side == side ? restoredGroups($0.rows, side) : [] }
      for place in order {
        let entry = restored[place.part]
        let (number, row) = stores[side].append(entry.rows, place.row)
        row.isMatched = entry.isMatched
        let group = groups[place.part][place.row]
        if group >= 0 {
          link(number, row, side: side, group)
        } else {
          keepWithoutKey(row, KeyGroup.of(entry.rows.hashes[place.row]))
        }
      }
    }
    for (lost, times) in restoredLost {
      for group in 0..<lost.count where KeyGroup.owner(lost.hash(of: group), shardCount: context.shardCount) == context.shard {
        let here = table.assign(group: group, of: lost)
        states.grow(to: table.count, filling: KeyState())
        states.base[here].lostAt = times[group]
      }
    }
    restored = []
    restoredLost = []
  }

  private func restoredGroups(_ rows: OrderedRows, _ side: Int) -> [Int32] {
    let batch = rows.batch
    var keys = KeyColumns()
    keys.bind(batch, slots: definition.inputs[side].keys)
    let groups = NativeArray<Int32>(repeating: 0, count: batch.rowCount)
    table.assign(keys, rows: batch.all.rows, hashes: rows.hashes.base, count: batch.rowCount, groups: groups.base)
    states.grow(to: table.count, filling: KeyState())
    return (0..<batch.rowCount).map { row in
      for key in definition.inputs[side].keys where batch.columns[key].hasNulls && batch.columns[key].validity[row] == 0 {
        return -1
      }
      return groups[row]
    }
  }
}

private struct JoinCapture: StateCapture, @unchecked Sendable {
  // @unchecked: nobody changes the table, and of shared chunks only what is not read here.
  static let version: UInt16 = 1
  static let parts = ["unmatched", "matched"]
  let rows: GatherCapture
  let emitFrom: Int64
  let openEnd: Int64?
  let skippedEnds: [Int64]
  let sides: [GatherStoredInput]
  let lost: (table: GroupTable, times: [Int64])
  let groupLostAt: [Int64]
  let range: Range<Int>
  let keyCount: Int

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    rows.encode(into: writer)
    writer.append(emitFrom)
    writer.append(openEnd != nil)
    if let openEnd { writer.append(openEnd) }
    writer.append(UInt32(skippedEnds.count))
    for end in skippedEnds { writer.append(end) }
    for side in sides { side.encode(into: writer) }
    lost.table.encode(into: writer)
    for time in lost.times { writer.append(time) }
    writer.append(UInt16(range.lowerBound))
    writer.append(UInt16(range.count))
    for group in range { writer.append(groupLostAt[group]) }
  }
}
