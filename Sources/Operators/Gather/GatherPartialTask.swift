import Catalog
import Runtime

/// The partition side of a gathering exchange, for all inputs that are rows of the context's source.
final class GatherPartialTask: RowsPartialTask {
  /// By input; nil for those that come from elsewhere.
  private var feeds: [GatherInput?] = []

  init(_ exchange: Int, _ operatorID: String, _ context: TaskContext) {
    super.init(operatorID: operatorID, context)
    context.register(self, exchange: exchange)
  }

  func add(_ input: GatherInput, number: Int) {
    while feeds.count <= number { feeds.append(nil) }
    feeds[number] = input
  }

  override func capture(partition: Int) -> (any StateCapture)? {
    var selected: [(input: Int, definition: OrderedExchange, rows: [OrderedCoding.Selected])] = []
    for (number, feed) in feeds.enumerated() {
      guard let feed else { continue }
      let rows = captured(partition: partition, input: number)
      if !rows.isEmpty { selected.append((number, feed.stored, rows)) }
    }
    return selected.isEmpty ? nil : GatherRowsCapture(selected: selected, partitionNames: context.partitionNames)
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
      for (_, rows) in parts { takeRestored(rows, types: feed.types, input: number, partition: partition) }
    }
  }
}

/// Rows of a source on their way into the exchange.
final class GatherFeedTask: RowTask {
  private let number: Int
  private let partial: GatherPartialTask
  private var splitter: RowSplitter

  init(_ feed: GatherFeed, _ partial: GatherPartialTask, _ context: TaskContext) {
    number = feed.number
    self.partial = partial
    splitter = feed.input.splitter(context)
    partial.add(feed.input, number: feed.number)
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0, let offsets = batch.offsets,
      let (parts, start) = splitter.split(batch, selection, offsets: offsets)
    else { return }
    partial.take(RowsPane(start: start, input: number, parts: parts), partition: batch.partition)
  }
}

/// Rows of windows or of other gatherings on their way into the exchange: they are at their own keys' shards already, and go
/// straight to those of the next.
final class GatherSender: RowTask {
  private let feed: GatherFeed
  private let context: TaskContext
  private var splitter: RowSplitter

  init(_ feed: GatherFeed, _ context: TaskContext) {
    self.feed = feed
    self.context = context
    splitter = feed.input.splitter(context)
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
