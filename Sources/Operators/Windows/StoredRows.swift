import CColumns
import Catalog
import Runtime

/// Rows of windows that wait for their order: the columns that the aggregation reads, by slot.
enum StoredRows {
  case rows(RowsChunk)
  /// Rows up to this time, of other columns than the aggregation reads now.
  case unreadable(latest: Int64)

  static func encode(_ chunk: RowsChunk, _ definition: PaneAggregation, into writer: StateWriter) {
    let batch = chunk.batch
    let count = batch.rowCount
    let slots = definition.neededSlots
    writer.append(UInt32(slots.count))
    for slot in slots {
      writer.append(UInt32(slot))
      writer.append(batch.columns[slot].type.rawValue)
    }
    let times = NativeArray<Int64>(repeating: 0, count: count)
    for row in 0..<count { times[row] = batch.times[row] }
    writer.append(times)
    for slot in slots { encode(batch.columns[slot], count, into: writer) }
  }

  static func encode(_ column: Column, _ count: Int, into writer: StateWriter) {
    let validity = NativeArray<UInt8>(repeating: 1, count: count)
    if column.hasNulls { for row in 0..<count { validity[row] = column.validity[row] } }
    writer.append(validity)
    guard column.type != .string else {
      return encodeTexts(count: count, into: writer) { validity[$0] == 0 ? rd_string() : column.strings[$0] }
    }
    let words = NativeArray<UInt64>(repeating: 0, count: count)
    for row in 0..<count where validity[row] != 0 {
      switch column.type {
      case .bool: words[row] = UInt64(column.bools[row])
      case .int64: words[row] = UInt64(bitPattern: column.ints[row])
      case .float64: words[row] = column.doubles[row].bitPattern
      case .string: break
      }
    }
    writer.append(words)
  }

  static func read(_ definition: PaneAggregation, from reader: inout StateReader) throws(StateCorruption) -> StoredRows {
    let slotCount = Int(try reader.integer(UInt32.self))
    guard slotCount <= reader.left / 5 else { throw StateCorruption("rows of the state have \(slotCount) columns") }
    var slots: [Int] = []
    var types: [PhysicalType] = []
    for _ in 0..<slotCount {
      slots.append(Int(try reader.integer(UInt32.self)))
      guard let type = PhysicalType(rawValue: try reader.integer(UInt8.self)) else {
        throw StateCorruption("a column of the state has no known type")
      }
      types.append(type)
    }
    let times = try reader.array(of: Int64.self)
    let count = times.count
    var latest = beforeAllTime
    for row in 0..<count {
      guard storedTimes.contains(times[row]) else { throw StateCorruption("a row of the state is of no time") }
      latest = max(latest, times[row])
    }
    let isReadable =
      slots == definition.neededSlots && types == slots.map { definition.inputTypes[$0] }
    let box = ArenaBox()
    let batch = Batch(types: isReadable ? definition.inputTypes : types, capacity: count)
    for row in 0..<count { batch.times[row] = times[row] }
    for (index, slot) in slots.enumerated() {
      try read(batch.columns[isReadable ? slot : index], count, box, from: &reader)
    }
    batch.rowCount = count
    if isReadable { return .rows(RowsChunk(batch: batch, arena: box)) }
    return .unreadable(latest: max(latest, storedTimes.lowerBound))
  }

  static func read(
    _ column: Column, _ count: Int, _ box: ArenaBox, from reader: inout StateReader
  ) throws(StateCorruption) {
    let validity = try reader.flags(groups: count)
    for row in 0..<count {
      column.validity[row] = validity[row]
      if validity[row] == 0 { column.hasNulls = true }
    }
    guard column.type != .string else {
      let texts = try reader.texts(count: count, into: &box.arena)
      for row in 0..<count { column.strings[row] = texts[row] }
      return
    }
    let words = try reader.array(of: UInt64.self, groups: count)
    for row in 0..<count {
      switch column.type {
      case .bool: column.bools[row] = words[row] == 0 ? 0 : 1
      case .int64: column.ints[row] = Int64(bitPattern: words[row])
      case .float64:
        guard !Double(bitPattern: words[row]).isNaN else { throw StateCorruption("a row of the state is no number") }
        column.doubles[row] = Double(bitPattern: words[row])
      case .string: break
      }
    }
  }

  /// The rows whose next key is in `scope`; their strings stay where they are.
  static func part(of chunk: RowsChunk, in scope: KeyScope, _ definition: PaneAggregation) -> RowsChunk {
    let batch = chunk.batch
    guard scope.shardCount > 1, batch.rowCount > 0 else { return chunk }
    var keys = KeyColumns()
    keys.bind(batch, slots: definition.keySlots)
    let hashes = NativeArray<UInt64>(repeating: 0, count: batch.rowCount)
    keys.hashRows(batch.all.rows, count: batch.rowCount, into: hashes.base)
    let slots = definition.neededSlots
    // Rows that are not meant are moved over.
    var kept = 0
    for row in 0..<batch.rowCount where scope.owns(hashes[row]) {
      batch.times[kept] = batch.times[row]
      for slot in slots { copyRow(batch.columns[slot], row, to: batch.columns[slot], kept) }
      kept += 1
    }
    batch.rowCount = kept
    return chunk
  }
}
