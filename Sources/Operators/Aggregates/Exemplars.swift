import CColumns
import Catalog
import Runtime

/// `exemplars(x, k)`
enum Exemplars: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "exemplars",
    summary:
      "k different values as JSON, such as trace ids for an alert to name: `[\"4bf92f35\",\"00f067aa\"]`. All of them when they are no more than k, else a sample to which each belongs with the same chance, the same in every run.",
    takesValue: true, constants: ["k"],
    signature: { type in
      switch type {
      case nil: .mismatch("needs a value, such as `trace_id`")
      case .string: .result(.string)
      case let other?: .mismatch("takes a string, not a \(other.rawValue)")
      }
    },
    validateConstant: { _, value in
      guard case .int(let k) = value else { return "must be a whole number, such as 5" }
      return ExemplarsState.sizes.contains(Int(clamping: k)) ? nil : "must lie between 1 and 20"
    }, mayBeNull: false, state: "24 bytes and the text for each of k values a key",
    example: "exemplars(trace_id, 5)")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    var size = 5
    if case .int(let given)? = constants.first { size = Int(clamping: given) }
    return ExemplarsState(size: min(max(size, ExemplarsState.sizes.lowerBound), ExemplarsState.sizes.upperBound))
  }
}

/// The k values with the least hashes, by group: a uniform sample of the different values, which does not depend on their order
/// and merges without loss (bottom-k sketch; Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).
final class ExemplarsState: AggregateState {
  static let sizes = 1...20
  /// Of a longer text only so many bytes are kept.
  private static let textBytesMax = 256

  private let size: Int
  /// By group, how many there are.
  private var counts = NativeArray<UInt8>()
  /// `size` a group, ascending.
  private var hashes = NativeArray<UInt64>()
  private var texts = NativeArray<rd_string>()
  private var arena = ByteArena()
  /// Bytes of texts that are among the exemplars; the rest of the arena is waste.
  private var liveBytes = 0
  /// What `finish` wrote since rows last came: columns at hand point into it.
  private var written = ByteArena()

  init(size: Int) { self.size = size }

  override func ensure(groups count: Int) {
    counts.grow(to: count, filling: 0)
    hashes.grow(to: count * size, filling: 0)
    texts.grow(to: count * size, filling: rd_string())
  }

  override var bytes: Int { counts.count + hashes.count * 24 + arena.bytes + written.bytes }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    if written.bytes > 0 { written = ByteArena() }
    forEachPresent(column, rows, groups, count) { row, group in
      let text = Self.cut(column.strings[row])
      add(rd_hash64(text.data ?? UnsafePointer(ByteClass.nothing), text.length), text, to: group)
    }
  }

  /// The first bytes of a long text, whole characters.
  private static func cut(_ text: rd_string) -> rd_string {
    guard text.length > textBytesMax, let data = text.data else { return text }
    var end = textBytesMax
    while end > 0, data[end] & 0xC0 == 0x80 { end -= 1 }
    return rd_string(data: text.data, length: UInt32(end), hash: 0)
  }

  @inline(__always)
  private func add(_ hash: UInt64, _ text: rd_string, to group: Int) {
    let count = Int(counts[group])
    let first = group * size
    // Most values of a large group come after all of its exemplars.
    if count == size, hash >= hashes[first + count - 1] { return }
    insert(hash, text, group, count, first)
  }

  private func insert(_ hash: UInt64, _ text: rd_string, _ group: Int, _ count: Int, _ first: Int) {
    var place = 0
    while place < count, hashes[first + place] < hash { place += 1 }
    if place < count, hashes[first + place] == hash { return }
    var last = count
    if count == size {
      last -= 1
      liveBytes -= Int(texts[first + last].length)
    } else {
      counts[group] = UInt8(count + 1)
    }
    while last > place {
      hashes[first + last] = hashes[first + last - 1]
      texts[first + last] = texts[first + last - 1]
      last -= 1
    }
    hashes[first + place] = hash
    texts[first + place] = rd_string(
      data: arena.copy(text.data, Int(text.length)), length: text.length, hash: 0)
    liveBytes += Int(text.length)
    if arena.bytes > 1 << 20, arena.bytes > 4 * max(liveBytes, 1) { compact() }
  }

  private func compact() {
    var fresh = ByteArena()
    for group in 0..<counts.count {
      for place in group * size..<group * size + Int(counts[group]) {
        texts[place] = rd_string(
          data: fresh.copy(texts[place].data, Int(texts[place].length)), length: texts[place].length, hash: 0)
      }
    }
    arena = fresh
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: ExemplarsState.self)
    if written.bytes > 0 { written = ByteArena() }
    for index in 0..<count {
      let source = Int(sources[index])
      for place in source * size..<source * size + Int(other.counts[source]) {
        add(other.hashes[place], other.texts[place], to: Int(targets[index]))
      }
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    var line: [UInt8] = []
    for row in 0..<count {
      let group = Int(groups[row])
      line.removeAll(keepingCapacity: true)
      line.append(UInt8(ascii: "["))
      for place in group * size..<group * size + Int(counts[group]) {
        if line.count > 1 { line.append(UInt8(ascii: ",")) }
        line.append(jsonString: texts[place])
      }
      line.append(UInt8(ascii: "]"))
      let data = line.withUnsafeBufferPointer { written.copy($0.baseAddress, $0.count) }
      column.strings[row] = rd_string(data: data, length: UInt32(truncatingIfNeeded: line.count), hash: 0)
    }
  }

  // MARK: Checkpoints

  override var kind: UInt8 { 60 }

  override func copy() -> AggregateState {
    let copy = ExemplarsState(size: size)
    copy.counts = NativeArray(copying: counts)
    copy.hashes = NativeArray(copying: hashes)
    copy.texts = NativeArray(copying: texts)
    copy.arena = ByteArena(sharing: arena)
    copy.liveBytes = liveBytes
    return copy
  }

  /// How many each group has, then the texts of all; hashes are made anew.
  override func encode(into writer: StateWriter) {
    writer.append(UInt8(size))
    writer.append(counts)
    var all = NativeArray<rd_string>()
    for group in 0..<counts.count {
      for place in group * size..<group * size + Int(counts[group]) { all.append(texts[place]) }
    }
    encodeTexts(count: all.count, into: writer) { all[$0] }
  }

  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    guard Int(try reader.integer(UInt8.self)) == size else {
      throw StateCorruption("exemplars of the state are of another number")
    }
    let stored = try reader.array(of: UInt8.self, groups: groups)
    var total = 0
    for group in 0..<groups {
      guard Int(stored[group]) <= size else { throw StateCorruption("a key of the state has \(stored[group]) exemplars") }
      total += Int(stored[group])
    }
    var source = ByteArena()
    let all = try reader.texts(count: total, into: &source)
    ensure(groups: groups)
    var place = 0
    for group in 0..<groups {
      for _ in 0..<Int(stored[group]) {
        let text = all[place]
        add(rd_hash64(text.data ?? UnsafePointer(ByteClass.nothing), text.length), text, to: group)
        place += 1
      }
    }
  }
}
