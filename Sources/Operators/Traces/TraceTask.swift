import CColumns
import Catalog
import Runtime

/// Traces at work on one shard.
final class TraceTask: GatherTask, StatefulTask {
  private struct Deadline {
    var time: Int64
    var group: Int32
  }

  private let operation: Trace
  private var table: GroupTable
  /// By group of `table`; nil for a trace that is over.
  private var traces: ContiguousArray<TraceSpans?> = []
  /// Traces that are over, to be filled again.
  private var pool: [TraceSpans] = []
  /// A heap: the earliest first. A trace has one entry, that may be too early: it is looked at again then.
  private var deadlines: [Deadline] = []
  private let analysis = TraceAnalysis()
  private let liveKeys = NativeArray<Int32>(repeating: 0, count: KeyGroup.count)
  private let liveBytes = NativeArray<Int>(repeating: 0, count: KeyGroup.count)
  private var sweepAt = 1_024
  private var dropped = 0
  private var emitFrom = beforeAllTime
  private let holds = CaptureHolds()
  /// What rows on their way out point to.
  private var texts = ByteArena()
  private var scratch: [UInt8] = []
  /// By output, the traces' groups of the rows at hand.
  private var groupsOut: [[Int32]]

  init(_ operation: Trace, _ definition: GatherExchange, _ context: TaskContext) {
    self.operation = operation
    table = GroupTable(keyTypes: definition.keyTypes)
    groupsOut = definition.outputs.map { _ in [] }
    super.init(definition, context)
    context.register(stateful: self)
  }

  override func keyTable() -> GroupTable { table }

  // MARK: Spans

  override func advance(to watermark: Int64) {
    super.advance(to: watermark)
    if table.count > sweepAt { sweep() }
  }

  override func process() {
    while traces.count < table.count { traces.append(nil) }
    for row in due {
      close(before: row.time)
      if row.group >= 0 { row.rows._withUnsafeGuaranteedRef { take(row, $0) } }
    }
  }

  @inline(__always)
  private func keyGroup(_ group: Int32) -> Int { KeyGroup.of(table.hash(of: Int(group))) }

  private func take(_ row: Due, _ rows: OrderedRows) {
    let place = keyGroup(row.group)
    let group = Int(row.group)
    let isNew = traces[group] == nil
    guard liveBytes[place] < operation.limits.bytesOfGroup,
      !isNew || Int(liveKeys[place]) < operation.limits.keysOfGroup
    else {
      dropped += 1
      return
    }
    if isNew { open(row, place) }
    guard var trace = traces[group] else { return }
    if trace.isShared { trace = unshared(trace, group) }
    trace.last = row.time
    guard trace.spans.count < operation.spanLimit else {
      trace.lost += 1
      dropped += 1
      return
    }
    let before = trace.bytes
    append(rows, Int(row.row), to: trace)
    liveBytes[place] += trace.bytes - before
  }

  private func open(_ row: Due, _ place: Int) {
    let trace: TraceSpans
    if let used = pool.popLast() {
      trace = used
      trace.first = row.time
      trace.last = row.time
    } else {
      trace = TraceSpans(at: row.time)
    }
    traces[Int(row.group)] = trace
    liveKeys[place] += 1
    liveBytes[place] += trace.bytes
    push(Deadline(time: deadline(trace), group: row.group))
  }

  /// A trace that a capture is not reading, or not any more.
  private func unshared(_ trace: TraceSpans, _ group: Int) -> TraceSpans {
    guard holds.isHeld else {
      trace.isShared = false
      return trace
    }
    let copy = TraceSpans(copying: trace)
    traces[group] = copy
    return copy
  }

  private func append(_ rows: OrderedRows, _ row: Int, to trace: TraceSpans) {
    let columns = operation.columns
    func value<T: BitwiseCopyable>(_ column: Int, _: T.Type) -> T? {
      let source = rows.columns[column]
      return source.isNull(row) ? nil : source.values.assumingMemoryBound(to: T.self)[row]
    }
    func text(_ column: Int) -> SpanRecord.Text {
      guard let text = value(column, rd_string.self) else { return SpanRecord.Text() }
      return trace.append(text.data, Int(text.length))
    }
    var start = rows.batch.times[row]
    if let column = columns.start, let given = value(column, Int64.self) {
      start = min(max(given, eventTimeNanos.lowerBound), eventTimeNanos.upperBound)
    }
    var duration: Int64 = 0
    if let given = value(columns.duration, Double.self) {
      duration = Int64(min(max(given.rounded(), 0), Double(SpanRecord.durationNanosMax)))
    }
    var flags: UInt64 = 0
    if let column = columns.error, let hasFailed = value(column, UInt8.self), hasFailed != 0 { flags = 1 }
    trace.spans.append(
      SpanRecord(
        start: start, duration: duration, id: text(columns.span), parent: text(columns.parent),
        service: text(columns.service), name: columns.name.map { text($0) } ?? SpanRecord.Text(), flags: flags))
  }

  // MARK: Ends

  private func deadline(_ trace: TraceSpans) -> Int64 {
    min(trace.last + operation.gapNanos, trace.first + operation.longestNanos)
  }

  override func settle(before watermark: Int64) {
    close(before: watermark)
    flush()
  }

  /// Ends traces to which no span can come any more before `time`.
  private func close(before time: Int64) {
    while let first = deadlines.first, first.time < time {
      guard let trace = traces[Int(first.group)] else { preconditionFailure("a deadline has its trace") }
      let actual = deadline(trace)
      if actual > first.time {
        deadlines[0].time = actual
        siftDown()
        continue
      }
      pop()
      finish(trace, first.group, at: actual)
    }
  }

  private func finish(_ trace: TraceSpans, _ group: Int32, at time: Int64) {
    let place = keyGroup(group)
    liveKeys[place] -= 1
    liveBytes[place] -= trace.bytes
    traces[Int(group)] = nil
    if time >= emitFrom, trace.spans.count > 0 {
      analysis.run(trace, needsPaths: operation.readsTraces)
      if operation.readsTraces { emitTrace(group, time) }
      if operation.readsEdges { emitEdges(group, time) }
    }
    // What a capture may read is left to it.
    guard !trace.isShared || !holds.isHeld, pool.count < 1_024, trace.bytes < 65_536 else { return }
    trace.isShared = false
    trace.spans.removeAll()
    trace.text.removeAll()
    trace.lost = 0
    pool.append(trace)
  }

  private func push(_ entry: Deadline) {
    deadlines.append(entry)
    var place = deadlines.count - 1
    while place > 0 {
      let above = (place - 1) / 2
      guard precedes(deadlines[place], deadlines[above]) else { break }
      deadlines.swapAt(place, above)
      place = above
    }
  }

  private func pop() {
    guard let last = deadlines.popLast(), !deadlines.isEmpty else { return }
    deadlines[0] = last
    siftDown()
  }

  private func siftDown() {
    var place = 0
    while true {
      let first = 2 * place + 1
      guard first < deadlines.count else { return }
      var least = place
      for below in first...min(first + 1, deadlines.count - 1) where precedes(deadlines[below], deadlines[least]) {
        least = below
      }
      guard least != place else { return }
      deadlines.swapAt(place, least)
      place = least
    }
  }

  private func precedes(_ a: Deadline, _ b: Deadline) -> Bool { a.time != b.time ? a.time < b.time : a.group < b.group }

  // MARK: Out

  private func emitTrace(_ group: Int32, _ time: Int64) {
    let row = next(output: 0, group, time)
    for (index, column) in operation.traces.enumerated() {
      let target = emitters[0].batch.columns[index]
      switch column {
      case .key, .caller, .callee: break
      case .start: target.ints[row] = analysis.start
      case .duration: target.doubles[row] = Double(analysis.end - analysis.start)
      case .root: target.strings[row] = text { analysis.appendName(analysis.root, to: &$0) }
      case .rootService:
        let root = analysis.root
        target.strings[row] = text { bytes in
          if analysis.isRootMissing {
            bytes.append(contentsOf: TraceAnalysis.missing)
          } else {
            bytes.append(contentsOf: service(of: root))
          }
        }
      case .error: target.bools[row] = analysis.errors > 0 ? 1 : 0
      case .spans: target.ints[row] = Int64(analysis.spanCount)
      case .errors: target.ints[row] = Int64(analysis.errors)
      case .services: target.ints[row] = Int64(analysis.services.count)
      case .criticalPath:
        target.strings[row] = text { bytes in
          analysis.appendCriticalPath(to: &bytes) { nanos, bytes in bytes.appendDuration(Double(nanos)) }
        }
      case .slowestSpan: target.strings[row] = text { analysis.appendName(analysis.slowest, to: &$0) }
      case .slowestService: target.strings[row] = text { $0.append(contentsOf: service(of: analysis.slowest)) }
      case .slowestTime: target.doubles[row] = Double(analysis.nodes[analysis.slowest].pathNanos)
      case .selfTimes: target.strings[row] = text { analysis.appendSelfTimes(to: &$0) }
      case .missingRoot: target.bools[row] = analysis.isRootMissing ? 1 : 0
      case .orphans: target.ints[row] = Int64(analysis.orphans)
      case .loops: target.ints[row] = Int64(analysis.loops)
      case .skewed: target.ints[row] = Int64(analysis.skewed)
      case .lostSpans: target.ints[row] = analysis.trace.lost
      }
    }
  }

  private func emitEdges(_ group: Int32, _ time: Int64) {
    for index in 0..<analysis.spanCount {
      let node = analysis.nodes[index]
      guard node.given >= 0, node.parent == node.given else { continue }
      let caller = analysis.nodes[Int(node.given)]
      guard caller.service != node.service else { continue }
      let row = next(output: 1, group, time)
      for (place, column) in operation.edges.enumerated() {
        let target = emitters[1].batch.columns[place]
        switch column {
        case .caller: target.strings[row] = text { $0.append(contentsOf: service(of: Int(node.given))) }
        case .callee: target.strings[row] = text { $0.append(contentsOf: service(of: index)) }
        case .error: target.bools[row] = analysis.trace.spans[index].hasFailed ? 1 : 0
        case .duration: target.doubles[row] = Double(node.end - node.start)
        case .start: target.ints[row] = node.start
        case .key, .root, .rootService, .spans, .errors, .services, .criticalPath, .slowestSpan, .slowestService,
          .slowestTime, .selfTimes, .missingRoot, .orphans, .loops, .skewed, .lostSpans:
          break
        }
      }
    }
  }

  private func service(of span: Int) -> UnsafeBufferPointer<UInt8> {
    analysis.trace.bytes(analysis.trace.spans[span].service)
  }

  /// A text in memory that lives until the next `flush`.
  private func text(_ write: (inout [UInt8]) -> Void) -> rd_string {
    scratch.removeAll(keepingCapacity: true)
    write(&scratch)
    let data = scratch.withUnsafeBufferPointer { texts.copy($0.baseAddress, $0.count) }
    return rd_string(data: data, length: UInt32(clamping: scratch.count), hash: 0)
  }

  /// The place of the next row of an output.
  private func next(output: Int, _ group: Int32, _ time: Int64) -> Int {
    if groupsOut[output].count == emitters[output].batch.capacity { flush() }
    emitters[output].batch.times[groupsOut[output].count] = time
    groupsOut[output].append(group)
    return groupsOut[output].count - 1
  }

  private func flush() {
    for (output, emitter) in emitters.enumerated() where !groupsOut[output].isEmpty {
      let count = groupsOut[output].count
      for (index, column) in (output == 0 ? operation.traces : operation.edges).enumerated() {
        guard case .key(let key) = column else { continue }
        groupsOut[output].withUnsafeBufferPointer { groups in
          guard let base = groups.baseAddress else { return }
          table.writeKey(key, of: base, count: count, to: emitter.batch.columns[index])
        }
      }
      emitter.batch.rowCount = count
      groupsOut[output].removeAll(keepingCapacity: true)
      emitter.flush()
    }
    if texts.bytes > 0 { texts = ByteArena() }
  }

  override func inputSkipped(_ end: Int64) {
    for emitter in emitters { emitter.rows.windowSkipped(end + reachNanos) }
  }

  // MARK: Keys

  /// Forgets keys of traces that are over, when they are many.
  private func sweep() {
    let swept = GroupTable(keyTypes: definition.keyTypes, expectedGroups: table.count / 2)
    var kept: ContiguousArray<TraceSpans?> = []
    var newGroups = [Int32](repeating: -1, count: table.count)
    for group in traces.indices {
      guard let trace = traces[group] else { continue }
      newGroups[group] = Int32(truncatingIfNeeded: swept.assign(group: group, of: table))
      kept.append(trace)
    }
    for index in deadlines.indices { deadlines[index].group = newGroups[Int(deadlines[index].group)] }
    // Numbers keep their order, so the heap stays one.
    table = swept
    traces = kept
    sweepAt = max(1_024, table.count * 2)
  }

  override var stateSize: (keys: Int, bytes: Int) {
    var keys = 0
    var bytes = table.bytes + waitingBytes
    for group in 0..<KeyGroup.count {
      keys += Int(liveKeys[group])
      bytes += liveBytes[group]
    }
    return (keys, bytes)
  }

  override var rowsOverLimit: Int { dropped }

  override var reachNanos: Int64 { super.reachNanos + operation.reachNanos }

  override func resume(at time: Int64) {
    guard time > 0 else { return }
    emitFrom = max(emitFrom, time + reachNanos)
  }

  // MARK: State

  var operatorID: String { definition.operatorID }

  func start(missingBefore time: Int64) { resume(at: time) }

  func capture() -> (any StateCapture)? {
    let live = GroupTable(keyTypes: definition.keyTypes)
    var captured: [TraceSpans] = []
    var times: [(first: Int64, last: Int64, lost: Int64)] = []
    for group in traces.indices {
      guard let trace = traces[group] else { continue }
      trace.isShared = true
      _ = live.assign(group: group, of: table)
      captured.append(trace)
      times.append((trace.first, trace.last, trace.lost))
    }
    return TraceCapture(
      rows: captureRows(), emitFrom: emitFrom, table: live, traces: captured, times: times, hold: CaptureHold(holds))
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: TraceCapture.version, of: "traces")
    try restoreWaiting(from: &reader, scope: scope)
    emitFrom = max(emitFrom, try reader.anyTime())
    let stored = try GroupTable(keyTypes: definition.keyTypes, from: &reader)
    for group in 0..<stored.count {
      let trace = TraceSpans(at: try reader.time())
      trace.last = try reader.time()
      trace.lost = try reader.integer(Int64.self)
      trace.spans = try reader.array(of: SpanRecord.self)
      trace.text = try reader.array(of: UInt8.self)
      guard trace.isSound else { throw StateCorruption("a span of the state is of no time or has no texts") }
      guard scope.owns(stored.hash(of: group)) else { continue }
      let here = table.assign(group: group, of: stored)
      while traces.count < table.count { traces.append(nil) }
      guard traces[here] == nil else { throw StateCorruption("two parts of the state hold one trace") }
      traces[here] = trace
      let place = keyGroup(Int32(here))
      liveKeys[place] += 1
      liveBytes[place] += trace.bytes
      push(Deadline(time: deadline(trace), group: Int32(here)))
    }
    guard reader.isAtEnd else { throw StateCorruption("the state of traces has bytes behind it") }
  }
}

extension Trace {
  /// How far back before the time of a row that comes out spans decide about it.
  public var reachNanos: Int64 { max(gapNanos, longestNanos) }
}

extension TraceSpans {
  /// Whether all that it refers to is there.
  fileprivate var isSound: Bool {
    for index in 0..<spans.count {
      let span = spans[index]
      guard eventTimeNanos.contains(span.start), (0...SpanRecord.durationNanosMax).contains(span.duration) else { return false }
      for part in [span.id, span.parent, span.service, span.name]
      where Int(part.offset) + Int(part.length) > text.count { return false }
    }
    return lost >= 0 && last >= first
  }
}

private struct TraceCapture: StateCapture, @unchecked Sendable {
  // @unchecked: the table is its own, and traces are not changed while the hold is not released.
  static let version: UInt16 = 1
  let rows: GatherCapture
  let emitFrom: Int64
  let table: GroupTable
  let traces: [TraceSpans]
  let times: [(first: Int64, last: Int64, lost: Int64)]
  let hold: CaptureHold

  var keyCount: Int { table.count }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    rows.encode(into: writer)
    writer.append(emitFrom)
    table.encode(into: writer)
    for (trace, times) in zip(traces, times) {
      writer.append(times.first)
      writer.append(times.last)
      writer.append(times.lost)
      writer.append(trace.spans)
      writer.append(trace.text)
    }
    hold.release()
  }
}
