import CColumns
import Catalog
import Runtime

/// The owning side of a pane aggregation: merges the panes of all partitions for the keys of this shard, in
/// partition order, puts windows together from them, and passes each window's rows on, sorted by key.
final class WindowTask: KeyedTask {
  let definition: PaneAggregation
  let context: TaskContext
  /// Panes that have arrived and are not complete yet, by start.
  var arrived: [Int64: [(partition: Int, pane: Pane)]] = [:]
  /// Complete panes that some window may still need, ascending.
  var complete: [Pane] = []
  let emitters: ContiguousArray<WindowEmitter>
  var carries: [AggregateCarry?]
  var resumeAt = beforeAllTime
  /// All windows that end by then have been emitted.
  var advancedTo = beforeAllTime
  var seam: Seam
  /// States that a restored part did not have, until all parts are there.
  var newStates: Set<Int> = []
  // Level 1 and up: rows wait until the watermark settles their order.
  var waiting: [RowsChunk] = []
  let inner: PanePartialTask?
  private let ordered: Batch?
  private let longestNanos: Int64

  init(_ definition: PaneAggregation, _ context: TaskContext) {
    self.definition = definition
    let context = context.forWindows()
    self.context = context
    emitters = ContiguousArray(
      definition.windows.map { WindowEmitter($0, definition, context) })
    let longest = definition.windows.map(\.sizeNanos).max() ?? 0
    longestNanos = longest
    seam = Seam(definition)
    carries = definition.makeStates().map {
      $0.makeCarry(keyTypes: definition.keyTypes, windowNanos: longest)
    }
    if definition.isOverWindows {
      inner = PanePartialTask(definition, context)
      ordered = Batch(types: definition.inputTypes, capacity: context.batchRows)
    } else {
      inner = nil
      ordered = nil
    }
    super.init()
    context.register(stateful: self)
  }

  override func accept(_ pane: PanePartial, partition: Int) {
    guard let pane = pane as? Pane, fits(pane), !pane.isAnnouncement else { return }
    arrived[pane.start, default: []].append((partition, pane))
  }

  /// Notes what is unlike other panes in one from before the rules changed.
  func fits(_ pane: Pane) -> Bool {
    seam.noteMissing(in: pane)
    return seam.note(length: pane.length, until: pane.end)
  }

  override func accept(_ rows: RowsChunk) {
    if let end = rows.skippedEnd {
      seam.noteMissing(rowsBefore: end)
    } else {
      waiting.append(rows)
    }
  }

  override func advance(to watermark: Int64) {
    // What has not ended by now ends because the input does, not because its time has come.
    if watermark == afterAllTime { for emitter in emitters { emitter.inputEnded() } }
    orderRows(before: watermark)
    completePanes(through: watermark)
    emitWindows(through: watermark)
    let firstNeeded = emitters.compactMap(\.nextStart).min() ?? afterAllTime
    complete.removeAll { $0.start < firstNeeded }
    advancedTo = max(advancedTo, watermark)
    if watermark > eventTimeNanos.lowerBound { seam.forget(before: watermark - longestNanos) }
  }

  /// Brings rows of windows before `watermark` into the order of (time, key of the window they come from), so
  /// that sums do not depend on which shard they came from, and aggregates them.
  private func orderRows(before watermark: Int64) {
    guard let inner, let ordered, !waiting.isEmpty else { return }
    var refs: [(time: Int64, chunk: Int32, row: Int32)] = []
    let slots = definition.neededSlots
    // By chunk that has rows whose turn it is, and by needed slot.
    var columns = NativeArray<ColumnMemory>()
    var chunks: Int32 = 0
    for chunk in waiting {
      let times = chunk.batch.times
      let first = refs.count
      // A chunk that a faster shard sent may hold rows of both sides of the last watermark: it stays, and those before were
      // taken then.
      for row in 0..<chunk.batch.rowCount where times[row] < watermark && times[row] >= advancedTo {
        refs.append((times[row], chunks, Int32(truncatingIfNeeded: row)))
      }
      guard refs.count > first else { continue }
      for slot in slots { columns.append(ColumnMemory(chunk.batch.columns[slot])) }
      chunks += 1
    }
    let keys = definition.upstreamKeySlots.compactMap { slots.firstIndex(of: $0) }
    refs.sort { a, b in
      if a.time != b.time { return a.time < b.time }
      for place in keys {
        let x = columns[Int(a.chunk) * slots.count + place]
        let y = columns[Int(b.chunk) * slots.count + place]
        let order = compareValues(x, Int(a.row), y, Int(b.row))
        if order != 0 { return order < 0 }
      }
      return (a.chunk, a.row) < (b.chunk, b.row)
    }
    var next = 0
    while next < refs.count {
      let count = min(refs.count - next, ordered.capacity)
      for (place, slot) in slots.enumerated() {
        ordered.columns[slot].fill(count) { index in
          let ref = refs[next + index]
          return (columns[Int(ref.chunk) * slots.count + place], Int(ref.row))
        }
      }
      for index in 0..<count { ordered.times[index] = refs[next + index].time }
      ordered.rowCount = count
      inner.process(ordered, ordered.all)
      next += count
    }
    inner.closePanes(partition: 0, watermark: watermark) { accept($0, partition: 0) }
    waiting.removeAll { chunk in
      !(0..<chunk.batch.rowCount).contains { chunk.batch.times[$0] >= watermark }
    }
  }

  private func completePanes(through watermark: Int64) {
    inner?.closePanes(partition: 0, watermark: watermark) { accept($0, partition: 0) }
    var cells: Set<Int64> = []
    for start in arrived.keys {
      let cell = seam.cell(of: start)
      if cell.start + cell.length <= watermark { cells.insert(cell.start) }
    }
    for start in cells.sorted() {
      let cell = seam.cell(of: start)
      let pane = merged(takeArrived(in: cell), cell)
      for index in carries.indices {
        if let carry = carries[index], carry.holds.isHeld { carries[index] = carry.copy() }
      }
      for (state, carry) in zip(pane.states, carries) {
        state.ensure(groups: pane.table.count)
        state.seal(pane.table, carry: carry)
      }
      complete.append(pane)
      for emitter in emitters { emitter.expect(paneFrom: pane.start, to: pane.end, notBefore: resumeAt) }
    }
  }

  /// The partitions' panes of a cell, in the order in which they are merged.
  private func takeArrived(in cell: (start: Int64, length: Int64)) -> [(partition: Int, pane: Pane)] {
    var partials: [(partition: Int, pane: Pane)] = []
    if cell.start >= seam.mixedUntil {
      partials = arrived.removeValue(forKey: cell.start) ?? []
    } else {
      for start in arrived.keys where start >= cell.start && start < cell.start + cell.length {
        partials += arrived.removeValue(forKey: start) ?? []
      }
    }
    partials.sort {
      ($0.partition, $0.pane.start, $0.pane.length) < ($1.partition, $1.pane.start, $1.pane.length)
    }
    return partials
  }

  private func merged(_ partials: [(partition: Int, pane: Pane)], _ cell: (start: Int64, length: Int64)) -> Pane {
    let first = partials[0].pane
    var pane = first
    var others = partials[...]
    if context.shardCount == 1, first.start == cell.start, first.length == cell.length, !first.isHeld {
      // The only owner may add the others to the first partition's pane, as if to an empty one.
      others = others.dropFirst()
    } else {
      pane = Pane(start: cell.start, length: cell.length, definition, expectedGroups: first.table.count)
    }
    for partial in others { pane.merge(partial.pane, shard: context.shard, shardCount: context.shardCount) }
    return pane
  }

  /// Emits windows of all sizes in the order of their ends.
  private func emitWindows(through watermark: Int64) {
    while true {
      var due: WindowEmitter?
      for emitter in emitters {
        guard let end = emitter.nextEnd, end <= watermark else { continue }
        if due == nil || end < due!.nextEnd! { due = emitter }
      }
      guard let due, let start = due.nextStart, let end = due.nextEnd else { return }
      if seam.cuts(start: start, end: end) {
        due.skip()
      } else {
        due.emit(complete, lacking: seam.missing(start: start, due.needs))
      }
    }
  }

  override func neededSince(watermark: Int64) -> Int64 {
    let margin = definition.lookbackNanos + definition.upstreamNanos
    var needed = watermark
    for emitter in emitters {
      needed = min(needed, emitter.neededSince(watermark: watermark))
    }
    return needed <= margin ? 0 : needed - margin
  }

  override func resume(at time: Int64) {
    // Nothing is missing behind the beginning of time; `neededSince` names no earlier one.
    guard time > 0 else { return }
    resumeAt = time + definition.lookbackNanos + definition.upstreamNanos
  }

  override var stateSize: (keys: Int, bytes: Int) {
    var keys = 0
    var bytes = carries.reduce(0) { $0 + ($1?.bytes ?? 0) }
    for pane in complete {
      keys = max(keys, pane.table.count)
      bytes += pane.bytes
    }
    // Every shard holds these same panes until it has taken its keys out of them.
    for partials in arrived.values {
      for partial in partials { bytes += partial.pane.bytes / context.shardCount }
    }
    let open: (keys: Int, bytes: Int) = inner?.stateSize ?? (0, 0)
    for emitter in emitters {
      let behind = emitter.stateSize
      keys = max(keys, behind.keys)
      bytes += behind.bytes
    }
    for chunk in waiting { bytes += chunk.batch.rowCount * (8 + 16 * definition.inputTypes.count) }
    return (max(keys, open.keys), bytes + open.bytes)
  }
}

/// One of the windows over a pane aggregation.
final class WindowEmitter {
  let window: PaneAggregation.Window
  private let definition: PaneAggregation
  private let rows: RowTask
  private let batch: Batch
  /// End of the next window to be evaluated; nil while there is nothing to evaluate.
  private(set) var nextEnd: Int64?
  /// Windows that start earlier are not evaluated: they were not there when their rows were read.
  private(set) var notBefore = beforeAllTime
  /// Windows that end by then were evaluated before a restart.
  private var endedThrough = beforeAllTime
  /// States that the window at hand lacks.
  private var lacking: Set<Int> = []
  /// The states that it shows, and how far back before a window they depend on rows.
  let needs: [(state: Int, lookbackNanos: Int64)]

  init(_ window: PaneAggregation.Window, _ definition: PaneAggregation, _ context: TaskContext) {
    self.window = window
    self.definition = definition
    rows = window.rows.makeTask(context)
    needs = Set(window.outputs.map(\.state)).sorted().map { state in
      (state, definition.lookbackNanos(state: state))
    }
    batch = context.shared { WindowBatches() }.batch(
      types: definition.keyTypes + window.outputs.map(\.type), computed: window.computedSlots,
      capacity: context.batchRows)
  }

  /// Of what stands behind.
  var stateSize: (keys: Int, bytes: Int) { rows.stateSize }

  var nextStart: Int64? { nextEnd.map { $0 - window.sizeNanos } }

  /// Start of the first window that ends after a time.
  private func firstStart(endingAfter time: Int64) -> Int64 {
    floorToMultiple(time - window.sizeNanos, of: window.hopNanos) + window.hopNanos
  }

  /// A complete pane is there: unless windows are being evaluated anyway, the next one is the first that
  /// holds it.
  func expect(paneFrom start: Int64, to end: Int64, notBefore resumeAt: Int64) {
    guard nextEnd == nil else { return }
    let earliest = max(resumeAt, notBefore)
    // The pane lies before every window that may be emitted.
    if earliest >= end || endedThrough == afterAllTime { return }
    var first = firstStart(endingAfter: max(start, endedThrough))
    if first < earliest { first = floorToMultiple(earliest + window.hopNanos - 1, of: window.hopNanos) }
    if earliest != beforeAllTime || endedThrough != beforeAllTime, first >= end { return }
    nextEnd = first + window.sizeNanos
  }

  func inputEnded() { rows.inputEnded() }

  /// Moves on past a window of which something is missing. Those over its rows hear of it one by one.
  func skip() {
    guard let end = nextEnd else { return }
    rows.windowSkipped(end)
    nextEnd = end + window.hopNanos
  }

  /// A stored window of this size and hop goes on; parts of several shards agree on all but empty windows.
  func restore(nextEnd stored: Int64?, notBefore: Int64, endedThrough: Int64) {
    if let stored { nextEnd = min(nextEnd ?? stored, stored) }
    self.notBefore = max(self.notBefore, notBefore)
    self.endedThrough = max(self.endedThrough, endedThrough)
  }

  /// Evaluates the next window as far as its aggregates are there, and moves on.
  func emit(_ complete: [Pane], lacking: Set<Int>) {
    guard !lacking.isEmpty else { return emit(complete) }
    self.lacking = lacking
    let slots = window.outputs.indices.filter { lacking.contains(window.outputs[$0].state) }
    let isNeeded = rows.lack(Set(slots.map { definition.keyTypes.count + $0 }))
    if isNeeded { skip() } else { emit(complete) }
    self.lacking = []
    _ = rows.lack([])
  }

  /// Evaluates the next window and moves on; over empty stretches in one step when nobody needs to see them.
  private func emit(_ complete: [Pane]) {
    guard let end = nextEnd else { return }
    let start = end - window.sizeNanos
    let panes = complete.filter { $0.start >= start && $0.start < end }
    if panes.count == 1 {
      emitRows(of: panes[0], end: end)
    } else if panes.count > 1 {
      let merged = Pane(start: start, definition, expectedGroups: panes[0].table.count)
      for pane in panes { merged.merge(pane, shard: 0, shardCount: 1) }
      emitRows(of: merged, end: end)
    }
    rows.windowEnded(end)
    let following = end + window.hopNanos
    let nextStart = following - window.sizeNanos
    guard let next = complete.first(where: { $0.start >= nextStart }) else {
      nextEnd = rows.isQuiet ? nil : following
      return
    }
    if next.start >= following, rows.isQuiet {
      nextEnd = firstStart(endingAfter: next.start) + window.sizeNanos
    } else {
      nextEnd = following
    }
  }

  private func emitRows(of pane: Pane, end: Int64) {
    let table = pane.table
    table.ordered().withUnsafeBufferPointer { groups in
      guard let base = groups.baseAddress else { return }
      var done = 0
      while done < groups.count {
        let count = min(groups.count - done, batch.capacity)
        for column in definition.keyTypes.indices {
          table.writeKey(column, of: base + done, count: count, to: batch.columns[column])
        }
        for (index, output) in window.outputs.enumerated() where lacking.isEmpty || !lacking.contains(output.state) {
          pane.states[output.state].finish(
            base + done, count: count, constants: output.constants, windowNanos: window.sizeNanos,
            into: batch.columns[definition.keyTypes.count + index])
        }
        batch.times.update(repeating: end - 1, count: count)
        batch.rowCount = count
        rows.process(batch, batch.all)
        done += count
      }
    }
  }

  func neededSince(watermark: Int64) -> Int64 {
    var needed = firstStart(endingAfter: watermark)
    if let hold = rows.holdSince { needed = min(needed, hold - window.sizeNanos) }
    return needed
  }
}

/// Batches that the windows of one context use in turn: nobody keeps a batch beyond `process`, and one for each of a thousand
/// rules would be megabytes that are out of every cache when their turn comes.
private final class WindowBatches {
  private struct Shape: Hashable {
    var types: [PhysicalType]
    var computed: [PhysicalType]
  }
  private var batches: [Shape: Batch] = [:]

  func batch(types: [PhysicalType], computed: [PhysicalType], capacity: Int) -> Batch {
    let shape = Shape(types: types, computed: computed)
    if let known = batches[shape] { return known }
    let batch = Batch(types: types, computed: computed, capacity: capacity)
    batches[shape] = batch
    return batch
  }
}
