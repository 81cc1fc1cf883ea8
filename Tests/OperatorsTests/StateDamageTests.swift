import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// Stored bytes that were damaged behind the store's back are refused, or give some state that can be run. They never
/// trap.
@Suite struct StateDamageTests {
  private func plan(_ keySlots: [Int]) -> TestPlan {
    var plan = TestPlan()
    plan.keySlots = keySlots
    plan.windows = [(minute, 20 * second), (2 * minute, 2 * minute)]
    plan.paneNanos = 20 * second
    plan.level1 = [(3 * minute, minute)]
    plan.level1PaneNanos = 20 * second
    plan.hasAlert = true
    plan.forNanos = minute
    return plan
  }

  @Test func truncatedStateIsRefused() throws {
    var random = SeededRandom(5)
    let input = TestInput(partitions: 2, steps: 12, keys: 3, &random)
    let engine = TestEngine(plan([0, 2]), shards: 1, partitions: 2)
    input.run(engine, 0..<12)
    let parts = engine.stored()
    #expect(Set(parts.map(\.operatorID)) == ["first", "second", "first/open", "alert Busy"])
    for part in parts {
      let other = TestEngine(plan([0, 2]), shards: 1, partitions: 2)
      // Small parts at each length; the others near their ends, where counts and lengths stand, and at random.
      var lengths = Array(0..<min(part.bytes.count, 700)) + Array(max(0, part.bytes.count - 200)..<part.bytes.count)
      for _ in 0..<800 { lengths.append(Int.random(in: 0..<part.bytes.count, using: &random)) }
      for length in lengths {
        var cut = part
        cut.bytes = Array(part.bytes.prefix(length))
        #expect(throws: StateCorruption.self, "\(part.operatorID), \(length) bytes") {
          try other.restore([cut], watermarks: [])
        }
      }
      var longer = part
      longer.bytes.append(0)
      #expect(throws: StateCorruption.self) { try other.restore([longer], watermarks: []) }
    }
  }

  @Test(arguments: [1, 2], [[0], [1, 6], []])
  func damagedStateIsHarmless(_ shards: Int, _ keySlots: [Int]) throws {
    var random = SeededRandom(UInt64(31 + shards + keySlots.count))
    let input = TestInput(partitions: 2, steps: 20, keys: 3, &random)
    let engine = TestEngine(plan(keySlots), shards: 2, partitions: 2)
    input.run(engine, 0..<14)
    let parts = engine.stored()
    let watermarks = engine.watermarks
    var refused = 0
    var accepted = 0
    for _ in 0..<250 {
      var damaged = parts
      let index = Int.random(in: 0..<parts.count, using: &random)
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        // Most of the bytes are values; counts and lengths stand in front.
        let end = Bool.random(using: &random) ? parts[index].bytes.count : min(parts[index].bytes.count, 900)
        let place = Int.random(in: 0..<end, using: &random)
        damaged[index].bytes[place] =
          Bool.random(using: &random)
          ? damaged[index].bytes[place] ^ (1 << UInt8.random(in: 0..<8, using: &random))
          : [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
      }
      let other = TestEngine(plan(keySlots), shards: shards, partitions: 2)
      do {
        try other.restore(damaged, watermarks: watermarks)
        input.run(other, 14..<20)
        _ = other.stored()
        input.finish(other)
        accepted += 1
      } catch is StateCorruption {
        refused += 1
      }
    }
    #expect(refused > 0)
    #expect(accepted > 0)
  }

  /// Sketches of many values take forms that small states never do.
  @Test(arguments: ["quantile", "distinct", "stddev", "last", "top"])
  func damagedSketchesAreHarmless(_ function: String) throws {
    var random = SeededRandom(8)
    let type: ValueType = function == "last" || function == "top" ? .string : .float
    func fresh() throws -> AggregateState {
      try #require(aggregateFunctions[function]).makeState(argument: type, constants: [])
    }
    let pool = TextPool()
    let state = try fresh()
    let column = Column(type: type.physical, capacity: 6_000)
    column.fill(
      (0..<6_000).map { index in
        type == .string
          ? .text("t\(index)")
          : .double(Double.random(in: -1...1, using: &random) * (index % 7 == 0 ? 1e200 : 1_000))
      }, pool)
    let groupCount = 4
    state.ensure(groups: groupCount)
    let rows = (0..<6_000).map { Int32($0) }
    // One large group, a middling, a small one and an empty.
    let groups = rows.map { $0 < 5_000 ? Int32(0) : ($0 < 5_990 ? 1 : 2) }
    state.update(column, times: rows.map { Int64($0) }, rows: rows, groups: groups, count: 6_000)
    let writer = StateWriter()
    state.encode(into: writer)
    let bytes = writer.bytes
    let all = (0..<Int32(groupCount)).map { $0 }
    let result = Column(
      type: function == "distinct" ? .int64 : (type == .string ? .string : .float64), capacity: groupCount)

    func use(_ bytes: [UInt8]) throws -> [Cell] {
      var reader = StateReader(bytes)
      let restored = try fresh()
      try restored.restore(from: &reader, groups: groupCount)
      let merged = try fresh()
      merged.ensure(groups: groupCount)
      // Onto what is there already, and twice, so that runs are widened.
      for source in [state, restored, restored] {
        merged.merge(source, sources: all, targets: all.reversed(), count: groupCount)
      }
      restored.ensure(groups: groupCount)
      restored.update(column, times: rows.map { Int64($0) }, rows: rows, groups: groups, count: 6_000)
      for state in [merged, restored] {
        state.finish(all, count: groupCount, constants: [.float(0.3)], windowNanos: minute, into: result)
      }
      return all.map { result[Int($0)] }
    }

    let whole = try use(bytes)
    let copy = state.copy()
    copy.update(column, times: rows.map { Int64($0) }, rows: rows, groups: groups, count: 6_000)
    copy.finish(all, count: groupCount, constants: [.float(0.3)], windowNanos: minute, into: result)
    #expect(all.map { result[Int($0)] } == whole)
    // The copy's later rows are not the state's.
    let again = StateWriter()
    state.encode(into: again)
    let isUnchanged = again.bytes == bytes
    #expect(isUnchanged)

    for _ in 0..<150 {
      var damaged = bytes
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let end = Bool.random(using: &random) ? bytes.count : min(bytes.count, 120)
        damaged[Int.random(in: 0..<end, using: &random)] = [0, 1, 2, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
      }
      do { _ = try use(damaged) } catch is StateCorruption {}
    }
  }

  @Test func keysOfAnotherTypeAreRefused() throws {
    var random = SeededRandom(6)
    let input = TestInput(partitions: 2, steps: 12, keys: 3, &random)
    let engine = TestEngine(plan([0]), shards: 1, partitions: 2)
    input.run(engine, 0..<12)
    let parts = engine.stored().filter { $0.operatorID == "first" || $0.operatorID == "first/open" }
    #expect(parts.count > 1)
    for part in parts {
      let other = TestEngine(plan([1]), shards: 1, partitions: 2)
      #expect(throws: StateCorruption.self) { try other.restore([part], watermarks: []) }
    }
  }

  @Test func aHoldEndsWhenItsCaptureIsEncodedOrDropped() {
    let holds = CaptureHolds()
    var first: CaptureHold? = CaptureHold(holds)
    let second = CaptureHold(holds)
    #expect(holds.isHeld)
    second.release()
    second.release()
    #expect(holds.isHeld)
    withExtendedLifetime(first) {}
    first = nil
    #expect(!holds.isHeld)
  }
}
