import CColumns
import Catalog
import Runtime

/// A join at work on one shard.
///
/// Rows come in the order of their times. Each side keeps them first in first out (`JoinStore`), and by key in a list; a row
/// leaves both when no partner can come any more. So the rows in a key's list of the other side are a row's partners, all
/// of them and no others.
final class JoinTask: GatherTask {
  struct KeyState: BitwiseCopyable {
    var first: (Int64, Int64) = (-1, -1)
    var last: (Int64, Int64) = (-1, -1)
    var count: (Int32, Int32) = (0, 0)
    /// Time of the latest right row that was not kept: left rows near it have had a partner.
    var lostAt: Int64 = .min
  }

  /// A pair on its way out. Chunks live until the rows have left: see `retired`.
  private struct Pair {
    var left: JoinRow
    var right: JoinRow?
  }

  private let join: Join
  var stores: [JoinStore]
  /// Rows that are not kept, while their pairs are on the way out.
  private var passing: [JoinChunk]
  var table: GroupTable
  var states = NativeArray<KeyState>()
  /// By key group.
  private let liveKeys = NativeArray<Int32>(repeating: 0, count: KeyGroup.count)
  private let liveBytes = NativeArray<Int>(repeating: 0, count: KeyGroup.count)
  /// As `KeyState.lostAt`, for keys of which nothing is kept.
  let groupLostAt = NativeArray<Int64>(repeating: .min, count: KeyGroup.count)
  private var sweepAt = 1_024
  private var pairs: ContiguousArray<Pair> = []
  private var retired: [JoinChunk] = []
  private var dropped = 0
  /// Rows before are not complete, because of what was never read.
  var emitFrom = beforeAllTime
  /// Of windows joined window by window: the end of the one at hand.
  var openEnd: Int64?
  var skippedEnds: Set<Int64> = []
  /// What was restored, until all parts are there and can be brought into order.
  var restored: [(side: Int, isMatched: Bool, rows: OrderedRows)] = []
  var restoredLost: [(table: GroupTable, times: [Int64])] = []

  init(_ join: Join, _ definition: GatherExchange, _ context: TaskContext) {
    self.join = join
    stores = definition.inputs.map { JoinStore(types: $0.types) }
    passing = definition.inputs.map { JoinChunk(types: $0.types) }
    table = GroupTable(keyTypes: definition.keyTypes)
    super.init(definition, join.hopNanos > 0 ? context.forWindows() : context)
    context.register(stateful: self)
  }

  private var emitter: GatherEmitter { emitters[0] }

  override func keyTable() -> GroupTable { table }

  // MARK: Rows

  override func advance(to watermark: Int64) {
    settleRestored()
    super.advance(to: watermark)
    if table.count > sweepAt { sweep() }
  }

  override func process() {
    states.grow(to: table.count, filling: KeyState())
    for row in due {
      settle(until: row.time)
      if join.hopNanos > 0 { open(row.time + 1) }
      row.rows._withUnsafeGuaranteedRef { rows in
        if row.input == 0 { takeLeft(row, rows) } else { takeRight(row, rows) }
      }
    }
  }

  @inline(__always)
  private func keyGroup(_ group: Int32) -> Int { KeyGroup.of(table.hash(of: Int(group))) }

  private func takeLeft(_ row: Due, _ rows: OrderedRows) {
    guard row.group >= 0 else {
      // Without a key there is no partner, and nothing to wait for but its time.
      if join.kind != .inner { keepLeft(rows, row, isMatched: false) }
      return
    }
    let group = Int(row.group)
    let key = states[group]
    if join.kind == .unless {
      if key.count.1 > 0 || lostPartner(row, key) { return }
      keepLeft(rows, row, isMatched: false)
      return
    }
    var isMatched = key.count.1 > 0
    if !isMatched, join.kind == .left { isMatched = lostPartner(row, key) }
    let kept = keepLeft(rows, row, isMatched: isMatched)
    var partner = key.first.1
    while partner >= 0 {
      let other = stores[1][partner]
      emit(kept, other, row.time)
      partner = other.next
    }
  }

  /// Whether a right row that was not kept may have been, or was, this row's partner.
  private func lostPartner(_ row: Due, _ key: KeyState) -> Bool {
    let from = row.time + join.lowNanos
    if key.lostAt >= from { return true }
    guard groupLostAt[keyGroup(row.group)] >= from else { return false }
    dropped += 1
    return true
  }

  /// Keeps a left row as far as limits allow; answers where it is until the next `flush`.
  @discardableResult
  private func keepLeft(_ rows: OrderedRows, _ row: Due, isMatched: Bool) -> JoinRow {
    let keyGroup = KeyGroup.of(rows.hashes[Int(row.row)])
    guard row.group >= 0 ? hasRoom(row.group, side: 0) : liveBytes[keyGroup] < join.limits.bytesOfGroup else {
      dropped += 1
      return pass(rows, row, side: 0)
    }
    let (number, kept) = stores[0].append(rows, Int(row.row))
    kept.isMatched = isMatched
    if row.group >= 0 {
      link(number, kept, side: 0, row.group)
    } else {
      keepWithoutKey(kept, keyGroup)
    }
    return kept
  }

  /// A row that has no key, and so no list, still takes memory.
  func keepWithoutKey(_ row: JoinRow, _ keyGroup: Int) {
    row.group = -2 - Int32(keyGroup)
    liveBytes[keyGroup] += row.weight
  }

  private func takeRight(_ row: Due, _ rows: OrderedRows) {
    guard row.group >= 0 else { return }
    let group = Int(row.group)
    let key = states[group]
    var kept: JoinRow?
    if hasRoom(row.group, side: 1) {
      let (number, stored) = stores[1].append(rows, Int(row.row))
      link(number, stored, side: 1, row.group)
      kept = stored
    } else {
      // That it was there is all that `unless` must know.
      let isKnown = key.count.0 > 0 || key.count.1 > 0
      if isKnown {
        states.base[group].lostAt = row.time
      } else {
        groupLostAt[keyGroup(row.group)] = row.time
      }
      if join.kind != .unless || !isKnown { dropped += 1 }
    }
    if join.kind == .unless { return forgetLeft(row.group) }
    var partner = key.first.0
    if partner >= 0, kept == nil { kept = pass(rows, row, side: 1) }
    guard let kept else { return }
    while partner >= 0 {
      let other = stores[0][partner]
      other.isMatched = true
      emit(other, kept, row.time)
      partner = other.next
    }
  }

  /// All left rows of a key have a partner, and are of no more use.
  private func forgetLeft(_ group: Int32) {
    var number = states[Int(group)].first.0
    guard number >= 0 else { return }
    while number >= 0 {
      let row = stores[0][number]
      row.isMatched = true
      row.group = -1
      liveBytes[keyGroup(group)] -= row.weight
      number = row.next
    }
    states.base[Int(group)].first.0 = -1
    states.base[Int(group)].last.0 = -1
    states.base[Int(group)].count.0 = 0
    if states[Int(group)].count.1 == 0 { liveKeys[keyGroup(group)] -= 1 }
  }

  /// A row that is not kept, where its pairs find it until the next `flush`.
  private func pass(_ rows: OrderedRows, _ row: Due, side: Int) -> JoinRow {
    if passing[side].isFull {
      retired.append(passing[side])
      passing[side] = JoinChunk(types: definition.inputs[side].types)
    }
    return passing[side].append(rows, Int(row.row))
  }

  private func hasRoom(_ group: Int32, side: Int) -> Bool {
    let key = states[Int(group)]
    let keyGroup = keyGroup(group)
    if (side == 0 ? key.count.0 : key.count.1) >= Int32(clamping: join.limits.rows) { return false }
    if key.count.0 == 0, key.count.1 == 0, Int(liveKeys[keyGroup]) >= join.limits.keysOfGroup { return false }
    return liveBytes[keyGroup] < join.limits.bytesOfGroup
  }

  /// Puts a stored row behind the others of its key.
  func link(_ number: Int64, _ row: JoinRow, side: Int, _ group: Int32) {
    let state = states.base + Int(group)
    row.group = group
    let place = keyGroup(group)
    liveBytes[place] += row.weight
    if state.pointee.count.0 == 0, state.pointee.count.1 == 0 { liveKeys[place] += 1 }
    let last: Int64
    if side == 0 {
      last = state.pointee.last.0
      state.pointee.last.0 = number
      if last < 0 { state.pointee.first.0 = number }
      state.pointee.count.0 += 1
    } else {
      last = state.pointee.last.1
      state.pointee.last.1 = number
      if last < 0 { state.pointee.first.1 = number }
      state.pointee.count.1 += 1
    }
    if last >= 0 { stores[side][last].next = number }
  }

  /// Takes the first row of a side out of its key's list, of which it is the first.
  private func unlink(_ row: JoinRow, side: Int) {
    let group = row.group
    guard group >= 0 else {
      if group < -1 { liveBytes[Int(-2 - group)] -= row.weight }
      return
    }
    let state = states.base + Int(group)
    let place = keyGroup(group)
    liveBytes[place] -= row.weight
    let next = row.next
    if side == 0 {
      state.pointee.first.0 = next
      if next < 0 { state.pointee.last.0 = -1 }
      state.pointee.count.0 -= 1
    } else {
      state.pointee.first.1 = next
      if next < 0 { state.pointee.last.1 = -1 }
      state.pointee.count.1 -= 1
    }
    if state.pointee.count.0 == 0, state.pointee.count.1 == 0 { liveKeys[place] -= 1 }
  }

  // MARK: Time

  /// Every row before `time` has been processed: takes out what can have no partner any more.
  private func settle(until time: Int64) {
    while !stores[0].isEmpty {
      let row = stores[0][stores[0].head]
      let deadline = row.time + join.highNanos
      guard deadline < time else { break }
      if join.hopNanos > 0 { open(deadline + 1) }
      if join.kind != .inner, !row.isMatched { emit(row, nil, deadline) }
      unlink(row, side: 0)
      if let last = stores[0].removeHead() { retired.append(last) }
    }
    while !stores[1].isEmpty {
      let row = stores[1][stores[1].head]
      guard row.time - join.lowNanos < time else { break }
      unlink(row, side: 1)
      if let last = stores[1].removeHead() { retired.append(last) }
    }
    if retired.count > 64 { flush() }
  }

  override func settle(before watermark: Int64) {
    if watermark == afterAllTime { emitter.rows.inputEnded() }
    settle(until: watermark)
    flush()
    if join.hopNanos > 0 { closeWindows(through: watermark) }
  }

  /// Rows of the window that ends at `end` come: those before are evaluated.
  private func open(_ end: Int64) {
    guard openEnd != end else { return }
    flush()
    closeWindows(through: end - 1)
    openEnd = end
  }

  /// Evaluates windows in their order; one that an input skipped is told as such even where it has no rows.
  private func closeWindows(through last: Int64) {
    while true {
      let skipped = skippedEnds.isEmpty ? nil : skippedEnds.min()
      guard let end = [openEnd, skipped].compactMap({ $0 }).min(), end <= last else { return }
      if skippedEnds.remove(end) != nil || end < emitFrom {
        emitter.rows.windowSkipped(end)
      } else {
        emitter.rows.windowEnded(end)
      }
      if openEnd == end { openEnd = emitter.rows.isQuiet ? nil : end + join.hopNanos }
    }
  }

  /// Rows of such a window are not joined: a partner that is missing with its window would look like none.
  override func inputWillLack(_ end: Int64) {
    if join.hopNanos > 0, end > advancedTo { skippedEnds.insert(end) }
  }

  override func inputSkipped(_ end: Int64) {
    if join.hopNanos == 0 { emitter.rows.windowSkipped(end + reachNanos) }
  }

  // MARK: Out

  @inline(__always)
  private func emit(_ left: JoinRow, _ right: JoinRow?, _ time: Int64) {
    guard time >= emitFrom, skippedEnds.isEmpty || !skippedEnds.contains(time + 1) else { return }
    if pairs.count == emitter.batch.capacity { flush() }
    emitter.batch.times[pairs.count] = time
    pairs.append(Pair(left: left, right: right))
  }

  /// Fills the columns of the rows at hand, one after another, and passes them on.
  private func flush() {
    if !pairs.isEmpty {
      let batch = emitter.batch
      pairs.withUnsafeBufferPointer { pairs in
        for (index, column) in join.columns.enumerated() {
          batch.columns[index].fill(pairs.count) { place in
            guard let row = column.side == 0 ? pairs[place].left : pairs[place].right else { return (nil, 0) }
            return (row.chunk._withUnsafeGuaranteedRef { $0.columns[column.index] }, Int(row.index))
          }
        }
      }
      batch.rowCount = pairs.count
      pairs.removeAll(keepingCapacity: true)
      emitter.flush()
    }
    retired.removeAll(keepingCapacity: true)
  }

  // MARK: Keys

  /// Forgets keys of which nothing is kept, when they are many.
  private func sweep() {
    let swept = GroupTable(keyTypes: definition.keyTypes, expectedGroups: table.count / 2)
    var sweptStates = NativeArray<KeyState>()
    let newGroups = NativeArray<Int32>(repeating: -1, count: table.count)
    let horizon = advancedTo == afterAllTime ? afterAllTime : advancedTo + join.lowNanos
    states.grow(to: table.count, filling: KeyState())
    for group in 0..<table.count {
      let key = states[group]
      guard key.count.0 > 0 || key.count.1 > 0 || key.lostAt >= horizon else { continue }
      newGroups[group] = Int32(truncatingIfNeeded: swept.assign(group: group, of: table))
      sweptStates.append(key)
    }
    for store in stores {
      for number in store.head..<store.end {
        let row = store[number]
        if row.group >= 0 { row.group = newGroups[Int(row.group)] }
      }
    }
    table = swept
    states = sweptStates
    sweepAt = max(1_024, table.count * 2)
  }

  override var stateSize: (keys: Int, bytes: Int) {
    var keys = 0
    for group in 0..<KeyGroup.count { keys += Int(liveKeys[group]) }
    return (
      keys,
      stores.reduce(0) { $0 + $1.bytes } + waitingBytes + table.bytes + states.count * MemoryLayout<KeyState>.stride
    )
  }

  override var rowsOverLimit: Int { dropped }

  override var reachNanos: Int64 {
    super.reachNanos + Join.reachNanos(join.kind, low: join.lowNanos, high: join.highNanos)
  }

  override func resume(at time: Int64) {
    guard time > 0 else { return }
    emitFrom = max(emitFrom, time + reachNanos)
  }
}
