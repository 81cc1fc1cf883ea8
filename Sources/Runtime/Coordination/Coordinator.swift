/// Runs rules over live sources, and sees to it that nothing is lost and nothing comes twice: waits for
/// partitions, starts engines from the checkpoint that the committed offsets name, sends barriers, stores what they
/// capture, commits, and hands over when the group takes partitions away, the rules change, or the end has come.
///
/// The order is the protocol: records and state are durable before an offset is committed that leaves them behind.
/// A commit names the newest stored checkpoint and says what has been written since; so commits can be frequent
/// and checkpoints rare. Driven by `step` from one thread; nothing in here knows threads, Kafka or files.
public final class Coordinator {
  public internal(set) var rules: RunningRules
  var sources: [any LiveSource]
  let sink: any RecordSink
  let store: (any CheckpointStore)?
  let writer: CheckpointWriter?
  let options: CoordinatorOptions
  let makeSource: (SourceNode) throws -> any LiveSource
  let observe: (CoordinatorEvent) -> Void

  enum Phase {
    case waiting
    case running
    /// The engines have passed their last barrier; what they captured is being stored.
    case handingOver(HandOver)
    case finished
  }

  /// Why engines end.
  enum Purpose {
    case rebalance
    case reload(RunningRules)
    case stop
  }

  struct HandOver {
    var purpose: Purpose
    var epoch: UInt64
    var stands: [PartitionStand]
    var sections: [StateSection]
    /// Until when a commit that a rebalance or a broker delays is tried again, and when next.
    var deadline: Int64
    var nextAttempt: Int64 = 0
  }

  /// An engine and what it serves: all partitions, or one where they are shared among daemons.
  struct Unit {
    let engine: Engine
    let keys: [PartitionKey]
    var result: BarrierResult?
  }

  /// A barrier on its way through the engines.
  struct Pending {
    var request: BarrierRequest
    var purpose: Purpose?
    var isSavepoint: Bool
    var deadline: Int64
  }

  /// State that goes from an engine to its successor in memory.
  struct Carried {
    var offsets: [PartitionKey: Int64]
    var sections: [RestoredState.Section]
  }

  var phase = Phase.waiting
  var units: [Unit] = []
  var pending: Pending?
  private var epoch: UInt64 = 0
  var waiting: [PartitionIdentity: PartitionStart] = [:]
  /// Whether the transactional sink is ours: whoever wrote before us has been fenced.
  var isPrepared = false
  var nextPreparation: Int64 = 0
  var isAssigned: [Bool]
  /// Sources that a start was made without, by name; the next one does not wait for them.
  var absent: Set<String> = []
  var revoked: [Int: [PartitionIdentity]] = [:]
  var isChanged = false
  var isStopping = false
  var reloadRequest: RunningRules?
  private var wantsSavepoint = false
  /// By partition, the stored checkpoint that commits name, and the partition's offset in it.
  var bases: [PartitionKey: (name: String, offset: Int64)] = [:]
  /// By partition that was begun without a checkpoint, what had been committed for it, if anything.
  var firstResume: [PartitionKey: ResumePoint] = [:]
  /// By partition, how far the checkpoint that is being stored has come; nil while none is.
  var storing: [PartitionKey: (offset: Int64, watermark: Int64)]?
  /// Names that the last successful commits carried.
  var namesCommitted: [PartitionKey: String] = [:]
  var lastNumber: UInt64?
  /// The first checkpoint of this daemon.
  var firstNumber: UInt64?
  var carried: Carried?
  /// Where partitions must be read from at their next assignment.
  var wanted: [PartitionKey: Int64] = [:]
  var moves = 0
  /// What has been said of checkpoints that are lost, in this start.
  var rereadsTold: Set<String> = []
  /// Set while a store that does not answer holds up the start.
  var storeWait: StoreWait?
  var isForced: Bool
  private var nextCommit: Int64 = 0
  var nextCheckpoint: Int64 = 0
  /// Since when sources are waited for.
  var waitingSince: Int64
  var commitProblem: String?
  var checkpointProblem: String?
  /// Why the last commit before the end was none.
  var stopProblem: String?
  let suffix: () -> UInt32

  /// `makeSource` makes the source of a node; its partitions must begin where `startOffset` says, if it does.
  /// `suffix` tells this daemon's checkpoints from those of others.
  public init(
    rules: RunningRules, sink: any RecordSink, store: (any CheckpointStore)?, executor: any BackgroundExecutor,
    options: CoordinatorOptions, suffix: @escaping () -> UInt32 = { UInt32.random(in: 0...UInt32.max) },
    observe: @escaping (CoordinatorEvent) -> Void = { _ in },
    makeSource: @escaping (SourceNode) throws -> any LiveSource
  ) throws {
    self.rules = rules
    self.sink = sink
    self.store = store
    self.options = options
    self.makeSource = makeSource
    self.observe = observe
    self.suffix = suffix
    // What ends with the topics has nothing to come back for.
    writer = options.isBounded ? nil : store.map { CheckpointWriter(store: $0, executor: executor) }
    isForced = options.restore != nil
    waitingSince = options.engine.monotonic()
    isAssigned = Array(repeating: false, count: rules.graph.sources.count)
    sources = try rules.graph.sources.map { try makeSource($0) }
  }

  var now: Int64 { options.engine.monotonic() }

  // MARK: What others ask

  /// Where a partition must be read from, other than at its committed offset.
  public func startOffset(_ identity: PartitionIdentity) -> Int64? { wanted[key(identity)] }

  /// Drains, stores, commits and ends; `step` answers false when that is done.
  public func stop() { isStopping = true }

  /// Puts other rules in the place of those that run, at a barrier. They have been compiled.
  public func reload(_ rules: RunningRules) { reloadRequest = rules }

  /// Takes a checkpoint soon that is kept until somebody removes it.
  public func takeSavepoint() { wantsSavepoint = true }

  public var engines: [Engine] { units.map(\.engine) }

  /// What ails it, for `/readyz`; empty when all is well.
  public var problems: [String] {
    var problems = sources.compactMap(\.problem)
    if let text = units.lazy.compactMap(\.engine.outputProblem).first ?? sink.problem { problems.append(text) }
    if let commitProblem { problems.append(commitProblem) }
    if let checkpointProblem { problems.append(checkpointProblem) }
    if let storeWait, units.isEmpty { problems.append("waiting for the checkpoint store: \(storeWait.problem)") }
    if units.isEmpty, !isStandingBy { problems.append("waiting for partitions") }
    for (source, missing) in waitingForOthers() {
      problems.append("source \(source) waits for \(missing), with which it is joined")
    }
    return problems
  }

  public func lagRecords() -> [PartitionIdentity: Int64] {
    sources.reduce(into: [:]) { $0.merge($1.lagRecords()) { first, _ in first } }
  }

  func key(_ identity: PartitionIdentity) -> PartitionKey {
    PartitionKey(
      source: rules.graph.sources[identity.source].schema.name, topic: identity.topic, partition: identity.partition)
  }

  // MARK: The loop

  /// One turn: serves the sources for at most `timeoutMillis`, and does what is due. Answers whether there is
  /// more to do. Throws what ends the daemon: a sink that failed for good, a partition that cannot be read.
  public func step(timeoutMillis: Int) throws -> Bool {
    poll(timeoutMillis)
    takeStored()
    switch phase {
    case .finished: return false
    case .waiting:
      if isStopping {
        // There is nothing to commit: what the last engines could not is read again, and that has been reported. But who
        // asked for the end hears of it when it is why not all that was read is out.
        finish()
        if let stopProblem { throw SourceFailure(stopProblem) }
        return false
      }
      settleRevoked()
      if let next = reloadRequest { try swap(to: next, carrying: nil) }
      if isReadyToStart, writer?.isBusy != true, takesOver() { try startUnits() }
    case .running: try run()
    case .handingOver(let handOver):
      if writer?.isBusy != true, now >= handOver.nextAttempt { try finish(handOver) }
    }
    if case .finished = phase { return false }
    return true
  }

  /// Whether another daemon of the group reads everything, and this one waits to take over.
  public private(set) var isStandingBy = false

  /// Who leads the first source leads them all.
  private func followLead() {
    let leads = sources.first?.holdsLead ?? true
    isStandingBy = !leads
    if isStandingBy, units.isEmpty { isPrepared = false }
    for source in sources.dropFirst() { source.setLeading(leads) }
  }

  private func poll(_ timeoutMillis: Int) {
    defer { followLead() }
    for (number, source) in sources.enumerated() {
      // One of the sources waits; the others are looked at in passing.
      for change in source.poll(timeoutMillis: number == 0 ? timeoutMillis : 0) {
        switch change {
        case .assigned(let starts):
          isAssigned[number] = true
          if !starts.isEmpty { isChanged = true }
          for start in starts { waiting[start.reader.identity] = start }
        case .revoked(let partitions):
          isChanged = true
          revoked[number, default: []] += partitions
        }
      }
    }
  }

  private func run() throws {
    for unit in units {
      if let failure = unit.engine.failure { throw SourceFailure("the engine stopped: \(failure)") }
    }
    if options.isBounded, units.allSatisfy({ !$0.engine.isRunning }) {
      // The end of a bounded read is the end of all windows: there is nothing to come back for.
      for unit in units { try unit.engine.wait() }
      return finish()
    }
    if pending != nil { return try follow() }
    if isStopping {
      if options.isBounded { return finish() }
      return request(.stop)
    }
    if isChanged { return request(.rebalance) }
    // The state before a change is stored, so that the change is never made twice.
    if let next = reloadRequest, writer?.isBusy != true {
      reloadRequest = nil
      return request(.reload(next))
    }
    if !options.isBounded, now >= nextCommit || wantsSavepoint { request(nil) }
  }

  /// The first commit comes soon, and so does the first checkpoint.
  func scheduleFirst() {
    nextCommit = now + options.commitNanos
    nextCheckpoint = now + options.checkpointNanos
  }

  /// Sends a barrier: for a commit, or the last one for a purpose.
  private func request(_ purpose: Purpose?) {
    epoch += 1
    let canStore = writer?.isBusy == false
    var captures = canStore && (purpose != nil || now >= nextCheckpoint || wantsSavepoint)
    if case .reload = purpose { captures = true }
    let request = BarrierRequest(epoch: epoch, captures: captures, isLast: purpose != nil)
    pending = Pending(
      request: request, purpose: purpose, isSavepoint: wantsSavepoint && canStore, deadline: now + options.stopNanos)
    for unit in units.indices {
      units[unit].result = nil
      units[unit].engine.request(request)
    }
    nextCommit = now + options.commitNanos
  }

  /// Collects what the engines answer to the barrier at hand.
  private func follow() throws {
    guard let pending else { return }
    for unit in units.indices where units[unit].result == nil {
      units[unit].result = units[unit].engine.takeBarrier()
    }
    let results = units.compactMap(\.result)
    guard results.count == units.count else {
      if pending.purpose != nil, now > pending.deadline { try giveUp(pending) }
      return
    }
    self.pending = nil
    observe(.barrier(pauseNanos: results.map(\.pauseNanos).max() ?? 0))
    let stands = results.flatMap(\.partitions)
    let sections = zip(units, results).flatMap { portable($1.sections, of: $0) }
    if pending.request.captures {
      if pending.isSavepoint { wantsSavepoint = false }
      store(stands, sections, isSavepoint: pending.isSavepoint)
    }
    guard let purpose = pending.purpose else {
      try commit(pending.request.epoch, stands)
      return
    }
    for unit in units { try unit.engine.wait() }
    phase = .handingOver(
      HandOver(
        purpose: purpose, epoch: pending.request.epoch, stands: stands, sections: sections, deadline: pending.deadline))
    if writer?.isBusy != true, case .handingOver(let handOver) = phase { try finish(handOver) }
  }
}
