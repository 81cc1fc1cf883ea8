import CColumns
import Catalog
import Runtime

/// Cuts rows into panes by event time and aggregates them, apart for each partition.
final class PanePartialTask: PartialTask {
  private let definition: PaneAggregation
  private let contents: PaneContents
  private var keys = KeyColumns()
  /// Shared with others by the same keys; nil where there are none.
  private let coder: KeyCoder?
  /// Whether the rows at hand have been numbered by it; then they are not hashed.
  private var isCoded = false
  /// Open panes by partition, ascending by start.
  private var open: [[Pane]] = []
  private let scratch: PaneScratch
  /// By partition, what the shards must hear of restored panes before they hear of anything else.
  private var announcements: [Int: [Pane]] = [:]
  /// By partition, the one of `open` that the last rows went to: most find theirs without a search.
  private var current = NativeArray<Current>()
  /// Start of the pane of the last row seen.
  private var lastPane: Int64 = 0
  private var droppedRows = 0
  /// What is to be done for each state, in the order of filters, so that each filter is applied once.
  private let steps: ContiguousArray<Step>

  private struct Current: BitwiseCopyable {
    var start: Int64 = 0
    /// Kept alive by `open`; forgotten whenever a pane leaves that.
    var pane: Unmanaged<Pane>?
  }

  private struct Step: BitwiseCopyable {
    var state: Int
    /// Slot of the argument; -1 for none.
    var argument: Int
    /// Slot of the filter; -1 for none.
    var filter: Int
  }

  init(_ definition: PaneAggregation, _ context: TaskContext) {
    self.definition = definition
    contents = definition.contents
    scratch = context.shared { PaneScratch(batchRows: context.batchRows) }
    coder = definition.isOverWindows ? nil : context.coder(slots: definition.keySlots, types: definition.keyTypes)
    let steps = definition.states.enumerated().map { index, state in
      Step(state: index, argument: state.argument ?? -1, filter: state.filter ?? -1)
    }
    self.steps = ContiguousArray(steps.sorted { ($0.filter, $0.state) < ($1.filter, $1.state) })
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0 else { return }
    makeRoom(for: batch.partition)
    isCoded = coder?.prepare(batch, selection) ?? false
    if !isCoded {
      keys.bind(batch, slots: definition.keySlots)
      keys.hashRows(selection.rows, count: selection.count, into: scratch.hashes)
    }
    let times = batch.times
    var low = times[Int(selection.rows[0])]
    var high = low
    for index in 1..<selection.count {
      let time = times[Int(selection.rows[index])]
      low = min(low, time)
      high = max(high, time)
    }
    // Most batches lie in the pane of the batch before: no division then.
    if low >= lastPane, high < lastPane &+ definition.paneNanos {
      return add(
        batch, rows: selection.rows, hashes: scratch.hashes, count: selection.count, pane: lastPane)
    }
    let first = floorToMultiple(low, of: definition.paneNanos)
    let last = floorToMultiple(high, of: definition.paneNanos)
    lastPane = last
    if first == last {
      add(batch, rows: selection.rows, hashes: scratch.hashes, count: selection.count, pane: first)
    } else if (last - first) / definition.paneNanos <= 4 {
      addByPane(batch, selection, first: first, last: last)
    } else {
      addByRuns(batch, selection)
    }
  }

  /// A few panes: one pass over the rows for each, so that rows that alternate between panes are still batched.
  private func addByPane(_ batch: Batch, _ selection: Selection, first: Int64, last: Int64) {
    var pane = first
    while pane <= last {
      let end = pane + definition.paneNanos
      var count = 0
      for index in 0..<selection.count {
        let row = selection.rows[index]
        let time = batch.times[Int(row)]
        scratch.paneRows[count] = row
        scratch.paneHashes[count] = scratch.hashes[index]
        count += time >= pane && time < end ? 1 : 0
      }
      if count > 0 { add(batch, rows: scratch.paneRows, hashes: scratch.paneHashes, count: count, pane: pane) }
      pane = end
    }
  }

  /// Many panes: stretches of neighbouring rows in the same pane.
  private func addByRuns(_ batch: Batch, _ selection: Selection) {
    var start = 0
    while start < selection.count {
      let pane = floorToMultiple(
        batch.times[Int(selection.rows[start])], of: definition.paneNanos)
      let paneEnd = pane + definition.paneNanos
      var end = start + 1
      while end < selection.count {
        let time = batch.times[Int(selection.rows[end])]
        guard time >= pane, time < paneEnd else { break }
        end += 1
      }
      add(
        batch, rows: selection.rows + start, hashes: scratch.hashes + start, count: end - start, pane: pane)
      start = end
    }
  }

  private func add(
    _ batch: Batch, rows: UnsafePointer<Int32>, hashes: UnsafePointer<UInt64>, count: Int,
    pane start: Int64
  ) {
    let known = current[batch.partition]
    if known.start == start, let pane = known.pane, !pane._withUnsafeGuaranteedRef({ $0.isHeld }) {
      return pane._withUnsafeGuaranteedRef { add(batch, rows: rows, hashes: hashes, count: count, to: $0) }
    }
    let pane = openPane(batch.partition, start)
    current[batch.partition] = Current(start: start, pane: .passUnretained(pane))
    add(batch, rows: rows, hashes: hashes, count: count, to: pane)
  }

  @inline(__always)
  private func add(
    _ batch: Batch, rows: UnsafePointer<Int32>, hashes: UnsafePointer<UInt64>, count: Int, to pane: Pane
  ) {
    var rows = rows
    var count = count
    if pane.table.count < definition.keyLimit - count {
      if isCoded, let coder {
        pane.assign(coder, rows: rows, count: count, groups: scratch.groups)
      } else {
        pane.table.assign(keys, rows: rows, hashes: hashes, count: count, groups: scratch.groups)
      }
    } else {
      var hashes = hashes
      if isCoded {
        keys.bind(batch, slots: definition.keySlots)
        keys.hashRows(rows, count: count, into: scratch.hashes)
        hashes = UnsafePointer(scratch.hashes)
      }
      let kept = pane.table.assign(
        keys, rows: rows, hashes: hashes, count: count, groups: scratch.groups, limit: definition.keyLimit,
        kept: scratch.keptRows)
      droppedRows += count - kept
      count = kept
      rows = UnsafePointer(scratch.keptRows)
      guard count > 0 else { return }
    }
    let groupCount = pane.table.count
    var chosenRows = rows
    var chosenGroups = UnsafePointer(scratch.groups)
    var chosen = count
    var filter = -1
    for index in steps.indices {
      let step = steps[index]
      if step.filter != filter {
        filter = step.filter
        chosen = keep(batch.columns[filter], rows, count)
        chosenRows = UnsafePointer(scratch.filteredRows)
        chosenGroups = UnsafePointer(scratch.filteredGroups)
      }
      pane.calls[step.state]._withUnsafeGuaranteedRef { state in
        state.ensure(groups: groupCount)
        state.update(
          step.argument >= 0 ? batch.columns[step.argument] : nil, times: batch.times,
          rows: chosenRows, groups: chosenGroups, count: chosen)
      }
    }
  }

  /// Compresses rows and groups to those whose filter is true.
  private func keep(_ filter: Column, _ rows: UnsafePointer<Int32>, _ count: Int) -> Int {
    let flags = filter.bools
    let validity = filter.validity
    let hasNulls = filter.hasNulls
    var kept = 0
    for index in 0..<count {
      let row = Int(rows[index])
      scratch.filteredRows[kept] = rows[index]
      scratch.filteredGroups[kept] = scratch.groups[index]
      kept += flags[row] != 0 && (!hasNulls || validity[row] != 0) ? 1 : 0
    }
    return kept
  }

  /// The pane of the definition's length to be written to: not one that a capture has yet to read.
  private func openPane(_ partition: Int, _ start: Int64) -> Pane {
    var place = open[partition].count
    while place > 0, open[partition][place - 1].start > start { place -= 1 }
    var known = place
    while known > 0, open[partition][known - 1].start == start {
      known -= 1
      let pane = open[partition][known]
      guard pane.length == definition.paneNanos else { continue }
      if !pane.isHeld { return pane }
      let copy = Pane(copying: pane)
      open[partition][known] = copy
      return copy
    }
    let expected = open[partition].last?.table.count ?? 16
    let pane = Pane(start: start, length: definition.paneNanos, contents, expectedGroups: expected)
    open[partition].insert(pane, at: place)
    return pane
  }

  private func makeRoom(for partition: Int) {
    while open.count <= partition { open.append([]) }
    current.grow(to: open.count, filling: Current())
  }

  override func closePanes(
    partition: Int, watermark: Int64, emit: (PanePartial) -> Void
  ) {
    guard partition < open.count, !open[partition].isEmpty || !announcements.isEmpty else { return }
    if !announcements.isEmpty {
      for announcement in announcements.removeValue(forKey: partition) ?? [] { emit(announcement) }
    }
    // As a rule all are of one length, and the first that is open ends the search.
    var place = 0
    while place < open[partition].count {
      let pane = open[partition][place]
      if pane.end <= watermark {
        pane.forgetCodes()
        emit(pane)
        current[partition].pane = nil
        open[partition].remove(at: place)
      } else {
        if pane.start >= watermark { return }
        place += 1
      }
    }
  }

  override var rowsOverLimit: Int { droppedRows }

  override var stateSize: (keys: Int, bytes: Int) {
    var keys = 0
    var bytes = 0
    for panes in open {
      for pane in panes {
        keys = max(keys, pane.table.count)
        bytes += pane.bytes
      }
    }
    return (keys, bytes)
  }

  override func firstOpenPane(partition: Int) -> Int64? {
    partition < open.count ? open[partition].first?.start : nil
  }

  // MARK: Checkpoints

  override var operatorID: String { definition.operatorID + "/open" }

  override func capture(partition: Int) -> (any StateCapture)? {
    guard partition < open.count, !open[partition].isEmpty else { return nil }
    return OpenPanesCapture(definition, open[partition])
  }

  override func restore(partition: Int, from reader: inout StateReader) throws {
    try reader.expect(version: OpenPanesCapture.version, of: "open panes")
    let layout = try StoredLayout(definition, from: &reader)
    try restorePanes(partition, layout, KeyScope(shard: 0, shardCount: 1), from: &reader)
    guard reader.isAtEnd else { throw StateCorruption("the open panes of the state have bytes behind them") }
  }

  /// Adds the keys in `scope` of a counted list of panes.
  func restorePanes(
    _ partition: Int, _ layout: StoredLayout, _ scope: KeyScope, from reader: inout StateReader
  ) throws(StateCorruption) {
    makeRoom(for: partition)
    current[partition].pane = nil
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count { open[partition].restore(try layout.pane(from: &reader), scope, definition) }
    open[partition].sort(by: Pane.isBefore)
    announcements[partition] = open[partition].compactMap { $0.announcement(definition) }
  }

  /// All open panes of a partition.
  func openPanes(partition: Int) -> [Pane] { partition < open.count ? open[partition] : [] }
}

/// Memory that pane tasks of one context use in turn while they take a batch.
private final class PaneScratch {
  let hashes: UnsafeMutablePointer<UInt64>
  let groups: UnsafeMutablePointer<Int32>
  /// Rows and hashes of one pane, where a batch spans several.
  let paneRows: UnsafeMutablePointer<Int32>
  let paneHashes: UnsafeMutablePointer<UInt64>
  /// Rows and groups that pass an aggregate's filter.
  let filteredRows: UnsafeMutablePointer<Int32>
  let filteredGroups: UnsafeMutablePointer<Int32>
  /// Rows whose keys a pane at its limit still takes.
  let keptRows: UnsafeMutablePointer<Int32>

  init(batchRows: Int) {
    hashes = .allocate(capacity: batchRows)
    groups = .allocate(capacity: batchRows)
    paneRows = .allocate(capacity: batchRows)
    paneHashes = .allocate(capacity: batchRows)
    filteredRows = .allocate(capacity: batchRows)
    filteredGroups = .allocate(capacity: batchRows)
    keptRows = .allocate(capacity: batchRows)
  }

  deinit {
    hashes.deallocate()
    groups.deallocate()
    paneRows.deallocate()
    paneHashes.deallocate()
    filteredRows.deallocate()
    filteredGroups.deallocate()
    keptRows.deallocate()
  }
}
