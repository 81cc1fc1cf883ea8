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
  /// Wall clock, nanoseconds since the epoch; only idle live partitions look at it.
  public var clock: @Sendable () -> Int64

  public init(
    workers: Int = 1, batchRows: Int = RecordBatch.rowsMax, order: OutputOrder = .total,
    isLive: Bool = false, clock: @escaping @Sendable () -> Int64 = wallClockNanos
  ) {
    self.workers = workers
    self.batchRows = batchRows
    self.order = order
    self.isLive = isLive
    self.clock = clock
  }
}

/// What an engine has done so far.
public struct EngineStatus: Sendable {
  public var partitions: [(identity: PartitionIdentity, counters: PartitionCounters)] = []
  public var recordsByRule: [Int] = []
  public var recordsByKind: [Int] = []
  public var batches = 0
  public var batchNanos: Int64 = 0
  public var batchNanosMax: Int64 = 0
  public var queueDepths: [Int] = []
  public var stateKeys = 0
  public var stateBytes = 0
  public init() {}

  public var rows: Int { partitions.reduce(0) { $0 + $1.counters.rows } }
  public var bytes: Int { partitions.reduce(0) { $0 + $1.counters.bytes } }
  public var late: Int { partitions.reduce(0) { $0 + $1.counters.late } }
  public var deadLetters: Int { partitions.reduce(0) { $0 + $1.counters.deadLetters } }
}

/// A graph at work over a fixed set of partitions: from `start` until they end, something fails, or `stop` is
/// called.
///
/// When the set of partitions changes (a rebalance), the engine is stopped and another is started from the
/// committed offsets.
public final class Engine: Sendable {
  private let shared: EngineShared
  private let workers: [Worker]
  private let threads: Mutex<[WorkerThread]> = Mutex([])

  /// `partitions` become ordinals in the order of their identities, whatever order they come in.
  public init(
    graph: Graph, options: EngineOptions, partitions: [PartitionStart], sink: sending any RecordSink
  ) {
    precondition(options.workers > 0)
    let sorted = partitions.sorted { $0.reader.identity < $1.reader.identity }
    let identities = sorted.map(\.reader.identity)
    let points = sorted.map { ResumePoint(metadata: $0.metadata) }
    var resume = [ResumePoint?](repeating: nil, count: graph.sources.count)
    for (start, point) in zip(sorted, points) {
      guard let point else { continue }
      let source = start.reader.identity.source
      // Of commits that were only half made the later one counts: what it calls done was written before it.
      var merged = resume[source] ?? point
      merged.neededSince = max(merged.neededSince, point.neededSince)
      merged.emittedThrough = max(merged.emittedThrough, point.emittedThrough)
      resume[source] = merged
    }
    let shared = EngineShared(
      graph: graph, options: options, identities: identities, resume: resume,
      merger: OutputMerger(
        sink: sink, order: options.order, sources: graph.sources.count, shards: options.workers,
        partitionSources: identities.map(\.source), partitionOrder: Self.recordOrder(identities, graph),
        ruleCount: graph.rules.count))
    let now = options.clock()
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
        partitions: states.filter { $0.ordinal % options.workers == number }, resume: resume)
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

  /// Where each partition could be resumed now, after a flush of everything that is written so far: the rows
  /// behind these offsets rebuild all open windows and active alerts. Empty when nothing has been read, when
  /// a worker is stuck, and in `.total` order, where what is done may wait in memory for another source.
  public func commitPoints() throws(SourceFailure) -> [CommitPoint] {
    guard let parts = shared.snapshot() else { return [] }
    return try commitPoints(parts)
  }

  /// Ends the engine, flushes, and answers where to resume so that nothing is written a second time. Throws
  /// what made a worker or the sink fail.
  public func stopAndCommitPoints() throws(SourceFailure) -> [CommitPoint] {
    stop()
    join()
    let parts = workers.map { $0.snapshotPart() }
    try wait()
    return try commitPoints(parts)
  }

  private func commitPoints(_ parts: [SnapshotPart]) throws(SourceFailure) -> [CommitPoint] {
    let written = try shared.merger.flush()
    guard shared.options.order == .bySource else { return [] }
    var points: [CommitPoint] = []
    for source in shared.graph.sources.indices {
      let done = max(written[source], shared.resumeEmitted[source])
      // Shards answered at different times. What each says of a time up to which everything is written holds
      // for any later such time as well: it only keeps more.
      let reached = parts.compactMap { $0.shards[source].last { $0.emittedThrough <= done } }
      // While some partition has shown nothing no window is done, but late rows and dead letters are.
      let isReached = reached.count == parts.count
      let needed = isReached ? reached.map(\.neededSince).min() ?? beforeAllTime : beforeAllTime
      let emitted = isReached ? reached.map(\.emittedThrough).max() ?? beforeAllTime : beforeAllTime
      guard emitted < afterAllTime else { continue }
      for partition in parts.flatMap(\.partitions)
      where shared.identities[partition.ordinal].source == source && partition.position >= 0 {
        points.append(partition.commitPoint(neededSince: needed, emittedThrough: emitted, shared.identities))
      }
      shared.noteCommittable(source: source, since: needed)
    }
    return points
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
  /// By worker.
  let inboxes: [Inbox]
  /// Up to when a former engine wrote everything, by source.
  let resumeEmitted: [Int64]

  private struct State {
    var isStopping = false
    var failure: String?
    var finished: Set<Int> = []
    var stats: [Int: WorkerStats] = [:]
    var request = 0
    var answers: [Int: SnapshotPart] = [:]
    var committedSince: [Int64]
  }
  private let state: Mutex<State>
  private let stopping = Atomic<Bool>(false)
  private let requested = Atomic<Int>(0)

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
    progress = Progress(partitions: identities.count, leadNanos: max(60_000_000_000, 4 * longestStep))
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
    for part in stats.values {
      status.batches += part.batches
      status.batchNanos += part.batchNanos
      status.batchNanosMax = max(status.batchNanosMax, part.batchNanosMax)
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

  var snapshotRequest: Int { requested.load(ordering: .acquiring) }
  var committedSince: [Int64] { state.withLock { $0.committedSince } }

  func noteCommittable(source: Int, since: Int64) {
    state.withLock { $0.committedSince[source] = since }
  }

  func answer(_ part: SnapshotPart, worker: Int, request: Int) {
    state.withLock { if $0.request == request { $0.answers[worker] = part } }
  }

  /// Asks every worker where it stands, between two of its batches; nil when one has ended or does not answer
  /// within five seconds.
  func snapshot() -> [SnapshotPart]? {
    let request = state.withLock { state in
      state.request += 1
      state.answers = [:]
      return state.request
    }
    requested.store(request, ordering: .releasing)
    for inbox in inboxes { inbox.wake() }
    let deadline = monotonicNanos() + 5_000_000_000
    while monotonicNanos() < deadline {
      let (answers, hasFinished) = state.withLock { ($0.answers, !$0.finished.isEmpty) }
      if answers.count == options.workers { return answers.keys.sorted().compactMap { answers[$0] } }
      if hasFinished { return nil }
      sleepMillis(1)
    }
    return nil
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
  private let leadNanos: Int64

  init(partitions: Int, leadNanos: Int64) {
    entries = Mutex(Array(repeating: Entry(), count: partitions))
    self.leadNanos = leadNanos
  }

  func update(_ ordinal: Int, watermark: Int64, isReadable: Bool) {
    entries.withLock { entries in
      entries[ordinal].watermark = watermark
      entries[ordinal].isReadable = isReadable
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
