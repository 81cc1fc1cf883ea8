import Foundation
import Runtime
import Testing

@testable import Connectors

private let brokers = ProcessInfo.processInfo.environment["RULESD_TEST_BROKERS"] ?? ""

/// What only real brokers do: `RULESD_TEST_BROKERS=host:port make test-kafka`. Topics, groups and transactional ids are
/// of this run, and stay behind; the brokers must create topics by themselves, or have `kcat -L` do so.
@Suite(.enabled(if: !brokers.isEmpty), .serialized) struct KafkaClusterTests {
  private let run = "rulesd-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
  private var input: String { "\(run).in" }
  private var output: String { "\(run).out" }
  private var identity: PartitionIdentity { PartitionIdentity(source: 0, topic: input, partition: 0) }

  private func makeSource(
    topic: String? = nil, group: String = "g", _ configure: (inout KafkaSourceOptions) -> Void = { _ in }
  ) throws -> KafkaSource {
    var options = KafkaSourceOptions(brokers: brokers, group: "\(run).\(group)")
    configure(&options)
    return try KafkaSource(
      schema: schema([field("x", .int)], topic: topic ?? input), options: options)
  }

  private func makeSink(_ name: String = "sink") throws -> KafkaTransactionalSink {
    var options = KafkaSinkOptions(brokers: brokers)
    options.topics = Dictionary(uniqueKeysWithValues: RecordKind.allCases.map { ($0, output) })
    var transactions = KafkaTransactionOptions(transactionalID: "\(run).\(name)")
    transactions.prepareMillisMax = 30_000
    return try KafkaTransactionalSink(options: options, transactions: transactions)
  }

  private func produce(_ topic: String, _ numbers: Range<Int>) throws {
    let writer = try KafkaWriter(brokers: brokers)
    for number in numbers {
      try writer.write(topic: topic, key: [], payload: Array("{\"x\":\(number)}".utf8), timestampMillis: 0)
    }
    try writer.flush()
  }

  private func record(_ number: Int) -> OutputBatch {
    var batch = OutputBatch()
    batch.add(.metric, "{\"x\":\(number)}", key: "k")
    return batch
  }

  private func within(_ seconds: Double = 60, _ done: () throws -> Bool) throws -> Bool {
    let deadline = Date().addingTimeInterval(seconds)
    while try !done() { if Date() > deadline { return false } }
    return true
  }

  /// Polls until partitions are assigned.
  private func starts(of source: KafkaSource, letting others: [KafkaSource] = []) throws -> [PartitionStart] {
    var found: [PartitionStart] = []
    _ = try within {
      for other in others { _ = other.poll(timeoutMillis: 5) }
      for case .assigned(let more) in source.poll(timeoutMillis: 20) { found += more }
      return !found.isEmpty
    }
    return found
  }

  /// What readers of committed records find in the output, to its end.
  private func committed() throws -> [Int64] {
    let source = try makeSource(topic: output, group: "check-\(UInt32.random(in: 0 ... .max))") { $0.untilEnd = true }
    defer { source.close() }
    var seen: [Int64] = []
    let batch = RecordBatch(schema: source.schema)
    for start in try starts(of: source) {
      _ = try within {
        _ = source.poll(timeoutMillis: 5)
        let outcome = try start.reader.read(into: batch)
        if outcome == .records { seen += numbers(verdicts(batch)) }
        return outcome == .end
      }
    }
    return seen
  }

  @Test func outputsAndOffsetsCommitTogether() throws {
    try produce(input, 0..<10)
    try produce(output, 0..<1)
    let source = try makeSource()
    #expect(try !starts(of: source).isEmpty)
    let sink = try makeSink()
    defer { sink.close() }
    try sink.prepare()
    try sink.write(record(100))
    sink.barrier(1)
    try sink.write(record(101))
    // Nobody sees what is not committed.
    #expect(try committed() == [0])
    let points = [CommitPoint(partition: identity, offset: 4, metadata: "checkpoint c-0000000001")]
    try sink.commit(1, [SourceOffsets(source: 0, points: points, group: try source.groupHandle())])
    #expect(try committed() == [0, 100])
    source.close()
    sink.abort()
    #expect(try committed() == [0, 100])
    let again = try makeSource()
    defer { again.close() }
    let start = try #require(try starts(of: again).first)
    #expect(start.committedOffset == 4 && start.metadata == "checkpoint c-0000000001")
    // Aborted offsets leave no trace either.
    try sink.prepare()
    try sink.write(record(102))
    sink.barrier(2)
    try sink.commit(
      2,
      [
        SourceOffsets(
          source: 0, points: [CommitPoint(partition: identity, offset: 7, metadata: "c-2")],
          group: try again.groupHandle())
      ])
    #expect(try committed() == [0, 100, 102])
  }

  @Test func aZombieIsFenced() throws {
    try produce(output, 0..<1)
    let zombie = try makeSink()
    try zombie.prepare()
    try zombie.write(record(200))
    try zombie.flush()
    let heir = try makeSink()
    try heir.prepare()
    try heir.write(record(201))
    heir.barrier(1)
    try heir.commit(1, [])
    zombie.barrier(1)
    #expect(throws: SinkFenced.self) { try zombie.commit(1, []) }
    #expect(try committed() == [0, 201])
    // The heir goes on.
    try heir.write(record(202))
    heir.barrier(2)
    try heir.commit(2, [])
    #expect(try committed() == [0, 201, 202])
    zombie.close()
    heir.close()
  }

  @Test func whoStandsByTakesOver() throws {
    try produce(input, 0..<10)
    func standby(_ instance: String) throws -> KafkaSource {
      try makeSource {
        $0.ownership = .standby(leads: true)
        $0.instanceID = instance
      }
    }
    let first = try standby("a")
    let all = try starts(of: first).count
    #expect(all > 0 && first.holdsLead)
    let second = try standby("b")
    defer { second.close() }
    #expect(
      try within {
        _ = first.poll(timeoutMillis: 5)
        for case .assigned in second.poll(timeoutMillis: 20) { Issue.record("both read") }
        return second.problem == nil && first.problem == nil
      })
    #expect(first.holdsLead && !second.holdsLead)
    try first.commit([CommitPoint(partition: identity, offset: 5, metadata: "m")])
    let handle = try first.groupHandle()
    // A static member that closes has died, as far as the group knows.
    first.close()
    let taken = try starts(of: second)
    #expect(taken.count == all)
    let start = try #require(taken.first { $0.reader.identity == identity })
    #expect(start.committedOffset == 5 && start.metadata == "m")
    // What the dead one still had to say is refused.
    let sink = try makeSink()
    defer { sink.close() }
    try sink.prepare()
    sink.barrier(1)
    #expect(throws: GroupFenced.self) {
      try sink.commit(
        1,
        [SourceOffsets(source: 0, points: [CommitPoint(partition: identity, offset: 2, metadata: "")], group: handle)])
    }
    #expect(try second.groupHandle() is KafkaGroupHandle)
  }

  @Test func aStaticMemberRestartsWithoutARebalance() throws {
    try produce(input, 0..<10)
    let other = try makeSource { $0.instanceID = "b" }
    defer { other.close() }
    _ = try starts(of: other)
    var first = try makeSource { $0.instanceID = "a" }
    #expect(
      try within {
        _ = first.poll(timeoutMillis: 5)
        for case .revoked(let partitions) in other.poll(timeoutMillis: 5) { other.released(partitions) }
        return first.problem == nil && other.problem == nil
      })
    let generation = try other.groupHandle()
    first.close()
    first = try makeSource { $0.instanceID = "a" }
    defer { first.close() }
    #expect(
      try within {
        _ = first.poll(timeoutMillis: 5)
        for _ in other.poll(timeoutMillis: 5) { Issue.record("the other was bothered") }
        return first.problem == nil
      })
    // The same generation still counts.
    let sink = try makeSink()
    defer { sink.close() }
    try sink.prepare()
    sink.barrier(1)
    try sink.commit(
      1,
      [SourceOffsets(source: 0, points: [CommitPoint(partition: identity, offset: 1, metadata: "")], group: generation)])
  }
}
