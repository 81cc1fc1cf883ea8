import Synchronization

/// What one operator keeps, over all workers.
public struct OperatorStatus: Sendable, Hashable {
  /// Keys in the largest open pane of each worker and in each shard's windows, added up.
  public var keys = 0
  /// Bytes in open panes, in panes on their way, and in windows.
  public var bytes = 0
  /// Rows that were not taken because their pane held as many keys as it may.
  public var rowsOverLimit = 0
  public init() {}

  static func += (sum: inout OperatorStatus, part: OperatorStatus) {
    sum.keys += part.keys
    sum.bytes += part.bytes
    sum.rowsOverLimit += part.rowsOverLimit
  }
}

/// Holds partitions back while keyed state is larger than it may be.
///
/// State shrinks when windows close, and windows close when the partition that is furthest behind in event time goes on:
/// pausing that one as well would be for ever. So the rule is: while state is over its limit, of each source only the
/// partitions are read that no other of the source is behind; all others wait, and so do those of a source whose
/// last partition has nothing to read, until it has, or has been idle for so long that the clock moves it on. What a
/// single stretch of windows needs is not bounded by that, but by the key limits: they hold in each pane.
///
/// Closed when the workers' last counts (ten a second) exceed the limit, opened when they are below nine tenths of it.
final class StateGate: Sendable {
  private let bytesMax: Int
  private let counts: Mutex<[Int]>
  private let closed = Atomic<Bool>(false)

  /// `bytesMax` 0: no limit.
  init(bytesMax: Int, workers: Int) {
    self.bytesMax = bytesMax
    counts = Mutex(Array(repeating: 0, count: workers))
  }

  var isClosed: Bool { closed.load(ordering: .relaxed) }

  /// A worker's share, counted just now.
  func note(bytes: Int, worker: Int) {
    guard bytesMax > 0 else { return }
    let total = counts.withLock { counts in
      counts[worker] = bytes
      return counts.reduce(0, +)
    }
    if total > bytesMax {
      closed.store(true, ordering: .relaxed)
    } else if total < bytesMax - bytesMax / 10 {
      closed.store(false, ordering: .relaxed)
    }
  }
}
