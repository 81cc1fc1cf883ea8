import CRdkafka
import Glibc
import Runtime
import Synchronization

public struct KafkaSourceOptions: Sendable {
  /// `host:port`, separated by commas.
  public var brokers: String
  public var group: String
  /// `-X name=value`; overrides any default below.
  public var properties: [KafkaProperty] = []
  /// Where a partition without a committed offset starts.
  public var fromBeginning = true
  /// Reads each partition to the end that it had when it was assigned, then says `.end`.
  public var untilEnd = false
  /// A partition whose reader was not asked for this long is paused.
  public var pauseAfterNanos: Int64 = 1_000_000_000
  public var ownership = SourceOwnership.shared
  /// Static membership (`group.instance.id`): a process that is back within the session's time-out finds its
  /// partitions as it left them, and the others notice nothing. Unique in the group.
  public var instanceID: String?
  /// Where to start instead of at the committed offset (nil for none) with its metadata; nil to start there. For a
  /// checkpoint that is lost, or another one that is restored.
  public var startOffset: (@Sendable (PartitionIdentity, _ committed: Int64?, _ metadata: String) -> Int64?)?

  public init(brokers: String, group: String, properties: [KafkaProperty] = []) {
    self.brokers = brokers
    self.group = group
    self.properties = properties
  }
}

/// A rule source on a Kafka topic: one consumer of a group.
///
/// Every assigned partition has a queue of its own, so that the worker that owns it reads without asking
/// anybody; what concerns the group (rebalances, commits, errors, the confirmation of ends) happens in
/// `poll`, on the control thread. Partitions are assigned by `cooperative-sticky`: a rebalance takes from a
/// worker only what it has to give away. Offsets are committed by `commit` alone. Defaults: read_committed,
/// no automatic commit or store of offsets, at most 64 MiB fetched ahead for the whole consumer. While the
/// brokers do not answer, a `poll` may take some seconds longer than it was given. An offset that is wanted and
/// not there any more fails the partition's reader; it is never passed over.
///
/// Standing by: all members stay in the group, and the group's assignment is only looked at for who has the last
/// partition. That one assigns all partitions to itself, the others none. (The last, because the sticky assignor gives
/// newcomers the first ones of whoever has most: who reads keeps reading when others join and leave.) A member that
/// dies is expelled after `session.timeout.ms` (6 s), and from then on its commits are refused.
public final class KafkaSource: LiveSource {
  public private(set) var schema: SourceSchema
  private let topic: String
  private let options: KafkaSourceOptions
  private let client: KafkaClient
  private let context: Rebalances
  private var readers: [PartitionIdentity: KafkaPartitionReader] = [:]
  /// Given by the group, but not begun: committed offsets are still to be fetched.
  private var beginning: [PartitionIdentity] = []
  /// Taken by the group: handed on when the workers have let go of all.
  private var revoking: [PartitionIdentity] = []
  private var awaitingRelease: Set<PartitionIdentity> = []
  private var hasAssignment = false
  private var hadAssignment = false
  private var lastUpkeepNanos: Int64 = 0
  private var topicProblem: String?
  private var isClosed = false
  /// What is assigned to our consumer, whatever the group thinks.
  private var assigned: Set<PartitionIdentity> = []
  /// Standing by: the partitions that the group gave us, of which only the last means something.
  private(set) var granted: Set<Int32> = []
  /// A follower's word from its daemon.
  private var isFollowingLead = false
  /// The group waits for us to let go.
  private var owesRelease = false
  /// The daemon has to hear that there is nothing for it, so that it does not wait.
  private var owesEmptyStart = false
  /// How many partitions the topic has, 0 until the brokers have said; and whether it may have more by now.
  private var topicPartitions: Int32 = 0
  private var mustCount = false
  private var nextCountNanos: Int64 = 0
  private var topicHandle: OpaquePointer?

  /// How long a question to the brokers may hold up the control thread.
  private static let questionMillis: Int32 = 1_000
  private static let coordinatorMillis: Int32 = 5_000
  private static let commitMillis: Int64 = 5_000
  private static let closeMillis: Int64 = 5_000
  private static let letGoMillis: Int64 = 1_000
  private static let upkeepNanos: Int64 = 250_000_000

  /// Subscribes. Throws `KafkaFailure` for a property that librdkafka does not take; brokers that cannot be
  /// reached are a `problem`, not an error.
  public init(schema: SourceSchema, options: KafkaSourceOptions) throws {
    guard let topic = schema.topic else {
      throw KafkaFailure("source `\(schema.name)` names no Kafka topic", isRetriable: false)
    }
    // Readers are made much later, where nobody could take the error.
    _ = try JSONRecordDecoder(schema: schema)
    self.schema = schema
    self.topic = topic
    self.options = options
    context = Rebalances()
    client = try KafkaClient(
      RD_KAFKA_CONSUMER,
      defaults: [
        .init("bootstrap.servers", options.brokers),
        .init("client.id", "rulesd"),
        .init("group.id", options.group),
        // Where to start is said for each partition: an offset that is gone must not become another by itself.
        .init("auto.offset.reset", "error"),
        .init("enable.auto.commit", "false"),
        .init("enable.auto.offset.store", "false"),
        .init("enable.partition.eof", "true"),
        .init("partition.assignment.strategy", "cooperative-sticky"),
        .init("isolation.level", "read_committed"),
        .init("queued.min.messages", "50000"),
        .init("queued.max.messages.kbytes", "65536"),
        .init("fetch.message.max.bytes", "4194304"),
        .init("fetch.wait.max.ms", "100"),
        .init("fetch.error.backoff.ms", "100"),
        .init("reconnect.backoff.max.ms", "2000"),
        .init("socket.keepalive.enable", "true"),
      ] + Self.membershipDefaults(options),
      properties: options.properties, context: context)
    let subscription = KafkaPartitions([(topic, RD_KAFKA_PARTITION_UA, Int64(RD_KAFKA_OFFSET_INVALID))])
    // Events of the group are served by `rd_kafka_consumer_poll`.
    rd_kafka_poll_set_consumer(client.handle)
    let status = rd_kafka_subscribe(client.handle, subscription.list)
    if status != RD_KAFKA_RESP_ERR_NO_ERROR {
      throw KafkaFailure("cannot subscribe to \(topic): \(kafkaText(status))", isRetriable: false)
    }
  }

  deinit {
    close()
    if let topicHandle { rd_kafka_topic_destroy(topicHandle) }
  }

  private static func membershipDefaults(_ options: KafkaSourceOptions) -> [KafkaProperty] {
    // The shortest session that brokers take unless told otherwise (`group.min.session.timeout.ms`), and heartbeats by
    // which the others soon learn that it has ended: who is left has the partitions of the dead within seven seconds.
    // They are sent by a thread of librdkafka's, whatever ours are busy with.
    var defaults: [KafkaProperty] = [.init("session.timeout.ms", "6000"), .init("heartbeat.interval.ms", "500")]
    if let instanceID = options.instanceID { defaults.append(.init("group.instance.id", instanceID)) }
    return defaults
  }

  private func identity(_ partition: Int32) -> PartitionIdentity {
    PartitionIdentity(source: schema.index, topic: topic, partition: partition)
  }

  // MARK: The control thread's turn

  public func poll(timeoutMillis: Int) -> [AssignmentChange] {
    guard !isClosed else { return [] }
    var changes: [AssignmentChange] = []
    let wait = beginning.isEmpty ? timeoutMillis : min(100, timeoutMillis)
    _ = awaiting(millis: Int64(wait), napMicros: 2_000) {
      var isServed = false
      while let message = rd_kafka_consumer_poll(client.handle, 0) {
        serve(message)
        isServed = true
      }
      return isServed || context.hasChanges ? () : nil
    }
    for change in context.take() {
      switch (change, options.ownership) {
      case (.assign(let partitions), .shared):
        hasAssignment = true
        hadAssignment = true
        beginning += partitions.map(identity)
        // An empty assignment has to be answered as well.
        if partitions.isEmpty {
          assign([])
          owesEmptyStart = true
        }
      case (.revoke(let partitions, _), .shared):
        revoke(partitions.map(identity), into: &changes)
      case (.assign(let partitions), .standby):
        hasAssignment = true
        hadAssignment = true
        // Back in the group, if that was the trouble.
        topicProblem = nil
        granted.formUnion(partitions)
        mustCount = true
        // The answer to the group; what we read is our own affair.
        assign([])
      case (.revoke(let partitions, let isLost), .standby):
        noteRevoked(partitions, isLost: isLost, into: &changes)
      }
    }
    if options.ownership != .shared { followLead(&changes) }
    if !beginning.isEmpty, let started = begin(beginning) {
      beginning = []
      changes.append(.assigned(started))
    }
    if owesEmptyStart, beginning.isEmpty {
      owesEmptyStart = false
      if readers.isEmpty { changes.append(.assigned([])) }
    }
    let now = monotonicNanos()
    if now - lastUpkeepNanos >= Self.upkeepNanos {
      lastUpkeepNanos = now
      client.wakeAfterClockJump()
      pauseUnread(now)
      confirmEnds()
    }
    return changes
  }

  // MARK: Standing by

  public var holdsLead: Bool {
    switch options.ownership {
    case .shared: true
    case .standby(leads: true): topicPartitions > 0 && granted.contains(topicPartitions - 1)
    case .standby(leads: false): isFollowingLead
    }
  }

  public func setLeading(_ isLeading: Bool) {
    guard options.ownership == .standby(leads: false), isFollowingLead != isLeading else { return }
    isFollowingLead = isLeading
    mustCount = true
  }

  private func noteRevoked(_ partitions: [Int32], isLost: Bool, into changes: inout [AssignmentChange]) {
    granted.subtract(partitions)
    if isLost {
      granted = []
      hasAssignment = false
    }
    // Without cooperation everything goes and comes again with every rebalance.
    if !holdsLead || isLost || !isCooperative {
      owesRelease = true
      beginning = []
      mustCount = true
      // A release that is under way answers the group as well.
      if awaitingRelease.isEmpty { revoke(Array(readers.keys), into: &changes) }
    } else {
      revoking = []
      finishRevocation()
    }
  }

  /// Begins what we lead and do not read, and lets go of what we read and do not lead.
  private func followLead(_ changes: inout [AssignmentChange]) {
    let now = monotonicNanos()
    if mustCount, hasAssignment, now >= nextCountNanos {
      if let count = partitionCount() {
        topicPartitions = count
        mustCount = false
      } else {
        nextCountNanos = now + Self.upkeepNanos
      }
    }
    guard awaitingRelease.isEmpty else { return }
    guard holdsLead, hasAssignment else {
      beginning = []
      if !readers.isEmpty { revoke(Array(readers.keys), into: &changes) }
      return
    }
    beginning = (0..<topicPartitions).map(identity).filter { readers[$0] == nil }
  }

  /// How many partitions the topic has; nil when the brokers do not say.
  private func partitionCount() -> Int32? {
    if topicHandle == nil { topicHandle = rd_kafka_topic_new(client.handle, topic, nil) }
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let status = rd_kafka_metadata(client.handle, 0, topicHandle, &metadata, Self.questionMillis)
    defer { if let metadata { rd_kafka_metadata_destroy(metadata) } }
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata, metadata.pointee.topic_cnt == 1 else {
      client.health.lost("the partitions of \(topic) cannot be asked for: \(kafkaText(status))")
      return nil
    }
    let found = metadata.pointee.topics[0]
    guard found.err == RD_KAFKA_RESP_ERR_NO_ERROR, found.partition_cnt > 0 else {
      topicProblem = "topic \(topic): \(kafkaText(found.err))"
      return nil
    }
    return found.partition_cnt
  }

  private func serve(_ message: UnsafeMutablePointer<rd_kafka_message_t>) {
    if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR
      || message.pointee.err == RD_KAFKA_RESP_ERR__PARTITION_EOF
    {
      if let reader = readers[identity(message.pointee.partition)] {
        reader.addStray(message)
        return
      }
    } else {
      topicProblem = "topic \(topic): \(kafkaText(message.pointee.err))"
    }
    rd_kafka_message_destroy(message)
  }

  /// Fetches what was committed for the new partitions and starts them there. `nil`: the brokers do not
  /// answer; try again.
  private func begin(_ partitions: [PartitionIdentity]) -> [PartitionStart]? {
    let committed = KafkaPartitions(
      partitions.map { ($0.topic, $0.partition, Int64(RD_KAFKA_OFFSET_INVALID)) })
    let status = rd_kafka_committed(client.handle, committed.list, Self.questionMillis)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      client.health.lost(
        "the committed offsets of group \(options.group) cannot be read: \(kafkaText(status))")
      return nil
    }
    for index in 0..<committed.count where committed[index].err != RD_KAFKA_RESP_ERR_NO_ERROR {
      client.health.lost(
        "the committed offset of \(topic)[\(committed[index].partition)] cannot be read: "
          + kafkaText(committed[index].err))
      return nil
    }
    let wanted = (0..<committed.count).map { wantedStart(committed[$0]) }
    var ends: [Int32: Int64] = [:]
    var earliest: [Int32: Int64] = [:]
    if options.untilEnd || wanted.contains(where: { $0.offset != nil }) {
      guard let found = offsets(of: partitions, at: Int64(RD_KAFKA_OFFSET_END)),
        let first = offsets(of: partitions, at: Int64(RD_KAFKA_OFFSET_BEGINNING)),
        found.count == partitions.count, first.count == partitions.count
      else { return nil }
      ends = found
      earliest = first
    }
    client.health.reached()
    topicProblem = nil
    var starts: [PartitionStart] = []
    var positions: [(topic: String, partition: Int32, offset: Int64)] = []
    for start in wanted {
      let number = start.identity.partition
      let failure = start.offset.flatMap {
        Self.unreachable(start.identity, wanted: $0, earliest: earliest[number], end: ends[number])
      }
      guard
        let reader = try? KafkaPartitionReader(
          identity: start.identity, client: client, schema: schema,
          endOffset: options.untilEnd ? ends[number] : nil, failure: failure)
      else {
        topicProblem = "\(topic)[\(number)] cannot be read"
        continue
      }
      readers[start.identity] = reader
      starts.append(PartitionStart(reader: reader, committedOffset: start.offset, metadata: start.metadata))
      guard failure == nil else { continue }
      let otherwise = options.fromBeginning ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END
      positions.append((topic, number, start.offset ?? Int64(otherwise)))
    }
    assign(positions)
    return starts
  }

  /// Where a partition shall start: nil where nothing was committed and nobody says otherwise.
  private func wantedStart(
    _ committed: rd_kafka_topic_partition_t
  ) -> (identity: PartitionIdentity, offset: Int64?, metadata: String) {
    let identity = identity(committed.partition)
    let offset = committed.offset >= 0 ? committed.offset : nil
    var metadata = ""
    if offset != nil, let bytes = committed.metadata {
      metadata = String(
        decoding: UnsafeRawBufferPointer(start: bytes, count: committed.metadata_size), as: UTF8.self)
    }
    return (identity, options.startOffset?(identity, offset, metadata) ?? offset, metadata)
  }

  /// Why a partition cannot be read from an offset.
  static func unreachable(
    _ identity: PartitionIdentity, wanted: Int64, earliest: Int64?, end: Int64?
  ) -> String? {
    let place = "\(identity.topic)[\(identity.partition)]"
    if let earliest, wanted < earliest {
      return "\(place): offset \(wanted) is wanted, but the earliest that the topic still has is \(earliest); "
        + "restore a newer checkpoint, or start anew with another --group"
    }
    if let end, wanted > end {
      return "\(place): offset \(wanted) is wanted, but the topic ends at \(end): it was truncated or made anew; "
        + "start with another --group"
    }
    return nil
  }

  private var isCooperative: Bool {
    rd_kafka_rebalance_protocol(client.handle).map { String(cString: $0) } == "COOPERATIVE"
  }

  private func assign(_ positions: [(topic: String, partition: Int32, offset: Int64)]) {
    let list = KafkaPartitions(positions)
    let problem: String?
    if isCooperative {
      let error = rd_kafka_incremental_assign(client.handle, list.list)
      problem = error.map { String(cString: rd_kafka_error_string($0)) }
      if let error { rd_kafka_error_destroy(error) }
    } else {
      let status = rd_kafka_assign(client.handle, list.list)
      problem = status == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : kafkaText(status)
    }
    if let problem {
      topicProblem = problem
    } else {
      assigned.formUnion(positions.map { identity($0.partition) })
    }
  }

  /// Takes partitions from our consumer. An empty list is an answer to the group too.
  private func unassign(_ partitions: [PartitionIdentity]) {
    if isCooperative {
      // librdkafka refuses the whole list for one that it does not know, and the group would wait for ever.
      let known = partitions.filter(assigned.contains)
      let list = KafkaPartitions(known.map { ($0.topic, $0.partition, Int64(RD_KAFKA_OFFSET_INVALID)) })
      if let error = rd_kafka_incremental_unassign(client.handle, list.list) { rd_kafka_error_destroy(error) }
      assigned.subtract(known)
    } else {
      rd_kafka_assign(client.handle, nil)
      assigned = []
    }
  }

  private func revoke(_ partitions: [PartitionIdentity], into changes: inout [AssignmentChange]) {
    let lost = Set(partitions)
    beginning.removeAll { lost.contains($0) }
    revoking += partitions
    let held = partitions.filter { readers[$0] != nil }.sorted()
    for identity in held { readers[identity]?.state.values.withLock { $0.isRevoked = true } }
    if held.isEmpty {
      finishRevocation()
    } else {
      awaitingRelease.formUnion(held)
      changes.append(.revoked(held))
    }
  }

  public func released(_ partitions: [PartitionIdentity]) {
    for identity in partitions {
      awaitingRelease.remove(identity)
      readers.removeValue(forKey: identity)?.close()
    }
    if awaitingRelease.isEmpty && !revoking.isEmpty { finishRevocation() }
  }

  public func adopt(_ schema: SourceSchema) { self.schema = schema }

  public func restart() {
    let held = readers.keys.sorted()
    if held.isEmpty {
      owesEmptyStart = hasAssignment && options.ownership == .shared
      return
    }
    for identity in held {
      readers[identity]?.state.values.withLock { $0.isRevoked = true }
      readers.removeValue(forKey: identity)?.close()
    }
    unassign(held)
    beginning += held
  }

  private func finishRevocation() {
    let partitions = revoking
    revoking = []
    owesRelease = false
    unassign(partitions)
  }

  private func pauseUnread(_ now: Int64) {
    var unread: [(topic: String, partition: Int32, offset: Int64)] = []
    for (identity, reader) in readers {
      let pauses = reader.state.values.withLock { values in
        guard !values.isPaused, !values.isRevoked,
          now - values.lastReadNanos > options.pauseAfterNanos
        else { return false }
        values.isPaused = true
        values.pauseCount += 1
        return true
      }
      if pauses { unread.append((identity.topic, identity.partition, Int64(RD_KAFKA_OFFSET_INVALID))) }
    }
    guard !unread.isEmpty else { return }
    let list = KafkaPartitions(unread)
    rd_kafka_pause_partitions(client.handle, list.list)
    // A reader that came back in between has asked to resume before we paused: do it for it.
    for (identity, reader) in readers where !reader.state.values.withLock({ $0.isPaused }) {
      let one = KafkaPartitions([(identity.topic, identity.partition, Int64(RD_KAFKA_OFFSET_INVALID))])
      rd_kafka_resume_partitions(client.handle, one.list)
    }
  }

  /// Asks the brokers once for the ends of all partitions whose readers want to know whether there is really
  /// no more.
  private func confirmEnds() {
    let asking = readers.filter { $0.value.state.values.withLock { $0.wantsConfirmation } }
    let isLost = client.health.state.withLock { $0.unreachable != nil }
    guard !asking.isEmpty || (isLost && !readers.isEmpty) else { return }
    let questioned = asking.isEmpty ? Array(readers.keys.prefix(1)) : Array(asking.keys)
    guard let ends = offsets(of: questioned, at: Int64(RD_KAFKA_OFFSET_END)) else { return }
    let now = monotonicNanos()
    for (identity, reader) in asking {
      guard let end = ends[identity.partition] else { continue }
      reader.state.values.withLock { values in
        values.wantsConfirmation = false
        // Where there is more, librdkafka will say so again at the new end.
        values.isAtEnd = values.isAtEnd && values.position >= end
        if values.isAtEnd { values.confirmedNanos = now }
      }
    }
  }

  /// The first offset (`RD_KAFKA_OFFSET_BEGINNING`) or the end (the last stable offset) of each partition; `nil`
  /// when the brokers do not answer.
  private func offsets(of partitions: [PartitionIdentity], at place: Int64) -> [Int32: Int64]? {
    let list = KafkaPartitions(partitions.map { ($0.topic, $0.partition, place) })
    let status = rd_kafka_offsets_for_times(client.handle, list.list, Self.questionMillis)
    var ends: [Int32: Int64] = [:]
    if status == RD_KAFKA_RESP_ERR_NO_ERROR {
      for index in 0..<list.count
      where list[index].err == RD_KAFKA_RESP_ERR_NO_ERROR && list[index].offset >= 0 {
        ends[list[index].partition] = list[index].offset
      }
    }
    if ends.count < partitions.count {
      client.health.lost("the offsets of \(topic) cannot be asked for: \(kafkaText(status))")
      return ends.isEmpty ? nil : ends
    }
    client.health.reached()
    return ends
  }

  // MARK: Offsets

  public func committedMetadata() throws -> [String] {
    guard let count = partitionCount() else { throw KafkaFailure("the partitions of \(topic) cannot be asked for") }
    let list = KafkaPartitions((0..<count).map { (topic, $0, Int64(RD_KAFKA_OFFSET_INVALID)) })
    let status = rd_kafka_committed(client.handle, list.list, Self.questionMillis)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaFailure("the committed offsets of group \(options.group) cannot be read: \(kafkaText(status))")
    }
    return try (0..<list.count).compactMap { index in
      guard list[index].err == RD_KAFKA_RESP_ERR_NO_ERROR else {
        throw KafkaFailure("the committed offsets of group \(options.group) cannot be read")
      }
      guard let bytes = list[index].metadata else { return nil }
      return String(
        decoding: UnsafeRawBufferPointer(start: bytes, count: list[index].metadata_size), as: UTF8.self)
    }
  }

  /// Throws while the coordinator does not answer.
  ///
  /// It takes one request of a connection at a time, and the answer to a JoinGroup may be seconds away. A commit behind
  /// that is served when the group has another generation: then it is refused, and librdkafka gives up the whole
  /// assignment for it and joins again. So before each commit goes a question that costs nothing when it has to wait.
  private func confirmCoordinator() throws {
    let list = KafkaPartitions([(topic, 0, Int64(RD_KAFKA_OFFSET_INVALID))])
    let status = rd_kafka_committed(client.handle, list.list, Self.coordinatorMillis)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      client.health.lost("the coordinator of group \(options.group) does not answer")
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(status))")
    }
    client.health.reached()
  }

  /// Blocks until the group's coordinator has answered, for at most ten seconds.
  public func commit(_ points: [CommitPoint]) throws {
    guard !points.isEmpty else { return }
    guard KafkaGroupHandle.memberID(client) != nil else { throw expelled(nil) }
    try confirmCoordinator()
    // Offsets that come without a member are taken by a group that has none, whoever committed since.
    guard KafkaGroupHandle.memberID(client) != nil else { throw expelled(nil) }
    let list = KafkaPartitions(points)
    guard let queue = rd_kafka_queue_new(client.handle) else { throw KafkaFailure("out of memory") }
    defer { rd_kafka_queue_destroy(queue) }
    let status = rd_kafka_commit_queue(client.handle, list.list, queue, nil, nil)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(status))")
    }
    let answer = awaiting(millis: Self.commitMillis, napMicros: 100) { rd_kafka_queue_poll(queue, 0) }
    guard let event = answer else {
      client.health.lost("the coordinator of group \(options.group) does not answer")
      throw KafkaFailure("offsets of group \(options.group) were not committed: no answer")
    }
    defer { rd_kafka_event_destroy(event) }
    var error = rd_kafka_event_error(event)
    if error == RD_KAFKA_RESP_ERR_NO_ERROR, let answer = rd_kafka_event_topic_partition_list(event) {
      for index in 0..<Int(answer.pointee.cnt) where error == RD_KAFKA_RESP_ERR_NO_ERROR {
        error = answer.pointee.elems[index].err
      }
    }
    switch error {
    case RD_KAFKA_RESP_ERR_NO_ERROR: return
    case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
      RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      throw expelled(error)
    default:
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(error))")
    }
  }

  private func expelled(_ error: rd_kafka_resp_err_t?) -> GroupFenced {
    if options.ownership == .standby(leads: false) {
      // Our consumer may hold nothing by the group's count, and then nobody would tell us that we have to let go.
      hasAssignment = false
    }
    let reason = error.map(kafkaText) ?? "this process is not a member at the moment"
    return GroupFenced(
      "offsets of group \(options.group) were not committed: \(reason)",
      isFinal: error == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID)
  }

  public func groupHandle() throws -> any ConsumerGroupHandle {
    guard let handle = KafkaGroupHandle(client, group: options.group) else { throw expelled(nil) }
    return handle
  }

  public func lagRecords() -> [PartitionIdentity: Int64] {
    var lags: [PartitionIdentity: Int64] = [:]
    for (identity, reader) in readers {
      var low: Int64 = 0
      var high: Int64 = 0
      let status = rd_kafka_get_watermark_offsets(
        client.handle, identity.topic, identity.partition, &low, &high)
      let position = reader.state.values.withLock { $0.position }
      guard status == RD_KAFKA_RESP_ERR_NO_ERROR, high >= 0 else { continue }
      lags[identity] = max(0, high - max(position, max(low, 0)))
    }
    return lags
  }

  /// How often a partition was paused because its reader was not asked.
  public var pauseCount: Int {
    readers.values.reduce(0) { $0 + $1.state.values.withLock { $0.pauseCount } }
  }

  public var problem: String? {
    let health = client.health.state.withLock { ($0.fatal, $0.unreachable) }
    if let text = health.0 ?? health.1 ?? topicProblem { return text }
    for reader in readers.values {
      if let text = reader.state.values.withLock({ $0.problem }) { return text }
    }
    let isWaiting = !hasAssignment || !beginning.isEmpty || (mustCount && options.ownership != .shared)
    return isWaiting ? "waiting for partitions of \(topic)" : nil
  }

  /// Leaves the group. Workers must have stopped reading.
  public func close() {
    guard !isClosed else { return }
    isClosed = true
    for reader in readers.values {
      reader.state.values.withLock { $0.isRevoked = true }
      reader.close()
    }
    readers = [:]
    // The group still waits for our answers to what it said last.
    if !revoking.isEmpty || owesRelease { finishRevocation() }
    if !beginning.isEmpty { assign([]) }
    context.isClosing = true
    letGo()
    // It may never come back: when the group ends under a rebalance that we are answering, nobody answers us.
    if !client.closeConsumer(withinMillis: Self.closeMillis) { return client.leaveAlive() }
    // librdkafka 2.0.2 aborts the process when it destroys a consumer that has joined a group and was not told its
    // partitions yet (rd_kafka_sticky_assignor_state_destroy; mended in later ones).
    if !hadAssignment { client.leaveAlive() }
  }
}

extension KafkaSource {
  /// Gives back what the group has given while it is still there to hear it: what `rd_kafka_consumer_close` asks for by
  /// itself it may have forgotten by the time that it is answered, and then both wait (librdkafka 2.0).
  private func letGo() {
    guard !assigned.isEmpty || !granted.isEmpty, rd_kafka_unsubscribe(client.handle) == RD_KAFKA_RESP_ERR_NO_ERROR
    else { return }
    _ = awaiting(millis: Self.letGoMillis) {
      while let message = rd_kafka_consumer_poll(client.handle, 0) { rd_kafka_message_destroy(message) }
      return context.hasGivenBack ? () : nil
    }
  }
}

/// Rebalances as the callback reports them. It and `take` run on the control thread, inside `poll`.
private final class Rebalances: KafkaContext {
  enum Change {
    case assign([Int32])
    /// Lost: the group gave them away already.
    case revoke([Int32], isLost: Bool)
  }
  private var changes: [Change] = []
  /// While the consumer leaves there is nobody left to ask: partitions are given back at once.
  var isClosing = false
  private(set) var hasGivenBack = false

  var hasChanges: Bool { !changes.isEmpty }

  func take() -> [Change] {
    defer { changes = [] }
    return changes
  }

  override func onRebalance(
    _ handle: OpaquePointer?, _ code: rd_kafka_resp_err_t,
    _ partitions: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
  ) {
    guard let partitions else { return }
    if isClosing {
      giveBack(handle)
      hasGivenBack = true
      return
    }
    let numbers = (0..<Int(partitions.pointee.cnt)).map { partitions.pointee.elems[$0].partition }
    changes.append(
      code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
        ? .assign(numbers) : .revoke(numbers, isLost: rd_kafka_assignment_lost(handle) != 0))
  }

  /// What our consumer has, which need not be what the group takes.
  private func giveBack(_ handle: OpaquePointer?) {
    guard rd_kafka_rebalance_protocol(handle).map({ String(cString: $0) }) == "COOPERATIVE" else {
      rd_kafka_assign(handle, nil)
      return
    }
    var held: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
    guard rd_kafka_assignment(handle, &held) == RD_KAFKA_RESP_ERR_NO_ERROR, let held else { return }
    if let error = rd_kafka_incremental_unassign(handle, held) { rd_kafka_error_destroy(error) }
    rd_kafka_topic_partition_list_destroy(held)
  }
}
