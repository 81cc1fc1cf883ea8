import Connectors
import Operators
import Planner
import RuleLang
import Runtime
import Traffic

/// What checkpoints cost: the same rows with and without them in turns, a million keys alive, and how long a start from
/// one takes.
struct CheckpointBench {
  private static let partitions = 4
  private static let rules = """
    source events {
      kafka "events"  format json
      time ts  watermark 2h
      fields { ts: timestamp(ms), user: string, value: float }
    }
    stream per_user = events | window tumbling 1h by user
      | aggregate n = count(), total = sum(value), worst = max(value)
    metric user_events = per_user.n by user
    metric user_total = per_user.total by user
    alert UserLoud { on per_user when worst > 1e9 severity ticket }
    """
  /// 2026-11-21T03:00:00Z; all rows lie in one window, so that every key stays alive.
  private static let startMillis: Int64 = 1_795_230_000_000

  let keys: Int
  let seconds: Int
  let rounds: Int
  let checkpointNanos: Int64
  let directory: String

  /// What one run came to.
  private struct Run {
    var rows = 0
    var nanos: Int64 = 0
    var pauseNanos: Int64 = 0
    /// The longest batch while the process still gets memory that it never had, and from then on.
    var coldNanos: Int64 = 0
    var batchNanos: Int64 = 0
    var checkpoints = 0
    var bytes = 0
    var keys = 0
    var storeNanos: Int64 = 0
    var rate: Double { Double(rows) / Double(max(1, nanos)) * 1e9 }
  }

  func run(_ environment: CommandEnvironment) throws {
    let result = compileRules(
      [SourceFile(path: "bench.rules", text: Self.rules)], catalog: makeCatalog(formats: connectorFormats))
    guard let program = result.program else { throw CommandFailure.environment("the bench's rules do not compile") }
    let graph = buildPlan(program).lower()
    try makeDirectories(directory)
    let files = try writeEvents(environment)
    var without: [Run] = []
    var with: [Run] = []
    var offsets = CommittedOffsets()
    for round in 0..<rounds {
      // Each run begins with the files; the last one's checkpoint is what `recover` starts from.
      offsets = CommittedOffsets()
      without.append(try measure(graph, files, checkpoints: false, &offsets, environment))
      offsets = CommittedOffsets()
      with.append(try measure(graph, files, checkpoints: true, &offsets, environment))
      environment.note("round \(round + 1) of \(rounds) done")
    }
    let recovery = try recover(graph, files, &offsets)
    let ratios = zip(with, without).map { $0.rate / $1.rate }.sorted()
    let last = with[with.count - 1]
    func millis(_ nanos: Int64) -> String { "\((Double(nanos) / 1e5).rounded() / 10) ms" }
    let every = "\(checkpointNanos / 1_000_000_000) s"
    try environment.say(
      """
      live keys                             \(grouped(last.keys))
      rows/s without checkpoints            \(grouped(Int(without.map(\.rate).sorted()[rounds / 2])))
      rows/s, a checkpoint every \(every)       \(grouped(Int(with.map(\.rate).sorted()[rounds / 2])))
      ratio (median of \(rounds) pairs)             \((ratios[rounds / 2] * 1_000).rounded() / 10) %
      longest barrier pause                 \(millis(with.map(\.pauseNanos).max() ?? 0))
      longest batch, first two checkpoints  \(millis(with.map(\.coldNanos).max() ?? 0))
      longest batch, later checkpoints      \(millis(with.map(\.batchNanos).max() ?? 0))
      longest batch without checkpoints     \(millis(without.map(\.batchNanos).max() ?? 0))
      storing one                           \(millis(last.storeNanos))
      size                                  \(grouped(last.bytes)) bytes, \(last.bytes / max(1, last.keys)) a key
      start from one                        \(millis(recovery))
      """)
  }

  /// Every key appears in each pass over the files, which are read again and again.
  private func writeEvents(_ environment: CommandEnvironment) throws -> [String] {
    try (0..<Self.partitions).map { partition in
      let path = "\(directory)/events-\(partition).jsonl"
      let file = try RecordingFile(path: path)
      var random = TrafficRandom(seed: UInt64(partition + 1))
      var lines: [UInt8] = []
      var left = keys / Self.partitions
      while left > 0 {
        lines.removeAll(keepingCapacity: true)
        for _ in 0..<min(left, 1_000) {
          let user = left * Self.partitions + partition
          let time = Self.startMillis + Int64(random.next() % 3_000_000)
          lines += Array(
            "{\"ts\":\(time),\"user\":\"user-\(user)\",\"value\":\(random.next() % 1_000),\"route\":\"/v1/search\"}\n".utf8)
          left -= 1
        }
        try file.edit { $0.append(contentsOf: lines) }
      }
      try file.finish()
      return path
    }
  }

  private func measure(
    _ graph: Graph, _ files: [String], checkpoints: Bool, _ offsets: inout CommittedOffsets,
    _ environment: CommandEnvironment
  ) throws -> Run {
    var run = Run()
    let source = LoopingSource(schema: graph.sources[0].schema, files: files, committed: offsets)
    let coordinator = try makeCoordinator(graph, source, checkpoints: checkpoints) { event in
      switch event {
      case .barrier(let pause): run.pauseNanos = max(run.pauseNanos, pause)
      case .checkpoint(_, let keys, let bytes, let nanos):
        run.checkpoints += 1
        run.keys = keys
        run.bytes = bytes
        run.storeNanos = nanos
      default: break
      }
    }
    // Until all keys are there, which is not what is measured.
    while rows(coordinator) < keys { _ = try coordinator.step(timeoutMillis: 5) }
    let before = rows(coordinator)
    let began = monotonicNanos()
    run.pauseNanos = 0
    while monotonicNanos() - began < Int64(seconds) * 1_000_000_000 {
      _ = try coordinator.step(timeoutMillis: 5)
      let status = coordinator.engines.map(\.status)
      let longest = status.map(\.batchNanosSinceBarrier).max() ?? 0
      // The first checkpoint's copies, and the second's while the store still holds the first, lie in new memory.
      if checkpoints, status.contains(where: { $0.captures <= 2 }) {
        run.coldNanos = max(run.coldNanos, longest)
      } else {
        run.batchNanos = max(run.batchNanos, longest)
      }
    }
    run.rows = rows(coordinator) - before
    run.nanos = monotonicNanos() - began
    coordinator.stop()
    while try coordinator.step(timeoutMillis: 5) {}
    offsets = source.committed
    return run
  }

  /// From the start of a coordinator to its first row, all state restored.
  private func recover(_ graph: Graph, _ files: [String], _ offsets: inout CommittedOffsets) throws -> Int64 {
    let source = LoopingSource(schema: graph.sources[0].schema, files: files, committed: offsets)
    var restored = false
    let began = monotonicNanos()
    let coordinator = try makeCoordinator(graph, source, checkpoints: true) { event in
      if case .engineStarted(_, let name, _) = event { restored = name != nil }
    }
    while rows(coordinator) == 0 { _ = try coordinator.step(timeoutMillis: 1) }
    let nanos = monotonicNanos() - began
    coordinator.close()
    guard restored else { throw CommandFailure.environment("the bench did not start from its checkpoint") }
    return nanos
  }

  private func rows(_ coordinator: Coordinator) -> Int { coordinator.engines.reduce(0) { $0 + $1.status.rows } }

  private func makeCoordinator(
    _ graph: Graph, _ source: LoopingSource, checkpoints: Bool, _ observe: @escaping (CoordinatorEvent) -> Void
  ) throws -> Coordinator {
    var options = CoordinatorOptions(
      engine: EngineOptions(workers: coreCount(), order: .bySource, isLive: true), group: "bench")
    options.checkpointNanos = checkpointNanos
    let store = checkpoints ? try openCheckpointStore("\(directory)/checkpoints", group: "bench") : nil
    return try Coordinator(
      rules: RunningRules(graph: graph, revision: "bench"), sink: CollectingNothing(), store: store,
      executor: ThreadExecutor(), options: options, observe: observe
    ) { _ in source }
  }
}

private final class CollectingNothing: RecordSink {
  func write(_ batch: OutputBatch) {}
  func flush() {}
  var problem: String? { nil }
  func close() {}
}

/// What a group has committed, kept in memory.
struct CommittedOffsets {
  var points: [PartitionIdentity: CommitPoint] = [:]
}

/// Files that never end: each is read from its beginning again when it is done. All rows lie in one window.
private final class LoopingSource: LiveSource {
  let schema: SourceSchema
  private let files: [String]
  private(set) var committed: CommittedOffsets
  private var isAssigned = false

  init(schema: SourceSchema, files: [String], committed: CommittedOffsets) {
    self.schema = schema
    self.files = files
    self.committed = committed
  }

  func poll(timeoutMillis: Int) -> [AssignmentChange] {
    sleepMillis(timeoutMillis)
    guard !isAssigned else { return [] }
    isAssigned = true
    return [
      .assigned(
        files.enumerated().map { number, path in
          let identity = PartitionIdentity(source: schema.index, topic: "events", partition: Int32(number))
          let point = committed.points[identity]
          return PartitionStart(
            reader: LoopingReader(identity: identity, path: path, schema: schema, from: point?.offset ?? 0),
            committedOffset: point?.offset, metadata: point?.metadata ?? "")
        })
    ]
  }
  func released(_ partitions: [PartitionIdentity]) {}
  func restart() { isAssigned = false }
  func adopt(_ schema: SourceSchema) {}
  func committedMetadata() -> [String] { committed.points.values.map(\.metadata) }
  func commit(_ points: [CommitPoint]) { for point in points { committed.points[point.partition] = point } }
  var problem: String? { nil }
  func lagRecords() -> [PartitionIdentity: Int64] { [:] }
  func close() {}
}

private final class LoopingReader: PartitionReader {
  let identity: PartitionIdentity
  private let path: String
  private let schema: SourceSchema
  private var reader: (any PartitionReader)?
  private var next: Int64

  init(identity: PartitionIdentity, path: String, schema: SourceSchema, from offset: Int64) {
    self.identity = identity
    self.path = path
    self.schema = schema
    next = offset
  }

  func read(into batch: RecordBatch) throws -> ReadOutcome {
    if reader == nil {
      reader = try openRecording(path: path, schema: schema, firstPartition: identity.partition).first
    }
    guard let reader else { return .nothingYet }
    switch try reader.read(into: batch) {
    case .records:
      // Offsets go on where a topic's would.
      for row in 0..<batch.rowCount { batch.offsets[row] = next + Int64(row) }
      next += Int64(batch.rowCount)
      batch.nextOffset = next
      return .records
    case .nothingYet, .caughtUp, .end:
      self.reader = nil
      return .nothingYet
    }
  }
}
