import Catalog
import Runtime

/// `join`, `left join` and `unless` of two inputs on equal keys within a bound of time (an interval join).
///
/// A left row at time l and a right row at r with the same keys, none of them null, belong together when
/// `lowNanos <= r - l <= highNanos`. Their pair has the later of the two times. A left row without a partner has the time
/// l + `highNanos`, at which it is known that none comes; `left` gives it nulls for the right side, `unless` gives it alone.
/// At one time pairs come before rows without a partner.
///
/// Cost: each row is stored and expires once; its partners, and nothing else of its key, are gone through when it comes. So
/// a key that half of all rows have costs what its pairs cost.
public struct Join: GatherOperation {
  public enum Kind: String, Sendable, Hashable { case inner, left, unless }

  /// A column of the rows that come out.
  public struct Column: Sendable, Hashable {
    /// 0 for the left side, 1 for the right.
    public var side: Int
    /// Index among what the side's rows take along.
    public var index: Int
    public init(side: Int, index: Int) {
      self.side = side
      self.index = index
    }
  }

  /// What may be kept. All are counted apart for each of the 256 key groups, so that no number of workers changes what is
  /// dropped: keys and bytes may come to about twice as much in the whole before the first is dropped.
  public struct Limits: Sendable, Hashable {
    /// Rows of one key on one side.
    public var rows: Int
    public var keys: Int
    public var bytes: Int
    public init(rows: Int = 10_000, keys: Int = 1_000_000, bytes: Int = 1 << 30) {
      self.rows = rows
      self.keys = keys
      self.bytes = bytes
    }

    var keysOfGroup: Int { max(64, 2 * keys / KeyGroup.count) }
    var bytesOfGroup: Int { max(1 << 18, 2 * bytes / KeyGroup.count) }
  }

  public var kind: Kind
  public var lowNanos: Int64
  public var highNanos: Int64
  public var limits: Limits
  public var columns: [Column]
  /// For rows of windows joined window by window: how far apart they end; what follows is evaluated at those ends. 0 for
  /// other rows.
  public var hopNanos: Int64

  public init(
    kind: Kind, lowNanos: Int64, highNanos: Int64, limits: Limits = Limits(), columns: [Column], hopNanos: Int64 = 0
  ) {
    precondition(lowNanos <= 0 && highNanos >= 0, "an interval holds its left row's time")
    self.kind = kind
    self.lowNanos = lowNanos
    self.highNanos = highNanos
    self.limits = limits
    self.columns = columns
    self.hopNanos = hopNanos
  }

  /// How far back before the time of a row that comes out rows decide about it.
  public static func reachNanos(_ kind: Kind, low: Int64, high: Int64) -> Int64 {
    switch kind {
    case .inner: max(high, -low)
    // A row without a partner comes `high` after itself, and its partners may lie `low` before it.
    case .left, .unless: high - low
    }
  }

  public func makeTask(_ definition: GatherExchange, _ context: TaskContext) -> KeyedTask {
    JoinTask(self, definition, context)
  }
}
