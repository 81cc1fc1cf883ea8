import Testing

@testable import Runtime

/// Brokers, a disk, a clock and a few processes in one thread: a seed is a history.
final class SimulatedWorld {
  static let sourceNames = ["a", "b"]
  private static let stepNanos: Int64 = 10_000_000
  private static let outputTopic = "out"

  private let plan: HistoryPlan
  private let workload: SimulatedWorkload
  private var random: SimulatedRandom
  private let log: SimulatedLog
  private let disk: SimulatedFileSystem
  private let clock: TestClock
  private var machines: [Machine]
  private var result = HistoryResult()
  private var next: [Int]
  /// The last committed offset of each partition.
  private var committedLast: [Int64]
  private var rulesNow: RunningRules
  private var reloadAt: Int?
  /// Whether the scheduler lets workers starve while others run ahead.
  private let isUnfair: Bool
  /// Most records of a partition in a step.
  private let feedMax: Int
  /// By checkpoint: how many workers took it, and of which revision the rules were.
  private var origins: [String: (workers: Int, revision: String)] = [:]

  init(_ plan: HistoryPlan, _ workload: SimulatedWorkload) {
    self.plan = plan
    self.workload = workload
    var random = SimulatedRandom(seed: plan.seed &* 0x9E37_79B9 &+ plan.data)
    isUnfair = plan.hasFaults && random.happens(0.6)
    feedMax = plan.hasFaults ? [2, 4, 8][random.upTo(2)] : 8
    log = SimulatedLog(seed: random.next())
    disk = SimulatedFileSystem(seed: random.next())
    self.random = random
    clock = TestClock(workload.start + 3_600 * second)
    machines = (0..<(plan.hasFaults ? 2 : 1)).map { Machine($0) }
    next = workload.partitions.map { _ in 0 }
    committedLast = workload.partitions.map { _ in -1 }
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
    // Some do not live long enough to begin.
    let calls = random.happens(0.2) ? 150 : 900
    let life = Life(calls: plan.hasFaults && random.happens(0.7) ? 1 + random.upTo(calls) : .max)
    let files = MortalFileSystem(disk, life)
    let store = try DirectoryCheckpointStore(path: "/state", group: "g", files: files)
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
    options.assignmentNanos = random.happens(0.5) ? .max / 2 : Self.stepNanos * Int64(1 + random.upTo(20))
    // Some outlast a disk that does not answer; the others rebuild the state by reading again, where it can be rebuilt.
    if !workload.learns, random.happens(0.5) { options.storeWaitNanos = Self.stepNanos * Int64(1 + random.upTo(10)) }
    let number = machine.number
    result.note([.oneWorker, .twoWorkers, .threeWorkers, .fourWorkers][engine.workers - 1])
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
      observe: { [unowned self] in self.note($0, machine, workers: engine.workers) }
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
    machine.process = Process(coordinator, executor, life, files, list)
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

  private func note(_ event: CoordinatorEvent, _ machine: Machine, workers: Int) {
    if case .engineEnded(let status, _) = event {
      tell("machine \(machine.number): an engine ended")
      for (identity, counters) in status.partitions {
        tell("  \(identity.topic)/\(identity.partition) watermark \(counters.watermark &- workload.start), \(counters.rows) rows")
      }
    } else {
      tell("machine \(machine.number): \(event)".prefix(240).description)
    }
    switch event {
    case .engineStarted(_, let restored, let without):
      hasRestarted = true
      machine.process?.hasRun = true
      machine.process?.isReloading = false
      if !without.isEmpty { result.note(.startWithoutSource) }
      guard let restored else { return }
      result.note(.restore)
      guard let origin = origins[restored] else { return }
      if origin.workers != workers { result.note(.restoreWithOtherWorkers) }
      if origin.revision != rulesNow.revision { result.note(.restoreAfterReload) }
    case .rereads(let reason):
      result.rereads.append(reason)
      result.note(.rereadAfterLoss)
    case .checkpoint(let name, _, _, _):
      origins[name] = (workers, machine.process?.coordinator.rules.revision ?? rulesNow.revision)
      result.note(.checkpoint)
      // What a checkpoint is worth shows when somebody has to begin from it, before there is a newer one.
      if plan.hasFaults, random.happens(0.3) { doom(machine, within: 30) }
    case .reloaded: result.note(.reload)
    case .reloadFailed: machine.process?.isReloading = false
    case .committed: noteCommitted()
    case .transactionAborted: result.note(.transactionAborted)
    case .checkpointFailed, .commitFailed, .restoreDelayed, .barrier, .engineEnded: return
    }
  }

  private func tell(_ what: @autoclosure () -> String) {
    if plan.isTold { result.story.append("step \(log.step), \(what())") }
  }

  /// Commits do not go back, unless state has to be rebuilt: the topic may have let go of what lies before them.
  private func noteCommitted() {
    for (index, partition) in workload.partitions.enumerated() {
      let place = SimulatedPlace(Self.topic(partition.source), partition.partition)
      guard let committed = log.committedOffset(Self.group(partition.source), place) else { continue }
      tell("  \(place.topic)/\(place.partition) at \(committed.offset), \(committed.metadata)")
      if committed.offset < committedLast[index], result.rereads.isEmpty, plan.mutation == nil {
        let what = "\(place.topic)/\(place.partition) was committed up to \(committedLast[index]), and then to \(committed.offset)"
        result.wentBack = result.wentBack ?? what
      }
      committedLast[index] = committed.offset
    }
  }

  private func doom(_ machine: Machine, within steps: Int) {
    guard let process = machine.process, !isSettling else { return }
    process.doomedAt = min(process.doomedAt, log.step + 1 + random.upTo(steps - 1))
  }

  private func kill(_ machine: Machine) {
    guard let process = machine.process else { return }
    noteCrash(process)
    process.life.end()
    for source in process.sources.all { source.inner.kill() }
    machine.process = nil
    machine.startAt = log.step + random.upTo(20)
    // A process that dies leaves the disk as it is; one time in two the machine goes with it.
    if random.happens(0.5) {
      result.note(.powerLost)
      disk.crash(seed: random.next())
    }
    disk.heal()
  }

  private func noteCrash(_ process: Process) {
    result.note(.crash)
    tell("a crash, by itself \(process.life.endedIn.map { "\($0)" } ?? "not"), ails \(process.coordinator.problems)")
    switch process.life.endedIn {
    case .writingState: result.note(.crashInStateFile)
    case .writingManifest: result.note(.crashInManifest)
    case .readingState: if !process.hasRun { result.note(.crashInRecovery) }
    case .elsewhere, nil: break
    }
    if process.isReloading { result.note(.crashInReload) }
    if let newest = process.files.manifests.last, !isNamed(newest) { result.note(.crashBeforeCommit) }
  }

  /// Whether a committed offset names a checkpoint.
  private func isNamed(_ checkpoint: String) -> Bool {
    workload.partitions.contains { partition in
      let place = SimulatedPlace(Self.topic(partition.source), partition.partition)
      return log.committedOffset(Self.group(partition.source), place)?.metadata.contains(checkpoint) == true
    }
  }

  private static func group(_ source: Int) -> String { "g.\(sourceNames[source])" }

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
      let end = min(partition.records.count, next[index] + random.upTo(feedMax))
      while next[index] < end {
        let record = partition.records[next[index]]
        log.append(
          SimulatedPlace(Self.topic(partition.source), partition.partition), value: record.payload, time: record.time)
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
      for machine in machines {
        machine.process?.coordinator.reload(rulesNow)
        machine.process?.isReloading = machine.process?.hasRun == true
        if plan.hasFaults, random.happens(0.5) { doom(machine, within: 12) }
      }
    }
    if plan.trims, random.happens(0.3) { trim() }
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

  /// Retention takes what the group has committed.
  private func trim() {
    for partition in workload.partitions {
      let place = SimulatedPlace(Self.topic(partition.source), partition.partition)
      guard let committed = log.committedOffset(Self.group(partition.source), place),
        committed.offset > log.earliestOffset(place)
      else { continue }
      log.trim(place, before: committed.offset)
      tell("\(place.topic)/\(place.partition) begins at \(committed.offset) now")
      result.note(.retention)
    }
  }

  private func misfortune(_ machine: Machine) {
    guard let process = machine.process else { return }
    if log.step >= process.doomedAt { return kill(machine) }
    if log.step == machine.hangsUntil { for source in process.sources.all { source.inner.isHanging = false } }
    if log.step > machine.hangsUntil, random.happens(0.004) {
      // Sometimes for longer than its session.
      machine.hangsUntil = log.step + 1 + random.upTo(60)
      result.note(.hang)
      for source in process.sources.all { source.inner.isHanging = true }
    }
    if random.happens(0.004) { return kill(machine) }
    if random.happens(0.01) {
      disk.fail(
        operation: random.upTo(12), onwards: random.happens(0.5), sparesReads: plan.trims,
        code: [28, 5, 30][random.upTo(2)])
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
        hasStopped = true
        return
      }
    } catch {
      // It ends with a message, and is started again: but for what nobody could live with.
      if !plan.hasFaults { throw error }
      tell("machine \(machine.number) ends with: \(error)")
      return kill(machine)
    }
    if process.life.isOver { return kill(machine) }
    schedule(process)
    noteCapture(process)
    for _ in 0...random.upTo(6) {
      for engine in process.coordinator.engines {
        let worker = random.upTo(engine.workerCount - 1)
        if process.starved.contains(worker) { continue }
        // The coordinator hears of a failure at its next step.
        _ = try? engine.step(worker: worker)
      }
      if process.life.isOver { return kill(machine) }
    }
    if !process.executor.isIdle, random.happens(0.3) {
      // What is being written is half written then.
      if plan.hasFaults, !isSettling, random.happens(0.1) { process.life.shorten(to: 1 + random.upTo(120)) }
      _ = process.executor.runNext()
    }
    if process.life.isOver { kill(machine) }
  }

  /// Now and then some workers get no processor for a while, and the others run ahead.
  private func schedule(_ process: Process) {
    guard isUnfair, !isSettling, log.step >= process.starvedUntil else { return }
    process.starved = random.happens(0.6) ? Set((0..<4).filter { _ in random.happens(0.5) }) : []
    process.starvedUntil = log.step + 3 + random.upTo(25)
  }

  private func noteCapture(_ process: Process) {
    guard let request = process.coordinator.pending?.request, request.captures, request.epoch != process.seenEpoch else {
      return
    }
    process.seenEpoch = request.epoch
    for engine in process.coordinator.engines {
      if engine.status.queueDepths.contains(where: { $0 > 0 }) { result.note(.captureInFlight) }
      if process.starved.contains(where: { $0 < engine.workerCount }) { result.note(.captureStarved) }
    }
  }

  private var isSettling = false
  private var hasRestarted = false
  private var hasStopped = false

  /// Faults end, everything is read, and time goes on until the last window has closed.
  private func settle() throws {
    noteFaults()
    isSettling = true
    log.faults = .none
    disk.heal()
    let plain = machines[0]
    for machine in machines.dropFirst() where machine.process != nil { kill(machine) }
    machines = [plain]
    plain.process?.starved = []
    for source in plain.process?.sources.all ?? [] { source.inner.isHanging = false }
    // An engine that starts behind the leap of the clock finds a world in which nothing has been silent for long, and who
    // dies while it stops has not stopped. (With some broken protocols that goes on for ever.)
    for _ in 0..<6 {
      try calm(steps: 400)
      hasRestarted = false
      tell("all is quiet; the clock leaps")
      clock.advance(400 * 86_400 * second)
      try calm(steps: 400)
      if hasRestarted { continue }
      machines[0].process?.coordinator.stop()
      for _ in 0..<2_000 where machines[0].process != nil {
        log.advance()
        try step(machines[0])
      }
      if !hasStopped { continue }
      // Nobody reads what was committed behind the open transaction of a dead process, until the brokers end that.
      let out = SimulatedPlace(Self.outputTopic, 0)
      for _ in 0..<1_000 where log.lastStableOffset(out) < log.endOffset(out) { log.advance() }
      return
    }
    throw SourceFailure("it does not stop: \(machines[0].process?.coordinator.problems ?? [])")
  }

  private func noteFaults() {
    result.note(.requestLost, log.counts.requestsLost)
    result.note(.answerLost, log.counts.answersLost)
    result.note(.acknowledgementReordered, log.counts.acknowledgementsReordered)
    result.note(.brokersDown, log.counts.outages)
    result.note(.expelled, log.counts.expulsions)
    result.note(.diskFailedReading, disk.failedReads)
    result.note(.diskFailedWriting, disk.failedWrites)
    result.note(.fileTorn, disk.tornFiles)
  }

  /// Lets everybody work until nothing moves any more, at most so many steps.
  private func calm(steps: Int) throws {
    var before: [Int] = []
    var quiet = 0
    for _ in 0..<steps {
      log.advance()
      let machine = machines[0]
      if machine.process == nil {
        if log.step >= machine.startAt { try startCalm(machine) }
      } else {
        try step(machine)
      }
      let now = progress(machine)
      quiet = now == before && !now.isEmpty ? quiet + 1 : 0
      before = now
      if quiet >= 6 { return }
    }
  }

  /// Lets all workers do what they can, and says how far everything has come; empty while not everything is being read.
  private func progress(_ machine: Machine) -> [Int] {
    // Engines that have passed their last barrier stand still; others will read on.
    guard !log.isDown, let process = machine.process, case .running = process.coordinator.phase else { return [] }
    let units = process.coordinator.units
    guard units.reduce(0, { $0 + $1.keys.count }) == workload.partitions.count else { return [] }
    var seen: [Int] = [Int(log.endOffset(SimulatedPlace(Self.outputTopic, 0)))]
    for unit in units {
      for _ in 0..<8 { for worker in 0..<unit.engine.workerCount { _ = try? unit.engine.step(worker: worker) } }
      let status = unit.engine.status
      seen += [status.batches, status.queueDepths.reduce(0, +), unit.engine.failure == nil ? 0 : 1]
    }
    return seen
  }

  private func startCalm(_ machine: Machine) throws {
    repeat { try start(machine) } while machine.process?.life.isMortal == true
  }
}

extension Life {
  /// Whether its end is fixed.
  var isMortal: Bool { limit < .max }
}
