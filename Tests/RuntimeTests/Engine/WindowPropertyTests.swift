import Foundation
import Testing

@testable import Runtime

/// Windows over random rows in disorder equal a slow reference, and are the same bytes however they are
/// computed.
@Suite struct WindowPropertyTests {
  private struct Window: Hashable {
    var rule: String
    var end: Int64
    var key: String
  }

  private static let rules =
    testSource("a", watermark: "10s")
      + """
      stream minutes = a | window tumbling 1m by key
        | aggregate n = count(), total = sum(value), lowest = min(value), some = count(where value > 0)
      metric rows = minutes.n
      metric total = minutes.total
      metric lowest = minutes.lowest
      metric some = minutes.some
      stream sliding = a where value > -50 | window hopping 90s every 30s by key | aggregate n = count()
      metric sliding_rows = sliding.n
      stream fives = minutes | window tumbling 5m | aggregate keys = count(), total = sum(total), most = max(n)
      metric five_keys = fives.keys
      metric five_total = fives.total
      metric five_most = fives.most
      stream one = a where key == "k1" | window hopping 10s every 5s | aggregate newest = last(seq), n = count()
      metric one_newest = one.newest
      """

  /// Rows in time, by the definition: a row is late when it lies before the largest time so far, less the
  /// bound.
  private func inTime(_ records: [TestRecord]) -> (rows: [TestRecord], late: Int, dead: Int) {
    var rows: [TestRecord] = []
    var front = Int64.min
    var late = 0
    var dead = 0
    for record in records {
      if record.isGarbage || record.seq < 0 {
        dead += 1
      } else if front > Int64.min, record.time < front - 10 * second {
        late += 1
      } else {
        rows.append(record)
        front = max(front, record.time)
      }
    }
    return (rows, late, dead)
  }

  /// Ends of the windows that hold a time.
  private func ends(_ time: Int64, size: Int64, hop: Int64) -> [Int64] {
    var end = (time / hop + 1) * hop
    var result: [Int64] = []
    while end - size <= time {
      result.append(end)
      end += hop
    }
    return result
  }

  private func reference(_ partitions: [[TestRecord]]) -> [Window: Double] {
    var result: [Window: Double] = [:]
    var minutes: [Int64: [String: [TestRecord]]] = [:]
    var newest: [Int64: (time: Int64, partition: Int, place: Int, seq: Int64)] = [:]
    for (partition, rows) in partitions.enumerated() {
      for (place, row) in rows.enumerated() {
        minutes[ends(row.time, size: minute, hop: minute)[0], default: [:]][row.key, default: []].append(row)
        if let value = row.value, value > -50 {
          for end in ends(row.time, size: 90 * second, hop: 30 * second) {
            result[Window(rule: "sliding_rows", end: end, key: row.key), default: 0] += 1
          }
        }
        guard row.key == "k1" else { continue }
        for end in ends(row.time, size: 10 * second, hop: 5 * second) {
          let candidate = (time: row.time, partition: partition, place: place, seq: row.seq)
          if let known = newest[end],
            (known.time, known.partition, known.place) > (row.time, partition, place)
          {
            continue
          }
          newest[end] = candidate
        }
      }
    }
    for (end, last) in newest { result[Window(rule: "one_newest", end: end, key: "")] = Double(last.seq) }
    for (end, keys) in minutes {
      let five = ends(end - 1, size: 5 * minute, hop: 5 * minute)[0]
      for (key, rows) in keys {
        let values = rows.compactMap(\.value)
        let total = values.reduce(0, +)
        result[Window(rule: "rows", end: end, key: key)] = Double(rows.count)
        result[Window(rule: "total", end: end, key: key)] = total
        result[Window(rule: "lowest", end: end, key: key)] = values.min()
        result[Window(rule: "some", end: end, key: key)] = Double(values.count { $0 > 0 })
        result[Window(rule: "five_keys", end: five, key: ""), default: 0] += 1
        result[Window(rule: "five_total", end: five, key: ""), default: 0] += total
        let most = Window(rule: "five_most", end: five, key: "")
        result[most] = max(result[most] ?? 0, Double(rows.count))
      }
    }
    return result
  }

  private func parsed(_ line: String) throws -> (window: Window, value: Double)? {
    let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
    guard object["type"] as? String == "metric" else { return nil }
    let format = ISO8601DateFormatter()
    format.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    let time = try #require((object["time"] as? String).flatMap(format.date))
    let labels = try #require(object["labels"] as? [String: String])
    let values = try #require(object["values"] as? [String: NSNumber])
    let rule = try #require(object["rule"] as? String)
    let end = Int64((time.timeIntervalSince1970 * 1_000).rounded()) * 1_000_000
    return (
      Window(rule: rule, end: end, key: labels["key"] ?? ""), try #require(values["value"]).doubleValue
    )
  }

  @Test(arguments: 1...4)
  func equalAReferenceAndThemselves(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed))
    let graph = try graph(Self.rules)
    let histories = (0..<3).map { partition in
      randomRecords(
        700, from: testEpoch + Int64(partition) * 7 * second, keys: 4,
        stepNanosMax: [4, 2, 6][partition] * second,
        boundNanos: 10 * second, lateOneIn: 20, garbageOneIn: 60, random: &random)
    }
    func logs() -> [MemoryLog] { histories.enumerated().map { log(0, Int32($0), $1) } }
    let first = try runRecorded(graph, logs())
    for workers in [1, 2, 4] {
      for batchRows in [1, 7, 4_096] {
        let again = try runRecorded(graph, logs(), workers: workers, batchRows: batchRows)
        #expect(again == first, "\(workers) workers, batches of \(batchRows)")
      }
    }
    let kept = histories.map(inTime)
    let expected = reference(kept.map(\.rows))
    var seen: [Window: Double] = [:]
    for line in first {
      guard let (window, value) = try parsed(line) else { continue }
      #expect(seen.updateValue(value, forKey: window) == nil, "twice: \(window)")
    }
    #expect(seen == expected)
    #expect(first.count { $0.contains("\"reason\":\"late\"") } == kept.reduce(0) { $0 + $1.late })
    #expect(first.count { $0.contains("dead_letter") } == kept.reduce(0) { $0 + $1.dead })
    #expect(kept.allSatisfy { $0.late > 5 && $0.dead > 3 })
    #expect(Set(first.map(recordID)).count == first.count)
  }

  /// (time, rule, key) is the order, and a recording's does not depend on how fast its partitions are.
  @Test func outputIsInOrderOfTimeRuleAndKey() throws {
    var random = SeededRandom(99)
    let records = randomRecords(
      900, from: testEpoch, keys: 5, stepNanosMax: 3 * second, boundNanos: 10 * second, lateOneIn: 0,
      garbageOneIn: 0, random: &random)
    let lines = try runRecorded(graph(Self.rules), [log(0, 0, records)], workers: 3, batchRows: 16)
    let places = try lines.compactMap { line -> (Int64, String, String)? in
      guard let window = try parsed(line)?.window else { return nil }
      return (window.end, window.rule, window.key)
    }
    for (a, b) in zip(places, places.dropFirst()) { #expect(a < b) }
    #expect(places.count == lines.count)
  }
}
