import CColumns
import Catalog
import Runtime

/// Copied rows of one partition for one shard. Immutable once made: tasks and captures share it.
final class OrderedRows: @unchecked Sendable {
  // @unchecked: written where it is made, read by others after; the inbox's lock orders the two.
  let batch: Batch
  /// By row.
  let offsets: NativeArray<Int64>
  let hashes: NativeArray<UInt64>
  let arena: ArenaBox
  let bytes: Int
  /// Read for every row that is released.
  let columns: NativeArray<ColumnMemory>

  init(
    batch: Batch, offsets: consuming NativeArray<Int64>, hashes: consuming NativeArray<UInt64>, arena: ArenaBox
  ) {
    self.batch = batch
    self.offsets = offsets
    self.hashes = hashes
    self.arena = arena
    bytes = arena.arena.bytes + batch.rowCount * (24 + batch.columns.reduce(0) { $0 + $1.type.stride })
    var columns = NativeArray<ColumnMemory>()
    for column in batch.columns { columns.append(ColumnMemory(column)) }
    self.columns = columns
  }

  /// Copies `rows` of a batch with their own hashes and offsets.
  static func copy(
    _ rows: [Int32], of batch: Batch, slots: [Int], types: [PhysicalType], hashes: borrowing NativeArray<UInt64>,
    offsets: borrowing NativeArray<Int64>
  ) -> OrderedRows {
    let hashesHere = NativeArray<UInt64>(repeating: 0, count: rows.count)
    for (index, row) in rows.enumerated() { hashesHere[index] = hashes[Int(row)] }
    let offsetsHere = NativeArray<Int64>(repeating: 0, count: rows.count)
    for (index, row) in rows.enumerated() { offsetsHere[index] = offsets[Int(row)] }
    return gather(rows, of: batch, slots: slots, types: types, offsets: offsetsHere, hashes: hashesHere)
  }

  /// Copies `rows` of a batch column by column. `slots[i]` becomes column i.
  static func gather(
    _ rows: [Int32], of batch: Batch, slots: [Int], types: [PhysicalType], offsets: consuming NativeArray<Int64>,
    hashes: consuming NativeArray<UInt64>
  ) -> OrderedRows {
    let copy = Batch(types: types, capacity: rows.count)
    let box = ArenaBox()
    for (index, row) in rows.enumerated() { copy.times[index] = batch.times[Int(row)] }
    for (column, slot) in slots.enumerated() {
      let source = batch.columns[slot]
      let target = copy.columns[column]
      target.hasNulls = source.hasNulls
      if source.hasNulls {
        for (index, row) in rows.enumerated() { target.validity[index] = source.validity[Int(row)] }
      }
      switch target.type {
      case .bool: for (index, row) in rows.enumerated() { target.bools[index] = source.bools[Int(row)] }
      case .int64: for (index, row) in rows.enumerated() { target.ints[index] = source.ints[Int(row)] }
      case .float64: for (index, row) in rows.enumerated() { target.doubles[index] = source.doubles[Int(row)] }
      case .string:
        for (index, row) in rows.enumerated() {
          if source.hasNulls, source.validity[Int(row)] == 0 { continue }
          let text = source.strings[Int(row)]
          target.strings[index] = rd_string(
            data: box.arena.copy(text.data, Int(text.length)), length: text.length, hash: text.hash)
        }
      }
    }
    copy.rowCount = rows.count
    return OrderedRows(batch: copy, offsets: offsets, hashes: hashes, arena: box)
  }
}

/// Rows in a checkpoint: times, partitions and offsets, then the carried columns, each with what it is.
enum OrderedCoding {
  /// Rows of several partitions.
  struct Selected: Sendable {
    var partition: Int
    var rows: OrderedRows
    var remaining: [Int32]
  }

  static func encode(
    _ selected: [Selected], _ definition: OrderedExchange, partitionNames: [String], into writer: StateWriter
  ) {
    let count = selected.reduce(0) { $0 + $1.remaining.count }
    let batch = Batch(types: definition.carried.map(\.type), capacity: max(count, 1))
    let offsets = NativeArray<Int64>(repeating: 0, count: count)
    let partitions = NativeArray<UInt32>(repeating: 0, count: count)
    let times = NativeArray<Int64>(repeating: 0, count: count)
    var row = 0
    for part in selected {
      for source in part.remaining {
        times[row] = part.rows.batch.times[Int(source)]
        offsets[row] = part.rows.offsets[Int(source)]
        partitions[row] = UInt32(truncatingIfNeeded: part.partition)
        for column in definition.carried.indices {
          copyRow(part.rows.batch.columns[column], Int(source), to: batch.columns[column], row)
        }
        row += 1
      }
    }
    let named = Set(selected.map(\.partition)).sorted()
    writer.append(UInt32(named.count))
    for partition in named {
      writer.append(UInt32(truncatingIfNeeded: partition))
      writer.append(partitionNames.indices.contains(partition) ? partitionNames[partition] : "#\(partition)")
    }
    writer.append(times)
    writer.append(partitions)
    writer.append(offsets)
    writer.append(UInt32(definition.carried.count))
    for (column, carried) in definition.carried.enumerated() {
      writer.append(carried.identity)
      writer.append(carried.type.rawValue)
      StoredRows.encode(batch.columns[column], count, into: writer)
    }
  }

  /// Reads what `encode` wrote, as rows of the carried columns of now. A column that was not carried then is null; a row
  /// without its key is left out. Rows of a partition that is not here come behind those of all others.
  static func read(
    _ definition: OrderedExchange, partitionNames: [String], from reader: inout StateReader
  ) throws(StateCorruption) -> [(partition: Int, rows: OrderedRows)] {
    let named = Int(try reader.integer(UInt32.self))
    guard named <= reader.left / 12 else { throw StateCorruption("rows of the state are of \(named) partitions") }
    var ordinals: [UInt32: Int] = [:]
    for _ in 0..<named {
      let stored = try reader.integer(UInt32.self)
      let name = try reader.text()
      ordinals[stored] = partitionNames.firstIndex(of: name) ?? Int(Int32.max)
    }
    let times = try reader.array(of: Int64.self)
    let count = times.count
    let partitions = try reader.array(of: UInt32.self)
    let offsets = try reader.array(of: Int64.self)
    guard partitions.count == count, offsets.count == count else {
      throw StateCorruption("rows of the state have \(partitions.count) partitions and \(offsets.count) offsets for \(count)")
    }
    for row in 0..<count {
      guard storedTimes.contains(times[row]) else { throw StateCorruption("a row of the state is of no time") }
      guard ordinals[partitions[row]] != nil else { throw StateCorruption("a row of the state is of no partition") }
    }
    let batch = Batch(types: definition.carried.map(\.type), capacity: max(count, 1))
    let box = ArenaBox()
    var found = Set<Int>()
    let columnCount = Int(try reader.integer(UInt32.self))
    guard columnCount <= reader.left / 9 else { throw StateCorruption("rows of the state have \(columnCount) columns") }
    for _ in 0..<columnCount {
      let identity = try reader.text()
      guard let type = PhysicalType(rawValue: try reader.integer(UInt8.self)) else {
        throw StateCorruption("a column of the state has no known type")
      }
      let place = definition.carried.firstIndex { $0.identity == identity && $0.type == type }
      if let place { found.insert(place) }
      let column = place.map { batch.columns[$0] } ?? Column(type: type, capacity: max(count, 1))
      try StoredRows.read(column, count, box, from: &reader)
    }
    for row in 0..<count { batch.times[row] = times[row] }
    batch.rowCount = count
    for place in definition.carried.indices where !found.contains(place) {
      batch.columns[place].hasNulls = true
      for row in 0..<count { batch.columns[place].validity[row] = 0 }
    }
    guard definition.keys.allSatisfy(found.contains) else { return [] }
    var keys = KeyColumns()
    keys.bind(batch, slots: definition.keys)
    let hashes = NativeArray<UInt64>(repeating: 0, count: count)
    keys.hashRows(batch.all.rows, count: count, into: hashes.base)
    var rowsOf: [Int: [Int32]] = [:]
    for row in 0..<count { rowsOf[ordinals[partitions[row]] ?? 0, default: []].append(Int32(row)) }
    return rowsOf.sorted { $0.key < $1.key }.map { partition, rows in
      (
        partition,
        OrderedRows.copy(
          rows, of: batch, slots: Array(definition.carried.indices), types: definition.carried.map(\.type), hashes: hashes,
          offsets: offsets)
      )
    }
  }
}
