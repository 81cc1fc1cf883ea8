import Connectors
import Planner
import Runtime
import Synchronization

/// Rules over live sources as a process: drives the coordinator, and shows what it does.
final class Daemon {
  private let coordinator: Coordinator
  private let board: StatusBoard
  /// Asked every turn: rules to be put in the place of those that run.
  private let nextRules: () -> RunningRules?
  private let partitioning: PartitioningCheck?
  private let onBrokenPartitioning: (BrokenPartitioning) -> Void

  init(
    rules: RunningRules, sink: any RecordSink, store: (any CheckpointStore)?, options: CoordinatorOptions,
    board: StatusBoard, onBrokenPartitioning: @escaping (BrokenPartitioning) -> Void = { _ in },
    nextRules: @escaping () -> RunningRules? = { nil },
    observe: @escaping (CoordinatorEvent) -> Void = { _ in },
    makeSource: @escaping (SourceNode, StartOffsets) throws -> any LiveSource
  ) throws {
    self.board = board
    self.nextRules = nextRules
    partitioning = options.engine.partitioning
    self.onBrokenPartitioning = onBrokenPartitioning
    let offsets = StartOffsets()
    coordinator = try Coordinator(
      rules: rules, sink: sink, store: store, executor: ThreadExecutor(), options: options,
      observe: {
        board.note($0)
        observe($0)
      }, makeSource: { try makeSource($0, offsets) })
    offsets.coordinator = coordinator
    board.set(rules)
  }

  /// Runs until `isStopping` answers true or, when bounded, until everything is read. Then it flushes,
  /// stores, commits and leaves the group. Throws what ended an engine: the sink failed for good, or a partition
  /// cannot be decoded.
  func run(isStopping: () -> Bool) throws {
    var isEnding = false
    defer { coordinator.close() }
    repeat {
      publishStatus()
      if !isEnding, isStopping() {
        isEnding = true
        coordinator.stop()
      }
      if let rules = nextRules() { coordinator.reload(rules) }
    } while try coordinator.step(timeoutMillis: 20)
    publishStatus()
  }

  private func publishStatus() {
    let statuses = coordinator.engines.map(\.status)
    if let partitioning {
      board.noteBrokenKeys(partitioning.brokenKeys)
      partitioning.takeReports().forEach(onBrokenPartitioning)
    }
    board.publish(
      statuses.first.map { first in statuses.dropFirst().reduce(first) { $0.adding($1) } },
      lags: coordinator.lagRecords(), problems: coordinator.problems,
      isStandingBy: coordinator.isStandingBy)
  }
}

/// Where partitions must be read from, for sources that are made before the coordinator can be asked.
final class StartOffsets: @unchecked Sendable {
  // @unchecked: sources ask on the control thread, which is the coordinator's.
  weak var coordinator: Coordinator?
  func offset(of partition: PartitionIdentity) -> Int64? { coordinator?.startOffset(partition) }
}

/// What the HTTP face shows: filled by the control thread, read by the server's.
final class StatusBoard: Sendable {
  struct Contents {
    var status = EngineStatus()
    /// Totals of engines that have ended.
    var before = EngineStatus()
    /// The same by names, which last when the rules change.
    var endedByRule: [String: Int] = [:]
    var endedPartitions: [PartitionKey: PartitionCounters] = [:]
    var isStandingBy = false
    var lags: [PartitionIdentity: Int64] = [:]
    var problems: [String] = ["starting"]
    var engineStarts = 0
    var commits = 0
    var failedCommits = 0
    var checkpoints = 0
    var failedCheckpoints = 0
    /// The last checkpoint's keys, bytes and time, and when it was there (wall clock).
    var checkpointKeys = 0
    var checkpointBytes = 0
    var checkpointNanos: Int64 = 0
    var checkpointedAt: Int64 = 0
    var pauseNanosMax: Int64 = 0
    /// Checkpoints that were lost, and rebuilt by reading again.
    var rereads = 0
    /// Attempts to restore state from a store that did not answer.
    var restoreRetries = 0
    /// Keys seen in more than one partition of a source that is `partitioned by` them, of those that are watched.
    var brokenKeys: [String: Int] = [:]
    var abortedTransactions = 0
    var reloads = 0
    var failedReloads = 0
    /// Why the last reload failed; nil when it did not.
    var reloadProblem: String?
    var rules: RunningRules?
  }
  private let contents = Mutex(Contents())

  var current: Contents { contents.withLock { $0 } }

  func publish(
    _ status: EngineStatus?, lags: [PartitionIdentity: Int64], problems: [String], isStandingBy: Bool
  ) {
    contents.withLock {
      $0.isStandingBy = isStandingBy
      if let status { $0.status = status }
      $0.lags = lags
      $0.problems = problems
    }
  }

  func set(_ rules: RunningRules) { contents.withLock { $0.rules = rules } }

  /// Rules that do not compile, or cannot be put in place: the old ones run on.
  func noteFailedReload(_ problem: String) {
    contents.withLock {
      $0.failedReloads += 1
      $0.reloadProblem = problem
    }
  }

  func noteBrokenKeys(_ bySource: [String: Int]) { contents.withLock { $0.brokenKeys = bySource } }

  /// The rules on disk are those that run.
  func noteRulesCurrent() { contents.withLock { $0.reloadProblem = nil } }

  func note(_ event: CoordinatorEvent) {
    contents.withLock { contents in
      switch event {
      case .engineStarted: contents.engineStarts += 1
      case .checkpoint(_, let keys, let bytes, let nanos):
        contents.checkpoints += 1
        contents.checkpointKeys = keys
        contents.checkpointBytes = bytes
        contents.checkpointNanos = nanos
        contents.checkpointedAt = wallClockNanos()
      case .checkpointFailed: contents.failedCheckpoints += 1
      case .committed: contents.commits += 1
      case .commitFailed: contents.failedCommits += 1
      case .rereads: contents.rereads += 1
      case .restoreDelayed: contents.restoreRetries += 1
      case .barrier(let nanos): contents.pauseNanosMax = max(contents.pauseNanosMax, nanos)
      case .transactionAborted: contents.abortedTransactions += 1
      case .reloaded(let rules):
        contents.reloads += 1
        contents.reloadProblem = nil
        contents.rules = rules
      case .reloadFailed(let problem):
        contents.failedReloads += 1
        contents.reloadProblem = problem
      case .engineEnded(let status, let graph):
        contents.before = contents.before.adding(status)
        for (rule, count) in zip(graph.rules, status.recordsByRule) { contents.endedByRule[rule, default: 0] += count }
        for (identity, counters) in status.partitions {
          contents.endedPartitions[PartitionKey(identity, graph), default: PartitionCounters()].add(counters)
        }
        contents.status = EngineStatus()
      }
    }
  }
}

extension EngineStatus {
  /// Counters of two engines over the same graph, added up; gauges are the second's.
  func adding(_ other: EngineStatus) -> EngineStatus {
    var sum = other
    var counters: [PartitionIdentity: PartitionCounters] = [:]
    for (identity, values) in partitions + other.partitions {
      counters[identity, default: PartitionCounters()].add(values)
    }
    sum.partitions = counters.keys.sorted().map { ($0, counters[$0] ?? PartitionCounters()) }
    func added(_ a: [Int], _ b: [Int]) -> [Int] {
      (0..<max(a.count, b.count)).map { ($0 < a.count ? a[$0] : 0) + ($0 < b.count ? b[$0] : 0) }
    }
    sum.recordsByRule = added(recordsByRule, other.recordsByRule)
    sum.recordsByKind = added(recordsByKind, other.recordsByKind)
    func limits(_ own: [OperatorStatus]) -> [OperatorStatus] {
      own.map { own in
        var counter = OperatorStatus()
        counter.rowsOverLimit = own.rowsOverLimit
        return counter
      }
    }
    for (rule, own) in rules.enumerated() where rule < sum.rules.count {
      sum.rules[rule].rowsOverLimit += own.rowsOverLimit
    }
    if sum.rules.isEmpty { sum.rules = limits(rules) }
    for (exchange, own) in operators.enumerated() where exchange < sum.operators.count {
      sum.operators[exchange].rowsOverLimit += own.rowsOverLimit
    }
    if sum.operators.isEmpty { sum.operators = limits(operators) }
    sum.batches += batches
    sum.batchNanos += batchNanos
    sum.batchNanosMax = max(batchNanosMax, other.batchNanosMax)
    return sum
  }
}

extension PartitionCounters {
  /// Counts add up; gauges are the later one's.
  mutating func add(_ later: PartitionCounters) {
    rows += later.rows
    bytes += later.bytes
    late += later.late
    deadLetters += later.deadLetters
    watermark = later.watermark
    isIdle = later.isIdle
  }
}

extension PartitionKey {
  init(_ identity: PartitionIdentity, _ graph: Graph) {
    self.init(
      source: graph.sources[identity.source].schema.name, topic: identity.topic, partition: identity.partition)
  }
}
