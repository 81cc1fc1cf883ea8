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

  /// Copies a row behind the others.
  func append(_ source: OrderedRows, _ row: Int) -> JoinRow {
    let place = batch.rowCount
    precondition(place < Self.capacity, "a full chunk takes no row")
    batch.times[place] = source.batch.times[row]
    var bytes = 32
    for index in 0..<columns.count {
      let from = source.columns[index]
      let to = columns[index]
      let isNull = from.isNull(row)
      to.validity?[place] = isNull ? 0 : 1
      bytes += to.type.stride
      switch to.type {
      case .bool: Self.copy(UInt8.self, from, row, to, place)
      case .int64: Self.copy(Int64.self, from, row, to, place)
      case .float64: Self.copy(Double.self, from, row, to, place)
      case .string:
        let text = isNull ? rd_string() : from.values.assumingMemoryBound(to: rd_string.self)[row]
        bytes += Int(text.length)
        to.values.assumingMemoryBound(to: rd_string.self)[place] = rd_string(
          data: arena.arena.copy(text.data, Int(text.length)), length: text.length, hash: text.hash)
      }
    }
    groups[place] = -1
    next[place] = -1
    matched[place] = 0
    weights[place] = Int32(clamping: bytes)
    batch.rowCount = place + 1
    return JoinRow(chunk: Unmanaged.passUnretained(self), index: Int32(truncatingIfNeeded: place))
  }

  @inline(__always)
  private static func copy<T: BitwiseCopyable>(
    _: T.Type, _ from: ColumnMemory, _ row: Int, _ to: ColumnMemory, _ place: Int
  ) {
    to.values.assumingMemoryBound(to: T.self)[place] = from.values.assumingMemoryBound(to: T.self)[row]
  }
}

/// Where a row of a join is. Good while its chunk lives: references to it are not counted, since rows are asked for one by one.
struct JoinRow: BitwiseCopyable {
  let chunk: Unmanaged<JoinChunk>
  let index: Int32

  @inline(__always)
  var group: Int32 {
    get { chunk._withUnsafeGuaranteedRef { $0.groups[Int(index)] } }
    nonmutating set { chunk._withUnsafeGuaranteedRef { $0.groups[Int(index)] = newValue } }
  }
  @inline(__always)
  var next: Int64 {
    get { chunk._withUnsafeGuaranteedRef { $0.next[Int(index)] } }
    nonmutating set { chunk._withUnsafeGuaranteedRef { $0.next[Int(index)] = newValue } }
  }
  @inline(__always)
  var isMatched: Bool {
    get { chunk._withUnsafeGuaranteedRef { $0.matched[Int(index)] != 0 } }
    nonmutating set { chunk._withUnsafeGuaranteedRef { $0.matched[Int(index)] = newValue ? 1 : 0 } }
  }
  @inline(__always)
  var weight: Int { chunk._withUnsafeGuaranteedRef { Int($0.weights[Int(index)]) } }
  @inline(__always)
  var time: Int64 { chunk._withUnsafeGuaranteedRef { $0.batch.times[Int(index)] } }
}

/// The rows that one side of a join keeps, first in first out: they come in the order of their times and go in it. Rows are
/// numbered through; a chunk holds 1,024 of them.
struct JoinStore {
  private let types: [PhysicalType]
  private(set) var chunks: ContiguousArray<JoinChunk> = []
  private var chunkCalls: ContiguousArray<Unmanaged<JoinChunk>> = []
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
  subscript(number: Int64) -> JoinRow {
    let place = Int(number - base)
    return JoinRow(
      chunk: chunkCalls[place / JoinChunk.capacity], index: Int32(truncatingIfNeeded: place % JoinChunk.capacity))
  }

  mutating func append(_ source: OrderedRows, _ row: Int) -> (number: Int64, row: JoinRow) {
    if chunks.last?.isFull ?? true {
      let chunk = JoinChunk(types: types)
      chunks.append(chunk)
      chunkCalls.append(Unmanaged.passUnretained(chunk))
    }
    let row = chunkCalls[chunkCalls.count - 1]._withUnsafeGuaranteedRef { $0.append(source, row) }
    bytes += row.weight
    end += 1
    return (end - 1, row)
  }

  /// Takes the first row away; its chunk with it when that was the last, which is then returned: rows that are on their way
  /// out may point to it.
  mutating func removeHead() -> JoinChunk? {
    let first = chunks[0]
    bytes -= self[head].weight
    head += 1
    guard head - base == Int64(JoinChunk.capacity) else { return nil }
    chunks.removeFirst()
    chunkCalls.removeFirst()
    base = head
    return first
  }
}
