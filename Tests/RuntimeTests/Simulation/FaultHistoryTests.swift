import Foundation
import Testing

@testable import Runtime

/// Thousands of histories with crashes, lost messages, failing disks, zombies and changes of the rules: what is
/// committed is what a history without faults commits, byte for byte. `RULESD_FAULT_SEEDS` asks for more.
@Suite struct FaultHistoryTests {
  /// Histories in all; each block has its own input, rules and undisturbed result.
  private static let count = ProcessInfo.processInfo.environment["RULESD_FAULT_SEEDS"].flatMap(Int.init) ?? 2_000
  /// Within so many of the same histories each deliberate mistake is noticed.
  private static let noticedWithin = 60

  struct BlockReport: Sendable {
    var problems: [String] = []
    var happened: [Happening: Int] = [:]
    /// Committed records by what they are.
    var output: [String: Int] = [:]
  }

  /// `metric`, `late`, …, and of alerts the state.
  private static func kind(of line: String) -> String {
    let type = line.dropFirst(9).prefix { $0 != "\"" }
    guard type == "alert", let state = line.firstRange(of: "\"state\":\"") else { return String(type) }
    return String(line[state.upperBound...].prefix { $0 != "\"" })
  }

  private static func run(block: Int) -> BlockReport {
    var report = BlockReport()
    do {
      let given = try HistoryBlock(block)
      for undisturbed in [given.expected, given.expectedNext] {
        if let failure = undisturbed.failure { report.problems.append("block \(block) without faults: \(failure)") }
        // Histories of nothing but dead letters would be all alike.
        let metrics = undisturbed.lines.count { $0.hasPrefix("{\"type\":\"metric\"") }
        if metrics < 30 || metrics < undisturbed.lines.count / 3 {
          report.problems.append("block \(block) has \(metrics) metrics in \(undisturbed.lines.count) records")
        }
      }
      for number in 0..<HistoryPlan.perBlock {
        let plan = HistoryPlan(block: block, number: number)
        let (verdict, result) = given.run(plan)
        if let problem = verdict.problem { report.problems.append("\(plan): \(problem)") }
        report.happened.merge(result.happened, uniquingKeysWith: +)
        for line in result.lines { report.output[Self.kind(of: line), default: 0] += 1 }
      }
    } catch {
      report.problems.append("block \(block): \(error)")
    }
    return report
  }

  @Test func whatIsCommittedIsWhatWouldHaveBeen() async {
    let blocks = max(1, (Self.count + HistoryPlan.perBlock - 1) / HistoryPlan.perBlock)
    let total = await withTaskGroup(of: BlockReport.self) { group in
      for block in 0..<blocks { group.addTask { Self.run(block: block) } }
      var total = BlockReport()
      for await report in group {
        for problem in report.problems { Issue.record("\(problem)") }
        total.happened.merge(report.happened, uniquingKeysWith: +)
        total.output.merge(report.output, uniquingKeysWith: +)
      }
      return total
    }
    print("\(blocks * HistoryPlan.perBlock) histories, which committed \(total.output.sorted { $0.key < $1.key })")
    for kind in ["metric", "pending", "firing", "resolved", "late", "dead_letter"] {
      #expect(total.output[kind, default: 0] > blocks, "next to nothing of kind \(kind)")
    }
    for happening in Happening.allCases {
      let times = total.happened[happening] ?? 0
      print("  \(times)  \(happening.rawValue)")
      // A few blocks alone may lack the rarest; faults that never strike prove nothing.
      if blocks >= 10 { #expect(times > 0, "in no history: \(happening.rawValue)") }
    }
  }

  /// One history of those, told: `RULESD_FAULT_HISTORY=12:7` is number 7 of block 12.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["RULESD_FAULT_HISTORY"] != nil))
  func oneHistoryIsTold() throws {
    let name = ProcessInfo.processInfo.environment["RULESD_FAULT_HISTORY"] ?? ""
    for each in name.split(separator: ",") {
      let place = each.split(separator: ":").compactMap { Int($0) }
      try #require(place.count == 2)
      var plan = HistoryPlan(block: place[0], number: place[1])
      plan.isTold = true
      let given = try HistoryBlock(place[0])
      let (verdict, result) = given.run(plan)
      print("\(plan)\n\(result.story.joined(separator: "\n"))\nmissing:")
      print(Set(given.expected.lines).subtracting(result.lines).sorted().joined(separator: "\n"))
      print("of the rules that came:")
      print(result.lines.filter { line in given.workload.added.contains { line.contains("\"\($0)\"") } }.joined(separator: "\n"))
      for (what, times) in result.happened.sorted(by: { $0.key.rawValue < $1.key.rawValue }) { print("  \(times)  \(what.rawValue)") }
      #expect(verdict.problem == nil)
    }
  }

  /// An undisturbed history says what an engine says that reads the same input to its end.
  @Test(arguments: 0..<6)
  func undisturbedIsTheRecording(_ block: Int) throws {
    let workload = try SimulatedWorkload(data: UInt64(block), isShared: false)
    let result = SimulatedWorld(HistoryPlan(data: UInt64(block), isShared: false), workload).run()
    let log = SimulatedLog(seed: 1)
    for source in 0..<2 {
      log.createTopic(SimulatedWorld.topic(source), partitions: workload.partitions.count { $0.source == source })
    }
    var starts: [PartitionStart] = []
    for partition in workload.partitions {
      let place = SimulatedPlace(SimulatedWorld.topic(partition.source), partition.partition)
      for record in partition.records { log.append(place, value: record.payload, time: record.time) }
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

  /// Each mistake that is made on purpose shows in the committed output of one of the first of those same histories, where
  /// nothing is wrong without it.
  @Test(arguments: Mutation.allCases)
  func brokenProtocolsAreNoticed(_ mutation: Mutation) throws {
    var tried = 0
    var block = 0
    while tried < Self.noticedWithin {
      let given = try HistoryBlock(block)
      for number in 0..<HistoryPlan.perBlock where tried < Self.noticedWithin {
        var plan = HistoryPlan(block: block, number: number)
        guard mutation.concerns(plan) else { continue }
        tried += 1
        plan.mutation = mutation
        guard let difference = given.run(plan).verdict.difference else { continue }
        plan.mutation = nil
        #expect(given.run(plan).verdict.problem == nil)
        print("\(mutation.rawValue): noticed by history \(tried), \(difference.prefix(300))")
        return
      }
      block += 1
    }
    Issue.record("\(tried) histories did not notice that \(mutation.rawValue)")
  }
}
