import Catalog

/// Which rows of a batch are meant: ascending row numbers. A filter makes a new selection and copies no row.
public struct Selection {
  public let rows: UnsafePointer<Int32>
  public let count: Int
  /// True when the rows are exactly 0..<count, so that a kernel may run straight through.
  public let isDense: Bool
  @inlinable public init(rows: UnsafePointer<Int32>, count: Int, isDense: Bool) {
    self.rows = rows
    self.count = count
    self.isDense = isDense
  }
}

/// Rows as operators see them: columns by slot, an event time each. The first slots are the fields (of a source) or the
/// keys and aggregates (of a window); behind them stand the slots that `Compute` fills.
public final class Batch {
  public var rowCount = 0
  public var columns: ContiguousArray<Column>
  /// Event time in nanoseconds, by row.
  public let times: UnsafeMutablePointer<Int64>
  /// For rows of a source: their offsets in the partition, by row. Nil for other rows.
  public let offsets: UnsafeMutablePointer<Int64>?
  public let capacity: Int
  /// For rows of a source: the ordinal of their partition in the engine. Partial aggregates are kept apart by it.
  public var partition = 0
  /// For rows of a source: how many columns come from their records, the same for everybody who reads them. 0 for other rows.
  public let recordColumns: Int
  /// For rows of a source: another number for each batch.
  public internal(set) var number: UInt64 = 0
  private let ownsTimes: Bool
  private let ascending: UnsafeMutablePointer<Int32>

  /// A batch over a source's record batch, with room for computed slots.
  public init(over records: RecordBatch, computed: [PhysicalType]) {
    capacity = records.capacity
    columns = ContiguousArray(
      records.columns + computed.map { Column(type: $0, capacity: 0) })
    times = records.columns[records.schema.timeField].ints
    offsets = records.offsets
    recordColumns = records.columns.count
    ownsTimes = false
    ascending = Self.makeAscending(capacity)
  }

  /// A batch with columns and times of its own, and with slots for columns that `RowSet` computes.
  public init(
    types: [PhysicalType], computed: [PhysicalType] = [], capacity: Int = RecordBatch.rowsMax
  ) {
    self.capacity = capacity
    // A computed slot gets its evaluator's column.
    columns = ContiguousArray(
      types.map { Column(type: $0, capacity: capacity) }
        + computed.map { Column(type: $0, capacity: 0) })
    times = .allocate(capacity: capacity)
    times.initialize(repeating: 0, count: capacity)
    offsets = nil
    recordColumns = 0
    ownsTimes = true
    ascending = Self.makeAscending(capacity)
  }

  deinit {
    if ownsTimes { times.deallocate() }
    ascending.deallocate()
  }

  /// All rows.
  public var all: Selection { Selection(rows: ascending, count: rowCount, isDense: true) }

  private static func makeAscending(_ count: Int) -> UnsafeMutablePointer<Int32> {
    let rows = UnsafeMutablePointer<Int32>.allocate(capacity: count)
    for row in 0..<count { (rows + row).initialize(to: Int32(row)) }
    return rows
  }
}
