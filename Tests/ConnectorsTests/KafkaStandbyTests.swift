import Foundation
import Runtime
import Testing

@testable import Connectors

/// One process leads, the others stand by; and who may commit.
///
/// What takes time here is the mock: it waits 3 s for the first member of a group, and a session less a second whenever
/// somebody comes, goes or dies. So the tests wait side by side.
@Suite(.ownThreads) struct KafkaStandbyTests {
  private func makeBroker(partitions: Int = 3) throws -> EmbeddedBroker {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: partitions)
    try produce(broker, 0..<300, partitions: partitions)
    return broker
  }

  private func standby(
    _ broker: EmbeddedBroker, leads: Bool = true, group: String = "g", instanceID: String? = nil,
    properties: [KafkaProperty] = []
  ) throws -> Driver {
    let session = [KafkaProperty("session.timeout.ms", "5000"), KafkaProperty("heartbeat.interval.ms", "300")]
    return try Driver(broker, group: group, properties: session + properties) {
      $0.ownership = .standby(leads: leads)
      $0.instanceID = instanceID
    }
  }

  private func points(_ driver: Driver, _ metadata: String) -> [CommitPoint] {
    driver.positions.map { CommitPoint(partition: $0, offset: $1, metadata: metadata) }
  }

  private func state(_ driver: Driver) -> String {
    "\(driver.readers.count) read, \(driver.revocations) revoked, leads: \(driver.source.holdsLead), "
      + (driver.source.problem ?? "well")
  }

  /// Serves both until the group's last rebalance is over: each partition is somebody's, which in the middle of one it
  /// is not. (A commit in the middle may be refused, and the member with it.)
  private func settle(_ a: Driver, _ b: Driver, partitions: Set<Int32> = [0, 1, 2]) throws {
    let isSettled = try a.run { _ in
      b.poll()
      return a.source.problem == nil && b.source.problem == nil && a.source.holdsLead != b.source.holdsLead
        && a.source.granted.isDisjoint(with: b.source.granted)
        && a.source.granted.union(b.source.granted) == partitions
    }
    #expect(isSettled, "\(state(a)) | \(state(b))")
  }

  @Test(arguments: ["cooperative-sticky", "range"])
  func oneReadsEverything(_ strategy: String) throws {
    let broker = try makeBroker()
    let properties = [KafkaProperty("partition.assignment.strategy", strategy)]
    let first = try standby(broker, properties: properties)
    #expect(!first.source.holdsLead)
    #expect(try first.run { $0.readers.count == 3 && $0.total == 300 })
    #expect(first.source.holdsLead && first.source.problem == nil)
    try first.source.commit(points(first, "m"))
    let second = try standby(broker, properties: properties)
    try settle(first, second)
    // Whichever it is, one of them has all; and a member that only joins takes nothing from who reads.
    let (leader, other) = first.source.holdsLead ? (first, second) : (second, first)
    #expect(leader.readers.count == 3 && other.readers.isEmpty && !other.source.holdsLead)
    if strategy == "cooperative-sticky" { #expect(leader === first && first.revocations == 0) }
    try leader.source.commit(points(first, "m2"))
    // New records, of all partitions, come to the leader.
    leader.rows = [:]
    try produce(broker, 300..<330, partitions: 3)
    #expect(
      try leader.run {
        other.poll()
        return $0.total == 30
      })
    leader.source.close()
    leader.readers = [:]
    #expect(try other.run { $0.readers.count == 3 })
    #expect(other.source.holdsLead)
    #expect(other.readers.values.allSatisfy { $0.committedOffset == 100 && $0.metadata == "m2" })
    #expect(try other.run { $0.total >= 30 })
  }

  /// A static member that closes does not leave: to the group it has died.
  @Test func whoStandsByTakesOverFromTheDead() throws {
    let broker = try makeBroker()
    let first = try standby(broker, instanceID: "a")
    #expect(try first.run { $0.total == 300 })
    try first.source.commit(points(first, "c-7"))
    let second = try standby(broker, instanceID: "b")
    try settle(first, second)
    #expect(first.readers.count == 3 && second.readers.isEmpty)
    first.source.close()
    #expect(try second.run { $0.readers.count == 3 })
    #expect(second.readers.values.allSatisfy { $0.committedOffset == 100 && $0.metadata == "c-7" })
  }

  /// A process that hangs is expelled; when it wakes it commits nothing, and is told that it reads nothing.
  @Test func aZombieIsRefused() throws {
    let broker = try makeBroker()
    let first = try standby(broker, properties: [.init("max.poll.interval.ms", "5000")])
    #expect(try first.run { $0.total == 300 })
    let second = try standby(broker)
    try settle(first, second)
    #expect(first.source.holdsLead && first.revocations == 0)
    #expect(try second.run { $0.readers.count == 3 })
    #expect(throws: GroupFenced.self) { try first.source.commit(points(first, "zombie")) }
    #expect(throws: GroupFenced.self) { try first.source.groupHandle() }
    try second.source.commit(points(first, "heir"))
    // Told so, it joins again. The assignor remembers what it had, and may well give it the lead back: then the heir
    // lets go first, and what the heir committed is where it begins.
    try settle(first, second)
    if first.revocations == 0 {
      // It was expelled while it owed the group an answer, and librdkafka does not tell that. Its next commit does.
      #expect(throws: GroupFenced.self) { try first.source.commit(points(first, "zombie")) }
      #expect(throws: GroupFenced.self) { try first.source.groupHandle() }
      first.readers = [:]
      first.source.restart()
      #expect(try first.run { $0.readers.count == ($0.source.holdsLead ? 3 : 0) })
    }
    #expect(first.source.holdsLead != second.source.holdsLead)
    let leader = first.source.holdsLead ? first : second
    #expect(leader.readers.count == 3)
    if leader === first { #expect(first.readers.values.allSatisfy { $0.metadata == "heir" }) }
  }

  /// ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID; others are failures that may pass.
  @Test(arguments: [(22, true, false), (25, true, false), (82, true, true), (12, false, false)])
  func refusalsAreToldApart(_ code: Int, _ isExpelled: Bool, _ isFinal: Bool) throws {
    let broker = try makeBroker(partitions: 1)
    // Only a static member can be fenced by its name.
    let driver = try Driver(broker) { $0.instanceID = isFinal ? "a" : nil }
    #expect(try driver.run { $0.total == 300 })
    broker.pushErrors(apiKey: 8, codes: [Int32(code)])
    do {
      try driver.source.commit(points(driver, ""))
      Issue.record("committed")
    } catch let error as GroupFenced {
      #expect(isExpelled && error.isFinal == isFinal)
    } catch is KafkaFailure {
      #expect(!isExpelled)
    }
    guard !isFinal else { return }
    // Expelled or not, it comes back to what was committed: nothing.
    if isExpelled {
      #expect(try driver.run { $0.revocations == 1 && $0.readers.count == 1 })
      #expect(driver.readers.values.first?.committedOffset == nil)
    }
    #expect(try driver.run { driver in (try? driver.source.commit(points(driver, ""))) != nil })
  }

  @Test func followersDoWhatTheyAreTold() throws {
    let broker = try makeBroker()
    let first = try standby(broker, leads: false)
    let second = try standby(broker, leads: false)
    #expect(
      try first.run {
        second.poll()
        return $0.source.problem == nil && second.source.problem == nil
      })
    #expect(first.readers.isEmpty && second.readers.isEmpty)
    first.source.setLeading(true)
    #expect(try first.run { $0.total == 300 })
    try first.source.commit(points(first, "m"))
    first.source.setLeading(false)
    #expect(try first.run { $0.readers.isEmpty && $0.revocations == 1 })
    second.source.setLeading(true)
    #expect(try second.run { $0.readers.count == 3 })
    #expect(second.readers.values.allSatisfy { $0.committedOffset == 100 })
    // Expelled, it lets go; back in the group it reads again, since it was told to.
    broker.pushErrors(apiKey: 8, codes: [25])
    #expect(throws: GroupFenced.self) { try second.source.commit(points(first, "")) }
    #expect(
      try second.run {
        first.poll()
        return $0.revocations == 1 && $0.readers.count == 3
      })
  }

  @Test func aStaticMemberNamesItself() throws {
    let broker = try makeBroker()
    do {
      let first = try Driver(broker) { $0.instanceID = "a" }
      #expect(try first.run { $0.total == 300 })
    }
    // Nobody left; the session's end lets the next in.
    let next = try Driver(broker) { $0.instanceID = "b" }
    #expect(try next.run { $0.readers.count == 3 })
  }

  @Test func readingStartsElsewhereWhenTold() throws {
    let broker = try makeBroker()
    let first = try Driver(broker)
    #expect(try first.run { $0.total == 300 })
    try first.source.commit([
      CommitPoint(partition: PartitionIdentity(source: 0, topic: "events", partition: 1), offset: 60, metadata: "c-9")
    ])
    first.source.close()
    let second = try Driver(broker) {
      $0.startOffset = { identity, committed, metadata in
        switch identity.partition {
        case 0: committed == nil && metadata == "" ? 97 : nil
        case 1: committed == 60 && metadata == "c-9" ? 98 : nil
        default: nil
        }
      }
    }
    #expect(try second.run { $0.total == 3 + 2 + 100 })
    let starts = second.readers.values.sorted { $0.reader.identity < $1.reader.identity }
    #expect(starts.map(\.committedOffset) == [97, 98, nil] && starts.map(\.metadata) == ["", "c-9", ""])
  }

  @Test(arguments: [(-1, nil as String?), (0, nil), (299, nil), (300, nil), (301, "ends at 300")])
  func offsetsThatAreNotThere(_ offset: Int, _ expected: String?) throws {
    let broker = try makeBroker(partitions: 1)
    let driver = try Driver(broker) { options in options.startOffset = { _, _, _ in offset < 0 ? nil : Int64(offset) } }
    do {
      #expect(try driver.run { $0.last.values.contains(.caughtUp) })
      #expect(expected == nil && driver.total == (offset < 0 ? 300 : 300 - offset))
    } catch let failure as SourceFailure {
      let text = try #require(expected)
      #expect(failure.description.contains("events[0]: offset \(offset)") && failure.description.contains(text))
    }
  }

  /// The mock keeps 5 MiB of a partition.
  @Test func whatRetentionRemovedIsNotPassedOver() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 1)
    let writer = try KafkaWriter(brokers: broker.bootstrapServers, properties: [.init("compression.codec", "none")])
    let pad = String(repeating: "p", count: 10_000)
    for number in 0..<1_200 {
      try writer.write(
        topic: "events", key: [], payload: Array("{\"x\":\(number),\"s\":\"\(pad)\"}".utf8), timestampMillis: 0)
    }
    try writer.flush()
    let fresh = try Driver(broker, group: "fresh")
    #expect(try fresh.run { $0.last.values.contains(.caughtUp) })
    // A partition without a commit starts with what there is.
    let first = try #require(fresh.rows.values.first.map(numbers)?.first)
    #expect(first > 0)
    let driver = try Driver(broker) { $0.startOffset = { _, _, _ in 1 } }
    do {
      _ = try driver.run { !$0.last.isEmpty }
      Issue.record("read")
    } catch let failure as SourceFailure {
      #expect(failure.description.contains("events[0]: offset 1 is wanted"))
      #expect(failure.description.contains("still has is \(first)"))
    }
  }
}
