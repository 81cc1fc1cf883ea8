import Synchronization

/// How an engine runs.
public struct EngineOptions: Sendable {
  /// Worker threads, each with its share of partitions and of keys.
  public var workers: Int
  /// Rows a batch, at most `RecordBatch.rowsMax`. The output does not depend on it.
  public var batchRows: Int
  public var order: OutputOrder
  /// Whether partitions may have nothing for a while, go idle, and be committed.
  public var isLive: Bool
  /// Keyed state beyond which partitions are held back, in bytes; 0 for no limit. See `StateGate`.
  public var stateBytesMax = 0
  /// Who watches whether keys keep to their partitions; nil where nobody wants to know.
  public var partitioning: PartitioningCheck?
  /// Wall clock, nanoseconds since the epoch; only idle live partitions look at it.
  public var clock: @Sendable () -> Int64
  /// A clock that only runs forward, nanoseconds: how long a partition is silent, and when to ask it again.
  public var monotonic: @Sendable () -> Int64
  /// Off, workers capture as soon as they hear of a barrier. That is wrong; it is there so that the simulation can show
  /// that it would notice.
  var alignsBarriers = true

  public init(
    workers: Int = 1, batchRows: Int = RecordBatch.rowsMax, order: OutputOrder = .total,
    isLive: Bool = false, clock: @escaping @Sendable () -> Int64 = wallClockNanos,
    monotonic: @escaping @Sendable () -> Int64 = monotonicNanos
  ) {
    self.workers = workers
    self.batchRows = batchRows
    self.order = order
    self.isLive = isLive
    self.clock = clock
    self.monotonic = monotonic
  }
}

/// What an engine has done so far.
public struct EngineStatus: Sendable {
  public var partitions: [(identity: PartitionIdentity, counters: PartitionCounters)] = []
  public var recordsByRule: [Int] = []
  public var recordsByKind: [Int] = []
  public var batches = 0
  public var batchNanos: Int64 = 0
  /// Checkpoints whose barrier a worker has passed.
  public var captures = 0
  /// The longest batch since the barrier of the last checkpoint.
  public var batchNanosSinceBarrier: Int64 = 0
  /// The longest batch since the barrier of the checkpoint before the last one.
  public var batchNanosMax: Int64 = 0
  public var queueDepths: [Int] = []
  public var stateKeys = 0
  public var stateBytes = 0
  /// By exchange of the graph.
  public var operators: [OperatorStatus] = []
  /// By rule of the graph, what is kept for it beside its exchanges: alerts that are pending or firing.
  public var rules: [OperatorStatus] = []
  /// Whether partitions are held back because of `EngineOptions.stateBytesMax`.
  public var isOverStateLimit = false
  public init() {}

  public var rows: Int { partitions.reduce(0) { $0 + $1.counters.rows } }
  public var bytes: Int { partitions.reduce(0) { $0 + $1.counters.bytes } }
  public var late: Int { partitions.reduce(0) { $0 + $1.counters.late } }
  public var deadLetters: Int { partitions.reduce(0) { $0 + $1.counters.deadLetters } }
}

/// A graph at work over a fixed set of partitions: from `start` until they end, something fails, or `stop` is
/// called.
///
/// When the set of partitions or the rules change, the engine is stopped at a barrier and another is started from
/// what was captured there, or from the committed offsets.
public final class Engine: Sendable {
  private let shared: EngineShared
  private let workers: [Worker]
  private let threads: Mutex<[WorkerThread]> = Mutex([])

  /// `partitions` become ordinals in the order of their identities, whatever order they come in. `restored` is by
  /// source; readers of such a source stand where the stored state says.
  public init(
    graph: Graph, options: EngineOptions, partitions: [PartitionStart], restored: [RestoredState?] = [],
    sink: sending any RecordSink
  ) {
    precondition(options.workers > 0)
    let sorted = partitions.sorted { $0.reader.identity < $1.reader.identity }
    let identities = sorted.map(\.reader.identity)
    let points = sorted.map { ResumePoint(metadata: $0.metadata) }
    var resume = [ResumePoint?](repeating: nil, count: graph.flows.count)
    for (start, point) in zip(sorted, points) {
      guard let point else { continue }
      let source = start.reader.identity.source
      // Of commits that were only half made the later one counts: what it calls done was written before it.
      var merged = resume[source] ?? point
      merged.neededSince = max(merged.neededSince, point.neededSince)
      merged.emittedThrough = max(merged.emittedThrough, point.emittedThrough)
      merged.gathered.merge(point.gathered) { max($0, $1) }
      resume[source] = merged
    }
    for (flow, sources) in graph.flowSources.enumerated().dropFirst(graph.sources.count) {
      resume[flow] = ResumePoint(ofFlow: graph.flows[flow].name, sources: sources.sorted().compactMap { resume[$0] })
    }
    let shared = EngineShared(
      graph: graph, options: options, identities: identities, resume: resume,
      merger: OutputMerger(
        sink: sink, order: options.order, sources: graph.flows.count, shards: options.workers,
        partitionSources: identities.map(\.source), partitionOrder: Self.recordOrder(identities, graph),
        ruleCount: graph.rules.count))
    let now = options.monotonic()
    let states = zip(sorted, points).enumerated().map { ordinal, pair in
      PartitionState(ordinal: ordinal, start: pair.0, resume: pair.1, now: now)
    }
    for state in states {
      // A resumed partition starts at the watermark that it was left with.
      shared.progress.update(state.ordinal, watermark: state.watermark, isReadable: true)
    }
    self.shared = shared
    workers = (0..<options.workers).map { number in
      Worker(
        number: number, engine: shared,
        partitions: states.filter { $0.ordinal % options.workers == number }, resume: resume,
        restored: restored)
    }
  }

  /// An engine that is dropped ends its threads; they hold what they need until they have ended.
  deinit { shared.stop() }

  /// Partitions in the order of the keys of their late rows and dead letters: by rule, topic, partition.
  private static func recordOrder(_ identities: [PartitionIdentity], _ graph: Graph) -> [Int] {
    let keys = identities.map { identity in
      var key = identity.recordKey
      key.append(0x1F)
      return (rule: graph.sources[identity.source].rule, key: key)
    }
    return identities.indices.sorted { a, b in
      if keys[a].rule != keys[b].rule { return keys[a].rule < keys[b].rule }
      return keys[a].key.lexicographicallyPrecedes(keys[b].key)
    }
  }

  /// Starts the workers.
  public func start() throws(SourceFailure) {
    for worker in workers {
      do {
        let thread = try WorkerThread { worker.run() }
        threads.withLock { $0.append(thread) }
      } catch {
        stop()
        join()
        throw error
      }
    }
  }

  /// Asks the workers to end after the batch at hand. Open windows stay unwritten.
  public func stop() { shared.stop() }

  /// Waits until the workers have ended, by themselves or after `stop`, and flushes the sink. Throws what
  /// made one fail.
  public func wait() throws(SourceFailure) {
    join()
    if let failure = shared.failure { throw SourceFailure(failure) }
    try shared.merger.flush()
  }

  private func join() {
    let running = threads.withLock { threads in
      defer { threads = [] }
      return threads
    }
    for thread in running { thread.join() }
  }

  public var isRunning: Bool { shared.isRunning }
  public var failure: String? { shared.failure }
  public var outputProblem: String? { shared.merger.problem }
  public var status: EngineStatus { shared.status }

  // MARK: Barriers

  /// Sends a barrier through the workers. One at a time: the result of the last must have been taken. The
  /// result comes when every worker has passed it; never when one has ended.
  public func request(_ barrier: BarrierRequest) { shared.request(barrier) }

  /// What the barrier at hand found; nil until all workers have passed it.
  public func takeBarrier() -> BarrierResult? {
    guard let (request, parts) = shared.takeBarrier() else { return nil }
    return result(request, parts)
  }

  private func result(_ request: BarrierRequest, _ parts: [BarrierPart]) -> BarrierResult {
    BarrierResult(
      request: request, partitions: stands(parts.map(\.snapshot), written: shared.merger.writtenAtBarrier),
      sections: parts.flatMap(\.sections), pauseNanos: parts.map(\.pauseNanos).max() ?? 0)
  }

  /// Makes everything before a barrier durable; workers go on meanwhile.
  public func complete(_ epoch: UInt64) throws { try shared.merger.complete(epoch) }

  /// Where each partition could be resumed by reading again, after everything before that is durable: the rows
  /// behind these offsets rebuild all open windows and active alerts. Empty when nothing has been read, when a
  /// worker is stuck, and in `.total` order, where what is done may wait in memory for another source.
  public func commitPoints() throws(SourceFailure) -> [CommitPoint] {
    guard let result = pass(isLast: false) else { return [] }
    do { try complete(result.request.epoch) } catch { throw SourceFailure("\(error)") }
    return result.partitions.compactMap(\.rereadPoint)
  }

  /// Ends the engine, flushes, and answers where to resume so that nothing is written a second time. Throws
  /// what made a worker or the sink fail.
  public func stopAndCommitPoints() throws(SourceFailure) -> [CommitPoint] {
    if let result = pass(isLast: true) {
      try wait()
      return result.partitions.compactMap(\.rereadPoint)
    }
    stop()
    join()
    let parts = workers.map { $0.snapshotPart() }
    try wait()
    return stands(parts, written: shared.merger.writtenNow).compactMap(\.rereadPoint)
  }

  /// A barrier that captures nothing, waited for; nil when a worker has ended or does not answer within five
  /// seconds.
  private func pass(isLast: Bool) -> BarrierResult? {
    request(BarrierRequest(epoch: shared.lastEpoch + 1, captures: false, isLast: isLast))
    let deadline = monotonicNanos() + 5_000_000_000
    while monotonicNanos() < deadline {
      if let result = takeBarrier() { return result }
      if shared.hasFinished, !isLast { return nil }
      if !isRunning { return takeBarrier() }
      sleepMillis(1)
    }
    return nil
  }

  private func stands(_ parts: [SnapshotPart], written: [Int64]) -> [PartitionStand] {
    guard shared.options.order == .bySource else { return [] }
    var stands: [PartitionStand] = []
    let points = shared.graph.flows.indices.map { point(ofFlow: $0, parts, written: written[$0]) }
    let behind = shared.graph.flowSources
    for source in shared.graph.sources.indices {
      let emitted = points[source].emittedThrough
      guard emitted < afterAllTime else { continue }
      // What a join keeps is needed of each of its sources.
      var needed = points[source].neededSince
      var gathered: [String: Int64] = [:]
      for flow in shared.graph.flows.indices.dropFirst(shared.graph.sources.count) where behind[flow].contains(source) {
        needed = min(needed, points[flow].neededSince)
        gathered[shared.graph.flows[flow].name] = points[flow].emittedThrough
      }
      for partition in parts.flatMap(\.partitions)
      where shared.identities[partition.ordinal].source == source && partition.position >= 0 {
        stands.append(
          partition.stand(neededSince: needed, emittedThrough: emitted, gathered: gathered, shared.identities))
      }
      shared.noteCommittable(source: source, since: needed)
    }
    return stands
  }

  /// Up to when all records of a flow are out, and since when its rows are needed.
  private func point(ofFlow flow: Int, _ parts: [SnapshotPart], written: Int64) -> ShardPoint {
    let done = max(written, shared.resumeEmitted[flow])
    // A shard that was stopped before it got as far as the others has said less.
    let reached = parts.compactMap { $0.shards[flow].last { $0.emittedThrough <= done } }
    // While some partition has shown nothing no window is done, but late rows and dead letters are.
    guard reached.count == parts.count else {
      return ShardPoint(emittedThrough: beforeAllTime, neededSince: beforeAllTime)
    }
    return ShardPoint(
      emittedThrough: reached.map(\.emittedThrough).max() ?? beforeAllTime,
      neededSince: reached.map(\.neededSince).min() ?? beforeAllTime)
  }

  // MARK: By hand

  /// For a scheduler that runs the workers itself, in one thread: instead of `start`.
  public func begin() throws { for worker in workers { try worker.begin() } }

  public var workerCount: Int { workers.count }

  /// One step of a worker. Answers whether it did something.
  public func step(worker number: Int) throws -> Bool {
    do {
      switch try workers[number].step() {
      case .worked: return true
      case .idle: return false
      case .ended:
        shared.finished(worker: number)
        return false
      }
    } catch {
      shared.fail(error)
      throw error
    }
  }
}

extension PartitionStand {
  /// The commit of one who keeps no state.
  public var rereadPoint: CommitPoint? {
    CommitPoint(partition: identity, offset: rereadOffset, metadata: resume.metadata)
  }
}

/// What the workers of an engine share.
final class EngineShared: @unchecked Sendable {
  // @unchecked: constants, and what is behind locks.
  let graph: Graph
  let options: EngineOptions
  let identities: [PartitionIdentity]
  let partitionSources: [Int]
  let merger: OutputMerger
  let progress: Progress
  let stateGate: StateGate
  /// By worker.
  let inboxes: [Inbox]
  /// Up to when a former engine wrote everything, by flow.
  let resumeEmitted: [Int64]

  private struct State {
    var isStopping = false
    var failure: String?
    var finished: Set<Int> = []
    var stats: [Int: WorkerStats] = [:]
    var barrier: BarrierRequest?
    var lastEpoch: UInt64 = 0
    var answers: [Int: BarrierPart] = [:]
    var committedSince: [Int64]
  }
  private let state: Mutex<State>
  private let stopping = Atomic<Bool>(false)
  private let requestedEpoch = Atomic<UInt64>(0)

  init(
    graph: Graph, options: EngineOptions, identities: [PartitionIdentity], resume: [ResumePoint?],
    merger: OutputMerger
  ) {
    self.graph = graph
    inboxes = (0..<options.workers).map { _ in Inbox() }
    resumeEmitted = resume.map { $0?.emittedThrough ?? beforeAllTime }
    self.options = options
    self.identities = identities
    self.merger = merger
    partitionSources = identities.map(\.source)
    let longestStep = graph.sources.map(\.stepNanos).max() ?? 0
    // Of sources that meet in a join none may run ahead of the others either.
    let together = graph.sources.indices.map { graph.joinedSources(of: $0).min() ?? $0 }
    progress = Progress(sources: identities.map { together[$0.source] }, leadNanos: max(60_000_000_000, 4 * longestStep))
    stateGate = StateGate(bytesMax: options.stateBytesMax, workers: options.workers)
    state = Mutex(
      State(committedSince: Array(repeating: beforeAllTime, count: graph.sources.count)))
  }

  var isStopping: Bool { stopping.load(ordering: .relaxed) }

  func stop() {
    stopping.store(true, ordering: .relaxed)
    for inbox in inboxes { inbox.wake() }
  }

  func fail(_ error: any Error) {
    state.withLock { if $0.failure == nil { $0.failure = "\(error)" } }
    stop()
  }

  var failure: String? { state.withLock { $0.failure } }

  func finished(worker: Int) { state.withLock { _ = $0.finished.insert(worker) } }
  var isRunning: Bool { state.withLock { $0.finished.count } < options.workers }

  func report(_ stats: WorkerStats, worker: Int) { state.withLock { $0.stats[worker] = stats } }

  var status: EngineStatus {
    let stats = state.withLock { $0.stats }
    var status = EngineStatus()
    var counters = [PartitionCounters](repeating: PartitionCounters(), count: identities.count)
    status.operators = Array(repeating: OperatorStatus(), count: graph.exchanges.count)
    status.rules = Array(repeating: OperatorStatus(), count: graph.rules.count)
    status.isOverStateLimit = stateGate.isClosed
    for part in stats.values {
      for (exchange, own) in part.operators.enumerated() { status.operators[exchange] += own }
      for (rule, own) in part.rules.enumerated() { status.rules[rule] += own }
      status.batches += part.batches
      status.batchNanos += part.batchNanos
      status.captures = max(status.captures, part.captures)
      status.batchNanosSinceBarrier = max(status.batchNanosSinceBarrier, part.longestBatch.now)
      status.batchNanosMax = max(status.batchNanosMax, part.longestBatch.now, part.longestBatch.before)
      status.stateKeys += part.state.keys
      status.stateBytes += part.state.bytes
      for (ordinal, value) in part.partitions { counters[ordinal] = value }
    }
    status.partitions = zip(identities, counters).map { ($0, $1) }
    (status.recordsByRule, status.recordsByKind) = merger.counts
    status.queueDepths = inboxes.map(\.count)
    return status
  }

  // MARK: Commits

  var committedSince: [Int64] { state.withLock { $0.committedSince } }

  func noteCommittable(source: Int, since: Int64) {
    state.withLock { $0.committedSince[source] = since }
  }

  var hasFinished: Bool { state.withLock { !$0.finished.isEmpty } }
  var lastEpoch: UInt64 { state.withLock { $0.lastEpoch } }

  func request(_ barrier: BarrierRequest) {
    state.withLock { state in
      state.barrier = barrier
      state.lastEpoch = barrier.epoch
      state.answers = [:]
    }
    requestedEpoch.store(barrier.epoch, ordering: .releasing)
    for inbox in inboxes { inbox.wake() }
  }

  /// A barrier that was asked for since; a worker asks this between any two batches.
  func barrierRequest(after seen: UInt64) -> BarrierRequest? {
    guard requestedEpoch.load(ordering: .acquiring) > seen else { return nil }
    return state.withLock { $0.barrier }
  }

  func answer(_ part: BarrierPart, worker: Int, epoch: UInt64) {
    state.withLock { if $0.barrier?.epoch == epoch { $0.answers[worker] = part } }
  }

  func takeBarrier() -> (BarrierRequest, [BarrierPart])? {
    state.withLock { state in
      guard let barrier = state.barrier, state.answers.count == options.workers else { return nil }
      let parts = state.answers.keys.sorted().compactMap { state.answers[$0] }
      state.barrier = nil
      state.answers = [:]
      return (barrier, parts)
    }
  }

  func scope(of partition: PartitionState) -> SectionScope {
    let identity = partition.reader.identity
    return .partition(
      source: graph.sources[identity.source].schema.name, topic: identity.topic, partition: identity.partition)
  }
}

/// How far each partition has come, so that none runs far ahead in event time and fills the memory with open
/// panes.
final class Progress: Sendable {
  private struct Entry {
    var watermark = beforeAllTime
    var isReadable = true
  }
  private let entries: Mutex<[Entry]>
  private let sources: [Int]
  private let leadNanos: Int64

  /// `sources`: by partition, which it belongs to.
  init(sources: [Int], leadNanos: Int64) {
    self.sources = sources
    entries = Mutex(Array(repeating: Entry(), count: sources.count))
    self.leadNanos = leadNanos
  }

  func update(_ ordinal: Int, watermark: Int64, isReadable: Bool) {
    entries.withLock { entries in
      entries[ordinal].watermark = watermark
      entries[ordinal].isReadable = isReadable
    }
  }

  /// Whether no other partition of its source is further behind, whether or not it has something to read.
  func isLast(_ ordinal: Int, watermark: Int64) -> Bool {
    entries.withLock { entries in
      for (other, entry) in entries.enumerated()
      where sources[other] == sources[ordinal] && other != ordinal && entry.watermark < watermark {
        return false
      }
      return true
    }
  }

  /// Whether a partition with this watermark is at most the lead before the last readable one.
  func mayRead(_ ordinal: Int, watermark: Int64) -> Bool {
    guard watermark > beforeAllTime else { return true }
    return entries.withLock { entries in
      entries[ordinal].isReadable = true
      entries[ordinal].watermark = watermark
      for entry in entries where entry.isReadable && entry.watermark < watermark {
        if entry.watermark == beforeAllTime || watermark - entry.watermark > leadNanos { return false }
      }
      return true
    }
  }
}
