import CColumns
import Catalog
import Runtime

/// What a shard's windows keep at a barrier. Panes are shared, not copied: those that are complete never change again.
extension WindowTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  /// Never nil: that windows have seen no row yet is known state too, unlike that of an operator that was not there.
  func capture() -> (any StateCapture)? { WindowCapture(self) }

  func start(missingBefore time: Int64) { resume(at: time) }

  func restored(readThrough time: Int64) {
    let since = Seam.ceiling(time + definition.upstreamNanos, of: definition.paneNanos)
    for state in newStates { seam.noteMissing(state: state, before: since) }
    newStates = []
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: WindowCapture.version, of: "windows")
    let layout = try StoredLayout(definition, from: &reader)
    newStates.formUnion(layout.isNew.indices.filter { layout.isNew[$0] })
    let barrier = try restoreTimes(layout, from: &reader)
    let hasInner = try reader.bool()
    guard hasInner == (inner != nil) else { throw StateCorruption("the windows of the state are of another level") }
    try inner?.restorePanes(0, layout, scope, from: &reader)
    try restoreCarries(layout, scope, from: &reader)
    try restoreArrived(layout, scope, from: &reader)
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let pane = try layout.pane(from: &reader)
      seam.noteMissing(in: pane)
      complete.restore(pane, scope, definition)
    }
    complete.sort(by: Pane.isBefore)
    if hasInner { try restoreWaiting(scope, from: &reader) }
    guard reader.isAtEnd else { throw StateCorruption("the windows of the state have bytes behind them") }
    advancedTo = max(advancedTo, barrier)
  }

  /// Everything that is the same for all keys.
  private func restoreTimes(_ layout: StoredLayout, from reader: inout StateReader) throws(StateCorruption) -> Int64 {
    let paneNanos = try reader.nanos()
    let lookback = try reader.integer(Int64.self)
    let barrier = try reader.anyTime()
    resumeAt = max(resumeAt, try reader.anyTime())
    try seam.restore(layout, from: &reader)
    if storedTimes.contains(barrier) {
      let since = Seam.ceiling(barrier, of: paneNanos)
      for state in layout.isNew.indices where layout.isNew[state] { seam.noteMissing(state: state, before: since) }
      // Over a source, the panes say it themselves: they may be open far behind the barrier.
      if definition.isOverWindows { _ = seam.note(length: paneNanos, until: since) }
    }
    let count = Int(try reader.integer(UInt32.self))
    var known = Set<Int>()
    for _ in 0..<count {
      let size = try reader.nanos()
      let hop = try reader.nanos()
      let nextEnd = try reader.bool() ? try reader.time() : nil
      let notBefore = try reader.anyTime()
      if let nextEnd {
        guard storedTimes.contains(barrier), nextEnd > barrier, nextEnd <= barrier + size + hop,
          (nextEnd - size) % hop == 0
        else { throw StateCorruption("a window of the state ends at \(nextEnd), behind \(barrier)") }
      }
      for (index, emitter) in emitters.enumerated()
      where emitter.window.sizeNanos == size && emitter.window.hopNanos == hop {
        known.insert(index)
        emitter.restore(nextEnd: nextEnd, notBefore: notBefore, endedThrough: barrier)
      }
    }
    for (index, emitter) in emitters.enumerated() where !known.contains(index) {
      var first = barrier
      let needed = emitter.needs.map(\.lookbackNanos).max() ?? 0
      if needed > lookback, storedTimes.contains(first) { first += needed }
      emitter.restore(nextEnd: nil, notBefore: first, endedThrough: barrier)
    }
    return barrier
  }

  private func restoreCarries(
    _ layout: StoredLayout, _ scope: KeyScope, from reader: inout StateReader
  ) throws(StateCorruption) {
    for place in layout.places {
      guard try reader.bool() else { continue }
      let bytes = try reader.count()
      guard let place, let carry = carries[place] else {
        try reader.skip(bytes)
        continue
      }
      let end = reader.position + bytes
      try carry.restore(from: &reader, scope: scope)
      guard reader.position == end else { throw StateCorruption("a carry of the state has another length") }
    }
  }

  private func restoreArrived(
    _ layout: StoredLayout, _ scope: KeyScope, from reader: inout StateReader
  ) throws(StateCorruption) {
    var ordinals: [Int] = []
    let known = Dictionary(
      context.partitionNames.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    let nameCount = Int(try reader.integer(UInt32.self))
    for index in 0..<nameCount {
      let name = try reader.text()
      // A partition that is gone comes before all others, in the order that it had among its like.
      let unknown = index - nameCount
      ordinals.append(known[name] ?? WindowCapture.ordinal(named: name) ?? unknown)
    }
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let index = Int(try reader.integer(UInt32.self))
      guard index < ordinals.count else { throw StateCorruption("a pane of the state is of no partition") }
      let pane = try layout.pane(from: &reader)
      guard fits(pane) else { continue }
      var known = (arrived[pane.start] ?? []).filter { $0.partition == ordinals[index] }.map(\.pane)
      let before = known.count
      known.restore(pane, scope, definition)
      if known.count > before { arrived[pane.start, default: []].append((ordinals[index], known[before])) }
    }
  }

  private func restoreWaiting(_ scope: KeyScope, from reader: inout StateReader) throws(StateCorruption) {
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      switch try StoredRows.read(definition, from: &reader) {
      case .rows(let chunk):
        let kept = StoredRows.part(of: chunk, in: scope, definition)
        if kept.batch.rowCount > 0 { waiting.append(kept) }
      // Its columns are others now, so its rows cannot be added.
      case .unreadable(let latest): seam.noteMissing(rowsBefore: latest + 1)
      }
    }
  }
}

/// The state of a `WindowTask` at a barrier.
private final class WindowCapture: StateCapture, @unchecked Sendable {
  // @unchecked: what it refers to is not changed any more, or not before the hold on it is released.
  static let version: UInt16 = 1

  private struct Window {
    var sizeNanos: Int64
    var hopNanos: Int64
    var nextEnd: Int64?
    var notBefore: Int64
  }

  let keyCount: Int
  private let definition: PaneAggregation
  private let shard: Int
  private let shardCount: Int
  private let partitionNames: [String]
  private let advancedTo: Int64
  private let resumeAt: Int64
  private let seam: Seam
  private let windows: [Window]
  /// Open panes of level 1 and up; nil at level 0.
  private let open: [(pane: Pane, hold: CaptureHold)]?
  private let carries: [(carry: AggregateCarry, hold: CaptureHold)?]
  private let arrived: [(partition: Int, pane: Pane, hold: CaptureHold)]
  private let complete: [Pane]
  private let waiting: [RowsChunk]

  init(_ task: WindowTask) {
    definition = task.definition
    shard = task.context.shard
    shardCount = task.context.shardCount
    partitionNames = task.context.partitionNames
    advancedTo = task.advancedTo
    resumeAt = task.resumeAt
    seam = task.seam
    windows = task.emitters.map {
      Window(
        sizeNanos: $0.window.sizeNanos, hopNanos: $0.window.hopNanos, nextEnd: $0.nextEnd, notBefore: $0.notBefore)
    }
    open = task.inner.map { $0.openPanes(partition: 0).sorted(by: Pane.isBefore).map { ($0, CaptureHold($0)) } }
    carries = task.carries.map { carry in carry.map { ($0, CaptureHold($0.holds)) } }
    arrived = task.arrived.values.joined()
      .sorted { ($0.partition, $0.pane.start, $0.pane.length) < ($1.partition, $1.pane.start, $1.pane.length) }
      .map { ($0.partition, $0.pane, CaptureHold($0.pane)) }
    complete = task.complete
    waiting = task.waiting
    keyCount = (complete + (open ?? []).map(\.pane)).reduce(0) { max($0, $1.table.count) }
  }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    StoredLayout.encode(definition, into: writer)
    encodeTimes(into: writer)
    writer.append(open != nil)
    if let open {
      writer.append(UInt32(open.count))
      for (pane, hold) in open {
        pane.encode(into: writer)
        hold.release()
      }
    }
    for entry in carries {
      writer.append(entry != nil)
      guard let entry else { continue }
      let part = StateWriter()
      entry.carry.encode(into: part)
      writer.append(part.bytes)
      entry.hold.release()
    }
    encodeArrived(into: writer)
    writer.append(UInt32(complete.count))
    for pane in complete { pane.encode(into: writer) }
    guard open != nil else { return }
    writer.append(UInt32(waiting.count))
    for chunk in waiting { StoredRows.encode(chunk, definition, into: writer) }
  }

  private func encodeTimes(into writer: StateWriter) {
    writer.append(definition.paneNanos)
    writer.append(definition.lookbackNanos)
    writer.append(advancedTo)
    writer.append(resumeAt)
    seam.encode(into: writer)
    writer.append(UInt32(windows.count))
    for window in windows {
      writer.append(window.sizeNanos)
      writer.append(window.hopNanos)
      writer.append(window.nextEnd != nil)
      if let nextEnd = window.nextEnd { writer.append(nextEnd) }
      writer.append(window.notBefore)
    }
  }

  /// Each shard was sent all keys of a partition's pane, and stores its own.
  private func encodeArrived(into writer: StateWriter) {
    let partitions = Set(arrived.map(\.partition)).sorted()
    writer.append(UInt32(partitions.count))
    for partition in partitions { writer.append(name(of: partition)) }
    writer.append(UInt32(arrived.count))
    var index = 0
    for (partition, pane, hold) in arrived {
      while partitions[index] != partition { index += 1 }
      writer.append(UInt32(index))
      pane.part(shard: shard, shardCount: shardCount, definition).encode(into: writer)
      hold.release()
    }
  }

  private func name(of partition: Int) -> String {
    partitionNames.indices.contains(partition) ? partitionNames[partition] : "#\(partition)"
  }

  /// Of a partition that nobody has named.
  static func ordinal(named name: String) -> Int? {
    name.first == "#" ? Int(name.dropFirst()) : nil
  }
}

extension Seam {
  func encode(into writer: StateWriter) {
    writer.append(UInt32(lengths.count))
    for (length, until) in lengths.sorted(by: { $0.key < $1.key }) {
      writer.append(length)
      writer.append(until)
    }
    for since in stateSince { writer.append(since) }
    writer.append(rowsSince)
  }

  mutating func restore(_ layout: StoredLayout, from reader: inout StateReader) throws(StateCorruption) {
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let length = try reader.nanos()
      _ = note(length: length, until: try reader.time())
    }
    for place in layout.places {
      let since = try reader.anyTime()
      if let place { noteMissing(state: place, before: since) }
    }
    noteMissing(rowsBefore: try reader.anyTime())
  }
}

extension StateReader {
  /// A length of a pane or window.
  mutating func nanos() throws(StateCorruption) -> Int64 {
    let nanos = try integer(Int64.self)
    guard nanos > 0, nanos <= Seam.paneNanosMax else {
      throw StateCorruption("a pane or window of the state is \(nanos) ns long")
    }
    return nanos
  }
}
