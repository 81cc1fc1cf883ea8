import Foundation
import Synchronization
import Testing

@testable import Runtime

/// Thousands of histories with crashes, lost messages, failing disks, zombies and changes of the rules: what is
/// committed is what a history without faults commits, byte for byte. `RULESD_FAULT_SEEDS` asks for more.
@Suite struct FaultHistoryTests {
  /// Histories in all; each block has its own input, rules and undisturbed result.
  private static let count = ProcessInfo.processInfo.environment["RULESD_FAULT_SEEDS"].flatMap(Int.init) ?? 2_000
  private static let perBlock = 40
  private static var blocks: [Int] { Array(0..<max(1, (count + perBlock - 1) / perBlock)) }

  /// What is wrong with a history; nil when nothing is.
  static func verdict(
    _ plan: HistoryPlan, _ workload: SimulatedWorkload, expected: HistoryResult, expectedNext: HistoryResult
  ) -> (problem: String?, result: HistoryResult) {
    let result = SimulatedWorld(plan, workload).run()
    if let failure = result.failure { return (failure, result) }
    var counts: [String: Int] = [:]
    for line in result.lines { counts[line, default: 0] += 1 }
    if plan.isExactlyOnce, let twice = counts.first(where: { $0.value > 1 }) {
      return ("written \(twice.value) times: \(twice.key)", result)
    }
    var byID: [String: String] = [:]
    for line in counts.keys {
      if let other = byID.updateValue(line, forKey: recordID(line)) { return ("one id, two records: \(line)\n\(other)", result) }
    }
    let got = Set(counts.keys)
    let changing = plan.reloads ? workload.added.union(workload.removed) : []
    func isSettled(_ line: String) -> Bool { !changing.contains(ruleName(line)) }
    let wanted = Set(expected.lines.filter(isSettled))
    if let missing = wanted.subtracting(got).min() { return ("missing: \(missing)", result) }
    if let extra = got.filter(isSettled).subtracting(wanted).min() { return ("too much: \(extra)", result) }
    // A rule that comes has every window from some time on, one that goes has every window up to some time.
    for rule in changing {
      let isAdded = workload.added.contains(rule)
      let all = (isAdded ? expectedNext : expected).lines.filter { ruleName($0) == rule }
      let mine = got.filter { ruleName($0) == rule }
      let times = mine.map(recordTime).sorted()
      let due = all.filter { line in
        guard let first = times.first, let last = times.last else { return false }
        return isAdded ? recordTime(line) >= first : recordTime(line) <= last
      }
      if Set(due) != mine { return ("rule \(rule) has gaps, or records of its own", result) }
    }
    // A disk may fail to answer, and then the state is read anew; but what is named must be there.
    if let reason = result.rereads.first(where: { $0.contains("is not in the store") }) { return (reason, result) }
    return (nil, result)
  }

  private static func ruleName(_ line: String) -> String {
    String(line.split(separator: "\"rule\":\"", maxSplits: 1).last?.prefix { $0 != "\"" } ?? "")
  }
  private static func recordTime(_ line: String) -> String {
    String(line.split(separator: "\"time\":\"", maxSplits: 1).last?.prefix { $0 != "\"" } ?? "")
  }

  static func undisturbed(
    _ workload: SimulatedWorkload, data: UInt64, isShared: Bool, next: Bool = false
  ) -> HistoryResult {
    var workload = workload
    if next { workload.rules = workload.nextRules }
    let plan = HistoryPlan(
      data: data, isExactlyOnce: true, isShared: isShared, seed: 0, hasFaults: false, mutation: nil, reloads: false)
    return SimulatedWorld(plan, workload).run()
  }

  @Test(arguments: blocks)
  func whatIsCommittedIsWhatWouldHaveBeen(_ block: Int) throws {
    let isShared = block % 3 == 2
    let data = UInt64(block)
    let workload = try SimulatedWorkload(data: data, isShared: isShared)
    let expected = Self.undisturbed(workload, data: data, isShared: isShared)
    let next = Self.undisturbed(workload, data: data, isShared: isShared, next: true)
    #expect(expected.failure == nil)
    #expect(expected.lines.count > 30)
    var total = HistoryResult()
    for number in 0..<Self.perBlock {
      let plan = HistoryPlan(
        data: data, isExactlyOnce: number % 4 != 3, isShared: isShared, seed: UInt64(block * Self.perBlock + number + 1),
        hasFaults: true, mutation: nil, reloads: number % 5 == 4, losesMuch: number % 10 == 7)
      let (problem, result) = Self.verdict(plan, workload, expected: expected, expectedNext: next)
      if let problem { Issue.record("\(plan): \(problem)") }
      total.crashes += result.crashes
      total.restores += result.restores
      total.checkpoints += result.checkpoints
      total.reloads += result.reloads
    }
    // Faults that never strike prove nothing.
    #expect(total.crashes > Self.perBlock)
    #expect(total.restores > Self.perBlock / 2)
    #expect(total.checkpoints > Self.perBlock)
    #expect(total.reloads > 0)
  }

  /// An undisturbed history says what an engine says that reads the same input to its end.
  @Test(arguments: 0..<6)
  func undisturbedIsTheRecording(_ block: Int) throws {
    let workload = try SimulatedWorkload(data: UInt64(block), isShared: false)
    let result = Self.undisturbed(workload, data: UInt64(block), isShared: false)
    let log = SimulatedLog(seed: 1)
    for source in 0..<2 {
      log.createTopic(SimulatedWorld.topic(source), partitions: workload.partitions.count { $0.source == source })
    }
    var starts: [PartitionStart] = []
    for partition in workload.partitions {
      let place = SimulatedPlace(SimulatedWorld.topic(partition.source), partition.partition)
      for record in partition.records { log.append(place, value: record) }
      let reader = SimulatedReader(
        identity: PartitionIdentity(source: partition.source, topic: place.topic, partition: place.partition), log: log,
        schema: workload.rules.graph.sources[partition.source].schema, format: SimulatedWorkload.format, from: 0,
        endOffset: Int64(partition.records.count))
      starts.append(PartitionStart(reader: reader, committedOffset: nil, metadata: ""))
    }
    let sink = MemorySink()
    let engine = Engine(graph: workload.rules.graph, options: EngineOptions(), partitions: starts, sink: sink)
    try engine.start()
    try engine.wait()
    #expect(Set(result.lines) == Set(sink.lines))
    #expect(result.lines.count == sink.lines.count)
  }

  /// The same histories find each mistake that is made on purpose.
  @Test(arguments: Mutation.allCases)
  func brokenProtocolsAreNoticed(_ mutation: Mutation) throws {
    var noticed: String?
    var tried = 0
    for block in 0..<30 where noticed == nil {
      let isShared = block % 3 == 2
      let workload = try SimulatedWorkload(data: UInt64(block), isShared: isShared)
      let expected = Self.undisturbed(workload, data: UInt64(block), isShared: isShared)
      for number in 0..<10 where noticed == nil {
        let plan = HistoryPlan(
          data: UInt64(block), isExactlyOnce: mutation != .commitsBeforeRecords, isShared: isShared,
          seed: UInt64(block * 10 + number + 1), hasFaults: true, mutation: mutation, reloads: false,
          losesMuch: mutation == .commitsBeforeRecords)
        tried += 1
        noticed = Self.verdict(plan, workload, expected: expected, expectedNext: expected).problem
      }
    }
    #expect(noticed != nil, "\(tried) histories did not notice that \(mutation.rawValue)")
  }
}
