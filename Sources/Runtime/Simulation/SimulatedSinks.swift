import CColumns

/// A producer's client side: keeps what is not acknowledged, sends it again after a lost answer, and counts.
final class SimulatedProducer {
  private struct Queue {
    let place: SimulatedPlace
    /// Sequence number of `records[0]`.
    var first = 0
    /// Not known to be on the brokers.
    var records: [(key: [UInt8], value: [UInt8])] = []
    var tags: [Int] = []
    var oldestStep = 0
  }
  private let log: SimulatedLog
  /// Nil until a broker has answered.
  private var id: SimulatedProducerID?
  /// In the order of their first records.
  private var queues: [Queue] = []
  /// On the brokers, but we have not heard of it.
  private var acknowledgements: [(step: Int, tag: Int, count: Int)] = []
  var counts = DeliveryCounts()

  init(_ log: SimulatedLog, _ id: SimulatedProducerID? = nil) {
    self.log = log
    self.id = id
  }

  var isIdle: Bool { acknowledgements.isEmpty && queues.allSatisfy(\.records.isEmpty) }

  func send(_ batch: OutputBatch, topic: String) {
    let partitions = log.partitionCount(topic)
    precondition(partitions > 0, "no such topic: \(topic)")
    let tag = counts.expect(batch.entries.count)
    for entry in batch.entries {
      let key = Array(batch.keys[entry.keyStart..<entry.keyStart + entry.keyLength])
      let hash = key.withUnsafeBufferPointer { key.isEmpty ? 0 : rd_hash_bytes($0.baseAddress, UInt32(key.count)) }
      let place = SimulatedPlace(topic, Int32(Int(hash) % partitions))
      let index = queues.firstIndex { $0.place == place } ?? queues.count
      if index == queues.count { queues.append(Queue(place: place)) }
      if queues[index].records.isEmpty { queues[index].oldestStep = log.step }
      queues[index].records.append((key, Array(batch.bytes[entry.start..<entry.start + entry.length])))
      queues[index].tags.append(tag)
    }
  }

  /// Sends what there is and takes what has come back. Throws what no repetition mends.
  func serve() throws {
    if id == nil { id = try? log.initProducer(transactionalID: nil) }
    guard let id else { return }
    for index in queues.indices where !queues[index].records.isEmpty {
      do {
        try log.produce(id, queues[index].place, sequence: queues[index].first, queues[index].records[...])
      } catch SimulatedLogError.unavailable, SimulatedLogError.concurrentTransactions {
        continue
      }
      note(queues[index].tags)
      queues[index].first += queues[index].records.count
      queues[index].records = []
      queues[index].tags = []
    }
    var isOlderMissing = false
    for entry in acknowledgements {
      if entry.step > log.step {
        isOlderMissing = true
        continue
      }
      if isOlderMissing { log.counts.acknowledgementsReordered += 1 }
      counts.settle(entry.count, tag: entry.tag)
    }
    acknowledgements.removeAll { $0.step <= log.step }
  }

  /// Each stretch of records is acknowledged at a time of its own, also before an older one.
  private func note(_ tags: [Int]) {
    var start = 0
    while start < tags.count {
      let tag = tags[start]
      let end = tags[start...].firstIndex { $0 != tag } ?? tags.count
      acknowledgements.append((log.step + log.delay(), tag, end - start))
      start = end
    }
  }

  /// Gives up what waits for longer than so many steps. It may be on the brokers all the same, and will not be
  /// acknowledged. As another producer, since the brokers would wait for what is missing.
  func expire(olderThan steps: Int) {
    guard queues.contains(where: { !$0.records.isEmpty && log.step - $0.oldestStep >= steps }) else { return }
    for queue in queues {
      for tag in queue.tags {
        counts.settle(1, tag: tag)
        counts.fail(1, tag: tag, "topic \(queue.place.topic): not acknowledged in time")
      }
    }
    queues = []
    id = nil
  }
}

/// Writes records to one topic of a simulated log, at least once: behaves as `KafkaSink` does on Kafka.
public final class SimulatedSink: RecordSink {
  private let log: SimulatedLog
  private let topic: String
  private let patienceSteps: Int
  private let deliverySteps: Int
  private let producer: SimulatedProducer

  /// `complete` and `flush` let at most `patienceSteps` pass; a record that is not acknowledged after `deliverySteps`
  /// is given up.
  public init(log: SimulatedLog, topic: String, patienceSteps: Int = 50, deliverySteps: Int = 200) {
    self.log = log
    self.topic = topic
    self.patienceSteps = patienceSteps
    self.deliverySteps = deliverySteps
    producer = SimulatedProducer(log)
  }

  private func serve() throws {
    try producer.serve()
    producer.expire(olderThan: deliverySteps)
  }

  public func write(_ batch: OutputBatch) throws {
    producer.send(batch, topic: topic)
    try serve()
  }

  public func flush() throws { try wait { $0.isIdle } }
  public func barrier(_ epoch: UInt64) { producer.counts.addBarrier(epoch) }
  public func complete(_ epoch: UInt64) throws { try wait { try $0.counts.waiting(before: epoch) == 0 } }

  private func wait(_ isDone: (SimulatedProducer) throws -> Bool) throws {
    for _ in 0...patienceSteps {
      try serve()
      if try isDone(producer) { return }
      log.advance()
    }
    throw SourceFailure("records are not written: the brokers do not acknowledge")
  }

  public var problem: String? { nil }
  public func close() {}
}

/// Writes records to one topic of a simulated log in transactions: behaves as `KafkaTransactionalSink` does on Kafka,
/// with the same buffer. What waits behind a barrier is not bounded: with one thread nobody could make room.
public final class SimulatedTransactionalSink: TransactionalSink {
  private let log: SimulatedLog
  private let topic: String
  private let transactionalID: String
  private let timeoutSteps: Int
  private let patienceSteps: Int
  private var id: SimulatedProducerID?
  private var producer: SimulatedProducer?
  private var buffer = TransactionBuffer(bytesMax: .max)
  private var isOpen = false
  private var openedStep = 0
  private var isGivenUp = true
  /// Found while writing, thrown by `commit`.
  private var failure: (any Error)?

  /// The brokers abort a transaction after `timeoutSteps`; `prepare` and `commit` let at most `patienceSteps` pass.
  public init(
    log: SimulatedLog, topic: String, transactionalID: String, timeoutSteps: Int = 300, patienceSteps: Int = 50
  ) {
    self.log = log
    self.topic = topic
    self.transactionalID = transactionalID
    self.timeoutSteps = timeoutSteps
    self.patienceSteps = patienceSteps
  }

  public func prepare() throws {
    abort()
    let fresh = try attempt("transactions cannot begin") {
      try log.initProducer(transactionalID: transactionalID, timeoutSteps: timeoutSteps)
    }
    id = fresh
    producer = SimulatedProducer(log, fresh)
    buffer = TransactionBuffer(bytesMax: .max)
    failure = nil
    isOpen = false
    isGivenUp = false
  }

  public func abort() {
    // Should the request be lost, the next `prepare` does it.
    if isOpen, let id { try? log.endTransaction(id, commits: false) }
    isOpen = false
    isGivenUp = true
    producer = nil
    buffer = TransactionBuffer(bytesMax: .max)
  }

  public func write(_ batch: OutputBatch) throws {
    if isGivenUp { return }
    if buffer.offer(batch) == .writeNow { produce(batch) }
  }

  private func produce(_ batch: OutputBatch) {
    guard let producer, failure == nil, !batch.entries.isEmpty else { return }
    open()
    producer.send(batch, topic: topic)
    do { try producer.serve() } catch { failure = meaning(error, "records cannot be written") }
  }

  private func open() {
    guard !isOpen else { return }
    isOpen = true
    openedStep = log.step
  }

  public func barrier(_ epoch: UInt64) { if !isGivenUp { buffer.addBarrier(epoch) } }

  public func commit(_ epoch: UInt64, _ offsets: [SourceOffsets]) throws {
    do {
      if isGivenUp { throw TransactionAborted("the transaction was given up") }
      guard let id, let producer, let more = buffer.extend(to: epoch) else {
        throw SourceFailure("no barrier of epoch \(epoch) has come to the transactional sink")
      }
      for batch in more { produce(batch) }
      if let failure { throw failure }
      let given = offsets.filter { !$0.points.isEmpty }
      if !given.isEmpty { open() }
      if isOpen {
        try attempt("records cannot be written") {
          try producer.serve()
          if !producer.isIdle { throw SimulatedLogError.unavailable }
        }
        for source in given {
          guard let handle = source.group as? SimulatedGroupHandle else {
            throw SourceFailure("source \(source.source) is not simulated: its offsets fit into no transaction")
          }
          try attempt("offsets cannot be committed") { try log.addOffsets(id, handle, source.points) }
        }
        try attempt("the transaction cannot be committed") { try log.endTransaction(id, commits: true) }
      }
      isOpen = false
      for batch in buffer.committed() { produce(batch) }
    } catch {
      abort()
      throw error
    }
  }

  /// Tries again what may pass, a step at a time.
  private func attempt<Answer>(_ what: String, _ body: () throws -> Answer) throws -> Answer {
    var last = SimulatedLogError.unavailable
    for _ in 0...patienceSteps {
      do { return try body() } catch let error as SimulatedLogError {
        guard error == .unavailable || error == .concurrentTransactions else { throw meaning(error, what) }
        last = error
      }
      log.advance()
    }
    throw meaning(last, what)
  }

  private func meaning(_ error: any Error, _ what: String) -> any Error {
    guard let error = error as? SimulatedLogError else { return error }
    switch error {
    case .fencedProducer:
      // The brokers say the same of a transaction that took too long.
      if isOpen, log.step - openedStep >= timeoutSteps { return TransactionAborted("\(what): it took too long") }
      return SinkFenced("\(what): another instance writes as \(transactionalID)")
    case .unknownMember, .illegalGeneration: return GroupFenced("\(what): \(error)")
    case .unavailable, .concurrentTransactions, .unstableOffsets, .invalidTransaction, .outOfOrder, .offsetGone:
      return TransactionAborted("\(what): \(error)")
    case .unknownTopic: return SourceFailure("\(what): no topic \(topic)")
    }
  }

  public func flush() throws {
    guard let producer, isOpen else { return }
    try attempt("records cannot be written") {
      try producer.serve()
      if !producer.isIdle { throw SimulatedLogError.unavailable }
    }
  }

  public func complete(_ epoch: UInt64) {}
  public var problem: String? { nil }
  public func close() { abort() }
}
