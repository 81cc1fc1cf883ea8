import CColumns
import Catalog
import Foundation
import Testing

@testable import Operators
@testable import Runtime

private let hour = 60 * minute
private let day = 24 * hour

/// What was counted in one step of one key, in whole units.
private struct Counted {
  var total: Int64
  var bad: Int64
}

/// What an SLO gives, computed from scratch at each evaluation: obviously right, and slow.
private struct SloReference {
  var definition: Slo
  /// By key and end of step.
  var steps: [String: [Int64: Counted]] = [:]
  var since: [String: Int64] = [:]
  var scale: Double { definition.measure.isWhole ? 1 : 1_024 }

  private func sum(_ key: String, where isMeant: (Int64) -> Bool) -> Counted {
    var sum = Counted(total: 0, bad: 0)
    for (end, counted) in steps[key] ?? [:] where isMeant(end) {
      sum.total += counted.total
      sum.bad += counted.bad
    }
    return sum
  }

  private func window(_ key: String, _ nanos: Int64, at time: Int64) -> Counted {
    sum(key) { $0 > time - nanos && $0 <= time }
  }

  private func period(_ key: String, at time: Int64) -> Counted {
    switch definition.period {
    case .calendar(let calendar):
      let bounds = calendar.bounds(containing: time - 1)
      return sum(key) { bounds.contains($0 - 1) && $0 <= time }
    case .rolling(let nanos):
      let budget = SloBudget(
        of: definition.period, burnWindows: definition.burnWindows, stepNanos: definition.stepNanos)
      guard case .coarse(_, let length) = budget else { return window(key, nanos, at: time) }
      // A stretch goes when its last step does.
      return sum(key) { ($0 + length - 1) / length * length > time - nanos && $0 <= time }
    }
  }

  mutating func add(_ key: String, _ counted: Counted, at time: Int64) {
    guard counted.total > 0 else { return }
    let longest = definition.burnWindows[definition.burnWindows.count - 1]
    if window(key, longest, at: time).total == 0, period(key, at: time).total == 0 {
      since[key] = time - definition.stepNanos
    }
    steps[key, default: [:]][time] = counted
  }

  /// The lines of an evaluation, as `RowRecorder` writes them.
  func lines(at time: Int64) -> [String] {
    steps.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }.compactMap { key in
      guard window(key, definition.idleNanos, at: time).total > 0 else { return nil }
      var line = "\(time) slo \(Cell.text(key))"
      for output in definition.outputs {
        line += " "
        switch value(output, key, at: time) {
        case nil: line += "null"
        case .double(let value)?: line += "\(value)/\(String(value.bitPattern, radix: 16))"
        case let cell?: line += "\(cell)"
        }
      }
      return line
    }
  }

  private func value(_ output: SloColumn, _ key: String, at time: Int64) -> Cell? {
    let period = period(key, at: time)
    let (share, length): (Double, Double)
    switch definition.period {
    case .rolling(let nanos): (share, length) = (1, Double(nanos))
    case .calendar(let calendar):
      let bounds = calendar.bounds(containing: time - 1)
      length = Double(bounds.upperBound - bounds.lowerBound)
      share = Double(time - bounds.lowerBound) / length
    }
    func burn(_ counted: Counted) -> Double? {
      counted.total == 0 ? nil : Double(counted.bad) / (Double(counted.total) * definition.budget)
    }
    let left = burn(period).map { 1 - $0 * share }
    switch output {
    case .good: return .double(Double(period.total - period.bad) / scale)
    case .total: return .double(Double(period.total) / scale)
    case .errorRatio: return period.total == 0 ? nil : .double(Double(period.bad) / Double(period.total))
    case .budgetLeft: return left.map { .double($0) }
    case .exhaustsIn:
      guard let rate = burn(window(key, definition.exhaustionNanos, at: time)), rate > 0, let left else { return nil }
      return .double(max(0, left) * length / rate)
    case .since: return .int(since[key] ?? 0)
    case .periodLeft:
      guard case .calendar(let calendar) = definition.period else { return .double(0) }
      return .double(Double(calendar.bounds(containing: time - 1).upperBound - time))
    case .burn(let nanos): return burn(window(key, nanos, at: time)).map { .double($0) }
    case .events(let nanos): return .double(Double(window(key, nanos, at: time).total) / scale)
    }
  }
}

/// The shards of one SLO, fed with rows of windows.
private final class SloEngine {
  let definition: Slo
  let lines = Lines()
  private var tasks: [SloTask] = []
  private let contexts: [TaskContext]
  private let pool = TextPool()
  private let types: [PhysicalType]

  init(_ definition: Slo, shards: Int) {
    let amounts: PhysicalType = definition.measure.isWhole ? .int64 : .float64
    types = [.string, definition.measure.total == nil ? .bool : amounts, amounts]
    var definition = definition
    definition.rows = RowSet(
      consumers: [RowRecorder(name: "slo", columns: 1 + definition.outputs.count, lines: lines)])
    self.definition = definition
    contexts = (0..<shards).map {
      TaskContext(shard: $0, shardCount: shards, batchRows: 7, output: RecordWriter())
    }
    for context in contexts {
      guard let task = definition.makeTask(context) as? SloTask else { continue }
      tasks.append(task)
    }
  }

  var keyCounts: [Int] { tasks.map(\.history.table.count) }

  /// Rows (key, measure, total) of the step that ends at `end`, each to its owner; then the evaluation.
  func step(_ rows: [(key: String, measure: Cell, total: Cell)], end: Int64) {
    for (shard, task) in tasks.enumerated() {
      var batch = Batch(types: types, capacity: 7)
      var mine: [(key: String, measure: Cell, total: Cell)] = []
      func flush() {
        guard !mine.isEmpty else { return }
        batch.columns[0].fill(mine.map { .text($0.key) }, pool)
        batch.columns[1].fill(mine.map(\.measure), pool)
        batch.columns[2].fill(mine.map(\.total), pool)
        batch.times.update(repeating: end - 1, count: mine.count)
        batch.rowCount = mine.count
        task.process(batch, batch.all)
        mine = []
        batch = Batch(types: types, capacity: 7)
      }
      for row in rows where owner(of: row.key) == shard {
        mine.append(row)
        if mine.count == 7 { flush() }
      }
      flush()
      // Nobody evaluates empty windows of a shard that says that it does not care.
      if !rows.contains(where: { owner(of: $0.key) == shard }), task.isQuiet { continue }
      task.windowEnded(end)
    }
  }

  private func owner(of key: String) -> Int {
    let batch = Batch(types: [.string], capacity: 1)
    batch.columns[0].fill([.text(key)], pool)
    var keys = KeyColumns()
    keys.bind(batch, slots: [0])
    var row: Int32 = 0
    var hash: UInt64 = 0
    keys.hashRows(&row, count: 1, into: &hash)
    return KeyGroup.owner(hash, shardCount: tasks.count)
  }

  func stored() -> [(groups: Range<Int>, bytes: [UInt8])] {
    tasks.enumerated().compactMap { shard, task in
      guard let capture = task.capture() else { return nil }
      let writer = StateWriter()
      capture.encode(into: writer)
      return (KeyGroup.range(of: shard, shardCount: tasks.count), writer.bytes)
    }
  }

  func restore(_ parts: [(groups: Range<Int>, bytes: [UInt8])]) throws {
    for part in parts {
      for (shard, task) in tasks.enumerated()
      where part.groups.overlaps(KeyGroup.range(of: shard, shardCount: tasks.count)) {
        var reader = StateReader(part.bytes)
        try task.restore(from: &reader, scope: KeyScope(shard: shard, shardCount: tasks.count))
      }
    }
  }

  var bytes: Int { tasks.reduce(0) { $0 + $1.history.bytes } }
}

private func makeSlo(
  measure: Slo.Measure, budget: Double, period: SloPeriod, step: Int64 = minute, windows: [Int64], idle: Int64,
  exhaustion: Int64
) -> Slo {
  var outputs: [SloColumn] = [.good, .total, .errorRatio, .budgetLeft, .exhaustsIn, .since]
  if case .calendar = period { outputs.append(.periodLeft) }
  for window in windows { outputs += [.burn(nanos: window), .events(nanos: window)] }
  return Slo(
    name: "s", operatorID: "slo:s", keySlots: [0], keyTypes: [.string], measure: measure, budget: budget, period: period,
    stepNanos: step, burnWindows: windows, idleNanos: idle, exhaustionNanos: exhaustion, outputs: outputs,
    computedSlots: [], rows: RowSet())
}

@Suite struct SloTests {
  private struct Kind: Sendable {
    var measure: Slo.Measure
    /// A row of it, and what it counts.
    var row: @Sendable (inout SeededRandom) -> (measure: Cell, total: Cell, counted: Counted)
  }

  private static let kinds: [Kind] = [
    Kind(measure: Slo.Measure(slot: 1, total: 2, isBad: false, isWhole: true)) { random in
      let total = Int64.random(in: 0...9, using: &random)
      let good = Int64.random(in: -1...total + 1, using: &random)
      let kept = min(max(good, 0), total)
      return (.int(good), .int(total), Counted(total: total, bad: total - kept))
    },
    Kind(measure: Slo.Measure(slot: 1, total: 2, isBad: true, isWhole: false)) { random in
      if Int.random(in: 0..<9, using: &random) == 0 { return (.double(1), .null, Counted(total: 0, bad: 0)) }
      let total = Double(Int.random(in: 0...4_000, using: &random)) / 8
      let bad = Double.random(in: 0...total + 0.001, using: &random)
      let all = Int64(total * 1_024)
      return (.double(bad), .double(total), Counted(total: all, bad: min(all, Int64((bad * 1_024).rounded()))))
    },
    Kind(measure: Slo.Measure(slot: 1, total: nil, isBad: false, isWhole: true)) { random in
      let isGood = Int.random(in: 0..<4, using: &random) != 0
      if Int.random(in: 0..<9, using: &random) == 0 { return (.null, .int(0), Counted(total: 1, bad: 1)) }
      return (.bool(isGood), .int(0), Counted(total: 1, bad: isGood ? 0 : 1))
    },
    Kind(measure: Slo.Measure(slot: 1, total: nil, isBad: true, isWhole: true)) { random in
      let isBad = Int.random(in: 0..<4, using: &random) == 0
      return (.bool(isBad), .int(0), Counted(total: 1, bad: isBad ? 1 : 0))
    },
  ]

  /// Traffic in stretches, with silences long enough for windows, budgets and keys to end.
  @Test(arguments: 0..<12)
  func isWhatOneWouldCompute(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed) &* 77 &+ 5)
    let kind = Self.kinds[seed % Self.kinds.count]
    let periods: [SloPeriod] = [
      .rolling(nanos: 20 * minute), .rolling(nanos: 3 * hour), .calendar(.day), .rolling(nanos: 45 * minute),
      .calendar(.month),
    ]
    let windows = [2 * minute, 5 * minute, 20 * minute, 45 * minute]
    var definition = makeSlo(
      measure: kind.measure, budget: [0.1, 0.01, 0.25][seed % 3], period: periods[seed % periods.count], windows: windows,
      idle: [5 * minute, 20 * minute][seed % 2], exhaustion: 20 * minute)
    // Ends of days and months lie within.
    let start = Int64(1_796_083_200) * second - 4 * hour
    var reference = SloReference(definition: definition)
    var engine = SloEngine(definition, shards: 1 + seed % 3)
    var written: [String] = []
    var expected: [String] = []
    let keys = ["", "a", "b", "key 3", "ü"]
    var silent: Set<String> = []
    for number in 1...600 {
      let end = start + Int64(number) * minute
      for key in keys where Int.random(in: 0..<60, using: &random) == 0 {
        if silent.remove(key) == nil { silent.insert(key) }
      }
      if number > 300, number < 520 { silent.formUnion(keys.prefix(4)) }
      var rows: [(key: String, measure: Cell, total: Cell)] = []
      for key in keys where !silent.contains(key) && Int.random(in: 0..<5, using: &random) != 0 {
        let row = kind.row(&random)
        rows.append((key, row.measure, row.total))
        reference.add(key, row.counted, at: end)
      }
      engine.step(rows, end: end)
      expected += reference.lines(at: end)
      if Int.random(in: 0..<40, using: &random) == 0 {
        // Killed, and started again on another number of workers, with another objective.
        written += engine.lines.all
        let parts = engine.stored()
        if number > 100 { definition.budget = [0.2, 0.003][number % 2] }
        reference.definition = definition
        engine = SloEngine(definition, shards: Int.random(in: 1...4, using: &random))
        try engine.restore(parts)
        let again = engine.stored().map(\.bytes).sorted { $0.lexicographicallyPrecedes($1) }
        // One shard's state comes back as it was.
        if parts.count == 1, again.count == 1 { #expect(again == parts.map(\.bytes)) }
      }
    }
    written += engine.lines.all
    #expect(expected.count > 400)
    // Shards have no order among each other.
    #expect(written.sorted() == expected.sorted())
  }

  @Test func goneKeysAreLetGo() {
    let definition = makeSlo(
      measure: Slo.Measure(slot: 1, total: nil, isBad: true, isWhole: true), budget: 0.1,
      period: .rolling(nanos: 10 * minute), windows: [2 * minute, 10 * minute], idle: 10 * minute, exhaustion: 2 * minute)
    let engine = SloEngine(definition, shards: 1)
    var reference = SloReference(definition: definition)
    var most = 0
    for number in 1...100 {
      let end = testStart + Int64(number) * minute
      // Each key lives for a minute, but for one.
      var rows = (0..<300).map { (key: "k\(number)-\($0)", measure: Cell.bool($0 % 2 == 0), total: Cell.int(0)) }
      rows.append((key: "old", measure: .bool(number % 7 == 0), total: .int(0)))
      for row in rows { reference.add(row.key, Counted(total: 1, bad: row.measure == .bool(true) ? 1 : 0), at: end) }
      engine.step(rows, end: end)
      most = max(most, engine.keyCounts[0])
    }
    #expect(most < 7_000, "300 keys come each minute, and stay for ten")
    let last = testStart + 100 * minute
    #expect(engine.lines.all.suffix(3_001) == ArraySlice(reference.lines(at: last)))
  }

  /// The workbook's windows and 30 days: two counts each minute of three days, and a few hours.
  @Test func stateOfAKeyIsSmall() {
    let definition = makeSlo(
      measure: Slo.Measure(slot: 1, total: 2, isBad: true, isWhole: true), budget: 0.001,
      period: .rolling(nanos: 30 * day),
      windows: [5 * minute, 30 * minute, hour, 2 * hour, 6 * hour, day, 3 * day], idle: 6 * hour, exhaustion: hour)
    let history = SloHistory(definition)
    var random = SeededRandom(3)
    let keys = 50
    for number in 0..<77 * 60 {
      if history.table.count == 0 {
        let names = GroupTable(keyTypes: [.string])
        let batch = Batch(types: [.string], capacity: keys)
        let pool = TextPool()
        batch.columns[0].fill((0..<keys).map { .text("service-\($0)") }, pool)
        batch.rowCount = keys
        var columns = KeyColumns()
        columns.bind(batch, slots: [0])
        let hashes = NativeArray<UInt64>(repeating: 0, count: keys)
        let groups = NativeArray<Int32>(repeating: 0, count: keys)
        columns.hashRows(batch.all.rows, count: keys, into: hashes.base)
        names.assign(columns, rows: batch.all.rows, hashes: hashes.base, count: keys, groups: groups.base)
        for group in 0..<keys { _ = history.table.assign(group: group, of: names) }
        history.groupsAdded()
      }
      for group in 0..<keys {
        let total = Int64.random(in: 300...900, using: &random)
        history.add(group, total: total, bad: Int.random(in: 0..<4, using: &random) == 0 ? 1 : 0)
      }
      history.evaluate(testStart + Int64(number) * minute)
    }
    // 4,320 steps of some 3 bytes, and what 50 keys share.
    #expect(history.bytes / keys > 10_000)
    #expect(history.bytes / keys < 25_000)
  }

  @Test func damagedStateIsHarmless() throws {
    var random = SeededRandom(9)
    for period in [SloPeriod.rolling(nanos: 3 * hour), .calendar(.week)] {
      let definition = makeSlo(
        measure: Self.kinds[0].measure, budget: 0.1, period: period, windows: [2 * minute, 20 * minute], idle: 20 * minute,
        exhaustion: 2 * minute)
      let engine = SloEngine(definition, shards: 2)
      for number in 1...90 {
        let rows = ["a", "b", "c", "d"].map { key in
          let row = Self.kinds[0].row(&random)
          return (key: key, measure: row.measure, total: row.total)
        }
        engine.step(rows, end: testStart + Int64(number) * minute)
      }
      let parts = engine.stored()
      #expect(parts.count == 2)
      for part in parts {
        for length in 0..<part.bytes.count {
          #expect(throws: StateCorruption.self, "\(length) bytes") {
            try SloEngine(definition, shards: 1).restore([(part.groups, Array(part.bytes.prefix(length)))])
          }
        }
      }
      var refused = 0
      var accepted = 0
      for _ in 0..<2_000 {
        var damaged = parts
        let index = Int.random(in: 0..<2, using: &random)
        for _ in 0..<Int.random(in: 1...3, using: &random) {
          let place = Int.random(in: 0..<damaged[index].bytes.count, using: &random)
          damaged[index].bytes[place] = UInt8.random(in: 0...255, using: &random)
        }
        let other = SloEngine(definition, shards: 1 + accepted % 3)
        do {
          try other.restore(damaged)
          accepted += 1
          for number in 91...93 {
            other.step([("a", .int(1), .int(2)), ("new", .int(1), .int(2))], end: testStart + Int64(number) * minute)
          }
          other.step([("a", .int(1), .int(2))], end: testStart + 3 * 24 * hour)
        } catch is StateCorruption {
          refused += 1
        }
      }
      #expect(refused > 100 && accepted > 100)
    }
  }

  /// Longer windows are filled as far as steps were kept; another period is made of what there is.
  @Test func changedWindowsKeepWhatThereIs() throws {
    let measure = Slo.Measure(slot: 1, total: nil, isBad: true, isWhole: true)
    func slo(_ period: SloPeriod, _ windows: [Int64]) -> Slo {
      makeSlo(
        measure: measure, budget: 0.1, period: period, windows: windows, idle: windows[0], exhaustion: windows[0])
    }
    let before = SloEngine(slo(.rolling(nanos: 20 * minute), [5 * minute, 20 * minute]), shards: 2)
    for number in 1...60 {
      before.step([("a", .bool(number % 5 == 0), .int(0))], end: testStart + Int64(number) * minute)
    }
    for period in [SloPeriod.rolling(nanos: 2 * hour), .calendar(.day), .rolling(nanos: 40 * minute)] {
      let after = SloEngine(slo(period, [5 * minute, 40 * minute]), shards: 3)
      try after.restore(before.stored())
      after.step([("a", .bool(false), .int(0))], end: testStart + 61 * minute)
      // Steps 41 to 60 were kept, and one has come.
      let cells = after.lines.all[0].split(separator: " ")
      #expect(cells[4].hasPrefix("21.0/"), "\(period): \(after.lines.all)")
      #expect(cells.last?.hasPrefix("21.0/") == true, "\(after.lines.all)")
    }
  }

  @Test func calendarPeriodsAreThoseOfTheCalendar() throws {
    var calendar = Calendar(identifier: .iso8601)
    calendar.timeZone = try #require(TimeZone(identifier: "UTC"))
    var random = SeededRandom(4)
    let units: [(SloCalendar, Calendar.Component)] = [(.day, .day), (.week, .weekOfYear), (.month, .month)]
    for _ in 0..<2_000 {
      let seconds = Int64.random(in: 0...7_258_118_399, using: &random)
      let date = Date(timeIntervalSince1970: TimeInterval(seconds))
      for (period, unit) in units {
        let interval = try #require(calendar.dateInterval(of: unit, for: date))
        let bounds = period.bounds(containing: seconds * second + 5)
        #expect(bounds.lowerBound == Int64(interval.start.timeIntervalSince1970) * second, "\(period) \(date)")
        #expect(bounds.upperBound == Int64(interval.end.timeIntervalSince1970) * second, "\(period) \(date)")
      }
      let month = SloCalendar.month.bounds(containing: seconds * second)
      let quarter = SloCalendar.quarter.bounds(containing: seconds * second)
      #expect(quarter.contains(month.lowerBound) && quarter.upperBound >= month.upperBound)
      let first = calendar.component(.month, from: Date(timeIntervalSince1970: TimeInterval(quarter.lowerBound / second)))
      #expect([1, 4, 7, 10].contains(first))
      #expect((90...92).contains((quarter.upperBound - quarter.lowerBound) / day))
    }
  }
}

/// 2026-11-21T03:00:00Z
private let testStart: Int64 = 1_795_230_000 * second
