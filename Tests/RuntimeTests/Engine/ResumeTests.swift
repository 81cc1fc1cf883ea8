import Synchronization
import Testing

@testable import Runtime

/// An engine that is stopped or killed at any moment and started again from what it committed writes what one
/// that never stopped writes: nothing is missing, nothing differs, and after a graceful stop nothing comes
/// twice.
@Suite struct ResumeTests {
  private static let rules =
    testSource("a", watermark: "10s") + testSource("b", watermark: "20s")
      + """
      stream minutes = a | window tumbling 1m by key
        | aggregate n = count(), total = sum(value), worst = max(value)
      metric rows = minutes.n
      metric total = minutes.total
      stream sliding = a | window hopping 5m every 1m by key | aggregate n = count(), p = quantile(value, 0.9)
      metric sliding_rows = sliding.n
      metric sliding_p = sliding.p
      stream long = a | window tumbling 30m | aggregate n = count()
      metric long_rows = long.n
      stream steady = minutes | window tumbling 3m by key | aggregate highest = max(total), n = count()
      metric steady_highest = steady.highest
      stream counters = b | window tumbling 1m by key | aggregate grown = increase(counter), n = count()
      metric growth = counters.grown
      stream all_counters = counters | window tumbling 2m | aggregate grown = sum(grown)
      metric all_growth = all_counters.grown
      alert High { on minutes when worst > 90 for 3m keep_firing 2m severity page
        annotations { summary: "{key} {worst}" } }
      alert Busy { on sliding when n > 3 for 7m severity ticket }
      alert Grown { on counters when grown > 20 keep_firing 4m severity ticket }
      alert Steady { on steady when highest > 60 for 3m keep_firing 6m severity ticket }
      alert Low { on minutes when worst > 30 keep_firing 2m severity info escalate to ticket after 2m repeat 3m }
      alert Lower { on minutes when worst > 10 keep_firing 3m severity info escalate to page after 4m }
      alert Worst { on minutes when worst > 60 for 1m }
      inhibit Low, Worst when Busy equal key
      group Together { alerts Lower, Worst  by key  wait 30s  interval 2m  repeat 5m }
      slo values { on a by key  bad value > 60  objective 90% over 8m
        burn page when rate > 3 over 8m and 2m  burn ticket when rate >= 2 over 5m }
      metric values_left = values.budget_left
      metric values_burn = values.burn_2m
      slo slices { on steady  good highest < 100  objective 70% over 9m  burn page when rate > 1 over 9m and 3m }
      alert SlicesSpent { on slices when budget_left < 0 for 6m }
      """

  /// Joins of both sources, of windows, of a source with itself, and traces.
  private static let joinRules =
    testSource("a", watermark: "10s") + testSource("b", watermark: "20s")
      + """
      stream pairs = a | join b on key within 5s | window tumbling 1m by key
        | aggregate n = count(), total = sum(value), other = sum(b.counter)
      metric pair_rows = pairs.n
      metric pair_total = pairs.total
      metric pair_other = pairs.other
      stream lonely = a | unless b on key within 4s after | window tumbling 1m by key | aggregate n = count()
      metric lonely_rows = lonely.n
      stream sides = b | left join a as before on key within 3s before | window hopping 2m every 1m by key
        | aggregate n = count(), found = count(where before.seq is not null)
      metric side_rows = sides.n
      metric side_found = sides.found
      stream twice = a | join a as other on key within 1s | join b on key within 1s | window tumbling 2m by key
        | aggregate n = count()
      metric twice_rows = twice.n
      stream minutes_a = a | window tumbling 1m by key | aggregate n = count(), worst = max(value)
      stream minutes_b = b | window tumbling 1m by key | aggregate n = count()
      stream both = minutes_a | join minutes_b on key | derive ratio = n / minutes_b.n
      metric ratio = both.ratio
      alert Apart { on both when ratio > 1.2 for 2m keep_firing 2m severity page annotations { s: "{key} {worst}" } }
      stream follow = minutes_a | join minutes_b on key within 2m | window tumbling 3m by key | aggregate n = count()
      metric follow_rows = follow.n
      stream traces = b | derive took = counter * 1s
        | trace by key gap 25s longest 2m { span key, parent key, service key, duration took }
      stream ended = traces | window tumbling 1m by key | aggregate n = count(), spans = sum(spans), longest = max(duration)
      metric trace_rows = ended.n
      metric trace_spans = ended.spans
      """

  /// Alerts and burn alerts of two sources, one 10 s and one 20 s behind, that meet in groups and inhibitions.
  private static let meetingRules =
    testSource("a", watermark: "10s") + testSource("b", watermark: "20s")
      + """
      stream minutes_a = a | window tumbling 1m by key | aggregate n = count(), worst = max(value)
      stream halves_b = b | window tumbling 30s by key | aggregate n = count(), worst = max(value)
      stream longer_b = halves_b | window tumbling 3m by key | aggregate worst = max(worst)
      metric rows_a = minutes_a.n
      metric rows_b = halves_b.n
      alert HighA { on minutes_a when worst > 80 for 1m keep_firing 1m severity ticket escalate to page after 4m }
      alert HighB { on halves_b when worst > 85 severity warning }
      alert LongB { on longer_b when worst > 90 for 3m keep_firing 4m severity critical }
      slo values_a { on a by key  bad value > 60  objective 90% over 8m  burn page when rate > 4 over 3m and 1m  burn ticket when rate >= 2 over 5m }
      group Incident { alerts HighA, HighB, values_a  by key  wait 30s  interval 2m  repeat 5m }
      alert Quiet { on halves_b when worst < 60 for 1m severity info repeat 2m escalate to ticket after 3m }
      alert Other { on minutes_a when worst > 70 severity info repeat 4m }
      inhibit Quiet, Other when LongB equal key
      inhibit Quiet when HighA equal key
      group All { alerts LongB  wait 0s  interval 1m }
      """

  struct Case: Sendable, CustomTestStringConvertible {
    var seed: UInt64
    var workers: Int
    var batchRows: Int
    var isGraceful: Bool
    var testDescription: String {
      "seed \(seed), \(workers) workers, \(batchRows) rows\(isGraceful ? ", graceful" : "")"
    }
  }
  private static let cases: [Case] = {
    var cases: [Case] = []
    for seed in 1...seedCount(8) {
      for isGraceful in [true, false] {
        cases.append(
          Case(
            seed: UInt64(seed), workers: 1 + (isGraceful ? seed : seed + 2) % 4,
            batchRows: [1, 7, 4_096][(isGraceful ? seed : seed + 1) % 3], isGraceful: isGraceful))
      }
    }
    return cases
  }()

  /// Partitions of two sources with different speeds and lengths.
  private func histories(from start: Int64, _ random: inout SeededRandom) -> [(
    source: Int, partition: Int32, [TestRecord]
  )] {
    var result: [(source: Int, partition: Int32, [TestRecord])] = []
    for (source, partition, step) in [(0, Int32(0), 6), (0, 1, 3), (0, 2, 14), (1, 0, 4), (1, 1, 9)] {
      let step = Int64(step) * second
      let count = 2_400 / Int(step / second)
      result.append(
        (
          source, partition,
          randomRecords(
            count, from: start + Int64(partition) * 13 * second, keys: 3, stepNanosMax: step,
            boundNanos: (source == 0 ? 10 : 20) * second, lateOneIn: 25, garbageOneIn: 40, random: &random)
        ))
    }
    return result
  }

  @Test(arguments: cases)
  func isAsIfItHadNeverStopped(_ example: Case) throws { try check(example, Self.rules) }

  @Test(arguments: cases)
  func joinsAreAsIfTheyHadNeverStopped(_ example: Case) throws { try check(example, Self.joinRules) }

  @Test(arguments: cases)
  func alertsOfTwoSourcesAreAsIfTheyHadNeverStopped(_ example: Case) throws { try check(example, Self.meetingRules) }

  private func check(_ example: Case, _ rules: String) throws {
    var random = SeededRandom(example.seed)
    let graph = try graph(rules)
    // Near 1970 there is no room to look back.
    let histories = histories(from: example.seed % 4 == 0 ? 0 : testEpoch, &random)
    let logs = histories.map { log($0.source, $0.partition, $0.2) }
    let expected = try runRecorded(graph, logs)
    #expect(expected.count > 300)

    var points: [PartitionIdentity: CommitPoint] = [:]
    var written: [String] = []
    var shown = [Int](repeating: 0, count: logs.count)
    var round = 0
    while true {
      round += 1
      let isLast = round > 12
      for (index, log) in logs.enumerated() {
        let more = Int.random(in: 0...log.records.count / 6, using: &random)
        shown[index] = isLast ? log.records.count : min(log.records.count, shown[index] + more)
        log.show(shown[index], atEnd: isLast ? .end : (Bool.random(using: &random) ? .caughtUp : .nothingYet))
      }
      let sink = MemorySink()
      let engine = Engine(
        graph: graph,
        options: EngineOptions(
          workers: example.workers, batchRows: example.batchRows, order: .bySource, isLive: true,
          clock: { 0 }),
        partitions: logs.shuffled(using: &random).map {
          $0.start(at: points[$0.identity], chunks: SeededRandom(random.next()))
        }, sink: sink)
      try engine.start()
      if isLast {
        try engine.wait()
        written += sink.lines
        break
      }
      // Some engines see all that is shown; others are stopped in the middle of it.
      if Bool.random(using: &random) {
        try eventually("all is read") { zip(logs, shown).allSatisfy { $0.position >= $1 } }
      }
      for _ in 0..<Int.random(in: 0...3, using: &random) {
        sleepMillis(Int.random(in: 0...4, using: &random))
        let commit = try engine.commitPoints()
        // A group may have committed for some partitions when it died.
        let half = !example.isGraceful && Int.random(in: 0..<4, using: &random) == 0
        for point in commit where !half || Bool.random(using: &random) { points[point.partition] = point }
      }
      if example.isGraceful {
        for point in try engine.stopAndCommitPoints() { points[point.partition] = point }
      } else {
        engine.stop()
        try engine.wait()
      }
      written += sink.lines
    }

    var byID: [String: String] = [:]
    var twice = 0
    for line in written {
      if let before = byID.updateValue(line, forKey: recordID(line)) {
        twice += 1
        if before != line { Issue.record("one id, two records:\n\(before)\n\(line)") }
      }
    }
    let wanted = Set(expected)
    let got = Set(byID.values)
    #expect(wanted.subtracting(got).sorted().prefix(5) == [], "missing")
    #expect(got.subtracting(wanted).sorted().prefix(5) == [], "too many")
    if example.isGraceful { #expect(twice == 0) }
  }
}
