import Testing

@testable import Runtime

/// What a history is about: rules, input, and how the processes run.
struct HistoryPlan {
  var data: UInt64
  var isExactlyOnce: Bool
  var isShared: Bool
  /// Faults come out of this.
  var seed: UInt64
  /// None: the history that others are compared with.
  var hasFaults: Bool
  var mutation: Mutation?
  /// Rules that take over in the middle.
  var reloads: Bool
  /// A network that loses every fourth request.
  var losesMuch = false
}

/// What is left at the end.
struct HistoryResult {
  var lines: [String] = []
  var crashes = 0
  var restores = 0
  /// Why checkpoints were not read that had been committed.
  var rereads: [String] = []
  var checkpoints = 0
  var reloads = 0
  var takeBacks = 0
  var commits = 0
  /// Nil when it came to its end.
  var failure: String?
}

/// Brokers, a disk, a clock and a few processes in one thread: a seed is a history.
final class SimulatedWorld {
  static let sourceNames = ["a", "b"]
  private static let stepNanos: Int64 = 10_000_000
  private static let outputTopic = "out"

  final class Machine {
    var process: Process?
    var startAt = 0
    /// Stands still until then.
    var hangsUntil = 0
    let number: Int
    init(_ number: Int) { self.number = number }
  }

  final class Process {
    let coordinator: Coordinator
    let executor: QueuedExecutor
    let life: Life
    let sources: SourceList
    init(_ coordinator: Coordinator, _ executor: QueuedExecutor, _ life: Life, _ sources: SourceList) {
      self.coordinator = coordinator
      self.executor = executor
      self.life = life
      self.sources = sources
    }
  }

  final class SourceList { var all: [MortalSource] = [] }

  private let plan: HistoryPlan
  private let workload: SimulatedWorkload
  private var random: SimulatedRandom
  private let log: SimulatedLog
  private let disk: SimulatedFileSystem
  private let clock: TestClock
  private var machines: [Machine]
  private var result = HistoryResult()
  private var next: [Int]
  private var damagesDisk = false
  private var rulesNow: RunningRules
  private var reloadAt: Int?

  init(_ plan: HistoryPlan, _ workload: SimulatedWorkload) {
    self.plan = plan
    self.workload = workload
    random = SimulatedRandom(seed: plan.seed &* 0x9E37_79B9 &+ plan.data)
    log = SimulatedLog(seed: random.next())
    disk = SimulatedFileSystem(seed: random.next())
    clock = TestClock(workload.start + 3_600 * second)
    machines = (0..<(plan.hasFaults ? 2 : 1)).map { Machine($0) }
    next = workload.partitions.map { _ in 0 }
    rulesNow = workload.rules
    for source in 0..<Self.sourceNames.count {
      let count = workload.partitions.count { $0.source == source }
      log.createTopic(Self.topic(source), partitions: max(1, count))
    }
    log.createTopic(Self.outputTopic, partitions: 1)
    log.onStep = { [unowned self] in self.clock.advance(Self.stepNanos) }
  }

  static func topic(_ source: Int) -> String { "topic.\(sourceNames[source])" }

  // MARK: Processes

  private func start(_ machine: Machine) throws {
    let life = Life(calls: plan.hasFaults && random.happens(0.7) ? 1 + random.upTo(900) : .max)
    let store = try DirectoryCheckpointStore(path: "/state", group: "g", files: MortalFileSystem(disk, life))
    let executor = QueuedExecutor()
    let list = SourceList()
    var engine = EngineOptions(
      workers: plan.isShared ? 1 : 1 + random.upTo(3), batchRows: [1, 7, 64, 4_096][random.upTo(3)], order: .bySource,
      isLive: true, clock: { [clock] in clock.now }, monotonic: { [clock] in clock.now })
    engine.alignsBarriers = plan.mutation != .barrierNotAligned
    var options = CoordinatorOptions(engine: engine, group: "g")
    options.runsByHand = true
    options.isShared = plan.isShared
    options.commitNanos = Self.stepNanos * Int64(2 + random.upTo(8))
    options.checkpointNanos = Self.stepNanos * Int64(5 + random.upTo(40))
    options.checkpointsKept = 1
    options.assignmentNanos = .max / 2
    let number = machine.number
    let sink: any RecordSink
    if plan.isExactlyOnce {
      let id = plan.isShared ? "g.\(number)" : "g"
      sink = MortalTransactionalSink(
        SimulatedTransactionalSink(log: log, topic: Self.outputTopic, transactionalID: id), life,
        commitsApart: plan.mutation == .offsetsOutsideTransaction ? { try list.all[$1].inner.commit($0) } : nil)
    } else {
      sink = MortalSink(
        SimulatedSink(log: log, topic: Self.outputTopic), life, waits: plan.mutation != .commitsBeforeRecords)
    }
    let offsets = Offsets()
    let coordinator = try Coordinator(
      rules: rulesNow, sink: sink, store: BrokenStore(store, plan.mutation), executor: executor, options: options,
      suffix: { [unowned self] in UInt32(truncatingIfNeeded: self.random.next()) },
      observe: { [unowned self] in self.note($0) }
    ) { [unowned self] node in
      var options = SimulatedSourceOptions(group: "g.\(node.schema.name)", format: SimulatedWorkload.format)
      options.ownership = plan.isShared ? .shared : .standby(leads: node.schema.index == 0)
      options.rowsMax = [1, 5, 40, 4_096][random.upTo(3)]
      options.startOffset = { identity, _, _ in offsets.coordinator?.startOffset(identity) }
      let source = MortalSource(
        SimulatedSource(schema: node.schema, log: self.log, options: options), life,
        readsMetadata: { [mutation = plan.mutation] in Self.read($0, mutation) })
      list.all.append(source)
      return source
    }
    offsets.coordinator = coordinator
    machine.process = Process(coordinator, executor, life, list)
  }

  private final class Offsets: @unchecked Sendable {
    // @unchecked: a simulation has one thread.
    weak var coordinator: Coordinator?
  }

  private static func read(_ metadata: String, _ mutation: Mutation?) -> String {
    switch mutation {
    case .metadataNotRead: return ""
    case .writtenNotRemembered:
      guard var point = ResumePoint(metadata: metadata) else { return metadata }
      point.emittedThrough = beforeAllTime
      point.readThrough = -1
      return point.metadata
    default: return metadata
    }
  }

  private func note(_ event: CoordinatorEvent) {
    switch event {
    case .engineStarted(_, let restored): if restored != nil { result.restores += 1 }
    case .rereads(let reason): result.rereads.append(reason)
    case .checkpoint: result.checkpoints += 1
    case .committed: result.commits += 1
    case .reloaded: result.reloads += 1
    case .transactionAborted: result.takeBacks += 1
    case .checkpointFailed, .commitFailed, .restoreDelayed, .barrier, .reloadFailed, .engineEnded: return
    }
  }

  private func kill(_ machine: Machine) {
    guard let process = machine.process else { return }
    process.life.end()
    for source in process.sources.all { source.inner.kill() }
    machine.process = nil
    machine.startAt = log.step + random.upTo(20)
    result.crashes += 1
    // A process that dies leaves the disk as it is; one time in two the machine goes with it.
    if random.happens(0.5) { disk.crash(seed: random.next()) }
    disk.heal()
  }

  // MARK: The history

  func run() -> HistoryResult {
    do {
      if plan.hasFaults {
        log.faults.requestLost = plan.losesMuch ? 0.25 : 0.02
        log.faults.answerLost = 0.02
        log.faults.delayStepsMax = 4
        log.faults.goesDown = 0.003
        log.faults.downStepsMax = 20
      }
      let total = workload.partitions.reduce(0) { $0 + $1.records.count }
      reloadAt = plan.reloads ? total / 3 + random.upTo(total / 3) : nil
      var fed = 0
      var rounds = 0
      while fed < total {
        fed += feed(total)
        try turn()
        rounds += 1
        if rounds > 200_000 { throw SourceFailure("the history has no end") }
      }
      try settle()
    } catch {
      result.failure = "\(error)"
    }
    result.lines = log.records(SimulatedPlace(Self.outputTopic, 0), committed: true)
      .map { String(decoding: $0.value, as: UTF8.self) }
    return result
  }

  /// Some records come in.
  private func feed(_ total: Int) -> Int {
    var count = 0
    for (index, partition) in workload.partitions.enumerated() {
      // A step is short: nothing ever goes idle while records come.
      let end = min(partition.records.count, next[index] + random.upTo(8))
      while next[index] < end {
        log.append(
          SimulatedPlace(Self.topic(partition.source), partition.partition), value: partition.records[next[index]])
        next[index] += 1
        count += 1
      }
    }
    return count
  }

  private var fedCount: Int { next.reduce(0, +) }

  /// One step of the world.
  private func turn() throws {
    log.advance()
    if let at = reloadAt, fedCount >= at {
      // Everybody sees the files change; who starts from now on starts with the new ones.
      reloadAt = nil
      rulesNow = workload.nextRules
      for machine in machines { machine.process?.coordinator.reload(rulesNow) }
    }
    for machine in machines {
      if machine.process == nil {
        if log.step >= machine.startAt { try start(machine) }
        continue
      }
      if plan.hasFaults { misfortune(machine) }
      if log.step < machine.hangsUntil { continue }
      try step(machine)
    }
  }

  private func misfortune(_ machine: Machine) {
    guard let process = machine.process else { return }
    if log.step == machine.hangsUntil { for source in process.sources.all { source.inner.isHanging = false } }
    if log.step > machine.hangsUntil, random.happens(0.004) {
      // Sometimes for longer than its session.
      machine.hangsUntil = log.step + 1 + random.upTo(60)
      for source in process.sources.all { source.inner.isHanging = true }
    }
    if random.happens(0.004) { return kill(machine) }
    if random.happens(0.01) {
      disk.fail(operation: random.upTo(12), onwards: random.happens(0.5), code: [28, 5, 30][random.upTo(2)])
    } else if random.happens(0.05) {
      disk.heal()
    }
    if random.happens(0.01) { process.coordinator.takeSavepoint() }
  }

  private func step(_ machine: Machine) throws {
    guard let process = machine.process else { return }
    do {
      guard try process.coordinator.step(timeoutMillis: 0) else {
        machine.process = nil
        return
      }
    } catch {
      // It ends with a message, and is started again: but for what nobody could live with.
      if !plan.hasFaults { throw error }
      return kill(machine)
    }
    if process.life.isOver { return kill(machine) }
    for _ in 0...random.upTo(6) {
      for engine in process.coordinator.engines {
        // The coordinator hears of a failure at its next step.
        _ = try? engine.step(worker: random.upTo(engine.workerCount - 1))
      }
      if process.life.isOver { return kill(machine) }
    }
    if random.happens(0.3) { _ = process.executor.runNext() }
    if process.life.isOver { kill(machine) }
  }

  /// Faults end, everything is read, and time goes on until the last window has closed.
  private func settle() throws {
    log.faults = .none
    disk.heal()
    let plain = machines[0]
    for machine in machines.dropFirst() where machine.process != nil { kill(machine) }
    machines = [plain]
    for source in plain.process?.sources.all ?? [] { source.inner.isHanging = false }
    try calm(steps: 400)
    clock.advance(400 * 86_400 * second)
    try calm(steps: 400)
    guard let process = machines[0].process else { throw SourceFailure("no process is left") }
    process.coordinator.stop()
    for _ in 0..<2_000 {
      log.advance()
      try step(machines[0])
      if machines[0].process == nil { return }
    }
    throw SourceFailure("it does not stop: \(process.coordinator.problems)")
  }

  private func calm(steps: Int) throws {
    for _ in 0..<steps {
      log.advance()
      let machine = machines[0]
      if machine.process == nil {
        if log.step >= machine.startAt { try startCalm(machine) }
      } else {
        try step(machine)
      }
    }
  }

  private func startCalm(_ machine: Machine) throws {
    repeat { try start(machine) } while machine.process?.life.isMortal == true
  }
}

extension Life {
  /// Whether its end is fixed.
  var isMortal: Bool { limit < .max }
}
