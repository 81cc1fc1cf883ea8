import CColumns
import Catalog
import Runtime

/// What a partition sends at once of one input: rows for each shard, nil where there are none.
final class GatherPane: PanePartial, @unchecked Sendable {
  // @unchecked: as PanePartial says.
  let input: Int
  let parts: [OrderedRows?]
  init(start: Int64, input: Int, parts: [OrderedRows?]) {
    self.input = input
    self.parts = parts
    super.init(start: start)
  }
}

/// The partition side of a gathering exchange, for all inputs that are rows of the context's source. Rows do not wait here
/// for their order but for the watermark to move, which is when messages are sent.
final class GatherPartialTask: PartialTask {
  private let context: TaskContext
  private let id: String
  /// By partition, what has not been sent.
  private var pending: [[GatherPane]] = []
  /// By input; nil for those that come from elsewhere.
  private var feeds: [GatherInput?] = []

  init(_ exchange: Int, _ operatorID: String, _ context: TaskContext) {
    self.context = context
    id = operatorID
    super.init()
    context.register(self, exchange: exchange)
  }

  func add(_ input: GatherInput, number: Int) {
    while feeds.count <= number { feeds.append(nil) }
    feeds[number] = input
  }

  func take(_ pane: GatherPane, partition: Int) {
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

  override func capture(partition: Int) -> (any StateCapture)? {
    guard partition < pending.count, !pending[partition].isEmpty else { return nil }
    var selected: [(input: Int, definition: OrderedExchange, rows: [OrderedCoding.Selected])] = []
    for (number, feed) in feeds.enumerated() {
      guard let feed else { continue }
      let parts = pending[partition].filter { $0.input == number }.flatMap(\.parts).compactMap { $0 }
      guard !parts.isEmpty else { continue }
      selected.append(
        (
          number, feed.stored,
          parts.map {
            OrderedCoding.Selected(partition: partition, rows: $0, remaining: (0..<Int32($0.batch.rowCount)).map { $0 })
          }
        ))
    }
    return GatherRowsCapture(selected: selected, partitionNames: context.partitionNames)
  }

  override func restore(partition: Int, from reader: inout StateReader) throws {
    try reader.expect(version: GatherRowsCapture.version, of: "rows on their way")
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let number = Int(try reader.integer(UInt32.self))
      guard number < feeds.count, let feed = feeds[number] else {
        throw StateCorruption("rows on their way are of input \(number)")
      }
      let parts = try OrderedCoding.read(feed.stored, partitionNames: context.partitionNames, from: &reader)
      for (_, rows) in parts { take(split(rows, feed, number), partition: partition) }
    }
  }

  private func split(_ rows: OrderedRows, _ input: GatherInput, _ number: Int) -> GatherPane {
    var start = Int64.max
    let parts = (0..<context.shardCount).map { shard -> OrderedRows? in
      let mine = (0..<Int32(rows.batch.rowCount)).filter {
        KeyGroup.owner(rows.hashes[Int($0)], shardCount: context.shardCount) == shard
      }
      guard !mine.isEmpty else { return nil }
      for row in mine { start = min(start, rows.batch.times[Int(row)]) }
      return OrderedRows.copy(
        mine, of: rows.batch, slots: Array(input.carried.indices), types: input.types, hashes: rows.hashes,
        offsets: rows.offsets)
    }
    return GatherPane(start: start, input: number, parts: parts)
  }
}

extension OrderedRows {
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

/// Cuts an input's rows by owner. What both ways into the exchange have in common.
struct GatherSplitter: ~Copyable {
  private let input: GatherInput
  private let slots: [Int]
  private let types: [PhysicalType]
  private let shardCount: Int
  private var keys = KeyColumns()
  private var hashes: NativeArray<UInt64>
  private var rowsOf: [[Int32]]
  private var placesOf: [[Int32]]

  init(_ input: GatherInput, _ context: TaskContext) {
    self.input = input
    slots = input.carried.map(\.slot)
    types = input.types
    shardCount = context.shardCount
    hashes = NativeArray(repeating: 0, count: context.batchRows)
    rowsOf = Array(repeating: [], count: shardCount)
    placesOf = rowsOf
  }

  /// The rows of each shard, nil where there are none, and the earliest time among them. `offsets` is by row, or nil.
  mutating func split(
    _ batch: Batch, _ selection: Selection, offsets: UnsafeMutablePointer<Int64>?
  ) -> (parts: [OrderedRows?], start: Int64)? {
    keys.bind(batch, slots: input.keys.map { slots[$0] })
    keys.hashRows(selection.rows, count: selection.count, into: hashes.base)
    for shard in 0..<shardCount {
      rowsOf[shard].removeAll(keepingCapacity: true)
      placesOf[shard].removeAll(keepingCapacity: true)
    }
    let nullable = input.dropsNullKeys ? input.keys.map { batch.columns[slots[$0]] }.filter(\.hasNulls) : []
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

/// Rows of a source on their way into the exchange.
final class GatherFeedTask: RowTask {
  private let number: Int
  private let partial: GatherPartialTask
  private var splitter: GatherSplitter

  init(_ feed: GatherFeed, _ partial: GatherPartialTask, _ context: TaskContext) {
    number = feed.number
    self.partial = partial
    splitter = GatherSplitter(feed.input, context)
    partial.add(feed.input, number: feed.number)
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0, let offsets = batch.offsets,
      let (parts, start) = splitter.split(batch, selection, offsets: offsets)
    else { return }
    partial.take(GatherPane(start: start, input: number, parts: parts), partition: batch.partition)
  }
}

/// Rows of windows or of other gatherings on their way into the exchange: they are at their own keys' shards already, and go
/// straight to those of the next.
final class GatherSender: RowTask {
  private let feed: GatherFeed
  private let context: TaskContext
  private var splitter: GatherSplitter

  init(_ feed: GatherFeed, _ context: TaskContext) {
    self.feed = feed
    self.context = context
    splitter = GatherSplitter(feed.input, context)
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0, let (parts, _) = splitter.split(batch, selection, offsets: nil) else { return }
    for (shard, part) in parts.enumerated() {
      guard let part else { continue }
      context.send(RowsChunk(batch: part.batch, arena: part.arena, input: feed.number), exchange: feed.exchange, to: shard)
    }
  }

  override func windowSkipped(_ end: Int64) {
    for shard in 0..<context.shardCount {
      context.send(RowsChunk(skippedEnd: end, input: feed.number), exchange: feed.exchange, to: shard)
    }
  }
}

struct GatherRowsCapture: StateCapture {
  static let version: UInt16 = 1
  var selected: [(input: Int, definition: OrderedExchange, rows: [OrderedCoding.Selected])]
  var partitionNames: [String]
  var keyCount: Int { 0 }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(UInt32(selected.count))
    for (input, definition, rows) in selected {
      writer.append(UInt32(input))
      OrderedCoding.encode(rows, definition, partitionNames: partitionNames, into: writer)
    }
  }
}
