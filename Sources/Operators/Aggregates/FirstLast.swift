import CColumns
import Catalog
import Runtime

/// `first(x)`
enum First: AggregateFunction {
  static let spec = edgeSpec(
    "first", "The value with the earliest event time; of equal times that of the lower partition and offset.")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    EdgeState(type: (argument ?? .int).physical, wantsLast: false)
  }
}

/// `last(x)`
enum Last: AggregateFunction {
  static let spec = edgeSpec(
    "last", "The value with the latest event time; of equal times that of the higher partition and offset.")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    EdgeState(type: (argument ?? .int).physical, wantsLast: true)
  }
}

private func edgeSpec(_ name: String, _ summary: String) -> AggregateFunctionSpec {
  AggregateFunctionSpec(
    name: name, summary: summary, takesValue: true,
    signature: { type in
      guard let type else { return .mismatch("needs a value, such as `status`") }
      return .result(type)
    }, mayBeNull: true, state: "24 bytes a key, and the text of a string",
    example: "\(name)(status)")
}

/// The value at the earliest or latest event time. Rows come in the order of partition and offset, so a tie is settled by
/// who came first.
private final class EdgeState: AggregateState {
  private struct Cell: BitwiseCopyable {
    var time: Int64 = 0
    var word: UInt64 = 0
    var isPresent = false
  }
  private var cells = NativeArray<Cell>()
  private var strings = NativeArray<rd_string>()
  private var arena = ByteArena()
  /// Bytes of strings that are still the value of a group; the rest of the arena is waste.
  private var liveBytes = 0
  private let type: PhysicalType
  private let wantsLast: Bool

  init(type: PhysicalType, wantsLast: Bool) {
    self.type = type
    self.wantsLast = wantsLast
  }

  override func ensure(groups count: Int) {
    cells.grow(to: count, filling: Cell())
    if type == .string { strings.grow(to: count, filling: rd_string()) }
  }

  @inline(__always)
  private func replaces(_ cell: Cell, _ time: Int64) -> Bool {
    !cell.isPresent || (wantsLast ? time >= cell.time : time < cell.time)
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    forEachPresent(column, rows, groups, count) { row, group in
      let time = times[row]
      guard replaces(cells.base[group], time) else { return }
      cells.base[group].time = time
      cells.base[group].isPresent = true
      switch type {
      case .int64: cells.base[group].word = UInt64(bitPattern: column.ints[row])
      case .float64: cells.base[group].word = column.doubles[row].bitPattern
      case .bool: cells.base[group].word = UInt64(column.bools[row])
      case .string: store(column.strings[row], group)
      }
    }
  }

  private func store(_ value: rd_string, _ group: Int) {
    let old = strings[group]
    if rd_string_equal(old, value) != 0, old.data != nil { return }
    liveBytes += Int(value.length) - Int(old.length)
    strings[group] = rd_string(
      data: arena.copy(value.data, Int(value.length)), length: value.length, hash: value.hash)
    // A value that changes with every row must not keep all of its past.
    if arena.bytes > 1 << 20, arena.bytes > 4 * max(liveBytes, 1) { compact() }
  }

  private func compact() {
    var fresh = ByteArena()
    for group in 0..<strings.count {
      let value = strings[group]
      strings[group] = rd_string(
        data: fresh.copy(value.data, Int(value.length)), length: value.length, hash: value.hash)
    }
    arena = fresh
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: EdgeState.self)
    for index in 0..<count {
      let source = Int(sources[index])
      let target = Int(targets[index])
      let theirs = other.cells[source]
      guard theirs.isPresent, replaces(cells[target], theirs.time) else { continue }
      cells[target] = theirs
      if type == .string { store(other.strings[source], target) }
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count {
      let group = Int(groups[row])
      let cell = cells[group]
      column.validity[row] = cell.isPresent ? 1 : 0
      if !cell.isPresent { column.hasNulls = true }
      switch type {
      case .int64: column.ints[row] = Int64(bitPattern: cell.word)
      case .float64: column.doubles[row] = Double(bitPattern: cell.word)
      case .bool: column.bools[row] = UInt8(truncatingIfNeeded: cell.word)
      case .string: column.strings[row] = cell.isPresent ? strings[group] : rd_string()
      }
    }
  }

  override var bytes: Int { cells.count * MemoryLayout<Cell>.stride + strings.count * 16 + arena.bytes }

  /// 32 to 35: the first value, by its type; 36 to 39: the last.
  override var kind: UInt8 { (wantsLast ? 36 : 32) + type.rawValue }

  override func copy() -> AggregateState {
    let copy = EdgeState(type: type, wantsLast: wantsLast)
    copy.cells = NativeArray(copying: cells)
    copy.strings = NativeArray(copying: strings)
    copy.arena = ByteArena(sharing: arena)
    copy.liveBytes = liveBytes
    return copy
  }

  override func encode(into writer: StateWriter) {
    let times = NativeArray<Int64>(repeating: 0, count: cells.count)
    let words = NativeArray<UInt64>(repeating: 0, count: cells.count)
    let flags = NativeArray<UInt8>(repeating: 0, count: cells.count)
    for group in 0..<cells.count {
      let cell = cells[group]
      times[group] = cell.time
      words[group] = cell.word
      flags[group] = cell.isPresent ? 1 : 0
    }
    writer.append(flags)
    writer.append(times)
    if type == .string {
      encodeTexts(count: strings.count, into: writer) { strings[$0] }
    } else {
      writer.append(words)
    }
  }

  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    let flags = try reader.flags(groups: groups)
    let times = try reader.array(of: Int64.self, groups: groups)
    cells = NativeArray(repeating: Cell(), count: groups)
    for group in 0..<groups {
      cells.base[group].isPresent = flags[group] != 0
      cells.base[group].time = times[group]
    }
    if type == .string {
      strings = try reader.texts(count: groups, into: &arena)
      for group in 0..<groups { liveBytes += Int(strings[group].length) }
      return
    }
    let words = try reader.array(of: UInt64.self, groups: groups)
    for group in 0..<groups {
      if type == .bool, words[group] > 1 { throw StateCorruption("a bool of the state is \(words[group])") }
      if type == .float64, Double(bitPattern: words[group]).isNaN {
        throw StateCorruption("a value of the state is no number")
      }
      cells.base[group].word = words[group]
    }
  }
}
