import Runtime

#if canImport(Glibc)
  import Glibc
#endif

/// Bins of a DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
/// guarantees", VLDB 2019) with relative error 1 %: values of one bin lie within a factor of (1 + 0.01) / (1 - 0.01).
///
/// The logarithm is replaced by a cubic in the significand, as in the authors' CubicallyInterpolatedMapping: about 1 % more
/// bins than with the exact one, at a few multiplications a value.
enum SketchMapping {
  static let relativeError = 0.01
  /// Magnitudes below this count as zero; the smallest normal double is far below anything a rule measures.
  static let smallest = 1e-300
  private static let gamma = (1 + relativeError) / (1 - relativeError)
  // Coefficients such that the curve has the same ends, slope 10/7 at worst and no kinks at powers of two.
  private static let a = 6.0 / 35
  private static let b = -3.0 / 5
  private static let c = 10.0 / 7
  /// Bins for each unit of the interpolated logarithm, whose slope against ln x is at least 10/7.
  private static let multiplier = 0.7 / log(gamma)
  /// Moves bins of the smallest magnitudes above zero.
  private static let bias: Int32 = 40_000
  /// Every bin there is, and then some: runs begin with slack before their lowest.
  static let bins: ClosedRange<Int32> = -8_192...100_000

  /// The bin of a value of at least `smallest`; infinity goes to the bin above the largest double.
  @inline(__always)
  static func bin(_ value: Double) -> Int32 {
    let bits = value.bitPattern
    let exponent = Int64(truncatingIfNeeded: bits >> 52) - 1_023
    let s = Double(bitPattern: (bits & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000) - 1
    let curve = ((a * s + b) * s + c) * s + Double(exponent)
    return Int32((curve * multiplier).rounded(.down)) + bias
  }

  /// The value that stands for a bin: within 1 % of everything in it.
  static func value(_ bin: Int32) -> Double {
    let low = edge(Double(bin - bias) / multiplier)
    let high = edge(Double(bin - bias + 1) / multiplier)
    if high.isInfinite { return low }
    // The harmonic mean, in a form that stays in range for the largest and smallest doubles.
    return low * (2 / (1 + low / high))
  }

  /// The value at which the interpolated logarithm is `curve`: Newton's method on the cubic, which is increasing.
  private static func edge(_ curve: Double) -> Double {
    let exponent = curve.rounded(.down)
    let wanted = curve - exponent
    var s = wanted
    for _ in 0..<8 {
      let error = ((a * s + b) * s + c) * s - wanted
      s -= error / ((3 * a * s + 2 * b) * s + c)
    }
    return scalbn(1 + s, Int(exponent))
  }
}

/// Counts by bin for each group. A group starts as a list of its first bins, which doubles as it fills, and becomes a dense
/// run of counters when the list is full; a run longer than `runMax` gives up its lowest bins (the paper's collapse), which keeps high quantiles right.
struct BinStore: ~Copyable {
  /// Entries of the longest list: beyond it a run of counters is smaller than most lists would get.
  static let listMax: UInt32 = 128
  static let runMax: Int32 = 4_096

  struct Cell: BitwiseCopyable {
    var total: Int64 = 0
    /// Where the group's words start in the pool.
    var offset = 0
    /// Words: entries of the list in use, or counters of the run.
    var length: UInt32 = 0
    /// The bin of the first counter; `Int32.min` for a list.
    var base = Int32.min
    var capacityClass: UInt8 = 0
    var hasBlock = false
  }

  private var cells = NativeArray<Cell>()
  private var pool = NativeArray<UInt32>()
  /// Free blocks by size class (16 << class words); empty until a block is given back.
  private var free: [[Int]] = []

  init() {}

  init(copying other: borrowing BinStore) {
    cells = NativeArray(copying: other.cells)
    pool = NativeArray(copying: other.pool)
    free = other.free
  }

  var bytes: Int { cells.count * MemoryLayout<Cell>.stride + pool.count * 4 }

  mutating func ensure(groups count: Int) { cells.grow(to: count, filling: Cell()) }

  func total(_ group: Int) -> Int64 { cells[group].total }

  @inline(__always)
  mutating func add(_ bin: Int32, to group: Int) { add(bin, count: 1, to: group) }

  @inline(__always)
  private mutating func add(_ bin: Int32, count: UInt32, to group: Int) {
    let cell = cells.base + group
    cell.pointee.total &+= Int64(count)
    if cell.pointee.base == .min {
      if count == 1, cell.pointee.hasBlock, cell.pointee.length < 16 << UInt32(cell.pointee.capacityClass) {
        pool.base[cell.pointee.offset + Int(cell.pointee.length)] = UInt32(bitPattern: bin)
        cell.pointee.length += 1
        return
      }
    } else {
      let index = bin &- cell.pointee.base
      if index >= 0, index < Int32(truncatingIfNeeded: cell.pointee.length) {
        let word = pool.base + cell.pointee.offset + Int(index)
        let (sum, overflow) = word.pointee.addingReportingOverflow(count)
        word.pointee = overflow ? .max : sum
        return
      }
    }
    addSlowly(bin, count: count, to: group)
  }

  private mutating func addSlowly(_ bin: Int32, count: UInt32, to group: Int) {
    if cells[group].base == .min {
      var left = count
      while left > 0, cells[group].length < Self.listMax {
        ensureListSpace(group)
        pool[cells[group].offset + Int(cells[group].length)] = UInt32(bitPattern: bin)
        cells.base[group].length += 1
        left -= 1
      }
      if left == 0 { return }
      listToRun(group, including: bin)
      bump(bin, by: left, in: group)
      return
    }
    widen(group, including: bin)
    bump(bin, by: count, in: group)
  }

  /// Room for one more entry in a list that is shorter than `listMax`.
  private mutating func ensureListSpace(_ group: Int) {
    let cell = cells[group]
    if !cell.hasBlock {
      cells.base[group].offset = allocate(sizeClass: 0)
      cells.base[group].hasBlock = true
    } else if cell.length == 16 << UInt32(cell.capacityClass) {
      let offset = allocate(sizeClass: cell.capacityClass + 1)
      for index in 0..<Int(cell.length) { pool[offset + index] = pool[cell.offset + index] }
      release(cell)
      cells.base[group].offset = offset
      cells.base[group].capacityClass = cell.capacityClass + 1
    }
  }

  /// Counts a bin in a run that reaches at least to it; below the run's base it falls into the lowest bin.
  private mutating func bump(_ bin: Int32, by count: UInt32, in group: Int) {
    let index = max(0, Int(bin) - Int(cells[group].base))
    let (sum, overflow) = pool[cells[group].offset + index].addingReportingOverflow(count)
    pool[cells[group].offset + index] = overflow ? .max : sum
  }

  private mutating func listToRun(_ group: Int, including bin: Int32) {
    let old = cells[group]
    var bins: [Int32] = []
    for index in 0..<Int(old.length) { bins.append(Int32(bitPattern: pool[old.offset + index])) }
    let low = min(bins.min() ?? bin, bin)
    let high = max(bins.max() ?? bin, bin)
    if old.hasBlock { release(old) }
    makeRun(group, low: low, high: high)
    for bin in bins { bump(bin, by: 1, in: group) }
  }

  /// Gives the group a zeroed run that covers `low...high`, with slack, and no more than `runMax` bins below `high`.
  private mutating func makeRun(_ group: Int, low: Int32, high: Int32) {
    let lowest = max(low, high - Self.runMax + 1)
    let wanted = Int(high - lowest) + 1
    var sizeClass: UInt8 = 1
    while 16 << Int(sizeClass) < wanted { sizeClass += 1 }
    let capacity = 16 << Int(sizeClass)
    let offset = allocate(sizeClass: sizeClass)
    for index in 0..<capacity { pool[offset + index] = 0 }
    // Slack on both sides: the next value outside is as likely to be lower as higher.
    let slack = Int32((capacity - wanted) / 2)
    cells.base[group].offset = offset
    cells.base[group].length = UInt32(capacity)
    cells.base[group].base = lowest - slack
    cells.base[group].capacityClass = sizeClass
    cells.base[group].hasBlock = true
  }

  private mutating func widen(_ group: Int, including bin: Int32) {
    let old = cells[group]
    let end = Int(old.length)
    var first = 0
    while first < end, pool[old.offset + first] == 0 { first += 1 }
    var last = end - 1
    while last > first, pool[old.offset + last] == 0 { last -= 1 }
    let low = min(bin, old.base + Int32(first))
    let high = max(bin, old.base + Int32(last))
    // A bin below a full-length run changes nothing: `bump` counts it in the lowest.
    if high - low >= Self.runMax, bin < old.base, end >= Int(Self.runMax) { return }
    makeRun(group, low: low, high: high)
    for index in first...last where pool[old.offset + index] > 0 {
      bump(old.base + Int32(index), by: pool[old.offset + index], in: group)
    }
    release(old)
  }

  private mutating func allocate(sizeClass: UInt8) -> Int {
    if !free.isEmpty, let offset = free[Int(sizeClass)].popLast() { return offset }
    let offset = pool.count
    pool.grow(to: offset + 16 << Int(sizeClass), filling: 0)
    return offset
  }

  private mutating func release(_ cell: Cell) {
    if free.isEmpty { free = Array(repeating: [], count: 10) }
    free[Int(cell.capacityClass)].append(cell.offset)
  }

  mutating func merge(_ other: borrowing BinStore, from source: Int, to target: Int) {
    let theirs = other.cells[source]
    guard theirs.total > 0 else { return }
    if cells[target].total == 0, !cells[target].hasBlock {
      copy(theirs, other.pool.base + theirs.offset, to: target)
      return
    }
    if theirs.base == .min {
      let mine = cells[target]
      if mine.base == .min, mine.length + theirs.length <= Self.listMax {
        append(other.pool.base + theirs.offset, count: theirs.length, to: target)
        return
      }
      for index in 0..<Int(theirs.length) {
        add(Int32(bitPattern: other.pool[theirs.offset + index]), count: 1, to: target)
      }
      return
    }
    if addRun(theirs, other.pool.base + theirs.offset, to: target) { return }
    // The highest bin first, so that a long run is laid out once.
    var index = Int(theirs.length) - 1
    while index >= 0 {
      let count = other.pool[theirs.offset + index]
      if count > 0 { add(theirs.base + Int32(index), count: count, to: target) }
      index -= 1
    }
  }

  /// Adds a run to one that reaches at least as far; false, and nothing done, where it does not.
  private mutating func addRun(_ cell: Cell, _ words: UnsafePointer<UInt32>, to group: Int) -> Bool {
    let mine = cells[group]
    guard mine.base != .min else { return false }
    var first = 0
    var end = Int(cell.length)
    while first < end, words[first] == 0 { first += 1 }
    while end > first, words[end - 1] == 0 { end -= 1 }
    let shift = Int(cell.base) - Int(mine.base)
    guard first + shift >= 0, end + shift <= Int(mine.length) else { return false }
    let counters = pool.base + mine.offset + shift
    for index in first..<end {
      let sum = counters[index] &+ words[index]
      counters[index] = sum < words[index] ? .max : sum
    }
    cells.base[group].total &+= cell.total
    return true
  }

  /// Appends bins to a list that has room for them below `listMax`.
  private mutating func append(_ bins: UnsafePointer<UInt32>, count: UInt32, to group: Int) {
    let cell = cells[group]
    let length = cell.length + count
    if length > 16 << UInt32(cell.capacityClass) {
      var sizeClass = cell.capacityClass
      while length > 16 << UInt32(sizeClass) { sizeClass += 1 }
      let offset = allocate(sizeClass: sizeClass)
      (pool.base + offset).update(from: pool.base + cell.offset, count: Int(cell.length))
      release(cell)
      cells.base[group].offset = offset
      cells.base[group].capacityClass = sizeClass
    }
    (pool.base + cells[group].offset + Int(cell.length)).update(from: bins, count: Int(count))
    cells.base[group].length = length
    cells.base[group].total &+= Int64(count)
  }

  /// Makes an empty group equal to another store's.
  private mutating func copy(_ cell: Cell, _ words: UnsafePointer<UInt32>, to group: Int) {
    let offset = allocate(sizeClass: cell.capacityClass)
    (pool.base + offset).update(from: words, count: Int(cell.length))
    cells[group] = cell
    cells.base[group].offset = offset
  }

  /// The bin that holds the value of a rank from 1 to `total`.
  func bin(atRank rank: Int64, of group: Int) -> Int32 {
    let cell = cells[group]
    if cell.base == .min {
      return withUnsafeTemporaryAllocation(of: Int32.self, capacity: Int(Self.listMax)) { bins in
        let count = Int(cell.length)
        for index in 0..<count { bins.initializeElement(at: index, to: Int32(bitPattern: pool[cell.offset + index])) }
        return Self.select(min(Int(rank), count) - 1, of: bins, count: count)
      }
    }
    var seen: Int64 = 0
    var last: Int32 = cell.base
    for index in 0..<Int(cell.length) {
      let count = pool[cell.offset + index]
      guard count > 0 else { continue }
      seen += Int64(count)
      last = cell.base + Int32(index)
      if seen >= rank { return last }
    }
    return last
  }

  /// The value that would stand at `place` if the first `count` were sorted (Hoare's selection, 1961). Moves them about.
  private static func select(_ place: Int, of bins: UnsafeMutableBufferPointer<Int32>, count: Int) -> Int32 {
    var low = 0
    var high = count - 1
    while low < high {
      let pivot = bins[(low + high) / 2]
      var left = low
      var right = high
      while left <= right {
        while bins[left] < pivot { left += 1 }
        while bins[right] > pivot { right -= 1 }
        if left <= right {
          bins.swapAt(left, right)
          left += 1
          right -= 1
        }
      }
      if place <= right { high = right } else if place >= left { low = left } else { break }
    }
    return bins[place]
  }

  // MARK: Checkpoints

  /// Largest size class: 16 << 8 words hold the longest run.
  private static let classMax: UInt8 = 8

  /// By group its total, the bin of the first counter (`Int32.min` for a list), the size class of a run, and how many
  /// words follow from which on; then those words of all groups. Runs are stored without the zeros at their ends.
  func encode(into writer: StateWriter) {
    let totals = NativeArray<Int64>(repeating: 0, count: cells.count)
    let bases = NativeArray<Int32>(repeating: 0, count: cells.count)
    let classes = NativeArray<UInt8>(repeating: 0, count: cells.count)
    let firsts = NativeArray<UInt16>(repeating: 0, count: cells.count)
    let lengths = NativeArray<UInt16>(repeating: 0, count: cells.count)
    var words = 0
    for group in 0..<cells.count {
      let cell = cells[group]
      let used = usedWords(cell)
      totals[group] = cell.total
      bases[group] = cell.base
      // The block of a list is as large as its length asks for.
      classes[group] = cell.base == .min ? 0 : cell.capacityClass
      firsts[group] = UInt16(used.lowerBound)
      lengths[group] = UInt16(used.count)
      words += used.count
    }
    writer.append(totals)
    writer.append(bases)
    writer.append(classes)
    writer.append(firsts)
    writer.append(lengths)
    writer.append(UInt64(words))
    for group in 0..<cells.count {
      let start = pool.base + cells[group].offset + Int(firsts[group])
      writer.append(raw: UnsafeRawBufferPointer(start: start, count: Int(lengths[group]) * 4))
    }
  }

  /// The words of a list, or the counters of a run from the first that counts to the last.
  private func usedWords(_ cell: Cell) -> Range<Int> {
    guard cell.hasBlock else { return 0..<0 }
    var first = 0
    var end = Int(cell.length)
    if cell.base == .min { return first..<end }
    while first < end, pool[cell.offset + first] == 0 { first += 1 }
    while end > first, pool[cell.offset + end - 1] == 0 { end -= 1 }
    return first..<end
  }

  init(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    let totals = try reader.array(of: Int64.self, groups: groups)
    let bases = try reader.array(of: Int32.self, groups: groups)
    let classes = try reader.array(of: UInt8.self, groups: groups)
    let firsts = try reader.array(of: UInt16.self, groups: groups)
    let lengths = try reader.array(of: UInt16.self, groups: groups)
    let words = try reader.array(of: UInt32.self)
    ensure(groups: groups)
    var position = 0
    for group in 0..<groups {
      let length = Int(lengths[group])
      guard totals[group] >= 0, totals[group] <= storedCountMax, length <= words.count - position,
        (length == 0) == (totals[group] == 0)
      else { throw StateCorruption("a sketch of the state has \(length) words for \(totals[group]) values") }
      guard length > 0 else { continue }
      if bases[group] == .min {
        try restoreList(group, words.base + position, length, total: totals[group])
      } else {
        try restoreRun(
          group, words.base + position, length, first: Int(firsts[group]), base: bases[group], sizeClass: classes[group])
      }
      cells.base[group].total = totals[group]
      position += length
    }
    guard position == words.count else { throw StateCorruption("a sketch of the state has too many words") }
  }

  private mutating func restoreList(
    _ group: Int, _ bins: UnsafePointer<UInt32>, _ length: Int, total: Int64
  ) throws(StateCorruption) {
    guard length <= Int(Self.listMax), total == Int64(length) else {
      throw StateCorruption("a list of \(length) bins stands for \(total) values")
    }
    for index in 0..<length where !SketchMapping.bins.contains(Int32(bitPattern: bins[index])) {
      throw StateCorruption("bin \(Int32(bitPattern: bins[index])) of the state does not exist")
    }
    var sizeClass: UInt8 = 0
    while 16 << Int(sizeClass) < length { sizeClass += 1 }
    let offset = allocate(sizeClass: sizeClass)
    (pool.base + offset).update(from: bins, count: length)
    cells[group] = Cell(
      offset: offset, length: UInt32(length), base: .min, capacityClass: sizeClass, hasBlock: true)
  }

  private mutating func restoreRun(
    _ group: Int, _ counters: UnsafePointer<UInt32>, _ length: Int, first: Int, base: Int32, sizeClass: UInt8
  ) throws(StateCorruption) {
    guard (1...Self.classMax).contains(sizeClass), first + length <= 16 << Int(sizeClass),
      SketchMapping.bins.contains(base), counters[0] > 0, counters[length - 1] > 0
    else { throw StateCorruption("a run of the state does not fit its block") }
    let offset = allocate(sizeClass: sizeClass)
    (pool.base + offset + first).update(from: counters, count: length)
    cells[group] = Cell(
      offset: offset, length: 16 << UInt32(sizeClass), base: base, capacityClass: sizeClass, hasBlock: true)
  }
}
