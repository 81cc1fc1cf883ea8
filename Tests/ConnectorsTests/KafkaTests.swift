import Catalog
import Foundation
import Runtime
import Synchronization
import Testing

@testable import Connectors

let kafkaEvents = schema([field("x", .int), field("s", .string, absence: .null)], topic: "events")

/// Drives a source as the control thread and a worker would, in one thread.
final class Driver {
  let source: KafkaSource
  var readers: [PartitionIdentity: PartitionStart] = [:]
  var rows: [PartitionIdentity: [Verdict]] = [:]
  var positions: [PartitionIdentity: Int64] = [:]
  var last: [PartitionIdentity: ReadOutcome] = [:]
  /// How often partitions were taken away.
  var revocations = 0
  let batch = RecordBatch(schema: kafkaEvents)

  init(
    _ broker: EmbeddedBroker, group: String = "g", untilEnd: Bool = false, hasShortSession: Bool = true,
    properties: [KafkaProperty] = [], configure: (inout KafkaSourceOptions) -> Void = { _ in }
  ) throws {
    var options = KafkaSourceOptions(
      brokers: broker.bootstrapServers, group: group,
      properties: (hasShortSession ? EmbeddedBroker.consumerProperties : [.init("session.timeout.ms", "45000")]) + properties)
    options.untilEnd = untilEnd
    configure(&options)
    source = try KafkaSource(schema: kafkaEvents, options: options)
  }
  deinit { source.close() }

  func poll() {
    for change in source.poll(timeoutMillis: 5) {
      switch change {
      case .assigned(let starts): for start in starts { readers[start.reader.identity] = start }
      case .revoked(let identities):
        revocations += 1
        for identity in identities { readers[identity] = nil }
        source.released(identities)
      }
    }
  }

  func read() throws {
    for (identity, start) in readers {
      let outcome = try start.reader.read(into: batch)
      last[identity] = outcome
      if outcome == .records {
        rows[identity, default: []] += verdicts(batch)
        positions[identity] = batch.nextOffset
      }
    }
  }

  var total: Int { rows.values.reduce(0) { $0 + $1.count } }

  /// Polls and reads until `done`; false when that takes longer than a minute, which no machine should need.
  func run(until done: (Driver) -> Bool) throws -> Bool {
    let deadline = Date().addingTimeInterval(60)
    while !done(self) {
      if Date() > deadline { return false }
      poll()
      try read()
    }
    return true
  }
}

func produce(_ broker: EmbeddedBroker, _ range: Range<Int>, partitions: Int = 2) throws {
  let writer = try KafkaWriter(brokers: broker.bootstrapServers)
  for number in range {
    try writer.write(
      topic: "events", key: [], payload: Array("{\"x\":\(number)}".utf8),
      timestampMillis: 1_700_000_000_000 + Int64(number), partition: Int32(number % partitions))
  }
  try writer.flush()
}

func numbers(_ verdicts: [Verdict]) -> [Int64] {
  verdicts.compactMap { if case .row(_, let cells) = $0, case .int(let x) = cells[0] { x } else { nil } }
}

/// A worker with two partitions that dawdles now and then, until both are read to their confirmed ends.
private final class ReadingThread: Sendable {
  struct State {
    var incoming: [PartitionStart] = []
    var seen: [Int64] = []
    var isDone = false
    var mustStop = false
  }
  let state = Mutex(State())

  func run() {
    let batch = RecordBatch(schema: kafkaEvents, capacity: 500)
    var readers: [any PartitionReader] = []
    var reads = 0
    while !state.withLock({ $0.mustStop }) {
      let fresh = state.withLock { state in
        defer { state.incoming = [] }
        return state.incoming
      }
      readers += fresh.map(\.reader)
      var caughtUp = 0
      for reader in readers {
        let outcome = try? reader.read(into: batch)
        if outcome == .records {
          let found = numbers(verdicts(batch))
          state.withLock { $0.seen += found }
        }
        if outcome == .caughtUp { caughtUp += 1 }
        reads += 1
        if reads % 7 == 0 { usleep(60_000) }
      }
      // Long enough after the ends were reached that the brokers had to be asked again.
      if caughtUp == 2 && reads > 200 { state.withLock { $0.isDone = true } }
    }
  }
}

@Suite(.ownThreads) struct KafkaTests {
  @Test func consumesCommitsAndResumes() throws {
    let broker = try EmbeddedBroker(brokers: 2)
    try broker.createTopic("events", partitions: 2)
    try produce(broker, 0..<10_000)
    do {
      let first = try Driver(broker)
      #expect(first.source.problem != nil)
      #expect(try first.run { $0.total >= 10_000 })
      #expect(first.readers.values.allSatisfy { $0.committedOffset == nil && $0.metadata == "" })
      #expect(first.source.problem == nil)
      for (identity, verdicts) in first.rows {
        #expect(numbers(verdicts) == (0..<5_000).map { Int64($0 * 2) + Int64(identity.partition) })
        #expect(first.positions[identity] == 5_000)
      }
      #expect(try first.run { $0.last.values.allSatisfy { $0 == .caughtUp } })
      #expect(first.source.lagRecords().values.allSatisfy { $0 == 0 })
      try first.source.commit(
        first.readers.keys.map {
          CommitPoint(
            partition: $0, offset: 4_000 + Int64($0.partition), metadata: "checkpoint-\($0.partition)")
        })
    }
    let second = try Driver(broker)
    #expect(try second.run { $0.total >= 1_999 })
    for (identity, start) in second.readers {
      #expect(start.committedOffset == 4_000 + Int64(identity.partition))
      #expect(start.metadata == "checkpoint-\(identity.partition)")
    }
    #expect(second.rows.values.flatMap(numbers).count == 1_999)
    // New records are seen after the end was reached.
    try produce(broker, 10_000..<10_010)
    #expect(try second.run { $0.total >= 2_009 })
  }

  @Test func boundedReading() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 3)
    try produce(broker, 0..<4_001, partitions: 2)
    let driver = try Driver(broker, untilEnd: true)
    #expect(try driver.run { !$0.readers.isEmpty })
    // What comes after the assignment is not read any more.
    try produce(broker, 4_001..<5_000, partitions: 2)
    #expect(try driver.run { $0.last.count == 3 && $0.last.values.allSatisfy { $0 == .end } })
    #expect(driver.total == 4_001)
  }

  @Test func timesTombstonesAndBadRecords() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 1)
    let writer = try KafkaWriter(brokers: broker.bootstrapServers)
    try writer.write(
      topic: "events", key: [], payload: Array("{\"x\":1}".utf8), timestampMillis: 1_700_000_000_123)
    try writer.write(topic: "events", key: [], payload: Array("{\"x\":\"a\"}".utf8), timestampMillis: 5)
    try writer.write(topic: "events", key: [], payload: Array("{\n \"x\":\t2}\n".utf8), timestampMillis: 5)
    try writer.flush()
    let driver = try Driver(broker)
    #expect(try driver.run { $0.total >= 3 })
    #expect(
      driver.rows.values.first == [
        .row(offset: 0, [.int(1), .null]),
        .reject(offset: 1, reason: #"field `x`: expected an int, found "a""#),
        .row(offset: 2, [.int(2), .null]),
      ])
    let again = try Driver(broker, group: "other")
    // Not by `run`, which reads what it is given.
    while again.readers.isEmpty { again.poll() }
    let reader = try #require(again.readers.values.first?.reader)
    let batch = RecordBatch(schema: kafkaEvents, capacity: 1)
    var outcome = ReadOutcome.nothingYet
    while outcome == .nothingYet {
      again.poll()
      outcome = try reader.read(into: batch)
    }
    #expect(outcome == .records && batch.rowCount == 1)
    #expect(batch.recordTimes[0] == 1_700_000_000_123_000_000)
    #expect(batch.nextOffset == 1)
  }

  @Test func brokersDownAndUpLoseNothing() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 2)
    try produce(broker, 0..<1_000)
    // An outage within the session's time-out: the partitions stay ours, and nothing comes twice either.
    let driver = try Driver(broker, hasShortSession: false)
    #expect(try driver.run { $0.total >= 1_000 })
    #expect(try driver.run { $0.last.values.allSatisfy { $0 == .caughtUp } })
    broker.setBrokerDown(1)
    #expect(try driver.run { $0.source.problem != nil })
    // Without a broker nobody can say that there is nothing more.
    #expect(try driver.run { $0.last.values.allSatisfy { $0 == .nothingYet } })
    #expect(throws: KafkaFailure.self) {
      try driver.source.commit([
        CommitPoint(partition: driver.readers.keys.first!, offset: 1, metadata: "")
      ])
    }
    broker.setBrokerUp(1)
    try produce(broker, 1_000..<2_000)
    #expect(try driver.run { $0.total >= 2_000 })
    #expect(try driver.run { $0.last.values.allSatisfy { $0 == .caughtUp } && $0.source.problem == nil })
    let isComplete = driver.rows.values.flatMap(numbers).sorted() == (0..<2_000).map(Int64.init)
    #expect(isComplete)
    try driver.source.commit([
      CommitPoint(partition: driver.readers.keys.first!, offset: 1, metadata: "")
    ])
  }

  @Test func aLostSessionRepeatsWhatWasNotCommitted() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 1)
    try produce(broker, 0..<100, partitions: 1)
    let driver = try Driver(broker)
    #expect(try driver.run { $0.total == 100 })
    let identity = try #require(driver.readers.keys.first)
    try driver.source.commit([CommitPoint(partition: identity, offset: 60, metadata: "c1")])
    broker.setBrokerDown(1)
    #expect(try driver.run { $0.readers.isEmpty })
    driver.rows = [:]
    broker.setBrokerUp(1)
    try produce(broker, 100..<110, partitions: 1)
    #expect(try driver.run { $0.total == 50 })
    #expect(driver.readers[identity]?.metadata == "c1")
    #expect(driver.rows.values.flatMap(numbers) == (60..<110).map(Int64.init))
  }

  @Test func unreadPartitionsArePausedAndLoseNothing() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 1)
    try produce(broker, 0..<20_000, partitions: 1)
    var options = KafkaSourceOptions(
      brokers: broker.bootstrapServers, group: "g", properties: EmbeddedBroker.consumerProperties)
    options.pauseAfterNanos = 50_000_000
    let source = try KafkaSource(schema: kafkaEvents, options: options)
    defer { source.close() }
    var reader: (any PartitionReader)?
    let batch = RecordBatch(schema: kafkaEvents, capacity: 700)
    var seen: [Int64] = []
    let deadline = Date().addingTimeInterval(60)
    while seen.count < 20_000 && Date() < deadline {
      for case .assigned(let starts) in source.poll(timeoutMillis: 5) { reader = starts.first?.reader }
      guard let reader else { continue }
      if try reader.read(into: batch) == .records {
        seen += numbers(verdicts(batch))
        let pauses = source.pauseCount
        // The worker is busy elsewhere.
        while seen.count % 4_900 < 700 && source.pauseCount == pauses && Date() < deadline {
          _ = source.poll(timeoutMillis: 20)
        }
      }
    }
    #expect(source.pauseCount >= 3)
    let isComplete = seen == (0..<20_000).map(Int64.init)
    #expect(isComplete)
  }

  /// As in production: one thread polls, pauses and confirms ends while another reads.
  @Test func readsOnAnotherThread() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 2)
    try produce(broker, 0..<10_000)
    var options = KafkaSourceOptions(
      brokers: broker.bootstrapServers, group: "g", properties: EmbeddedBroker.consumerProperties)
    options.pauseAfterNanos = 20_000_000
    let source = try KafkaSource(schema: kafkaEvents, options: options)
    let worker = ReadingThread()
    let thread = Thread { worker.run() }
    thread.start()
    let deadline = Date().addingTimeInterval(60)
    while worker.state.withLock({ !$0.isDone }) && Date() < deadline {
      for case .assigned(let starts) in source.poll(timeoutMillis: 5) {
        worker.state.withLock { $0.incoming += starts }
      }
      _ = source.lagRecords()
      _ = source.problem
    }
    worker.state.withLock { $0.mustStop = true }
    while !thread.isFinished { usleep(1_000) }
    source.close()
    let isComplete = worker.state.withLock { $0.seen.sorted() } == (0..<10_000).map(Int64.init)
    #expect(isComplete)
  }

  @Test func aSecondConsumerTakesItsShare() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 4)
    try produce(broker, 0..<400, partitions: 4)
    let first = try Driver(broker)
    #expect(try first.run { $0.readers.count == 4 && $0.total == 400 })
    try first.source.commit(first.positions.map { CommitPoint(partition: $0, offset: $1, metadata: "m") })
    let second = try Driver(broker)
    #expect(
      try second.run {
        first.poll()
        return $0.readers.count == 2 && first.readers.count == 2
      })
    #expect(Set(first.readers.keys).isDisjoint(with: second.readers.keys))
    #expect(second.readers.values.allSatisfy { $0.committedOffset == 100 && $0.metadata == "m" })
    second.source.close()
    second.readers = [:]
    #expect(try first.run { $0.readers.count == 4 })
  }

  @Test func propertiesPassThrough() throws {
    let broker = try EmbeddedBroker()
    do {
      _ = try Driver(broker, properties: [.init("no.such.thing", "1")])
      Issue.record("accepted")
    } catch { #expect("\(error)".contains("no.such.thing")) }
    #expect(throws: KafkaFailure.self) {
      try KafkaWriter(brokers: broker.bootstrapServers, properties: [.init("linger.ms", "soon")])
    }
    _ = try Driver(broker, properties: [.init("partition.assignment.strategy", "range")])
  }

  @Test func rangeAssignmentWorksAsWell() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 2)
    try produce(broker, 0..<100)
    let driver = try Driver(broker, properties: [.init("partition.assignment.strategy", "range")])
    #expect(try driver.run { $0.total == 100 })
  }

  @Test func sinkWritesByKind() throws {
    let broker = try EmbeddedBroker()
    for topic in ["rulesd.metrics", "rulesd.alerts", "special"] {
      try broker.createTopic(topic, partitions: 2)
    }
    var options = KafkaSinkOptions(brokers: broker.bootstrapServers)
    options.topicOverrides = ["special"]
    let sink = try KafkaSink(options: options)
    var batch = OutputBatch()
    batch.add(.metric, "{\"a\":1}", key: "k")
    batch.add(.alert, "{\"b\":2}", key: "")
    batch.add(.late, "{\"c\":3}", key: "", topic: 0)
    try sink.write(batch)
    try sink.flush()
    #expect(sink.problem == nil)
    for (topic, expected) in [
      ("rulesd.metrics", "k {\"a\":1}\n"), ("rulesd.alerts", " {\"b\":2}\n"), ("special", " {\"c\":3}\n"),
    ] {
      #expect(
        try kcat(["-C", "-b", broker.bootstrapServers, "-t", topic, "-e", "-q", "-f", "%k %s\n"]) == expected)
    }
    // kcat's own recording is one that we can read.
    let scratch = try Scratch()
    try produceOne(broker, topic: "rulesd.metrics", "{\"x\":5,\"s\":\"a\\\"b\"}")
    let json = try kcat(["-C", "-b", broker.bootstrapServers, "-t", "rulesd.metrics", "-e", "-q", "-J"])
    let readers = try openRecording(path: scratch.file("dump", json), schema: kafkaEvents, firstPartition: 0)
    let all = try readers.flatMap { try readAll($0, kafkaEvents) }
    #expect(
      all.contains { if case .row(_, let cells) = $0 { cells == [.int(5), .string("a\"b")] } else { false } })
  }

  @Test func aRecordThatIsRefusedFailsTheFlush() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("rulesd.metrics", partitions: 1)
    var options = KafkaSinkOptions(brokers: broker.bootstrapServers)
    options.isIdempotent = false
    let sink = try KafkaSink(options: options)
    // MESSAGE_TOO_LARGE: no retry mends it.
    broker.pushErrors(apiKey: 0, codes: [10])
    var batch = OutputBatch()
    batch.add(.metric, "{}", key: "")
    try sink.write(batch)
    #expect(throws: SinkFailure.self) { try sink.flush() }
    try sink.write(batch)
    try sink.flush()
  }

  @Test func aSinkOutlastsItsBrokers() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("rulesd.metrics", partitions: 1)
    var options = KafkaSinkOptions(brokers: broker.bootstrapServers)
    options.flushMillisMax = 2_000
    let sink = try KafkaSink(options: options)
    var batch = OutputBatch()
    batch.add(.metric, "{\"n\":1}", key: "")
    try sink.write(batch)
    try sink.flush()
    broker.setBrokerDown(1)
    try sink.write(batch)
    #expect(throws: SinkFailure.self) { try sink.flush() }
    #expect(sink.problem != nil)
    broker.setBrokerUp(1)
    var flushed = false
    for _ in 0..<10 where !flushed { flushed = (try? sink.flush()) != nil }
    #expect(flushed)
    #expect(sink.problem == nil)
    let text = try kcat(["-C", "-b", broker.bootstrapServers, "-t", "rulesd.metrics", "-e", "-q"])
    #expect(text == "{\"n\":1}\n{\"n\":1}\n")
  }
}

extension OutputBatch {
  mutating func add(_ kind: RecordKind, _ json: String, key: String, topic: Int32 = -1) {
    entries.append(
      .init(
        kind: kind, rule: 0, topic: topic, start: bytes.count, length: json.utf8.count, keyStart: keys.count,
        keyLength: key.utf8.count))
    bytes += Array(json.utf8)
    keys += Array(key.utf8)
  }
}

private func produceOne(_ broker: EmbeddedBroker, topic: String, _ json: String) throws {
  let writer = try KafkaWriter(brokers: broker.bootstrapServers)
  try writer.write(topic: topic, key: [], payload: Array(json.utf8), timestampMillis: 0)
  try writer.flush()
}

func kcat(_ arguments: [String]) throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/kcat")
  process.arguments = arguments
  let pipe = Pipe()
  process.standardOutput = pipe
  try process.run()
  let data = pipe.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  return String(decoding: data, as: UTF8.self)
}
