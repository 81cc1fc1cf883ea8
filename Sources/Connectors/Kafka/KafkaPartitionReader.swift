import CColumns
import CDecode
import CRdkafka
import Glibc
import Runtime
import Synchronization

/// What the worker that reads a partition and the control thread tell each other.
final class KafkaPartitionState: Sendable {
  struct Values {
    /// One behind the last offset that was handed out, or the broker's end where that is further (control
    /// records of transactions take offsets too); -1 before the first.
    var position: Int64 = -1
    /// Whether the broker said, after the last record, that there is nothing more.
    var isAtEnd = false
    /// When it said so last.
    var confirmedNanos: Int64 = 0
    /// The worker asked again, and that was too long ago.
    var wantsConfirmation = false
    var lastReadNanos: Int64
    var isPaused = false
    var pauseCount = 0
    var isRevoked = false
    var problem: String?
    /// Messages that came by the consumer's queue before the partition's own was split off.
    var hasStrays = false
  }
  let values: Mutex<Values>

  init() { values = Mutex(Values(lastReadNanos: monotonicNanos())) }
}

/// Reads one partition of a topic from the queue that librdkafka fills for it.
///
/// A read takes what is there, copies the payloads into one padded arena and decodes the arena in one call.
/// librdkafka gets its messages back at the next read: until then keys and headers can be looked at, which is
/// needed for late rows and dead letters alone.
final class KafkaPartitionReader: PartitionReader, RecordDetailSource {
  /// How long after the broker's word an end of partition is still believed.
  static let confirmationNanos: Int64 = 1_000_000_000

  let identity: PartitionIdentity
  let state = KafkaPartitionState()
  private let client: KafkaClient
  private var queue: OpaquePointer?
  private let decoder: JSONRecordDecoder
  /// Bounded reading: one behind the last record to be read.
  private let endOffset: Int64?
  private var hasEnded = false
  private let failure: String?

  private static let messagesMax = RecordBatch.rowsMax
  private let messages: UnsafeMutablePointer<UnsafeMutablePointer<rd_kafka_message_t>?>
  /// Messages of the last read, not given back yet.
  private var heldCount = 0
  /// Where in `messages` an offset lies; filled when somebody asks.
  private var places: [Int64: Int] = [:]
  private var records: [rd_record] = []
  private var arena: UnsafeMutablePointer<UInt8>
  private var arenaCapacity: Int
  /// Filled by the control thread before the reader is handed over, and under the state's lock afterwards.
  private let strays = KafkaStrays()

  /// A reader with a `failure` says so when it is read.
  init(
    identity: PartitionIdentity, client: KafkaClient, schema: SourceSchema, endOffset: Int64?,
    failure: String? = nil
  ) throws {
    self.failure = failure
    self.identity = identity
    self.client = client
    self.endOffset = endOffset
    decoder = try JSONRecordDecoder(schema: schema)
    queue = rd_kafka_queue_get_partition(client.handle, identity.topic, identity.partition)
    rd_kafka_queue_forward(queue, nil)
    messages = .allocate(capacity: Self.messagesMax)
    messages.initialize(repeating: nil, count: Self.messagesMax)
    arenaCapacity = 256 * 1024
    arena = Self.allocateArena(arenaCapacity)
    records.reserveCapacity(Self.messagesMax)
  }

  deinit {
    close()
    messages.deallocate()
    arena.deallocate()
  }

  /// Gives the queue back. No read may come afterwards, or it says `nothingYet`.
  func close() {
    giveBack()
    if let queue { rd_kafka_queue_destroy(queue) }
    queue = nil
    // Messages that are kept longer than their consumer would keep it from ending.
    strays.drop()
  }

  private func giveBack() {
    for index in 0..<heldCount { if let message = messages[index] { rd_kafka_message_destroy(message) } }
    heldCount = 0
    if !places.isEmpty { places.removeAll(keepingCapacity: true) }
  }

  func details(ofRecordAt offset: Int64) -> RecordDetails {
    if places.isEmpty {
      for index in 0..<heldCount {
        guard let message = messages[index]?.pointee, message.err == RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
        places[message.offset] = index
      }
    }
    guard let place = places[offset], let message = messages[place] else { return RecordDetails() }
    return RecordDetails(kafkaMessage: message)
  }

  private static func allocateArena(_ capacity: Int) -> UnsafeMutablePointer<UInt8> {
    let bytes = capacity + Int(RD_PADDING)
    let arena = UnsafeMutablePointer<UInt8>.allocate(capacity: bytes)
    arena.initialize(repeating: 0, count: bytes)
    return arena
  }

  /// A message of this partition that the control thread got instead; taken over by the next read.
  func addStray(_ message: UnsafeMutablePointer<rd_kafka_message_t>) {
    strays.add(message)
    state.values.withLock { $0.hasStrays = true }
  }

  func read(into batch: RecordBatch) throws -> ReadOutcome {
    batch.clear()
    giveBack()
    if let failure { throw SourceFailure(failure) }
    if hasEnded { return .end }
    let now = monotonicNanos()
    let (isRevoked, wasPaused, hasStrays, position) = state.values.withLock { values in
      let wasPaused = values.isPaused
      values.lastReadNanos = now
      values.isPaused = false
      defer { values.hasStrays = false }
      return (values.isRevoked, wasPaused, values.hasStrays, values.position)
    }
    guard !isRevoked, let queue else { return .nothingYet }
    if let endOffset, position >= endOffset { return end() }
    if wasPaused { resume() }

    var count = 0
    if hasStrays {
      let taken = strays.take(into: messages, max: batch.capacity)
      count = taken.count
      // They come before what is in the queue, all of them.
      if taken.leavesSome { state.values.withLock { $0.hasStrays = true } }
    }
    if count == 0 {
      // Takes what is there and does not wait: the worker's other partitions may have more.
      count = max(0, rd_kafka_consume_batch_queue(queue, 0, messages, batch.capacity))
    }
    let outcome = try take(count, position: position, into: batch)
    if outcome == .records || outcome == .end { return outcome }
    return idleOutcome(now)
  }

  private func end() -> ReadOutcome {
    hasEnded = true
    return .end
  }

  private func resume() {
    let partition = KafkaPartitions([(identity.topic, identity.partition, Int64(RD_KAFKA_OFFSET_INVALID))])
    rd_kafka_resume_partitions(client.handle, partition.list)
  }

  /// Copies, destroys and decodes `count` messages. `.nothingYet` when none of them was a record.
  private func take(_ count: Int, position: Int64, into batch: RecordBatch) throws -> ReadOutcome {
    var position = position
    var failure: SourceFailure?
    var problem: String?
    var sawEnd = false
    var bytes = 0
    heldCount = count
    for index in 0..<count {
      guard let message = messages[index]?.pointee, message.err == RD_KAFKA_RESP_ERR_NO_ERROR else {
        continue
      }
      bytes += message.len + 1
    }
    if bytes > arenaCapacity {
      arena.deallocate()
      arenaCapacity = max(bytes, arenaCapacity * 2)
      arena = Self.allocateArena(arenaCapacity)
    }
    records.removeAll(keepingCapacity: true)
    var filled = 0
    for index in 0..<count {
      guard let pointer = messages[index] else { continue }
      let message = pointer.pointee
      switch message.err {
      case RD_KAFKA_RESP_ERR_NO_ERROR:
        // After a pause librdkafka fetches anew; what was read already is not read again.
        if message.offset < position { continue }
        if let endOffset, message.offset >= endOffset {
          position = max(position, endOffset)
          continue
        }
        position = message.offset + 1
        sawEnd = false
        records.append(record(of: pointer, at: filled))
        if message.payload != nil {
          memcpy(arena + filled, message.payload, message.len)
          arena[filled + message.len] = 0x0a
          filled += message.len + 1
        }
      case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        position = max(position, message.offset)
        sawEnd = true
      case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
        failure = goneFailure(message)
      default:
        problem = "\(identity.topic)[\(identity.partition)]: \(kafkaText(message.err))"
      }
    }
    if !records.isEmpty {
      records.withUnsafeBufferPointer {
        decoder.decode($0, arena: arena, arenaLength: filled, into: batch)
      }
      batch.details = self
      batch.bytesRead = filled - records.count
      batch.nextOffset = (records.last?.offset ?? -1) + 1
      client.health.reached()
    }
    if count > 0 {
      let now = monotonicNanos()
      state.values.withLock { values in
        values.position = position
        if !records.isEmpty || sawEnd { values.isAtEnd = sawEnd }
        if sawEnd { values.confirmedNanos = now }
        if let problem { values.problem = problem } else if !records.isEmpty { values.problem = nil }
      }
    }
    if !records.isEmpty { return .records }
    if let failure { throw failure }
    if let endOffset, position >= endOffset { return end() }
    return .nothingYet
  }

  /// The brokers removed what was to be read next. The run ends with it, so it may ask them once more.
  private func goneFailure(_ message: rd_kafka_message_t) -> SourceFailure {
    var low: Int64 = -1
    var high: Int64 = -1
    rd_kafka_query_watermark_offsets(client.handle, identity.topic, identity.partition, &low, &high, 1_000)
    let text = KafkaSource.unreachable(
      identity, wanted: message.offset, earliest: low >= 0 ? low : nil, end: high >= 0 ? high : nil)
    return SourceFailure(
      text ?? "\(identity.topic)[\(identity.partition)]: offset \(message.offset) is wanted and cannot be read")
  }

  private func record(of message: UnsafeMutablePointer<rd_kafka_message_t>, at filled: Int) -> rd_record {
    var type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
    let millis = rd_kafka_message_timestamp(message, &type)
    let (nanos, overflow) = millis.multipliedReportingOverflow(by: 1_000_000)
    let time = type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || millis < 0 || overflow ? Int64.min : nanos
    return rd_record(
      data: message.pointee.payload == nil ? nil : UnsafePointer(arena + filled),
      length: message.pointee.len, offset: message.pointee.offset, record_time: time)
  }

  private func idleOutcome(_ now: Int64) -> ReadOutcome {
    state.values.withLock { values in
      guard values.isAtEnd else { return .nothingYet }
      if now - values.confirmedNanos <= Self.confirmationNanos { return .caughtUp }
      values.wantsConfirmation = true
      return .nothingYet
    }
  }
}

extension RecordDetails {
  /// The key and the replay header of a message.
  init(kafkaMessage message: UnsafeMutablePointer<rd_kafka_message_t>) {
    self.init()
    if let key = message.pointee.key {
      self.key = Array(UnsafeRawBufferPointer(start: key, count: message.pointee.key_len))
    }
    var headers: OpaquePointer?
    var value: UnsafeRawPointer?
    var size = 0
    guard rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR, let headers,
      rd_kafka_header_get_last(headers, RecordDetails.replaysHeader, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR
    else { return }
    replays = Self.replays(in: UnsafeRawBufferPointer(start: value, count: size))
  }

  /// The number in a header; 0 for what is none.
  static func replays(in text: some Collection<UInt8>) -> Int {
    guard text.count <= 6, text.allSatisfy({ (0x30...0x39).contains($0) }) else { return 0 }
    return text.reduce(0) { $0 * 10 + Int($1 - 0x30) }
  }
}

/// Messages that the control thread received for a reader. Guarded by its lock.
private final class KafkaStrays: @unchecked Sendable {
  // @unchecked: `messages` is touched inside `lock` only.
  private let lock = Mutex(())
  private var messages: [UnsafeMutablePointer<rd_kafka_message_t>] = []

  deinit { drop() }

  func drop() {
    lock.withLock { _ in
      for message in messages { rd_kafka_message_destroy(message) }
      messages = []
    }
  }

  func add(_ message: UnsafeMutablePointer<rd_kafka_message_t>) {
    lock.withLock { _ in messages.append(message) }
  }

  func take(
    into target: UnsafeMutablePointer<UnsafeMutablePointer<rd_kafka_message_t>?>, max: Int
  ) -> (count: Int, leavesSome: Bool) {
    lock.withLock { _ in
      let count = min(max, messages.count)
      for index in 0..<count { target[index] = messages[index] }
      messages.removeFirst(count)
      return (count, !messages.isEmpty)
    }
  }
}
