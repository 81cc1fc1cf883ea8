import Catalog
import Runtime

/// What an SLO keeps at a barrier: keys, steps and stretches. Not the objective, the burn windows or the period, which may have
/// changed when it is read; sums are made anew.
extension SloTask: StatefulTask {
  var operatorID: String { definition.operatorID }

  func capture() -> (any StateCapture)? { history.table.count == 0 ? nil : SloCapture(history) }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: SloCapture.version, of: "an slo")
    let stored = try StoredSlo(keyTypes: definition.keyTypes, from: &reader)
    guard reader.isAtEnd else { throw StateCorruption("the slo of the state has bytes behind it") }
    // Steps of another length would lie across the windows' ends.
    guard stored.stepNanos == definition.stepNanos else { return }
    var places = [Int](repeating: -1, count: stored.table.count)
    for group in 0..<stored.table.count where scope.owns(stored.table.hash(of: group)) {
      places[group] = history.table.assign(group: group, of: stored.table)
    }
    history.restore(stored, places: places)
  }
}

/// The state of an SLO's shard at a barrier: panes are shared, the rest is copied.
private final class SloCapture: StateCapture, @unchecked Sendable {
  // @unchecked: nothing of it changes any more.
  static let version: UInt16 = 1
  private let table: GroupTable
  private let stepNanos: Int64
  private let evaluated: Int64?
  private let fine: ArraySlice<SloPane>
  private let coarse: [SloPane]
  private let coarseLength: Int64
  private let openEnd: Int64?
  private let open: NativeArray<Int64>
  private let calendarBounds: Range<Int64>?
  private let calendar: NativeArray<Int64>
  private let firstSeen: NativeArray<Int64>

  var keyCount: Int { table.count }

  init(_ history: SloHistory) {
    table = GroupTable(copying: history.table)
    stepNanos = history.stepNanos
    evaluated = history.evaluated
    fine = history.fine[history.fineFirst...]
    coarse = history.coarse
    if case .coarse(_, let length) = history.budget { coarseLength = length } else { coarseLength = 0 }
    openEnd = history.openEnd
    open = NativeArray(copying: history.open)
    calendarBounds = history.calendarBounds
    calendar = calendarBounds == nil ? NativeArray() : NativeArray(copying: history.budgetSums)
    firstSeen = NativeArray(copying: history.firstSeen)
  }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    table.encode(into: writer)
    writer.append(stepNanos)
    writer.append(evaluated ?? beforeAllTime)
    writer.append(firstSeen)
    writer.append(UInt32(fine.count))
    for pane in fine { pane.encode(into: writer) }
    writer.append(coarseLength)
    writer.append(UInt32(coarse.count))
    for pane in coarse { pane.encode(into: writer) }
    writer.append(openEnd ?? beforeAllTime)
    writer.append(SloHistory.bytes(of: open))
    writer.append(calendarBounds?.lowerBound ?? beforeAllTime)
    writer.append(calendarBounds?.upperBound ?? beforeAllTime)
    writer.append(SloHistory.bytes(of: calendar))
  }
}

/// An SLO's stored state, with the group ids of its own table.
struct StoredSlo {
  var table: GroupTable
  var stepNanos: Int64
  /// The last evaluation.
  var evaluated: Int64?
  var firstSeen: [Int64]
  var fine: [SloPane] = []
  /// 0 where there were no coarse stretches.
  var coarseLength: Int64
  var coarse: [SloPane] = []
  var openEnd: Int64?
  var open: [UInt8]
  var calendarBounds: Range<Int64>?
  var calendar: [UInt8]

  init(keyTypes: [PhysicalType], from reader: inout StateReader) throws(StateCorruption) {
    table = try GroupTable(keyTypes: keyTypes, from: &reader)
    stepNanos = try reader.nanos()
    evaluated = try Self.time(from: &reader)
    let seen = try reader.array(of: Int64.self)
    guard seen.count == table.count else {
      throw StateCorruption("the state has \(seen.count) times for \(table.count) keys")
    }
    firstSeen = (0..<seen.count).map { seen[$0] }
    for time in firstSeen where !storedTimes.contains(time) {
      throw StateCorruption("a key of the state was first seen at no time")
    }
    fine = try Self.panes(groups: table.count, from: &reader)
    coarseLength = try reader.integer(Int64.self)
    guard coarseLength == 0 || (coarseLength > 0 && coarseLength <= Seam.paneNanosMax) else {
      throw StateCorruption("a stretch of the state is \(coarseLength) ns long")
    }
    coarse = try Self.panes(groups: table.count, from: &reader)
    openEnd = try Self.time(from: &reader)
    open = try Self.counts(groups: table.count, from: &reader)
    let from = try Self.time(from: &reader)
    let to = try Self.time(from: &reader)
    if let from, let to {
      guard from < to else { throw StateCorruption("a period of the state ends before it begins") }
      calendarBounds = from..<to
    }
    calendar = try Self.counts(groups: table.count, from: &reader)
  }

  private static func time(from reader: inout StateReader) throws(StateCorruption) -> Int64? {
    let time = try reader.anyTime()
    if time == beforeAllTime { return nil }
    guard storedTimes.contains(time) else { throw StateCorruption("an evaluation of the state is at no time") }
    return time
  }

  private static func panes(groups: Int, from reader: inout StateReader) throws(StateCorruption) -> [SloPane] {
    let count = Int(try reader.integer(UInt32.self))
    guard count <= reader.left / 24 else { throw StateCorruption("the state names \(count) steps with \(reader.left) bytes left") }
    var panes: [SloPane] = []
    for _ in 0..<count {
      let end = try reader.time()
      let length = try reader.nanos()
      if let last = panes.last, last.end >= end { throw StateCorruption("the steps of the state are out of order") }
      panes.append(SloPane(end: end, length: length, bytes: try counts(groups: groups, from: &reader)))
    }
    return panes
  }

  private static func counts(groups: Int, from reader: inout StateReader) throws(StateCorruption) -> [UInt8] {
    let bytes = try reader.counted()
    guard SloPane.isValid(bytes, groups: groups) else { throw StateCorruption("a step of the state is damaged") }
    return bytes
  }
}

extension SloPane {
  func encode(into writer: StateWriter) {
    writer.append(end)
    writer.append(length)
    writer.append(bytes)
  }

  /// The same for groups of another table; -1 for those that are left out. New places may come in any order.
  func moved(to places: [Int]) -> SloPane {
    var entries: [(group: Int, total: Int64, bad: Int64)] = []
    forEach { if places[$0] >= 0 { entries.append((places[$0], $1, $2)) } }
    entries.sort { $0.group < $1.group }
    var writer = Writer()
    for entry in entries { writer.add(entry.group, total: entry.total, bad: entry.bad) }
    return SloPane(end: end, length: length, bytes: writer.bytes)
  }

  /// Two lists in order of their ends as one; panes of one end and length are put together.
  static func merged(_ a: [SloPane], _ b: [SloPane]) -> [SloPane] {
    if a.isEmpty { return b }
    var result: [SloPane] = []
    for pane in (a + b).sorted(by: { ($0.end, $0.length) < ($1.end, $1.length) }) {
      guard let last = result.last, last.end == pane.end, last.length == pane.length else {
        result.append(pane)
        continue
      }
      var entries: [(group: Int, total: Int64, bad: Int64)] = []
      last.forEach { entries.append(($0, $1, $2)) }
      pane.forEach { entries.append(($0, $1, $2)) }
      entries.sort { $0.group < $1.group }
      var writer = Writer()
      var added = -1
      // Only damaged state has a key in two parts.
      for entry in entries where entry.group > added {
        writer.add(entry.group, total: entry.total, bad: entry.bad)
        added = entry.group
      }
      result[result.count - 1] = SloPane(end: pane.end, length: pane.length, bytes: writer.bytes)
    }
    return result
  }
}
