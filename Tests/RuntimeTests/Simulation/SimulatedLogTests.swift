import Testing

@testable import Runtime

private let place = SimulatedPlace("t", 0)

private func makeLog(_ faults: SimulatedFaults = .none, seed: UInt64 = 1, partitions: Int = 1) -> SimulatedLog {
  let log = SimulatedLog(seed: seed, faults: faults)
  log.createTopic("t", partitions: partitions)
  return log
}

private func texts(_ records: [SimulatedRecord]) -> [String] { records.map { String(decoding: $0.value, as: UTF8.self) } }

extension SimulatedLog {
  /// Produces one record.
  fileprivate func produce(_ producer: SimulatedProducerID, _ sequence: Int, _ text: String) throws {
    try produce(producer, place, sequence: sequence, [(key: [], value: Array(text.utf8))][...])
  }
  fileprivate func append(_ text: String) { append(place, value: Array(text.utf8)) }
  fileprivate var committed: [String] { texts(records(place)) }
  fileprivate var all: [String] { texts(records(place, committed: false)) }
}

private func point(_ offset: Int64, _ metadata: String = "") -> CommitPoint {
  CommitPoint(partition: PartitionIdentity(source: 0, topic: "t", partition: 0), offset: offset, metadata: metadata)
}

/// The rules of transactions and groups, one by one.
@Suite struct SimulatedLogTests {
  @Test func openTransactionsHoldReadersBack() throws {
    let log = makeLog()
    log.append("a")
    let first = try log.initProducer(transactionalID: "x")
    let second = try log.initProducer(transactionalID: "y")
    try log.produce(first, 0, "b")
    log.append("c")
    try log.produce(second, 0, "d")
    #expect(log.lastStableOffset(place) == 1 && log.endOffset(place) == 4)
    #expect(log.committed == ["a"] && log.all == ["a", "b", "c", "d"])
    // The later one is committed, and still waits behind the first.
    try log.endTransaction(second, commits: true)
    #expect(log.lastStableOffset(place) == 1 && log.endOffset(place) == 5)
    #expect(log.committed == ["a"])
    try log.endTransaction(first, commits: false)
    #expect(log.committed == ["a", "c", "d"] && log.all == ["a", "b", "c", "d"])
    // Markers take offsets, and nobody sees them.
    #expect(log.lastStableOffset(place) == 6)
    #expect(log.records(place).map(\.offset) == [0, 2, 3])
    log.append("e")
    #expect(log.records(place).last?.offset == 6)
  }

  @Test func aNewerProducerFencesTheOlder() throws {
    let log = makeLog()
    let member = try log.join("g", topic: "t")
    let zombie = try log.initProducer(transactionalID: "x")
    try log.produce(zombie, 0, "lost")
    try log.addOffsets(zombie, member.handle, [point(7)])
    let heir = try log.initProducer(transactionalID: "x")
    #expect(log.committed.isEmpty && log.lastStableOffset(place) == log.endOffset(place))
    #expect(throws: SimulatedLogError.fencedProducer) { try log.produce(zombie, 1, "more") }
    #expect(throws: SimulatedLogError.fencedProducer) { try log.addOffsets(zombie, member.handle, [point(8)]) }
    #expect(throws: SimulatedLogError.fencedProducer) { try log.endTransaction(zombie, commits: true) }
    try log.produce(heir, 0, "kept")
    try log.endTransaction(heir, commits: true)
    #expect(log.committed == ["kept"])
    #expect(log.committedOffset("g", place) == nil)
    // Another id is nobody's rival.
    let other = try log.initProducer(transactionalID: "y")
    try log.produce(other, 0, "b")
    try log.produce(heir, 1, "c")
  }

  @Test func aTransactionThatTakesTooLongIsAborted() throws {
    let log = makeLog()
    let producer = try log.initProducer(transactionalID: "x", timeoutSteps: 10)
    try log.produce(producer, 0, "a")
    log.advance(9)
    #expect(log.lastStableOffset(place) == 0)
    log.advance()
    #expect(log.lastStableOffset(place) == 2 && log.committed.isEmpty)
    #expect(throws: SimulatedLogError.fencedProducer) { try log.endTransaction(producer, commits: true) }
    // Time that the brokers are away does not count against open transactions.
    let next = try log.initProducer(transactionalID: "x", timeoutSteps: 10)
    try log.produce(next, 0, "b")
    log.takeDown(steps: 9)
    log.advance(8)
    #expect(throws: SimulatedLogError.unavailable) { try log.endTransaction(next, commits: true) }
    log.advance()
    try log.endTransaction(next, commits: true)
    #expect(log.committed == ["b"])
  }

  @Test func offsetsCountWithTheirTransaction() throws {
    let log = makeLog()
    let member = try log.join("g", topic: "t")
    try log.commit(member.handle, [point(3, "plain")])
    let producer = try log.initProducer(transactionalID: "x")
    try log.addOffsets(producer, member.handle, [point(5, "c-5")])
    // Neither the old nor the new may be believed.
    #expect(throws: SimulatedLogError.unstableOffsets) { try log.committedOffsets("g", [place]) }
    #expect(try log.committedOffsets("other", [place]) == [nil])
    try log.endTransaction(producer, commits: false)
    #expect(try log.committedOffsets("g", [place]) == [CommittedOffset(offset: 3, metadata: "plain")])
    try log.addOffsets(producer, member.handle, [point(5, "c-5")])
    try log.addOffsets(producer, member.handle, [point(6, "c-6")])
    try log.endTransaction(producer, commits: true)
    #expect(try log.committedOffsets("g", [place]) == [CommittedOffset(offset: 6, metadata: "c-6")])
  }

  @Test func theEndOfATransactionMayShowLate() throws {
    var faults = SimulatedFaults()
    faults.delayStepsMax = 20
    var sawDelay = false
    for seed in 0..<20 {
      let log = makeLog(faults, seed: UInt64(seed))
      let member = try log.join("g", topic: "t")
      let producer = try log.initProducer(transactionalID: "x")
      try log.produce(producer, 0, "a")
      try log.addOffsets(producer, member.handle, [point(1)])
      try log.endTransaction(producer, commits: true)
      if log.committed.isEmpty {
        sawDelay = true
        // Decided, but not shown: whoever comes now has to wait for it, and nobody can turn it round.
        #expect(throws: SimulatedLogError.unstableOffsets) { try log.committedOffsets("g", [place]) }
        #expect(throws: SimulatedLogError.concurrentTransactions) { try log.initProducer(transactionalID: "x") }
        #expect(throws: SimulatedLogError.concurrentTransactions) { try log.produce(producer, 1, "b") }
        #expect(throws: SimulatedLogError.invalidTransaction) { try log.endTransaction(producer, commits: false) }
        try log.endTransaction(producer, commits: true)
      }
      log.advance(21)
      #expect(log.committed == ["a"])
      #expect(try log.committedOffsets("g", [place]).first??.offset == 1)
    }
    #expect(sawDelay)
  }

  @Test func whatIsSentAgainIsDoneOnce() throws {
    let log = makeLog()
    let member = try log.join("g", topic: "t")
    let producer = try log.initProducer(transactionalID: "x")
    log.faults.answerLost = 1
    #expect(throws: SimulatedLogError.unavailable) { try log.produce(producer, 0, "a") }
    #expect(throws: SimulatedLogError.unavailable) { try log.addOffsets(producer, member.handle, [point(1)]) }
    log.faults = .none
    try log.produce(producer, 0, "a")
    // A longer piece that begins with what is there already.
    try log.produce(
      producer, place, sequence: 0, [(key: [], value: Array("a".utf8)), (key: [], value: Array("b".utf8))][...])
    try log.addOffsets(producer, member.handle, [point(1)])
    #expect(throws: SimulatedLogError.outOfOrder) { try log.produce(producer, 3, "d") }
    log.faults.answerLost = 1
    #expect(throws: SimulatedLogError.unavailable) { try log.endTransaction(producer, commits: true) }
    log.faults = .none
    #expect(log.committed == ["a", "b"])
    try log.endTransaction(producer, commits: true)
    #expect(throws: SimulatedLogError.invalidTransaction) { try log.endTransaction(producer, commits: false) }
    #expect(log.committed == ["a", "b"] && log.endOffset(place) == 3)
    log.faults.requestLost = 1
    #expect(throws: SimulatedLogError.unavailable) { try log.produce(producer, 2, "c") }
    #expect(log.endOffset(place) == 3)
  }

  @Test func anExpelledMemberCommitsNothing() throws {
    let log = makeLog(partitions: 2)
    let first = try log.join("g", topic: "t", sessionSteps: 5)
    #expect(first.takeNotices() == [.assigned([SimulatedPlace("t", 0), SimulatedPlace("t", 1)])])
    let before = first.handle
    let second = try log.join("g", topic: "t", sessionSteps: 5)
    // The group has gone on: what was asked for before is of the past, the member itself is not.
    #expect(throws: SimulatedLogError.illegalGeneration) { try log.commit(before, [point(1)]) }
    try log.commit(first.handle, [point(1)])
    #expect(first.takeNotices() == [.revoked([SimulatedPlace("t", 1)])])
    // Nobody gets what another still holds.
    #expect(second.takeNotices() == [])
    log.release(first, [SimulatedPlace("t", 1)])
    #expect(second.takeNotices() == [.assigned([SimulatedPlace("t", 1)])])
    first.isHeartbeating = false
    log.advance(4)
    try log.commit(first.handle, [point(2)])
    log.advance()
    #expect(first.isExpelled && second.takeNotices() == [.assigned([place])])
    let producer = try log.initProducer(transactionalID: "x")
    #expect(throws: SimulatedLogError.unknownMember) { try log.commit(first.handle, [point(3)]) }
    #expect(throws: SimulatedLogError.unknownMember) { try log.addOffsets(producer, first.handle, [point(3)]) }
    #expect(log.committedOffset("g", place)?.offset == 2)
    try log.commit(second.handle, [point(4)])
  }

  @Test func aStaticMemberComesBackToItsPartitions() throws {
    let log = makeLog(partitions: 2)
    let first = try log.join("g", topic: "t", instanceID: "a", sessionSteps: 5)
    let second = try log.join("g", topic: "t", instanceID: "b", sessionSteps: 5)
    log.release(first, [SimulatedPlace("t", 1)])
    _ = (first.takeNotices(), second.takeNotices())
    let generation = second.handle.generation
    log.leave(first)
    log.advance(4)
    let again = try log.join("g", topic: "t", instanceID: "a", sessionSteps: 5)
    #expect(again.takeNotices() == [.assigned([place])])
    #expect(second.takeNotices() == [] && second.handle.generation == generation)
    // Its own ghost is no member any more.
    #expect(throws: SimulatedLogError.unknownMember) { try log.commit(first.handle, [point(1)]) }
    log.advance(20)
    try log.commit(again.handle, [point(1)])
    log.leave(again)
    log.advance(5)
    #expect(second.takeNotices() == [.assigned([place])])
  }

  @Test func removedRecordsFailByName() throws {
    let log = makeLog()
    for number in 0..<10 { log.append("\(number)") }
    log.trim(place, before: 6)
    #expect(log.committed == ["6", "7", "8", "9"] && log.earliestOffset(place) == 6)
    #expect(throws: SimulatedLogError.offsetGone(wanted: 5, earliest: 6)) {
      try log.scan(place, from: 5, committed: true) { _, _ in true }
    }
  }

  /// Random transactions of several producers, with every fault. What is visible in the end is what was committed,
  /// in the order in which it was appended; and a reader that follows never sees anything that changes later.
  @Test(arguments: 0..<60)
  func randomTransactions(_ seed: UInt64) throws {
    var faults = SimulatedFaults()
    faults.requestLost = 0.1
    faults.answerLost = 0.1
    faults.delayStepsMax = 4
    faults.goesDown = 0.02
    faults.downStepsMax = 6
    let log = makeLog(faults, seed: seed, partitions: 2)
    var random = SimulatedRandom(seed: seed ^ 0xABCD)
    var outcomes: [String: Bool] = [:]
    var seen: [[String]] = [[], []]
    var positions: [Int64] = [0, 0]
    func follow() {
      for partition in 0..<2 {
        let position = positions[partition]
        positions[partition] =
          (try? log.scan(SimulatedPlace("t", Int32(partition)), from: position, committed: true) { _, entry in
            seen[partition].append(String(decoding: entry.value, as: UTF8.self))
            return true
          }) ?? position
      }
    }
    func persist<Answer>(_ body: () throws -> Answer) throws -> Answer {
      while true {
        do { return try body() } catch SimulatedLogError.unavailable, SimulatedLogError.concurrentTransactions {
          log.advance()
          follow()
        }
      }
    }
    var producers: [(id: SimulatedProducerID, sequences: [Int], open: [String])] = []
    for number in 0..<3 {
      producers.append((try persist { try log.initProducer(transactionalID: "\(number)") }, [0, 0], []))
    }
    for number in 0..<300 {
      let producer = random.upTo(2)
      switch random.upTo(9) {
      case 0:
        let commits = random.upTo(1) == 0
        guard !producers[producer].open.isEmpty else { continue }
        try persist { try log.endTransaction(producers[producer].id, commits: commits) }
        for text in producers[producer].open { outcomes[text] = commits }
        producers[producer].open = []
      case 1:
        // Dies with what it had, and comes back.
        for text in producers[producer].open { outcomes[text] = false }
        producers[producer] = (try persist { try log.initProducer(transactionalID: "\(producer)") }, [0, 0], [])
      default:
        let partition = random.upTo(1)
        let text = "\(number)"
        try persist {
          try log.produce(
            producers[producer].id, SimulatedPlace("t", Int32(partition)),
            sequence: producers[producer].sequences[partition], [(key: [], value: Array(text.utf8))][...])
        }
        producers[producer].sequences[partition] += 1
        producers[producer].open.append(text)
      }
      follow()
    }
    for producer in producers.indices {
      for text in producers[producer].open { outcomes[text] = false }
      _ = try persist { try log.initProducer(transactionalID: "\(producer)") }
    }
    log.advance(30)
    follow()
    for partition in 0..<2 {
      let place = SimulatedPlace("t", Int32(partition))
      let appended = texts(log.records(place, committed: false))
      #expect(Set(appended).count == appended.count)
      #expect(texts(log.records(place)) == appended.filter { outcomes[$0] == true })
      #expect(seen[partition] == texts(log.records(place)))
    }
    #expect(outcomes.values.contains(true) && outcomes.values.contains(false))
  }
}
