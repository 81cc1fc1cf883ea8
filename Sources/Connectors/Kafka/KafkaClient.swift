import CRdkafka
import Glibc
import Runtime
import Synchronization

/// A librdkafka property, as `-X name=value` gives it.
public struct KafkaProperty: Sendable, Hashable, CustomStringConvertible {
  public var name: String
  public var value: String
  /// Whether the value must not be shown: it came from a file, or the name says so.
  public var isSecret: Bool
  public init(_ name: String, _ value: String, isSecret: Bool = false) {
    self.name = name
    self.value = value
    self.isSecret = isSecret || Self.namesSecret(name)
  }

  /// Without the value where that is a secret.
  public var description: String { "\(name)=\(isSecret ? "(secret)" : value)" }

  /// Whether a property of this name holds a secret: `sasl.password`, `ssl.key.password`, `ssl.key.pem`,
  /// `sasl.oauthbearer.client.secret` and the like. `ssl.key.location` names a file and does not.
  public static func namesSecret(_ name: String) -> Bool {
    name.contains("password") || name.contains("secret") || name == "ssl.key.pem" || name == "ssl_key"
      || name == "sasl.oauthbearer.config"
  }
}

/// What Kafka refused, or could not do in time.
public struct KafkaFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  /// Whether the same call may succeed later.
  public var isRetriable: Bool
  public init(_ description: String, isRetriable: Bool = true) {
    self.description = description
    self.isRetriable = isRetriable
  }
}

func kafkaText(_ error: rd_kafka_resp_err_t) -> String { String(cString: rd_kafka_err2str(error)) }

/// Nanoseconds of a clock that only goes forward; for time-outs, never for event time.
func monotonicNanos() -> Int64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// What librdkafka's own threads report: shared by a client's callbacks and whoever asks for `problem`.
final class KafkaHealth: Sendable {
  struct State {
    /// Set when no broker can be reached, cleared by the first answer of one.
    var unreachable: String?
    /// Ends the client for good (a fenced producer, for example).
    var fatal: String?
    /// The last error of delivery or of a topic.
    var failure: String?
    var failureCount = 0
  }
  let state = Mutex(State())

  func reached() { state.withLock { $0.unreachable = nil } }
  func lost(_ text: String) { state.withLock { $0.unreachable = text } }
  func failed(_ text: String) {
    state.withLock {
      $0.failure = text
      $0.failureCount += 1
    }
  }
}

/// Owns one `rd_kafka_t` and destroys it with the last reference.
///
/// @unchecked: librdkafka's handle may be used from any thread.
final class KafkaClient: @unchecked Sendable {
  let handle: OpaquePointer
  let health: KafkaHealth
  /// What callbacks get as their opaque; kept alive as long as the handle.
  private let context: KafkaContext

  /// Sets `defaults`, then `properties`, which may override them. Throws the text of librdkafka for a
  /// property that it does not know or a value that it does not take.
  init(
    _ type: rd_kafka_type_t, defaults: [KafkaProperty], properties: [KafkaProperty],
    context: KafkaContext = KafkaContext()
  ) throws(KafkaFailure) {
    self.context = context
    health = context.health
    let redact = Redactor(properties.filter(\.isSecret).map { Array($0.value.utf8) })
    context.redact = redact
    guard let configuration = rd_kafka_conf_new() else { throw KafkaFailure("out of memory") }
    var text = [CChar](repeating: 0, count: 512)
    for (index, property) in (defaults + properties).enumerated() {
      let status = rd_kafka_conf_set(configuration, property.name, property.value, &text, text.count)
      if status != RD_KAFKA_CONF_OK {
        rd_kafka_conf_destroy(configuration)
        let origin = index < defaults.count ? "" : "-X \(property): "
        throw KafkaFailure(origin + redact(Self.string(text)), isRetriable: false)
      }
    }
    rd_kafka_conf_set_opaque(configuration, Unmanaged.passUnretained(context).toOpaque())
    rd_kafka_conf_set_error_cb(configuration) { handle, code, reason, opaque in
      KafkaContext.from(opaque)?.onError(handle, rd_kafka_resp_err_t(code), reason)
    }
    if properties.contains(where: { $0.name == "debug" }) {
      rd_kafka_conf_set_log_cb(configuration) { handle, _, facility, text in
        guard let handle, let context = KafkaContext.from(rd_kafka_opaque(handle)), let text else { return }
        context.log(facility.map { String(cString: $0) } ?? "", String(cString: text))
      }
    } else {
      // What matters arrives through the callbacks; standard error belongs to our own messages.
      rd_kafka_conf_set_log_cb(configuration) { _, _, _, _ in }
    }
    if type == RD_KAFKA_CONSUMER {
      rd_kafka_conf_set_rebalance_cb(configuration) { handle, code, partitions, opaque in
        KafkaContext.from(opaque)?.onRebalance(handle, code, partitions)
      }
    } else {
      rd_kafka_conf_set_dr_msg_cb(configuration) { _, message, opaque in
        KafkaContext.from(opaque)?.onDelivery(message)
      }
    }
    guard let handle = rd_kafka_new(type, configuration, &text, text.count) else {
      rd_kafka_conf_destroy(configuration)
      throw KafkaFailure(redact(Self.string(text)), isRetriable: false)
    }
    self.handle = handle
  }

  /// A consumer that was fenced has no group to leave, and must not wait for one.
  deinit {
    let isFatal = health.state.withLock { $0.fatal != nil }
    rd_kafka_destroy_flags(handle, isFatal ? RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE : 0)
  }

  private let clockWatch = Mutex(WallClockWatch())

  /// Wakes librdkafka's main thread, which sends heartbeats and does what is due, when the wall clock has been put
  /// back since the last call: it may be waiting for a moment that is hours away now. Any question to it will do. To be
  /// called a few times a session.
  func wakeAfterClockJump() {
    let wall = wallNanos()
    let monotonic = monotonicNanos()
    guard clockWatch.withLock({ $0.hasGoneBack(wallNanos: wall, monotonicNanos: monotonic) }) else { return }
    if rd_kafka_type(handle) == RD_KAFKA_CONSUMER {
      _ = KafkaGroupHandle.memberID(self)
    } else {
      var metadata: UnsafePointer<rd_kafka_metadata>?
      rd_kafka_metadata(handle, 0, nil, &metadata, 1_000)
      if let metadata { rd_kafka_metadata_destroy(metadata) }
    }
  }

  /// Leaves the consumer's group, on a thread of its own; false when that is not done in time, and then the handle must
  /// not be destroyed.
  func closeConsumer(withinMillis millis: Int64) -> Bool {
    final class Done: Sendable { let flag = Atomic(false) }
    let done = Done()
    // The thread keeps us, and detaches itself.
    ThreadExecutor().run { [self] in
      rd_kafka_consumer_close(handle)
      done.flag.store(true, ordering: .releasing)
    }
    let isDone: Void? = awaiting(millis: millis) { done.flag.load(ordering: .acquiring) ? () : nil }
    return isDone != nil
  }

  /// Never destroys the handle: its threads and memory stay until the process ends.
  func leaveAlive() { _ = Unmanaged.passRetained(self) }

  private static func string(_ text: [CChar]) -> String {
    String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Takes librdkafka's callbacks. They come on the thread that polls.
class KafkaContext {
  let health = KafkaHealth()
  /// Set before the client starts. Texts of librdkafka and of brokers may repeat what they were given.
  fileprivate(set) var redact = Redactor([])

  static func from(_ opaque: UnsafeMutableRawPointer?) -> KafkaContext? {
    opaque.map { Unmanaged<KafkaContext>.fromOpaque($0).takeUnretainedValue() }
  }

  func onError(_ handle: OpaquePointer?, _ code: rd_kafka_resp_err_t, _ reason: UnsafePointer<CChar>?) {
    let text = redact(reason.map { String(cString: $0) } ?? kafkaText(code))
    switch code {
    case RD_KAFKA_RESP_ERR__FATAL:
      var detail = [CChar](repeating: 0, count: 512)
      let cause = rd_kafka_fatal_error(handle, &detail, detail.count)
      health.state.withLock { $0.fatal = "\(kafkaText(cause)): \(text)" }
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
      health.lost("no broker can be reached")
    case RD_KAFKA_RESP_ERR__AUTHENTICATION, RD_KAFKA_RESP_ERR__SSL, RD_KAFKA_RESP_ERR__RESOLVE:
      health.lost(text)
    default:
      // One broker of several, or a passing trouble that librdkafka mends by itself.
      break
    }
  }

  /// What `-X debug=…` asks librdkafka to tell. Comes on any thread.
  func log(_ facility: String, _ text: String) {
    let line = Array("kafka: \(facility): \(redact(text))\n".utf8)
    _ = line.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }

  func onRebalance(
    _ handle: OpaquePointer?, _ code: rd_kafka_resp_err_t,
    _ partitions: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
  ) {}

  func onDelivery(_ message: UnsafePointer<rd_kafka_message_t>?) {
    guard let message else { return }
    if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
      health.reached()
    } else {
      health.failed(Self.failureText(message))
    }
  }

  static func failureText(_ message: UnsafePointer<rd_kafka_message_t>) -> String {
    let topic = rd_kafka_topic_name(message.pointee.rkt).map { String(cString: $0) } ?? "?"
    return "topic \(topic): \(kafkaText(message.pointee.err))"
  }
}

/// A list of topic partitions, freed with its owner.
struct KafkaPartitions: ~Copyable {
  let list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>

  init(_ partitions: [(topic: String, partition: Int32, offset: Int64)]) {
    list = rd_kafka_topic_partition_list_new(Int32(max(partitions.count, 1)))
    for entry in partitions {
      let element = rd_kafka_topic_partition_list_add(list, entry.topic, entry.partition)
      element?.pointee.offset = entry.offset
    }
  }

  init(_ points: [CommitPoint]) {
    self.init(points.map { ($0.partition.topic, $0.partition.partition, $0.offset) })
    for (index, point) in points.enumerated() where !point.metadata.isEmpty {
      // Freed together with the list.
      list.pointee.elems[index].metadata = UnsafeMutableRawPointer(strdup(point.metadata))
      list.pointee.elems[index].metadata_size = point.metadata.utf8.count
    }
  }

  deinit { rd_kafka_topic_partition_list_destroy(list) }

  var count: Int { Int(list.pointee.cnt) }
  subscript(index: Int) -> rd_kafka_topic_partition_t {
    get { list.pointee.elems[index] }
    nonmutating set { list.pointee.elems[index] = newValue }
  }
}

/// A member of a consumer group, as it was when it was asked.
///
/// @unchecked: written once, and only read afterwards.
final class KafkaGroupHandle: ConsumerGroupHandle, @unchecked Sendable {
  let name: String
  let metadata: OpaquePointer

  /// Nil when the consumer is no member at the moment. Its metadata would then say "no member", and offsets in a
  /// transaction are not refused for that.
  init?(_ client: KafkaClient, group: String) {
    name = group
    guard let before = Self.memberID(client), let metadata = rd_kafka_consumer_group_metadata(client.handle) else {
      return nil
    }
    self.metadata = metadata
    // Member ids are never given twice: the same before and after is the same in between.
    guard Self.memberID(client) == before else { return nil }
  }

  deinit { rd_kafka_consumer_group_metadata_destroy(metadata) }

  /// Nil when the consumer is no member of its group.
  static func memberID(_ client: KafkaClient) -> String? {
    guard let text = rd_kafka_memberid(client.handle) else { return nil }
    defer { rd_kafka_mem_free(client.handle, text) }
    let id = String(cString: text)
    return id.isEmpty ? nil : id
  }
}
