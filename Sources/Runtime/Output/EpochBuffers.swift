/// What a transactional sink keeps while a barrier's transaction is being committed: what came behind the barrier,
/// up to a number of bytes. A value without a clock or a lock, so that simulations run what production runs.
public struct TransactionBuffer: Sendable {
  public enum Verdict: Sendable, Hashable {
    /// Before every barrier: it belongs to the open transaction.
    case writeNow
    /// It was kept.
    case waits
    /// Nothing was kept; ask again when a transaction has been committed.
    case isFull
  }
  private enum Item {
    case records(OutputBatch)
    case barrier(UInt64)
  }

  private let bytesMax: Int
  /// The first barrier that is not committed: everything behind it waits.
  public private(set) var barrier: UInt64?
  private var items: [Item] = []
  /// Of what waits.
  public private(set) var bytes = 0

  public init(bytesMax: Int) { self.bytesMax = bytesMax }

  public mutating func offer(_ batch: OutputBatch) -> Verdict {
    if barrier == nil { return .writeNow }
    guard bytes < bytesMax else { return .isFull }
    items.append(.records(batch))
    bytes += Self.size(batch)
    return .waits
  }

  private static func size(_ batch: OutputBatch) -> Int { batch.bytes.count + batch.keys.count }

  public mutating func addBarrier(_ epoch: UInt64) {
    if barrier == nil { barrier = epoch } else { items.append(.barrier(epoch)) }
  }

  /// The transaction that is about to be committed shall reach to the last barrier up to `epoch`: what waits before
  /// that goes into it. Nil when there is no such barrier.
  public mutating func extend(to epoch: UInt64) -> [OutputBatch]? {
    guard let first = barrier, first <= epoch else { return nil }
    var end = 0
    for (index, item) in items.enumerated() {
      if case .barrier(let next) = item {
        guard next <= epoch else { break }
        barrier = next
        end = index + 1
      }
    }
    return take(end)
  }

  /// The barrier is committed: what waited before the next opens the next transaction.
  public mutating func committed() -> [OutputBatch] {
    barrier = nil
    var end = items.count
    for (index, item) in items.enumerated() {
      if case .barrier(let next) = item {
        barrier = next
        end = index + 1
        break
      }
    }
    return take(end)
  }

  private mutating func take(_ count: Int) -> [OutputBatch] {
    var batches: [OutputBatch] = []
    for item in items.prefix(count) {
      if case .records(let batch) = item {
        bytes -= Self.size(batch)
        batches.append(batch)
      }
    }
    items.removeFirst(count)
    return batches
  }
}

/// How many records between two barriers have not been acknowledged. Acknowledgements come in any order, so each
/// record carries the number of its stretch, its tag.
public struct DeliveryCounts: Sendable {
  /// The stretch that is being written, from 1.
  public private(set) var stretch = 1
  /// Unacknowledged records by stretch; those without any are left out.
  private var waiting: [Int: Int] = [:]
  /// Barriers, ascending, and the last stretch before each.
  private var barriers: [(epoch: UInt64, stretch: Int)] = []
  /// Records that were refused for good: the first stretch, and why.
  private var failure: (stretch: Int, text: String, count: Int)?

  public init() {}

  /// So many records follow; returns their tag.
  public mutating func expect(_ count: Int) -> Int {
    if count > 0 { waiting[stretch, default: 0] += count }
    return stretch
  }

  public mutating func settle(_ count: Int, tag: Int) {
    let left = waiting[tag, default: 0] - count
    waiting[tag] = left > 0 ? left : nil
  }

  /// Records that will never be acknowledged; they are settled apart from this.
  public mutating func fail(_ count: Int, tag: Int, _ text: String) {
    failure = (min(failure?.stretch ?? tag, tag), failure?.text ?? text, (failure?.count ?? 0) + count)
  }

  public mutating func addBarrier(_ epoch: UInt64) {
    barriers.append((epoch, stretch))
    stretch += 1
  }

  /// How many records before the barrier are not acknowledged. Throws when one never will be.
  public mutating func waiting(before epoch: UInt64) throws(RecordsLost) -> Int {
    guard let barrier = barriers.last(where: { $0.epoch <= epoch }) else { return 0 }
    if let failure, failure.stretch <= barrier.stretch {
      // What follows is written again as well: there is nothing to remember of it.
      self.failure = nil
      throw RecordsLost("\(failure.count) records were not written: \(failure.text)")
    }
    let count = waiting.reduce(0) { $0 + ($1.key <= barrier.stretch ? $1.value : 0) }
    if count == 0 { barriers.removeAll { $0.stretch < barrier.stretch } }
    return count
  }
}
