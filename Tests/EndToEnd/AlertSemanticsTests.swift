import Foundation
import Runtime
import Testing

@testable import rulesd

/// Prometheus' own states for `for` and `keep_firing_for`, read off `promtool test rules` (2.42), one column
/// a minute from minute 0. `stale` is a minute without a row: a windowed aggregate has none to show, which is
/// Prometheus' stale marker; `_` is a sample that is missing, which Prometheus fills for five minutes, the last one
/// included, as a hopping window of six minutes does. `null` is what a NaN becomes here.
private let cases: [(name: String, hold: Int, keep: Int, values: String, states: String)] = [
  ("for 2m, true from minute 1", 120, 0, "0 2 2 2 2 2 0 0", ". P P F F F . ."),
  ("for 90s, no multiple of the step", 90, 0, "0 2 2 2 2 2 0 0", ". P P F F F . ."),
  ("for 0", 0, 0, "0 2 2 0 0", ". F F . ."),
  ("equal to the threshold is not above", 0, 0, "0 1 1 2 1 0", ". . . F . ."),
  ("one false minute while pending", 120, 0, "0 2 2 0 2 2 2 2 0", ". P P . P P F F ."),
  ("gap of one minute while pending", 120, 0, "0 2 2 stale 2 2 2 2 0", ". P P . P P F F ."),
  ("gap while firing", 60, 0, "0 2 2 2 stale 2 2 2", ". P F F . P F F"),
  ("keep 2m, false from minute 4", 60, 120, "0 2 2 2 0 0 0 0 0", ". P F F F F . . ."),
  ("keep 90s", 60, 90, "0 2 2 2 0 0 0 0 0", ". P F F F F . . ."),
  ("keep 2m, gap from minute 4", 60, 120, "0 2 2 2 stale stale stale stale stale", ". P F F F F . . ."),
  (
    "keep 2m, true again after 1 minute, then false", 60, 120, "0 2 2 2 0 2 0 0 0 0",
    ". P F F F F F F . ."
  ),
  (
    "keep 2m, true again exactly when it would resolve", 60, 120, "0 2 2 2 0 0 2 0 0 0 0",
    ". P F F F F F F F . ."
  ),
  (
    "keep 2m does not hold a pending alert", 180, 120, "0 2 2 0 0 2 2 2 2 0 0 0",
    ". P P . . P P P F F F ."
  ),
  ("resolved, then true again: for starts anew", 120, 0, "0 2 2 2 0 2 2 2 2 0", ". P P F . P P F F ."),
  ("true at the very first evaluation", 60, 0, "2 2 2 0", "P F F ."),
  ("missing sample while pending, filled", 120, 0, "0 2 2 _ 2 2 2 2 0", ". P P F F F F F ."),
  ("series ends while firing, filled", 0, 0, "0 2 _ _ _ _ _ _ _ _", ". F F F F F F . . ."),
  ("series ends while pending, filled", 240, 0, "0 2 _ _ _ _ _ _ _ _", ". P P P P F F . . ."),
  ("NaN is not above", 0, 0, "2 null 2", "F . F"),
  ("+Inf is above", 0, 0, "0 1e308 0", ". F ."),
]

@Suite struct AlertSemanticsTests {
  private static let start: Int64 = 1_795_230_000  // 2026-11-21T03:00:00Z

  /// The states that a record is written for, as `minute state`: each entry to pending, firing and resolved.
  private func transitions(_ states: String) -> [String] {
    var last = "."
    var result: [String] = []
    for (minute, state) in states.split(separator: " ").map(String.init).enumerated() {
      switch (last, state) {
      case (".", "P"): result.append("\(minute) pending")
      case (".", "F"), ("P", "F"): result.append("\(minute) firing")
      case ("F", "."), ("F", "P"):
        result.append("\(minute) resolved")
        if state == "P" { result.append("\(minute) pending") }
      default: break
      }
      last = state
    }
    return result
  }

  @Test(arguments: cases.indices)
  func followsPrometheus(_ index: Int) throws {
    let (name, hold, keep, values, states) = cases[index]
    let rules = """
      source gauge { time ts  watermark 0s  fields { ts: timestamp(s), key: string, value: float? } }
      stream minutes = gauge
        | derive scaled = if(value > 1e300, value * 1e300, value)
        | window \(values.contains("_") ? "hopping 6m every 1m" : "tumbling 1m") by key
        | aggregate value_now = last(scaled), samples = count()
      alert Above { on minutes  when value_now > 1  for \(hold)s  keep_firing \(keep)s }
      """
    // Window [m-1, m) is evaluated at minute m. A second key goes on for ten minutes, so that the end of the
    // recording is not what the first one meets.
    let minutes = values.split(separator: " ")
    var lines: [String] = []
    for minute in 0..<minutes.count + 10 {
      let time = Self.start + Int64(minute) * 60 - 30
      lines.append(#"{"ts":\#(time),"key":"other","value":0}"#)
      if minute < minutes.count, !["stale", "_"].contains(minutes[minute]) {
        lines.append(#"{"ts":\#(time),"key":"watched","value":\#(minutes[minute])}"#)
      }
    }
    var example = try DryRunCase(rules)
    example.inputs = [("gauge", 0, lines.joined(separator: "\n"))]
    let output = try example.run(workers: 2, batchRows: 7)
    let seen = output.split(separator: "\n").compactMap { line -> String? in
      guard let record = JSONValue(Array(line.utf8)), let state = record["state"]?.text,
        let time = record["time"]?.text.flatMap(timestampNanos)
      else { return nil }
      #expect(record["labels"]?["key"]?.text == "watched")
      let minute = (time / 1_000_000_000 - Self.start) / 60
      return minute < minutes.count ? "\(minute) \(state)" : nil
    }
    #expect(seen == transitions(states), "\(name)")
  }
}
