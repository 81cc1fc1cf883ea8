/// A moment of a shard that a commit may name: with every record up to `emittedThrough` written, rows since
/// `neededSince` rebuild what it keeps.
struct ShardPoint: Sendable, Hashable {
  var emittedThrough: Int64
  var neededSince: Int64
}

/// The keyed side of the graph on one worker, for one flow: the exchanges' owners for the keys of this
/// shard, level by level, and the records that they emit.
final class FlowShard {
  private let flow: Int
  private let shard: Int
  private let levels: Int
  private let step: Int64
  private let keyed: [(exchange: Int, level: Int, task: KeyedTask)]
  private let taskByExchange: [Int: KeyedTask]
  let context: TaskContext
  private let merger: OutputMerger
  /// Watermark by partition ordinal; the shard's is the least, also of its inputs'.
  private var partitionWatermarks: [Int: Int64]
  /// The largest that a partition or an input had while it went on.
  private var lastWatermark = beforeAllTime
  /// Watermark by input flow and sending shard.
  private var inputWatermarks: [[Int64]]
  /// Whether another flow takes rows of a level.
  private let isRead: [Bool]
  /// Watermark by level and sending shard, for level 1 and up.
  private var shardWatermarks: [[Int64]]
  /// How far each level has been advanced.
  private(set) var levelWatermarks: [Int64]
  private let broadcast: (Message) throws -> Void
  private let isCommitted: Bool
  /// See `EngineOptions.alignsBarriers`.
  private let isAligned: Bool
  private let resume: ResumePoint?
  /// While rows are read again from here, windows before it are not whole: there is no way back behind it.
  private let needsFloor: Int64
  /// By level, what was needed after each advance, back to the last one that the levels behind have caught up
  /// with.
  private var needs: [[(watermark: Int64, since: Int64)]]
  /// Ascending, back to the last one whose records have been written, all shards' records up to then
  /// included. Shards are not equally far, so a commit must be able to name a moment that lies a little back.
  private(set) var points: [ShardPoint] = []

  init(
    graph: Graph, flow: Int, context: TaskContext, merger: OutputMerger, partitions: [Int],
    resume: ResumePoint?, isRestored: Bool, isCommitted: Bool, isAligned: Bool,
    broadcast: @escaping (Message) throws -> Void
  ) {
    self.resume = resume
    self.isCommitted = isCommitted
    self.isAligned = isAligned
    self.flow = flow
    shard = context.shard
    self.context = context
    self.merger = merger
    self.broadcast = broadcast
    levels = graph.levels(of: flow)
    step = flow < graph.sources.count ? graph.sources[flow].stepNanos : 1
    inputWatermarks = graph.flows[flow].inputs.map { _ in
      Array(repeating: beforeAllTime, count: context.shardCount)
    }
    let readLevels = Set(graph.flows.flatMap(\.inputs).filter { $0.flow == flow }.map(\.level))
    isRead = (0..<max(levels, 1)).map { readLevels.contains($0) }
    var keyed: [(exchange: Int, level: Int, task: KeyedTask)] = []
    for (index, exchange) in graph.exchanges.enumerated() where exchange.flow == flow {
      let task = exchange.definition.makeKeyed(context)
      if let resume, !isRestored { task.resume(at: resume.neededSince) }
      keyed.append((index, exchange.level, task))
    }
    self.keyed = keyed
    taskByExchange = Dictionary(uniqueKeysWithValues: keyed.map { ($0.exchange, $0.task) })
    partitionWatermarks = Dictionary(uniqueKeysWithValues: partitions.map { ($0, beforeAllTime) })
    shardWatermarks = Array(
      repeating: Array(repeating: beforeAllTime, count: context.shardCount), count: max(levels, 1))
    levelWatermarks = Array(repeating: beforeAllTime, count: max(levels, 1))
    needsFloor = isRestored ? beforeAllTime : resume?.neededSince ?? beforeAllTime
    // A resumed shard stands where the engine before stood until it knows better.
    needs = Array(
      repeating: [(beforeAllTime, needsFloor)], count: max(levels, 1))
    if let resume, !isRestored {
      points = [ShardPoint(emittedThrough: resume.emittedThrough, neededSince: resume.neededSince)]
    }
  }

  func accept(_ panes: [(exchange: Int, pane: PanePartial)], partition: Int, watermark: Int64) throws {
    for (exchange, pane) in panes { taskByExchange[exchange]?.accept(pane, partition: partition) }
    partitionWatermarks[partition] = watermark
    note(watermark)
    try advanceInput()
  }

  /// A shard of an input's flow has emitted everything up to the watermark.
  func accept(input: Int, from sender: Int, watermark: Int64) throws {
    inputWatermarks[input][sender] = watermark
    note(watermark)
    try advanceInput()
  }

  private func note(_ watermark: Int64) {
    if watermark < afterAllTime { lastWatermark = max(lastWatermark, watermark) }
  }

  private func advanceInput() throws {
    var combined = partitionWatermarks.values.min() ?? afterAllTime
    for watermarks in inputWatermarks { combined = min(combined, watermarks.min() ?? afterAllTime) }
    // Which partition ends first depends on who reads it; how far time had come when the last one did, does not.
    if combined == afterAllTime { try advance(level: 0, to: lastWatermark) }
    try advance(level: 0, to: combined)
  }

  func accept(exchange: Int, _ rows: RowsChunk) { taskByExchange[exchange]?.accept(rows) }

  func accept(level: Int, from sender: Int, watermark: Int64) throws {
    guard level < levels else { return }
    shardWatermarks[level][sender] = watermark
    try advance(level: level, to: shardWatermarks[level].min() ?? watermark)
  }

  /// A source that was given no partition does not hold anything back.
  func finishIfEmpty() throws {
    if partitionWatermarks.isEmpty, inputWatermarks.isEmpty { try advance(level: 0, to: afterAllTime) }
  }

  private func advance(level: Int, to watermark: Int64) throws {
    guard watermark > levelWatermarks[level] else { return }
    for entry in keyed where entry.level == level { entry.task.advance(to: watermark) }
    levelWatermarks[level] = watermark
    if isCommitted { needs[level].append((watermark, neededSince(level: level))) }
    if level + 1 < levels || isRead[level] {
      try broadcast(.shardWatermark(flow: flow, level: level + 1, shard: shard, watermark: watermark))
    }
    if level + 1 >= levels { try publish(watermark) }
  }

  private func publish(_ watermark: Int64) throws {
    let records = context.output.isEmpty ? nil : context.output.drain(through: watermark)
    let written = try merger.publish(
      records, lane: merger.shardLane(source: flow, shard: shard), bound: bound(behind: watermark))
    if isCommitted { notePoint(watermark, writtenThrough: written) }
  }

  private func notePoint(_ watermark: Int64, writtenThrough: Int64) {
    var needed = watermark
    for level in needs.indices {
      // A level in front may have gone on, and its records wait here: what counts is what it needed before.
      while needs[level].count > 1, needs[level][1].watermark <= watermark { needs[level].removeFirst() }
      needed = min(needed, needs[level][0].since)
    }
    points.append(
      ShardPoint(
        emittedThrough: max(watermark, resume?.emittedThrough ?? beforeAllTime),
        neededSince: max(needed, needsFloor)))
    while points.count > 1, points[1].emittedThrough <= writtenThrough { points.removeFirst() }
  }

  private func neededSince(level: Int) -> Int64 {
    let watermark = levelWatermarks[level]
    var needed = watermark
    for entry in keyed where entry.level == level {
      needed = min(needed, entry.task.neededSince(watermark: watermark))
    }
    return needed
  }

  /// The earliest time that a record may have from now on. With one level of windows that is the next
  /// multiple of the panes' step, which sets free late rows and dead letters in between.
  private func bound(behind watermark: Int64) -> Int64 {
    if watermark >= eventTimeNanos.upperBound { return watermark == afterAllTime ? watermark : watermark + 1 }
    return levels == 1 && step > 0 ? floorToMultiple(watermark, of: step) + step : watermark + 1
  }

  /// At a barrier all shards of a source have advanced equally far, and every record up to there has been
  /// handed on: what is left to store is the way back by reading again.
  func encode(into writer: StateWriter) {
    precondition(!isAligned || context.output.isEmpty, "records wait behind an aligned barrier")
    writer.append(UInt16(1))
    writer.append(points.last?.emittedThrough ?? beforeAllTime)
    writer.append(points.last?.neededSince ?? beforeAllTime)
    writer.append(UInt8(points.isEmpty ? 0 : 1))
  }

  func restore(from reader: inout StateReader) throws {
    try reader.expect(version: 1, of: "a shard")
    let emitted = try reader.integer(Int64.self)
    let needed = try reader.integer(Int64.self)
    guard try reader.bool() else { return }
    let least = min(points.first?.neededSince ?? needed, needed)
    points = [
      ShardPoint(emittedThrough: max(emitted, resume?.emittedThrough ?? beforeAllTime), neededSince: least)
    ]
    for level in needs.indices { needs[level] = [(beforeAllTime, least)] }
  }

  var isFinished: Bool { levelWatermarks.allSatisfy { $0 == afterAllTime } }

  /// Adds what this worker keeps for each exchange: the shard's windows, and the open panes of its partitions; and for
  /// each rule what it keeps beside them.
  func addSizes(to operators: inout [OperatorStatus], rules: inout [OperatorStatus]) {
    for task in context.statefulTasks {
      guard let state = task.ruleState, rules.indices.contains(Int(state.rule)) else { continue }
      rules[Int(state.rule)].keys += state.keys
      rules[Int(state.rule)].bytes += state.bytes
      rules[Int(state.rule)].rowsOverLimit += state.rowsOverLimit
    }
    for entry in keyed {
      let size = entry.task.stateSize
      operators[entry.exchange].keys += size.keys
      operators[entry.exchange].bytes += size.bytes
      operators[entry.exchange].rowsOverLimit += entry.task.rowsOverLimit
    }
    for (exchange, task) in context.partials {
      let size = task.stateSize
      operators[exchange].keys += size.keys
      operators[exchange].bytes += size.bytes
      operators[exchange].rowsOverLimit += task.rowsOverLimit
    }
  }
}
