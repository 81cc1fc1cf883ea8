import CRdkafka
import Glibc
import Runtime
import Synchronization

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
/// order. What a process that is killed had written after its last commit is written again: at least once.
public final class KafkaSink: RecordSink {
  private let options: KafkaSinkOptions
  private let producer: KafkaProducer
  private let ledger: DeliveryLedger
  private var overrides: [String]

  /// Throws `KafkaFailure` for a property that librdkafka does not take.
  public init(options: KafkaSinkOptions) throws {
    self.options = options
    overrides = options.topicOverrides
    ledger = DeliveryLedger()
    producer = try KafkaProducer(
      brokers: options.brokers, isIdempotent: options.isIdempotent, compression: options.compression,
      properties: options.properties, context: ledger)
  }

  public func write(_ batch: OutputBatch) throws {
    let tag = ledger.counts.withLock { $0.expect(batch.entries.count) }
    var handedOver = 0
    defer {
      let missing = batch.entries.count - handedOver
      if missing > 0 { ledger.counts.withLock { $0.settle(missing, tag: tag) } }
    }
    try batch.forEachRecord { entry, key, payload in
      try producer.produce(
        topic: options.topic(of: entry, overrides), partition: -1, key: key, payload: payload, timestampMillis: 0,
        tag: tag)
      handedOver += 1
    }
    try producer.serve()
  }

  public func adopt(topics: [String]) { overrides = topics }

  public func flush() throws { try producer.flush(millisMax: options.flushMillisMax) }

  public func barrier(_ epoch: UInt64) { ledger.counts.withLock { $0.addBarrier(epoch) } }

  /// Throws `RecordsLost` when the brokers refused a record before the barrier for good, and `SinkFailure` when
  /// they have not acknowledged all after `flushMillisMax`: another try goes on waiting.
  public func complete(_ epoch: UInt64) throws {
    let deadline = monotonicNanos() + options.flushMillisMax * 1_000_000
    while true {
      let waiting = try ledger.counts.withLock { try $0.waiting(before: epoch) }
      if waiting == 0 { return }
      try producer.throwIfFatal()
      if monotonicNanos() > deadline {
        let reason = producer.problem ?? "the brokers do not acknowledge"
        throw SinkFailure("\(waiting) records are not written: \(reason)")
      }
      producer.client.wakeAfterClockJump()
      if rd_kafka_poll(producer.client.handle, 0) == 0 { usleep(1_000) }
    }
  }

  public var problem: String? { producer.problem }
  public func close() { try? producer.flush(millisMax: 5_000) }
}

extension KafkaSinkOptions {
  /// `overrides` are the topics that rules name themselves.
  func topic(of entry: OutputBatch.Entry, _ overrides: [String]) -> String {
    if entry.topic >= 0 && Int(entry.topic) < overrides.count { return overrides[Int(entry.topic)] }
    return topics[entry.kind] ?? "rulesd.\(entry.kind.name)"
  }
}

extension OutputBatch {
  /// Every record's entry, key and text, in order.
  func forEachRecord(
    _ body: (Entry, _ key: UnsafeRawBufferPointer, _ payload: UnsafeRawBufferPointer) throws -> Void
  ) throws {
    try bytes.withUnsafeBytes { bytes in
      try keys.withUnsafeBytes { keys in
        for entry in entries {
          try body(
            entry, UnsafeRawBufferPointer(rebasing: keys[entry.keyStart..<entry.keyStart + entry.keyLength]),
            UnsafeRawBufferPointer(rebasing: bytes[entry.start..<entry.start + entry.length]))
        }
      }
    }
  }
}

/// Counts what the brokers have acknowledged, on the threads that poll.
final class DeliveryLedger: KafkaContext {
  let counts = Mutex(DeliveryCounts())

  override func onDelivery(_ message: UnsafePointer<rd_kafka_message_t>?) {
    super.onDelivery(message)
    guard let message else { return }
    let tag = Int(bitPattern: message.pointee._private)
    counts.withLock { counts in
      counts.settle(1, tag: tag)
      if message.pointee.err != RD_KAFKA_RESP_ERR_NO_ERROR { counts.fail(1, tag: tag, Self.failureText(message)) }
    }
  }
}
