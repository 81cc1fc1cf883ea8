import Foundation
import Testing

@testable import Traffic

private let start: Int64 = 1_795_230_000_000_000_000  // 2026-11-21T03:00:00Z

private func options(
  _ scenario: TrafficScenario = .steady, minutes: Int64, rate: Double = 50, seed: UInt64 = 7
) -> SearchTrafficOptions {
  var options = SearchTrafficOptions(startNanos: start)
  options.scenario = scenario
  options.durationNanos = minutes * 60_000_000_000
  options.requestsPerSecond = rate
  options.seed = seed
  return options
}

private struct Row {
  var topic: TrafficTopic
  var arrivalNanos: Int64
  var eventNanos: Int64
  var text: String
  var key: String
  var json: [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any] ?? [:]
  }
}

private func rows(_ options: SearchTrafficOptions, batch size: Int = 1_024) -> [Row] {
  var traffic = SearchTraffic(options: options)
  var batch = TrafficBatch()
  var rows: [Row] = []
  while traffic.fill(&batch, recordsMax: size) {
    for entry in batch.entries {
      rows.append(
        Row(
          topic: entry.topic, arrivalNanos: entry.arrivalNanos, eventNanos: entry.eventNanos,
          text: String(decoding: batch.bytes[entry.payload], as: UTF8.self),
          key: String(decoding: batch.keys[entry.key], as: UTF8.self)))
    }
  }
  return rows
}

private func hash(_ rows: [Row]) -> UInt64 {
  rows.reduce(0xcbf2_9ce4_8422_2325) { hash, row in
    "\(row.topic.name) \(row.key) \(row.text)\n".utf8.reduce(hash) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

@Suite struct SearchTrafficTests {
  /// The bytes that recordings, documents and benchmarks were made from. A change here changes them all.
  @Test(arguments: [
    (TrafficScenario.steady, 7_245_354_672_110_667_907 as UInt64),
    (.incident, 15_252_956_796_805_475_321), (.anomalySpike, 16_555_393_384_202_273_508),
  ])
  func sameSeedSameBytes(_ scenario: TrafficScenario, golden: UInt64) {
    let made = hash(rows(options(scenario, minutes: 12, rate: 20)))
    #expect(made == golden, "\(scenario): \(made)")
  }

  @Test func theSizeOfAFillChangesNothing() {
    let whole = rows(options(.incident, minutes: 9), batch: 100_000).map(\.text)
    #expect(rows(options(.incident, minutes: 9), batch: 1).map(\.text) == whole)
    #expect(rows(options(.incident, minutes: 9), batch: 97).map(\.text) == whole)
  }

  @Test func anotherSeedGivesOtherBytes() {
    #expect(hash(rows(options(minutes: 1))) != hash(rows(options(minutes: 1, seed: 8))))
  }

  @Test func arrivalsAreInOrderAndEventTimesCloseBehind() {
    var last: Int64 = 0
    var outOfOrder = 0
    var lastEvent: Int64 = 0
    for row in rows(options(.incident, minutes: 10)) {
      #expect(row.arrivalNanos >= last)
      last = row.arrivalNanos
      let delay = row.arrivalNanos - row.eventNanos
      #expect(delay >= 0 && delay < (row.topic == .spans ? 11_001 : 2_000) * 1_000_000)
      if row.topic == .events {
        #expect(row.eventNanos >= start)
        outOfOrder += row.eventNanos < lastEvent ? 1 : 0
        lastEvent = row.eventNanos
      }
    }
    #expect(outOfOrder > 100, "watermarks would have nothing to do")
  }

  @Test func everyPayloadIsAnObjectWithItsTopicsFields() {
    let fields: [TrafficTopic: Set<String>] = [
      .events: [
        "ts", "request_id", "service", "region", "route", "method", "status", "latency_ms", "trace_id",
        "user",
      ],
      .logs: ["time", "severity", "service", "traceId", "spanId", "route", "msg"],
      .spans: ["trace_id", "span_id", "service", "name", "start_us", "duration_us", "status"],
      .lag: ["ts", "group", "topic", "lag"],
      .disk: ["ts", "host", "mount", "used_bytes", "total_bytes"],
    ]
    let optional: Set<String> = ["relevance", "results", "parent_id"]
    var seen: Set<TrafficTopic> = []
    for row in rows(options(.incident, minutes: 10, rate: 20)) {
      let names = Set(row.json.keys)
      #expect(names.subtracting(optional) == fields[row.topic], "\(row.text)")
      if row.topic == .events, let status = row.json["status"] as? Int, status >= 500 {
        #expect(!names.contains("relevance"))
      }
      seen.insert(row.topic)
    }
    #expect(seen == Set(TrafficTopic.allCases))
  }

  @Test func theTimeFieldSaysTheEventTime() throws {
    let formatter = ISO8601DateFormatter()
    formatter.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    for row in rows(options(minutes: 1)) {
      switch row.topic {
      case .events, .lag, .disk: #expect(row.json["ts"] as? Int64 == row.eventNanos / 1_000_000)
      case .spans: #expect(row.json["start_us"] as? Int64 == row.eventNanos / 1_000)
      case .logs:
        let date = try #require(formatter.date(from: row.json["time"] as? String ?? ""))
        #expect(Int64((date.timeIntervalSince1970 * 1_000).rounded()) == row.eventNanos / 1_000_000)
      }
    }
  }

  @Test func leavingATopicOutChangesNoOther() {
    var some = options(.incident, minutes: 9)
    some.topics = [.spans, .disk]
    let wanted = rows(options(.incident, minutes: 9)).filter { some.topics.contains($0.topic) }
    #expect(rows(some).map(\.text) == wanted.map(\.text))
  }

  @Test func theRateIsKept() {
    let events = rows(options(minutes: 5, rate: 100)).filter { $0.topic == .events }
    #expect(abs(events.count - 30_000) < 1_000)
  }

  @Test func onlyTheServicesAskedForSend() {
    var some = options(minutes: 2)
    some.services = ["ranker", "suggest"]
    some.topics = [.events]
    let services = Set(rows(some).compactMap { $0.json["service"] as? String })
    #expect(services == ["ranker", "suggest"])
  }

  @Test func partitionsAreStableAndUsed() {
    var traffic = SearchTraffic(options: options(minutes: 1))
    var batch = TrafficBatch()
    var counts = [0, 0, 0, 0]
    while traffic.fill(&batch) {
      for entry in batch.entries where entry.topic == .events {
        counts[batch.partition(of: entry, count: 4)] += 1
      }
    }
    let total = counts.reduce(0, +)
    #expect(counts.allSatisfy { $0 > total / 5 && $0 < total / 3 }, "\(counts)")
  }
}

@Suite struct ScenarioTests {
  private func events(_ scenario: TrafficScenario, _ service: String) -> [(minute: Int, row: [String: Any])] {
    var wanted = options(scenario, minutes: 30, rate: 100)
    wanted.topics = [.events]
    return rows(wanted).compactMap { row in
      let json = row.json
      guard json["service"] as? String == service else { return nil }
      return (Int((row.arrivalNanos - start) / 60_000_000_000), json)
    }
  }

  private func errorRatio(_ events: [(minute: Int, row: [String: Any])], _ minutes: Range<Int>) -> Double {
    let inside = events.filter { minutes.contains($0.minute) }
    let errors = inside.filter { ($0.row["status"] as? Int ?? 0) >= 500 }
    return Double(errors.count) / Double(inside.count)
  }

  private func p99(_ events: [(minute: Int, row: [String: Any])], _ minutes: Range<Int>) -> Double {
    let sorted = events.filter { minutes.contains($0.minute) }
      .compactMap { $0.row["latency_ms"] as? Double }.sorted()
    return sorted[sorted.count * 99 / 100]
  }

  @Test func errorSpike() {
    let ranker = events(.errorSpike, "ranker")
    #expect(errorRatio(ranker, 10..<16) > 0.06)
    #expect(errorRatio(ranker, 0..<10) < 0.005)
    #expect(errorRatio(ranker, 16..<30) < 0.005)
  }

  @Test func slowQueries() {
    let reader = events(.slowQueries, "index-reader")
    for minute in 10..<21 { #expect(p99(reader, minute..<minute + 1) > 2_000) }
    #expect(p99(reader, 0..<10) < 200)
    #expect(p99(reader, 21..<30) < 200)
  }

  @Test func anomalySpike() {
    let suggest = events(.anomalySpike, "suggest")
    let usual = Double(suggest.filter { $0.minute < 10 }.count) / 10
    let spike = Double(suggest.filter { (10..<15).contains($0.minute) }.count) / 5
    #expect(spike > 3.5 * usual && spike < 4.5 * usual)
  }

  @Test func incidentHasEverythingAndEnds() {
    var gauges = options(.incident, minutes: 30)
    gauges.topics = [.lag, .disk]
    var lagMinutes: Set<Int64> = []
    var diskMinutes: Set<Int64> = []
    for row in rows(gauges) {
      let minute = (row.arrivalNanos - start) / 60_000_000_000
      if let lag = row.json["lag"] as? Int, lag > 10_000 { lagMinutes.insert(minute) }
      if let used = row.json["used_bytes"] as? Double, let total = row.json["total_bytes"] as? Double,
        used / total > 0.8
      {
        diskMinutes.insert(minute)
      }
    }
    #expect(lagMinutes.count > 6 && (lagMinutes.max() ?? 99) < 25)
    #expect(diskMinutes.count > 6 && (diskMinutes.max() ?? 99) < 25)
    let reader = events(.incident, "index-reader")
    #expect(p99(reader, 6..<17) > 2_000 && p99(reader, 18..<30) < 200)
    let api = events(.incident, "search-api")
    #expect(errorRatio(api, 9..<16) > 0.03 && errorRatio(api, 17..<30) < 0.01)
  }
}
