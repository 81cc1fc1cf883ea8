import CColumns
import Catalog
import Runtime

/// A stretch of rows that one side of a join keeps: columns of fixed capacity, filled from the front, dropped as a whole when
/// the last of its rows has expired.
final class JoinChunk {
  static let capacity = 1_024

  let batch: Batch
  let arena = ArenaBox()
  /// By row: the group of its key; -1 for a row that is not in any list.
  let groups: NativeArray<Int32>
  /// By row: the next one of the same key, -1 for none.
  let next: NativeArray<Int64>
  /// By row: 1 when a partner has been found (or need not be).
  let matched: NativeArray<UInt8>
  /// By row: bytes that it counts for.
  let weights: NativeArray<Int32>
  /// Read for every row that goes out.
  let columns: NativeArray<ColumnMemory>

  init(types: [PhysicalType]) {
    batch = Batch(types: types, capacity: Self.capacity)
    groups = NativeArray(repeating: -1, count: Self.capacity)
    next = NativeArray(repeating: -1, count: Self.capacity)
    matched = NativeArray(repeating: 0, count: Self.capacity)
    weights = NativeArray(repeating: 0, count: Self.capacity)
    var columns = NativeArray<ColumnMemory>()
    for column in batch.columns {
      // A capture may read while rows are added: whether there are nulls never changes.
      column.hasNulls = true
      columns.append(ColumnMemory(column))
    }
    self.columns = columns
  }

  var isFull: Bool { batch.rowCount == Self.capacity }

  /// Copies a row behind the others; answers its number and the bytes that it takes.
  func append(_ source: Batch, _ row: Int) -> (row: Int, bytes: Int32) {
    let place = batch.rowCount
    precondition(place < Self.capacity, "a full chunk takes no row")
    batch.times[place] = source.times[row]
    var bytes = 32
    for index in batch.columns.indices {
      let from = source.columns[index]
      let to = batch.columns[index]
      let isNull = from.hasNulls && from.validity[row] == 0
      to.validity[place] = isNull ? 0 : 1
      bytes += to.type.stride
      switch to.type {
      case .bool: to.bools[place] = from.bools[row]
      case .int64: to.ints[place] = from.ints[row]
      case .float64: to.doubles[place] = from.doubles[row]
      case .string:
        let text = isNull ? rd_string() : from.strings[row]
        bytes += Int(text.length)
        to.strings[place] = rd_string(
          data: arena.arena.copy(text.data, Int(text.length)), length: text.length, hash: text.hash)
      }
    }
    groups[place] = -1
    next[place] = -1
    matched[place] = 0
    batch.rowCount = place + 1
    return (place, Int32(clamping: bytes))
  }
}

/// The rows that one side of a join keeps, first in first out: they come in the order of their times and go in it. Rows are
/// numbered through; a chunk holds 1,024 of them.
struct JoinStore {
  private let types: [PhysicalType]
  private(set) var chunks: ContiguousArray<JoinChunk> = []
  /// Number of the first row in the first chunk.
  private(set) var base: Int64 = 0
  /// The first row that has not expired.
  private(set) var head: Int64 = 0
  /// One behind the last row.
  private(set) var end: Int64 = 0
  private(set) var bytes = 0

  init(types: [PhysicalType]) { self.types = types }

  var isEmpty: Bool { head == end }

  @inline(__always)
  func chunk(_ number: Int64) -> JoinChunk { chunks[Int((number - base) / Int64(JoinChunk.capacity))] }
  @inline(__always)
  func row(_ number: Int64) -> Int { Int((number - base) % Int64(JoinChunk.capacity)) }

  /// The first row's time.
  var headTime: Int64 { chunk(head).batch.times[row(head)] }

  mutating func append(_ source: Batch, _ row: Int) -> Int64 {
    if chunks.last?.isFull ?? true { chunks.append(JoinChunk(types: types)) }
    let chunk = chunks[chunks.count - 1]
    let (place, weight) = chunk.append(source, row)
    chunk.weights[place] = weight
    bytes += Int(weight)
    end += 1
    return end - 1
  }

  /// Takes the first row away; its chunk with it when that was the last, which is then returned: rows that are on their way
  /// out may point to it.
  mutating func removeHead() -> JoinChunk? {
    let first = chunks[0]
    bytes -= Int(first.weights[row(head)])
    head += 1
    guard head - base == Int64(JoinChunk.capacity) else { return nil }
    chunks.removeFirst()
    base = head
    return first
  }
}
