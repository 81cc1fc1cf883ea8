import CRdkafka
import Glibc
import Runtime

/// What a sink or a writer may not be able to do any more: the run ends.
public struct SinkFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  /// The reader of our output went away (`rulesd … | head`): nothing to complain about.
  public var isClosedPipe: Bool
  public init(_ description: String, isClosedPipe: Bool = false) {
    self.description = description
    self.isClosedPipe = isClosedPipe
  }
}

/// A producer and its topics.
///
/// @unchecked: `produce`, `offer`, `serve` and `flush` are for one thread at a time, and their callers' locks see to
/// that.
final class KafkaProducer: @unchecked Sendable {
  let client: KafkaClient
  private var topics: [String: OpaquePointer] = [:]
  private var reportedFailures = 0

  /// With a `transactionalID` records can be produced inside of transactions only.
  init(
    brokers: String, isIdempotent: Bool, compression: String, transactionalID: String? = nil,
    properties: [KafkaProperty], context: KafkaContext = KafkaContext()
  ) throws(KafkaFailure) {
    let transactional = transactionalID.map { [KafkaProperty("transactional.id", $0)] } ?? []
    client = try KafkaClient(
      RD_KAFKA_PRODUCER,
      defaults: [
        .init("bootstrap.servers", brokers),
        .init("client.id", "rulesd"),
        .init("enable.idempotence", isIdempotent ? "true" : "false"),
        .init("compression.codec", compression),
        .init("linger.ms", "20"),
        .init("queue.buffering.max.kbytes", "65536"),
        // The partitioner of the Java client, so that keys land where other producers put them.
        .init("partitioner", "murmur2_random"),
        .init("reconnect.backoff.max.ms", "2000"),
        .init("socket.keepalive.enable", "true"),
      ] + transactional, properties: properties, context: context)
  }

  deinit { for topic in topics.values { rd_kafka_topic_destroy(topic) } }

  private func handle(of topic: String) throws(SinkFailure) -> OpaquePointer {
    if let known = topics[topic] { return known }
    guard let created = rd_kafka_topic_new(client.handle, topic, nil) else {
      throw SinkFailure("cannot write to topic \(topic): \(kafkaText(rd_kafka_last_error()))")
    }
    topics[topic] = created
    return created
  }

  /// Hands a record to librdkafka, which copies it. Waits while its queue is full, for as long as that takes. `tag`
  /// comes back with the delivery report.
  func produce(
    topic: String, partition: Int32, key: UnsafeRawBufferPointer, payload: UnsafeRawBufferPointer,
    timestampMillis: Int64, tag: Int = 0, header: (name: String, value: String)? = nil
  ) throws(SinkFailure) {
    let status = try offer(
      topic: topic, partition: partition, key: key, payload: payload, timestampMillis: timestampMillis,
      tag: tag, header: header, isGivenUp: { false })
    if status != RD_KAFKA_RESP_ERR_NO_ERROR {
      throw SinkFailure("cannot write to topic \(topic): \(kafkaText(status))")
    }
  }

  /// As `produce`, but tells what librdkafka said. While its queue is full `isGivenUp` is asked now and then; when
  /// it answers true that is the end, with QUEUE_FULL.
  func offer(
    topic: String, partition: Int32, key: UnsafeRawBufferPointer, payload: UnsafeRawBufferPointer,
    timestampMillis: Int64, tag: Int, header: (name: String, value: String)? = nil, isGivenUp: () -> Bool
  ) throws(SinkFailure) -> rd_kafka_resp_err_t {
    let topicHandle = try handle(of: topic)
    while true {
      let keyStart = key.isEmpty ? nil : key.baseAddress
      let opaque = UnsafeMutableRawPointer(bitPattern: tag)
      let status =
        if let header {
          rd_kafka_shim_produce_with_header(
            client.handle, topicHandle, partition, keyStart, key.count, payload.baseAddress, payload.count,
            timestampMillis, header.name, header.value, opaque)
        } else {
          rd_kafka_shim_produce(
            client.handle, topicHandle, partition, keyStart, key.count, payload.baseAddress, payload.count,
            timestampMillis, opaque)
        }
      guard status == RD_KAFKA_RESP_ERR__QUEUE_FULL, !isGivenUp() else { return status }
      // Not by librdkafka's clock: KafkaWaiting.swift says why.
      if rd_kafka_poll(client.handle, 0) == 0 { usleep(1_000) }
      try throwIfFatal()
    }
  }

  /// Serves delivery reports without waiting.
  func serve() throws(SinkFailure) {
    rd_kafka_poll(client.handle, 0)
    try throwIfFatal()
  }

  func throwIfFatal() throws(SinkFailure) {
    if let text = client.health.state.withLock({ $0.fatal }) { throw SinkFailure(text) }
  }

  /// Returns when every record is on its broker; throws when one was refused for good since the last flush,
  /// or when `millisMax` have passed.
  func flush(millisMax: Int64) throws(SinkFailure) {
    let deadline = monotonicNanos() + millisMax * 1_000_000
    while rd_kafka_outq_len(client.handle) > 0 {
      if monotonicNanos() > deadline {
        let reason = client.health.state.withLock { $0.unreachable } ?? "the brokers do not acknowledge"
        throw SinkFailure("\(rd_kafka_outq_len(client.handle)) records are not written: \(reason)")
      }
      if rd_kafka_flush(client.handle, 0) != RD_KAFKA_RESP_ERR_NO_ERROR { usleep(2_000) }
      client.wakeAfterClockJump()
      try throwIfFatal()
    }
    rd_kafka_poll(client.handle, 0)
    let (count, text) = client.health.state.withLock { ($0.failureCount, $0.failure) }
    if count > reportedFailures {
      let lost = count - reportedFailures
      reportedFailures = count
      throw SinkFailure("\(lost) records were not written: \(text ?? "unknown")")
    }
  }

  var problem: String? {
    client.health.state.withLock { $0.fatal ?? $0.unreachable }
  }
}

/// Writes records to Kafka one by one: what `simulate` uses. Used by one thread.
public final class KafkaWriter {
  private let producer: KafkaProducer

  /// Throws `KafkaFailure` for a property that librdkafka does not take.
  public init(brokers: String, properties: [KafkaProperty] = []) throws {
    producer = try KafkaProducer(
      brokers: brokers, isIdempotent: true, compression: "lz4", properties: properties)
  }

  /// `partition` -1: by the key's hash (murmur2, as the Java client does), anywhere without a key.
  /// `timestampMillis` 0: now. `replays` above 0: the header that counts them. Blocks while 64 MiB wait for the
  /// brokers.
  public func write(
    topic: String, key: [UInt8], payload: [UInt8], timestampMillis: Int64, partition: Int32 = -1, replays: Int = 0
  ) throws {
    let header = replays > 0 ? (name: RecordDetails.replaysHeader, value: String(replays)) : nil
    try key.withUnsafeBytes { key in
      try payload.withUnsafeBytes { payload in
        try producer.produce(
          topic: topic, partition: partition, key: key, payload: payload,
          timestampMillis: timestampMillis, header: header)
      }
    }
    pending += 1
    if pending & 1_023 == 0 { try producer.serve() }
  }
  private var pending = 0

  /// Returns when everything written is on the brokers. Throws `SinkFailure` when a record is lost, or after
  /// `millisMax`.
  public func flush(millisMax: Int64 = 60_000) throws { try producer.flush(millisMax: millisMax) }

  public var problem: String? { producer.problem }
}
