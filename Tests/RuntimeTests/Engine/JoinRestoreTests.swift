import Testing

@testable import Runtime

/// Joins and traces that are stopped at a barrier and go on from what was captured there, with another number of workers: each
/// key's rows come to another shard than the one that kept them.
@Suite struct JoinRestoreTests {
  private static let rules =
    testSource("a", watermark: "10s") + testSource("b", watermark: "20s")
      + """
      stream pairs = a | join b on key within 40s | window tumbling 1m by key
        | aggregate n = count(), total = sum(value), other = sum(b.counter)
      metric pair_rows = pairs.n
      metric pair_total = pairs.total
      metric pair_other = pairs.other
      stream lonely = a | unless b on key, seq within 90s after | window tumbling 1m by key | aggregate n = count(), last = last(seq)
      metric lonely_rows = lonely.n
      metric lonely_last = lonely.last
      stream sides = b | left join a as before on key within 30s before | window tumbling 1m by key
        | aggregate n = count(), found = count(where before.seq is not null)
      metric side_rows = sides.n
      metric side_found = sides.found
      stream traces = b | derive took = counter * 1s
        | trace by key gap 20s longest 3m { span key, parent key, service key, duration took }
      stream ended = traces | window tumbling 1m by key | aggregate n = count(), spans = sum(spans), longest = max(duration)
      metric trace_rows = ended.n
      metric trace_spans = ended.spans
      metric trace_longest = ended.longest
      """

  /// How many workers there are in each life.
  struct Case: Sendable, CustomTestStringConvertible {
    var seed: UInt64
    var workers: [Int]
    var testDescription: String { "seed \(seed), \(workers.map(String.init).joined(separator: " → ")) workers" }
  }
  private static let cases = (1...UInt64(seedCount(6))).flatMap { seed in
    [[1, 3], [3, 2], [2, 4, 1]].map { Case(seed: seed, workers: $0) }
  }

  private func histories(_ random: inout SeededRandom) -> [(source: Int, partition: Int32, records: [TestRecord])] {
    [(0, Int32(0), 6), (0, 1, 3), (1, 0, 4), (1, 1, 9)].map { source, partition, step in
      let bound = (source == 0 ? 10 : 20) * second
      let records = randomRecords(
        2_400 / step, from: testEpoch + Int64(partition) * 13 * second, keys: 7, stepNanosMax: Int64(step) * second,
        boundNanos: bound, lateOneIn: 25, garbageOneIn: 40, random: &random)
      return (source, partition, records)
    }
  }

  @Test(arguments: cases) func goesOnWithAnotherNumberOfWorkers(_ example: Case) throws {
    var random = SeededRandom(example.seed &* 31)
    let graph = try graph(Self.rules)
    let histories = histories(&random)
    func logs() -> [MemoryLog] { histories.map { log($0.source, $0.partition, $0.records) } }
    let expected = try runRecorded(graph, logs(), order: .bySource)
    for rule in ["pair_total", "lonely_last", "side_found", "trace_longest"] {
      #expect(expected.count { $0.contains("\"rule\":\"\(rule)\"") } > 20, "\(rule) says nothing")
    }

    let sink = MemorySink()
    var restored: RestoredState?
    var positions: [PartitionIdentity: Int64] = [:]
    for (life, workers) in example.workers.enumerated() {
      let isLast = life == example.workers.count - 1
      let logs = logs()
      for log in logs where !isLast {
        // Sources are not equally far.
        let part = Double(life + 1) / Double(example.workers.count) + Double.random(in: -0.1...0.1, using: &random)
        log.show(Int(Double(log.records.count) * part), atEnd: .nothingYet)
      }
      let engine = Engine(
        graph: graph, options: EngineOptions(workers: workers, batchRows: 7, order: .bySource, isLive: !isLast),
        partitions: logs.map { log in
          log.start(at: CommitPoint(partition: log.identity, offset: positions[log.identity] ?? 0, metadata: ""))
        }, restored: [restored, restored], sink: sink)
      try engine.start()
      if isLast {
        try engine.wait()
        break
      }
      try eventually("everything is read") { logs.allSatisfy { $0.position >= $0.visible && $0.emptyReads > 0 } }
      engine.request(BarrierRequest(epoch: 1, captures: true, isLast: true))
      var result: BarrierResult?
      try eventually("a barrier") {
        result = engine.takeBarrier()
        return result != nil
      }
      try engine.wait()
      let found = try #require(result)
      for kind in ["join", "trace"] {
        let keys = found.sections.filter { $0.operatorID.hasPrefix("\(kind):") }.map(\.capture.keyCount).reduce(0, +)
        #expect(keys > 0, "no \(kind) keeps anything at the barrier")
      }
      for partition in found.partitions where partition.position >= 0 { positions[partition.identity] = partition.position }
      restored = RestoredState(RestoredState.encoded(found.sections))
    }
    // Records of different event times have no order among them; nothing comes twice.
    let (lines, due) = (sink.lines.sorted(), expected.sorted())
    let different = zip(lines, due).first { $0 != $1 }
    #expect(lines.count == due.count && different == nil, "\(different.map { "\($0)\n\($1)" } ?? "")")
  }
}
