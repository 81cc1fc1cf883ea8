import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// A run that is captured, encoded and restored in the middle gives what the run without does, bit for bit.
@Suite struct StateRestoreTests {
  private struct Shape: CustomTestStringConvertible, Sendable {
    var name: String
    var keySlots: [Int]
    var windows: [[Int64]]
    var paneNanos: Int64
    var level1: [[Int64]] = []
    var testDescription: String { name }

    func plan() -> TestPlan {
      var plan = TestPlan()
      plan.keySlots = keySlots
      plan.windows = windows.map { ($0[0], $0[1]) }
      plan.paneNanos = paneNanos
      plan.level1 = level1.map { ($0[0], $0[1]) }
      plan.level1PaneNanos = minute
      plan.hasAlert = true
      return plan
    }
  }

  private static let shapes = [
    Shape(name: "one tumbling window by text", keySlots: [0], windows: [[minute, minute]], paneNanos: minute),
    Shape(name: "without keys", keySlots: [], windows: [[minute, minute]], paneNanos: minute, level1: [[3 * minute, minute]]),
    Shape(
      name: "tumbling and hopping by int", keySlots: [1], windows: [[minute, 20 * second], [2 * minute, 2 * minute]],
      paneNanos: 20 * second),
    Shape(
      name: "by float and flag", keySlots: [2, 6], windows: [[30 * second, 10 * second], [minute, minute]],
      paneNanos: 10 * second),
    Shape(
      name: "two levels by text and int", keySlots: [0, 1], windows: [[minute, minute], [5 * minute, minute]],
      paneNanos: minute, level1: [[3 * minute, 3 * minute], [5 * minute, minute]]),
  ]

  @Test(arguments: shapes)
  private func restoredRunsGoOnUnchanged(_ shape: Shape) throws {
    for seed in 0..<12 {
      var random = SeededRandom(UInt64(seed) &* 77 &+ UInt64(shape.name.utf8.count))
      let input = TestInput(partitions: 3, steps: 60, keys: 6, &random)
      var expectedPlan = shape.plan()
      expectedPlan.forNanos = seed % 2 == 0 ? 0 : 2 * minute
      expectedPlan.keepFiringNanos = seed % 3 == 0 ? 0 : minute
      let expected = TestEngine(expectedPlan, shards: [1, 2, 3][seed % 3], partitions: 3)
      input.run(expected, 0..<60)
      input.finish(expected)

      // The same, through 1, 2, 8 and 1 shards, with a barrier between each two of them.
      var plan = expectedPlan
      plan.lines = Lines()
      var cuts = [0] + (0..<3).map { _ in Int.random(in: 1..<60, using: &random) }.sorted() + [60]
      cuts.sort()
      var parts: [StoredPart] = []
      var watermarks = Array(repeating: beforeAllTime, count: 3)
      var alerts: [String] = []
      for (index, shards) in [1, 2, 8, 1].enumerated() {
        let engine = TestEngine(plan, shards: shards, partitions: 3)
        try engine.restore(parts, watermarks: watermarks)
        input.run(engine, cuts[index]..<cuts[index + 1])
        // Encoded after more rows have come: the capture is of the barrier.
        let sections = engine.capture()
        watermarks = engine.watermarks
        alerts += engine.alerts
        if index < 3 {
          let known = plan.lines.all.count
          input.run(engine, cuts[index + 1]..<min(60, cuts[index + 1] + 7))
          parts = sections.map { $0.encoded() }
          let lines = Lines()
          for line in plan.lines.all.prefix(known) { lines.add(line) }
          plan.lines = lines
        } else {
          let known = engine.alerts.count
          input.finish(engine)
          alerts += engine.alerts.dropFirst(known)
        }
      }
      let lines = (plan.lines.all + alerts).sorted()
      #expect(!expected.lines.isEmpty)
      expectSameLines(lines, expected.lines, "seed \(seed)")
    }
  }

  @Test(arguments: shapes, [1, 2, 5])
  private func encodingWhatWasRestoredGivesTheSameBytes(_ shape: Shape, _ shards: Int) throws {
    for seed in 0..<6 {
      var random = SeededRandom(UInt64(seed) &+ 900)
      let input = TestInput(partitions: 3, steps: 40, keys: 9, &random)
      let engine = TestEngine(shape.plan(), shards: shards, partitions: 3)
      input.run(engine, 0..<40)
      let parts = engine.stored()
      let other = TestEngine(shape.plan(), shards: shards, partitions: 3)
      try other.restore(parts, watermarks: Array(repeating: beforeAllTime, count: 3))
      let again = other.stored()
      #expect(again.map(\.operatorID) == parts.map(\.operatorID))
      for (a, b) in zip(again, parts) {
        let isSame = a.bytes == b.bytes
        #expect(isSame, "\(a.operatorID), seed \(seed)")
      }
    }
  }
}

/// Tells the first line that differs, not all of them.
func expectSameLines(
  _ lines: [String], _ expected: [String], _ what: String, sourceLocation: SourceLocation = #_sourceLocation
) {
  guard lines != expected else { return }
  let extra = Set(lines).subtracting(expected).sorted().first ?? "-"
  let missing = Set(expected).subtracting(lines).sorted().first ?? "-"
  Issue.record(
    "\(what): \(lines.count) lines instead of \(expected.count); not expected: \(extra); missing: \(missing)",
    sourceLocation: sourceLocation)
}
