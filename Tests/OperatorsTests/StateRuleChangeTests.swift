import Catalog
import Testing

@testable import Operators
@testable import Runtime

/// Rules change between a barrier and its restore. Against a run that had the new rules from the beginning: what is
/// emitted is never half-filled, windows that are kept miss nothing, new ones begin when they are whole, and all that does
/// not depend on the number of shards.
@Suite struct StateRuleChangeTests {
  struct Change: Sendable, CustomTestStringConvertible {
    var name: String
    /// Rules before, then each set of rules that takes over. Sizes and hops in seconds.
    var sets: [Rules]
    var testDescription: String { name }
  }

  struct Rules: Sendable {
    var aggregates: [String]
    var windows: [[Int64]]
    var paneSeconds: Int64
    var level1: [[Int64]] = []

    func plan() -> TestPlan {
      var plan = TestPlan()
      plan.aggregates = aggregates.map { id in
        allAggregates.firstIndex { $0.state.id == id } ?? allAggregates.count
      }
      plan.windows = windows.map { ($0[0] * second, $0[1] * second) }
      plan.paneNanos = paneSeconds * second
      plan.level1 = level1.map { ($0[0] * second, $0[1] * second) }
      plan.level1PaneNanos = minute
      return plan
    }
  }

  /// Sums of doubles may differ in the last bit where panes are cut in another way, so they are left out.
  private static let exact = [
    "count()", "count(flag)", "sum(i)", "min(d)", "max(i)", "quantile(d)", "distinct(t)", "first(t)", "last(d)",
    "increase(c)",
  ]
  private static let some = ["count()", "sum(i)", "last(d)"]

  static let changes = [
    Change(
      name: "the same rules in another order",
      sets: [
        Rules(aggregates: exact, windows: [[60, 60], [120, 60]], paneSeconds: 60),
        Rules(aggregates: exact.reversed(), windows: [[120, 60], [60, 60]], paneSeconds: 60),
      ]),
    Change(
      name: "an aggregate less",
      sets: [
        Rules(aggregates: exact, windows: [[60, 20]], paneSeconds: 20),
        Rules(aggregates: some, windows: [[60, 20]], paneSeconds: 20),
      ]),
    Change(
      name: "an aggregate more",
      sets: [
        Rules(aggregates: some, windows: [[60, 20], [120, 120]], paneSeconds: 20),
        Rules(aggregates: exact, windows: [[60, 20], [120, 120]], paneSeconds: 20),
      ]),
    Change(
      name: "a window more, of the same panes",
      sets: [
        Rules(aggregates: exact, windows: [[60, 60]], paneSeconds: 60),
        Rules(aggregates: exact, windows: [[60, 60], [180, 60]], paneSeconds: 60),
      ]),
    Change(
      name: "a window more, of shorter panes",
      sets: [
        Rules(aggregates: exact, windows: [[60, 60]], paneSeconds: 60),
        Rules(aggregates: exact, windows: [[20, 10], [60, 60]], paneSeconds: 10),
      ]),
    Change(
      name: "a window less, longer panes",
      sets: [
        Rules(aggregates: exact, windows: [[20, 10], [60, 60]], paneSeconds: 10),
        Rules(aggregates: exact, windows: [[60, 60]], paneSeconds: 60),
      ]),
    Change(
      name: "panes that do not divide each other",
      sets: [
        Rules(aggregates: exact, windows: [[120, 120], [40, 40]], paneSeconds: 40),
        Rules(aggregates: exact, windows: [[120, 120], [60, 60]], paneSeconds: 60),
      ]),
    Change(
      name: "shorter panes and an aggregate more at once",
      sets: [
        Rules(aggregates: some, windows: [[60, 60]], paneSeconds: 60),
        Rules(aggregates: exact, windows: [[60, 60], [30, 30]], paneSeconds: 30),
      ]),
    Change(
      name: "one change shortly after another",
      sets: [
        Rules(aggregates: some, windows: [[60, 60]], paneSeconds: 60),
        Rules(aggregates: ["count()", "last(d)"], windows: [[60, 60], [20, 20]], paneSeconds: 20),
        Rules(aggregates: exact, windows: [[60, 60], [20, 20], [10, 10]], paneSeconds: 10),
        Rules(aggregates: exact, windows: [[60, 60], [30, 30]], paneSeconds: 30),
      ]),
    Change(
      name: "an aggregate more below a second level",
      sets: [
        Rules(aggregates: some, windows: [[60, 60]], paneSeconds: 60, level1: [[180, 60], [120, 120]]),
        Rules(aggregates: exact, windows: [[60, 60]], paneSeconds: 60, level1: [[180, 60], [120, 120]]),
      ]),
    Change(
      name: "another window at the second level",
      sets: [
        Rules(aggregates: some, windows: [[60, 60]], paneSeconds: 60, level1: [[180, 60]]),
        Rules(aggregates: some, windows: [[60, 60]], paneSeconds: 60, level1: [[180, 60], [300, 60]]),
      ]),
  ]

  @Test(arguments: changes)
  func whatIsKeptGoesOnAndWhatIsNewBeginsWhole(_ change: Change) throws {
    var begun = 0
    for seed in 0..<5 {
      var random = SeededRandom(UInt64(seed &* 13 &+ 1))
      let input = TestInput(partitions: 3, steps: 75, keys: 5, &random)
      let expected = TestEngine(change.sets[change.sets.count - 1].plan(), shards: 1, partitions: 3)
      input.run(expected, 0..<75)
      input.finish(expected)
      var cuts = [Int.random(in: 15..<40, using: &random)]
      for _ in change.sets.dropFirst(2) { cuts.append((cuts.last ?? 0) + Int.random(in: 1..<4, using: &random)) }

      var results: [[String]] = []
      for shards in [[1, 1], [2, 1], [1, 4], [3, 3]] {
        var parts: [StoredPart] = []
        var watermarks = Array(repeating: beforeAllTime, count: 3)
        var start = 0
        for (index, rules) in change.sets.enumerated() {
          let engine = TestEngine(rules.plan(), shards: shards[index % 2], partitions: 3)
          try engine.restore(parts, watermarks: watermarks)
          if index == change.sets.count - 1 {
            input.run(engine, start..<75)
            input.finish(engine)
            results.append(engine.lines)
          } else {
            input.run(engine, start..<cuts[index])
            start = cuts[index]
            parts = engine.stored()
            watermarks = engine.watermarks
          }
        }
        begun += try compare(
          results[results.count - 1], expected.lines, change, barrier: watermarks.min() ?? 0,
          front: input.front(before: start), "seed \(seed), \(shards) shards")
      }
      for result in results { expectSameLines(result, results[0], "seed \(seed), by shards") }
    }
    #expect(begun > 0)
  }

  /// Returns how many lines are those of windows that were not there before.
  private func compare(
    _ lines: [String], _ expected: [String], _ change: Change, barrier: Int64, front: Int64, _ what: String
  ) throws -> Int {
    let last = change.sets[change.sets.count - 1]
    let sets = change.sets
    func isKept(_ size: Int64, _ hop: Int64, _ level1: Bool) -> Bool {
      sets.allSatisfy { (level1 ? $0.level1 : $0.windows).contains([size, hop]) }
        && Set(sets[0].aggregates).isSuperset(of: last.aggregates)
        && sets.allSatisfy { Set($0.aggregates).isSuperset(of: last.aggregates) }
    }
    let known = Set(expected)
    if let wrong = lines.first(where: { !known.contains($0) }) { Issue.record("\(what): not whole: \(wrong)") }
    #expect(Set(lines).count == lines.count, "\(what): a line twice")
    let there = Set(lines)
    var begun = 0
    for line in expected {
      let (end, size, hop, level1) = try parse(line)
      let kept = isKept(size, hop, level1)
      // New windows: behind every row that was read, the longest pane, what `increase` looks back, and the window below.
      let since = kept ? end > barrier : end - size >= front + 120 * second + 300 * second + (level1 ? 180 * second : 0)
      if since, !there.contains(line) {
        Issue.record("\(what), \(kept ? "kept" : "new"): missing \(line), the barrier is at \(barrier)")
        return begun
      }
      if !kept, there.contains(line) { begun += 1 }
    }
    return kept(in: last, isKept) ? begun + 1 : begun
  }

  /// Whether every window is kept, so that none begins.
  private func kept(in rules: Rules, _ isKept: (Int64, Int64, Bool) -> Bool) -> Bool {
    rules.windows.allSatisfy { isKept($0[0], $0[1], false) } && rules.level1.allSatisfy { isKept($0[0], $0[1], true) }
  }

  private func parse(_ line: String) throws -> (end: Int64, size: Int64, hop: Int64, level1: Bool) {
    let words = line.split(separator: " ", maxSplits: 2)
    let end = try #require(Int64(words[0]))
    let level1 = words[1].hasPrefix("second:")
    let sizes = words[1].drop { !$0.isNumber }.split(separator: "/")
    return (
      end, try #require(Int64(sizes[0])) * second, try #require(Int64(sizes[1])) * second, level1
    )
  }

  @Test func anOperatorThatWasNotStoredStartsBehindWhatWasRead() throws {
    for seed in 0..<6 {
      var random = SeededRandom(UInt64(seed))
      let input = TestInput(partitions: 2, steps: 60, keys: 4, &random)
      let rules = Rules(
        aggregates: Self.exact, windows: [[60, 20], [120, 120]], paneSeconds: 20, level1: [[180, 60]])
      let expected = TestEngine(rules.plan(), shards: 1, partitions: 2)
      input.run(expected, 0..<60)
      input.finish(expected)
      let before = TestEngine(rules.plan(), shards: 1, partitions: 2)
      input.run(before, 0..<20)

      let engine = TestEngine(rules.plan(), shards: 2, partitions: 2)
      engine.startAll(missingBefore: input.front(before: 20))
      try engine.restore([], watermarks: before.watermarks)
      input.run(engine, 20..<60)
      input.finish(engine)
      let known = Set(expected.lines)
      #expect(!engine.lines.isEmpty)
      for line in engine.lines where !known.contains(line) { Issue.record("seed \(seed): not whole: \(line)") }
    }
  }
}
