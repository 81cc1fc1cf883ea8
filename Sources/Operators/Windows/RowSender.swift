import Catalog
import Runtime

/// Sends rows of windows to the shards that own their next key. They are aggregates already, so they are few; the receiver
/// brings them into an order that does not depend on who sent them.
final class RowSender: RowTask {
  private let definition: PaneAggregation
  private let context: TaskContext
  private var keys = KeyColumns()
  private let hashes: UnsafeMutablePointer<UInt64>

  init(_ definition: PaneAggregation, _ context: TaskContext) {
    self.definition = definition
    self.context = context
    hashes = .allocate(capacity: context.batchRows)
  }

  deinit { hashes.deallocate() }

  override func process(_ batch: Batch, _ selection: Selection) {
    keys.bind(batch, slots: definition.keySlots)
    keys.hashRows(selection.rows, count: selection.count, into: hashes)
    for shard in 0..<context.shardCount {
      var rows: [Int32] = []
      for index in 0..<selection.count where KeyGroup.owner(hashes[index], shardCount: context.shardCount) == shard {
        rows.append(selection.rows[index])
      }
      guard !rows.isEmpty else { continue }
      context.send(copy(rows, of: batch), exchange: definition.exchange, to: shard)
    }
  }

  override func lack(_ slots: Set<Int>) -> Bool { !slots.isDisjoint(with: definition.neededSlots) }

  /// Which shards would have had rows is not known.
  override func windowSkipped(_ end: Int64) {
    for shard in 0..<context.shardCount {
      context.send(RowsChunk(skippedEnd: end), exchange: definition.exchange, to: shard)
    }
  }

  private func copy(_ rows: [Int32], of batch: Batch) -> RowsChunk {
    let chunk = Batch(types: definition.inputTypes, capacity: rows.count)
    let box = ArenaBox()
    for (index, row) in rows.enumerated() { chunk.times[index] = batch.times[Int(row)] }
    for slot in definition.neededSlots {
      let target = chunk.columns[slot]
      copyRows(rows, of: batch.columns[slot], to: target)
      guard target.type == .string else { continue }
      for index in rows.indices {
        let text = target.strings[index]
        target.strings[index].data = box.arena.copy(text.data, Int(text.length))
      }
    }
    chunk.rowCount = rows.count
    return RowsChunk(batch: chunk, arena: box)
  }
}
