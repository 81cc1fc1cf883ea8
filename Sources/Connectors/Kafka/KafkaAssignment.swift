// What the consumer is assigned, where each partition starts, and how partitions are given back.

import CRdkafka
import Runtime

extension KafkaSource {
  /// Fetches what was committed for the new partitions and starts them there. `nil`: the brokers do not
  /// answer; try again.
  func begin(_ partitions: [PartitionIdentity]) -> [PartitionStart]? {
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
    let wanted = (0..<committed.count).map { wantedStart(committed[$0]) }
    var ends: [Int32: Int64] = [:]
    var earliest: [Int32: Int64] = [:]
    if options.untilEnd || wanted.contains(where: { $0.offset != nil }) {
      guard let found = offsets(of: partitions, at: Int64(RD_KAFKA_OFFSET_END)),
        let first = offsets(of: partitions, at: Int64(RD_KAFKA_OFFSET_BEGINNING)),
        found.count == partitions.count, first.count == partitions.count
      else { return nil }
      ends = found
      earliest = first
    }
    client.health.reached()
    topicProblem = nil
    if readers.isEmpty { memberOfReaders = KafkaGroupHandle.memberID(client) }
    var starts: [PartitionStart] = []
    var positions: [(topic: String, partition: Int32, offset: Int64)] = []
    for start in wanted {
      let number = start.identity.partition
      let failure = start.offset.flatMap {
        Self.unreachable(start.identity, wanted: $0, earliest: earliest[number], end: ends[number])
      }
      guard
        let reader = try? KafkaPartitionReader(
          identity: start.identity, client: client, schema: schema,
          endOffset: options.untilEnd ? ends[number] : nil, failure: failure)
      else {
        topicProblem = "\(topic)[\(number)] cannot be read"
        continue
      }
      readers[start.identity] = reader
      starts.append(PartitionStart(reader: reader, committedOffset: start.offset, metadata: start.metadata))
      guard failure == nil else { continue }
      let otherwise = options.fromBeginning ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END
      positions.append((topic, number, start.offset ?? Int64(otherwise)))
    }
    assign(positions)
    return starts
  }

  /// Where a partition shall start: nil where nothing was committed and nobody says otherwise.
  private func wantedStart(
    _ committed: rd_kafka_topic_partition_t
  ) -> (identity: PartitionIdentity, offset: Int64?, metadata: String) {
    let identity = identity(committed.partition)
    let offset = committed.offset >= 0 ? committed.offset : nil
    var metadata = ""
    if offset != nil, let bytes = committed.metadata {
      metadata = String(
        decoding: UnsafeRawBufferPointer(start: bytes, count: committed.metadata_size), as: UTF8.self)
    }
    return (identity, options.startOffset?(identity, offset, metadata) ?? offset, metadata)
  }

  /// Why a partition cannot be read from an offset.
  static func unreachable(
    _ identity: PartitionIdentity, wanted: Int64, earliest: Int64?, end: Int64?
  ) -> String? {
    let place = "\(identity.topic)[\(identity.partition)]"
    if let earliest, wanted < earliest {
      return "\(place): offset \(wanted) is wanted, but the earliest that the topic still has is \(earliest); "
        + "restore a newer checkpoint, or start anew with another --group"
    }
    if let end, wanted > end {
      return "\(place): offset \(wanted) is wanted, but the topic ends at \(end): it was truncated or made anew; "
        + "start with another --group"
    }
    return nil
  }

  var isCooperative: Bool {
    rd_kafka_rebalance_protocol(client.handle).map { String(cString: $0) } == "COOPERATIVE"
  }

  func assign(_ positions: [(topic: String, partition: Int32, offset: Int64)]) {
    let list = KafkaPartitions(positions)
    let problem: String?
    if isCooperative {
      let error = rd_kafka_incremental_assign(client.handle, list.list)
      problem = error.map { String(cString: rd_kafka_error_string($0)) }
      if let error { rd_kafka_error_destroy(error) }
    } else {
      let status = rd_kafka_assign(client.handle, list.list)
      problem = status == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : kafkaText(status)
    }
    if let problem {
      topicProblem = problem
    } else {
      assigned.formUnion(positions.map { identity($0.partition) })
    }
  }

  /// Takes partitions from our consumer. An empty list is an answer to the group too.
  func unassign(_ partitions: [PartitionIdentity]) {
    if isCooperative {
      // librdkafka refuses the whole list for one that it does not know, and the group would wait for ever.
      let known = partitions.filter(assigned.contains)
      let list = KafkaPartitions(known.map { ($0.topic, $0.partition, Int64(RD_KAFKA_OFFSET_INVALID)) })
      if let error = rd_kafka_incremental_unassign(client.handle, list.list) { rd_kafka_error_destroy(error) }
      assigned.subtract(known)
    } else {
      rd_kafka_assign(client.handle, nil)
      assigned = []
    }
  }

  func revoke(_ partitions: [PartitionIdentity], into changes: inout [AssignmentChange]) {
    let lost = Set(partitions)
    beginning.removeAll { lost.contains($0) }
    revoking += partitions
    let held = partitions.filter { readers[$0] != nil }.sorted()
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

  public func restart() {
    let held = readers.keys.sorted()
    if held.isEmpty {
      owesEmptyStart = hasAssignment && options.ownership == .shared
      return
    }
    for identity in held {
      readers[identity]?.state.values.withLock { $0.isRevoked = true }
      readers.removeValue(forKey: identity)?.close()
    }
    unassign(held)
    beginning += held
  }

  func finishRevocation() {
    let partitions = revoking
    revoking = []
    owesRelease = false
    unassign(partitions)
  }
}
