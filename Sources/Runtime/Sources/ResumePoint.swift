/// What is committed with a partition's offset, so that a restart goes on exactly where the outputs stopped
/// although no state was saved: rows from the offset on rebuild the open windows and active alerts.
public struct ResumePoint: Sendable, Hashable {
  /// Windows that start before this time are done; rows before it may be missing behind the offset.
  public var neededSince: Int64
  /// Everything up to this time has been written.
  public var emittedThrough: Int64
  /// Late rows and dead letters before this offset have been written.
  public var readThrough: Int64
  /// The partition's watermark in front of the committed offset: it decides again who was late.
  public var watermark: Int64
  /// Where the clock, and not a row, decided who was late behind the offset.
  public var raises: [WatermarkRaise]

  /// As `emittedThrough`, for the flows of joins that the source's rows come into, by the flow's name.
  public var gathered: [String: Int64]

  /// The checkpoint that the committed offset belongs to: what follows goes on from its state. Without one state is
  /// rebuilt by reading again from the committed offset.
  public var checkpoint: String?
  /// With a checkpoint: where to read again from, should it be lost.
  public var rereadOffset: Int64?

  public init(
    neededSince: Int64, emittedThrough: Int64, readThrough: Int64, watermark: Int64,
    raises: [WatermarkRaise] = [], gathered: [String: Int64] = [:], checkpoint: String? = nil,
    rereadOffset: Int64? = nil
  ) {
    self.gathered = gathered
    self.neededSince = neededSince
    self.emittedThrough = emittedThrough
    self.readThrough = readThrough
    self.watermark = watermark
    self.raises = raises
    self.checkpoint = checkpoint
    self.rereadOffset = rereadOffset
  }

  /// Where a flow that several sources come into goes on; nil where none of them was committed. A flow that no commit knows
  /// is new, and begins where its sources' own records end.
  init?(ofFlow name: String, sources points: [ResumePoint]) {
    guard let first = points.first else { return nil }
    self = first
    neededSince = points.map(\.neededSince).max() ?? neededSince
    emittedThrough = points.compactMap { $0.gathered[name] }.max() ?? points.map(\.emittedThrough).max() ?? emittedThrough
  }

  /// Most flows of joins that a commit's metadata has room for.
  public static let gatheredMax = 64
  /// Longest metadata that Kafka takes by default.
  private static let metadataBytesMax = 4_096

  /// The text for the offset's metadata, at most 4 KiB: `rulesd1` and the numbers, or `rulesd2` with a checkpoint
  /// and the offset to read again from in front of them; then `name=time` for each flow, and `offset:time` for each raise,
  /// the latest that there is room for.
  public var metadata: String {
    var text = "rulesd1"
    if let checkpoint { text = "rulesd2 \(checkpoint) \(rereadOffset ?? -1)" }
    text += " \(neededSince) \(emittedThrough) \(readThrough) \(watermark)"
    for (name, time) in gathered.sorted(by: { $0.key < $1.key }).prefix(Self.gatheredMax) { text += " \(name)=\(time)" }
    var kept: [String] = []
    var bytes = text.utf8.count
    for raise in raises.suffix(WatermarkRaises.countMax).reversed() {
      let part = " \(raise.offset):\(raise.watermark)"
      bytes += part.utf8.count
      if bytes > Self.metadataBytesMax { break }
      kept.append(part)
    }
    return text + kept.reversed().joined()
  }

  /// Reads metadata; nil for a text that this program did not write.
  public init?(metadata: String) {
    var parts = metadata.split(separator: " ")[...]
    var checkpoint: String?
    var reread: Int64?
    switch parts.popFirst() {
    case "rulesd1": break
    case "rulesd2":
      guard let name = parts.popFirst(), let offset = parts.popFirst().flatMap({ Int64($0) }) else { return nil }
      checkpoint = String(name)
      reread = offset >= 0 ? offset : nil
    default: return nil
    }
    let numbers = parts.prefix(4).compactMap { Int64($0) }
    guard numbers.count == 4 else { return nil }
    var raises: [WatermarkRaise] = []
    var gathered: [String: Int64] = [:]
    for part in parts.dropFirst(4) {
      if let equal = part.firstIndex(of: "=") {
        guard let time = Int64(part[part.index(after: equal)...]) else { return nil }
        gathered[String(part[..<equal])] = time
        continue
      }
      let pair = part.split(separator: ":").compactMap { Int64($0) }
      guard pair.count == 2 else { return nil }
      raises.append(WatermarkRaise(offset: pair[0], watermark: pair[1]))
    }
    self.init(
      neededSince: numbers[0], emittedThrough: numbers[1], readThrough: numbers[2],
      watermark: numbers[3], raises: raises, gathered: gathered, checkpoint: checkpoint, rereadOffset: reread)
  }
}

/// The clock lifted an idle partition's watermark before the row at an offset, and made that row late.
public struct WatermarkRaise: Sendable, Hashable {
  public var offset: Int64
  public var watermark: Int64
  public init(offset: Int64, watermark: Int64) {
    self.offset = offset
    self.watermark = watermark
  }
}

/// What the clock decided in one partition. Rows that are read again must find the same decisions, so these
/// are committed; only those count that made a row late, since all others leave no trace.
struct WatermarkRaises {
  /// So many fit into an offset's metadata; beyond that the oldest are forgotten, and their late rows count
  /// after a restart.
  static let countMax = 80

  private(set) var all: [WatermarkRaise]
  /// The first that rows read again have not come to.
  private var next = 0
  /// What the clock set the watermark to last, until a row has been late because of it.
  private var pending = beforeAllTime

  init(resumed: [WatermarkRaise]) { all = resumed }

  var hasResumed: Bool { next < all.count }

  /// The watermark before the row at an offset, as far as the clock set it in an earlier life.
  mutating func resumed(before offset: Int64) -> Int64 {
    var watermark = beforeAllTime
    while next < all.count, all[next].offset <= offset {
      watermark = max(watermark, all[next].watermark)
      next += 1
    }
    return watermark
  }

  mutating func clockSet(_ watermark: Int64) { pending = watermark }

  /// A row was late against this watermark.
  mutating func noteLate(offset: Int64, watermark: Int64) {
    guard watermark == pending, watermark > beforeAllTime, next == all.count else { return }
    pending = beforeAllTime
    all.append(WatermarkRaise(offset: offset, watermark: watermark))
    if all.count > Self.countMax { all.removeFirst() }
    next = all.count
  }

  func encode(into writer: StateWriter) {
    writer.append(pending)
    writer.append(UInt64(all.count))
    for raise in all {
      writer.append(raise.offset)
      writer.append(raise.watermark)
    }
  }

  /// Adds what had been decided before `position` to what was committed later.
  mutating func restore(from reader: inout StateReader, position: Int64) throws {
    pending = try reader.integer()
    var before: [WatermarkRaise] = []
    for _ in 0..<(try reader.count(bytesEach: 16)) {
      before.append(WatermarkRaise(offset: try reader.integer(), watermark: try reader.integer()))
    }
    let behind = all.filter { $0.offset >= position }
    all = before.filter { $0.offset < position } + behind
    next = all.count - behind.count
  }

  /// Forgets what only concerns rows before a committed time.
  mutating func forget(before time: Int64) {
    let waiting = all.count - next
    let kept = all.suffix(waiting)
    all = all.prefix(next).filter { $0.watermark > time }
    next = all.count
    all += kept
  }
}

/// From event time to offset for one partition: where reading must start again to see every row since a time.
struct OffsetIndex {
  /// One entry a minute of event time: the first offset with a row in it, and the watermark before that row.
  static let stepNanos: Int64 = 60_000_000_000

  private struct Entry {
    var start: Int64
    var offset: Int64
    var watermark: Int64
  }
  /// Ascending by `start`.
  private var entries: [Entry] = []
  private var last = beforeAllTime

  /// Notes a row. Offsets come in ascending order, so only the first row of a minute matters.
  @inline(__always)
  mutating func note(time: Int64, offset: Int64, watermark: Int64) {
    if time >= last, time < last &+ Self.stepNanos, last != beforeAllTime { return }
    let start = floorToMultiple(time, of: Self.stepNanos)
    last = start
    var place = entries.count
    while place > 0, entries[place - 1].start > start { place -= 1 }
    if place > 0, entries[place - 1].start == start { return }
    entries.insert(Entry(start: start, offset: offset, watermark: watermark), at: place)
  }

  /// The first offset at or behind which all rows since `time` lie; nil when none has been seen.
  func resume(since time: Int64) -> (offset: Int64, watermark: Int64)? {
    var best: Entry?
    for entry in entries.reversed() {
      if entry.start + Self.stepNanos <= time { break }
      if best == nil || entry.offset < best!.offset { best = entry }
    }
    return best.map { ($0.offset, $0.watermark) }
  }

  func encode(into writer: StateWriter) {
    writer.append(UInt64(entries.count))
    for entry in entries {
      writer.append(entry.start)
      writer.append(entry.offset)
      writer.append(entry.watermark)
    }
  }

  mutating func restore(from reader: inout StateReader) throws {
    entries = []
    last = beforeAllTime
    for _ in 0..<(try reader.count(bytesEach: 24)) {
      let entry = Entry(start: try reader.integer(), offset: try reader.integer(), watermark: try reader.integer())
      if let before = entries.last, before.start >= entry.start {
        throw StateCorruption("the minutes of an offset index are not in order")
      }
      entries.append(entry)
    }
  }

  /// Forgets minutes before a committed time.
  mutating func forget(before time: Int64) {
    entries.removeAll { $0.start + Self.stepNanos <= time }
  }
}
