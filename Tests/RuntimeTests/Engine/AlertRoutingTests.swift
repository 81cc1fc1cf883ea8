import Foundation
import Testing

@testable import Runtime

/// Alerts that depend on one another, against a reference that looks at every alert at every half minute, and over
/// barriers with another number of workers behind them.
@Suite struct AlertRoutingTests {
  private static let half = "labels { half: \"{if(key in (\\\"k0\\\", \\\"k1\\\", \\\"k2\\\"), \\\"low\\\", \\\"high\\\")}\" }"

  /// What the alerts stand on: windows of one source, or `Target` and `Third` on those of another, which has the same rows and
  /// is half a minute behind.
  enum Place: String, CaseIterable, Sendable {
    case oneSource, twoSources

    var rules: String {
      let windows = { (name: String, source: String) in
        "stream \(name) = \(source) | window tumbling 1m by key | aggregate worst = max(value)\n"
      }
      let sources =
        self == .oneSource
        ? testSource("a", watermark: "5s") + windows("minutes", "a") + windows("others", "a")
        : testSource("a", watermark: "5s") + testSource("b", watermark: "35s") + windows("minutes", "a") + windows("others", "b")
      return sources + """
        alert Root { on minutes when worst > 70 keep_firing 2m severity critical \(AlertRoutingTests.half) }
        alert Target { on others when worst > 20 for 1m severity info escalate to ticket after 3m escalate to page after 9m
          repeat 4m \(AlertRoutingTests.half) }
        alert Other { on minutes when worst > 40 severity warning escalate to critical after 4m \(AlertRoutingTests.half) }
        alert Third { on others when worst > 10 for 2m severity page \(AlertRoutingTests.half) }
        inhibit Target, Third when Root equal half
        group Both { alerts Other, Third  by half  wait 30s  interval 90s  repeat 6m }
        maintenance Work { from t"2026-11-21T03:20:00Z" to t"2026-11-21T03:26:00Z" alerts Target, Other matching half == "low" }
        """
    }
  }

  private static let minutes = 60
  private static let keys = 6

  /// Rows of two partitions; `values[key][minute]` is the greatest value of the window that ends with the minute.
  private func history(_ random: inout SeededRandom) -> (logs: [[TestRecord]], values: [[Double?]]) {
    var values = [[Double?]](repeating: [Double?](repeating: nil, count: Self.minutes + 1), count: Self.keys)
    var rows: [TestRecord] = []
    for key in 0..<Self.keys {
      var level = 0.0
      for minute in 1...Self.minutes {
        if Int.random(in: 0..<3, using: &random) == 0 { level = Double([0, 0, 15, 30, 50, 90].randomElement(using: &random) ?? 0) }
        if Int.random(in: 0..<12, using: &random) == 0 { continue }
        values[key][minute] = level
        rows.append(
          TestRecord(
            time: testEpoch + Int64(minute - 1) * 60 * second + Int64.random(in: 0..<60, using: &random) * second,
            key: "k\(key)", value: level))
      }
    }
    rows.sort { ($0.time, $0.key) < ($1.time, $1.key) }
    var logs: [[TestRecord]] = [[], []]
    for row in rows { logs[Int.random(in: 0..<2, using: &random)].append(row) }
    return (logs, values)
  }

  // MARK: The reference

  /// What happens in words: `minute:second rule key what`.
  private struct Reference {
    let values: [[Double?]]
    struct Rule {
      var name: String
      var above: Double
      var hold: Int
      var keep: Int
    }
    let rules = [
      Rule(name: "Root", above: 70, hold: 0, keep: 2), Rule(name: "Target", above: 20, hold: 1, keep: 0),
      Rule(name: "Other", above: 40, hold: 0, keep: 0), Rule(name: "Third", above: 10, hold: 2, keep: 0),
    ]
    static func half(_ key: Int) -> String { key < 3 ? "low" : "high" }

    /// By rule and key and minute, since when it fires; nil where it does not.
    func firing(_ rule: Rule, _ key: Int) -> [Int?] {
      var trueSince: Int?
      var firedAt: Int?
      var falseSince: Int?
      return (0...AlertRoutingTests.minutes + 5).map { minute in
        let value = minute <= AlertRoutingTests.minutes ? values[key][minute] : nil
        if let value, value > rule.above {
          trueSince = trueSince ?? minute
          falseSince = nil
          if firedAt == nil, minute - (trueSince ?? minute) >= rule.hold { firedAt = minute }
        } else {
          if firedAt == nil { trueSince = nil }
          falseSince = falseSince ?? minute
          if firedAt != nil, minute - (falseSince ?? minute) >= rule.keep {
            firedAt = nil
            trueSince = nil
          }
        }
        return firedAt
      }
    }

    func lines() -> [String] {
      var lines: [String] = []
      var all: [String: [[Int?]]] = [:]
      for rule in rules { all[rule.name] = (0..<AlertRoutingTests.keys).map { firing(rule, $0) } }
      func fires(_ rule: String, _ key: Int, _ minute: Int) -> Int? { all[rule]?[key][minute] }
      let end = AlertRoutingTests.minutes + 5
      func isRootFiring(_ half: String, _ minute: Int) -> Bool {
        (0..<AlertRoutingTests.keys).contains { Self.half($0) == half && fires("Root", $0, minute) != nil }
      }
      func isUnderWork(_ half: String, _ halfMinute: Int) -> Bool { half == "low" && halfMinute >= 40 && halfMinute < 52 }
      for key in 0..<AlertRoutingTests.keys {
        let half = Self.half(key)
        // Root speaks for itself, once.
        for minute in 1...end {
          if fires("Root", key, minute) != nil, fires("Root", key, minute - 1) == nil { lines.append("\(minute):00 Root k\(key) firing critical") }
          if fires("Root", key, minute) == nil, fires("Root", key, minute - 1) != nil { lines.append("\(minute):00 Root k\(key) resolved critical") }
        }
        var told: (at: Int, severity: String, repeats: Int)?
        var wasSilent = false
        for minute in 1...end {
          guard let firedAt = fires("Target", key, minute) else {
            if fires("Target", key, minute - 1) != nil, let told { lines.append("\(minute):00 Target k\(key) resolved \(told.severity)") }
            told = nil
            wasSilent = false
            continue
          }
          let severity = minute - firedAt >= 9 ? "page" : minute - firedAt >= 3 ? "ticket" : "info"
          if isUnderWork(half, 2 * minute) || isRootFiring(half, minute) {
            if told == nil, !wasSilent {
              let by = isUnderWork(half, 2 * minute) ? "Work" : "Root"
              lines.append("\(minute):00 Target k\(key) suppressed info \(by)")
            }
            wasSilent = true
            continue
          }
          wasSilent = false
          if let last = told {
            if last.severity != severity {
              lines.append("\(minute):00 Target k\(key) firing \(severity) from \(last.severity)")
              told = (minute, severity, last.repeats)
            } else if minute - last.at >= 4 {
              lines.append("\(minute):00 Target k\(key) firing \(severity) repeat \(last.repeats + 1)")
              told = (minute, severity, last.repeats + 1)
            }
          } else {
            lines.append("\(minute):00 Target k\(key) firing \(severity)")
            told = (minute, severity, 0)
          }
        }
      }
      for half in ["low", "high"] {
        let members = ["Other", "Third"].flatMap { rule in
          (0..<AlertRoutingTests.keys).filter { Self.half($0) == half }.map { (rule: rule, key: $0) }
        }
        let ranks = ["page": 0, "critical": 1, "ticket": 2, "warning": 3]
        var flush: Int?
        var known: Set<String> = []
        var severity = 9
        var toldAt: Int?
        for halfMinute in 2...(2 * end + 60) {
          let minute = min(halfMinute / 2, end)
          let firing = members.filter { fires($0.rule, $0.key, minute) != nil }
          if flush == nil, !firing.isEmpty, halfMinute % 2 == 0 { flush = halfMinute + 1 }
          guard flush == halfMinute else { continue }
          let heard = firing.filter {
            !(($0.rule == "Other" && isUnderWork(half, halfMinute)) || ($0.rule == "Third" && isRootFiring(half, minute)))
          }
          // One that is over, and that was told of, and has not fired again.
          let over = known.filter { name in !firing.contains { "\($0.rule) k\($0.key)" == name } }
          let worst = heard.map { member -> Int in
            let fired = fires(member.rule, member.key, minute) ?? minute
            return member.rule == "Third" ? 0 : halfMinute - 2 * fired >= 8 ? 1 : 3
          }.min()
          let names = Set(heard.map { "\($0.rule) k\($0.key)" })
          let isNew = !names.subtracting(known).isEmpty
          let isWorse = toldAt != nil && (worst ?? 9) < severity
          let isAgain = !heard.isEmpty && (toldAt.map { halfMinute - $0 >= 12 } ?? false)
          if isNew || isWorse || isAgain || !over.isEmpty {
            severity = worst ?? severity
            let text = ranks.first { $0.value == severity }?.key ?? ""
            let listed = (names.sorted() + over.sorted().map { "-\($0)" }).joined(separator: ",")
            lines.append(
              "\(halfMinute / 2):\(halfMinute % 2 == 0 ? "00" : "30") Both \(half) \(names.isEmpty ? "resolved" : "firing") \(text) \(listed)")
            known = names
            toldAt = halfMinute
          }
          if firing.isEmpty {
            flush = nil
            known = []
            toldAt = nil
            severity = 9
          } else {
            flush = halfMinute + 3
          }
        }
      }
      return lines.sorted()
    }
  }

  /// A record in the reference's words; nil for one that is pending.
  private func told(_ line: String) throws -> String? {
    let record = try #require(JSONValue(Array(line.utf8)))
    let state = try #require(record["state"]?.text)
    if state == "pending" { return nil }
    let clock = try #require(record["time"]?.text).dropFirst(11).prefix(8).split(separator: ":").compactMap { Int($0) }
    let seconds = (clock[0] - 3) * 3_600 + clock[1] * 60 + clock[2]
    let rule = try #require(record["rule"]?.text)
    var text = "\(seconds / 60):\(seconds % 60 == 0 ? "00" : "\(seconds % 60)") \(rule) "
    let severity = try #require(record["severity"]?.text)
    if rule == "Both" {
      text += "\(record["labels"]?["half"]?.text ?? "") \(state) \(severity) "
      guard case .array(let alerts)? = record["alerts"] else { return text }
      let names = alerts.map { alert in
        "\(alert["state"] == .string("resolved") ? "-" : "")\(alert["rule"]?.text ?? "") \(alert["labels"]?["key"]?.text ?? "")"
      }
      text += (names.filter { !$0.hasPrefix("-") }.sorted() + names.filter { $0.hasPrefix("-") }.sorted()).joined(separator: ",")
      return text
    }
    text += "\(record["labels"]?["key"]?.text ?? "") \(state) \(severity)"
    if let from = record["escalated_from"]?.text { text += " from \(from)" }
    if case .number(let count)? = record["repeat"] { text += " repeat \(Int(count))" }
    if let by = record["silenced_by"]?.text ?? record["inhibited_by"]?.text { text += " \(by)" }
    return text
  }

  private func logs(
    _ place: Place, _ parts: [[TestRecord]], visible: Int? = nil, atEnd: ReadOutcome = .end
  ) -> [MemoryLog] {
    (0..<(place == .oneSource ? 1 : 2)).flatMap { source in
      parts.enumerated().map { number, records in
        // Another source is at another place.
        let shown = visible.map { min(source == 0 ? $0 : $0 * 2 / 3, records.count) }
        return log(source, Int32(number), records, visible: shown, atEnd: atEnd)
      }
    }
  }

  @Test(arguments: 1...UInt64(seedCount(25)), Place.allCases)
  func saysWhatTheReferenceSays(seed: UInt64, place: Place) throws {
    var random = SeededRandom(seed)
    let (parts, values) = history(&random)
    let graph = try graph(place.rules)
    let lines = try runRecorded(graph, logs(place, parts))
    for (workers, batchRows) in [(1, 1), (2, 7), (4, 4_096), (3, 1)] {
      let again = try runRecorded(graph, logs(place, parts), workers: workers, batchRows: batchRows)
      #expect(again.count == lines.count && zip(again, lines).allSatisfy { $0 == $1 }, "\(workers) workers, batches of \(batchRows)")
    }
    let expected = Reference(values: values).lines()
    let actual = try lines.compactMap { try told($0) }.sorted()
    let missing = Set(expected).subtracting(actual).sorted()
    let surplus = Set(actual).subtracting(expected).sorted()
    #expect(missing.isEmpty && surplus.isEmpty, "missing \(missing.prefix(5)), surplus \(surplus.prefix(5))")
    #expect(actual.count == expected.count && actual.count > 30)
    #expect(Set(lines.map { $0.suffix(36) }).count == lines.count, "each record has an id of its own")
  }

  /// What is pending or firing counts for its rule, as long as it is there.
  @Test func alertsAreStateOfTheirRule() throws {
    let records = (0..<5).flatMap { minute in
      (0..<4).map { key in
        TestRecord(time: testEpoch + Int64(minute) * 60 * second, key: "k\(key)", value: key == 0 ? 5 : 50)
      }
    }
    let graph = try graph(Place.oneSource.rules)
    let log = log(0, 0, records, atEnd: .nothingYet)
    let engine = Engine(
      graph: graph, options: EngineOptions(workers: 2, order: .bySource, isLive: true), partitions: [log.start()],
      sink: MemorySink())
    try engine.start()
    func state(_ rule: String) -> OperatorStatus {
      guard let index = graph.rules.firstIndex(of: rule), engine.status.rules.count > index else { return OperatorStatus() }
      return engine.status.rules[index]
    }
    try eventually("alerts are counted") { state("Target").keys == 3 && state("Other").keys == 3 }
    #expect(state("Root").keys == 0 && state("Root").bytes == 0)
    #expect(state("Target").bytes > 3 * 240 && engine.status.stateBytes >= state("Target").bytes)
    log.show(records.count, atEnd: .end)
    try engine.wait()
    try eventually("none is left") { state("Target").keys == 0 && state("Target").bytes == 0 }
  }

  /// Stopped at a barrier at any moment, and gone on from what was captured there with other workers.
  @Test(arguments: 1...UInt64(seedCount(25)), Place.allCases)
  func goesOnFromACheckpoint(seed: UInt64, place: Place) throws {
    var random = SeededRandom(seed &* 77)
    let (parts, _) = history(&random)
    let graph = try graph(place.rules)
    let expected = try runRecorded(graph, logs(place, parts), order: .bySource)
    let sink = MemorySink()
    var restored: RestoredState?
    var positions: [PartitionIdentity: Int64] = [:]
    let stops = (0..<2).map { _ in Int.random(in: 1..<150, using: &random) }.sorted()
    for (life, visible) in (stops + [Int.max]).enumerated() {
      let workers = Int.random(in: 1...4, using: &random)
      let isLast = life == stops.count
      let logs = logs(place, parts, visible: isLast ? nil : visible, atEnd: isLast ? .end : .nothingYet)
      let engine = Engine(
        graph: graph, options: EngineOptions(workers: workers, batchRows: 7, order: .bySource, isLive: !isLast),
        partitions: logs.map { log in
          log.start(at: CommitPoint(partition: log.identity, offset: positions[log.identity] ?? 0, metadata: ""))
        }, restored: place == .oneSource ? [restored] : [restored, restored], sink: sink)
      try engine.start()
      if isLast {
        try engine.wait()
        break
      }
      try eventually("everything is read") {
        logs.allSatisfy { $0.position >= $0.visible && $0.emptyReads > 0 }
      }
      engine.request(BarrierRequest(epoch: 1, captures: true, isLast: true))
      var result: BarrierResult?
      try eventually("a barrier") {
        result = engine.takeBarrier()
        return result != nil
      }
      try engine.wait()
      let found = try #require(result)
      for partition in found.partitions where partition.position >= 0 { positions[partition.identity] = partition.position }
      restored = RestoredState(RestoredState.encoded(found.sections))
    }
    // In a daemon records of different event times have no order among them.
    let lines = place == .oneSource ? sink.lines : sink.lines.sorted()
    let different = zip(lines, place == .oneSource ? expected : expected.sorted()).first { $0 != $1 }
    #expect(lines.count == expected.count && different == nil, "\(different.map { "\($0)\n\($1)" } ?? "")")
  }

  /// An alert fires and is resolved while the group waits for another source, and its own source knows nothing of it any more:
  /// the rows that make it again are still those that a commit goes back to.
  @Test(arguments: [1, 3])
  func whatWaitsForAnotherSourceIsReadAgain(workers: Int) throws {
    let rules =
      testSource("a", watermark: "5s") + testSource("b", watermark: "5s")
      + """
      stream minutes_a = a | window tumbling 1m by key | aggregate worst = max(value)
      stream minutes_b = b | window tumbling 1m by key | aggregate worst = max(value)
      alert High { on minutes_a when worst > 50 for 5m }
      alert Higher { on minutes_b when worst > 50 }
      group Both { alerts High, Higher  by key  wait 0s  interval 1m }
      """
    let graph = try graph(rules)
    func records(_ minutes: Int, high: Range<Int>) -> [TestRecord] {
      (0..<minutes * 6).map { index -> TestRecord in
        let value: Double = high.contains(index / 6) ? 90 : 0
        return TestRecord(time: testEpoch + Int64(index) * 10 * second, key: "k", value: value)
      }
    }
    func logs() -> [MemoryLog] { [log(0, 0, records(60, high: 10..<20)), log(1, 0, records(60, high: 40..<41))] }
    let expected = try runRecorded(graph, logs())
    #expect(expected.count == 4, "each fires and is resolved")

    let (a, b) = (logs()[0], logs()[1])
    a.show(12 * 6, atEnd: .nothingYet)
    b.show(12 * 6, atEnd: .nothingYet)
    let sink = MemorySink()
    let engine = Engine(
      graph: graph, options: EngineOptions(workers: workers, order: .bySource, isLive: true),
      partitions: [a.start(), b.start()], sink: sink)
    try engine.start()
    try eventually("both are read") { a.position == 12 * 6 && b.position == 12 * 6 }
    // Twice, so that what was read is known to all.
    for _ in 0..<2 { _ = try engine.commitPoints() }
    a.show(a.records.count, atEnd: .nothingYet)
    try eventually("one is read to its end") { a.position == a.records.count }
    var points: [CommitPoint] = []
    for _ in 0..<2 { points = try engine.commitPoints() }
    engine.stop()
    try engine.wait()
    #expect(sink.lines.isEmpty, "the group waits for the other source")
    #expect(points.count == 2)

    for log in [a, b] { log.show(log.records.count, atEnd: .end) }
    let again = MemorySink()
    let later = Engine(
      graph: graph, options: EngineOptions(workers: workers, order: .bySource, isLive: true),
      partitions: [a, b].map { log in log.start(at: points.first { $0.partition == log.identity }) }, sink: again)
    try later.start()
    try later.wait()
    #expect(again.lines == expected)
  }
}
