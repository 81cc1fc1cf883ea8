/// The keyed side of the graph on one worker, for one source: the exchanges' owners for the keys of this shard, level by
/// level, and the records that they emit.
final class SourceShard {
  private let source: Int
  private let shard: Int
  private let levels: Int
  private let step: Int64
  private let keyed: [(exchange: Int, level: Int, task: KeyedTask)]
  private let taskByExchange: [Int: KeyedTask]
  let context: TaskContext
  private let merger: OutputMerger
  /// Watermark by partition ordinal; the shard's is the least.
  private var partitionWatermarks: [Int: Int64]
  /// Watermark by level and sending shard, for level 1 and up.
  private var shardWatermarks: [[Int64]]
  /// How far each level has been advanced.
  private(set) var levelWatermarks: [Int64]
  private let broadcast: (Message) throws -> Void

  init(
    graph: Graph, source: Int, context: TaskContext, merger: OutputMerger, partitions: [Int],
    resume: ResumePoint?, broadcast: @escaping (Message) throws -> Void
  ) {
    self.source = source
    shard = context.shard
    self.context = context
    self.merger = merger
    self.broadcast = broadcast
    levels = graph.levels(of: source)
    step = graph.sources[source].stepNanos
    var keyed: [(exchange: Int, level: Int, task: KeyedTask)] = []
    for (index, exchange) in graph.exchanges.enumerated() where exchange.source == source {
      let task = exchange.definition.makeKeyed(context)
      if let resume { task.resume(at: resume.neededSince) }
      keyed.append((index, exchange.level, task))
    }
    self.keyed = keyed
    taskByExchange = Dictionary(uniqueKeysWithValues: keyed.map { ($0.exchange, $0.task) })
    partitionWatermarks = Dictionary(uniqueKeysWithValues: partitions.map { ($0, beforeAllTime) })
    shardWatermarks = Array(
      repeating: Array(repeating: beforeAllTime, count: context.shardCount), count: max(levels, 1))
    levelWatermarks = Array(repeating: beforeAllTime, count: max(levels, 1))
  }

  func accept(_ panes: [(exchange: Int, pane: PanePartial)], partition: Int, watermark: Int64) throws {
    for (exchange, pane) in panes { taskByExchange[exchange]?.accept(pane, partition: partition) }
    partitionWatermarks[partition] = watermark
    let combined = partitionWatermarks.values.min() ?? afterAllTime
    try advance(level: 0, to: combined)
  }

  func accept(exchange: Int, _ rows: RowsChunk) { taskByExchange[exchange]?.accept(rows) }

  func accept(level: Int, from sender: Int, watermark: Int64) throws {
    shardWatermarks[level][sender] = watermark
    try advance(level: level, to: shardWatermarks[level].min() ?? watermark)
  }

  /// A source that was given no partition does not hold anything back.
  func finishIfEmpty() throws { if partitionWatermarks.isEmpty { try advance(level: 0, to: afterAllTime) } }

  private func advance(level: Int, to watermark: Int64) throws {
    guard watermark > levelWatermarks[level] else { return }
    for entry in keyed where entry.level == level { entry.task.advance(to: watermark) }
    levelWatermarks[level] = watermark
    if level + 1 < levels {
      try broadcast(
        .shardWatermark(source: source, level: level + 1, shard: shard, watermark: watermark))
    } else {
      try publish(watermark)
    }
  }

  private func publish(_ watermark: Int64) throws {
    let records = context.output.isEmpty ? nil : context.output.drain(through: watermark)
    try merger.publish(
      records, lane: merger.shardLane(source: source, shard: shard), bound: bound(behind: watermark))
  }

  /// The earliest time that a record may have from now on. With one level of windows that is the next multiple of the
  /// panes' step, which sets free late rows and dead letters in between.
  private func bound(behind watermark: Int64) -> Int64 {
    if watermark >= eventTimeNanos.upperBound { return watermark == afterAllTime ? watermark : watermark + 1 }
    return levels == 1 && step > 0 ? floorToMultiple(watermark, of: step) + step : watermark + 1
  }

  var isFinished: Bool { levelWatermarks.allSatisfy { $0 == afterAllTime } }

  /// Everything up to here has been emitted.
  var emittedThrough: Int64 { levelWatermarks[levelWatermarks.count - 1] }

  /// No row before this is needed any more.
  var neededSince: Int64 {
    guard levelWatermarks[0] > beforeAllTime else { return beforeAllTime }
    return keyed.map { $0.task.neededSince(watermark: levelWatermarks[$0.level]) }.min()
      ?? levelWatermarks[0]
  }

  var stateSize: (keys: Int, bytes: Int) {
    keyed.reduce((0, 0)) { sum, entry in
      let size = entry.task.stateSize
      return (sum.0 + size.keys, sum.1 + size.bytes)
    }
  }
}
