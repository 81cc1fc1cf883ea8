// What is asked of the brokers and told to them about offsets.

import CRdkafka
import Runtime

extension KafkaSource {
  private static let coordinatorMillis: Int32 = 5_000
  private static let commitMillis: Int64 = 5_000

  /// The first offset (`RD_KAFKA_OFFSET_BEGINNING`) or the end (the last stable offset) of each partition; `nil`
  /// when the brokers do not answer.
  func offsets(of partitions: [PartitionIdentity], at place: Int64) -> [Int32: Int64]? {
    let list = KafkaPartitions(partitions.map { ($0.topic, $0.partition, place) })
    let status = rd_kafka_offsets_for_times(client.handle, list.list, Self.questionMillis)
    var ends: [Int32: Int64] = [:]
    if status == RD_KAFKA_RESP_ERR_NO_ERROR {
      for index in 0..<list.count
      where list[index].err == RD_KAFKA_RESP_ERR_NO_ERROR && list[index].offset >= 0 {
        ends[list[index].partition] = list[index].offset
      }
    }
    if ends.count < partitions.count {
      client.health.lost("the offsets of \(topic) cannot be asked for: \(kafkaText(status))")
      return ends.isEmpty ? nil : ends
    }
    client.health.reached()
    return ends
  }

  public func committedMetadata() throws -> [String] {
    guard let count = partitionCount() else { throw KafkaFailure("the partitions of \(topic) cannot be asked for") }
    let list = KafkaPartitions((0..<count).map { (topic, $0, Int64(RD_KAFKA_OFFSET_INVALID)) })
    let status = rd_kafka_committed(client.handle, list.list, Self.questionMillis)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaFailure("the committed offsets of group \(options.group) cannot be read: \(kafkaText(status))")
    }
    return try (0..<list.count).compactMap { index in
      guard list[index].err == RD_KAFKA_RESP_ERR_NO_ERROR else {
        throw KafkaFailure("the committed offsets of group \(options.group) cannot be read")
      }
      guard let bytes = list[index].metadata else { return nil }
      return String(
        decoding: UnsafeRawBufferPointer(start: bytes, count: list[index].metadata_size), as: UTF8.self)
    }
  }

  /// Throws while the coordinator does not answer.
  ///
  /// It takes one request of a connection at a time, and the answer to a JoinGroup may be seconds away. A commit behind
  /// that is served when the group has another generation: then it is refused, and librdkafka gives up the whole
  /// assignment for it and joins again. So before each commit goes a question that costs nothing when it has to wait.
  private func confirmCoordinator() throws {
    let list = KafkaPartitions([(topic, 0, Int64(RD_KAFKA_OFFSET_INVALID))])
    let status = rd_kafka_committed(client.handle, list.list, Self.coordinatorMillis)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      client.health.lost("the coordinator of group \(options.group) does not answer")
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(status))")
    }
    client.health.reached()
  }

  /// Throws unless we are the member that we were when the readers began. Who was expelled in the middle of a rebalance is
  /// not always told (librdkafka 2.0), and may be a member again, of another name, when others have read and committed.
  private func confirmMember() throws {
    guard let member = KafkaGroupHandle.memberID(client) else { throw expelled(nil) }
    guard let known = memberOfReaders, known != member else {
      memberOfReaders = member
      return
    }
    throw GroupFenced(
      "offsets of group \(options.group) were not committed: the group expelled this process, which has joined again",
      isFinal: false)
  }

  /// Blocks until the group's coordinator has answered, for at most ten seconds.
  public func commit(_ points: [CommitPoint]) throws {
    guard !points.isEmpty else { return }
    try confirmMember()
    try confirmCoordinator()
    // Offsets that come without a member are taken by a group that has none, whoever committed since.
    try confirmMember()
    let list = KafkaPartitions(points)
    guard let queue = rd_kafka_queue_new(client.handle) else { throw KafkaFailure("out of memory") }
    defer { rd_kafka_queue_destroy(queue) }
    let status = rd_kafka_commit_queue(client.handle, list.list, queue, nil, nil)
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(status))")
    }
    let answer = awaiting(millis: Self.commitMillis, napMicros: 100) { rd_kafka_queue_poll(queue, 0) }
    guard let event = answer else {
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
    switch error {
    case RD_KAFKA_RESP_ERR_NO_ERROR: return
    case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
      RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      throw expelled(error)
    default:
      throw KafkaFailure("offsets of group \(options.group) were not committed: \(kafkaText(error))")
    }
  }

  private func expelled(_ error: rd_kafka_resp_err_t?) -> GroupFenced {
    if options.ownership == .standby(leads: false) {
      // Our consumer may hold nothing by the group's count, and then nobody would tell us that we have to let go.
      hasAssignment = false
    }
    let reason = error.map(kafkaText) ?? "this process is not a member at the moment"
    return GroupFenced(
      "offsets of group \(options.group) were not committed: \(reason)",
      isFinal: error == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID)
  }

  public func groupHandle() throws -> any ConsumerGroupHandle {
    try confirmMember()
    guard let handle = KafkaGroupHandle(client, group: options.group) else { throw expelled(nil) }
    return handle
  }
}
