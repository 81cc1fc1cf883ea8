import Testing

@testable import Runtime

/// Ends of what an engine may meet: nothing, garbage alone, failures, the limits of time.
@Suite struct EngineEdgeTests {
  private static let rules =
    testSource("a", watermark: "10s")
      + """
      stream minutes = a | window tumbling 1m by key | aggregate n = count()
      metric rows = minutes.n
      """

  @Test(arguments: [1, 2, 4])
  func noPartitionIsAnEmptyOutput(_ workers: Int) throws {
    #expect(try runRecorded(graph(Self.rules), [], workers: workers) == [])
  }

  @Test(arguments: [1, 7, 4_096])
  func garbageBeforeTheFirstGoodRowIsADeadLetter(_ batchRows: Int) throws {
    var records = (0..<20).map { _ in TestRecord.garbage() }
    records.append(TestRecord(time: testEpoch, key: "k", value: 1))
    let lines = try runRecorded(graph(Self.rules), [log(0, 0, records)], batchRows: batchRows)
    #expect(lines.count == 21)
    #expect(lines.prefix(20).allSatisfy { $0.contains("dead_letter") })
  }

  @Test(arguments: [1, 2])
  func readerThatThrowsEndsTheRun(_ workers: Int) throws {
    let records = (0..<100).map { TestRecord(time: testEpoch + Int64($0) * second, key: "k", value: 1) }
    let good = log(0, 0, records)
    let bad = log(0, 1, records)
    bad.state.withLock { $0.failsAt = 50 }
    #expect(throws: SourceFailure.self) {
      _ = try runRecorded(graph(Self.rules), [good, bad], workers: workers, batchRows: 7)
    }
  }

  @Test(arguments: [1, 2])
  func sinkThatThrowsEndsTheRun(_ workers: Int) throws {
    let records = (0..<1_000).map { TestRecord(time: testEpoch + Int64($0) * second, key: "k", value: 1) }
    let engine = Engine(
      graph: try graph(Self.rules), options: EngineOptions(workers: workers, batchRows: 7),
      partitions: [log(0, 0, records).start(), log(0, 1, records).start()],
      sink: MemorySink(failsAtWrite: 2))
    try engine.start()
    #expect(throws: SourceFailure.self) { try engine.wait() }
    #expect(engine.failure?.contains("full") == true)
    #expect(throws: SourceFailure.self) { _ = try engine.stopAndCommitPoints() }
  }

  /// 1970 and 2200, with windows as long as they may be.
  @Test(arguments: [1, 2])
  func limitsOfTimeAreWithoutOverflow(_ workers: Int) throws {
    let rules =
      testSource("a", watermark: "365d")
        + """
        stream months = a | window hopping 90d every 30d by key
          | aggregate n = count(), grown = increase(counter)
        metric rows = months.n
        metric growth = months.grown
        alert Any { on months when n > 0 for 30d keep_firing 90d severity page }
        """
    for time in [eventTimeNanos.lowerBound, eventTimeNanos.upperBound] {
      let records = [TestRecord(time: time, key: "k", value: 1, counter: 3)]
      let lines = try runRecorded(graph(rules), [log(0, 0, records)], workers: workers)
      #expect(lines.filter { $0.contains("\"rule\":\"rows\"") }.count == 3)
    }
    let outside = [
      TestRecord(time: Int64.min, key: "k"), TestRecord(time: -1, key: "k"),
      TestRecord(time: Int64.max, key: "k", recordTime: Int64.min + 1),
      TestRecord(time: eventTimeNanos.upperBound + 1, key: "k"),
    ]
    let lines = try runRecorded(graph(rules), [log(0, 0, outside)], workers: workers)
    #expect(lines.count == 4)
    #expect(lines.allSatisfy { $0.contains("dead_letter") })
  }

  /// Garbage in front of the first good rows comes in one order, whichever partition is read first.
  @Test func garbageOfSeveralPartitionsHasOneOrder() throws {
    // Names in the other order than the sources and partitions.
    let rules =
      testSource("z") + testSource("a")
        + """
        stream zs = z | window tumbling 1m by key | aggregate n = count()
        metric z_rows = zs.n
        stream others = a | window tumbling 1m by key | aggregate n = count()
        metric a_rows = others.n
        """
    let garbage = (0..<9).map { _ in TestRecord.garbage() }
    let good = (0..<50).map { TestRecord(time: testEpoch + Int64($0) * second, key: "k", value: 1) }
    func logs() -> [MemoryLog] {
      [
        log(0, 0, garbage + good, topic: "y"), log(0, 1, garbage + good, topic: "b"),
        log(1, 0, good, topic: "x"), log(1, 1, garbage + garbage + good, topic: "c"),
      ]
    }
    let first = try runRecorded(graph(rules), logs(), workers: 1, batchRows: 4_096)
    for workers in [1, 2, 3, 4] {
      for batchRows in [1, 7, 4_096] {
        let again = try runRecorded(graph(rules), logs(), workers: workers, batchRows: batchRows)
        #expect(again == first, "\(workers) workers, batches of \(batchRows)")
      }
    }
  }

  /// More late rows and dead letters in one pane than a partition may keep waiting.
  @Test(arguments: [1, 2])
  func aPaneFullOfDeadLettersDoesNotBlockItself(_ workers: Int) throws {
    let rules =
      testSource("a")
        + """
        stream hours = a | window tumbling 1h by key | aggregate n = count()
        metric rows = hours.n
        """
    let bulk = [UInt8](repeating: UInt8(ascii: "x"), count: 65_000)
    func good(_ seconds: Int64) -> TestRecord {
      TestRecord(time: testEpoch + seconds * second, key: "k", value: 1)
    }
    var records = [good(0), good(100), good(200)]
    for index in 0..<300 { records.append(index == 10 ? good(300) : .garbage(bulk)) }
    let lines = try runRecorded(
      graph(rules), [log(0, 0, records), log(0, 1, [good(0), good(200)])], workers: workers, batchRows: 4)
    #expect(lines.count == 299 + 1)
  }
}
