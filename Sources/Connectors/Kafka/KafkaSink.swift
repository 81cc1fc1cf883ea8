import CRdkafka
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
    let tag = ledger.expect(batch.entries.count)
    var handedOver = 0
    defer { if handedOver < batch.entries.count { ledger.forget(batch.entries.count - handedOver, tag: tag) } }
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

  public func barrier(_ epoch: UInt64) { ledger.barrier(epoch) }

  /// Throws `RecordsLost` when the brokers refused a record before the barrier for good, and `SinkFailure` when
  /// they have not acknowledged all after `flushMillisMax`: another try goes on waiting.
  public func complete(_ epoch: UInt64) throws {
    let deadline = monotonicNanos() + options.flushMillisMax * 1_000_000
    while true {
      let waiting = try ledger.waiting(before: epoch)
      if waiting == 0 { return }
      try producer.throwIfFatal()
      if monotonicNanos() > deadline {
        let reason = producer.problem ?? "the brokers do not acknowledge"
        throw SinkFailure("\(waiting) records are not written: \(reason)")
      }
      rd_kafka_poll(producer.client.handle, 50)
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

/// Counts the records between two barriers that the brokers have not acknowledged. Delivery reports of different
/// partitions come in any order, so each record carries the number of its stretch.
final class DeliveryLedger: KafkaContext {
  private struct State {
    /// The stretch that is being written, from 1.
    var stretch = 1
    /// Unacknowledged records by stretch; those without any are left out.
    var waiting: [Int: Int] = [:]
    /// Barriers, ascending, and the last stretch before each; forgotten when they are asked for.
    var barriers: [(epoch: UInt64, stretch: Int)] = []
    /// The first record that was refused for good, and how many.
    var failure: (stretch: Int, text: String, count: Int)?
  }
  private let state = Mutex(State())

  /// So many records follow; returns their tag.
  func expect(_ count: Int) -> Int {
    state.withLock { state in
      if count > 0 { state.waiting[state.stretch, default: 0] += count }
      return state.stretch
    }
  }

  /// Records that were not handed over after all.
  func forget(_ count: Int, tag: Int) { state.withLock { Self.settle(count, tag: tag, &$0) } }

  func barrier(_ epoch: UInt64) {
    state.withLock { state in
      state.barriers.append((epoch, state.stretch))
      state.stretch += 1
    }
  }

  /// How many records before the barrier are not acknowledged.
  func waiting(before epoch: UInt64) throws(RecordsLost) -> Int {
    try state.withLock { state throws(RecordsLost) in
      guard let barrier = state.barriers.last(where: { $0.epoch <= epoch }) else { return 0 }
      if let failure = state.failure, failure.stretch <= barrier.stretch {
        // What follows is written again as well: there is nothing to remember of it.
        state.failure = nil
        throw RecordsLost("\(failure.count) records were not written: \(failure.text)")
      }
      let count = state.waiting.reduce(0) { $0 + ($1.key <= barrier.stretch ? $1.value : 0) }
      if count == 0 { state.barriers.removeAll { $0.stretch < barrier.stretch } }
      return count
    }
  }

  private static func settle(_ count: Int, tag: Int, _ state: inout State) {
    let left = state.waiting[tag, default: 0] - count
    state.waiting[tag] = left > 0 ? left : nil
  }

  override func onDelivery(_ message: UnsafePointer<rd_kafka_message_t>?) {
    super.onDelivery(message)
    guard let message else { return }
    let tag = Int(bitPattern: message.pointee._private)
    state.withLock { state in
      Self.settle(1, tag: tag, &state)
      guard message.pointee.err != RD_KAFKA_RESP_ERR_NO_ERROR else { return }
      let known = state.failure
      state.failure = (
        min(known?.stretch ?? tag, tag), known?.text ?? Self.failureText(message), (known?.count ?? 0) + 1
      )
    }
  }
}
