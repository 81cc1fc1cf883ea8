import Connectors
import Planner
import Runtime
import Synchronization

/// How a daemon runs, beyond the engine's own options.
struct DaemonOptions {
  var engine: EngineOptions
  var commitNanos: Int64 = 5_000_000_000
  /// Ends when every partition has been read to the end that it had.
  var isBounded = false
}

/// Rules over live sources: waits for partitions, runs an engine over them, commits, and starts the engine
/// anew from the committed offsets when the group gives or takes partitions.
///
/// State is rebuilt by reading again: what is committed is the offset from which open windows and active
/// alerts can be rebuilt, and what was written before is not written again.
final class Daemon {
  private let graph: Graph
  private let sources: [any LiveSource]
  private let sink: SharedSink
  private let options: DaemonOptions
  private let board: StatusBoard
  /// Partitions that the group has given, waiting for the next engine.
  private var waiting: [PartitionIdentity: PartitionStart] = [:]
  private var isChanged: [Bool]
  private var engine: Engine?
  private var nextCommit: Int64 = 0
  private var commitProblem: String?
  /// How long a new engine waits for all sources before it starts without the missing ones.
  private static let assignmentNanos: Int64 = 10_000_000_000

  init(
    graph: Graph, sources: [any LiveSource], sink: SharedSink, options: DaemonOptions, board: StatusBoard
  ) {
    self.graph = graph
    self.sources = sources
    self.sink = sink
    self.options = options
    self.board = board
    isChanged = Array(repeating: false, count: sources.count)
  }

  /// Runs until `isStopping` answers true or, when bounded, until everything is read. Then it flushes,
  /// commits and leaves the group. Throws what ended an engine: the sink failed for good, or a partition
  /// cannot be decoded.
  func run(isStopping: () -> Bool) throws {
    defer {
      engine?.stop()
      try? engine?.wait()
      for source in sources { source.close() }
    }
    var hasStarted = Array(repeating: false, count: sources.count)
    let began = monotonicNanos()
    while !isStopping() {
      var revoked: [Int: [PartitionIdentity]] = [:]
      for (number, source) in sources.enumerated() {
        // One of the sources waits; the others are looked at in passing.
        for change in source.poll(timeoutMillis: number == 0 ? 20 : 0) {
          switch change {
          case .assigned(let starts):
            hasStarted[number] = true
            isChanged[number] = true
            for start in starts { waiting[start.reader.identity] = start }
          case .revoked(let partitions):
            isChanged[number] = true
            revoked[number, default: []] += partitions
          }
        }
      }
      if engine != nil, isChanged.contains(true) { stopEngine(revoked: revoked) }
      for (number, partitions) in revoked {
        for partition in partitions { waiting[partition] = nil }
        sources[number].released(partitions)
      }
      let isReady =
        hasStarted.allSatisfy { $0 } || monotonicNanos() - began > Self.assignmentNanos
      if engine == nil, isReady, !waiting.isEmpty { try startEngine() }
      publishStatus()
      guard let engine else { continue }
      if !engine.isRunning {
        try engine.wait()
        if options.isBounded {
          // The end of a bounded read is the end of all windows: there is nothing to come back for.
          publishStatus()
          return
        }
        throw CommandFailure.environment("the engine stopped: \(engine.failure ?? "no reason given")")
      }
      if !options.isBounded, monotonicNanos() >= nextCommit { commit { try engine.commitPoints() } }
    }
    if let engine {
      self.engine = nil
      commit { try engine.stopAndCommitPoints() }
      board.keep(engine.status)
      if let commitProblem { throw CommandFailure.environment(commitProblem) }
    }
  }

  private func startEngine() throws {
    isChanged = Array(repeating: false, count: sources.count)
    let starts = waiting.values.map { $0 }
    waiting = [:]
    let engine = Engine(graph: graph, options: options.engine, partitions: starts, sink: sink)
    try engine.start()
    self.engine = engine
    nextCommit = monotonicNanos() + options.commitNanos
    board.noteStart()
  }

  /// Commits what can be committed, stops the engine, and asks every source for its partitions anew.
  private func stopEngine(revoked: [Int: [PartitionIdentity]]) {
    guard let engine else { return }
    // An engine that failed says so again when the next one is given the same partitions.
    commit { try engine.stopAndCommitPoints() }
    board.keep(engine.status)
    self.engine = nil
    for (number, partitions) in revoked { sources[number].released(partitions) }
    waiting = [:]
    for source in sources { source.restart() }
  }

  private func commit(_ takePoints: () throws -> [CommitPoint]) {
    nextCommit = monotonicNanos() + options.commitNanos
    do {
      let points = try takePoints()
      for (number, source) in sources.enumerated() {
        try source.commit(points.filter { $0.partition.source == number })
      }
      commitProblem = nil
    } catch {
      commitProblem = "offsets are not committed: \(error)"
    }
    board.noteCommit(isDone: commitProblem == nil)
  }

  private func publishStatus() {
    var problems = sources.compactMap(\.problem)
    if let text = engine?.outputProblem { problems.append(text) }
    if let commitProblem { problems.append(commitProblem) }
    if engine == nil { problems.append("waiting for partitions") }
    var lags: [PartitionIdentity: Int64] = [:]
    for source in sources { lags.merge(source.lagRecords()) { first, _ in first } }
    board.publish(engine?.status, lags: lags, problems: problems)
  }
}

/// One sink for the engines of a daemon, one after the other.
final class SharedSink: RecordSink, @unchecked Sendable {
  // @unchecked: an engine calls it under its merger's lock, and there is one engine at a time.
  private let sink: any RecordSink
  init(_ sink: any RecordSink) { self.sink = sink }
  func write(_ batch: OutputBatch) throws { try sink.write(batch) }
  func flush() throws { try sink.flush() }
  var problem: String? { sink.problem }
  func close() { sink.close() }
}

/// What the HTTP face shows: filled by the control thread, read by the server's.
final class StatusBoard: Sendable {
  struct Contents {
    var status = EngineStatus()
    /// Totals of engines that ended before a rebalance.
    var before = EngineStatus()
    var lags: [PartitionIdentity: Int64] = [:]
    var problems: [String] = ["starting"]
    var engineStarts = 0
    var commits = 0
    var failedCommits = 0
  }
  private let contents = Mutex(Contents())

  var current: Contents { contents.withLock { $0 } }

  func publish(_ status: EngineStatus?, lags: [PartitionIdentity: Int64], problems: [String]) {
    contents.withLock {
      if let status { $0.status = status }
      $0.lags = lags
      $0.problems = problems
    }
  }

  /// An engine has ended: its counts go on in the totals.
  func keep(_ status: EngineStatus) {
    contents.withLock {
      $0.before = $0.before.adding(status)
      $0.status = EngineStatus()
    }
  }

  func noteStart() { contents.withLock { $0.engineStarts += 1 } }

  func noteCommit(isDone: Bool) {
    contents.withLock {
      if isDone { $0.commits += 1 } else { $0.failedCommits += 1 }
    }
  }
}

extension EngineStatus {
  /// Counters of two engines over the same graph, added up; gauges are the second's.
  func adding(_ other: EngineStatus) -> EngineStatus {
    var sum = other
    var counters: [PartitionIdentity: PartitionCounters] = [:]
    for (identity, values) in partitions + other.partitions {
      var total = counters[identity] ?? PartitionCounters()
      total.rows += values.rows
      total.bytes += values.bytes
      total.late += values.late
      total.deadLetters += values.deadLetters
      total.watermark = values.watermark
      total.isIdle = values.isIdle
      counters[identity] = total
    }
    sum.partitions = counters.keys.sorted().map { ($0, counters[$0] ?? PartitionCounters()) }
    func added(_ a: [Int], _ b: [Int]) -> [Int] {
      (0..<max(a.count, b.count)).map { ($0 < a.count ? a[$0] : 0) + ($0 < b.count ? b[$0] : 0) }
    }
    sum.recordsByRule = added(recordsByRule, other.recordsByRule)
    sum.recordsByKind = added(recordsByKind, other.recordsByKind)
    for (exchange, own) in operators.enumerated() where exchange < sum.operators.count {
      sum.operators[exchange].rowsOverLimit += own.rowsOverLimit
    }
    if sum.operators.isEmpty {
      sum.operators = operators.map { own in
        var counter = OperatorStatus()
        counter.rowsOverLimit = own.rowsOverLimit
        return counter
      }
    }
    sum.batches += batches
    sum.batchNanos += batchNanos
    sum.batchNanosMax = max(batchNanosMax, other.batchNanosMax)
    return sum
  }
}
