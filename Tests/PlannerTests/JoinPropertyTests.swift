import Catalog
import Foundation
import Testing

/// Joins over random rows, out of order and late, with nulls and duplicate keys, against pairs of nested loops.
@Suite struct JoinPropertyTests {
  private static let sources = ["l", "r"].map { name in
    """
    source \(name) {
      time ts  watermark 5s
      fields { ts: timestamp(ms), k: string?, g: int?, v: int }
    }

    """
  }.joined()
  private static let start = 1_795_230_000_000_000_000 as Int64
  private static let second = 1_000_000_000 as Int64

  struct Row {
    var time: Int64
    var k: String?
    var g: Int64?
    var v: Int64
    var isLate = false

    var values: MemoryReader.Row {
      [
        "ts": .timestamp(time), "k": k.map { .string($0) } ?? .null, "g": g.map { .int($0) } ?? .null, "v": .int(v),
      ]
    }
  }

  /// One row that comes out: when, and the values of both sides.
  struct Out: Hashable {
    var time: Int64
    var left: Int64
    var right: Int64?
  }

  enum Kind: String, CaseIterable { case join, left = "left join", unless }

  private static func partition(_ random: inout Random, _ keys: Int, hot: Bool) -> [Row] {
    var rows: [Row] = []
    var now = start
    var watermark = Int64.min
    for number in 0..<random.int(40...160) {
      now += Int64(random.int(0...1_500)) * 1_000_000
      var time = now
      if random.chance(6) { time -= Int64(random.int(5_001...60_000)) * 1_000_000 } else if random.chance(40) {
        time -= Int64(random.int(0...5_000)) * 1_000_000
      }
      time = max(time, start - 100 * second)
      var row = Row(time: time, k: nil, g: nil, v: Int64(number))
      if !random.chance(7) { row.k = hot && random.chance(50) ? "hot" : "k\(random.int(0...keys))" }
      if !random.chance(5) { row.g = Int64(random.int(0...2)) }
      row.isLate = time < watermark
      if !row.isLate { watermark = max(watermark, time - 5 * second) }
      rows.append(row)
    }
    return rows
  }

  private static func expected(
    _ left: [Row], _ right: [Row], _ kind: Kind, twoKeys: Bool, low: Int64, high: Int64
  ) -> [Out] {
    var out: [Out] = []
    for l in left where !l.isLate {
      var isMatched = false
      for r in right where !r.isLate {
        guard let a = l.k, let b = r.k, a == b else { continue }
        if twoKeys {
          guard let x = l.g, let y = r.g, x == y else { continue }
        }
        guard r.time - l.time >= low, r.time - l.time <= high else { continue }
        isMatched = true
        if kind != .unless { out.append(Out(time: max(l.time, r.time), left: l.v, right: r.v)) }
      }
      if !isMatched, kind != .join { out.append(Out(time: l.time + high, left: l.v, right: nil)) }
    }
    return out
  }

  @Test(arguments: 0..<48) func agreesWithNestedLoops(_ seed: Int) throws {
    var random = Random(seed: UInt64(seed))
    let kind = Kind.allCases[seed % 3]
    let within = Int64([0, 1, 3, 10, 60][random.int(0...4)])
    let direction = ["", " before", " after"][seed / 3 % 3]
    let twoKeys = random.chance(40)
    let keys = random.int(1...12)
    let hot = random.chance(50)
    // Values tell rows apart over all partitions.
    var left: [[Row]] = []
    var right: [[Row]] = []
    for number in 0..<random.int(1...3) {
      left.append(Self.partition(&random, keys, hot: hot).map { row in
        var row = row
        row.v += Int64(number) * 1_000
        return row
      })
    }
    for number in 0..<random.int(1...2) {
      right.append(Self.partition(&random, keys, hot: hot).map { row in
        var row = row
        row.v += Int64(number) * 1_000
        return row
      })
    }
    let low = direction == " after" ? 0 : -within * Self.second
    let high = direction == " before" ? 0 : within * Self.second
    let wanted = Self.expected(
      left.flatMap { $0 }, right.flatMap { $0 }, kind, twoKeys: twoKeys, low: low, high: high)
    let other = kind == .unless ? "" : ", other = r.v"
    let rules = """
      \(Self.sources)stream joined = l
        | \(kind.rawValue) r on k\(twoKeys ? ", g" : "") within \(within)s\(direction)
        | derive mine = v\(other)
      stream rows = joined | window tumbling 1ms by mine\(kind == .unless ? "" : ", other") | aggregate n = count()
      metric row = rows.n
      """
    let sources = ["l": left.map { $0.map(\.values) }, "r": right.map { $0.map(\.values) }]
    let lines = try output(rules, sources: sources)
    #expect(lines.map(Self.parsed).sorted() == Self.texts(wanted), "\(rules)")
    for (workers, batchRows) in [(1, 1), (2, 7), (4, 4_096)] {
      let again = try output(rules, sources: sources, workers: workers, batchRows: batchRows)
      #expect(again == lines, "\(workers) workers, batches of \(batchRows)")
    }
  }

  /// Rows of one millisecond and one pair of values are counted.
  private static func texts(_ out: [Out]) -> [String] {
    var counts: [String: Int] = [:]
    for row in out {
      let end = row.time / 1_000_000 + 1
      counts["\(end) \(row.left) \(row.right.map { "\($0)" } ?? "-")", default: 0] += 1
    }
    return counts.map { "\($0.key) x\($0.value)" }.sorted()
  }

  private static func parsed(_ line: String) -> String {
    guard let object = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any],
      let labels = object["labels"] as? [String: String], let time = object["time"] as? String,
      let values = object["values"] as? [String: Any], let count = values["value"] as? Int
    else { return "unreadable: \(line)" }
    let formatter = ISO8601DateFormatter()
    formatter.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    let seconds = formatter.date(from: time)?.timeIntervalSince1970 ?? 0
    return "\(Int64((seconds * 1_000).rounded())) \(labels["mine"] ?? "?") \(labels["other"] ?? "-") x\(count)"
  }

  /// A key with more rows than the limit: what is not kept is counted, pairs of what is kept are all there, and `unless`
  /// raises no false alarm.
  @Test func limitsAreKept() throws {
    let rows = (0..<50).map { Row(time: Self.start + Int64($0) * 1_000_000, k: "hot", g: 0, v: Int64($0)) }
    let one = [Row(time: Self.start + 100_000_000, k: "hot", g: 0, v: 1_000)]
    func count(_ stage: String, _ left: [Row], _ right: [Row]) throws -> Int {
      let rules = """
        \(Self.sources)stream s = l | \(stage) | window tumbling 1h | aggregate n = count()
        metric m = s.n
        """
      let lines = try output(rules, sources: ["l": [left.map(\.values)], "r": [right.map(\.values)]])
      return lines.reduce(0) { sum, line in
        sum + (Int(line.components(separatedBy: "\"value\":")[1].prefix { $0.isNumber }) ?? 0)
      }
    }
    #expect(try count("join r on k within 10s", rows, one) == 50)
    #expect(try count("join r on k within 10s limit 20 rows", rows, one) == 20)
    #expect(try count("unless r on k within 10s limit 1 rows", one, rows) == 0)
    #expect(try count("left join r on k within 10s limit 20 rows", one, rows) == 20)
    let late = [Row(time: Self.start + 60_000_000_000, k: "hot", g: 0, v: 1)]
    #expect(try count("unless r on k within 10s limit 1 rows", late, rows) == 1)
  }
}
