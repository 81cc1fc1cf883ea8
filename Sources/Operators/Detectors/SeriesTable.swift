import CColumns
import Catalog
import Runtime

/// What is kept of each series: a row of doubles by key, in pieces that captures share and that are copied before they are
/// written to while a capture reads them.
///
/// A series is forgotten when it has had no row for a while. Time is cut into eighths of that while (epochs), and at the first
/// row of an epoch all series are dropped whose last row lies more than eight epochs back: so what is there when a row comes
/// depends on the rows of its key group alone, never on workers or batches. The same holds for the limit of series: each of
/// the 256 key groups has its share.
final class SeriesTable {
  /// Series in a piece: few, since a thousand rules of three series each have a piece each.
  private static let pieceShift = 4
  private static let pieceSeries = 1 << pieceShift
  static let epochsKept: Int64 = 8
  /// Words in front of a detector's own: time of the last row, hash by which the series has its shard.
  static let headerWords = 2

  final class Piece {
    let words: UnsafeMutablePointer<Double>
    let count: Int
    init(words count: Int) {
      self.count = count
      words = .allocate(capacity: count)
      words.initialize(repeating: 0, count: count)
    }
    convenience init(copying other: Piece) {
      self.init(words: other.count)
      words.update(from: other.words, count: count)
    }
    deinit { words.deallocate() }
  }

  let stride: Int
  let epochNanos: Int64
  /// Most series of a key group.
  let groupMax: Int32
  private(set) var table: GroupTable
  private(set) var pieces: ContiguousArray<Piece> = []
  /// Where each piece's words begin: read once a row, without counting references.
  private var bases = NativeArray<UnsafeMutablePointer<Double>>()
  private var isShared: ContiguousArray<Bool> = []
  private var hasShared = false
  private var isTableShared = false
  private let holds = CaptureHolds()
  /// Series by key group, and the largest of these numbers.
  private var counts = ContiguousArray<Int32>(repeating: 0, count: KeyGroup.count)
  private var largestCount: Int32 = 0
  private(set) var epoch = Int64.min
  private var keys = KeyColumns()
  private let keySlots: [Int]
  private let ownerSlots: [Int]
  private let hashes: UnsafeMutablePointer<UInt64>
  private let owners: UnsafeMutablePointer<UInt64>
  private let groups: UnsafeMutablePointer<Int32>
  private let kept: UnsafeMutablePointer<Int32>
  /// Rows whose series found no place any more.
  private(set) var rowsOverLimit = 0

  init(
    keyTypes: [PhysicalType], keySlots: [Int], ownerSlots: [Int], words: Int, seriesMax: Int, forgetNanos: Int64,
    batchRows: Int
  ) {
    stride = words + Self.headerWords
    epochNanos = max(1, forgetNanos / Self.epochsKept)
    // A quarter more than an even share, since hashes are not even.
    groupMax = Int32(clamping: (seriesMax + seriesMax / 4) / KeyGroup.count + 1)
    table = GroupTable(keyTypes: keyTypes)
    self.keySlots = keySlots
    self.ownerSlots = ownerSlots
    hashes = .allocate(capacity: batchRows)
    hashes.initialize(repeating: 0, count: batchRows)
    owners = .allocate(capacity: batchRows)
    owners.initialize(repeating: 0, count: batchRows)
    groups = .allocate(capacity: batchRows)
    groups.initialize(repeating: 0, count: batchRows)
    kept = .allocate(capacity: batchRows)
    kept.initialize(repeating: 0, count: batchRows)
  }

  deinit {
    hashes.deallocate()
    owners.deallocate()
    groups.deallocate()
    kept.deallocate()
  }

  var count: Int { table.count }
  var bytes: Int { table.bytes + pieces.count * (Self.pieceSeries * stride * 8 + 64) }

  /// The words of a series, header first. Good until the next `find`.
  @inline(__always) func words(_ group: Int) -> UnsafeMutablePointer<Double> {
    bases[group >> Self.pieceShift] + (group & (Self.pieceSeries - 1)) * stride
  }

  @inline(__always) static func time(_ words: UnsafePointer<Double>) -> Int64 { Int64(bitPattern: words[0].bitPattern) }
  @inline(__always) static func setTime(_ words: UnsafeMutablePointer<Double>, _ time: Int64) {
    words[0] = Double(bitPattern: UInt64(bitPattern: time))
  }
  @inline(__always) static func owner(_ words: UnsafePointer<Double>) -> UInt64 { words[1].bitPattern }

  // MARK: Rows

  /// How many rows of the selection from `start` on lie in one epoch; drops what is due when a new one begins.
  func enterEpoch(_ batch: Batch, _ selection: Selection, from start: Int) -> Int {
    let first = batch.times[Int(selection.rows[start])]
    enterEpoch(at: first)
    let last = batch.times[Int(selection.rows[selection.count - 1])]
    if floorDivide(last, epochNanos) == epoch { return selection.count - start }
    var count = 1
    while start + count < selection.count,
      floorDivide(batch.times[Int(selection.rows[start + count])], epochNanos) == epoch
    {
      count += 1
    }
    return count
  }

  func enterEpoch(at time: Int64) {
    let now = floorDivide(time, epochNanos)
    guard now > epoch else { return }
    epoch = now
    dropExpired()
  }

  func isExpired(_ words: UnsafePointer<Double>) -> Bool {
    epoch - floorDivide(Self.time(words), epochNanos) > Self.epochsKept
  }

  /// The series of each row, made where it is new, notes that it was seen, and that nobody else reads it. Nil where there are
  /// too many.
  func find(
    _ batch: Batch, _ rows: UnsafePointer<Int32>, count: Int,
    into states: UnsafeMutablePointer<UnsafeMutablePointer<Double>?>
  ) {
    if isTableShared {
      if holds.isHeld { table = GroupTable(copying: table) }
      isTableShared = false
    }
    keys.bind(batch, slots: keySlots)
    keys.hashRows(rows, count: count, into: hashes)
    let before = table.count
    if Int(largestCount) + count <= Int(groupMax) {
      table.assign(keys, rows: rows, hashes: hashes, count: count, groups: groups)
      if table.count > before { place(batch, rows, count, from: before) }
    } else {
      findWithinLimit(batch, rows, count)
    }
    for index in 0..<count {
      let group = Int(groups[index])
      guard group >= 0 else {
        states[index] = nil
        rowsOverLimit += 1
        continue
      }
      if hasShared { own(group >> Self.pieceShift) }
      let words = words(group)
      Self.setTime(words, batch.times[Int(rows[index])])
      states[index] = words + Self.headerWords
    }
  }

  /// Gives series that are new their words.
  private func place(_ batch: Batch, _ rows: UnsafePointer<Int32>, _ count: Int, from before: Int) {
    hashOwners(batch, rows, count)
    var next = before
    for index in 0..<count where Int(groups[index]) == next {
      add(owner: owners[index])
      next += 1
    }
    assert(next == table.count)
  }

  private func hashOwners(_ batch: Batch, _ rows: UnsafePointer<Int32>, _ count: Int) {
    keys.bind(batch, slots: ownerSlots)
    keys.hashRows(rows, count: count, into: owners)
  }

  /// Row by row, since some key group may be full.
  private func findWithinLimit(_ batch: Batch, _ rows: UnsafePointer<Int32>, _ count: Int) {
    hashOwners(batch, rows, count)
    keys.bind(batch, slots: keySlots)
    for index in 0..<count {
      let isFull = counts[KeyGroup.of(owners[index])] >= groupMax
      let known = table.count
      let found = table.assign(
        keys, rows: rows + index, hashes: hashes + index, count: 1, groups: groups + index,
        limit: isFull ? max(known, 1) : known + 1, kept: kept)
      if found == 0 { groups[index] = -1 }
      if table.count > known { add(owner: owners[index]) }
    }
  }

  /// Words for the next series of the table.
  private func add(owner: UInt64) {
    let group = Int(pieceFill)
    if group >> Self.pieceShift == pieces.count {
      let piece = Piece(words: Self.pieceSeries * stride)
      pieces.append(piece)
      bases.append(piece.words)
      isShared.append(false)
    }
    if hasShared { own(group >> Self.pieceShift) }
    let place = words(group)
    place.update(repeating: 0, count: stride)
    place[1] = Double(bitPattern: owner)
    pieceFill += 1
    let number = KeyGroup.of(owner)
    counts[number] += 1
    largestCount = max(largestCount, counts[number])
  }
  private var pieceFill = 0

  /// Makes a piece this table's alone.
  private func own(_ piece: Int) {
    guard isShared[piece] else { return }
    if holds.isHeld {
      pieces[piece] = Piece(copying: pieces[piece])
      bases[piece] = pieces[piece].words
    }
    isShared[piece] = false
  }

  /// Words to write to, outside `find`.
  func ownedWords(_ group: Int) -> UnsafeMutablePointer<Double> {
    if hasShared { own(group >> Self.pieceShift) }
    return words(group)
  }

  private func dropExpired() {
    guard (0..<count).contains(where: { isExpired(words($0)) }) else { return }
    keep { !self.isExpired(self.words($0)) }
  }

  /// Leaves the series for which `isKept`, under new numbers in their old order.
  func keep(_ isKept: (Int) -> Bool) {
    let groups = (0..<count).filter(isKept)
    let old = table
    let oldPieces = pieces
    table = GroupTable(keyTypes: old.keyTypes)
    isTableShared = false
    forgetAll()
    for group in groups {
      append(
        group: group, of: old,
        words: oldPieces[group >> Self.pieceShift].words + (group & (Self.pieceSeries - 1)) * stride)
    }
  }

  private func forgetAll() {
    pieces = []
    bases.removeAll()
    isShared = []
    hasShared = false
    pieceFill = 0
    for index in counts.indices { counts[index] = 0 }
    largestCount = 0
  }

  private func append(group: Int, of other: GroupTable, words source: UnsafePointer<Double>) {
    let place = table.assign(group: group, of: other)
    assert(place == pieceFill)
    add(owner: Self.owner(source))
    words(place).update(from: source, count: stride)
  }

  // MARK: State

  /// Series as they are now; a later change goes to copies.
  func capture(_ version: UInt16, fingerprint: UInt64) -> SeriesCapture? {
    guard count > 0 else { return nil }
    for index in isShared.indices { isShared[index] = true }
    hasShared = !isShared.isEmpty
    isTableShared = true
    return SeriesCapture(
      version: version, fingerprint: fingerprint, table: table, pieces: Array(pieces), stride: stride,
      pieceSeries: Self.pieceSeries, epoch: epoch, hold: CaptureHold(holds))
  }

  func restore(
    from reader: inout StateReader, version: UInt16, fingerprint: UInt64, scope: KeyScope
  ) throws(StateCorruption) {
    try reader.expect(version: version, of: "series")
    guard try reader.integer(UInt64.self) == fingerprint else {
      throw StateCorruption("the state of a detector was made with other options")
    }
    let storedEpoch = try reader.integer(Int64.self)
    guard storedEpoch == .min || storedEpoch.magnitude < 1 << 62 else {
      throw StateCorruption("the series of the state are of no time")
    }
    let stored = try GroupTable(keyTypes: table.keyTypes, from: &reader)
    let width = Int(try reader.integer(UInt32.self))
    guard width == stride else { throw StateCorruption("a series of the state has \(width) words where \(stride) are expected") }
    let words: NativeArray<Double> = try reader.array(of: Double.self)
    guard words.count == stored.count * stride else {
      throw StateCorruption("the state has \(words.count) words for \(stored.count) series")
    }
    for group in 0..<stored.count {
      let source = words.base + group * stride
      guard storedTimes.contains(Self.time(source)) else { throw StateCorruption("a series of the state is of no time") }
      guard scope.owns(Self.owner(source)) else { continue }
      let known = table.count
      guard table.assign(group: group, of: stored) == known else {
        throw StateCorruption("two parts of the state hold one series")
      }
      add(owner: Self.owner(source))
      self.words(known).update(from: source, count: stride)
    }
    epoch = max(epoch, storedEpoch)
  }
}

struct SeriesCapture: StateCapture, @unchecked Sendable {
  // @unchecked: neither table nor pieces are changed while the hold is not released.
  let version: UInt16
  let fingerprint: UInt64
  let table: GroupTable
  let pieces: [SeriesTable.Piece]
  let stride: Int
  let pieceSeries: Int
  let epoch: Int64
  let hold: CaptureHold

  var keyCount: Int { table.count }

  func encode(into writer: StateWriter) {
    writer.append(version)
    writer.append(fingerprint)
    writer.append(epoch)
    table.encode(into: writer)
    writer.append(UInt32(stride))
    writer.append(UInt64(table.count * stride))
    var left = table.count
    for piece in pieces where left > 0 {
      let count = min(left, pieceSeries)
      writer.append(raw: UnsafeRawBufferPointer(start: piece.words, count: count * stride * 8))
      left -= count
    }
    hold.release()
  }
}

/// Rounds down, also before the epoch of time.
@inline(__always) func floorDivide(_ value: Int64, _ divisor: Int64) -> Int64 {
  let quotient = value / divisor
  return value % divisor < 0 ? quotient - 1 : quotient
}
