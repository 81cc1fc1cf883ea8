import Catalog
import Foundation
import Testing

@testable import Operators
@testable import Runtime

/// Each aggregate over random rows in groups, in several partitions, merged in their order, against a slow
/// reference.
@Suite struct AggregateTests {
  private struct Row {
    var group: Int
    var time: Int64
    var value: Cell
  }
  private static let groupCount = 5
  private static let windowNanos: Int64 = 60_000_000_000

  private func state(_ name: String, _ type: ValueType?, _ constants: [Value] = []) throws -> AggregateState {
    try #require(aggregateFunctions[name]).makeState(argument: type, constants: constants)
  }

  private func update(_ state: AggregateState, _ rows: [Row], _ type: ValueType, _ pool: TextPool) {
    let column = Column(type: type.physical, capacity: max(1, rows.count))
    column.fill(rows.map(\.value), pool)
    state.ensure(groups: Self.groupCount)
    let groups = rows.map { Int32($0.group) }
    let places = rows.indices.map { Int32($0) }
    state.update(column, times: rows.map(\.time), rows: places, groups: groups, count: rows.count)
  }

  /// The values of all groups after the partitions have been updated apart (in batches of different sizes)
  /// and merged.
  private func run(
    _ name: String, _ type: ValueType, _ constants: [Value] = [], result: PhysicalType, _ partitions: [[Row]],
    random: inout SeededRandom
  ) throws -> [Cell] {
    let pool = TextPool()
    let identity = (0..<Int32(Self.groupCount)).map { $0 }
    let merged = try state(name, type, constants)
    merged.ensure(groups: Self.groupCount)
    for rows in partitions {
      let partial = try state(name, type, constants)
      partial.ensure(groups: Self.groupCount)
      var start = 0
      while start < rows.count {
        let end = min(rows.count, start + Int.random(in: 1...300, using: &random))
        update(partial, Array(rows[start..<end]), type, pool)
        start = end
      }
      merged.merge(partial, sources: identity, targets: identity, count: Self.groupCount)
    }
    let column = Column(type: result, capacity: Self.groupCount)
    merged.finish(
      identity, count: Self.groupCount, constants: constants, windowNanos: Self.windowNanos, into: column)
    return identity.map { column[Int($0)] }
  }

  private func randomCell(_ type: ValueType, _ random: inout SeededRandom) -> Cell {
    if Int.random(in: 0..<8, using: &random) == 0 { return .null }
    switch type.physical {
    case .bool: return .bool(Bool.random(using: &random))
    case .string: return .text("text \(Int.random(in: 0..<30, using: &random))")
    case .int64:
      switch Int.random(in: 0..<6, using: &random) {
      case 0: return .int(0)
      case 1: return .int(Int64.random(in: -(1 << 50)...(1 << 50), using: &random))
      default: return .int(Int64.random(in: -1_000...1_000, using: &random))
      }
    case .float64:
      switch Int.random(in: 0..<6, using: &random) {
      case 0: return .double(Bool.random(using: &random) ? 0 : -0.0)
      case 1: return .double(Double.random(in: -1e15...1e15, using: &random))
      default: return .double(Double.random(in: -100...1_000, using: &random))
      }
    }
  }

  /// Group 4 never has a row, group 3 only nulls.
  private func partitions(_ type: ValueType, _ random: inout SeededRandom) -> [[Row]] {
    (0..<3).map { _ in
      (0..<Int.random(in: 0...900, using: &random)).map { _ in
        let group = Int.random(in: 0..<4, using: &random)
        return Row(
          group: group, time: Int64.random(in: 0..<200, using: &random),
          value: group == 3 ? .null : randomCell(type, &random))
      }
    }
  }

  private func number(_ cell: Cell) -> Double? {
    switch cell {
    case .int(let value): Double(value)
    case .double(let value): value
    case .null, .bool, .text: nil
    }
  }

  private func isClose(_ a: Cell, _ b: Double?, scale: Double) -> Bool {
    guard let value = number(a), let b else { return a == .null && b == nil }
    return abs(value - b) <= 1e-9 * max(scale, abs(b))
  }

  @Test(arguments: 1...6)
  func sumsAndMoments(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed))
    for type in [ValueType.int, .float, .duration] {
      let parts = partitions(type, &random)
      let sum = try run("sum", type, result: type.physical, parts, random: &random)
      let mean = try run("avg", type, result: .float64, parts, random: &random)
      let deviation = try run("stddev", type, result: .float64, parts, random: &random)
      let count = try run("count", type, result: .int64, parts, random: &random)
      let rate = try run("rate", type, result: .float64, parts, random: &random)
      for group in 0..<Self.groupCount {
        let rows = parts.joined().filter { $0.group == group }
        let values = rows.compactMap { number($0.value) }
        let scale = values.map { abs($0) }.max() ?? 0
        let total = values.reduce(0, +)
        let middle = values.isEmpty ? nil : total / Double(values.count)
        let squares = values.reduce(0) { $0 + ($1 - (middle ?? 0)) * ($1 - (middle ?? 0)) }
        #expect(isClose(sum[group], total, scale: scale * Double(values.count)))
        #expect(isClose(mean[group], middle, scale: scale))
        let spread = values.count < 2 ? nil : (squares / Double(values.count - 1)).squareRoot()
        #expect(isClose(deviation[group], spread, scale: scale))
        #expect(count[group] == .int(Int64(rows.count)))
        #expect(rate[group] == .double(Double(rows.count) / 60))
      }
    }
  }

  @Test func intSumStopsAtTheLargestInt() throws {
    var random = SeededRandom(1)
    let rows = [Int64.max, 5, -7].map { Row(group: 0, time: 0, value: .int($0)) }
    let up = try run("sum", .int, result: .int64, [rows], random: &random)
    #expect(up[0] == .int(.max - 7))
    let down = [Int64.min, -1].map { Row(group: 0, time: 0, value: .int($0)) }
    #expect(try run("sum", .int, result: .int64, [[down[0]], [down[1]]], random: &random)[0] == .int(.min))
  }

  /// A thousandth beside 1e16 and -1e16 is not lost, in one partition or three.
  @Test func doubleSumIsCompensated() throws {
    var random = SeededRandom(2)
    let rows = [1e16, 0.001, 1, -1e16].map { Row(group: 0, time: 0, value: .double($0)) }
    for parts in [[rows], [[rows[0]], [rows[1], rows[2]], [rows[3]]]] {
      #expect(try run("sum", .float, result: .float64, parts, random: &random)[0] == .double(1.001))
    }
  }

  @Test(arguments: 1...6)
  func extremesAndEdges(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed + 100))
    for type in [ValueType.int, .timestamp, .float, .string, .bool] {
      let parts = partitions(type, &random)
      let first = try run("first", type, result: type.physical, parts, random: &random)
      let last = try run("last", type, result: type.physical, parts, random: &random)
      for group in 0..<Self.groupCount {
        let rows = parts.joined().filter { $0.group == group && $0.value != .null }
        // Swift's `min` gives the first of equals, and a strict comparison turned round the last.
        let earliest = rows.min { $0.time < $1.time }
        let latest = rows.reversed().min { $0.time > $1.time }
        #expect(first[group] == earliest?.value ?? .null)
        #expect(last[group] == latest?.value ?? .null)
      }
      guard type != .string, type != .bool else { continue }
      let low = try run("min", type, result: type.physical, parts, random: &random)
      let high = try run("max", type, result: type.physical, parts, random: &random)
      for group in 0..<Self.groupCount {
        let rows = parts.joined().filter { $0.group == group && $0.value != .null }.map(\.value)
        let order = rows.sorted { (number($0) ?? 0) < (number($1) ?? 0) }
        #expect(number(low[group]) == order.first.flatMap(number))
        #expect(number(high[group]) == order.last.flatMap(number))
      }
    }
  }

  /// A text that changes with every row does not keep its past, and the right one survives.
  @Test func lastTextForgetsItsPast() throws {
    let pool = TextPool()
    let state = try state("last", .string)
    for round in 0..<40 {
      let rows = (0..<100).map { index in
        Row(
          group: index % 2, time: Int64(round * 100 + index),
          value: .text(String(repeating: "x", count: 2_000) + "\(round * 100 + index)"))
      }
      update(state, rows, .string, pool)
    }
    #expect(state.bytes < 4 << 20)
    let column = Column(type: .string, capacity: 2)
    state.finish([0, 1], count: 2, constants: [], windowNanos: 1, into: column)
    #expect(column[0] == .text(String(repeating: "x", count: 2_000) + "3998"))
    #expect(column[1] == .text(String(repeating: "x", count: 2_000) + "3999"))
  }

  // MARK: distinct

  @Test(arguments: [0, 1, 20, 1_000, 1_500, 10_000, 100_000, 1_000_000])
  func distinctIsExactWhenSmallAndCloseWhenLarge(_ count: Int) throws {
    let whole = DistinctState()
    let parts = (0..<3).map { _ in DistinctState() }
    for state in parts + [whole] { state.ensure(groups: 1) }
    let column = Column(type: .int64, capacity: 4_096)
    let zeros = [Int32](repeating: 0, count: 4_096)
    let rows = (0..<Int32(4_096)).map { $0 }
    let times = [Int64](repeating: 0, count: 4_096)
    func add(_ values: [Int], to state: DistinctState) {
      for (row, value) in values.enumerated() { column.ints[row] = Int64(value) * 7_919 }
      state.update(column, times: times, rows: rows, groups: zeros, count: values.count)
    }
    var start = 0
    while start < count {
      let values = Array(start..<min(count, start + 4_096))
      add(values, to: whole)
      // Parts overlap, and are of different sizes: sets meet registers.
      add(values, to: parts[0])
      add(values.filter { $0 % 3 == 0 }, to: parts[1])
      add(values.filter { $0 % 100 == 0 }, to: parts[2])
      start += 4_096
    }
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
      let merged = DistinctState()
      merged.ensure(groups: 1)
      for part in order { merged.merge(parts[part], sources: [0], targets: [0], count: 1) }
      for state in [whole, merged] {
        state.finish([0], count: 1, constants: [], windowNanos: 1, into: column)
        let estimate = Double(column.ints[0])
        if count <= 1_500 {
          #expect(estimate == Double(count))
        } else {
          #expect(abs(estimate - Double(count)) <= 0.03 * Double(count))
        }
      }
    }
  }

  // MARK: top

  private struct Ranked: Decodable, Equatable {
    var value: String
    var count: Int
  }

  private func ranked(_ cell: Cell) throws -> [Ranked] {
    guard case .text(let json) = cell else { return [] }
    return try JSONDecoder().decode([Ranked].self, from: Data(json.utf8))
  }

  @Test(arguments: 1...6)
  func topCountsFewValuesExactly(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed + 700))
    let parts = partitions(.string, &random)
    for k in [1, 5, 64] {
      let top = try run("top", .string, [.int(Int64(k))], result: .string, parts, random: &random)
      for group in 0..<Self.groupCount {
        var counts: [String: Int] = [:]
        for row in parts.joined() where row.group == group {
          if case .text(let text) = row.value { counts[text, default: 0] += 1 }
        }
        let expected = counts.map { Ranked(value: $0.key, count: $0.value) }
          .sorted { $0.count != $1.count ? $0.count > $1.count : $0.value < $1.value }.prefix(k)
        #expect(try ranked(top[group]) == Array(expected))
      }
    }
  }

  /// With many values, skewed: no value more frequent than a 256th is missing, and no count is lower than the truth, nor
  /// higher by more than a 256th for each of the merged parts.
  @Test(arguments: 1...4)
  func topBoundsItsError(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed + 800))
    let parts: [[Row]] = (0..<3).map { _ in
      (0..<20_000).map { _ in
        let value = Int(pow(2_000, Double.random(in: 0..<1, using: &random)))
        return Row(group: 1, time: 0, value: .text("value \(value)"))
      }
    }
    var counts: [String: Int] = [:]
    for row in parts.joined() { if case .text(let text) = row.value { counts[text, default: 0] += 1 } }
    let rows = counts.values.reduce(0, +)
    let found = try ranked(run("top", .string, [.int(64)], result: .string, parts, random: &random)[1])
    #expect(found.count == 64)
    for entry in found {
      let truth = counts[entry.value] ?? 0
      #expect(entry.count >= truth)
      #expect(entry.count - truth <= rows / 256)
    }
    let frequent = counts.filter { $0.value > 2 * rows / 256 }.map(\.key)
    #expect(frequent.count > 10)
    #expect(Set(frequent).isSubset(of: Set(found.map(\.value))))
  }

  /// Texts that come and go do not stay, and a long one is cut between characters.
  @Test func topForgetsAndCuts() throws {
    let pool = TextPool()
    let state = try state("top", .string, [.int(1)])
    for round in 0..<60 {
      let rows = (0..<300).map { index in
        Row(group: 0, time: 0, value: .text("\(round * 300 + index) " + String(repeating: "x", count: 2_000)))
      }
      update(state, rows, .string, pool)
    }
    #expect(state.bytes < 3 << 20)
    update(state, (0..<20_000).map { _ in Row(group: 1, time: 0, value: .text(String(repeating: "€", count: 300))) }, .string, pool)
    let column = Column(type: .string, capacity: 1)
    state.finish([1], count: 1, constants: [.int(1)], windowNanos: 1, into: column)
    #expect(try ranked(column[0]) == [Ranked(value: String(repeating: "€", count: 85), count: 20_000)])
  }

  @Test func topOfNumbersAndOfNothing() throws {
    var random = SeededRandom(3)
    let numbers = [7, 7, -1, 7].map { Row(group: 2, time: 0, value: .int($0)) }
    let top = try run("top", .int, [.int(2)], result: .string, [numbers], random: &random)
    #expect(top[2] == .text("[{\"value\":7,\"count\":3},{\"value\":-1,\"count\":1}]"))
    #expect(top[0] == .text("[]"))
    let flags = [true, false, true].map { Row(group: 0, time: 0, value: .bool($0)) }
    #expect(
      try run("top", .bool, [.int(2)], result: .string, [flags], random: &random)[0]
        == .text("[{\"value\":true,\"count\":2},{\"value\":false,\"count\":1}]"))
  }

  // MARK: increase

  @Test(arguments: 1...8)
  func increaseAddsUpWhatACounterGained(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed + 500))
    let lookback = Increase.lookbackNanos(windowNanos: Self.windowNanos)
    // Samples of two counters at distinct times, with resets and gaps, over ten panes.
    var samples: [(group: Int, time: Int64, value: Double)] = []
    for group in 0..<2 {
      var time: Int64 = 0
      var value = 0.0
      while time < 10 * Self.windowNanos {
        let gap = Int.random(in: 0..<12, using: &random) == 0
        time += Int64.random(in: 1...(gap ? 7 : 1) * Self.windowNanos, using: &random)
        value =
          Int.random(in: 0..<5, using: &random) == 0
          ? 1 : value + Double(Int.random(in: 0...9, using: &random))
        samples.append((group, time, value))
      }
    }
    var expected: [Int64: [Cell]] = [:]
    for group in 0..<2 {
      let own = samples.filter { $0.group == group }
      for (index, sample) in own.enumerated() {
        let pane = sample.time / Self.windowNanos
        var gained = 0.0
        if index > 0, sample.time - own[index - 1].time <= lookback {
          let before = own[index - 1].value
          gained = sample.value >= before ? sample.value - before : sample.value
        }
        var cells = expected[pane] ?? [.null, .null]
        if case .double(let sum) = cells[group] { gained += sum }
        cells[group] = .double(gained)
        expected[pane] = cells
      }
    }
    // The engine's side: panes in order, samples in any order and in two partitions.
    let keys = Batch(types: [.int64], capacity: 2)
    keys.columns[0].fill([.int(0), .int(1)], TextPool())
    var access = KeyColumns()
    access.bind(keys, slots: [0])
    var hashes: [UInt64] = [0, 0]
    access.hashRows([0, 1], count: 2, into: &hashes)
    let carry = IncreaseState().makeCarry(keyTypes: [.int64], windowNanos: Self.windowNanos)
    for pane in expected.keys.sorted() {
      let rows = samples.filter { $0.time / Self.windowNanos == pane }.shuffled(using: &random)
      let merged = IncreaseState()
      merged.ensure(groups: 2)
      for half in [rows.prefix(rows.count / 2), rows.suffix(from: rows.count / 2)] {
        let partial = IncreaseState()
        let values = half.map { Row(group: $0.group, time: $0.time, value: .double($0.value)) }
        partial.ensure(groups: Self.groupCount)
        update(partial, values, .float, TextPool())
        merged.merge(partial, sources: [0, 1], targets: [0, 1], count: 2)
      }
      let table = GroupTable(keyTypes: [.int64])
      var groups: [Int32] = [0, 0]
      table.assign(access, rows: [0, 1], hashes: hashes, count: 2, groups: &groups)
      merged.seal(table, carry: carry)
      let column = Column(type: .float64, capacity: 2)
      merged.finish([0, 1], count: 2, constants: [], windowNanos: Self.windowNanos, into: column)
      #expect([column[0], column[1]] == expected[pane])
    }
  }
}
