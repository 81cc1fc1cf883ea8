import CColumns
import Catalog
import Runtime

/// `top(x, k)`
enum Top: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "top",
    summary:
      "The k most frequent values with their counts, as JSON: `[{\"value\":\"search\",\"count\":12}]`; exact up to 256 different values, then each count is too high by a 256th of all rows at most.",
    takesValue: true, constants: ["k"],
    signature: { type in
      switch type {
      case nil: .mismatch("needs a value, such as `service`")
      case .string, .int, .bool: .result(.string)
      case let other?: .mismatch("takes a string, an int or a bool, not a \(other.rawValue)")
      }
    },
    validateConstant: { _, value in
      guard case .int(let k) = value else { return "must be a whole number, such as 10" }
      return (1...64).contains(k) ? nil : "must lie between 1 and 64"
    }, mayBeNull: false, state: "up to 14 KiB a key, and the texts (space-saving, 256 counters)",
    example: "top(service, 3)")
  static let sharesStateAcrossConstants = true
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    TopState(type: (argument ?? .string).physical)
  }
}

/// The most frequent values by group: space-saving with 256 counters (Metwally, Agrawal, El Abbadi, "Efficient computation
/// of frequent and top-k elements in data streams", ICDT 2005). Summaries are merged as in Agarwal et al., "Mergeable
/// summaries" (PODS 2012): a value that a full summary lacks may have occurred as often there as its least counter says.
///
/// A value is known by its 64-bit hash.
final class TopState: AggregateState {
  private static let countersMax = 256
  /// Blocks hold 8 << class counters.
  private static let largestClass: UInt8 = 5
  /// Of a longer text only so many bytes are shown.
  private static let textBytesMax = 256

  private struct Cell: BitwiseCopyable {
    var offset = 0
    var count: Int32 = 0
    var sizeClass: UInt8 = 0
    var hasBlock = false
  }
  private struct Counter: BitwiseCopyable {
    var count: Int64 = 0
    /// An int or a bool.
    var word: Int64 = 0
    var text = rd_string()
  }

  private let type: PhysicalType
  private var cells = NativeArray<Cell>()
  /// Apart from the counters, so that a search reads nothing else.
  private var hashes = NativeArray<UInt64>()
  private var counters = NativeArray<Counter>()
  private var free: [[Int]] = Array(repeating: [], count: Int(largestClass) + 1)
  private var arena = ByteArena()
  /// Bytes of texts that a counter still has; the rest of the arena is waste.
  private var liveBytes = 0
  /// What `finish` wrote since rows last came: columns at hand point into it.
  private var written = ByteArena()

  init(type: PhysicalType) { self.type = type }

  override func ensure(groups count: Int) { cells.grow(to: count, filling: Cell()) }

  override var bytes: Int {
    cells.count * MemoryLayout<Cell>.stride + hashes.count * 8 + counters.count * MemoryLayout<Counter>.stride + arena.bytes
      + written.bytes
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    if written.bytes > 0 { written = ByteArena() }
    switch column.type {
    case .string:
      let values = column.strings
      forEachPresent(column, rows, groups, count) { row, group in
        let value = values[row]
        add(rd_hash64(value.data ?? UnsafePointer(ByteClass.nothing), value.length), 0, value, 1, to: group)
      }
    case .int64:
      let values = column.ints
      forEachPresent(column, rows, groups, count) { row, group in
        add(rd_hash_word(UInt64(bitPattern: values[row])), values[row], rd_string(), 1, to: group)
      }
    case .bool:
      let values = column.bools
      forEachPresent(column, rows, groups, count) { row, group in
        add(UInt64(values[row]), Int64(values[row]), rd_string(), 1, to: group)
      }
    case .float64: break  // The signature lets none through.
    }
  }

  @inline(__always)
  private func add(_ hash: UInt64, _ word: Int64, _ text: rd_string, _ times: Int64, to group: Int) {
    let cell = cells[group]
    let block = hashes.base + cell.offset
    for index in 0..<Int(cell.count) where block[index] == hash {
      counters.base[cell.offset + index].count &+= times
      // Frequent values come to the front, where they are found at once.
      if index > 0 { swap(cell.offset + index, cell.offset + index - 1) }
      return
    }
    insert(hash, word, text, times, group)
  }

  @inline(__always)
  private func swap(_ a: Int, _ b: Int) {
    let (hash, counter) = (hashes[a], counters[a])
    hashes[a] = hashes[b]
    counters[a] = counters[b]
    hashes[b] = hash
    counters[b] = counter
  }

  private func insert(_ hash: UInt64, _ word: Int64, _ text: rd_string, _ times: Int64, _ group: Int) {
    if Int(cells[group].count) < Self.countersMax {
      let place = makeRoom(group)
      hashes[place] = hash
      counters[place] = Counter(count: times, word: word, text: keep(text))
      return
    }
    // The least counter goes over to the new value: of equal ones that with the lower hash.
    let offset = cells[group].offset
    var least = offset
    for index in offset + 1..<offset + Self.countersMax
    where (counters[index].count, hashes[index]) < (counters[least].count, hashes[least]) { least = index }
    liveBytes -= Int(counters[least].text.length)
    hashes[least] = hash
    counters[least] = Counter(count: counters[least].count &+ times, word: word, text: keep(text))
    if arena.bytes > 1 << 20, arena.bytes > 4 * max(liveBytes, 1) { compact() }
  }

  /// The next free counter of a group.
  private func makeRoom(_ group: Int) -> Int {
    let cell = cells[group]
    if !cell.hasBlock {
      cells.base[group].offset = allocate(0)
      cells.base[group].hasBlock = true
    } else if Int(cell.count) == 8 << Int(cell.sizeClass) {
      let offset = allocate(cell.sizeClass + 1)
      for index in 0..<Int(cell.count) {
        hashes[offset + index] = hashes[cell.offset + index]
        counters[offset + index] = counters[cell.offset + index]
      }
      free[Int(cell.sizeClass)].append(cell.offset)
      cells.base[group].offset = offset
      cells.base[group].sizeClass += 1
    }
    cells.base[group].count += 1
    return cells[group].offset + Int(cell.count)
  }

  private func allocate(_ sizeClass: UInt8) -> Int {
    if let offset = free[Int(sizeClass)].popLast() { return offset }
    let offset = hashes.count
    hashes.grow(to: offset + 8 << Int(sizeClass), filling: 0)
    counters.grow(to: offset + 8 << Int(sizeClass), filling: Counter())
    return offset
  }

  /// A copy of the text's first bytes that ends with a whole character.
  private func keep(_ text: rd_string) -> rd_string {
    guard let data = text.data, text.length > 0 else { return rd_string() }
    var length = Int(text.length)
    if length > Self.textBytesMax {
      length = Self.textBytesMax
      while length > 0, data[length] & 0xC0 == 0x80 { length -= 1 }
    }
    liveBytes += length
    return rd_string(data: arena.copy(data, length), length: UInt32(truncatingIfNeeded: length), hash: 0)
  }

  private func compact() {
    var fresh = ByteArena()
    for group in 0..<cells.count {
      let cell = cells[group]
      for place in cell.offset..<cell.offset + Int(cell.count) {
        let text = counters[place].text
        counters.base[place].text.data = fresh.copy(text.data, Int(text.length))
      }
    }
    arena = fresh
  }

  // MARK: Merging

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: TopState.self)
    if written.bytes > 0 { written = ByteArena() }
    for index in 0..<count { merge(other, Int(sources[index]), into: Int(targets[index])) }
  }

  /// What a value that is not among a group's counters may have counted.
  private func unseen(_ group: Int) -> Int64 {
    let cell = cells[group]
    guard Int(cell.count) == Self.countersMax else { return 0 }
    var least = Int64.max
    for place in cell.offset..<cell.offset + Int(cell.count) { least = min(least, counters[place].count) }
    return least
  }

  private func merge(_ other: TopState, _ source: Int, into target: Int) {
    let theirs = other.cells[source]
    guard theirs.count > 0 else { return }
    let (mine, theirUnseen, myUnseen) = (cells[target], other.unseen(source), unseen(target))
    // Counters of both, mine first; those that only one has gain what the other may have lost.
    var all: [(hash: UInt64, counter: Counter)] = []
    all.reserveCapacity(Int(mine.count) + Int(theirs.count))
    var places: [UInt64: Int] = [:]
    for place in mine.offset..<mine.offset + Int(mine.count) {
      places[hashes[place]] = all.count
      all.append((hashes[place], counters[place]))
      all[all.count - 1].counter.count &+= theirUnseen
    }
    for place in theirs.offset..<theirs.offset + Int(theirs.count) {
      var counter = other.counters[place]
      if let known = places[other.hashes[place]] {
        all[known].counter.count &+= counter.count &- theirUnseen
      } else {
        counter.count &+= myUnseen
        counter.text = keep(counter.text)
        all.append((other.hashes[place], counter))
      }
    }
    if all.count > Self.countersMax {
      all.sort { ($0.counter.count, $0.hash) > ($1.counter.count, $1.hash) }
      for dropped in all[Self.countersMax...] { liveBytes -= Int(dropped.counter.text.length) }
      all.removeLast(all.count - Self.countersMax)
    }
    for (index, entry) in all.enumerated() {
      let place = index < Int(mine.count) ? cells[target].offset + index : makeRoom(target)
      hashes[place] = entry.hash
      counters[place] = entry.counter
    }
    if arena.bytes > 1 << 20, arena.bytes > 4 * max(liveBytes, 1) { compact() }
  }

  // MARK: Values

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    var k = 10
    if case .int(let given)? = constants.first { k = Int(given) }
    column.hasNulls = false
    var line: [UInt8] = []
    for row in 0..<count {
      line.removeAll(keepingCapacity: true)
      let cell = cells[Int(groups[row])]
      line.append(UInt8(ascii: "["))
      for place in ranked(cell).prefix(k) {
        if line.count > 1 { line.append(UInt8(ascii: ",")) }
        line.append(contentsOf: "{\"value\":".utf8)
        switch type {
        case .string: line.append(jsonString: counters[place].text)
        case .bool: line.append(contentsOf: (counters[place].word == 0 ? "false" : "true").utf8)
        case .int64, .float64: line.append(contentsOf: String(counters[place].word).utf8)
        }
        line.append(contentsOf: ",\"count\":\(counters[place].count)}".utf8)
      }
      line.append(UInt8(ascii: "]"))
      let data = line.withUnsafeBufferPointer { written.copy($0.baseAddress, $0.count) }
      column.strings[row] = rd_string(data: data, length: UInt32(truncatingIfNeeded: line.count), hash: 0)
    }
  }

  /// A group's counters, the most frequent first; of equal counts the value that sorts first.
  private func ranked(_ cell: Cell) -> [Int] {
    (cell.offset..<cell.offset + Int(cell.count)).sorted { a, b in
      let (x, y) = (counters[a], counters[b])
      if x.count != y.count { return x.count > y.count }
      if x.word != y.word { return x.word < y.word }
      let (s, t) = (
        UnsafeBufferPointer(start: x.text.data, count: Int(x.text.length)),
        UnsafeBufferPointer(start: y.text.data, count: Int(y.text.length))
      )
      if s.lexicographicallyPrecedes(t) { return true }
      return t.lexicographicallyPrecedes(s) ? false : hashes[a] < hashes[b]
    }
  }

  // MARK: Checkpoints

  /// 40 to 43, by the type of the values.
  override var kind: UInt8 { 40 + type.rawValue }

  override func copy() -> AggregateState {
    let copy = TopState(type: type)
    copy.cells = NativeArray(copying: cells)
    copy.hashes = NativeArray(copying: hashes)
    copy.counters = NativeArray(copying: counters)
    copy.free = free
    copy.arena = ByteArena(sharing: arena)
    copy.liveBytes = liveBytes
    return copy
  }

  /// How many counters each group has; then the hashes, counts and values of all, group by group in their order.
  override func encode(into writer: StateWriter) {
    let sizes = NativeArray<UInt16>(repeating: 0, count: cells.count)
    var all = NativeArray<UInt64>()
    var counts = NativeArray<Int64>()
    var words = NativeArray<Int64>()
    var texts = NativeArray<rd_string>()
    for group in 0..<cells.count {
      let cell = cells[group]
      sizes[group] = UInt16(cell.count)
      for place in cell.offset..<cell.offset + Int(cell.count) {
        all.append(hashes[place])
        counts.append(counters[place].count)
        if type == .string { texts.append(counters[place].text) } else { words.append(counters[place].word) }
      }
    }
    writer.append(sizes)
    writer.append(all)
    writer.append(counts)
    if type == .string {
      encodeTexts(count: texts.count, into: writer) { texts[$0] }
    } else {
      writer.append(words)
    }
  }

  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    let sizes = try reader.array(of: UInt16.self, groups: groups)
    let all = try reader.array(of: UInt64.self)
    let counts = try reader.array(of: Int64.self, groups: all.count)
    var words = NativeArray<Int64>()
    var texts = NativeArray<rd_string>()
    if type == .string {
      texts = try reader.texts(count: all.count, into: &arena)
    } else {
      words = try reader.array(of: Int64.self, groups: all.count)
    }
    cells = NativeArray(repeating: Cell(), count: groups)
    var next = 0
    for group in 0..<groups {
      let size = Int(sizes[group])
      guard size <= Self.countersMax, size <= all.count - next else {
        throw StateCorruption("a group of the state has \(size) counters")
      }
      for index in next..<next + size {
        guard (0...storedCountMax).contains(counts[index]) else {
          throw StateCorruption("a count of the state is \(counts[index])")
        }
        let place = makeRoom(group)
        hashes[place] = all[index]
        counters[place] = Counter(
          count: counts[index], word: type == .string ? 0 : words[index],
          text: type == .string ? texts[index] : rd_string())
        liveBytes += Int(counters[place].text.length)
      }
      next += size
    }
    guard next == all.count else { throw StateCorruption("the state has counters of no group") }
  }
}
