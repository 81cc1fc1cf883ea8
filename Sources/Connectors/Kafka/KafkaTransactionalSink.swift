import CRdkafka
import Glibc
import Runtime
import Synchronization

public struct KafkaTransactionOptions: Sendable {
  /// Who writes: a later producer of the same name aborts what this one left open, and fences it.
  public var transactionalID: String
  /// After so long the brokers abort a transaction by themselves (their `transaction.max.timeout.ms` is 15 minutes).
  /// Many times the commit interval, since a commit may have to wait for a broker that is away; but as long may
  /// readers of committed records have to wait behind a process that died.
  public var timeoutMillis: Int64 = 60_000
  /// Records behind a barrier that is being committed, before `write` blocks.
  public var waitingBytesMax = 64 << 20
  /// How long `prepare` and `abort` try.
  public var prepareMillisMax: Int64 = 10_000
  public var abortMillisMax: Int64 = 5_000

  public init(transactionalID: String) { self.transactionalID = transactionalID }
}

/// Writes records to Kafka topics by kind, as `KafkaSink` does, and commits them together with the offsets of what
/// they were made of: readers of committed records see each once.
///
/// A producer has one transaction at a time. What comes behind a barrier waits in memory until the barrier's
/// transaction is committed, and opens the next. A transaction that cannot be committed dooms all that follows: it
/// is dropped until `prepare`, since an engine that starts from the committed offsets writes it again.
public final class KafkaTransactionalSink: TransactionalSink, Sendable {
  private struct State {
    /// Nil before `prepare` and after `abort`.
    var producer: KafkaProducer?
    var isOpen = false
    var openedNanos: Int64 = 0
    var buffer: TransactionBuffer
    /// Why the open transaction cannot be committed, found while writing.
    var failure: (any Error)?

    init(_ transactions: KafkaTransactionOptions) {
      buffer = TransactionBuffer(bytesMax: transactions.waitingBytesMax)
    }
  }

  /// For `problem`, which must not wait for a write.
  private struct Report {
    var health: KafkaHealth?
    var trouble: String?
  }

  private let options: KafkaSinkOptions
  private let transactions: KafkaTransactionOptions
  private let state: Mutex<State>
  private let report = Mutex(Report())
  private let overrides: Mutex<[String]>
  /// Set by `abort`, also while the lock is held by a write that waits for room.
  private let isGivenUp = Atomic(false)

  /// Does not connect; `prepare` does. Throws `KafkaFailure` for a property that librdkafka does not take.
  public init(options: KafkaSinkOptions, transactions: KafkaTransactionOptions) throws {
    self.options = options
    self.transactions = transactions
    overrides = Mutex(options.topicOverrides)
    state = Mutex(State(transactions))
    _ = try makeProducer()
  }

  private func makeProducer() throws(KafkaFailure) -> KafkaProducer {
    try KafkaProducer(
      brokers: options.brokers, isIdempotent: true, compression: options.compression,
      transactionalID: transactions.transactionalID,
      properties: [KafkaProperty("transaction.timeout.ms", "\(transactions.timeoutMillis)")] + options.properties)
  }

  // MARK: Taking over and giving up

  /// Makes a new producer each time: one that was fenced while we stood by must not be used again.
  public func prepare() throws {
    abort()
    let producer = try makeProducer()
    let client = producer.client
    report.withLock { $0 = Report(health: client.health) }
    let deadline = monotonicNanos() + transactions.prepareMillisMax * 1_000_000
    do {
      try attempt("transactions of \(transactions.transactionalID) cannot begin", client, until: deadline) {
        let left = max(0, deadline - monotonicNanos()) / 1_000_000
        return rd_kafka_init_transactions(client.handle, Int32(clamping: left))
      }
    } catch let failure as TransactionAborted {
      // Nothing was begun: the brokers are away, or still busy with what the last instance left.
      report.withLock { $0.trouble = failure.description }
      throw KafkaFailure(failure.description)
    }
    install(producer)
  }

  private func install(_ producer: KafkaProducer) {
    state.withLock { state in
      state = State(transactions)
      state.producer = producer
    }
    isGivenUp.store(false, ordering: .sequentiallyConsistent)
  }

  public func abort() {
    isGivenUp.store(true, ordering: .sequentiallyConsistent)
    let open = state.withLock { state -> KafkaClient? in
      let open = state.isOpen ? state.producer?.client : nil
      state = State(transactions)
      return open
    }
    // So that readers need not wait for the time-out. Should it fail, the next `prepare` does it.
    if let open, let error = rd_kafka_abort_transaction(open.handle, Int32(clamping: transactions.abortMillisMax)) {
      rd_kafka_error_destroy(error)
    }
  }

  // MARK: The engine's side

  public func write(_ batch: OutputBatch) throws {
    while try !accept(batch) { usleep(1_000) }
  }

  /// False when it has to wait for room.
  private func accept(_ batch: OutputBatch) throws -> Bool {
    try state.withLock { state in
      if isGivenUp.load(ordering: .sequentiallyConsistent) { return true }
      guard state.producer != nil else { throw SinkFailure("the transactional sink has not been prepared") }
      switch state.buffer.offer(batch) {
      case .writeNow: try produce(batch, &state)
      case .waits: break
      case .isFull: return false
      }
      return true
    }
  }

  public func adopt(topics: [String]) { overrides.withLock { $0 = topics } }

  public func barrier(_ epoch: UInt64) { state.withLock { $0.buffer.addBarrier(epoch) } }

  /// Opens a transaction when there is none. A failure of the transaction is noted for `commit`; what could not
  /// be written anyway throws.
  private func produce(_ batch: OutputBatch, _ state: inout State) throws {
    guard let producer = state.producer, !batch.entries.isEmpty else { return }
    open(&state)
    let client = producer.client
    let overrides = overrides.withLock { $0 }
    try batch.forEachRecord { entry, key, payload in
      guard state.failure == nil, !isGivenUp.load(ordering: .relaxed) else { return }
      let topic = options.topic(of: entry, overrides)
      let status = try? producer.offer(
        topic: topic, partition: -1, key: key, payload: payload, timestampMillis: 0, tag: 0,
        isGivenUp: { isGivenUp.load(ordering: .relaxed) })
      switch status {
      case RD_KAFKA_RESP_ERR_NO_ERROR?, RD_KAFKA_RESP_ERR__QUEUE_FULL?:
        break
      case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE?, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC?,
        RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION?:
        throw SinkFailure("cannot write to topic \(topic): \(kafkaText(status ?? RD_KAFKA_RESP_ERR_UNKNOWN))")
      default:
        // The transaction has failed behind our back; librdkafka keeps why.
        state.failure = fatalFailure(client, openedNanos: state.openedNanos)
          ?? TransactionAborted("cannot write to topic \(topic): \(kafkaText(status ?? RD_KAFKA_RESP_ERR__FATAL))")
      }
    }
    rd_kafka_poll(client.handle, 0)
  }

  private func open(_ state: inout State) {
    guard !state.isOpen, state.failure == nil, let client = state.producer?.client else { return }
    state.openedNanos = monotonicNanos()
    guard let error = rd_kafka_begin_transaction(client.handle) else {
      state.isOpen = true
      return
    }
    state.failure = failure(of: error, "no transaction can begin", client, openedNanos: state.openedNanos)
    rd_kafka_error_destroy(error)
  }

  // MARK: The control thread's side

  public func commit(_ epoch: UInt64, _ offsets: [SourceOffsets]) throws {
    do {
      guard let (client, opened) = try begin(epoch, hasOffsets: offsets.contains { !$0.points.isEmpty }) else {
        return try release()
      }
      let deadline = opened + transactions.timeoutMillis * 1_000_000
      for source in offsets where !source.points.isEmpty { try send(source, client, opened, until: deadline) }
      try attempt("the transaction cannot be committed", client, openedNanos: opened, until: deadline) {
        // What is left of the transaction's time, as librdkafka recommends. It goes on where it was when it is
        // called again.
        rd_kafka_commit_transaction(client.handle, -1)
      }
      report.withLock { $0.trouble = nil }
      try release()
    } catch {
      report.withLock { $0.trouble = "\(error)" }
      abort()
      throw error
    }
  }

  /// Makes sure that the records before the barrier, and no others, are in an open transaction. Nil when there is
  /// nothing to commit.
  private func begin(_ epoch: UInt64, hasOffsets: Bool) throws -> (KafkaClient, openedNanos: Int64)? {
    try state.withLock { state in
      if isGivenUp.load(ordering: .sequentiallyConsistent) {
        throw TransactionAborted("the transaction was given up")
      }
      guard let client = state.producer?.client, let more = state.buffer.extend(to: epoch) else {
        throw SinkFailure("no barrier of epoch \(epoch) has come to the transactional sink")
      }
      for batch in more { try produce(batch, &state) }
      if hasOffsets { open(&state) }
      if let failure = state.failure { throw failure }
      return state.isOpen ? (client, state.openedNanos) : nil
    }
  }

  /// After a commit: what waited goes into the next transaction, up to the next barrier.
  private func release() throws {
    try state.withLock { state in
      state.isOpen = false
      for batch in state.buffer.committed() { try produce(batch, &state) }
    }
  }

  private func send(_ source: SourceOffsets, _ client: KafkaClient, _ opened: Int64, until deadline: Int64) throws {
    guard let group = source.group as? KafkaGroupHandle else {
      throw SinkFailure("source \(source.source) is not read from Kafka: its offsets fit into no transaction")
    }
    let list = KafkaPartitions(source.points)
    try attempt("offsets of group \(group.name) cannot be committed", client, openedNanos: opened, until: deadline) {
      rd_kafka_send_offsets_to_transaction(client.handle, list.list, group.metadata, 10_000)
    }
  }

  // MARK: Failures

  /// Calls until it succeeds; tries again, ever more slowly, what librdkafka calls retriable. Throws the others by
  /// what they mean, and `TransactionAborted` when the time is over.
  private func attempt(
    _ what: String, _ client: KafkaClient, openedNanos: Int64 = .max, until deadline: Int64,
    _ call: () -> OpaquePointer?
  ) throws {
    var pauseMillis: UInt32 = 20
    while let error = call() {
      defer { rd_kafka_error_destroy(error) }
      let failure = failure(of: error, what, client, openedNanos: openedNanos)
      let mayRetry =
        rd_kafka_error_is_retriable(error) != 0 && rd_kafka_error_is_fatal(error) == 0
        && rd_kafka_error_txn_requires_abort(error) == 0
      guard mayRetry, monotonicNanos() < deadline, !isGivenUpDuring(openedNanos) else { throw failure }
      report.withLock { $0.trouble = "\(failure)" }
      usleep(pauseMillis * 1_000)
      pauseMillis = min(1_000, pauseMillis * 2)
    }
  }

  /// `prepare` runs while everything is given up.
  private func isGivenUpDuring(_ openedNanos: Int64) -> Bool {
    openedNanos != .max && isGivenUp.load(ordering: .sequentiallyConsistent)
  }

  private func failure(
    of error: OpaquePointer, _ what: String, _ client: KafkaClient, openedNanos: Int64
  ) -> any Error {
    let text = "\(what): " + String(cString: rd_kafka_error_string(error))
    return failure(rd_kafka_error_code(error), text, client, openedNanos: openedNanos)
  }

  private func failure(
    _ code: rd_kafka_resp_err_t, _ text: String, _ client: KafkaClient, openedNanos: Int64
  ) -> any Error {
    switch code {
    case RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
      // The brokers say the same of a transaction that took too long; that one need not frighten anybody.
      let age = openedNanos == .max ? 0 : monotonicNanos() - openedNanos
      if age >= transactions.timeoutMillis * 1_000_000 {
        return TransactionAborted("\(text); it was open for longer than \(transactions.timeoutMillis) ms")
      }
      return SinkFenced("\(text); another instance writes as \(transactions.transactionalID)")
    case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID:
      return GroupFenced(text)
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      return GroupFenced(text, isFinal: true)
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
      RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
      RD_KAFKA_RESP_ERR__NOT_CONFIGURED, RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
      RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
      return SinkFailure(text)
    case RD_KAFKA_RESP_ERR__FATAL:
      return fatalFailure(client, openedNanos: openedNanos) ?? TransactionAborted(text)
    default:
      // Whether it has been committed after all, the committed offsets tell.
      return TransactionAborted(text)
    }
  }

  /// What ended the producer, if something did.
  private func fatalFailure(_ client: KafkaClient, openedNanos: Int64) -> (any Error)? {
    var text = [CChar](repeating: 0, count: 512)
    let code = rd_kafka_fatal_error(client.handle, &text, text.count)
    guard code != RD_KAFKA_RESP_ERR_NO_ERROR else { return nil }
    let reason = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return failure(
      code == RD_KAFKA_RESP_ERR__FATAL ? RD_KAFKA_RESP_ERR_UNKNOWN : code, reason, client, openedNanos: openedNanos)
  }

  // MARK: The rest of a sink

  /// Waits until the brokers have what was written into the open transaction. Nobody sees it before its commit.
  public func flush() throws {
    let client = state.withLock { $0.isOpen ? $0.producer?.client : nil }
    guard let client else { return }
    let deadline = monotonicNanos() + options.flushMillisMax * 1_000_000
    while rd_kafka_flush(client.handle, 0) != RD_KAFKA_RESP_ERR_NO_ERROR {
      usleep(2_000)
      client.wakeAfterClockJump()
      if isGivenUp.load(ordering: .sequentiallyConsistent) { return }
      if monotonicNanos() > deadline {
        throw SinkFailure("\(rd_kafka_outq_len(client.handle)) records are not written: the brokers do not acknowledge")
      }
    }
  }

  /// Nothing: a barrier is completed by `commit`.
  public func complete(_ epoch: UInt64) {}

  public var problem: String? {
    report.withLock { report in
      report.trouble ?? report.health?.state.withLock { $0.fatal ?? $0.unreachable }
    }
  }

  /// Aborts what is not committed.
  public func close() { abort() }
}
