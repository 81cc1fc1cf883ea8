import Runtime

public struct KafkaSinkOptions: Sendable {
  public var brokers: String
  /// `-X name=value`.
  public var properties: [KafkaProperty] = []
  /// Topic by kind of record; the defaults are `rulesd.metrics`, `rulesd.alerts` and so on.
  public var topics: [RecordKind: String] = KafkaSinkOptions.defaultTopics
  /// Topics that rules name themselves: what `OutputBatch.Entry.topic` points into.
  public var topicOverrides: [String] = []
  /// Kept in order and free of repetitions by the broker; switch it off for brokers that do not know it.
  public var isIdempotent = true
  /// lz4, zstd, snappy, gzip or none.
  public var compression = "lz4"
  /// How long `flush` waits. librdkafka gives up a record after five minutes (`message.timeout.ms`), hence a
  /// little more.
  public var flushMillisMax: Int64 = 310_000

  public init(brokers: String, properties: [KafkaProperty] = []) {
    self.brokers = brokers
    self.properties = properties
  }

  public static let defaultTopics: [RecordKind: String] = [
    .metric: "rulesd.metrics", .anomaly: "rulesd.anomalies", .alert: "rulesd.alerts",
    .slo: "rulesd.slo", .pattern: "rulesd.patterns", .row: "rulesd.rows",
    .deadLetter: "rulesd.dead_letters", .late: "rulesd.late",
  ]
}

/// Writes records to Kafka topics by kind, keyed by their labels, so that the records of one series stay in
/// order.
public final class KafkaSink: RecordSink {
  private let options: KafkaSinkOptions
  private let producer: KafkaProducer

  /// Throws `KafkaFailure` for a property that librdkafka does not take.
  public init(options: KafkaSinkOptions) throws {
    self.options = options
    producer = try KafkaProducer(
      brokers: options.brokers, isIdempotent: options.isIdempotent, compression: options.compression,
      properties: options.properties)
  }

  private func topic(of entry: OutputBatch.Entry) -> String {
    if entry.topic >= 0 && Int(entry.topic) < options.topicOverrides.count {
      return options.topicOverrides[Int(entry.topic)]
    }
    return options.topics[entry.kind] ?? "rulesd.\(entry.kind.name)"
  }

  public func write(_ batch: OutputBatch) throws {
    try batch.bytes.withUnsafeBytes { bytes in
      try batch.keys.withUnsafeBytes { keys in
        for entry in batch.entries {
          let payload = UnsafeRawBufferPointer(rebasing: bytes[entry.start..<entry.start + entry.length])
          let key = UnsafeRawBufferPointer(
            rebasing: keys[entry.keyStart..<entry.keyStart + entry.keyLength])
          try producer.produce(
            topic: topic(of: entry), partition: -1, key: key, payload: payload, timestampMillis: 0)
        }
      }
    }
    try producer.serve()
  }

  public func flush() throws { try producer.flush(millisMax: options.flushMillisMax) }
  public var problem: String? { producer.problem }
  public func close() { try? producer.flush(millisMax: 5_000) }
}
