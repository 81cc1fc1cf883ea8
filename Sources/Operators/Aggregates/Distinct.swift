import CColumns
import Catalog
import Runtime

#if canImport(Glibc)
  import Glibc
#endif

/// `distinct(x)`
enum Distinct: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "distinct",
    summary: "About how many different values: exact up to some 1,500, then with a standard error of 0.8 %.",
    takesValue: true,
    signature: { type in
      type == nil ? .mismatch("needs a value, such as `trace_id`") : .result(.int)
    }, mayBeNull: false, state: "up to 16 KiB a key (HyperLogLog, 2^14 registers)",
    example: "distinct(trace_id)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    DistinctState()
  }
}

/// HyperLogLog (Flajolet et al. 2007) with 2^14 registers; a group starts as a set of 32-bit hashes, which counts small
/// numbers exactly. The estimate of the dense form is Ertl's ("New cardinality estimation algorithms for HyperLogLog
/// sketches", 2017, algorithm 6), good over the whole range without bias tables.
final class DistinctState: AggregateState {
  private static let precision: UInt32 = 14
  private static let registers = 1 << 14
  /// Hash bits behind the register number; ranks run to one more.
  private static let tailBits: UInt32 = 18
  /// Largest set, in entries; three quarters of its 2,048 slots.
  private static let setMax: UInt32 = 1_536
  /// Size class of the dense form: 16 << 8 words hold 2^14 one-byte registers.
  private static let denseClass: UInt8 = 8

  private struct Cell: BitwiseCopyable {
    var offset = 0
    var count: UInt32 = 0
    var capacityClass: UInt8 = 0
    var hasBlock = false
    var isDense = false
    /// Hash 0 cannot be told from an empty slot.
    var hasZero = false
  }
  private var cells = NativeArray<Cell>()
  private var pool = NativeArray<UInt32>()
  private var free: [[Int]] = Array(repeating: [], count: 9)

  override func ensure(groups count: Int) { cells.grow(to: count, filling: Cell()) }

  override var bytes: Int { cells.count * MemoryLayout<Cell>.stride + pool.count * 4 }

  override var kind: UInt8 { 7 }

  override func copy() -> AggregateState {
    let copy = DistinctState()
    copy.cells = NativeArray(copying: cells)
    copy.pool = NativeArray(copying: pool)
    copy.free = free
    return copy
  }

  /// By group its form (0 a set, 1 a set with hash 0, 2 dense) and the size of the set; then the hashes of all sets,
  /// ascending in each, so that equal sets are equal bytes; then the registers of the dense ones.
  override func encode(into writer: StateWriter) {
    let forms = NativeArray<UInt8>(repeating: 0, count: cells.count)
    let counts = NativeArray<UInt16>(repeating: 0, count: cells.count)
    var hashes = NativeArray<UInt32>()
    for group in 0..<cells.count {
      let cell = cells[group]
      forms[group] = cell.isDense ? 2 : (cell.hasZero ? 1 : 0)
      guard !cell.isDense, cell.count > 0 else { continue }
      counts[group] = UInt16(cell.count)
      for hash in members(cell).sorted() where hash != 0 { hashes.append(hash) }
    }
    writer.append(forms)
    writer.append(counts)
    writer.append(hashes)
    for group in 0..<cells.count where cells[group].isDense {
      writer.append(
        raw: UnsafeRawBufferPointer(start: registers(at: cells[group].offset), count: Self.registers))
    }
  }

  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    let forms = try reader.array(of: UInt8.self, groups: groups)
    let counts = try reader.array(of: UInt16.self, groups: groups)
    let hashes = try reader.array(of: UInt32.self)
    cells = NativeArray(repeating: Cell(), count: groups)
    var position = 0
    for group in 0..<groups {
      let count = Int(counts[group])
      guard forms[group] <= 2, count <= hashes.count - position,
        count <= (forms[group] == 2 ? 0 : Int(Self.setMax))
      else { throw StateCorruption("a set of the state has \(count) hashes") }
      cells.base[group].hasZero = forms[group] == 1
      var before: UInt32 = 0
      for index in position..<position + count {
        guard hashes[index] > before else { throw StateCorruption("a set of the state is not in order") }
        before = hashes[index]
        add(before, to: group)
      }
      position += count
    }
    guard position == hashes.count else { throw StateCorruption("a set of the state has too many hashes") }
    for group in 0..<groups where forms[group] == 2 { try restoreRegisters(group, from: &reader) }
  }

  private func restoreRegisters(_ group: Int, from reader: inout StateReader) throws(StateCorruption) {
    let offset = allocate(sizeClass: Self.denseClass)
    let target = registers(at: offset)
    try reader.bytes(into: UnsafeMutableRawBufferPointer(start: target, count: Self.registers))
    for index in 0..<Self.registers where target[index] > UInt8(Self.tailBits) + 1 {
      throw StateCorruption("a register of the state is \(target[index])")
    }
    cells[group] = Cell(
      offset: offset, count: 0, capacityClass: Self.denseClass, hasBlock: true, isDense: true)
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    switch column.type {
    case .string:
      let values = column.strings
      forEachPresent(column, rows, groups, count) { row, group in
        add(Self.fold(rd_hash64(values[row].data, values[row].length)), to: group)
      }
    case .int64:
      let values = column.ints
      forEachPresent(column, rows, groups, count) { row, group in
        add(Self.fold(rd_hash_word(UInt64(bitPattern: values[row]))), to: group)
      }
    case .float64:
      let values = column.doubles
      forEachPresent(column, rows, groups, count) { row, group in
        let value = values[row]
        add(Self.fold(rd_hash_word(value == 0 ? 0 : value.bitPattern)), to: group)
      }
    case .bool:
      let values = column.bools
      forEachPresent(column, rows, groups, count) { row, group in
        add(Self.fold(rd_hash_word(UInt64(values[row]))), to: group)
      }
    }
  }

  @inline(__always)
  private static func fold(_ hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash >> 32) }

  private func add(_ hash: UInt32, to group: Int) {
    let cell = cells[group]
    if cell.isDense { return raise(hash, at: cell.offset) }
    if hash == 0 {
      cells.base[group].hasZero = true
      return
    }
    if !cell.hasBlock {
      cells.base[group].offset = allocate(sizeClass: 0)
      cells.base[group].hasBlock = true
    }
    insert(hash, group)
    let updated = cells[group]
    if updated.count > Self.setMax {
      makeDense(group)
    } else if updated.count * 4 > UInt32(16 << Int(updated.capacityClass)) * 3 {
      growSet(group)
    }
  }

  private func insert(_ hash: UInt32, _ group: Int) {
    let cell = cells[group]
    let mask = (16 << Int(cell.capacityClass)) - 1
    var slot = Int(hash &* 0x9E37_79B1) & mask
    while true {
      let entry = pool[cell.offset + slot]
      if entry == hash { return }
      if entry == 0 { break }
      slot = (slot + 1) & mask
    }
    pool[cell.offset + slot] = hash
    cells.base[group].count += 1
  }

  private func members(_ cell: Cell) -> [UInt32] {
    var found: [UInt32] = cell.hasZero ? [0] : []
    guard cell.hasBlock else { return found }
    for slot in 0..<(16 << Int(cell.capacityClass)) where pool[cell.offset + slot] != 0 {
      found.append(pool[cell.offset + slot])
    }
    return found
  }

  private func growSet(_ group: Int) {
    let old = cells[group]
    let entries = members(old)
    cells.base[group].capacityClass += 1
    cells.base[group].offset = allocate(sizeClass: old.capacityClass + 1)
    cells.base[group].count = 0
    for hash in entries where hash != 0 { insert(hash, group) }
    free[Int(old.capacityClass)].append(old.offset)
  }

  private func makeDense(_ group: Int) {
    let old = cells[group]
    let entries = members(old)
    let offset = allocate(sizeClass: Self.denseClass)
    cells[group] = Cell(
      offset: offset, count: 0, capacityClass: Self.denseClass, hasBlock: true, isDense: true)
    for hash in entries { raise(hash, at: offset) }
    if old.hasBlock { free[Int(old.capacityClass)].append(old.offset) }
  }

  private func allocate(sizeClass: UInt8) -> Int {
    let size = 16 << Int(sizeClass)
    if let offset = free[Int(sizeClass)].popLast() {
      for index in 0..<size { pool[offset + index] = 0 }
      return offset
    }
    let offset = pool.count
    pool.grow(to: offset + size, filling: 0)
    return offset
  }

  /// The registers of a dense group, one byte each.
  private func registers(at offset: Int) -> UnsafeMutablePointer<UInt8> {
    UnsafeMutableRawPointer(pool.base + offset).assumingMemoryBound(to: UInt8.self)
  }

  private func raise(_ hash: UInt32, at offset: Int) {
    let index = Int(hash >> Self.tailBits)
    let tail = hash << Self.precision
    let rank = UInt8(min(UInt32(tail.leadingZeroBitCount), Self.tailBits) + 1)
    let register = registers(at: offset) + index
    if register.pointee < rank { register.pointee = rank }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: DistinctState.self)
    for index in 0..<count {
      let theirs = other.cells[Int(sources[index])]
      let target = Int(targets[index])
      if theirs.isDense {
        if !cells[target].isDense { makeDense(target) }
        let mine = registers(at: cells[target].offset)
        let source = other.registers(at: theirs.offset)
        for register in 0..<Self.registers where mine[register] < source[register] {
          mine[register] = source[register]
        }
      } else {
        for hash in other.members(theirs) { add(hash, to: target) }
      }
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count { column.ints[row] = estimate(cells[Int(groups[row])]) }
  }

  private func estimate(_ cell: Cell) -> Int64 {
    if !cell.isDense { return Int64(cell.count) + (cell.hasZero ? 1 : 0) }
    var histogram = [Double](repeating: 0, count: Int(Self.tailBits) + 2)
    let values = registers(at: cell.offset)
    for register in 0..<Self.registers { histogram[Int(values[register])] += 1 }
    let m = Double(Self.registers)
    var z = m * Self.tau(1 - histogram[Int(Self.tailBits) + 1] / m)
    for rank in stride(from: Int(Self.tailBits), through: 1, by: -1) { z = 0.5 * (z + histogram[rank]) }
    z += m * Self.sigma(histogram[0] / m)
    // Registers that are all full have no finite estimate; there are no more than 2^32 hashes.
    return Int64(min((m * m / (2 * log(2) * z)).rounded(), 1e15))
  }

  private static func sigma(_ start: Double) -> Double {
    if start == 1 { return .infinity }
    var x = start
    var y = 1.0
    var z = x
    while true {
      x *= x
      let before = z
      z += x * y
      y += y
      if z == before { return z }
    }
  }

  private static func tau(_ start: Double) -> Double {
    if start == 0 || start == 1 { return 0 }
    var x = start
    var y = 1.0
    var z = 1 - x
    while true {
      x = x.squareRoot()
      let before = z
      y *= 0.5
      z -= (1 - x) * (1 - x) * y
      if z == before { return z / 3 }
    }
  }
}
