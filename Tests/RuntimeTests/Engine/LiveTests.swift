import Synchronization
import Testing

@testable import Runtime

/// Live sources: quiet partitions, the clock, back-pressure, engines that are dropped.
@Suite struct LiveTests {
  private static let rules =
    testSource("a", watermark: "10s", idle: "30s")
      + """
      stream minutes = a | window tumbling 1m by key | aggregate n = count()
      metric rows = minutes.n
      """

  private func row(_ seconds: Int64, _ key: String = "k") -> TestRecord {
    TestRecord(time: testEpoch + seconds * second, key: key, value: 1)
  }

  @Test(arguments: [1, 2])
  func quietPartitionClosesItsWindowsByTheClock(_ workers: Int) throws {
    let clock = TestClock(testEpoch + 60 * second)
    let busy = log(0, 0, [row(5), row(30), row(20), row(100)], visible: 2, atEnd: .nothingYet)
    let silent = log(0, 1, [], atEnd: .nothingYet)
    let sink = MemorySink()
    let engine = Engine(
      graph: try graph(Self.rules),
      options: EngineOptions(workers: workers, order: .bySource, isLive: true, clock: { clock.now },
        monotonic: { monotonicNanos() + clock.now }),
      partitions: [busy.start(), silent.start()], sink: sink)
    try engine.start()
    try eventually("rows are read") { busy.position == 2 }
    // An hour without word from the broker says nothing about what it has.
    clock.advance(3_600 * second)
    let before = (busy.emptyReads, silent.emptyReads)
    try eventually("both are asked again") {
      busy.emptyReads > before.0 + 3 && silent.emptyReads > before.1 + 3
    }
    #expect(sink.lines.isEmpty)
    // One partition is known to have nothing: the other still holds the window.
    silent.show(0, atEnd: .caughtUp)
    let asked = silent.emptyReads
    try eventually("it is asked again") { silent.emptyReads > asked + 3 }
    #expect(sink.lines.isEmpty)
    busy.show(2, atEnd: .caughtUp)
    try eventually("the window closes") { sink.lines.count == 1 }
    #expect(sink.lines[0].contains("\"value\":2"))
    // A row behind the clock is late now, not lost.
    busy.show(3, atEnd: .caughtUp)
    try eventually("the late row is written") { sink.lines.count == 2 }
    #expect(sink.lines[1].contains("\"reason\":\"late\""))
    #expect(
      engine.status.late == 1
        && engine.status.partitions.allSatisfy { $0.counters.isIdle || $0.counters.rows > 0 })
    busy.show(4, atEnd: .end)
    silent.show(0, atEnd: .end)
    try engine.wait()
    #expect(sink.lines.count == 3 && engine.status.late == 2)
  }

  /// A wall clock that is put forward makes no partition idle: silence is measured by the clock that nobody sets.
  @Test func aClockPutForwardMakesNoPartitionIdle() throws {
    let clock = TestClock(testEpoch + 60 * second)
    let log = log(0, 0, [row(5), row(6)], visible: 1, atEnd: .caughtUp)
    let sink = MemorySink()
    let engine = Engine(
      graph: try graph(Self.rules),
      options: EngineOptions(workers: 1, order: .bySource, isLive: true, clock: { clock.now }),
      partitions: [log.start()], sink: sink)
    try engine.start()
    try eventually("a row is read") { log.position == 1 }
    clock.advance(90 * 86_400 * second)
    let asked = log.emptyReads
    try eventually("it is asked again") { log.emptyReads > asked + 3 }
    log.show(2, atEnd: .end)
    try engine.wait()
    #expect(engine.status.late == 0)
    #expect(sink.lines.count == 1 && sink.lines[0].contains("\"value\":2"))
  }

  /// What the clock decided stays decided: rows that were late because of it are late again after a restart.
  @Test func lateByTheClockIsLateAgain() throws {
    let rules =
      testSource("a", watermark: "10s", idle: "30s")
        + """
        stream hours = a | window tumbling 1h by key | aggregate n = count()
        metric rows = hours.n
        """
    let graph = try graph(rules)
    let clock = TestClock(testEpoch + 60 * second)
    let log = log(
      0, 0, [row(5), row(30), row(40), row(900), row(45), row(950)], visible: 2, atEnd: .caughtUp)
    func engine(_ sink: MemorySink, _ point: CommitPoint?) throws -> Engine {
      let engine = Engine(
        graph: graph,
        options: EngineOptions(workers: 2, order: .bySource, isLive: true, clock: { clock.now },
          monotonic: { monotonicNanos() + clock.now }),
        partitions: [log.start(at: point)], sink: sink)
      try engine.start()
      return engine
    }
    var sink = MemorySink()
    var running = try engine(sink, nil)
    try eventually("rows are read") { log.position == 2 }
    clock.advance(600 * second)
    try eventually("the partition is idle") { running.status.partitions[0].counters.isIdle }
    log.show(4, atEnd: .nothingYet)
    try eventually("the late row is written") { sink.lines.count == 1 }
    #expect(sink.lines[0].contains("\"reason\":\"late\""))
    var points = try running.stopAndCommitPoints()
    // Twice, since what an engine was told by the commit before it must tell the next.
    for shown in [4, 5] {
      #expect(points.map(\.offset) == [0])
      sink = MemorySink()
      log.show(shown, atEnd: .nothingYet)
      running = try engine(sink, points.first)
      try eventually("rows are read again") { running.status.rows == shown }
      points = try running.stopAndCommitPoints()
      #expect(sink.lines.count == shown - 4)
    }
    sink = MemorySink()
    log.show(6, atEnd: .end)
    running = try engine(sink, points.first)
    try running.wait()
    #expect(sink.lines.count == 1)
    #expect(sink.lines.first?.contains("\"value\":4") == true, "\(sink.lines)")
  }

  /// A partition that fell silent keeps its place over a restart: others' windows need not wait for its idle
  /// time-out anew.
  @Test func resumedSilentPartitionHoldsNothingBack() throws {
    let graph = try graph(Self.rules)
    let busy = log(0, 0, (0..<10).map { row($0 * 40) }, visible: 3, atEnd: .nothingYet)
    let silent = log(0, 1, [row(300)], atEnd: .nothingYet)
    var points: [PartitionIdentity: CommitPoint] = [:]
    func run(_ body: (MemorySink) throws -> Void) throws {
      let sink = MemorySink()
      let engine = Engine(
        graph: graph, options: EngineOptions(workers: 2, order: .bySource, isLive: true, clock: { 0 }),
        partitions: [busy, silent].map { $0.start(at: points[$0.identity]) }, sink: sink)
      try engine.start()
      try body(sink)
      for point in try engine.stopAndCommitPoints() { points[point.partition] = point }
    }
    try run { sink in try eventually("a window closes") { sink.lines.count == 1 } }
    busy.show(8, atEnd: .nothingYet)
    try run { sink in try eventually("windows close") { sink.lines.count == 3 } }
  }

  /// A slow sink, tiny batches and many open panes: everybody waits for somebody, nobody for ever.
  @Test(arguments: [2, 4])
  func slowSinkAndManyPanesDoNotDeadlock(_ workers: Int) throws {
    let rules =
      testSource("a", watermark: "0s") + testSource("b", watermark: "1h")
        + """
        stream fast = a | window hopping 10s every 1s by key | aggregate n = count()
        metric fast_rows = fast.n
        stream slow = b | window tumbling 1s by key | aggregate n = count()
        metric slow_rows = slow.n
        stream totals = fast | window tumbling 5s | aggregate n = sum(n)
        metric totals = totals.n
        """
    let logs =
      (0..<3).map { partition in
        log(0, Int32(partition), (0..<1_500).map { row(Int64($0), "k\($0 % 3)") })
      } + [log(1, 0, (0..<3_000).map { row(Int64($0), "k\($0 % 5)") }), log(1, 1, [row(2_900)])]
    let sink = MemorySink(delayMillis: 1)
    let engine = Engine(
      graph: try graph(rules), options: EngineOptions(workers: workers, batchRows: 16),
      partitions: logs.map { $0.start() }, sink: sink)
    try engine.start()
    try eventually("the run ends", seconds: 60) { !engine.isRunning }
    try engine.wait()
    #expect(Set(sink.lines.map(recordID)).count == sink.lines.count)
    #expect(sink.lines.count { $0.contains("slow_rows") } == 3_001)
  }

  /// What is wrong and what was written can be asked while a write hangs.
  @Test func statusDoesNotWaitForABlockedSink() throws {
    final class BlockedSink: RecordSink, Sendable {
      let isBlocked = Atomic<Bool>(true)
      let isWriting = Atomic<Bool>(false)
      func write(_ batch: OutputBatch) {
        isWriting.store(true, ordering: .releasing)
        while isBlocked.load(ordering: .acquiring) { sleepMillis(1) }
      }
      func flush() {}
      var problem: String? { "the broker is away" }
      func close() {}
    }
    let sink = BlockedSink()
    let engine = Engine(
      graph: try graph(Self.rules), options: EngineOptions(workers: 2, batchRows: 1),
      partitions: [log(0, 0, (0..<100).map { row($0 * 10) }).start()], sink: sink)
    try engine.start()
    try eventually("a write hangs") { sink.isWriting.load(ordering: .acquiring) }
    #expect(engine.outputProblem == "the broker is away")
    #expect(engine.status.recordsByRule.reduce(0, +) == 0)
    sink.isBlocked.store(false, ordering: .releasing)
    try engine.wait()
    #expect(engine.status.recordsByRule.reduce(0, +) > 10)
  }

  /// Nothing that an engine made outlives it.
  @Test func droppedEngineEndsAndIsFreed() throws {
    final class Watched: RecordSink, @unchecked Sendable {
      // @unchecked: an atomic counter.
      static let alive = Atomic<Int>(0)
      init() { Self.alive.add(1, ordering: .relaxed) }
      deinit { Self.alive.subtract(1, ordering: .relaxed) }
      func write(_ batch: OutputBatch) {}
      func flush() {}
      var problem: String? { nil }
      func close() {}
    }
    for stops in [true, false] {
      let log = log(0, 0, (0..<100).map { row($0) }, atEnd: .nothingYet)
      var engine: Engine? = Engine(
        graph: try graph(Self.rules),
        options: EngineOptions(workers: 2, order: .bySource, isLive: true), partitions: [log.start()],
        sink: Watched())
      try engine?.start()
      try eventually("rows are read") { log.position == 100 }
      if stops { _ = try engine?.stopAndCommitPoints() }
      engine = nil
      try eventually("everything is freed") { Watched.alive.load(ordering: .relaxed) == 0 }
    }
  }
}
