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
  /// By flow.
  private var shards: [FlowShard] = []
  /// By source, the flows that take its rows.
  private let readers: [[Int]]
  /// By flow, the flows that take rows of one of its levels, and as which of their inputs.
  private let flowReaders: [[(level: Int, flow: Int, input: Int)]]
  private let partitions: [PartitionState]
  private var stats = WorkerStats()
  private var alignment: Alignment?
  /// Messages from behind a barrier that this worker has not reached.
  private var held: [Envelope] = []
  private var seenEpoch: UInt64 = 0
  private var isEnding = false
  /// By flow.
  private let contexts: [TaskContext]
  /// Of all flows, one behind the other.
  private let levels: Int
  /// By source.
  private let restored: [RestoredState?]
  /// By flow: what any of its sources goes on from.
  private let restoredFlows: [RestoredState?]
  private var stateNanos: Int64 = 0

  init(
    number: Int, engine: EngineShared, partitions: [PartitionState], resume: [ResumePoint?],
    restored: [RestoredState?]
  ) {
    self.restored = engine.graph.sources.indices.map { $0 < restored.count ? restored[$0] : nil }
    self.number = number
    self.engine = engine
    inbox = engine.inboxes[number]
    self.partitions = partitions
    let graph = engine.graph
    var contexts: [TaskContext] = []
    readers = graph.sources.indices.map { source in
      graph.flows.indices.filter { graph.flows[$0].sources.contains(source) }
    }
    var flowReaders: [[(level: Int, flow: Int, input: Int)]] = graph.flows.map { _ in [] }
    for (flow, reader) in graph.flows.enumerated() {
      for (input, upstream) in reader.inputs.enumerated() {
        flowReaders[upstream.flow].append((upstream.level, flow, input))
      }
    }
    self.flowReaders = flowReaders
    let restoredSources = self.restored
    restoredFlows = graph.flowSources.map { sources in sources.sorted().lazy.compactMap { restoredSources[$0] }.first }
    for flow in graph.flows.indices {
      let writer = RecordWriter()
      if let point = resume[flow] { writer.suppressThrough = point.emittedThrough }
      contexts.append(
        TaskContext(
          shard: number, shardCount: engine.options.workers, batchRows: engine.options.batchRows,
          output: writer))
      contexts[flow].partitionNames = engine.identities.map { "\($0.topic)/\($0.partition)" }
    }
    self.contexts = contexts
    let bases = graph.flowBases
    levels = max(1, graph.flows.indices.map { bases[$0] + graph.levels(of: $0) }.max() ?? 1)
    sources = graph.sources.indices.map {
      SourceTask(
        graph.sources[$0], contexts[$0], isLive: engine.options.isLive, partitioning: engine.options.partitioning)
    }
    for flow in graph.flows.indices {
      contexts[flow].setSender { [unowned self] exchange, shard, rows in
        self.send(rows, exchange: exchange, to: shard)
      }
      shards.append(
        FlowShard(
          graph: graph, flow: flow, context: contexts[flow], merger: engine.merger,
          partitions: engine.partitionSources.indices.filter {
            graph.flows[flow].sources.contains(engine.partitionSources[$0])
          }, resume: resume[flow], isRestored: restoredFlows[flow] != nil, isCommitted: engine.options.isLive,
          isAligned: engine.options.alignsBarriers, broadcast: { [unowned self] in try self.broadcast($0) }))
    }
  }

  // MARK: The loop

  /// What a step did.
  enum Step {
    case worked
    /// Nothing to do until a message or a record comes.
    case idle
    case ended
  }

  func run() {
    do {
      try begin()
      loop: while !engine.isStopping {
        switch try step() {
        case .worked: continue
        case .idle: inbox.wait(nanos: 1_000_000)
        case .ended: break loop
        }
      }
      publishStats(isLast: true)
    } catch {
      engine.fail(error)
    }
    engine.finished(worker: number)
  }

  /// Before the first step.
  func begin() throws {
    try restore()
    for shard in shards { try shard.finishIfEmpty() }
    // A partition that is resumed and has nothing new still lets windows close up to where it was.
    for partition in partitions where partition.watermark > beforeAllTime { try progress(partition) }
  }

  /// Takes the messages that are there, then at most one batch.
  func step() throws -> Step {
    try receive()
    try noticeBarrier()
    if isEnding { return .ended }
    if alignment != nil { return .idle }
    if partitions.allSatisfy(\.hasEnded), shards.allSatisfy(\.isFinished) { return .ended }
    guard let partition = next() else {
      publishStats()
      return .idle
    }
    try read(partition)
    return .worked
  }

  private func receive() throws {
    for envelope in inbox.take() { try handle(envelope) }
  }

  private func handle(_ envelope: Envelope) throws {
    if let alignment, alignment.holds(envelope.sender) {
      held.append(envelope)
      return
    }
    switch envelope.message {
    case .panes(let panes, let source, let partition, let watermark):
      for flow in readers[source] { try shards[flow].accept(panes, partition: partition, watermark: watermark) }
    case .rows(let exchange, let rows):
      shards[engine.graph.exchanges[exchange].flow].accept(exchange: exchange, rows)
    case .shardWatermark(let flow, let level, let sender, let watermark):
      try shards[flow].accept(level: level, from: sender, watermark: watermark)
      for reader in flowReaders[flow] where reader.level + 1 == level {
        try shards[reader.flow].accept(input: reader.input, from: sender, watermark: watermark)
      }
    case .barrier(_, let level):
      try noticeBarrier()
      if alignment?.note(level: level, from: envelope.sender) == true { try levelAligned() }
    }
  }

  private func broadcast(_ message: Message) throws {
    for (other, inbox) in engine.inboxes.enumerated() where other != number {
      inbox.send(message, from: number)
    }
    try handle(Envelope(sender: number, message: message))
  }

  private func send(_ rows: RowsChunk, exchange: Int, to shard: Int) {
    if shard == number {
      shards[engine.graph.exchanges[exchange].flow].accept(exchange: exchange, rows)
    } else {
      engine.inboxes[shard].send(.rows(exchange: exchange, rows), from: number)
    }
  }

  // MARK: Reading

  /// The readable partition that is furthest behind, so that panes of few minutes are open at a time; nil
  /// when there is nothing to read now or others must catch up first.
  private func next() -> PartitionState? {
    if engine.inboxes.contains(where: { $0.count > Inbox.messagesMax }) { return nil }
    let now = engine.options.isLive ? engine.options.monotonic() : 0
    let isHeld = engine.stateGate.isClosed
    var best: PartitionState?
    for partition in partitions where !partition.hasEnded && partition.retryNanos <= now {
      if let chosen = best, chosen.watermark <= partition.watermark { continue }
      guard engine.merger.mayRead(partition: partition.ordinal) else { continue }
      if isHeld, !engine.progress.isLast(partition.ordinal, watermark: partition.watermark) { continue }
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
      if engine.options.isLive { partition.lastRecordNanos = engine.options.monotonic() }
      partition.counters.isIdle = false
      source.process(partition)
      try progress(partition)
      stats.batches += 1
      let nanos = monotonicNanos() - started
      stats.batchNanos += nanos
      stats.longestBatch.now = max(stats.longestBatch.now, nanos)
      if stats.batches & 15 == 0 { publishStats() }
    case .nothingYet, .caughtUp:
      partition.wasReadable = false
      partition.retryNanos = engine.options.monotonic() + Self.retryNanos
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
    // How long it is silent is measured by the clock that nobody sets: a wall clock put forward makes no partition idle.
    guard engine.options.monotonic() - partition.lastRecordNanos >= schema.idleNanos else { return }
    partition.counters.isIdle = true
    let watermark = engine.options.clock() - schema.boundNanos
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

  private func publishStats(isLast: Bool = false) {
    stats.partitions = partitions.map { ($0.ordinal, $0.counters) }
    // Counting the state of a thousand rules takes its time: ten times a second is often enough for those who watch.
    let now = monotonicNanos()
    if now - stateNanos >= 100_000_000 || isLast {
      stateNanos = now
      var operators = Array(repeating: OperatorStatus(), count: engine.graph.exchanges.count)
      var rules = Array(repeating: OperatorStatus(), count: engine.graph.rules.count)
      for shard in shards { shard.addSizes(to: &operators, rules: &rules) }
      stats.operators = operators
      stats.rules = rules
      stats.state = (stats.operators + stats.rules).reduce((0, 0)) { ($0.0 + $1.keys, $0.1 + $1.bytes) }
      engine.stateGate.note(bytes: stats.state.bytes, worker: number)
    }
    engine.report(stats, worker: number)
  }

  /// Where shards and partitions stand. On the worker's thread, or when that has ended.
  func snapshotPart() -> SnapshotPart {
    SnapshotPart(
      shards: shards.map(\.points),
      partitions: partitions.map { partition in
        SnapshotPart.Partition(
          ordinal: partition.ordinal, position: partition.position, firstOffset: partition.firstOffset,
          readThrough: partition.readThrough, watermark: partition.watermark, index: partition.index, raises: partition.raises.all)
      })
  }

}

// MARK: Barriers

extension Worker {
  /// Begins to align when a barrier has been asked for.
  private func noticeBarrier() throws {
    guard let request = engine.barrierRequest(after: seenEpoch) else { return }
    seenEpoch = request.epoch
    let alignment = Alignment(request, levels: levels, workers: engine.options.workers)
    guard engine.options.alignsBarriers else { return try arrive(alignment) }
    self.alignment = alignment
    try broadcast(.barrier(epoch: request.epoch, level: 0))
  }

  /// Every message of a level from before the barrier has been handled here.
  private func levelAligned() throws {
    guard let alignment else { return }
    if alignment.isDone { return try arrive(alignment) }
    try broadcast(.barrier(epoch: alignment.request.epoch, level: alignment.level))
  }

  /// The state here is that of the barrier.
  private func arrive(_ alignment: Alignment) throws {
    let request = alignment.request
    let snapshot = snapshotPart()
    let sections = request.captures ? captureSections() : []
    let part = BarrierPart(
      snapshot: snapshot, sections: sections, pauseNanos: monotonicNanos() - alignment.startNanos)
    try engine.merger.arrive(shard: number, partitions: partitions.map(\.ordinal), epoch: request.epoch)
    if request.captures {
      stats.longestBatch = (0, stats.longestBatch.now)
      stats.captures += 1
      publishStats()
    }
    engine.answer(part, worker: number, epoch: request.epoch)
    for partition in partitions {
      let since = engine.committedSince[partition.source]
      partition.index.forget(before: since)
      partition.raises.forget(before: since)
    }
    self.alignment = nil
    if request.isLast { isEnding = true }
    let behind = held
    held = []
    for envelope in behind { try handle(envelope) }
  }

  private var keyGroups: Range<Int> { KeyGroup.range(of: number, shardCount: engine.options.workers) }

  private func captureSections() -> [StateSection] {
    var sections: [StateSection] = []
    // Open panes first: they are written to soon, and a pane that is encoded by then needs no copy.
    for partition in partitions {
      let scope = engine.scope(of: partition)
      let partials = shards[partition.source].context.partials
      for exchange in partials.keys.sorted() {
        guard let task = partials[exchange], let capture = task.capture(partition: partition.ordinal) else { continue }
        sections.append(StateSection(operatorID: task.operatorID, scope: scope, capture: capture))
      }
      sections.append(
        StateSection(operatorID: Self.partitionID, scope: scope, capture: EncodedCapture(partition.encode)))
    }
    for (flow, shard) in shards.enumerated() {
      for task in contexts[flow].statefulTasks {
        guard let capture = task.capture() else { continue }
        sections.append(StateSection(operatorID: task.operatorID, scope: .keys(keyGroups), capture: capture))
      }
      sections.append(
        StateSection(
          operatorID: Self.shardID(engine.graph.flows[flow].name), scope: .keys(keyGroups),
          capture: EncodedCapture(shard.encode)))
    }
    return sections
  }

  private static let partitionID = RestoredState.partitionID
  private static func shardID(_ flow: String) -> String { "shard:\(flow)" }

  /// Takes what belongs to this worker out of stored state.
  private func restore() throws {
    let scope = KeyScope(shard: number, shardCount: engine.options.workers)
    func reading(_ operatorID: String, _ body: () throws -> Void) throws {
      do { try body() } catch { throw SourceFailure("the state of \(operatorID) cannot be restored: \(error)") }
    }
    for partition in partitions {
      guard let state = restored[partition.source] else { continue }
      let place = engine.scope(of: partition)
      guard let own = state.part(of: Self.partitionID, partition: place) else {
        // New since then: it begins where it was read first, with nothing seen.
        partition.watermark = beforeAllTime
        continue
      }
      try reading(Self.partitionID) {
        var reader = StateReader(own)
        try partition.restore(from: &reader)
      }
      let partials = shards[partition.source].context.partials
      for exchange in partials.keys.sorted() {
        guard let task = partials[exchange], let bytes = state.part(of: task.operatorID, partition: place) else {
          continue
        }
        try reading(task.operatorID) {
          var reader = StateReader(bytes)
          try task.restore(partition: partition.ordinal, from: &reader)
        }
      }
    }
    let sourcesOfFlow = engine.graph.flowSources
    for (flow, shard) in shards.enumerated() {
      guard let state = restoredFlows[flow] else { continue }
      let missing = sourcesOfFlow[flow].compactMap { state.readThrough(source: engine.graph.sources[$0].schema) }.max()
      for task in contexts[flow].statefulTasks {
        let parts = state.parts(of: task.operatorID, groups: keyGroups)
        // An operator that is new has missed everything that was read before.
        if parts.isEmpty, let missing { task.start(missingBefore: missing) }
        for bytes in parts {
          try reading(task.operatorID) {
            var reader = StateReader(bytes)
            try task.restore(from: &reader, scope: scope)
          }
        }
        if !parts.isEmpty, let missing { task.restored(readThrough: missing) }
      }
      let id = Self.shardID(engine.graph.flows[flow].name)
      // What a shard needs concerns all keys of its source: the least of all counts.
      for bytes in state.parts(of: id, groups: 0..<KeyGroup.count) {
        try reading(id) {
          var reader = StateReader(bytes)
          try shard.restore(from: &reader)
        }
      }
    }
  }
}

/// What a worker tells about itself.
struct WorkerStats: Sendable {
  var batches = 0
  var batchNanos: Int64 = 0
  /// Barriers at which state was captured.
  var captures = 0
  /// Nanoseconds of the longest batch since the last checkpoint's barrier, and between it and the one before.
  var longestBatch: (now: Int64, before: Int64) = (0, 0)
  var partitions: [(ordinal: Int, counters: PartitionCounters)] = []
  var state: (keys: Int, bytes: Int) = (0, 0)
  /// By exchange.
  var operators: [OperatorStatus] = []
  /// By rule, what no exchange has.
  var rules: [OperatorStatus] = []
}

/// A worker's answer to a commit: where its shards (by flow) and its partitions stand.
struct SnapshotPart: Sendable {
  struct Partition: Sendable {
    var ordinal: Int
    /// One behind the last offset read; -1 before the first.
    var position: Int64
    var firstOffset: Int64
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
  func stand(
    neededSince: Int64, emittedThrough: Int64, gathered: [String: Int64], _ identities: [PartitionIdentity]
  ) -> PartitionStand {
    let back = index.resume(since: neededSince)
    let resume = ResumePoint(
      neededSince: neededSince, emittedThrough: emittedThrough, readThrough: readThrough,
      watermark: back?.watermark ?? watermark, raises: raises, gathered: gathered)
    return PartitionStand(
      identity: identities[ordinal], position: position, firstOffset: firstOffset, watermark: watermark,
      rereadOffset: back?.offset ?? position, resume: resume)
  }
}
