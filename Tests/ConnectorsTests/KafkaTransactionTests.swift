import Foundation
import Runtime
import Synchronization
import Testing

@testable import Connectors

/// Calls of one thread that another waits for.
private final class Background: Sendable {
  private let done = Mutex(false)
  init(_ body: @escaping @Sendable () -> Void) {
    let thread = Thread { [self] in
      body()
      done.withLock { $0 = true }
    }
    thread.start()
  }
  var isDone: Bool { done.withLock { $0 } }
  /// False when it takes longer than a minute.
  func wait() -> Bool {
    let deadline = Date().addingTimeInterval(60)
    while !isDone && Date() < deadline { usleep(1_000) }
    return isDone
  }
}

private func records(_ texts: String...) -> OutputBatch {
  var batch = OutputBatch()
  for text in texts { batch.add(.metric, text, key: "") }
  return batch
}

/// Transactions on the wire. The mock cluster takes them all, but shows what is aborted, and forgets offsets: what
/// they mean is tested against real brokers (`KafkaClusterTests`) and in the simulation.
@Suite(.ownThreads) struct KafkaTransactionTests {
  private func makeBroker(brokers: Int = 1) throws -> EmbeddedBroker {
    let broker = try EmbeddedBroker(brokers: brokers)
    for topic in ["events", "rulesd.metrics"] { try broker.createTopic(topic, partitions: 1) }
    return broker
  }

  private func makeSink(
    _ broker: EmbeddedBroker, _ configure: (inout KafkaTransactionOptions) -> Void = { _ in }
  ) throws -> KafkaTransactionalSink {
    var transactions = KafkaTransactionOptions(transactionalID: "rulesd.test")
    transactions.timeoutMillis = 20_000
    configure(&transactions)
    let sink = try KafkaTransactionalSink(
      options: KafkaSinkOptions(brokers: broker.bootstrapServers), transactions: transactions)
    return sink
  }

  private func written(_ broker: EmbeddedBroker) throws -> [String] {
    let text = try kcat([
      "-C", "-b", broker.bootstrapServers, "-t", "rulesd.metrics", "-e", "-q", "-X", "isolation.level=read_uncommitted",
    ])
    return text.split(separator: "\n").map(String.init)
  }

  private func offsets(_ driver: Driver) throws -> [SourceOffsets] {
    let identity = PartitionIdentity(source: 0, topic: "events", partition: 0)
    let points = [CommitPoint(partition: identity, offset: 3, metadata: "c-1")]
    return [SourceOffsets(source: 0, points: points, group: try driver.source.groupHandle())]
  }

  /// Offsets where the request is about them: a group takes seconds to begin.
  private func offsets(_ broker: EmbeddedBroker, forRequest apiKey: Int) throws -> (offsets: [SourceOffsets], Driver?) {
    guard apiKey == 25 || apiKey == 28 else { return ([], nil) }
    let driver = try joined(broker)
    return (try offsets(driver), driver)
  }

  private func joined(_ broker: EmbeddedBroker) throws -> Driver {
    let driver = try Driver(broker)
    #expect(try driver.run { $0.source.problem == nil })
    return driver
  }

  @Test func epochsAreTransactionsInOrder() throws {
    let broker = try makeBroker()
    let driver = try joined(broker)
    let sink = try makeSink(broker)
    #expect(throws: SinkFailure.self) { try sink.write(records("early")) }
    try sink.prepare()
    #expect(sink.problem == nil)
    #expect(throws: SinkFailure.self) { try sink.commit(1, []) }
    try sink.prepare()
    try sink.write(records("1", "2"))
    sink.barrier(1)
    // Behind the barrier: not on the brokers before it is committed.
    try sink.write(records("3"))
    sink.barrier(2)
    try sink.write(records("4"))
    try sink.flush()
    #expect(try written(broker) == ["1", "2"])
    try sink.commit(1, try offsets(driver))
    try sink.flush()
    #expect(try written(broker) == ["1", "2", "3"])
    sink.barrier(3)
    // Two epochs at once.
    try sink.commit(3, try offsets(driver))
    #expect(try written(broker) == ["1", "2", "3", "4"])
    // Offsets without records.
    sink.barrier(4)
    try sink.commit(4, try offsets(driver))
    #expect(sink.problem == nil)
  }

  @Test func anEmptyEpochIsNoTransaction() throws {
    let broker = try makeBroker()
    let sink = try makeSink(broker)
    try sink.prepare()
    // Any transaction would fail.
    broker.pushErrors(apiKey: 26, codes: [47])
    for epoch in 1...3 {
      sink.barrier(UInt64(epoch))
      try sink.commit(UInt64(epoch), [])
    }
    try sink.write(records("1"))
    sink.barrier(4)
    #expect(throws: SinkFenced.self) { try sink.commit(4, []) }
  }

  /// By API key: what a retry mends.
  @Test(arguments: [
    (22, [14, 51, 15]), (24, [51, 14, 51]), (25, [14, 51]), (28, [14, 14]), (26, [14, 51, 51]), (0, [6, 3, 5]),
  ])
  func passingTroublesPass(_ apiKey: Int, _ codes: [Int]) throws {
    let broker = try makeBroker()
    let given = try offsets(broker, forRequest: apiKey)
    let sink = try makeSink(broker)
    if apiKey != 22 { try sink.prepare() }
    broker.pushErrors(apiKey: Int16(apiKey), codes: codes.map { Int32($0) })
    if apiKey == 22 { try sink.prepare() }
    try sink.write(records("1"))
    sink.barrier(1)
    try sink.commit(1, given.offsets)
    #expect(try written(broker) == ["1"])
    #expect(sink.problem == nil)
  }

  /// By API key and code: what it means. Afterwards, writes are dropped until the sink is prepared again.
  @Test(arguments: [
    (0, 10, "TransactionAborted"), (26, 59, "TransactionAborted"), (28, 42, "TransactionAborted"),
    (26, 47, "SinkFenced"), (26, 90, "SinkFenced"), (24, 47, "SinkFenced"), (28, 47, "SinkFenced"),
    (28, 22, "GroupFenced"), (28, 25, "GroupFenced"), (28, 82, "GroupFenced"), (28, 30, "SinkFailure"),
    (26, 53, "SinkFailure"),
  ])
  func failuresAreToldApart(_ apiKey: Int, _ code: Int, _ expected: String) throws {
    let broker = try makeBroker()
    let (given, driver) = try offsets(broker, forRequest: apiKey)
    defer { driver?.source.close() }
    let sink = try makeSink(broker)
    try sink.prepare()
    broker.pushErrors(apiKey: Int16(apiKey), codes: [Int32(code)])
    try sink.write(records("doomed"))
    sink.barrier(1)
    try sink.write(records("behind"))
    do {
      try sink.commit(1, given)
      Issue.record("committed")
    } catch {
      #expect("\(type(of: error))" == expected, "\(error)")
      if let error = error as? GroupFenced { #expect(error.isFinal == (code == 82)) }
      #expect(sink.problem != nil)
    }
    let before = try written(broker)
    #expect(!before.contains("behind"))
    try sink.write(records("dropped"))
    sink.barrier(2)
    #expect(throws: TransactionAborted.self) { try sink.commit(2, given) }
    try sink.prepare()
    #expect(sink.problem == nil)
    try sink.write(records("again"))
    sink.barrier(3)
    try sink.commit(3, given)
    #expect(try written(broker) == before + ["again"])
  }

  /// The brokers' word is the same as for one that was fenced.
  @Test func aTransactionThatTookTooLongIsAborted() throws {
    let broker = try makeBroker()
    let sink = try makeSink(broker) { $0.timeoutMillis = 1_000 }
    try sink.prepare()
    try sink.write(records("1"))
    try sink.flush()
    sink.barrier(1)
    usleep(1_100_000)
    broker.pushErrors(apiKey: 26, codes: [47])
    #expect(throws: TransactionAborted.self) { try sink.commit(1, []) }
    try sink.prepare()
  }

  @Test func writesWaitForRoom() throws {
    let broker = try makeBroker()
    let sink = try makeSink(broker) { $0.waitingBytesMax = 3 }
    try sink.prepare()
    try sink.write(records("1"))
    sink.barrier(1)
    try sink.write(records("two"))
    var blocked = Background { try? sink.write(records("3")) }
    usleep(50_000)
    #expect(!blocked.isDone)
    try sink.commit(1, [])
    #expect(blocked.wait())
    sink.barrier(2)
    try sink.write(records("four"))
    blocked = Background { try? sink.write(records("5")) }
    usleep(50_000)
    #expect(!blocked.isDone)
    // An engine that is stopped must not hang in its sink.
    sink.abort()
    #expect(blocked.wait())
    try sink.write(records("6"))
    try sink.prepare()
    let seen = try written(broker)
    #expect(seen == ["1", "two", "3"])
  }

  @Test func brokersThatAreAwayForAWhile() throws {
    let broker = try makeBroker()
    let sink = try makeSink(broker) { $0.prepareMillisMax = 1_000 }
    broker.setBrokerDown(1)
    #expect(throws: KafkaFailure.self) { try sink.prepare() }
    #expect(sink.problem != nil)
    broker.setBrokerUp(1)
    var isPrepared = false
    for _ in 0..<20 where !isPrepared { isPrepared = (try? sink.prepare()) != nil }
    #expect(isPrepared)
    try sink.write(records("1"))
    try sink.flush()
    broker.setBrokerDown(1)
    try sink.write(records("2"))
    sink.barrier(1)
    let failed = Mutex<String?>(nil)
    let commit = Background {
      do { try sink.commit(1, []) } catch { failed.withLock { $0 = "\(error)" } }
    }
    usleep(500_000)
    #expect(!commit.isDone)
    broker.setBrokerUp(1)
    #expect(commit.wait())
    #expect(failed.withLock { $0 } == nil)
    #expect(try written(broker) == ["1", "2"])
  }

  @Test func fanOutCompletesTheOthersFirst() throws {
    final class Failing: RecordSink {
      var completed: [UInt64] = []
      var fails = false
      func write(_ batch: OutputBatch) {}
      func flush() {}
      func complete(_ epoch: UInt64) throws {
        if fails { throw SinkFailure("full") }
        completed.append(epoch)
      }
      var problem: String? { nil }
      func close() {}
    }
    let broker = try makeBroker()
    let other = Failing()
    let sink = TransactionalFanOutSink(try makeSink(broker), others: [other])
    try sink.prepare()
    try sink.write(records("1"))
    sink.barrier(1)
    other.fails = true
    #expect(throws: SinkFailure.self) { try sink.commit(1, []) }
    other.fails = false
    // Nothing is lost by that: the barrier is still there.
    try sink.commit(1, [])
    #expect(other.completed == [1])
    #expect(try written(broker) == ["1"])
  }

  @Test func aBarrierWaitsForWhatLiesBeforeIt() throws {
    let broker = try makeBroker()
    var options = KafkaSinkOptions(brokers: broker.bootstrapServers)
    options.flushMillisMax = 300
    let sink = try KafkaSink(options: options)
    try sink.write(records("1", "2"))
    sink.barrier(1)
    var isComplete = false
    for _ in 0..<100 where !isComplete { isComplete = (try? sink.complete(1)) != nil }
    #expect(isComplete)
    broker.setBrokerDown(1)
    try sink.write(records("3"))
    // What comes behind the barrier does not count.
    try sink.complete(1)
    sink.barrier(2)
    #expect(throws: SinkFailure.self) { try sink.complete(2) }
    broker.setBrokerUp(1)
    isComplete = false
    for _ in 0..<100 where !isComplete { isComplete = (try? sink.complete(2)) != nil }
    #expect(isComplete)
    #expect(try written(broker) == ["1", "2", "3"])
  }

  @Test func aRecordThatIsRefusedSpoilsItsEpoch() throws {
    let broker = try makeBroker()
    var options = KafkaSinkOptions(brokers: broker.bootstrapServers)
    options.isIdempotent = false
    let sink = try KafkaSink(options: options)
    try sink.write(records("1"))
    sink.barrier(1)
    try sink.complete(1)
    // MESSAGE_TOO_LARGE, behind a barrier.
    sink.barrier(2)
    broker.pushErrors(apiKey: 0, codes: [10])
    try sink.write(records("refused"))
    sink.barrier(3)
    try sink.complete(2)
    #expect(throws: RecordsLost.self) { try sink.complete(3) }
    try sink.write(records("refused"))
    sink.barrier(4)
    try sink.complete(4)
    #expect(try written(broker) == ["1", "refused"])
  }
}
