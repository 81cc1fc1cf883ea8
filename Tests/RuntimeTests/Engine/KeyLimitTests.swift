import Foundation
import Testing

@testable import Runtime

/// `limit N keys`: which rows a pane takes, and that it is the same ones in every run.
@Suite struct KeyLimitTests {
  private static func rules(_ limit: String) -> String {
    testSource("a", watermark: "10s")
      + """
      stream minutes = a | window tumbling 1m by key \(limit) | aggregate n = count(), total = sum(value)
      metric rows = minutes.n
      metric total = minutes.total
      stream sliding = a where value > 0 | window hopping 1m every 20s by key, seq \(limit) | aggregate n = count()
      metric sliding_rows = sliding.n
      stream unlimited = a | window tumbling 10s | aggregate n = count()
      metric all_rows = unlimited.n
      """
  }

  /// Rows that the first `limit` keys of each pane leave, in the order of offsets, by partition.
  private func kept(
    _ records: [TestRecord], pane: Int64, limit: Int, _ key: (TestRecord) -> String
  ) -> (rows: [TestRecord], dropped: Int) {
    var keys: [Int64: Set<String>] = [:]
    var rows: [TestRecord] = []
    var dropped = 0
    for record in records {
      let start = record.time / pane
      if keys[start, default: []].contains(key(record)) || keys[start, default: []].count < limit {
        keys[start, default: []].insert(key(record))
        rows.append(record)
      } else {
        dropped += 1
      }
    }
    return (rows, dropped)
  }

  private func run(
    _ text: String, _ histories: [[TestRecord]], workers: Int = 1, batchRows: Int = 4_096
  ) throws -> (lines: [String], dropped: [[String]: Int]) {
    let graph = try graph(text)
    let sink = MemorySink()
    let engine = Engine(
      graph: graph, options: EngineOptions(workers: workers, batchRows: batchRows),
      partitions: histories.enumerated().map { log(0, Int32($0), $1).start() }, sink: sink)
    try engine.start()
    try engine.wait()
    var dropped: [[String]: Int] = [:]
    for (exchange, status) in zip(graph.exchanges, engine.status.operators) {
      dropped[exchange.rules, default: 0] += status.rowsOverLimit
    }
    return (sink.lines, dropped)
  }

  /// A row count for each line of a rule, by the line's time and labels.
  private func values(_ lines: [String], of rule: String) throws -> [String: Double] {
    var result: [String: Double] = [:]
    for line in lines where line.contains("\"rule\":\"\(rule)\"") {
      let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
      let labels = try #require(object["labels"] as? [String: String])
      let value = try #require((object["values"] as? [String: NSNumber])?["value"])
      let time = try #require(object["time"] as? String)
      result["\(time) \(labels.sorted { $0.key < $1.key }.map(\.value).joined(separator: "/"))"] = value.doubleValue
    }
    return result
  }

  /// Against a slow reference, and against itself with other workers and batches.
  @Test(arguments: [(1, 1), (2, 3), (3, 4), (4, 5), (5, 6), (6, 1_000)])
  func keepsTheFirstKeysOfEachPane(_ seed: Int, _ limit: Int) throws {
    var random = SeededRandom(UInt64(seed))
    let histories = (0..<3).map { partition in
      randomRecords(
        400, from: testEpoch + Int64(partition) * 3 * second, keys: 5, stepNanosMax: 2 * second,
        boundNanos: 10 * second, lateOneIn: 0, garbageOneIn: 0, random: &random)
    }
    let text = Self.rules("limit \(limit) keys")
    let first = try run(text, histories)
    for workers in [1, 2, 4] {
      for batchRows in [1, 7, 4_096] {
        let again = try run(text, histories, workers: workers, batchRows: batchRows)
        #expect(again.lines == first.lines, "\(workers) workers, batches of \(batchRows)")
        #expect(again.dropped == first.dropped)
      }
    }
    let minutes = histories.map { kept($0, pane: minute, limit: limit) { $0.key } }
    let slides = histories.map { rows in
      kept(rows.filter { ($0.value ?? -1) > 0 }, pane: 20 * second, limit: limit) { "\($0.key)/\($0.seq)" }
    }
    #expect(first.dropped[["rows", "total"]] == minutes.reduce(0) { $0 + $1.dropped })
    #expect(first.dropped[["sliding_rows"]] == slides.reduce(0) { $0 + $1.dropped })
    #expect(first.dropped[["all_rows"]] == 0)
    // The total of each rule's counts is the rows that were kept: three times over where windows overlap.
    let counted = try values(first.lines, of: "rows")
    #expect(counted.values.reduce(0, +) == Double(minutes.reduce(0) { $0 + $1.rows.count }))
    var expected: [String: Double] = [:]
    let format = ISO8601DateFormatter()
    format.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    for row in minutes.flatMap(\.rows) {
      let end = Date(timeIntervalSince1970: Double((row.time / minute + 1) * 60))
      expected["\(format.string(from: end)) \(row.key)", default: 0] += 1
    }
    #expect(counted == expected)
    let sliding = try values(first.lines, of: "sliding_rows").values.reduce(0, +)
    #expect(sliding == 3 * Double(slides.reduce(0) { $0 + $1.rows.count }))
    if limit == 1_000 { #expect(first.dropped.values.allSatisfy { $0 == 0 }) }
  }

  /// At the limit, one below and one above, with batches that end just there.
  @Test(arguments: [1, 2, 5, 4_096])
  func theLimitIsExact(_ batchRows: Int) throws {
    let records = (0..<10).flatMap { round in
      (0..<5).map { TestRecord(time: testEpoch + Int64(round), key: "k\($0)", value: 1, seq: Int64($0)) }
    }
    for (limit, dropped) in [(6, 0), (5, 0), (4, 10), (1, 40)] {
      let result = try run(Self.rules("limit \(limit) keys"), [records], batchRows: batchRows)
      #expect(result.dropped[["rows", "total"]] == dropped, "limit \(limit)")
      #expect(try values(result.lines, of: "rows").values.allSatisfy { $0 == 10 })
      #expect(try values(result.lines, of: "rows").count == min(limit, 5))
    }
  }

  /// A limit that is not reached changes nothing, and neither do rules beside it.
  @Test func limitsDoNotMeetOtherRules() throws {
    var random = SeededRandom(11)
    let records = randomRecords(
      600, from: testEpoch, keys: 6, stepNanosMax: second, boundNanos: 10 * second, lateOneIn: 0, garbageOneIn: 0,
      random: &random)
    let alone =
      testSource("a", watermark: "10s")
      + """
      stream minutes = a | window tumbling 1m by key limit 3 keys | aggregate n = count()
      metric rows = minutes.n
      """
    let beside =
      alone + "\n" + """
        stream tens = a | window tumbling 10s by key limit 3 keys | aggregate n = count()
        metric ten_rows = tens.n
        stream others = a | window tumbling 1m by key | aggregate n = count()
        metric other_rows = others.n
        """
    let first = try run(alone, [records]).lines
    #expect(first.count > 10)
    #expect(try run(beside, [records]).lines.filter { $0.contains("\"rule\":\"rows\"") } == first)
  }
}

/// The memory limit: partitions wait, and nothing stops for ever.
@Suite struct StateGateTests {
  @Test func closesAboveAndOpensBelowNineTenths() {
    let gate = StateGate(bytesMax: 1_000, workers: 2)
    for (first, second, isClosed) in [
      (500, 499, false), (500, 500, false), (501, 500, true), (500, 500, true), (400, 500, true), (399, 500, false),
      (500, 500, false), (0, 1_001, true), (0, 0, false),
    ] {
      gate.note(bytes: first, worker: 0)
      gate.note(bytes: second, worker: 1)
      #expect(gate.isClosed == isClosed, "\(first) and \(second) bytes")
    }
    let open = StateGate(bytesMax: 0, workers: 1)
    open.note(bytes: .max, worker: 0)
    #expect(!open.isClosed)
  }

  @Test func lastIsTheFurthestBehindOfItsSource() {
    let progress = Progress(sources: [0, 0, 1], leadNanos: 60)
    #expect(progress.isLast(0, watermark: beforeAllTime) && progress.isLast(1, watermark: beforeAllTime))
    progress.update(0, watermark: 100, isReadable: true)
    progress.update(1, watermark: 90, isReadable: false)
    progress.update(2, watermark: 10, isReadable: true)
    // Whether it has something to read or not: until it moves, no window closes.
    #expect(!progress.isLast(0, watermark: 100) && progress.isLast(1, watermark: 90))
    #expect(progress.isLast(2, watermark: 10))
    progress.update(1, watermark: 100, isReadable: true)
    #expect(progress.isLast(0, watermark: 100) && progress.isLast(1, watermark: 100))
    progress.update(0, watermark: afterAllTime, isReadable: false)
    #expect(progress.isLast(1, watermark: 100))
  }

  private static let rules =
    testSource("a", watermark: "10s")
    + testSource("b", watermark: "10s")
    + """
    stream minutes = a | window tumbling 1m by key | aggregate n = count(), total = sum(value)
    metric rows = minutes.n
    stream hours = minutes | window tumbling 1h by key | aggregate n = sum(n)
    metric hour_rows = hours.n
    stream others = b | window hopping 5m every 1m by key | aggregate n = count()
    metric other_rows = others.n
    """

  /// With a limit that is exceeded from the first count on, everything is still read, and the output is the same.
  @Test(arguments: [(1, OutputOrder.total), (2, .total), (3, .bySource)])
  func alwaysOverTheLimitStillEnds(_ workers: Int, _ order: OutputOrder) throws {
    var random = SeededRandom(7)
    let histories = (0..<4).map { partition in
      randomRecords(
        [3_000, 500, 0, 2_000][partition], from: testEpoch + Int64(partition) * 400 * second, keys: 40,
        stepNanosMax: 2 * second, boundNanos: 10 * second, lateOneIn: 30, garbageOneIn: 50, random: &random)
    }
    let graph = try graph(Self.rules)
    func run(_ bytesMax: Int) throws -> (lines: [String], wasHeld: Bool) {
      let sink = MemorySink()
      var options = EngineOptions(workers: workers, batchRows: 16, order: order)
      options.stateBytesMax = bytesMax
      let logs = (0..<2).flatMap { source in
        histories.enumerated().map { log(source, Int32($0), source == 0 ? $1 : Array($1.prefix(700))) }
      }
      let engine = Engine(graph: graph, options: options, partitions: logs.map { $0.start() }, sink: sink)
      try engine.start()
      var wasHeld = false
      while engine.isRunning {
        wasHeld = wasHeld || engine.status.isOverStateLimit
        sleepMillis(1)
      }
      try engine.wait()
      return (sink.lines, wasHeld)
    }
    let free = try run(0)
    let held = try run(1)
    #expect(!free.wasHeld && held.wasHeld)
    #expect(free.lines.count > 1_000)
    #expect(order == .total ? held.lines == free.lines : held.lines.sorted() == free.lines.sorted())
  }

  /// The partition in front waits while the one behind is silent, and goes on with it.
  @Test func theOneInFrontWaits() throws {
    let ahead = (0..<40_000).map {
      TestRecord(time: testEpoch + 20 * second + Int64($0), key: "key number \($0)", value: 1)
    }
    let front = log(0, 0, ahead)
    let behind = log(
      0, 1, [TestRecord(time: testEpoch, key: "k", value: 1), TestRecord(time: testEpoch + 600 * second, key: "k")],
      visible: 1, atEnd: .nothingYet)
    let sink = MemorySink()
    var options = EngineOptions(workers: 2, batchRows: 64, order: .bySource, isLive: true, clock: { testEpoch })
    options.stateBytesMax = 100_000
    let engine = Engine(
      graph: try graph(Self.rules), options: options, partitions: [front.start(), behind.start()], sink: sink)
    try engine.start()
    try eventually("state is over its limit") { engine.status.isOverStateLimit }
    let asked = behind.emptyReads
    try eventually("the one behind is still asked") { behind.emptyReads > asked + 10 }
    let position = front.position
    let again = behind.emptyReads
    try eventually("time goes by") { behind.emptyReads > again + 10 }
    #expect(front.position == position && position < ahead.count)
    behind.show(2, atEnd: .end)
    try engine.wait()
    #expect(front.position == ahead.count)
    #expect(sink.lines.count { $0.contains("\"rule\":\"rows\"") } == ahead.count + 2)
    #expect(engine.status.rows == ahead.count + 2 && engine.status.late == 0)
  }
}
