import Catalog
import Runtime

/// The partition side of an ordered exchange: copies what is needed of rows, apart for each owner.
final class OrderedPartialTask: RowsPartialTask {
  private let definition: OrderedExchange
  private var splitter: RowSplitter

  init(_ definition: OrderedExchange, _ context: TaskContext) {
    self.definition = definition
    splitter = RowSplitter(definition.carried, keys: definition.keys, context)
    super.init(operatorID: definition.operatorID, context)
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0, let offsets = batch.offsets,
      let (parts, start) = splitter.split(batch, selection, offsets: offsets)
    else { return }
    take(RowsPane(start: start, parts: parts), partition: batch.partition)
  }

  override func capture(partition: Int) -> (any StateCapture)? {
    let selected = captured(partition: partition)
    guard !selected.isEmpty else { return nil }
    return OrderedRowsCapture(selected: selected, definition: definition, partitionNames: context.partitionNames)
  }

  override func restore(partition: Int, from reader: inout StateReader) throws {
    try reader.expect(version: OrderedRowsCapture.version, of: "rows on their way")
    for (_, rows) in try OrderedCoding.read(definition, partitionNames: context.partitionNames, from: &reader) {
      takeRestored(rows, types: definition.carried.map(\.type), partition: partition)
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
