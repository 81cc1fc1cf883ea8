import Catalog
import Foundation
import Operators
import Planner
import RuleLang
import Testing

@testable import Runtime

/// Rules and input of a history; the same for all that differ in their faults alone.
struct SimulatedWorkload {
  struct Partition {
    var source: Int
    var partition: Int32
    /// Payloads, and when the broker got them: a time that no row is ahead of.
    var records: [(payload: [UInt8], time: Int64)]
  }
  static let format = SimulatedFormat(columns: ["ts", "key", "value", "counter", "seq"])

  var start: Int64
  var partitions: [Partition]
  var rules: RunningRules
  /// One metric more, one less, an annotation written anew.
  var nextRules: RunningRules
  /// Rules that are in one of the two sets only.
  var added: Set<String>
  var removed: Set<String>
  /// Whether a checkpoint that is lost changes what comes out.
  var learns: Bool

  private static let heads = """
    stream minutes = a | window tumbling 1m by key
      | aggregate n = count(), total = sum(value), worst = max(value), spread = stddev(value)
    stream sliding = a | window hopping 5m every 1m by key
      | aggregate n = count(), p = quantile(value, 0.9), kinds = distinct(seq), newest = last(value)
    stream steady = minutes | window tumbling 3m by key | aggregate highest = max(total), n = count()
    stream counters = b | window tumbling 1m by key | aggregate grown = increase(counter), mean = avg(value)

    """
  /// These join keys of several partitions.
  private static let globalHeads = """
    stream long = a | window tumbling 10m | aggregate n = count(), first_value = first(value)
    stream all_counters = counters | window tumbling 2m | aggregate grown = sum(grown)
    stream pairs = a | join b on key within 5s | window tumbling 1m by key
      | aggregate n = count(), total = sum(value), other = sum(b.counter)
    stream lonely = a | unless b on key within 6s after | window tumbling 1m by key | aggregate n = count()
    stream sides = b | left join a as before on key within 3s before | window hopping 2m every 1m by key
      | aggregate found = count(where before.seq is not null)
    stream both = minutes | join counters on key
    stream traces = b | derive took = value * 1s
      | trace by key gap 25s longest 2m { span key, parent key, service key, duration took }
    stream ended = traces | window tumbling 1m by key | aggregate spans = sum(spans), longest = max(duration)

    """
  private static let keyed: [(name: String, text: String)] = [
    ("rows", "metric rows = minutes.n"), ("total", "metric total = minutes.total"),
    ("spread", "metric spread = minutes.spread"), ("sliding_rows", "metric sliding_rows = sliding.n"),
    ("sliding_p", "metric sliding_p = sliding.p"), ("kinds", "metric kinds = sliding.kinds"),
    ("newest", "metric newest = sliding.newest"), ("steady_highest", "metric steady_highest = steady.highest"),
    ("growth", "metric growth = counters.grown"), ("mean", "metric mean = counters.mean"),
    (
      "High",
      "alert High { on minutes when worst > 90 for 3m keep_firing 2m severity page annotations { s: \"{key} {worst}\" } }"
    ),
    ("Busy", "alert Busy { on sliding when n > 3 for 7m severity ticket }"),
    ("Grown", "alert Grown { on counters when grown > 20 keep_firing 4m severity ticket }"),
    (
      "values",
      "slo values { on a by key bad value > 60 objective 90% over 8m "
        + "burn page when rate > 3 over 8m and 2m burn ticket when rate >= 2 over 5m }"
    ),
    ("Steady", "alert Steady { on steady when highest > 60 for 3m keep_firing 6m severity ticket }"),
  ]
  private static let global: [(name: String, text: String)] = [
    ("long_rows", "metric long_rows = long.n"), ("long_first", "metric long_first = long.first_value"),
    ("all_growth", "metric all_growth = all_counters.grown"), ("pair_rows", "metric pair_rows = pairs.n"),
    ("pair_total", "metric pair_total = pairs.total"), ("pair_other", "metric pair_other = pairs.other"),
    ("lonely_rows", "metric lonely_rows = lonely.n"), ("side_found", "metric side_found = sides.found"),
    ("trace_spans", "metric trace_spans = ended.spans"), ("trace_longest", "metric trace_longest = ended.longest"),
    ("Apart", "alert Apart { on both when n > 2 for 2m keep_firing 2m severity page }"),
    (
      "Meet",
      "alert MeetA { on minutes when worst > 70 for 1m severity ticket escalate to page after 3m }\n"
        + "alert MeetB { on counters when mean > 50 severity warning }\n"
        + "group Meet { alerts MeetA, MeetB by key wait 30s interval 2m repeat 5m }\n"
        + "alert Hushed { on counters when grown > 5 keep_firing 2m repeat 3m }\ninhibit Hushed when MeetA equal key"
    ),
  ]
  /// These know more than open windows tell, which a lost checkpoint takes with it.
  private static let learning: [(name: String, text: String)] = [
    ("scores", "metric scores = scored.score"),
    ("odd", "anomaly odd = minutes | zscore total baseline 6 windows warmup 3 threshold 1.0 smoothing none normalise none cooldown 2"),
    (
      "budget",
      "slo budget { on b by key bad value > 70 objective 90% over 40m burn page when rate > 2 over 6m and 2m }\n"
        + "metric budget_left = budget.budget_left by key"
    ),
  ]
  private static let learningHeads = """
    stream scored = minutes | zscore n baseline half_life 5 windows warmup 2 smoothing none normalise none

    """

  /// Without these the sources have nothing to do with each other, and one may run before the other has partitions.
  private static let joining: Set<String> = [
    "pair_rows", "pair_total", "pair_other", "lonely_rows", "side_found", "Apart", "Meet",
  ]

  init(data: UInt64, isShared: Bool) throws {
    var random = SeededRandom(data &* 977 &+ (isShared ? 1 : 0))
    start = testEpoch
    // Half of the inputs close a pane every few rows, so that something is always on its way between workers.
    let isSparse = Bool.random(using: &random)
    var partitions: [Partition] = []
    for (source, count) in [(0, Int.random(in: 1...3, using: &random)), (1, Int.random(in: 1...2, using: &random))] {
      for partition in 0..<count {
        let records = randomRecords(
          Int.random(in: 60...260, using: &random), from: start + Int64(partition) * 7 * second, keys: 3,
          stepNanosMax: Int64.random(in: isSparse ? 15...45 : 2...12, using: &random) * second, boundNanos: (source == 0 ? 10 : 20) * second,
          lateOneIn: 25, garbageOneIn: 40, random: &random)
        var front = start
        partitions.append(
          Partition(
            source: source, partition: Int32(partition),
            records: records.map { record in
              if !record.isGarbage { front = max(front, record.time) }
              return (Self.payload(record, isShared ? "p\(partition)" : ""), front)
            }))
      }
    }
    self.partitions = partitions
    let apart = data % 4 == 1
    learns = !isShared && data % 4 == 2
    let all = Self.keyed + (learns ? Self.learning : []) + (isShared ? [] : Self.global.filter { !apart || !Self.joining.contains($0.name) })
    var chosen = all.filter { _ in Int.random(in: 0..<3, using: &random) > 0 }
    // Both sources are read, whatever the dice say.
    for name in ["rows", "growth"] where !chosen.contains(where: { $0.name == name }) {
      chosen += all.filter { $0.name == name }
    }
    let metrics = chosen.filter { $0.text.hasPrefix("metric") && !["rows", "growth"].contains($0.name) }
    // A detector that comes learns from then on: what it says is not what it would have said from the beginning.
    let spare = all.filter { rule in
      rule.text.hasPrefix("metric") && !(chosen + Self.learning).contains { $0.name == rule.name }
    }
    let removed = metrics.randomElement(using: &random)
    let left = chosen.filter { $0.name != removed?.name }
    let old = try Self.program(chosen, isShared)
    // One that costs the others nothing: what a change may cost is another test's matter.
    let added = try spare.shuffled(using: &random).first { rule in
      !RuleSetChange(from: old, to: try Self.program(left + [rule], isShared)).losesState
    }
    self.removed = Set([removed?.name].compactMap { $0 })
    self.added = Set([added?.name].compactMap { $0 })
    rules = RunningRules(graph: buildPlan(old).lower(), revision: "one")
    nextRules = RunningRules(
      graph: buildPlan(try Self.program(left + [added].compactMap { $0 }, isShared)).lower(), revision: "two")
  }

  private static func program(_ rules: [(name: String, text: String)], _ isShared: Bool) throws -> TypedProgram {
    let result = compileRules(
      [SourceFile(path: "test.rules", text: text(rules, isShared))],
      catalog: makeCatalog(formats: [FormatSpec(name: "json", summary: "JSON")]))
    return try #require(result.program, "\(result.diagnostics.map(\.message))")
  }

  private static func text(_ rules: [(name: String, text: String)], _ isShared: Bool) -> String {
    let sources = ["a", "b"].map { name in
      testSource(name, watermark: name == "a" ? "10s" : "20s", idle: "1h")
        .replacingOccurrences(of: "source \(name) {", with: "source \(name) { kafka \"topic.\(name)\" format json")
        .replacingOccurrences(of: "idle 1h", with: isShared ? "idle 1h partitioned by key" : "idle 1h")
    }
    return sources.joined() + heads + learningHeads + (isShared ? "" : globalHeads) + rules.map(\.text).joined(separator: "\n")
  }

  private static func payload(_ record: TestRecord, _ prefix: String) -> [UInt8] {
    if record.isGarbage { return Array("garbage".utf8) }
    return SimulatedFormat.payload([
      "\(record.time)", prefix + record.key, record.value.map { "\($0)" } ?? "", "\(record.counter)", "\(record.seq)",
    ])
  }
}
