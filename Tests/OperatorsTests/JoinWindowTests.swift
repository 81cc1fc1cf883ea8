import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// Joins window by window where a side's window was not evaluated: what is missing must not pass for what is not there.
@Suite struct JoinWindowTests {
  private func rows(_ seen: SeenLines) -> RowCollecting {
    RowCollecting(
      seen: seen, line: { "\(($0 + 1) / minute): " + $1[0..<2].joined(separator: " ") }, window: { "\($0 / minute)" })
  }

  private func task(_ kind: Join.Kind, _ seen: SeenLines) -> KeyedTask {
    let input = GatherInput(
      carried: [.init(slot: 0, type: .int64, identity: "key"), .init(slot: 1, type: .int64, identity: "value")], keys: [0],
      order: [0], dropsNullKeys: false)
    let join = Join(
      kind: kind, lowNanos: 0, highNanos: 0, columns: [.init(side: 0, index: 1), .init(side: 1, index: 1)], hopNanos: minute)
    let exchange = GatherExchange(
      exchange: 0, operatorID: "join", inputs: [input, input], operation: join,
      outputs: [
        GatherOutput(
          columnTypes: [.int64, .int64], computedSlots: [], rows: RowSet(consumers: [rows(seen)]))
      ])
    return exchange.makeKeyed(TaskContext(shard: 0, shardCount: 1, batchRows: 16, output: RecordWriter()))
  }

  /// Rows of the window that ends at a minute.
  private func rows(_ end: Int64, _ values: [(key: Int64, value: Int64)], input: Int) -> RowsChunk {
    let batch = Batch(types: [.int64, .int64], capacity: values.count)
    for (row, entry) in values.enumerated() {
      batch.times[row] = end * minute - 1
      batch.columns[0].ints[row] = entry.key
      batch.columns[1].ints[row] = entry.value
    }
    batch.rowCount = values.count
    return RowsChunk(batch: batch, arena: ArenaBox(), input: input)
  }

  private func lines(_ kind: Join.Kind, advancing: [Int64]) -> [String] {
    let seen = SeenLines()
    let task = task(kind, seen)
    task.accept(rows(1, [(1, 10), (2, 20)], input: 0))
    task.accept(rows(1, [(1, 11)], input: 1))
    // The right side's second window lacks something, and the left side's fourth; nobody has rows in the fifth.
    task.accept(rows(2, [(1, 12), (2, 22)], input: 0))
    task.accept(RowsChunk(skippedEnd: 2 * minute, input: 1))
    task.accept(rows(3, [(2, 30)], input: 0))
    task.accept(rows(3, [(2, 31)], input: 1))
    task.accept(RowsChunk(skippedEnd: 4 * minute, input: 0))
    task.accept(rows(4, [(2, 41)], input: 1))
    task.accept(RowsChunk(skippedEnd: 5 * minute, input: 1))
    task.accept(rows(6, [(1, 60)], input: 0))
    for time in advancing { task.advance(to: time * minute) }
    return seen.lines
  }

  @Test(arguments: [[7], [1, 2, 3, 4, 5, 6, 7], [2, 5, 7]] as [[Int64]])
  func aSkippedWindowIsNotJoined(_ advancing: [Int64]) {
    #expect(
      lines(.left, advancing: advancing) == [
        "1: 10 11", "1: 20 null", "1 ended", "2 skipped", "3: 30 31", "3 ended", "4 skipped", "5 skipped", "6: 60 null", "6 ended",
      ])
    #expect(
      lines(.unless, advancing: advancing) == [
        "1: 20 null", "1 ended", "2 skipped", "3 ended", "4 skipped", "5 skipped", "6: 60 null", "6 ended",
      ])
    #expect(
      lines(.inner, advancing: advancing) == [
        "1: 10 11", "1 ended", "2 skipped", "3: 30 31", "3 ended", "4 skipped", "5 skipped", "6 ended",
      ])
  }
}
