@testable import Runtime

/// What a history is about: rules, input, and how the processes run.
struct HistoryPlan {
  var data: UInt64
  var isExactlyOnce = true
  var isShared: Bool
  /// Faults come out of this.
  var seed: UInt64 = 0
  /// None: the history that others are compared with.
  var hasFaults = false
  var mutation: Mutation?
  /// Rules that take over in the middle.
  var reloads = false
  /// A network that loses every fourth request.
  var losesMuch = false
  /// The topics keep nothing that the group has committed: who loses a checkpoint has lost its state. Disks may still
  /// fail to write, but not to read.
  var trims = false
  /// Whether the result says what happened, for who looks into one history.
  var isTold = false
}

extension HistoryPlan {
  static let perBlock = 40

  /// Number `number` of the histories over the input and rules of a block.
  init(block: Int, number: Int) {
    data = UInt64(block)
    isShared = Self.isShared(block)
    isExactlyOnce = number % 4 != 3
    seed = UInt64(block * Self.perBlock + number + 1)
    hasFaults = true
    reloads = number % 5 == 4
    losesMuch = number % 10 == 7
    trims = number % 3 == 1
  }

  static func isShared(_ block: Int) -> Bool { block % 3 == 2 }
}

/// What must have happened in some of the histories, or they prove little.
enum Happening: String, CaseIterable, Sendable {
  case crash = "processes crashed"
  case crashInStateFile = "… in the middle of writing a state file"
  case crashInManifest = "… in the middle of writing a manifest"
  case crashBeforeCommit = "… between a manifest and the commit that names it"
  case crashInRecovery = "… while reading state to recover"
  case crashInReload = "… during a change of the rules"
  case powerLost = "disks lost what was not synced"
  case fileTorn = "files torn by that"
  case diskFailedWriting = "disk errors while writing"
  case diskFailedReading = "disk errors while reading"
  case requestLost = "requests lost"
  case answerLost = "answers lost (acknowledgements of records and of commits)"
  case acknowledgementReordered = "acknowledgements out of order"
  case brokersDown = "times without brokers"
  case hang = "processes that hung"
  case expelled = "members expelled by their group"
  case transactionAborted = "transactions taken back"
  case checkpoint = "checkpoints stored"
  case captureInFlight = "captures asked for with messages in flight between workers"
  case captureStarved = "captures asked for while a worker did not get the processor"
  case retention = "topics trimmed to the committed offset"
  case startWithoutSource = "engines started before all sources had partitions"
  case restore = "engines started from a checkpoint"
  case restoreWithOtherWorkers = "… that was taken with another number of workers"
  case restoreAfterReload = "… that was taken with other rules"
  case rereadAfterLoss = "state rebuilt because the disk did not give a checkpoint"
  case reload = "rules changed"
  case oneWorker = "processes with 1 worker"
  case twoWorkers = "processes with 2 workers"
  case threeWorkers = "processes with 3 workers"
  case fourWorkers = "processes with 4 workers"
}

/// What is left at the end of a history.
struct HistoryResult {
  /// The committed output.
  var lines: [String] = []
  var happened: [Happening: Int] = [:]
  /// Why checkpoints were not read that had been committed.
  var rereads: [String] = []
  /// A committed offset that another commit went back behind.
  var wentBack: String?
  /// Nil when it came to its end.
  var failure: String?
  /// See `HistoryPlan.isTold`.
  var story: [String] = []

  mutating func note(_ happening: Happening, _ count: Int = 1) { happened[happening, default: 0] += count }
}

/// What is wrong with a history.
struct HistoryVerdict {
  /// Its committed output is not that of the history without faults.
  var difference: String?
  /// It did not come to its end.
  var failure: String?
  /// A committed offset named a checkpoint that was not there. (A disk may fail to answer, and then the state is rebuilt.)
  var lostCheckpoint: String?

  /// A commit went back behind an earlier one, although no state was lost.
  var wentBack: String?

  var problem: String? { difference ?? failure ?? lostCheckpoint ?? wentBack }
}

/// The input and rules of a block of histories, and what comes of them without faults.
struct HistoryBlock {
  let workload: SimulatedWorkload
  let expected: HistoryResult
  /// With the rules that take over in some histories.
  let expectedNext: HistoryResult

  init(_ block: Int) throws {
    workload = try SimulatedWorkload(data: UInt64(block), isShared: HistoryPlan.isShared(block))
    expected = Self.undisturbed(workload, block)
    var next = workload
    next.rules = workload.nextRules
    expectedNext = Self.undisturbed(next, block)
  }

  static func undisturbed(_ workload: SimulatedWorkload, _ block: Int) -> HistoryResult {
    SimulatedWorld(HistoryPlan(data: UInt64(block), isShared: HistoryPlan.isShared(block)), workload).run()
  }

  func run(_ plan: HistoryPlan) -> (verdict: HistoryVerdict, result: HistoryResult) {
    let result = SimulatedWorld(plan, workload).run()
    let verdict = HistoryVerdict(
      difference: difference(plan, result), failure: result.failure,
      lostCheckpoint: result.rereads.first { $0.contains("is not in the store") }, wentBack: result.wentBack)
    return (verdict, result)
  }

  private func difference(_ plan: HistoryPlan, _ result: HistoryResult) -> String? {
    var counts: [String: Int] = [:]
    for line in result.lines { counts[line, default: 0] += 1 }
    if plan.isExactlyOnce, let twice = counts.filter({ $0.value > 1 }).min(by: { $0.key < $1.key }) {
      return "written \(twice.value) times: \(twice.key)"
    }
    var byID: [String: String] = [:]
    for line in counts.keys.sorted() {
      if let other = byID.updateValue(line, forKey: recordID(line)) { return "one id, two records: \(line)\n\(other)" }
    }
    let got = Set(counts.keys)
    let changing = plan.reloads ? workload.added.union(workload.removed) : []
    func isSettled(_ line: String) -> Bool { changing.isEmpty || !changing.contains(Self.ruleName(line)) }
    let wanted = Set(expected.lines.filter(isSettled))
    let extra = got.filter(isSettled).subtracting(wanted)
    if let first = extra.min() { return "\(extra.count) too much: \(first)" }
    let missing = wanted.subtracting(got)
    if let first = missing.min() { return "\(missing.count) of \(wanted.count) missing: \(first)" }
    // A rule that comes has every window from some time on, one that goes has every window up to some time; where
    // partitions go their own ways, each from or up to a time of its own.
    for rule in changing {
      let isAdded = workload.added.contains(rule)
      func parts(_ lines: some Sequence<String>) -> [String: Set<String>] {
        lines.filter { Self.ruleName($0) == rule }
          .reduce(into: [:]) { $0[plan.isShared ? Self.partition($1) : "", default: []].insert($1) }
      }
      let all = parts((isAdded ? expectedNext : expected).lines)
      for (part, mine) in parts(got) {
        let times = mine.map(Self.recordTime)
        guard let first = times.min(), let last = times.max() else { continue }
        let due = (all[part] ?? []).filter { isAdded ? Self.recordTime($0) >= first : Self.recordTime($0) <= last }
        if let gap = due.subtracting(mine).min() { return "rule \(rule) has a gap: \(gap)" }
        if let own = mine.subtracting(due).min() { return "rule \(rule) has a record of its own: \(own)" }
      }
    }
    return nil
  }

  /// `p1` of a key `p1k2`.
  private static func partition(_ line: String) -> String {
    String(line.split(separator: "\"key\":\"", maxSplits: 1).last?.prefix { $0 != "k" } ?? "")
  }

  private static func ruleName(_ line: String) -> String {
    String(line.split(separator: "\"rule\":\"", maxSplits: 1).last?.prefix { $0 != "\"" } ?? "")
  }
  private static func recordTime(_ line: String) -> String {
    String(line.split(separator: "\"time\":\"", maxSplits: 1).last?.prefix { $0 != "\"" } ?? "")
  }
}
