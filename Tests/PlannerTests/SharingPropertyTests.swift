import Catalog
import Testing

/// Sharing changes what is computed once, never what comes out: a random set of rules over random rows writes, compiled
/// together, what its rules write compiled one by one.
@Suite struct SharingPropertyTests {
  @Test(arguments: 0..<40) func togetherAsOneByOne(_ seed: Int) throws {
    var random = Random(seed: UInt64(seed))
    let rules = (0..<random.int(6...24)).map { RandomRule($0, &random) }
    let partitions = (0..<random.int(1...3)).map { _ in RandomRows.partition(&random) }
    let together = try output(RandomRows.source + rules.map(\.text).joined(), partitions)
    var apart: [String] = []
    for rule in rules { apart += try output(RandomRows.source + rule.text, partitions) }
    #expect(together.sorted() == apart.sorted(), "\(rules.map(\.text).joined())")
    #expect(!together.isEmpty)
  }

  @Test(arguments: 0..<12) func workersAndBatchesChangeNothing(_ seed: Int) throws {
    var random = Random(seed: UInt64(1_000 + seed))
    let rules = (0..<8).map { RandomRule($0, &random).text }.joined()
    let partitions = (0..<3).map { _ in RandomRows.partition(&random) }
    let expected = try output(RandomRows.source + rules, partitions)
    for (workers, batchRows) in [(1, 1), (2, 7), (3, 64), (4, 4_096)] {
      let lines = try output(RandomRows.source + rules, partitions, workers: workers, batchRows: batchRows)
      #expect(lines == expected, "\(workers) workers, batches of \(batchRows)")
    }
  }
}

/// Aggregations by the same columns number their keys together, until those are too many (`KeyCoder`).
@Suite struct SharedKeysTests {
  private static func rows(_ seed: UInt64, keys: ClosedRange<Int>) -> [MemoryReader.Row] {
    var random = Random(seed: seed)
    return (0..<12_000).map { number in
      // Few at first; then more than are numbered.
      let key = random.int(0...(number < 4_000 ? keys.lowerBound : keys.upperBound))
      return [
        "ts": .timestamp((1_800_000_000_000 + Int64(number) * 10) * 1_000_000), "service": .string("service-\(key)"),
        "region": random.chance(10) ? .null : .string(random.pick(["eu", "us"])),
        "status": .int(Int64(random.pick([200, 404, 500]))), "latency": .null, "size": .bytes(1), "retries": .null,
      ]
    }
  }

  @Test(arguments: [(40...60, 4_096), (40...9_000, 4_096), (40...9_000, 100), (4_000...5_000, 7)])
  func togetherAsOneByOne(_ keys: ClosedRange<Int>, _ batchRows: Int) throws {
    let rules = [
      "where status == 500 | window tumbling 1m by service", "where status >= 404 | window tumbling 10s by service",
      "window tumbling 10s by service limit 50 keys", "where region == \"eu\" | window hopping 1m every 30s by service, region",
      "window tumbling 1m by region, service", "window tumbling 30s by region", "where status != 200 | window tumbling 30s by region",
      "where status == 404 | window tumbling 10s by service, region",
    ].enumerated().map { number, stages in
      "stream s\(number) = requests | \(stages) | aggregate n = count()\nmetric r\(number) = s\(number).n\n"
    }
    let partitions = [Self.rows(1, keys: keys), Self.rows(2, keys: keys)]
    let together = try output(RandomRows.source + rules.joined(), partitions, batchRows: batchRows)
    var apart: [String] = []
    for rule in rules { apart += try output(RandomRows.source + rule, partitions, batchRows: batchRows) }
    #expect(together.count > 500)
    #expect(together.sorted() == apart.sorted())
  }
}

/// A partition's watermark lies before all time until its first good row.
@Suite struct FirstRowTests {
  @Test(arguments: [1, 7, 4_096]) func refusedRowsMayComeFirst(_ batchRows: Int) throws {
    var rows: [MemoryReader.Row] = []
    for number in 0..<20 {
      rows.append([
        "ts": .timestamp(1_800_000_000_000_000_000), "service": .string("a"), "status": .int(200),
        "size": .bytes(number < 10 ? -1 : 1),
      ])
    }
    let rules = """
      \(RandomRows.source)stream s = requests | window tumbling 7s by service | aggregate n = count()
      metric m = s.n
      """
    let lines = try output(rules, [rows, []], batchRows: batchRows)
    #expect(lines.count == 1 && lines[0].contains("\"values\":{\"value\":10}"))
  }
}

/// SplitMix64: the same numbers from the same seed everywhere.
struct Random {
  private var state: UInt64
  /// Mixed, or the numbers of one seed would be those of its neighbour, one later.
  init(seed: UInt64) { state = Self.mix(seed) }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    return Self.mix(state)
  }
  private static func mix(_ number: UInt64) -> UInt64 {
    var mixed = number
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed >> 31
  }
  mutating func int(_ range: ClosedRange<Int>) -> Int {
    range.lowerBound + Int(next() % UInt64(range.count))
  }
  mutating func pick<T>(_ choices: [T]) -> T { choices[int(0...choices.count - 1)] }
  mutating func chance(_ percent: Int) -> Bool { int(1...100) <= percent }
}

enum RandomRows {
  static let source = """
    source requests {
      time ts  watermark 5s
      fields {
        ts: timestamp(ms), service: string, region: string?, status: int, latency: duration(ms)?,
        size: bytes, retries: int?
      }
      require size >= 0B else "negative size"
    }

    """

  /// Rows of some minutes, a little out of order, with nulls, late ones and ones that a requirement refuses.
  static func partition(_ random: inout Random) -> [MemoryReader.Row] {
    var time: Int64 = 1_800_000_000_000
    return (0..<random.int(50...400)).map { _ in
      time += Int64(random.int(0...1_500))
      // Quarters, so that sums are exact: how windows are cut into panes decides the order of additions.
      return [
        "ts": .timestamp((time - Int64(random.chance(3) ? 9_000 : random.int(0...4_000))) * 1_000_000),
        "service": .string(random.pick(["ranker", "suggest", "index", ""])),
        "region": random.chance(20) ? .null : .string(random.pick(["eu", "us"])),
        "status": .int(Int64(random.pick([200, 200, 204, 404, 500, 503]))),
        "latency": random.chance(10) ? .null : .duration(Double(random.int(0...4_000)) * 250_000),
        "size": .bytes(random.chance(2) ? -1 : Double(random.int(0...100_000))),
        "retries": random.chance(50) ? .null : .int(Int64(random.int(0...5))),
      ]
    }
  }
}

/// A stream and a metric or an alert on it. Few choices each, so that rules often have something in common.
struct RandomRule {
  var text: String

  init(_ number: Int, _ random: inout Random) {
    text = "stream s\(number) = requests"
    if random.chance(35) {
      let conditions = (0..<random.int(1...3)).map { _ in
        random.pick([
          "service == \"ranker\"", "service == \"suggest\"", "\"index\" == service", "region == \"eu\"",
          "status == 500", "status >= 500", "500 <= status", "latency > 300ms", "region is not null",
          "(status == 404 or retries > 2)", "starts_with(service, \"r\")", "retries in (1, 2, 3)",
        ])
      }
      text += "\n  | where \(conditions.joined(separator: " and "))"
    }
    let derived = random.pick(["d", "e"])
    text += "\n  | derive \(derived) = \(random.pick(["latency * 2", "latency + 1s", "coalesce(latency, 0s)"]))"
    if random.chance(30) { text += "\n  | where \(derived) > 400ms" }
    let window = random.pick([
      "tumbling 10s", "tumbling 30s", "tumbling 1m", "hopping 1m every 30s", "hopping 2m every 1m",
      "tumbling 7s",
    ])
    let keys = random.pick([["service"], ["service"], ["service"], ["status"], ["region", "service"], []])
    text += "\n  | window \(window)\(keys.isEmpty ? "" : " by \(keys.joined(separator: ", "))")"
    let aggregates = [
      "count(where status >= 500)", "count(where latency > 500ms)", "count(where status < 300 and latency > 500ms)",
      "count(where 500ms < latency and 300 > status)", "sum(size)", "sum(size, where status < 500)", "avg(latency)", "max(\(derived))",
      "min(\(derived), where status < 500)", "quantile(latency, 0.9)", "quantile(latency, 0.5)",
      "quantile(\(derived), 0.99)", "distinct(region)", "sum(retries)", "first(status)", "last(retries)",
      "rate()",
    ]
    text += "\n  | aggregate n = count(), a = \(random.pick(aggregates)), b = \(random.pick(aggregates))"
    if random.chance(30) { text += "\n  | where n >= 2" }
    if random.chance(25), !keys.isEmpty, !window.hasPrefix("hopping"), window != "tumbling 7s" {
      text += "\n  | window tumbling 2m by \(keys[0]) | aggregate n = sum(n), a = max(n), b = count()"
    }
    switch random.int(1...3) {
    case 1:
      text += "\nalert r\(number) { on s\(number)  when n > \(random.int(1...4))  for \(random.pick(["0s", "1m"]))"
      text += " severity page annotations { summary: \"{n} {a}\" } }\n"
    default: text += "\nmetric r\(number) = s\(number).\(random.pick(["n", "a", "b"]))\n"
    }
  }
}
