import CRdkafka
import Runtime

/// One message of a topic, as it is.
public struct KafkaMessage: Sendable {
  public var partition: Int32
  public var offset: Int64
  public var key: [UInt8]?
  /// Nil for a tombstone.
  public var payload: [UInt8]?
}

/// Reads a topic from its beginning to the end that it has now, without a group: what `replay` reads dead letters
/// with. Used by one thread.
public final class KafkaTopicReader {
  private let client: KafkaClient
  private let topic: String
  /// One behind the last message to be read, for partitions that have not been read so far.
  private var ends: [Int32: Int64] = [:]
  private static let questionMillis: Int32 = 15_000

  /// Throws `KafkaFailure` when the brokers do not answer, or know no such topic.
  public init(brokers: String, topic: String, properties: [KafkaProperty] = []) throws {
    self.topic = topic
    client = try KafkaClient(
      RD_KAFKA_CONSUMER,
      defaults: [
        .init("bootstrap.servers", brokers), .init("client.id", "rulesd"),
        // Needed by name, never joined.
        .init("group.id", "rulesd-replay"), .init("enable.auto.commit", "false"),
        .init("enable.auto.offset.store", "false"), .init("enable.partition.eof", "true"),
        .init("isolation.level", "read_committed"), .init("auto.offset.reset", "earliest"),
        .init("queued.max.messages.kbytes", "16384"), .init("allow.auto.create.topics", "false"),
      ], properties: properties)
    rd_kafka_poll_set_consumer(client.handle)
    var starts: [(topic: String, partition: Int32, offset: Int64)] = []
    for partition in try partitions() {
      var low: Int64 = 0
      var high: Int64 = 0
      let status = rd_kafka_query_watermark_offsets(
        client.handle, topic, partition, &low, &high, Self.questionMillis)
      guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
        throw KafkaFailure("the end of \(topic)[\(partition)] cannot be asked for: \(kafkaText(status))")
      }
      guard high > low else { continue }
      ends[partition] = high
      starts.append((topic, partition, low))
    }
    guard !starts.isEmpty else { return }
    let list = KafkaPartitions(starts)
    let status = rd_kafka_assign(client.handle, list.list)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaFailure("\(topic) cannot be read: \(kafkaText(status))")
    }
  }

  deinit { rd_kafka_consumer_close(client.handle) }

  private func partitions() throws(KafkaFailure) -> [Int32] {
    guard let handle = rd_kafka_topic_new(client.handle, topic, nil) else {
      throw KafkaFailure("\(topic) is no topic: \(kafkaText(rd_kafka_last_error()))", isRetriable: false)
    }
    defer { rd_kafka_topic_destroy(handle) }
    var found: UnsafePointer<rd_kafka_metadata>?
    let status = rd_kafka_metadata(client.handle, 0, handle, &found, Self.questionMillis)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR, let found else {
      let reason = client.health.state.withLock { $0.unreachable } ?? kafkaText(status)
      throw KafkaFailure("topic \(topic) cannot be asked for: \(reason)")
    }
    defer { rd_kafka_metadata_destroy(found) }
    guard found.pointee.topic_cnt == 1, found.pointee.topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR,
      found.pointee.topics[0].partition_cnt > 0
    else { throw KafkaFailure("the brokers know no topic \(topic)", isRetriable: false) }
    return (0..<Int(found.pointee.topics[0].partition_cnt)).map { found.pointee.topics[0].partitions[$0].id }
  }

  /// The next message; of one partition in order, of several as they come. Nil behind the last. Throws `KafkaFailure`
  /// when nothing has come for a minute, or what the broker refused.
  public func next() throws -> KafkaMessage? {
    let deadline = monotonicNanos() + 60_000_000_000
    while !ends.isEmpty {
      guard let pointer = rd_kafka_consumer_poll(client.handle, 100) else {
        guard monotonicNanos() < deadline else {
          let reason = client.health.state.withLock { $0.unreachable } ?? "nothing comes"
          throw KafkaFailure("\(topic) cannot be read to its end: \(reason)")
        }
        continue
      }
      defer { rd_kafka_message_destroy(pointer) }
      let message = pointer.pointee
      switch message.err {
      case RD_KAFKA_RESP_ERR_NO_ERROR:
        guard let end = ends[message.partition], message.offset < end else { continue }
        if message.offset + 1 >= end { ends[message.partition] = nil }
        return KafkaMessage(
          partition: message.partition, offset: message.offset,
          key: message.key.map { Array(UnsafeRawBufferPointer(start: $0, count: message.key_len)) },
          payload: message.payload.map { Array(UnsafeRawBufferPointer(start: $0, count: message.len)) })
      case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        // Aborted records and the marks of transactions fill the end.
        ends[message.partition] = nil
      default:
        throw KafkaFailure("\(topic)[\(message.partition)]: \(kafkaText(message.err))")
      }
    }
    return nil
  }
}
