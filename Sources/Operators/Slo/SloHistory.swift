import Catalog
import Runtime

/// What an SLO keeps for its objective's period.
public enum SloBudget: Sendable, Hashable {
  /// The steps of the burn windows reach as far back.
  case burnWindows
  /// Stretches of `length` of the last `nanos`. What is counted reaches back up to one stretch further.
  case coarse(nanos: Int64, length: Int64)
  /// Two sums since the period began.
  case calendar(SloCalendar)

  /// Most coarse stretches in a period, but for the rounding up to whole hours.
  static let stretchesMax: Int64 = 720
  private static let hourNanos: Int64 = 3_600_000_000_000

  public init(of period: SloPeriod, burnWindows: [Int64], stepNanos: Int64) {
    switch period {
    case .calendar(let calendar): self = .calendar(calendar)
    case .rolling(let nanos):
      if nanos <= burnWindows.last ?? 0 {
        self = .burnWindows
      } else {
        let hours = max(1, (nanos / Self.stretchesMax + Self.hourNanos - 1) / Self.hourNanos)
        let steps = (hours * Self.hourNanos + stepNanos - 1) / stepNanos
        self = .coarse(nanos: nanos, length: steps * stepNanos)
      }
    }
  }
}

/// The counts of one shard's keys: of each step in the longest burn window, coarser ones for the budget, and the sums over all
/// windows, which are moved on by adding the step that comes and taking away those that leave.
///
/// At an evaluation at t a window of length W holds the events of (t - W, t], in the sense that a step [t - s, t) does: the same
/// events as an increase over counters that are read at whole steps.
final class SloHistory {
  let budget: SloBudget
  let stepNanos: Int64
  /// The burn windows, and behind them the period where `budget` is `.burnWindows`.
  let windows: [Int64]
  private let burnCount: Int
  /// Index into `windows` of the period, where it is among them.
  private let budgetWindow: Int?
  private let period: SloPeriod
  var table: GroupTable
  private let keyTypes: [PhysicalType]

  /// Steps with events, ascending; those before `fineFirst` have been let go.
  private(set) var fine: [SloPane] = []
  private(set) var fineFirst = 0
  /// By window, the index into `fine` of its first step.
  private var cursors: [Int]
  private(set) var coarse: [SloPane] = []
  /// The end of the coarse stretch that is being added up.
  private(set) var openEnd: Int64?
  /// The last evaluation.
  private(set) var evaluated: Int64?
  /// The calendar period that the budget's sums are of.
  private(set) var calendarBounds: Range<Int64>?

  // By group.
  /// All and bad events of the step that is being added up.
  private var pending = NativeArray<Int64>()
  private var touched: [Int32] = []
  /// All and bad events by window.
  private var sums = NativeArray<Int64>()
  /// All and bad events of the period, where it is not among the windows.
  private(set) var budgetSums = NativeArray<Int64>()
  /// The part of them that is in the open coarse stretch.
  private(set) var open = NativeArray<Int64>()
  private(set) var firstSeen = NativeArray<Int64>()
  /// All groups in the order of their keys.
  private(set) var order = NativeArray<Int32>()

  init(_ definition: Slo) {
    stepNanos = definition.stepNanos
    period = definition.period
    keyTypes = definition.keyTypes
    burnCount = definition.burnWindows.count
    budget = SloBudget(
      of: definition.period, burnWindows: definition.burnWindows, stepNanos: definition.stepNanos)
    var windows = definition.burnWindows
    var budgetWindow: Int?
    if case .rolling(let nanos) = definition.period, budget == .burnWindows {
      budgetWindow = windows.firstIndex(of: nanos)
      if budgetWindow == nil {
        budgetWindow = windows.count
        windows.append(nanos)
      }
    }
    self.windows = windows
    self.budgetWindow = budgetWindow
    cursors = Array(repeating: 0, count: windows.count)
    table = GroupTable(keyTypes: definition.keyTypes)
  }

  // MARK: What is known

  var longestNanos: Int64 { windows[burnCount - 1] }
  /// The end of the first step that is kept.
  var firstEnd: Int64? { fineFirst < fine.count ? fine[fineFirst].end : nil }
  /// Whether nothing is left in any burn window.
  var isBurnEmpty: Bool { fineFirst == fine.count && touched.isEmpty }

  @inline(__always) func total(_ window: Int, _ group: Int) -> Int64 { sums[(group * windows.count + window) * 2] }
  @inline(__always) func bad(_ window: Int, _ group: Int) -> Int64 { sums[(group * windows.count + window) * 2 + 1] }
  func budgetTotal(_ group: Int) -> Int64 { budgetWindow.map { total($0, group) } ?? budgetSums[group * 2] }
  func budgetBad(_ group: Int) -> Int64 { budgetWindow.map { bad($0, group) } ?? budgetSums[group * 2 + 1] }
  func since(_ group: Int) -> Int64 { firstSeen[group] }

  var calendarEnd: Int64? { calendarBounds?.upperBound }
  var periodNanos: Double {
    switch period {
    case .rolling(let nanos): Double(nanos)
    case .calendar: calendarBounds.map { Double($0.upperBound - $0.lowerBound) } ?? 0
    }
  }
  /// How much of the period has passed; 1 for a rolling one.
  func elapsedShare(_ end: Int64) -> Double {
    guard case .calendar = period, let bounds = calendarBounds else { return 1 }
    return Double(end - bounds.lowerBound) / Double(bounds.upperBound - bounds.lowerBound)
  }

  /// Memory, for `/metrics`.
  var bytes: Int {
    var bytes = table.bytes + 8 * (pending.count + sums.count + budgetSums.count + open.count + firstSeen.count)
    bytes += order.count * 4
    for pane in fine[fineFirst...] { bytes += pane.bytes.count + 64 }
    for pane in coarse { bytes += pane.bytes.count + 64 }
    return bytes
  }

  // MARK: Events

  /// Makes room for groups that `table` has got since.
  func groupsAdded() {
    let count = table.count
    guard firstSeen.count < count else { return }
    pending.grow(to: count * 2, filling: 0)
    sums.grow(to: count * 2 * windows.count, filling: 0)
    firstSeen.grow(to: count, filling: 0)
    if budgetWindow == nil { budgetSums.grow(to: count * 2, filling: 0) }
    if case .coarse = budget { open.grow(to: count * 2, filling: 0) }
  }

  @inline(__always)
  func add(_ group: Int, total: Int64, bad: Int64) {
    guard total > 0 else { return }
    if pending[group * 2] == 0 { touched.append(Int32(truncatingIfNeeded: group)) }
    pending[group * 2] += total
    pending[group * 2 + 1] += bad
  }

  /// The step that ends at `end` is complete.
  func evaluate(_ end: Int64) {
    evaluated = end
    leave(before: end)
    if !touched.isEmpty {
      touched.sort()
      var writer = SloPane.Writer()
      for touched in touched {
        let group = Int(touched)
        writer.add(group, total: pending[group * 2], bad: pending[group * 2 + 1])
        pending[group * 2] = 0
        pending[group * 2 + 1] = 0
      }
      touched.removeAll(keepingCapacity: true)
      append(SloPane(end: end, length: stepNanos, bytes: writer.bytes))
    }
    sortGroups()
  }

  /// Takes away what has left the windows at `end`.
  private func leave(before end: Int64) {
    for window in windows.indices {
      while cursors[window] < fine.count, fine[cursors[window]].end <= end - windows[window] {
        fine[cursors[window]].forEach { group, total, bad in
          let place = (group * windows.count + window) * 2
          sums[place] &-= total
          sums[place + 1] &-= bad
        }
        cursors[window] += 1
      }
    }
    fineFirst = cursors[burnCount - 1]
    if fineFirst > 64, fineFirst * 2 > fine.count {
      fine.removeFirst(fineFirst)
      for window in windows.indices { cursors[window] -= fineFirst }
      fineFirst = 0
    }
    switch budget {
    case .burnWindows: break
    case .coarse(let nanos, let length):
      if let openEnd, openEnd < stretchEnd(of: end, length) { closeStretch(openEnd, length) }
      let kept = coarse.firstIndex { $0.end > end - nanos } ?? coarse.count
      for pane in coarse[..<kept] { pane.forEach { subtractBudget($0, $1, $2) } }
      coarse.removeFirst(kept)
    case .calendar(let calendar):
      // The step that ends at midnight belongs to the day before.
      if calendarBounds.map({ !$0.contains(end - 1) }) ?? true {
        calendarBounds = calendar.bounds(containing: end - 1)
        for place in 0..<budgetSums.count { budgetSums[place] = 0 }
      }
    }
  }

  private func subtractBudget(_ group: Int, _ total: Int64, _ bad: Int64) {
    budgetSums[group * 2] &-= total
    budgetSums[group * 2 + 1] &-= bad
  }

  private func stretchEnd(of end: Int64, _ length: Int64) -> Int64 { floorToMultiple(end - 1, of: length) + length }

  private func closeStretch(_ end: Int64, _ length: Int64) {
    coarse.append(SloPane(end: end, length: length, bytes: openBytes()))
    for place in 0..<open.count { open[place] = 0 }
    openEnd = nil
  }

  /// What is in the open coarse stretch, as a pane has it.
  func openBytes() -> [UInt8] { Self.bytes(of: open) }

  static func bytes(of counts: borrowing NativeArray<Int64>) -> [UInt8] {
    var writer = SloPane.Writer()
    for group in 0..<counts.count / 2 where counts[group * 2] > 0 {
      writer.add(group, total: counts[group * 2], bad: counts[group * 2 + 1])
    }
    return writer.bytes
  }

  /// Adds a step behind all others.
  private func append(_ pane: SloPane) {
    let longest = burnCount - 1
    pane.forEach { group, total, bad in
      if self.total(longest, group) == 0, budgetTotal(group) == 0 { firstSeen[group] = pane.start }
      for window in windows.indices {
        let place = (group * windows.count + window) * 2
        sums[place] &+= total
        sums[place + 1] &+= bad
      }
    }
    fine.append(pane)
    addToBudget(pane)
  }

  private func addToBudget(_ pane: SloPane) {
    guard budgetWindow == nil else { return }
    pane.forEach { group, total, bad in
      budgetSums[group * 2] &+= total
      budgetSums[group * 2 + 1] &+= bad
    }
    guard case .coarse(_, let length) = budget else { return }
    let end = stretchEnd(of: pane.end, length)
    if let openEnd, openEnd != end { closeStretch(openEnd, length) }
    openEnd = end
    pane.forEach { group, total, bad in
      open[group * 2] &+= total
      open[group * 2 + 1] &+= bad
    }
  }

  // MARK: Groups

  /// Brings groups that are new into the order of keys.
  private func sortGroups() {
    let known = order.count
    guard known < table.count else { return }
    var new = (Int32(known)..<Int32(table.count)).map { $0 }
    new.sort { table.isOrderedBefore(Int($0), Int($1)) }
    var merged = NativeArray<Int32>(repeating: 0, count: 0, capacity: table.count)
    var next = 0
    for position in 0..<known {
      let group = order[position]
      while next < new.count, table.isOrderedBefore(Int(new[next]), Int(group)) {
        merged.append(new[next])
        next += 1
      }
      merged.append(group)
    }
    while next < new.count {
      merged.append(new[next])
      next += 1
    }
    order = merged
  }

  /// Whether nothing is known of a key any more.
  private func isGone(_ group: Int) -> Bool {
    total(burnCount - 1, group) == 0 && budgetTotal(group) == 0 && pending[group * 2] == 0
  }

  /// Keys below which a table is not worth being made anew.
  private static let compactMin = 1_024

  /// Lets go of keys of which nothing is left, when they are the larger part.
  func compact() {
    guard table.count > Self.compactMin else { return }
    var gone = 0
    for group in 0..<table.count where isGone(group) { gone += 1 }
    guard gone * 2 > table.count else { return }
    let kept = (0..<table.count).filter { !isGone($0) }
    var places = [Int](repeating: -1, count: table.count)
    let fresh = GroupTable(keyTypes: keyTypes, expectedGroups: kept.count)
    for group in kept { places[group] = fresh.assign(group: group, of: table) }
    func moved(_ pane: SloPane) -> SloPane {
      var writer = SloPane.Writer()
      pane.forEach { if places[$0] >= 0 { writer.add(places[$0], total: $1, bad: $2) } }
      return SloPane(end: pane.end, length: pane.length, bytes: writer.bytes)
    }
    func moved(_ values: borrowing NativeArray<Int64>, _ width: Int) -> NativeArray<Int64> {
      let result = NativeArray<Int64>(repeating: 0, count: values.count == 0 ? 0 : kept.count * width)
      guard values.count > 0 else { return result }
      for (place, group) in kept.enumerated() {
        for offset in 0..<width { result[place * width + offset] = values[group * width + offset] }
      }
      return result
    }
    fine = fine.map(moved)
    coarse = coarse.map(moved)
    pending = moved(pending, 2)
    sums = moved(sums, 2 * windows.count)
    budgetSums = moved(budgetSums, 2)
    open = moved(open, 2)
    firstSeen = moved(firstSeen, 1)
    touched = touched.map { Int32(places[Int($0)]) }
    let old = order.count
    let moving = NativeArray<Int32>(copying: order)
    order.removeAll()
    for position in 0..<old where places[Int(moving[position])] >= 0 { order.append(Int32(places[Int(moving[position])])) }
    table = fresh
  }

  // MARK: Restoring

  /// Adds stored steps and stretches of keys that this shard has not had yet, for the groups that `places` names (-1: not ours).
  func restore(_ stored: StoredSlo, places: [Int]) {
    groupsAdded()
    if let time = stored.evaluated { evaluated = max(evaluated ?? time, time) }
    for (group, place) in places.enumerated() where place >= 0 { firstSeen[place] = stored.firstSeen[group] }
    let steps = stored.fine.map { $0.moved(to: places) }.filter { !$0.bytes.isEmpty }
    // Steps leave the shorter windows at the next evaluation.
    for pane in steps {
      pane.forEach { group, total, bad in
        for window in windows.indices {
          let place = (group * windows.count + window) * 2
          sums[place] &+= total
          sums[place + 1] &+= bad
        }
      }
    }
    fine = SloPane.merged(fine, steps)
    restoreBudget(stored, places)
    sortGroups()
  }

  private func restoreBudget(_ stored: StoredSlo, _ places: [Int]) {
    func add(_ pane: SloPane) {
      pane.forEach { group, total, bad in
        budgetSums[group * 2] &+= total
        budgetSums[group * 2 + 1] &+= bad
      }
    }
    switch budget {
    case .burnWindows: break
    case .coarse(_, let length):
      var stretches = stored.coarse
      if stored.coarseLength == length, let end = stored.openEnd {
        let pane = SloPane(end: end, length: length, bytes: stored.open).moved(to: places)
        if let openEnd, openEnd < end { closeStretch(openEnd, length) }
        if openEnd ?? end == end {
          openEnd = end
          pane.forEach { group, total, bad in
            open[group * 2] &+= total
            open[group * 2 + 1] &+= bad
          }
          add(pane)
        } else {
          stretches.append(SloPane(end: end, length: length, bytes: stored.open))
        }
      } else if stored.coarseLength > 0, let end = stored.openEnd {
        stretches.append(SloPane(end: end, length: stored.coarseLength, bytes: stored.open))
      } else if stored.coarseLength == 0 {
        // The period was another: what the steps remember is all there is.
        stretches = stored.fine
      }
      let mine = stretches.map { $0.moved(to: places) }.filter { !$0.bytes.isEmpty }
      for pane in mine { add(pane) }
      coarse = SloPane.merged(coarse, mine)
    case .calendar(let calendar):
      guard let end = stored.evaluated else { return }
      let bounds = calendar.bounds(containing: end - 1)
      if let calendarBounds, calendarBounds != bounds {
        if calendarBounds.lowerBound > bounds.lowerBound { return }
        for place in 0..<budgetSums.count { budgetSums[place] = 0 }
      }
      calendarBounds = bounds
      if stored.calendarBounds == bounds {
        return add(SloPane(end: end, length: stepNanos, bytes: stored.calendar).moved(to: places))
      }
      var stretches = stored.coarse
      if let open = stored.openEnd { stretches.append(SloPane(end: open, length: stored.coarseLength, bytes: stored.open)) }
      if stored.coarseLength == 0 { stretches = stored.fine }
      for pane in stretches where pane.start >= bounds.lowerBound { add(pane.moved(to: places)) }
    }
  }
}
