/// How a coordinator runs, beyond the engine's own options.
public struct CoordinatorOptions: Sendable {
  public var engine: EngineOptions
  /// Who takes checkpoints: the consumer group.
  public var group: String
  public var commitNanos: Int64 = 1_000_000_000
  public var checkpointNanos: Int64 = 10_000_000_000
  /// Checkpoints kept, besides those that are in use and savepoints.
  public var checkpointsKept = 3
  /// An engine for each partition, so that partitions can move between daemons with their state.
  public var isShared = false
  /// Ends when every partition has been read to the end that it had.
  public var isBounded = false
  /// How long a barrier may take when everything must end: behind a sink that hangs it never comes.
  public var stopNanos: Int64 = 20_000_000_000
  /// How long a checkpoint is asked for again whose store does not answer, before its state is rebuilt by reading.
  public var storeWaitNanos: Int64 = 60_000_000_000
  /// How long a start waits for all sources before the others go on without those that have no partitions yet: a topic that
  /// nobody has made must not silence the rules on others.
  public var assignmentNanos: Int64 = 10_000_000_000
  /// Whether the workers are stepped by who made the coordinator, instead of by threads.
  public var runsByHand = false
  /// The checkpoint to begin with, whatever was committed: its name.
  public var restore: String?
  public init(engine: EngineOptions, group: String) {
    self.engine = engine
    self.group = group
  }
}

/// What the coordinator runs: a graph, and the revision of the rules that it came from.
public struct RunningRules: Sendable {
  public var graph: Graph
  public var revision: String
  public init(graph: Graph, revision: String) {
    self.graph = graph
    self.revision = revision
  }
}

/// What happened, for metrics, the log and the audit.
public enum CoordinatorEvent: Sendable {
  /// `without`: sources that have no partitions yet.
  case engineStarted(partitions: Int, restored: String?, without: [String])
  case checkpoint(name: String, keys: Int, bytes: Int, nanos: Int64)
  case checkpointFailed(String)
  case committed
  case commitFailed(String)
  /// A checkpoint that was committed is lost; its state is rebuilt by reading again.
  case rereads(String)
  /// The store does not answer, and the state cannot be restored yet; it is asked again.
  case restoreDelayed(String)
  case barrier(pauseNanos: Int64)
  case transactionAborted(String)
  case reloaded(RunningRules)
  case reloadFailed(String)
  /// Its counts, by the indexes of its graph.
  case engineEnded(EngineStatus, Graph)
}

/// Runs rules over live sources, and sees to it that nothing is lost and nothing comes twice: waits for
/// partitions, starts engines from the checkpoint that the committed offsets name, sends barriers, stores what they
/// capture, commits, and hands over when the group takes partitions away, the rules change, or the end has come.
///
/// The order is the protocol: records and state are durable before an offset is committed that leaves them behind.
/// A commit names the newest stored checkpoint and says what has been written since; so commits can be frequent
/// and checkpoints rare. Driven by `step` from one thread; nothing in here knows threads, Kafka or files.
public final class Coordinator {
  public private(set) var rules: RunningRules
  private(set) var sources: [any LiveSource]
  let sink: any RecordSink
  let store: (any CheckpointStore)?
  private let writer: CheckpointWriter?
  let options: CoordinatorOptions
  private let makeSource: (SourceNode) throws -> any LiveSource
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
  private var isPrepared = false
  private var nextPreparation: Int64 = 0
  var isAssigned: [Bool]
  /// Sources that a start was made without, by name; the next one does not wait for them.
  var absent: Set<String> = []
  private var revoked: [Int: [PartitionIdentity]] = [:]
  private var isChanged = false
  private var isStopping = false
  private var reloadRequest: RunningRules?
  private var wantsSavepoint = false
  /// By partition, the stored checkpoint that commits name, and the partition's offset in it.
  var bases: [PartitionKey: (name: String, offset: Int64)] = [:]
  /// By partition that was begun without a checkpoint, what had been committed for it, if anything.
  var firstResume: [PartitionKey: ResumePoint] = [:]
  /// By partition, how far the checkpoint that is being stored has come; nil while none is.
  private var storing: [PartitionKey: (offset: Int64, watermark: Int64)]?
  /// Names that the last successful commits carried.
  private var namesCommitted: [PartitionKey: String] = [:]
  private var lastNumber: UInt64?
  /// The first checkpoint of this daemon.
  private var firstNumber: UInt64?
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
  private var nextCheckpoint: Int64 = 0
  /// Since when sources are waited for.
  var waitingSince: Int64
  private var commitProblem: String?
  private var checkpointProblem: String?
  /// Why the last commit before the end was none.
  private var stopProblem: String?
  private let suffix: () -> UInt32

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

  /// A barrier that must be the last does not come: something hangs. What was not committed is read again.
  private func giveUp(_ pending: Pending) throws {
    self.pending = nil
    commitProblem = "the output does not take what is written: \(sink.problem ?? "no answer")"
    observe(.commitFailed(commitProblem ?? ""))
    endUnits()
    if case .stop = pending.purpose {
      let problem = commitProblem ?? ""
      finish()
      throw SourceFailure(problem)
    }
    settleRevoked()
    restartSources()
  }

  // MARK: Storing

  private func store(_ stands: [PartitionStand], _ sections: [StateSection], isSavepoint: Bool) {
    guard let writer, !writer.isBusy, let number = nextNumber() else { return }
    let hex = String(suffix(), radix: 16)
    let digits = String(number)
    let name =
      "c-" + String(repeating: "0", count: max(0, 10 - digits.count)) + digits + "-"
      + String(repeating: "0", count: 8 - hex.count) + hex
    let manifest = CheckpointManifest(
      name: name, number: number, createdNanos: options.engine.clock(), group: options.group,
      revision: rules.revision, workers: options.engine.workers, isSavepoint: isSavepoint,
      partitions: stands.map { stand in
        let key = key(stand.identity)
        return StoredPartition(
          source: key.source, topic: key.topic, partition: key.partition, offset: stand.position,
          watermark: stand.watermark)
      }, operators: rules.graph.operators)
    writer.write(manifest, sections)
    storing = Dictionary(
      stands.map { (key($0.identity), ($0.position, $0.watermark)) }, uniquingKeysWith: { first, _ in first })
    nextCheckpoint = now + options.checkpointNanos
  }

  private func nextNumber() -> UInt64? {
    do {
      let last = try lastNumber ?? store?.list().last?.number ?? 0
      lastNumber = last + 1
      firstNumber = firstNumber ?? lastNumber
      return lastNumber
    } catch {
      noteCheckpointFailure("\(error)")
      return nil
    }
  }

  private func noteCheckpointFailure(_ text: String) {
    checkpointProblem = "checkpoints cannot be stored: \(text)"
    nextCheckpoint = now + options.checkpointNanos
    observe(.checkpointFailed(text))
  }

  /// What became of the checkpoint at hand: from now on commits name it.
  private func takeStored() {
    guard let outcome = writer?.take() else { return }
    storing = nil
    if let manifest = outcome.manifest {
      checkpointProblem = nil
      for partition in manifest.partitions { bases[partition.key] = (manifest.name, partition.offset) }
      observe(
        .checkpoint(
          name: manifest.name, keys: manifest.sections.reduce(0) { $0 + $1.keys }, bytes: manifest.storedBytes,
          nanos: outcome.nanos))
    } else if let failure = outcome.failure {
      noteCheckpointFailure(failure)
    }
  }

  // MARK: Committing

  enum CommitOutcome {
    case done
    /// Nothing is committed, and nothing is lost: the next commit, or this one later, does it.
    case failed(mayPass: Bool)
    /// Everything goes back to the last commit; the engines are gone.
    case takenBack
  }

  /// The records are out, but a source's offsets were refused for reasons that pass, such as a rebalance.
  private struct OffsetsDelayed: Error, CustomStringConvertible {
    var description: String
  }

  /// Makes an epoch durable and commits it.
  @discardableResult
  private func commit(_ epoch: UInt64, _ stands: [PartitionStand]) throws -> CommitOutcome {
    let points = stands.compactMap(point)
    do {
      try makeDurable(epoch, points)
      commitProblem = nil
      var isNew = false
      for point in points {
        let name = ResumePoint(metadata: point.metadata)?.checkpoint
        let key = key(point.partition)
        if namesCommitted[key] != name {
          namesCommitted[key] = name
          isNew = true
        }
      }
      observe(.committed)
      if isNew { prune() }
      return .done
    } catch let failure as SinkFenced {
      throw failure
    } catch let failure as GroupFenced where failure.isFinal {
      throw failure
    } catch let failure where failure is TransactionAborted || failure is GroupFenced || failure is RecordsLost {
      takeBack("\(failure)")
      // Who is told to stop, and finds that the group has gone on already, has nothing left to commit.
      if isStopping, !(failure is GroupFenced) { stopProblem = commitProblem }
      return .takenBack
    } catch {
      commitProblem = "offsets are not committed: \(error)"
      observe(.commitFailed("\(error)"))
      // A transaction that is not committed now has no later: what it holds would leave with no offsets.
      if sink is any TransactionalSink {
        takeBack(commitProblem ?? "")
        if isStopping { stopProblem = commitProblem }
        return .takenBack
      }
      return .failed(mayPass: error is OffsetsDelayed)
    }
  }

  /// How long a checkpoint of a shared group is spared although nobody names it: its daemon may be about to.
  private static let sparedNanos: Int64 = 600_000_000_000

  /// Between two attempts of a last commit.
  private static let commitRetryNanos: Int64 = 100_000_000

  /// Removes checkpoints that nobody names any more.
  private func prune() {
    var alive = Set(namesCommitted.values).union(bases.values.map(\.name))
    guard options.isShared else {
      // For a source that these engines do without, a daemon before this one may have committed a checkpoint.
      writer?.prune(keep: options.checkpointsKept, alive: alive, sparingBefore: absent.isEmpty ? nil : firstNumber)
      return
    }
    for source in sources {
      // Without knowing what others have committed nothing is removed; there will be another time.
      guard let committed = try? source.committedMetadata() else { return }
      alive.formUnion(committed.compactMap { ResumePoint(metadata: $0)?.checkpoint })
    }
    writer?.prune(
      keep: options.checkpointsKept, alive: alive, sparingSince: options.engine.clock() - Self.sparedNanos)
  }

  /// With a transactional sink: fences who wrote before us, then asks for the committed offsets anew, since until
  /// then they could still move. Answers whether that is done.
  private func takesOver() -> Bool {
    guard let sink = sink as? any TransactionalSink, !isPrepared else { return true }
    guard now >= nextPreparation else { return false }
    do {
      try sink.prepare()
      isPrepared = true
      commitProblem = nil
      restartSources()
    } catch {
      commitProblem = "transactions cannot be begun: \(error)"
      nextPreparation = now + options.commitNanos
    }
    return false
  }

  /// Nothing since the last commit counts: engines end, and what follows begins from what was committed.
  private func takeBack(_ reason: String) {
    commitProblem = reason
    observe(.transactionAborted(reason))
    (sink as? any TransactionalSink)?.abort()
    isPrepared = false
    pending = nil
    endUnits()
    settleRevoked()
    restartSources()
  }

  private func makeDurable(_ epoch: UInt64, _ points: [CommitPoint]) throws {
    if let sink = sink as? any TransactionalSink {
      var offsets: [SourceOffsets] = []
      for (number, source) in sources.enumerated() {
        let own = points.filter { $0.partition.source == number }
        if own.isEmpty { continue }
        offsets.append(SourceOffsets(source: number, points: own, group: try source.groupHandle()))
      }
      return try sink.commit(epoch, offsets)
    }
    try sink.complete(epoch)
    for (number, source) in sources.enumerated() {
      do {
        try source.commit(points.filter { $0.partition.source == number })
      } catch let failure as GroupFenced {
        throw failure
      } catch {
        throw OffsetsDelayed(description: "\(error)")
      }
    }
  }

  /// What is committed for a partition: its offset in the newest checkpoint, what has been written since, and how to
  /// do without the checkpoint. Nil while there is nothing to go back to.
  private func point(_ stand: PartitionStand) -> CommitPoint? {
    let own = key(stand.identity)
    var offset: Int64
    var name: String
    if let base = bases[own] {
      (name, offset) = base
    } else if let other = checkpointOfOthers(own, stand.identity.source) {
      // The checkpoint has nothing of this partition: from its first record on everything is to be read again.
      guard stand.firstOffset >= 0 else { return nil }
      (name, offset) = (other, stand.firstOffset)
    } else {
      return rules.graph.learns && writer != nil ? firstPoint(stand) : heldBack(stand).rereadPoint
    }
    var resume = stand.resume
    resume.checkpoint = name
    resume.rereadOffset = stand.rereadOffset
    return CommitPoint(partition: stand.identity, offset: offset, metadata: resume.metadata)
  }

  /// The checkpoint that holds the state which a partition shares with others.
  private func checkpointOfOthers(_ own: PartitionKey, _ source: Int) -> String? {
    guard let unit = units.first(where: { $0.keys.contains(own) }) else { return nil }
    let sharing = Set(rules.graph.joinedSources(of: source).map { rules.graph.sources[$0].schema.name })
    return unit.keys.lazy.filter { sharing.contains($0.source) }.compactMap { self.bases[$0]?.name }.first
  }

  /// While the first checkpoint of a partition is being stored, commits do not pass it: the next one names it, and must not
  /// go back behind what has been committed, since the topic may have let go of that. Reading from further in front than
  /// is needed leads to the same state.
  private func heldBack(_ stand: PartitionStand) -> PartitionStand {
    guard let storing else { return stand }
    // What the checkpoint does not know will be read from its first record on.
    let limit = storing[key(stand.identity)] ?? (stand.firstOffset, beforeAllTime)
    guard limit.offset >= 0, limit.offset < stand.rereadOffset else { return stand }
    var held = stand
    held.rereadOffset = limit.offset
    held.resume.watermark = limit.watermark
    return held
  }

  // MARK: Handing over

  /// Everything that was captured has been stored, or cannot be.
  private func finish(_ handOver: HandOver) throws {
    switch try commit(handOver.epoch, handOver.stands) {
    case .done: break
    case .failed(let mayPass):
      // A group that is rebalancing takes no offsets. What is not committed now is written twice by whoever comes next.
      if mayPass, now < handOver.deadline {
        var later = handOver
        later.nextAttempt = now + Self.commitRetryNanos
        phase = .handingOver(later)
        return
      }
    case .takenBack:
      // The purpose stands; it is served by the engines that come next.
      if case .reload(let next) = handOver.purpose { reloadRequest = reloadRequest ?? next }
      return
    }
    let isStored = store == nil || checkpointProblem == nil
    endUnits()
    switch handOver.purpose {
    case .stop:
      let problem = commitProblem
      finish()
      if let problem { throw SourceFailure(problem) }
    case .rebalance:
      settleRevoked()
      restartSources()
    case .reload(let next):
      let state = Carried(
        offsets: Dictionary(
          handOver.stands.map { (key($0.identity), $0.position) }, uniquingKeysWith: { first, _ in first }),
        sections: RestoredState.encoded(handOver.sections))
      let isWhole = revoked.isEmpty
      settleRevoked()
      if isStored {
        try swap(to: next, carrying: isWhole ? state : nil)
      } else {
        // Nothing is lost if the new rules wait until they can be started from a checkpoint.
        observe(.reloadFailed("the state cannot be stored before the change: \(checkpointProblem ?? "")"))
        carried = isWhole ? state : nil
        restartSources()
      }
    }
  }

  /// Engines are over: their counts go on in the totals.
  private func endUnits() {
    for unit in units {
      unit.engine.stop()
      try? unit.engine.wait()
      observe(.engineEnded(unit.engine.status, rules.graph))
    }
    units = []
    phase = .waiting
  }

  /// Ends at once; what was not committed is read again by whoever comes next.
  public func close() {
    if case .finished = phase { return }
    finish()
  }

  private func finish() {
    endUnits()
    phase = .finished
    for source in sources { source.close() }
  }

  /// Gives away what the group has taken; no reader of it is in use. A lead that is lost is lost with its
  /// transactions.
  private func settleRevoked() {
    isChanged = false
    for (number, partitions) in revoked {
      for partition in partitions {
        waiting[partition] = nil
        bases[key(partition)] = nil
        namesCommitted[key(partition)] = nil
      }
      // Whoever gets them may commit further than what is carried here.
      if !partitions.isEmpty { carried = nil }
      sources[number].released(partitions)
    }
    revoked = [:]
  }

  /// Asks every source for its partitions anew: from where they were committed, or where `startOffset` says.
  func restartSources() {
    waiting = [:]
    waitingSince = now
    isAssigned = sources.map { _ in false }
    lastNumber = nil
    for source in sources { source.restart() }
  }

  /// Puts other rules in the place of the old ones; sources that stay keep their place in the group.
  private func swap(to next: RunningRules, carrying state: Carried?) throws {
    reloadRequest = nil
    var made: [any LiveSource] = []
    var kept: Set<ObjectIdentifier> = []
    for node in next.graph.sources {
      let same = sources.first {
        $0.schema.name == node.schema.name && $0.schema.topic == node.schema.topic
          && !kept.contains(ObjectIdentifier($0))
      }
      if let same {
        kept.insert(ObjectIdentifier(same))
        made.append(same)
      } else {
        made.append(try makeSource(node))
      }
    }
    for source in sources where !kept.contains(ObjectIdentifier(source)) { source.close() }
    for (source, node) in zip(made, next.graph.sources) where kept.contains(ObjectIdentifier(source)) {
      source.adopt(node.schema)
    }
    sources = made
    rules = next
    sink.adopt(topics: next.graph.topics)
    carried = state
    restartSources()
    observe(.reloaded(next))
  }
}
