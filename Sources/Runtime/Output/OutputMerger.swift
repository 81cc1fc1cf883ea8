import Synchronization

/// In which order records of different sources leave.
public enum OutputOrder: Sendable, Hashable {
  /// One order over everything: (time, rule, key). A source that lags holds the records of all others back,
  /// so this is for recordings and bounded reads.
  case total
  /// (time, rule, key) among the rules of one source; late rows and dead letters at once. A lagging source
  /// delays nobody else's alerts.
  case bySource
}

/// Brings the records of all shards and partitions into their defined order and hands them to the sink.
///
/// A lane is one producer whose records come in order: a shard's output for one source, or a partition's late
/// rows and dead letters. Each lane promises a bound (no later record of it lies before), and whatever lies
/// before every bound goes out.
public final class OutputMerger: Sendable {
  /// Most bytes that a partition's late rows and dead letters may wait in memory before the partition is not
  /// read on.
  static let laneBytesMax = 16 << 20

  struct Lane {
    let source: Int
    let isPartition: Bool
    var bound = beforeAllTime
    var waiting: [SortedRecords] = []
    /// First record of `waiting[0]` that has not been released.
    var position = 0
    var bytes = 0
    /// Whether its producer has passed the barrier at hand; what it says from then on waits here until all have.
    var isPast = false
    var behind: [(records: SortedRecords?, bound: Int64)] = []

    init(source: Int, isPartition: Bool) {
      self.source = source
      self.isPartition = isPartition
    }
  }

  struct State: ~Copyable {
    var lanes: [Lane]
    var failure: String?
    /// Up to when records were written at the last barrier, by source.
    var writtenAtBarrier: [Int64] = []
  }

  /// What others may ask while a write is blocked: not behind the sink's lock.
  private struct Report {
    var failure: String?
    var recordsByRule: [Int]
    var recordsByKind: [Int]
  }

  private let state: Mutex<State>
  private let report: Mutex<Report>
  private let sink: SinkBox
  private let order: OutputOrder

  // @unchecked: the sink is called under `state`'s lock only, but for `problem`, which any thread may ask.
  private final class SinkBox: @unchecked Sendable {
    let sink: any RecordSink
    init(_ sink: any RecordSink) { self.sink = sink }
  }

  /// Lanes: first `shards` for each source, then one a partition (its source, in the order of partitions).
  /// `partitionOrder` holds the partitions' ordinals in the order of their late rows and dead letters of one
  /// time: by rule, topic and partition, as the records' own keys have it.
  public init(
    sink: sending any RecordSink, order: OutputOrder, sources: Int, shards: Int, partitionSources: [Int],
    partitionOrder: [Int], ruleCount: Int
  ) {
    self.sink = SinkBox(sink)
    self.order = order
    var lanes: [Lane] = []
    for source in 0..<sources {
      for _ in 0..<shards { lanes.append(Lane(source: source, isPartition: false)) }
    }
    for source in partitionSources { lanes.append(Lane(source: source, isPartition: true)) }
    firstPartitionLane = sources * shards
    self.partitionOrder = partitionOrder.map { sources * shards + $0 }
    self.shards = shards
    state = Mutex(State(lanes: lanes))
    report = Mutex(
      Report(
        recordsByRule: Array(repeating: 0, count: ruleCount),
        recordsByKind: Array(repeating: 0, count: RecordKind.allCases.count)))
  }

  private let firstPartitionLane: Int
  /// Lanes of partitions, in the order of their records.
  private let partitionOrder: [Int]
  private let shards: Int

  func shardLane(source: Int, shard: Int) -> Int { source * shards + shard }
  func partitionLane(_ ordinal: Int) -> Int { firstPartitionLane + ordinal }

  /// Whether a partition may be read on: not when its late rows and dead letters fill the memory while others
  /// hold them back.
  func mayRead(partition ordinal: Int) -> Bool {
    state.withLock { state in
      let lane = partitionLane(ordinal)
      if state.lanes[lane].bytes < Self.laneBytesMax { return true }
      // The partition that everybody waits for must go on, or the shards behind it would wait for ever.
      let first = partitionOrder.min { state.lanes[$0].bound < state.lanes[$1].bound }
      return first == lane
    }
  }

  /// Takes a lane's records (in order, none before its bound) and its new bound; writes what that sets free.
  /// Returns up to when every record of the lane's source has been written, as `flush` does. Throws what the
  /// sink throws, and the same again on every later call.
  @discardableResult
  func publish(_ records: SortedRecords?, lane index: Int, bound: Int64) throws(SourceFailure) -> Int64 {
    try state.withLock { state throws(SourceFailure) in
      if let failure = state.failure { throw SourceFailure(failure) }
      if state.lanes[index].isPast {
        state.lanes[index].behind.append((records, bound))
        state.lanes[index].bytes += records?.batch.bytes.count ?? 0
      } else {
        accept(records, lane: index, bound: bound, &state)
        try failing(&state) { state in try release(&state) }
      }
      return writtenThrough(state.lanes[index].source, state)
    }
  }

  private func accept(_ records: SortedRecords?, lane index: Int, bound: Int64, _ state: inout State) {
    state.lanes[index].bound = max(state.lanes[index].bound, bound)
    guard let records, !records.order.isEmpty else { return }
    state.lanes[index].waiting.append(records)
    state.lanes[index].bytes += records.batch.bytes.count
  }

  /// What the sink throws ends everything.
  private func failing(_ state: inout State, _ body: (inout State) throws -> Void) throws(SourceFailure) {
    do { try body(&state) } catch {
      state.failure = "\(error)"
      report.withLock { $0.failure = "\(error)" }
      throw SourceFailure("\(error)")
    }
  }

  /// A worker has passed the barrier: its lanes (its shard of every source, and its partitions) have said all that
  /// lies before it. When all workers have, the sink hears of the barrier between the last record before it and
  /// the first behind it.
  func arrive(shard: Int, partitions: [Int], epoch: UInt64) throws(SourceFailure) {
    try state.withLock { state throws(SourceFailure) in
      if let failure = state.failure { throw SourceFailure(failure) }
      for source in 0..<firstPartitionLane / shards { state.lanes[shardLane(source: source, shard: shard)].isPast = true }
      for ordinal in partitions { state.lanes[partitionLane(ordinal)].isPast = true }
      guard state.lanes.allSatisfy(\.isPast) else { return }
      state.writtenAtBarrier = (0..<firstPartitionLane / shards).map { writtenThrough($0, state) }
      sink.sink.barrier(epoch)
      for index in state.lanes.indices {
        state.lanes[index].isPast = false
        let behind = state.lanes[index].behind
        state.lanes[index].behind = []
        for (records, bound) in behind {
          state.lanes[index].bytes -= records?.batch.bytes.count ?? 0
          accept(records, lane: index, bound: bound, &state)
        }
      }
      try failing(&state) { state in try release(&state) }
    }
  }

  /// By source, up to when every record had been handed to the sink at the last barrier.
  var writtenAtBarrier: [Int64] { state.withLock { $0.writtenAtBarrier } }

  /// By source, up to when every record has been handed to the sink.
  var writtenNow: [Int64] {
    state.withLock { state in (0..<firstPartitionLane / shards).map { writtenThrough($0, state) } }
  }

  /// Makes what lies before a barrier durable. Not behind the lock: workers go on meanwhile.
  func complete(_ epoch: UInt64) throws { try sink.sink.complete(epoch) }

  /// The time up to which all shards of a source have said everything, and all of it has been handed to the
  /// sink. (In `.total` order it may still wait for others.)
  private func writtenThrough(_ source: Int, _ state: borrowing State) -> Int64 {
    var bound = afterAllTime
    for shard in 0..<shards { bound = min(bound, state.lanes[shardLane(source: source, shard: shard)].bound) }
    return bound == beforeAllTime || bound == afterAllTime ? bound : bound - 1
  }

  private func release(_ state: inout State) throws {
    switch order {
    case .total:
      let all = Array(state.lanes.indices)
      try release(all, &state)
    case .bySource:
      for lane in state.lanes.indices where state.lanes[lane].isPartition {
        try write([lane], before: afterAllTime, inclusive: true, &state)
      }
      let sources = Set(state.lanes.map(\.source))
      for source in sources.sorted() {
        let lanes = state.lanes.indices.filter {
          !state.lanes[$0].isPartition && state.lanes[$0].source == source
        }
        try release(lanes, &state)
      }
    }
  }

  private func release(_ lanes: [Int], _ state: inout State) throws {
    guard let bound = lanes.map({ state.lanes[$0].bound }).min() else { return }
    guard lanes.contains(where: { !state.lanes[$0].waiting.isEmpty }) else { return }
    try write(lanes, before: bound, inclusive: bound == afterAllTime, &state)
    if bound < afterAllTime { try releaseAtBound(bound, lanes, &state) }
  }

  /// Late rows and dead letters of one time are in the order of partitions. They can leave as soon as every
  /// partition before theirs has got further; so a file of garbage, behind which no time passes, streams
  /// through instead of piling up.
  private func releaseAtBound(_ bound: Int64, _ lanes: [Int], _ state: inout State) throws {
    guard partitionOrder.contains(where: { !state.lanes[$0].waiting.isEmpty }) else { return }
    for lane in lanes where !state.lanes[lane].isPartition {
      // A shard never has a record before all time; at any other it may, and its rule may come first.
      if bound > beforeAllTime, state.lanes[lane].bound == bound || hasRecord(state.lanes[lane], at: bound) {
        return
      }
    }
    for lane in partitionOrder {
      try write([lane], before: bound, inclusive: true, &state)
      if state.lanes[lane].bound == bound { return }
    }
  }

  private func hasRecord(_ lane: Lane, at time: Int64) -> Bool {
    guard let records = lane.waiting.first else { return false }
    return records.times[records.order[lane.position]] == time
  }

  /// Writes the records of these lanes up to a time, merged.
  private func write(_ lanes: [Int], before bound: Int64, inclusive: Bool, _ state: inout State) throws {
    var parts: [(records: SortedRecords, range: Range<Int>)] = []
    for lane in lanes {
      while let records = state.lanes[lane].waiting.first {
        let start = state.lanes[lane].position
        var end = start
        while end < records.order.count {
          let time = records.times[records.order[end]]
          guard time < bound || (inclusive && time == bound) else { break }
          end += 1
        }
        if end > start { parts.append((records, start..<end)) }
        if end < records.order.count {
          state.lanes[lane].position = end
          break
        }
        state.lanes[lane].waiting.removeFirst()
        state.lanes[lane].position = 0
        state.lanes[lane].bytes -= records.batch.bytes.count
      }
    }
    guard !parts.isEmpty else { return }
    let out = parts.count == 1 ? reordered(parts[0].records, parts[0].range) : merged(parts)
    try sink.sink.write(out)
    report.withLock { report in
      for entry in out.entries {
        report.recordsByRule[Int(entry.rule)] += 1
        report.recordsByKind[Int(entry.kind.rawValue)] += 1
      }
    }
  }

  /// One producer's records in order: the entries move, the bytes stay where they are.
  private func reordered(_ records: SortedRecords, _ range: Range<Int>) -> OutputBatch {
    var out = records.batch
    out.entries = range.map { records.batch.entries[records.order[$0]] }
    return out
  }

  private func merged(_ parts: [(records: SortedRecords, range: Range<Int>)]) -> OutputBatch {
    var items: [(part: Int, item: Int)] = []
    for (part, entry) in parts.enumerated() {
      for place in entry.range { items.append((part, entry.records.order[place])) }
    }
    items.sort { a, b in
      let x = parts[a.part].records
      let y = parts[b.part].records
      if x.times[a.item] != y.times[b.item] { return x.times[a.item] < y.times[b.item] }
      let p = x.batch.entries[a.item]
      let q = y.batch.entries[b.item]
      if recordIsBefore(x.batch, p, y.batch, q) { return true }
      if recordIsBefore(y.batch, q, x.batch, p) { return false }
      return (a.part, a.item) < (b.part, b.item)
    }
    var out = OutputBatch()
    out.entries.reserveCapacity(items.count)
    for (part, item) in items {
      let batch = parts[part].records.batch
      out.append(batch, batch.entries[item])
    }
    return out
  }

  /// Flushes the sink. Returns, by source, the time up to which every record of its rules is out of our
  /// hands.
  @discardableResult
  public func flush() throws(SourceFailure) -> [Int64] {
    try state.withLock { state throws(SourceFailure) in
      if let failure = state.failure { throw SourceFailure(failure) }
      do { try sink.sink.flush() } catch { throw SourceFailure("\(error)") }
      return (0..<firstPartitionLane / shards).map { writtenThrough($0, state) }
    }
  }

  /// What ails the sink. Answers at once, also while a write is blocked.
  public var problem: String? { report.withLock { $0.failure } ?? sink.sink.problem }

  /// Records written so far, by rule and by kind. Answers at once, also while a write is blocked.
  public var counts: (byRule: [Int], byKind: [Int]) {
    report.withLock { ($0.recordsByRule, $0.recordsByKind) }
  }
}
