/// One worker: a thread that owns some partitions (reads, filters, aggregates partially) and one shard of the
/// keys (merges, windows, alerts). All of its state is its own; it meets the others at inboxes and at the
/// output merger.
final class Worker: @unchecked Sendable {
  // @unchecked: touched by the worker's own thread only, once that has started and until it has ended; others
  // meet it at its inbox.
  /// How long a live partition that had nothing is left alone.
  private static let retryNanos: Int64 = 2_000_000

  let number: Int
  private let inbox: Inbox
  private let engine: EngineShared
  private let sources: [SourceTask]
  private var shards: [SourceShard] = []
  private let partitions: [PartitionState]
  private var stats = WorkerStats()
  private var seenSnapshotRequest = 0
  private var stateNanos: Int64 = 0

  init(number: Int, engine: EngineShared, partitions: [PartitionState], resume: [ResumePoint?]) {
    self.number = number
    self.engine = engine
    inbox = engine.inboxes[number]
    self.partitions = partitions
    let graph = engine.graph
    var contexts: [TaskContext] = []
    for source in graph.sources.indices {
      let writer = RecordWriter()
      if let point = resume[source] { writer.suppressThrough = point.emittedThrough }
      contexts.append(
        TaskContext(
          shard: number, shardCount: engine.options.workers, batchRows: engine.options.batchRows,
          output: writer))
    }
    sources = graph.sources.indices.map {
      SourceTask(graph.sources[$0], contexts[$0], isLive: engine.options.isLive)
    }
    for source in graph.sources.indices {
      contexts[source].setSender { [unowned self] exchange, shard, rows in
        self.send(rows, exchange: exchange, source: source, to: shard)
      }
      shards.append(
        SourceShard(
          graph: graph, source: source, context: contexts[source], merger: engine.merger,
          partitions: engine.partitionSources.indices.filter {
            engine.partitionSources[$0] == source
          }, resume: resume[source], isCommitted: engine.options.isLive,
          broadcast: { [unowned self] in try self.broadcast($0) }))
    }
  }

  // MARK: The loop

  func run() {
    do {
      for shard in shards { try shard.finishIfEmpty() }
      // A partition that is resumed and has nothing new still lets windows close up to where it was.
      for partition in partitions where partition.watermark > beforeAllTime { try progress(partition) }
      while !engine.isStopping {
        try receive()
        answerSnapshot()
        if partitions.allSatisfy(\.hasEnded), shards.allSatisfy(\.isFinished) { break }
        guard let partition = next() else {
          publishStats()
          inbox.wait(nanos: 1_000_000)
          continue
        }
        try read(partition)
      }
      answerSnapshot()
      publishStats()
    } catch {
      engine.fail(error)
    }
    engine.finished(worker: number)
  }

  private func receive() throws {
    for message in inbox.take() { try handle(message) }
  }

  private func handle(_ message: Message) throws {
    switch message {
    case .panes(let panes, let source, let partition, let watermark):
      try shards[source].accept(panes, partition: partition, watermark: watermark)
    case .rows(let exchange, let rows):
      shards[engine.graph.exchanges[exchange].source].accept(exchange: exchange, rows)
    case .shardWatermark(let source, let level, let sender, let watermark):
      try shards[source].accept(level: level, from: sender, watermark: watermark)
    }
  }

  private func broadcast(_ message: Message) throws {
    for (other, inbox) in engine.inboxes.enumerated() where other != number { inbox.send(message) }
    try handle(message)
  }

  private func send(_ rows: RowsChunk, exchange: Int, source: Int, to shard: Int) {
    if shard == number {
      shards[source].accept(exchange: exchange, rows)
    } else {
      engine.inboxes[shard].send(.rows(exchange: exchange, rows))
    }
  }

  // MARK: Reading

  /// The readable partition that is furthest behind, so that panes of few minutes are open at a time; nil
  /// when there is nothing to read now or others must catch up first.
  private func next() -> PartitionState? {
    if engine.inboxes.contains(where: { $0.count > Inbox.messagesMax }) { return nil }
    let now = engine.options.isLive ? monotonicNanos() : 0
    var best: PartitionState?
    for partition in partitions where !partition.hasEnded && partition.retryNanos <= now {
      if let chosen = best, chosen.watermark <= partition.watermark { continue }
      guard engine.merger.mayRead(partition: partition.ordinal) else { continue }
      best = partition
    }
    guard let best else { return nil }
    return engine.progress.mayRead(best.ordinal, watermark: best.watermark) ? best : nil
  }

  private func read(_ partition: PartitionState) throws {
    let source = sources[partition.source]
    let started = monotonicNanos()
    let outcome = try partition.reader.read(into: source.records)
    switch outcome {
    case .records:
      partition.wasReadable = true
      if engine.options.isLive { partition.lastRecordNanos = engine.options.clock() }
      partition.counters.isIdle = false
      source.process(partition)
      try progress(partition)
      stats.batches += 1
      stats.batchNanos += monotonicNanos() - started
      stats.batchNanosMax = max(stats.batchNanosMax, monotonicNanos() - started)
      if stats.batches & 15 == 0 { publishStats() }
    case .nothingYet, .caughtUp:
      partition.wasReadable = false
      partition.retryNanos = started + Self.retryNanos
      engine.progress.update(partition.ordinal, watermark: partition.watermark, isReadable: false)
      if outcome == .caughtUp { try followClock(partition) }
    case .end:
      partition.hasEnded = true
      partition.watermark = afterAllTime
      try progress(partition)
      publishStats()
    }
  }

  /// A partition that has shown nothing for its idle time-out, with the broker's word that there is nothing,
  /// takes its watermark from the clock, so that its windows close.
  private func followClock(_ partition: PartitionState) throws {
    let schema = engine.graph.sources[partition.source].schema
    let now = engine.options.clock()
    guard now - partition.lastRecordNanos >= schema.idleNanos else { return }
    partition.counters.isIdle = true
    let watermark = now - schema.boundNanos
    guard watermark > partition.watermark else { return }
    partition.watermark = watermark
    partition.raises.clockSet(watermark)
    try progress(partition)
  }

  /// Sends the panes that the partition's watermark has closed to the shards, and the watermark behind them.
  private func progress(_ partition: PartitionState) throws {
    let watermark = partition.watermark
    partition.counters.watermark = watermark
    engine.progress.update(
      partition.ordinal, watermark: watermark, isReadable: partition.wasReadable && !partition.hasEnded)
    let hasExceptions = !partition.exceptions.isEmpty
    let step = engine.graph.sources[partition.source].stepNanos
    // Before the first good row there is nothing to close, and no step to floor to.
    if watermark > beforeAllTime, watermark >= partition.nextStep {
      try closePanes(partition)
      partition.nextStep =
        watermark >= eventTimeNanos.upperBound || step == 0
        ? afterAllTime : floorToMultiple(watermark, of: step) + step
    } else if !hasExceptions {
      return
    }
    try engine.merger.publish(
      hasExceptions ? partition.exceptions.drain() : nil,
      lane: engine.merger.partitionLane(partition.ordinal), bound: watermark)
  }

  private func closePanes(_ partition: PartitionState) throws {
    var panes: [(exchange: Int, pane: PanePartial)] = []
    let partials = shards[partition.source].context.partials
    for exchange in partials.keys.sorted() {
      partials[exchange]?.closePanes(
        partition: partition.ordinal, watermark: partition.watermark
      ) { panes.append((exchange, $0)) }
    }
    try broadcast(
      .panes(
        panes, source: partition.source, partition: partition.ordinal,
        watermark: partition.watermark))
  }

  // MARK: What others ask

  private func publishStats() {
    stats.partitions = partitions.map { ($0.ordinal, $0.counters) }
    // Counting the state of a thousand rules takes its time: ten times a second is often enough for those who watch.
    let now = monotonicNanos()
    if now - stateNanos >= 100_000_000 {
      stateNanos = now
      stats.state = shards.reduce((0, 0)) { sum, shard in
        let size = shard.stateSize
        return (sum.0 + size.keys, sum.1 + size.bytes)
      }
    }
    engine.report(stats, worker: number)
  }

  /// Where shards and partitions stand. On the worker's thread, or when that has ended.
  func snapshotPart() -> SnapshotPart {
    SnapshotPart(
      shards: shards.map(\.points),
      partitions: partitions.map { partition in
        SnapshotPart.Partition(
          ordinal: partition.ordinal, position: partition.position, readThrough: partition.readThrough,
          watermark: partition.watermark, index: partition.index, raises: partition.raises.all)
      })
  }

  private func answerSnapshot() {
    let request = engine.snapshotRequest
    guard request > seenSnapshotRequest else { return }
    seenSnapshotRequest = request
    engine.answer(snapshotPart(), worker: number, request: request)
    for partition in partitions {
      let since = engine.committedSince[partition.source]
      partition.index.forget(before: since)
      partition.raises.forget(before: since)
    }
  }
}

/// What a worker tells about itself.
struct WorkerStats: Sendable {
  var batches = 0
  var batchNanos: Int64 = 0
  var batchNanosMax: Int64 = 0
  var partitions: [(ordinal: Int, counters: PartitionCounters)] = []
  var state: (keys: Int, bytes: Int) = (0, 0)
}

/// A worker's answer to a commit: where its shards (by source) and its partitions stand.
struct SnapshotPart: Sendable {
  struct Partition: Sendable {
    var ordinal: Int
    /// One behind the last offset read; -1 before the first.
    var position: Int64
    /// Late rows and dead letters before this offset have been written, by this engine or one before.
    var readThrough: Int64
    var watermark: Int64
    var index: OffsetIndex
    var raises: [WatermarkRaise]
  }
  var shards: [[ShardPoint]]
  var partitions: [Partition]
}

extension SnapshotPart.Partition {
  func commitPoint(
    neededSince: Int64, emittedThrough: Int64, _ identities: [PartitionIdentity]
  ) -> CommitPoint {
    let back = index.resume(since: neededSince)
    let resume = ResumePoint(
      neededSince: neededSince, emittedThrough: emittedThrough, readThrough: readThrough,
      watermark: back?.watermark ?? watermark, raises: raises)
    return CommitPoint(
      partition: identities[ordinal], offset: back?.offset ?? position, metadata: resume.metadata)
  }
}
