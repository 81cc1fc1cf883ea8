import Foundation
import Runtime
import Testing

@testable import rulesd

private let root = URL(fileURLWithPath: #filePath).appendingPathComponent("../../..").standardized

/// What docs/slo.md says is what happens.
@Suite struct SloTests {
  private static let page = root.appendingPathComponent("docs/slo.md")

  private struct Condition {
    var rate: Double
    var long: (text: String, minutes: Int)
    var short: (text: String, minutes: Int)
    /// Of a 30-day budget.
    var spent: String
  }

  private static let conditions = [
    Condition(rate: 14.4, long: ("1h", 60), short: ("5m", 5), spent: "2 %"),
    Condition(rate: 6, long: ("6h", 360), short: ("30m", 30), spent: "5 %"),
    Condition(rate: 3, long: ("1d", 1_440), short: ("2h", 120), spent: "10 %"),
    Condition(rate: 1, long: ("3d", 4_320), short: ("6h", 360), spent: "10 %"),
  ]
  private static let percents = [100, 10, 5, 2]
  private static let calmMinutes = 4_400
  private static let outageMinutes = 720

  /// The first whole minute at which more than `rate * budget` of the long window has failed, by the workbook's formula
  /// (1 - SLO) / error ratio * window * burn rate.
  private static func detection(_ condition: Condition, percent: Int) -> Int {
    let exact = 0.001 / (Double(percent) / 100) * Double(condition.long.minutes) * condition.rate
    return Int((exact + 1e-9).rounded(.down)) + 1
  }

  /// Minutes after the end until the short window holds less than that.
  private static func reset(_ condition: Condition, percent: Int) -> Int {
    let kept = condition.rate * 0.001 / (Double(percent) / 100)
    return Int((Double(condition.short.minutes) * (1 - kept) - 1e-9).rounded(.up))
  }

  /// Three days of calm, twelve hours in which a share of requests fails, and calm again; each share is a key.
  @Test func timesOfDetectionAndResetAreThoseOfTheWorkbook() throws {
    var rules = """
      source minutes { time ts watermark 0s fields { ts: timestamp(s), share: string, n: int, failed: int } }
      stream counts = minutes | window tumbling 1m by share | aggregate total = sum(n), bad = sum(failed)

      """
    for (index, condition) in Self.conditions.enumerated() {
      rules += """
        slo s\(index) { on counts  bad bad  total total  objective 99.9% over 30d
          burn page when rate > \(condition.rate) over \(condition.long.text) and \(condition.short.text) }

        """
    }
    let start = 1_795_219_200
    var records = ""
    for minute in 0..<Self.calmMinutes + Self.outageMinutes + 500 {
      let isOutage = minute >= Self.calmMinutes && minute < Self.calmMinutes + Self.outageMinutes
      for percent in Self.percents {
        records +=
          #"{"ts":\#(start + minute * 60 + 30),"share":"\#(percent)","n":1000,"failed":\#(isOutage ? percent * 10 : 0)}"# + "\n"
      }
    }
    var example = try DryRunCase(rules)
    example.inputs = [("minutes", 0, records)]
    var times: [String: [Int]] = [:]
    let clock = ISO8601DateFormatter()
    clock.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    for line in try example.run(workers: 2, batchRows: 4_096).split(separator: "\n") {
      let record = try #require(JSONValue(Array(line.utf8)))
      let text = try #require(record["time"]?.text)
      let time = try #require(clock.date(from: text))
      let rule = try #require(record["rule"]?.text)
      let share = try #require(record["labels"]?["share"]?.text)
      times["\(rule) \(share)", default: []].append(Int(time.timeIntervalSince1970) - start)
    }
    #expect(times.count == Self.conditions.count * Self.percents.count)
    var table = "\n| condition | of a 30-day budget | " + Self.percents.map { "\($0) % fail" }.joined(separator: " | ") + " |\n"
    table += "|---|---|\(String(repeating: "---|", count: Self.percents.count))\n"
    for (index, condition) in Self.conditions.enumerated() {
      var cells: [String] = []
      for percent in Self.percents {
        let found = try #require(times["s\(index) \(percent)"])
        #expect(found.count == 2)
        let fired = found[0] / 60 - Self.calmMinutes
        let resolved = found[1] / 60 - Self.calmMinutes - Self.outageMinutes
        #expect(fired == Self.detection(condition, percent: percent), "rate \(condition.rate), \(percent) %")
        #expect(resolved == Self.reset(condition, percent: percent), "rate \(condition.rate), \(percent) %")
        cells.append("\(Self.text(fired)), \(Self.text(resolved))")
      }
      table += "| `rate > \(condition.rate.formatted()) over \(condition.long.text) and \(condition.short.text)` | "
      table += "\(condition.spent) | \(cells.joined(separator: " | ")) |\n"
    }
    let text = try String(contentsOf: Self.page, encoding: .utf8)
    let begin = try #require(text.range(of: "<!-- detection:begin -->\n"))
    let end = try #require(text.range(of: "<!-- detection:end -->"))
    let expected = text[..<begin.upperBound] + table + "\n" + text[end.lowerBound...]
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try expected.write(to: Self.page, atomically: true, encoding: .utf8)
    } else {
      #expect(text == expected)
    }
  }

  private static func text(_ minutes: Int) -> String {
    minutes < 60 ? "\(minutes) min" : "\(minutes / 60) h \(minutes % 60) min"
  }

  /// The commands of the page, on fewer requests: ranker's errors page, and nobody else's do.
  @Test func exampleOfThePageRuns() throws {
    let directory = try TemporaryDirectory()
    let pack = ["rules/search-quality/sources.rules", "rules/slo"].map { root.appendingPathComponent($0).path }
    let checked = runCaptured(["check"] + pack)
    #expect(checked.exit == .ok, "\(checked.errors)\(checked.output)")
    let made = runCaptured([
      "simulate", "--scenario", "error_spike", "--topic", "search.events", "--duration", "40m", "--rate", "30", "--out",
      directory.path("traffic"),
    ])
    #expect(made.exit == .ok, "\(made.errors)")
    let ran = runCaptured([
      "dry-run"] + pack + ["--input", "requests=\(directory.path("traffic/search.events.jsonl"))", "--output",
      directory.path("records"), "--quiet",
    ])
    #expect(ran.exit == .ok, "\(ran.errors)")
    var paged: Set<String> = []
    var kinds: Set<String> = []
    for line in try String(contentsOfFile: directory.path("records"), encoding: .utf8).split(separator: "\n") {
      let record = try #require(JSONValue(Array(line.utf8)))
      kinds.insert(try #require(record["rule"]?.text))
      guard record["rule"]?.text == "search_availability", record["severity"]?.text == "page" else { continue }
      paged.insert(try #require(record["labels"]?["service"]?.text))
    }
    #expect(paged.contains("ranker"))
    #expect(kinds.isSuperset(of: ["search_error_budget_left", "search_error_burn_1h"]))
  }
}
