import Catalog
import Runtime

/// What a partition sends at once of one input of an exchange: rows for each shard, nil where there are none.
final class RowsPane: PanePartial, @unchecked Sendable {
  // @unchecked: as PanePartial says.
  /// 0 where the exchange has one.
  let input: Int
  let parts: [OrderedRows?]
  init(start: Int64, input: Int = 0, parts: [OrderedRows?]) {
    self.input = input
    self.parts = parts
    super.init(start: start)
  }
}

/// The partition side of an exchange of copied rows. They do not wait here for their order but for the watermark to move,
/// which is when messages are sent.
class RowsPartialTask: PartialTask {
  // The context has this among its partial tasks.
  unowned let context: TaskContext
  private let id: String
  /// By partition, what has not been sent.
  private var pending: [[RowsPane]] = []

  init(operatorID: String, _ context: TaskContext) {
    self.context = context
    id = operatorID
    super.init()
  }

  final func take(_ pane: RowsPane, partition: Int) {
    while pending.count <= partition { pending.append([]) }
    pending[partition].append(pane)
  }

  override func closePanes(partition: Int, watermark: Int64, emit: (PanePartial) -> Void) {
    guard partition < pending.count else { return }
    for pane in pending[partition] { emit(pane) }
    pending[partition].removeAll(keepingCapacity: true)
  }

  override func firstOpenPane(partition: Int) -> Int64? {
    partition < pending.count ? pending[partition].map(\.start).min() : nil
  }

  override var stateSize: (keys: Int, bytes: Int) {
    var bytes = 0
    for panes in pending { for pane in panes { for part in pane.parts { bytes += part?.bytes ?? 0 } } }
    return (0, bytes)
  }

  // MARK: State

  override var operatorID: String { id }

  /// What has not been sent of an input, as a capture keeps it.
  final func captured(partition: Int, input: Int = 0) -> [OrderedCoding.Selected] {
    guard partition < pending.count else { return [] }
    return pending[partition].filter { $0.input == input }.flatMap(\.parts).compactMap { $0 }.map {
      OrderedCoding.Selected(partition: partition, rows: $0, remaining: (0..<Int32($0.batch.rowCount)).map { $0 })
    }
  }

  /// Cuts rows that were captured by who owns them now.
  final func takeRestored(_ rows: OrderedRows, types: [PhysicalType], input: Int = 0, partition: Int) {
    var start = Int64.max
    let parts = (0..<context.shardCount).map { shard -> OrderedRows? in
      let mine = (0..<Int32(rows.batch.rowCount)).filter {
        KeyGroup.owner(rows.hashes[Int($0)], shardCount: context.shardCount) == shard
      }
      guard !mine.isEmpty else { return nil }
      for row in mine { start = min(start, rows.batch.times[Int(row)]) }
      return OrderedRows.copy(
        mine, of: rows.batch, slots: Array(types.indices), types: types, hashes: rows.hashes, offsets: rows.offsets)
    }
    take(RowsPane(start: start, input: input, parts: parts), partition: partition)
  }
}

/// Cuts rows by owner: what all ways into an exchange of copied rows have in common.
struct RowSplitter: ~Copyable {
  private let slots: [Int]
  private let types: [PhysicalType]
  private let keySlots: [Int]
  private let dropsNullKeys: Bool
  private let shardCount: Int
  private var keys = KeyColumns()
  private var hashes: NativeArray<UInt64>
  private var rowsOf: [[Int32]]
  private var placesOf: [[Int32]]

  init(_ carried: [OrderedExchange.Carried], keys: [Int], dropsNullKeys: Bool = false, _ context: TaskContext) {
    slots = carried.map(\.slot)
    types = carried.map(\.type)
    keySlots = keys.map { carried[$0].slot }
    self.dropsNullKeys = dropsNullKeys
    shardCount = context.shardCount
    hashes = NativeArray(repeating: 0, count: context.batchRows)
    rowsOf = Array(repeating: [], count: shardCount)
    placesOf = rowsOf
  }

  /// The rows of each shard, nil where there are none, and the earliest time among them. `offsets` is by row, or nil.
  mutating func split(
    _ batch: Batch, _ selection: Selection, offsets: UnsafeMutablePointer<Int64>?
  ) -> (parts: [OrderedRows?], start: Int64)? {
    keys.bind(batch, slots: keySlots)
    keys.hashRows(selection.rows, count: selection.count, into: hashes.base)
    for shard in 0..<shardCount {
      rowsOf[shard].removeAll(keepingCapacity: true)
      placesOf[shard].removeAll(keepingCapacity: true)
    }
    let nullable = dropsNullKeys ? keySlots.map { batch.columns[$0] }.filter(\.hasNulls) : []
    var start = Int64.max
    rows: for index in 0..<selection.count {
      let row = selection.rows[index]
      for column in nullable where column.validity[Int(row)] == 0 { continue rows }
      let owner = shardCount == 1 ? 0 : KeyGroup.owner(hashes[index], shardCount: shardCount)
      rowsOf[owner].append(row)
      placesOf[owner].append(Int32(truncatingIfNeeded: index))
      start = min(start, batch.times[Int(row)])
    }
    guard start < Int64.max else { return nil }
    var parts: [OrderedRows?] = []
    for shard in 0..<shardCount {
      let rows = rowsOf[shard]
      guard !rows.isEmpty else {
        parts.append(nil)
        continue
      }
      let ownHashes = NativeArray<UInt64>(repeating: 0, count: rows.count)
      let ownOffsets = NativeArray<Int64>(repeating: 0, count: rows.count)
      for index in rows.indices {
        ownHashes[index] = hashes[Int(placesOf[shard][index])]
        if let offsets { ownOffsets[index] = offsets[Int(rows[index])] }
      }
      parts.append(
        OrderedRows.gather(rows, of: batch, slots: slots, types: types, offsets: ownOffsets, hashes: ownHashes))
    }
    return (parts, start)
  }
}
