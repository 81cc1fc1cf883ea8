import CColumns
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
      var rows: [Int] = []
      for index in 0..<selection.count where KeyGroup.owner(hashes[index], shardCount: context.shardCount) == shard {
        rows.append(Int(selection.rows[index]))
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

  private func copy(_ rows: [Int], of batch: Batch) -> RowsChunk {
    let chunk = Batch(types: definition.inputTypes, capacity: rows.count)
    let box = ArenaBox()
    let slots = definition.neededSlots
    for (index, row) in rows.enumerated() { chunk.times[index] = batch.times[row] }
    for slot in slots {
      let source = ColumnMemory(batch.columns[slot])
      let target = chunk.columns[slot]
      target.fill(rows.count) { (source, rows[$0]) }
      guard target.type == .string else { continue }
      let texts = target.strings
      for index in rows.indices {
        if target.hasNulls, target.validity[index] == 0 {
          texts[index] = rd_string()
        } else {
          texts[index].data = box.arena.copy(texts[index].data, Int(texts[index].length))
        }
      }
    }
    chunk.rowCount = rows.count
    return RowsChunk(batch: chunk, arena: box)
  }
}

/// Copies one value between columns of one type, null included. A string still points where it pointed.
func copyRow(_ source: Column, _ row: Int, to target: Column, _ targetRow: Int) {
  let isNull = source.hasNulls && source.validity[row] == 0
  target.validity[targetRow] = isNull ? 0 : 1
  if isNull { target.hasNulls = true }
  switch target.type {
  case .bool: target.bools[targetRow] = source.bools[row]
  case .int64: target.ints[targetRow] = source.ints[row]
  case .float64: target.doubles[targetRow] = source.doubles[row]
  case .string: target.strings[targetRow] = isNull ? rd_string() : source.strings[row]
  }
}
