public struct SimulatedSourceOptions: Sendable {
  public var group: String
  public var format: SimulatedFormat
  public var ownership = SourceOwnership.shared
  public var instanceID: String?
  public var sessionSteps = 30
  /// Reads each partition to the end that it had when it was assigned.
  public var untilEnd = false
  /// Most rows of a read; below a batch's size each read gives any number up to this.
  public var rowsMax = RecordBatch.rowsMax
  /// Where to start instead of at the committed offset.
  public var startOffset: (@Sendable (PartitionIdentity, _ committed: Int64?, _ metadata: String) -> Int64?)?

  public init(group: String, format: SimulatedFormat) {
    self.group = group
    self.format = format
  }
}

/// A source on a simulated log: behaves as `KafkaSource` does on Kafka. What blocks there lets a step pass here, or
/// throws.
public final class SimulatedSource: LiveSource {
  public private(set) var schema: SourceSchema
  private let topic: String
  private let log: SimulatedLog
  private let options: SimulatedSourceOptions
  private var member: SimulatedMember?
  private var readers: [PartitionIdentity: SimulatedReader] = [:]
  private var beginning: [PartitionIdentity] = []
  private var awaitingRelease: Set<PartitionIdentity> = []
  /// Taken by the group, to be given back when all workers have let go.
  private var revoking: [SimulatedPlace] = []
  /// Standing by: what the group gave us, of which only the first partition means something.
  private var granted: Set<SimulatedPlace> = []
  private var isFollowingLead = false
  private var isClosed = false

  public init(schema: SourceSchema, log: SimulatedLog, options: SimulatedSourceOptions) {
    self.schema = schema
    self.log = log
    self.options = options
    topic = schema.topic ?? schema.name
  }

  /// The process hangs: no more heartbeats, until it is woken. The group expels it when its session ends.
  public var isHanging = false { didSet { member?.isHeartbeating = !isHanging && !isDead } }
  private var isDead = false

  /// The process dies: it does not leave, and must not be used any more.
  public func kill() {
    isDead = true
    isClosed = true
    member?.isHeartbeating = false
  }

  private func identity(_ place: SimulatedPlace) -> PartitionIdentity {
    PartitionIdentity(source: schema.index, topic: place.topic, partition: place.partition)
  }
  private func place(_ identity: PartitionIdentity) -> SimulatedPlace {
    SimulatedPlace(identity.topic, identity.partition)
  }

  public func poll(timeoutMillis: Int) -> [AssignmentChange] {
    guard !isClosed else { return [] }
    var changes: [AssignmentChange] = []
    if member == nil, awaitingRelease.isEmpty {
      member = try? log.join(options.group, topic: topic, instanceID: options.instanceID, sessionSteps: options.sessionSteps)
    }
    if member?.isExpelled == true {
      member = nil
      granted = []
      revoking = []
      beginning = []
      revoke(Array(readers.keys), into: &changes)
    }
    for notice in member?.takeNotices() ?? [] {
      switch (notice, options.ownership) {
      case (.assigned(let places), .shared): beginning += places.map(identity)
      case (.revoked(let places), .shared):
        revoking += places
        revoke(places.map(identity), into: &changes)
      case (.assigned(let places), .standby): granted.formUnion(places)
      case (.revoked(let places), .standby):
        revoking += places
        granted.subtract(places)
      }
    }
    if options.ownership != .shared { followLead(&changes) }
    giveBack()
    if !beginning.isEmpty, let started = begin(beginning) {
      beginning = []
      changes.append(.assigned(started))
    }
    return changes
  }

  private func followLead(_ changes: inout [AssignmentChange]) {
    guard awaitingRelease.isEmpty else { return }
    if holdsLead, member != nil {
      let all = (0..<log.partitionCount(topic)).map { identity(SimulatedPlace(topic, Int32($0))) }
      beginning = all.filter { readers[$0] == nil }
    } else {
      beginning = []
      revoke(Array(readers.keys), into: &changes)
    }
  }

  private func revoke(_ partitions: [PartitionIdentity], into changes: inout [AssignmentChange]) {
    beginning.removeAll { partitions.contains($0) }
    let held = partitions.filter { readers[$0] != nil && !awaitingRelease.contains($0) }.sorted()
    guard !held.isEmpty else { return }
    for identity in held { readers[identity]?.isRevoked = true }
    awaitingRelease.formUnion(held)
    changes.append(.revoked(held))
  }

  private func giveBack() {
    guard awaitingRelease.isEmpty, !revoking.isEmpty, let member else { return }
    let places = revoking
    revoking = []
    log.release(member, places)
  }

  /// Nil when the brokers do not answer, or a transaction is not over.
  private func begin(_ partitions: [PartitionIdentity]) -> [PartitionStart]? {
    guard let committed = try? log.committedOffsets(options.group, partitions.map(place)) else { return nil }
    return zip(partitions, committed).map { identity, committed in
      let place = place(identity)
      let wanted = options.startOffset?(identity, committed?.offset, committed?.metadata ?? "") ?? committed?.offset
      let reader = SimulatedReader(
        identity: identity, log: log, schema: schema, format: options.format,
        from: wanted ?? log.earliestOffset(place),
        endOffset: options.untilEnd ? log.lastStableOffset(place) : nil, rowsMax: options.rowsMax)
      readers[identity] = reader
      return PartitionStart(reader: reader, committedOffset: wanted, metadata: committed?.metadata ?? "")
    }
  }

  public func released(_ partitions: [PartitionIdentity]) {
    for identity in partitions {
      awaitingRelease.remove(identity)
      readers.removeValue(forKey: identity)?.isRevoked = true
    }
    giveBack()
  }

  public func adopt(_ schema: SourceSchema) { self.schema = schema }

  public func restart() {
    let held = readers.keys.filter { !awaitingRelease.contains($0) }.sorted()
    for identity in held { readers.removeValue(forKey: identity)?.isRevoked = true }
    beginning += held
  }

  public var holdsLead: Bool {
    switch options.ownership {
    case .shared: true
    case .standby(leads: true): granted.contains(SimulatedPlace(topic, 0))
    case .standby(leads: false): isFollowingLead
    }
  }

  public func setLeading(_ isLeading: Bool) { isFollowingLead = isLeading }

  public func committedMetadata() throws -> [String] {
    let places = (0..<log.partitionCount(topic)).map { SimulatedPlace(topic, Int32($0)) }
    return try log.committedOffsets(options.group, places).compactMap { $0?.metadata }
  }

  public func commit(_ points: [CommitPoint]) throws {
    guard !points.isEmpty else { return }
    do {
      try log.commit(currentHandle(), points)
    } catch SimulatedLogError.unknownMember, SimulatedLogError.illegalGeneration {
      throw GroupFenced("offsets of group \(options.group) were not committed: expelled")
    }
  }

  public func groupHandle() throws -> any ConsumerGroupHandle { try currentHandle() }

  private func currentHandle() throws(GroupFenced) -> SimulatedGroupHandle {
    guard let member else { throw GroupFenced("group \(options.group) does not have this process as a member") }
    return member.handle
  }

  public var problem: String? {
    if log.isDown { return "no broker can be reached" }
    return member == nil || !beginning.isEmpty ? "waiting for partitions of \(topic)" : nil
  }

  public func lagRecords() -> [PartitionIdentity: Int64] { [:] }

  public func close() {
    guard !isClosed else { return }
    isClosed = true
    for reader in readers.values { reader.isRevoked = true }
    if let member { log.leave(member) }
  }
}
