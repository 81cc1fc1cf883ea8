import CRdkafka

/// Rebalances as the callback reports them. It and `take` run on the control thread, inside `poll`.
final class Rebalances: KafkaContext {
  enum Change {
    case assign([Int32])
    /// Lost: the group gave them away already.
    case revoke([Int32], isLost: Bool)
  }
  private var changes: [Change] = []
  /// While the consumer leaves there is nobody left to ask: partitions are given back at once.
  var isClosing = false
  private(set) var hasGivenBack = false

  var hasChanges: Bool { !changes.isEmpty }

  func take() -> [Change] {
    defer { changes = [] }
    return changes
  }

  override func onRebalance(
    _ handle: OpaquePointer?, _ code: rd_kafka_resp_err_t,
    _ partitions: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
  ) {
    guard let partitions else { return }
    if isClosing {
      giveBack(handle)
      hasGivenBack = true
      return
    }
    let numbers = (0..<Int(partitions.pointee.cnt)).map { partitions.pointee.elems[$0].partition }
    changes.append(
      code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
        ? .assign(numbers) : .revoke(numbers, isLost: rd_kafka_assignment_lost(handle) != 0))
  }

  /// What our consumer has, which need not be what the group takes.
  private func giveBack(_ handle: OpaquePointer?) {
    guard rd_kafka_rebalance_protocol(handle).map({ String(cString: $0) }) == "COOPERATIVE" else {
      rd_kafka_assign(handle, nil)
      return
    }
    var held: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
    guard rd_kafka_assignment(handle, &held) == RD_KAFKA_RESP_ERR_NO_ERROR, let held else { return }
    if let error = rd_kafka_incremental_unassign(handle, held) { rd_kafka_error_destroy(error) }
    rd_kafka_topic_partition_list_destroy(held)
  }
}
