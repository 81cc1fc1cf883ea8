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
/// brokers do not answer, a `poll` may take a second longer than it was given.
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
  private var lastUpkeepNanos: Int64 = 0
  private var topicProblem: String?
  private var isClosed = false

  /// How long a question to the brokers may hold up the control thread.
  private static let questionMillis: Int32 = 1_000
  private static let commitMillis: Int32 = 10_000
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
        .init("auto.offset.reset", options.fromBeginning ? "earliest" : "latest"),
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
      ],
      properties: options.properties, context: context)
    let subscription = KafkaPartitions([(topic, RD_KAFKA_PARTITION_UA, Int64(RD_KAFKA_OFFSET_INVALID))])
    // Events of the group are served by `rd_kafka_consumer_poll`.
    rd_kafka_poll_set_consumer(client.handle)
    let status = rd_kafka_subscribe(client.handle, subscription.list)
    if status != RD_KAFKA_RESP_ERR_NO_ERROR {
      throw KafkaFailure("cannot subscribe to \(topic): \(kafkaText(status))", isRetriable: false)
    }
  }

  deinit { close() }

  private func identity(_ partition: Int32) -> PartitionIdentity {
    PartitionIdentity(source: schema.index, topic: topic, partition: partition)
  }

  // MARK: The control thread's turn

  public func poll(timeoutMillis: Int) -> [AssignmentChange] {
    guard !isClosed else { return [] }
    var changes: [AssignmentChange] = []
    var wait = beginning.isEmpty ? Int32(clamping: timeoutMillis) : min(100, Int32(clamping: timeoutMillis))
    while let message = rd_kafka_consumer_poll(client.handle, wait) {
      serve(message)
      wait = 0
    }
    for change in context.take() {
      switch change {
      case .assign(let partitions):
        hasAssignment = true
        beginning += partitions.map(identity)
        // An empty assignment has to be answered as well.
        if partitions.isEmpty { assign([]) }
      case .revoke(let partitions):
        revoke(partitions.map(identity), into: &changes)
      }
    }
    if !beginning.isEmpty, let started = begin(beginning) {
      beginning = []
      changes.append(.assigned(started))
    }
    let now = monotonicNanos()
    if now - lastUpkeepNanos >= Self.upkeepNanos {
      lastUpkeepNanos = now
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
    var ends: [Int32: Int64] = [:]
    if options.untilEnd {
      guard let found = endOffsets(of: partitions), found.count == partitions.count else { return nil }
      ends = found
    }
    client.health.reached()
    topicProblem = nil
    var starts: [PartitionStart] = []
    var positions: [(topic: String, partition: Int32, offset: Int64)] = []
    for index in 0..<committed.count {
      let element = committed[index]
      let identity = identity(element.partition)
      guard
        let reader = try? KafkaPartitionReader(
          identity: identity, client: client, schema: schema, endOffset: ends[element.partition])
      else {
        topicProblem = "\(identity.topic)[\(identity.partition)] cannot be read"
        continue
      }
      readers[identity] = reader
      var metadata = ""
      if let bytes = element.metadata {
        metadata = String(
          decoding: UnsafeRawBufferPointer(start: bytes, count: element.metadata_size), as: UTF8.self)
      }
      let hasOffset = element.offset >= 0
      starts.append(
        PartitionStart(
          reader: reader, committedOffset: hasOffset ? element.offset : nil,
          metadata: hasOffset ? metadata : ""))
      positions.append(
        (identity.topic, identity.partition, hasOffset ? element.offset : Int64(RD_KAFKA_OFFSET_INVALID)))
    }
    assign(positions)
    return starts
  }

  private var isCooperative: Bool {
    rd_kafka_rebalance_protocol(client.handle).map { String(cString: $0) } == "COOPERATIVE"
  }

  private func assign(_ positions: [(topic: String, partition: Int32, offset: Int64)]) {
    let list = KafkaPartitions(positions)
    if isCooperative {
      let error = rd_kafka_incremental_assign(client.handle, list.list)
      if let error {
        topicProblem = String(cString: rd_kafka_error_string(error))
        rd_kafka_error_destroy(error)
      }
    } else {
      let status = rd_kafka_assign(client.handle, list.list)
      if status != RD_KAFKA_RESP_ERR_NO_ERROR { topicProblem = kafkaText(status) }
    }
  }

  private func revoke(_ partitions: [PartitionIdentity], into changes: inout [AssignmentChange]) {
    let lost = Set(partitions)
    beginning.removeAll { lost.contains($0) }
    revoking += partitions
    let held = partitions.filter { readers[$0] != nil }
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
    guard !held.isEmpty else { return }
    for identity in held {
      readers[identity]?.state.values.withLock { $0.isRevoked = true }
      readers.removeValue(forKey: identity)?.close()
    }
    let list = KafkaPartitions(
      held.map { ($0.topic, $0.partition, Int64(RD_KAFKA_OFFSET_INVALID)) })
    if isCooperative {
      if let error = rd_kafka_incremental_unassign(client.handle, list.list) { rd_kafka_error_destroy(error) }
    } else {
      rd_kafka_assign(client.handle, nil)
    }
    beginning += held
  }

  private func finishRevocation() {
    let list = KafkaPartitions(
      revoking.map { ($0.topic, $0.partition, Int64(RD_KAFKA_OFFSET_INVALID)) })
    revoking = []
    if isCooperative {
      if let error = rd_kafka_incremental_unassign(client.handle, list.list) { rd_kafka_error_destroy(error) }
    } else {
      rd_kafka_assign(client.handle, nil)
    }
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
    guard let ends = endOffsets(of: questioned) else { return }
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

  /// The brokers' end of each partition (the last stable offset); `nil` when they do not answer.
  private func endOffsets(of partitions: [PartitionIdentity]) -> [Int32: Int64]? {
    let list = KafkaPartitions(
      partitions.map { ($0.topic, $0.partition, Int64(RD_KAFKA_OFFSET_END)) })
    let status = rd_kafka_offsets_for_times(client.handle, list.list, Self.questionMillis)
    var ends: [Int32: Int64] = [:]
    if status == RD_KAFKA_RESP_ERR_NO_ERROR {
      for index in 0..<list.count
      where list[index].err == RD_KAFKA_RESP_ERR_NO_ERROR && list[index].offset >= 0 {
        ends[list[index].partition] = list[index].offset
      }
    }
    if ends.count < partitions.count {
      client.health.lost("the end of \(topic) cannot be asked for: \(kafkaText(status))")
      return ends.isEmpty ? nil : ends
    }
    client.health.reached()
    return ends
  }

  // MARK: Offsets

  /// Blocks until the group's coordinator has answered, for at most ten seconds.
  public func commit(_ points: [CommitPoint]) throws {
    guard !points.isEmpty else { return }
    let list = KafkaPartitions(points.map { ($0.partition.topic, $0.partition.partition, $0.offset) })
    for (index, point) in points.enumerated() where !point.metadata.isEmpty {
      // Freed together with the list.
      var element = list[index]
      element.metadata = UnsafeMutableRawPointer(strdup(point.metadata))
      element.metadata_size = point.metadata.utf8.count
      list[index] = element
    }
    guard let queue = rd_kafka_queue_new(client.handle) else { throw KafkaFailure("out of memory") }
    defer { rd_kafka_queue_destroy(queue) }
    let status = rd_kafka_commit_queue(client.handle, list.list, queue, nil, nil)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(status))")
    }
    guard let event = rd_kafka_queue_poll(queue, Self.commitMillis) else {
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
    if error != RD_KAFKA_RESP_ERR_NO_ERROR {
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(error))")
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
    return hasAssignment && beginning.isEmpty ? nil : "waiting for partitions of \(topic)"
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
    if !revoking.isEmpty { finishRevocation() }
    if !beginning.isEmpty { assign([]) }
    context.isClosing = true
    rd_kafka_consumer_close(client.handle)
  }
}

/// Rebalances as the callback reports them. It and `take` run on the control thread, inside `poll`.
private final class Rebalances: KafkaContext {
  enum Change {
    case assign([Int32])
    case revoke([Int32])
  }
  private var changes: [Change] = []
  /// While the consumer leaves there is nobody left to ask: partitions are given back at once.
  var isClosing = false

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
      if rd_kafka_rebalance_protocol(handle).map({ String(cString: $0) }) == "COOPERATIVE" {
        if let error = rd_kafka_incremental_unassign(handle, partitions) { rd_kafka_error_destroy(error) }
      } else {
        rd_kafka_assign(handle, nil)
      }
      return
    }
    let numbers = (0..<Int(partitions.pointee.cnt)).map { partitions.pointee.elems[$0].partition }
    changes.append(code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? .assign(numbers) : .revoke(numbers))
  }
}
