/// A producer as the brokers know it: an id, and how often it was taken over.
public struct SimulatedProducerID: Sendable, Hashable {
  var index: Int
  var epoch: Int
}

extension SimulatedLog {
  struct Producer {
    var transactionalID: String?
    var epoch = 0
    var timeoutSteps = 0
    /// The open transaction, or the one that is being ended.
    var transaction: Int?
    /// How the last transaction ended, for a repeated request to end it.
    var lastWasCommitted: Bool?
    /// The next sequence number by partition.
    var sequences: [SimulatedPlace: Int] = [:]
  }

  struct PendingOffset {
    var group: String
    var place: SimulatedPlace
    var committed: CommittedOffset
  }

  struct Transaction {
    enum State { case open, committing, aborting, committed, aborted }
    var producer: Int
    var state = State.open
    var startedStep: Int
    /// When its end shows, once it is decided.
    var finishStep = 0
    var places: [SimulatedPlace] = []
    var offsets: [PendingOffset] = []
  }

  // MARK: Requests

  /// A new producer; with a transactional id the one that takes over: what its predecessor left open is aborted, and
  /// the predecessor fenced. Throws `concurrentTransactions` while that takes.
  public func initProducer(transactionalID: String?, timeoutSteps: Int = .max) throws -> SimulatedProducerID {
    try request {
      guard let transactionalID, let known = producerOf[transactionalID] else {
        producers.append(Producer(transactionalID: transactionalID, timeoutSteps: timeoutSteps))
        if let transactionalID { producerOf[transactionalID] = producers.count - 1 }
        return SimulatedProducerID(index: producers.count - 1, epoch: 0)
      }
      if let transaction = producers[known].transaction {
        if transactions[transaction].state == .open {
          producers[known].epoch += 1
          decide(transaction, commits: false)
        }
        // What is decided at once is done at once, where nothing delays it.
        if producers[known].transaction != nil { throw SimulatedLogError.concurrentTransactions }
      }
      producers[known].epoch += 1
      producers[known].timeoutSteps = timeoutSteps
      producers[known].sequences = [:]
      producers[known].lastWasCommitted = nil
      return SimulatedProducerID(index: known, epoch: producers[known].epoch)
    }
  }

  /// Appends records whose first has this sequence number; what has come before is not appended again. A
  /// transactional producer's open a transaction.
  public func produce(
    _ producer: SimulatedProducerID, _ place: SimulatedPlace, sequence: Int,
    _ records: ArraySlice<(key: [UInt8], value: [UInt8])>, time: Int64 = 0
  ) throws {
    try request {
      try checkEpoch(producer)
      guard let partition = partition(place) else { throw SimulatedLogError.unknownTopic }
      let expected = producers[producer.index].sequences[place] ?? 0
      guard sequence <= expected else { throw SimulatedLogError.outOfOrder }
      let fresh = records.dropFirst(expected - sequence)
      guard !fresh.isEmpty else { return }
      var transaction: Int32 = -1
      if producers[producer.index].transactionalID != nil {
        let index = try openTransaction(producer)
        transaction = Int32(index)
        if !transactions[index].places.contains(place) {
          transactions[index].places.append(place)
          partition.ongoing.append((transaction, partition.end))
        }
      }
      for record in fresh {
        partition.entries.append(
          Entry(key: record.key, value: record.value, time: time, transaction: transaction, isControl: false))
      }
      producers[producer.index].sequences[place] = sequence + records.count
    }
  }

  /// Puts offsets into the producer's transaction; they count when it is committed. Refused for a member that its
  /// group does not know any more.
  public func addOffsets(_ producer: SimulatedProducerID, _ handle: SimulatedGroupHandle, _ points: [CommitPoint])
    throws
  {
    try request {
      try checkEpoch(producer)
      try checkMember(handle)
      let index = try openTransaction(producer)
      for point in points {
        let place = SimulatedPlace(point.partition.topic, point.partition.partition)
        // Sent again after a lost answer: the same offsets once more.
        transactions[index].offsets.removeAll { $0.group == handle.group && $0.place == place }
        transactions[index].offsets.append(
          PendingOffset(
            group: handle.group, place: place,
            committed: CommittedOffset(offset: point.offset, metadata: point.metadata)))
      }
    }
  }

  /// Decides the producer's transaction; its end shows now or some steps later. Asked for again it answers the same.
  public func endTransaction(_ producer: SimulatedProducerID, commits: Bool) throws {
    try request {
      try checkEpoch(producer)
      guard let index = producers[producer.index].transaction else {
        if producers[producer.index].lastWasCommitted == commits { return }
        throw SimulatedLogError.invalidTransaction
      }
      switch transactions[index].state {
      case .open: decide(index, commits: commits)
      case .committing where commits, .aborting where !commits: break
      default: throw SimulatedLogError.invalidTransaction
      }
    }
  }

  // MARK: The coordinator's side

  private func checkEpoch(_ producer: SimulatedProducerID) throws(SimulatedLogError) {
    if producers[producer.index].epoch != producer.epoch { throw .fencedProducer }
  }

  private func openTransaction(_ producer: SimulatedProducerID) throws(SimulatedLogError) -> Int {
    if let index = producers[producer.index].transaction {
      guard transactions[index].state == .open else { throw .concurrentTransactions }
      return index
    }
    transactions.append(Transaction(producer: producer.index, startedStep: step))
    let index = transactions.count - 1
    producers[producer.index].transaction = index
    producers[producer.index].lastWasCommitted = nil
    unfinished.append(index)
    return index
  }

  private func decide(_ index: Int, commits: Bool) {
    transactions[index].state = commits ? .committing : .aborting
    transactions[index].finishStep = step + delay()
    if transactions[index].finishStep == step { finish(index) }
  }

  /// Writes the markers and, when it is a commit, the offsets.
  private func finish(_ index: Int) {
    let commits = transactions[index].state == .committing
    for place in transactions[index].places {
      guard let partition = partition(place) else { continue }
      partition.ongoing.removeAll { $0.transaction == Int32(index) }
      partition.entries.append(Entry(key: [], value: [], time: 0, transaction: Int32(index), isControl: true))
    }
    if commits {
      for pending in transactions[index].offsets {
        groups[pending.group]?.committed[pending.place] = pending.committed
      }
    }
    transactions[index].state = commits ? .committed : .aborted
    let producer = transactions[index].producer
    producers[producer].transaction = nil
    producers[producer].lastWasCommitted = commits
    unfinished.removeAll { $0 == index }
  }

  func finishTransactions() {
    for index in unfinished {
      let transaction = transactions[index]
      let producer = transaction.producer
      if transaction.state == .open {
        guard step - transaction.startedStep >= producers[producer].timeoutSteps else { continue }
        // Whoever it was may not go on with it: another epoch.
        producers[producer].epoch += 1
        decide(index, commits: false)
      } else if step >= transaction.finishStep {
        finish(index)
      }
    }
  }

  /// Whether an unfinished transaction holds an offset of this group and place.
  func hasPendingOffset(_ group: String, _ place: SimulatedPlace) -> Bool {
    unfinished.contains { index in
      transactions[index].offsets.contains { $0.group == group && $0.place == place }
    }
  }
}
