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
  let topic: String
  let options: KafkaSourceOptions
  let client: KafkaClient
  private let context: Rebalances
  var readers: [PartitionIdentity: KafkaPartitionReader] = [:]
  /// Given by the group, but not begun: committed offsets are still to be fetched.
  var beginning: [PartitionIdentity] = []
  /// Taken by the group: handed on when the workers have let go of all.
  var revoking: [PartitionIdentity] = []
  var awaitingRelease: Set<PartitionIdentity> = []
  /// Who we were in the group when the first reader began.
  var memberOfReaders: String?
  var hasAssignment = false
  private var hadAssignment = false
  private var lastUpkeepNanos: Int64 = 0
  var topicProblem: String?
  private var isClosed = false
  /// What is assigned to our consumer, whatever the group thinks.
  var assigned: Set<PartitionIdentity> = []
  /// Standing by: the partitions that the group gave us, of which only the last means something.
  var granted: Set<Int32> = []
  /// A follower's word from its daemon.
  var isFollowingLead = false
  /// The group waits for us to let go.
  var owesRelease = false
  /// The daemon has to hear that there is nothing for it, so that it does not wait.
  var owesEmptyStart = false
  /// How many partitions the topic has, 0 until the brokers have said; and whether it may have more by now.
  var topicPartitions: Int32 = 0
  var mustCount = false
  var nextCountNanos: Int64 = 0
  var topicHandle: OpaquePointer?

  /// How long a question to the brokers may hold up the control thread.
  static let questionMillis: Int32 = 1_000
  private static let closeMillis: Int64 = 5_000
  private static let letGoMillis: Int64 = 1_000
  static let upkeepNanos: Int64 = 250_000_000

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

  func identity(_ partition: Int32) -> PartitionIdentity {
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

  public func adopt(_ schema: SourceSchema) { self.schema = schema }

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
