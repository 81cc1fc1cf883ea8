// Standing by: who has the last partition reads them all, the others wait.

import CRdkafka
import Runtime

extension KafkaSource {
  public var holdsLead: Bool {
    switch options.ownership {
    case .shared: true
    case .standby(leads: true): topicPartitions > 0 && granted.contains(topicPartitions - 1)
    case .standby(leads: false): isFollowingLead
    }
  }

  public func setLeading(_ isLeading: Bool) {
    guard options.ownership == .standby(leads: false), isFollowingLead != isLeading else { return }
    isFollowingLead = isLeading
    mustCount = true
  }

  func noteRevoked(_ partitions: [Int32], isLost: Bool, into changes: inout [AssignmentChange]) {
    granted.subtract(partitions)
    if isLost {
      granted = []
      hasAssignment = false
    }
    // Without cooperation everything goes and comes again with every rebalance.
    if !holdsLead || isLost || !isCooperative {
      owesRelease = true
      beginning = []
      mustCount = true
      // A release that is under way answers the group as well.
      if awaitingRelease.isEmpty { revoke(Array(readers.keys), into: &changes) }
    } else {
      revoking = []
      finishRevocation()
    }
  }

  /// Begins what we lead and do not read, and lets go of what we read and do not lead.
  func followLead(_ changes: inout [AssignmentChange]) {
    let now = monotonicNanos()
    if mustCount, hasAssignment, now >= nextCountNanos {
      if let count = partitionCount() {
        topicPartitions = count
        mustCount = false
      } else {
        nextCountNanos = now + Self.upkeepNanos
      }
    }
    guard awaitingRelease.isEmpty else { return }
    guard holdsLead, hasAssignment else {
      beginning = []
      if !readers.isEmpty { revoke(Array(readers.keys), into: &changes) }
      return
    }
    beginning = (0..<topicPartitions).map(identity).filter { readers[$0] == nil }
  }

  /// How many partitions the topic has; nil when the brokers do not say.
  func partitionCount() -> Int32? {
    if topicHandle == nil { topicHandle = rd_kafka_topic_new(client.handle, topic, nil) }
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let status = rd_kafka_metadata(client.handle, 0, topicHandle, &metadata, Self.questionMillis)
    defer { if let metadata { rd_kafka_metadata_destroy(metadata) } }
    guard status == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata, metadata.pointee.topic_cnt == 1 else {
      client.health.lost("the partitions of \(topic) cannot be asked for: \(kafkaText(status))")
      return nil
    }
    let found = metadata.pointee.topics[0]
    guard found.err == RD_KAFKA_RESP_ERR_NO_ERROR, found.partition_cnt > 0 else {
      topicProblem = "topic \(topic): \(kafkaText(found.err))"
      return nil
    }
    return found.partition_cnt
  }
}
