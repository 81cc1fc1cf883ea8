import CColumns
import Catalog
import Runtime

/// The partition side of an ordered exchange: copies what is needed of rows, apart for each owner. Rows do not wait here for
/// their order but for the watermark to move, which is when messages are sent.
final class OrderedPartialTask: PartialTask {
  private let definition: OrderedExchange
  private let context: TaskContext
  private var keys = KeyColumns()
  private let hashes: UnsafeMutablePointer<UInt64>
  /// By partition, what has not been sent.
  private var pending: [[OrderedPane]] = []
  private let slots: [Int]
  private let types: [PhysicalType]

  init(_ definition: OrderedExchange, _ context: TaskContext) {
    self.definition = definition
    self.context = context
    slots = definition.carried.map(\.slot)
    types = definition.carried.map(\.type)
    hashes = .allocate(capacity: context.batchRows)
    hashes.initialize(repeating: 0, count: context.batchRows)
  }

  deinit { hashes.deallocate() }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0, let offsets = batch.offsets else { return }
    while pending.count <= batch.partition { pending.append([]) }
    keys.bind(batch, slots: definition.keys.map { slots[$0] })
    keys.hashRows(selection.rows, count: selection.count, into: hashes)
    var rowsOf = [[Int32]](repeating: [], count: context.shardCount)
    var hashesOf = [[UInt64]](repeating: [], count: context.shardCount)
    for index in 0..<selection.count {
      let owner = KeyGroup.owner(hashes[index], shardCount: context.shardCount)
      rowsOf[owner].append(selection.rows[index])
      hashesOf[owner].append(hashes[index])
    }
    var start = Int64.max
    for index in 0..<selection.count { start = min(start, batch.times[Int(selection.rows[index])]) }
    let parts = rowsOf.indices.map { owner -> OrderedRows? in
      let rows = rowsOf[owner]
      guard !rows.isEmpty else { return nil }
      var next = -1
      return OrderedRows.copy(
        rows, of: batch, slots: slots, types: types,
        hash: { _ in
          next += 1
          return hashesOf[owner][next]
        }, offset: { offsets[$0] })
    }
    pending[batch.partition].append(OrderedPane(start: start, parts: parts))
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

  override var operatorID: String { definition.operatorID }

  override func capture(partition: Int) -> (any StateCapture)? {
    guard partition < pending.count, !pending[partition].isEmpty else { return nil }
    let parts = pending[partition].flatMap(\.parts).compactMap { $0 }
    let selected = parts.map {
      OrderedCoding.Selected(partition: partition, rows: $0, remaining: (0..<Int32($0.batch.rowCount)).map { $0 })
    }
    return OrderedRowsCapture(selected: selected, definition: definition, partitionNames: context.partitionNames)
  }

  override func restore(partition: Int, from reader: inout StateReader) throws {
    try reader.expect(version: OrderedRowsCapture.version, of: "rows on their way")
    while pending.count <= partition { pending.append([]) }
    for (_, rows) in try OrderedCoding.read(definition, partitionNames: context.partitionNames, from: &reader) {
      var start = Int64.max
      let parts = (0..<context.shardCount).map { shard -> OrderedRows? in
        let mine = (0..<Int32(rows.batch.rowCount)).filter {
          KeyGroup.owner(rows.hashes[Int($0)], shardCount: context.shardCount) == shard
        }
        guard !mine.isEmpty else { return nil }
        for row in mine { start = min(start, rows.batch.times[Int(row)]) }
        return OrderedRows.copy(
          mine, of: rows.batch, slots: Array(types.indices), types: types, hash: { rows.hashes[$0] },
          offset: { rows.offsets[$0] })
      }
      pending[partition].append(OrderedPane(start: start, parts: parts))
    }
  }
}

struct OrderedRowsCapture: StateCapture {
  static let version: UInt16 = 1
  var selected: [OrderedCoding.Selected]
  var definition: OrderedExchange
  var partitionNames: [String]
  var keyCount: Int { 0 }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    OrderedCoding.encode(selected, definition, partitionNames: partitionNames, into: writer)
  }
}
