import Catalog
import Foundation
import Testing

@testable import Operators
@testable import Runtime

/// Detectors against slow references over arrays, and against themselves however the work is divided.
@Suite struct DetectorTests {
  private static let hour: Int64 = 3_600_000_000_000

  /// Compares all rows of all series; `reference` takes one series.
  private func compare(
    _ trial: DetectorTrial, _ rows: [DetectorTrial.Row], _ what: String,
    _ reference: ([(time: Int64, value: Double?)]) -> [[Double?]]
  ) throws {
    let results = try trial.run(rows)
    var flags = 0.0
    for key in Set(rows.map(\.key)).sorted() {
      let series = rows.filter { $0.key == key }
      let mine = results.filter { $0.key == key }
      let expected = reference(series.map { ($0.time, $0.value) })
      try #require(mine.count == expected.count)
      for (index, (a, b)) in zip(mine, expected).enumerated() where !Self.areClose(a.columns, b) {
        Issue.record("\(what), \(key), row \(index): \(a.columns) where \(b) was expected")
        return
      }
      flags += mine.reduce(0) { $0 + ($1.columns.last.flatMap { $0 } ?? 0) }
    }
  }

  private static func areClose(_ a: [Double?], _ b: [Double?]) -> Bool {
    a.count == b.count
      && zip(a, b).allSatisfy { x, y in
        guard let x, let y else { return x == nil && y == nil }
        return abs(x - y) <= 1e-6 * max(1, abs(x), abs(y))
      }
  }

  private static let inputs = ["value", "difference", "residual"]

  @Test(arguments: inputs) func zscoreIsWhatItSays(_ input: String) throws {
    // Three buckets a day, so that seasons fill; and rows that are missing.
    let rows = DetectorTrial.rows(seed: 11, keys: 3, count: 55, stepNanos: 8 * Self.hour)
    let baselines: [[String: DetectorValue]] = [
      ["baseline": .all], ["baseline": .halfLife(6)], ["baseline": .rows(8)],
      ["baseline": .rows(9), "estimator": .word("median")], ["baseline": .all, "season": .word("hour_of_day")],
      ["baseline": .halfLife(4), "season": .word("hour_of_week")],
    ]
    for baseline in baselines {
      for direction in ["both", "up", "down"] {
        for smoothing in [0, 5] {
          for normalise in [DetectorValue.none, .all, .halfLife(10)] {
            var given = baseline
            given["input"] = .word(input)
            given["direction"] = .word(direction)
            given["smoothing"] = .rows(smoothing)
            given["normalise"] = normalise
            given["min_samples"] = .rows(3)
            given["warmup"] = .rows(5)
            given["threshold"] = .number(2)
            given["cooldown"] = .rows(4)
            given["average"] = .number(3)
            let zscore = ZScore(settings(given))
            try compare(DetectorTrial(detector: zscore), rows, "\(given)") { ZScoreReference(definition: zscore).run($0) }
          }
        }
      }
    }
  }

  @Test func zscoreTakesTheLargestOfItsMembers() throws {
    let rows = DetectorTrial.rows(seed: 12, keys: 4, count: 60, stepNanos: 8 * Self.hour)
    let members = [
      DetectorSettings.Member(name: "level", given: ["cap": .number(5), "min_deviation": .number(4)]),
      DetectorSettings.Member(name: "jump", given: ["input": .word("difference"), "floor": .number(0)]),
      DetectorSettings.Member(name: "hour", given: ["season": .word("hour_of_day"), "min_samples": .rows(2)]),
    ]
    for given in [[:], ["threshold": DetectorValue.number(1.5), "cooldown": .rows(0), "warmup": .rows(0), "band": .number(1)]] {
      let zscore = ZScore(settings(given, members: members))
      #expect(zscore.members.count == 3)
      try compare(DetectorTrial(detector: zscore), rows, "\(given)") { ZScoreReference(definition: zscore).run($0) }
    }
    let plain = ZScore(settings())
    #expect(plain.members.count == 3)
    try compare(DetectorTrial(detector: plain), rows, "defaults") { ZScoreReference(definition: plain).run($0) }
  }

  @Test func changedIsWhatItSays() throws {
    let rows = DetectorTrial.rows(seed: 13, keys: 6, count: 90, stepNanos: Self.hour)
    var changes = 0
    for method in ["cusum", "page_hinkley"] {
      for direction in ["both", "up", "down"] {
        for (threshold, warmup) in [(5.0, 8), (12, 20), (3, 2)] {
          let changed = Changed(
            settings([
              "method": .word(method), "direction": .word(direction), "threshold": .number(threshold),
              "warmup": .rows(warmup), "min_deviation": .number(1),
            ]))
          let trial = DetectorTrial(detector: changed)
          try compare(trial, rows, "\(method) \(direction) \(threshold)") { ChangedReference(definition: changed).run($0) }
          changes += try trial.run(rows).count { $0.columns[3] == 1 && $0.columns[2] != nil }
        }
      }
    }
    #expect(changes > 20, "the series of this test have changes")
  }

  @Test func forecastIsWhatItSays() throws {
    let rows = DetectorTrial.rows(seed: 14, keys: 3, count: 70, stepNanos: Self.hour)
    for direction in ["up", "down"] {
      for shape: [String: DetectorValue] in [
        ["over": .rows(12)], ["over": .rows(3), "confirm": .rows(1)], ["method": .word("holt_winters"), "alpha": .number(0.4)],
        ["method": .word("holt_winters"), "season": .rows(7), "beta": .number(0.2)],
      ] {
        var given = shape
        given["direction"] = .word(direction)
        given["reaches"] = .measured(direction == "up" ? 330 : 20, .float)
        given["within"] = .duration(10 * Self.hour)
        let forecast = Forecast(settings(given, hopNanos: Self.hour))
        try compare(DetectorTrial(detector: forecast), rows, "\(given)") { ForecastReference(definition: forecast).run($0) }
      }
    }
  }

  private static let detectors: [(String, any Detector)] = [
    ("zscore", ZScore(settings(["warmup": .rows(5), "threshold": .number(2)]))),
    ("median", ZScore(settings(["baseline": .rows(9), "estimator": .word("median"), "threshold": .number(2)]))),
    ("changed", Changed(settings(["threshold": .number(4), "warmup": .rows(6)]))),
    ("linear", Forecast(settings(["reaches": .measured(300, .float), "within": .duration(10 * hour)]))),
    (
      "holt_winters",
      Forecast(
        settings(
          ["reaches": .measured(300, .float), "within": .duration(10 * hour), "method": .word("holt_winters"), "season": .rows(7)],
          hopNanos: hour))
    ),
  ]

  @Test(arguments: detectors.indices) func doesNotDependOnWorkersNorBatchesNorRestarts(_ index: Int) throws {
    let (name, detector) = Self.detectors[index]
    let trial = DetectorTrial(detector: detector)
    let rows = DetectorTrial.rows(seed: 15, keys: 40, count: 60, stepNanos: Self.hour)
    let expected = try trial.run(rows)
    #expect(expected.contains { $0.columns.last == 1 } && expected.contains { $0.columns.last == 0 }, "\(name)")
    for (shards, batchRows) in [(1, 1), (1, 7), (2, 256), (4, 7)] {
      #expect(try trial.run(rows, shards: shards, batchRows: batchRows) == expected, "\(name) \(shards) \(batchRows)")
    }
    for (shards, newShards) in [(1, 1), (1, 4), (2, 1), (3, 8)] {
      let again = try trial.run(rows, shards: shards, batchRows: 7, restartAt: rows.count / 2 + shards, with: newShards)
      #expect(again == expected, "\(name) \(shards) to \(newShards)")
    }
  }

  /// What is captured is what was there then, whatever comes before it is encoded.
  @Test func aCaptureDoesNotSeeWhatComesAfterIt() throws {
    let trial = DetectorTrial(detector: ZScore(settings()))
    let rows = DetectorTrial.rows(seed: 16, keys: 600, count: 8, stepNanos: Self.hour)
    let shards = DetectorTrial.Shards(trial, shards: 1, batchRows: 256)
    shards.feed(Array(rows[..<2_000]))
    let task = try #require(shards.tasks[0] as? any StatefulTask)
    let writers = (StateWriter(), StateWriter())
    task.capture()?.encode(into: writers.0)
    let capture = try #require(task.capture())
    shards.feed(Array(rows[2_000...]))
    capture.encode(into: writers.1)
    #expect(writers.0.bytes == writers.1.bytes)
    #expect(shards.capture()[0] != writers.0.bytes)
  }

  @Test func forgetsSeriesThatHaveNoRows() throws {
    let day = 24 * Self.hour
    var trial = DetectorTrial(detector: ZScore(settings(["warmup": .rows(3)])))
    trial.forgetNanos = 8 * day
    func rows(_ key: String, _ days: [Int64]) -> [DetectorTrial.Row] {
      days.map { DetectorTrial.Row(time: 1_800_000_000_000_000_000 + $0 * day, key: key, value: Double($0)) }
    }
    let all = (rows("kept", [0, 1, 2, 3, 4, 5, 13, 14]) + rows("gone", [0, 1, 2, 3, 4, 5, 20, 21]))
      .sorted { ($0.time, $0.key) < ($1.time, $1.key) }
    for (shards, batchRows) in [(1, 1), (2, 256)] {
      let results = try trial.run(all, shards: shards, batchRows: batchRows)
      #expect(results.filter { $0.key == "kept" }.map { $0.columns[3] != nil } == [false, false, false, true, true, true, true, true])
      #expect(results.filter { $0.key == "gone" }.map { $0.columns[3] != nil } == [false, false, false, true, true, true, false, false])
    }
  }

  @Test func aLimitOfSeriesIsTheSameForAllWorkers() throws {
    var trial = DetectorTrial(detector: Changed(settings(["warmup": .rows(2)])))
    trial.seriesMax = 200
    let rows = DetectorTrial.rows(seed: 17, keys: 700, count: 6, stepNanos: Self.hour, nulls: false)
    let expected = try trial.run(rows)
    let scored = Set(expected.filter { $0.columns[2] != nil }.map(\.key)).count
    #expect(scored > 100 && scored < 320)
    for (shards, batchRows) in [(1, 1), (2, 7), (4, 256)] {
      #expect(try trial.run(rows, shards: shards, batchRows: batchRows) == expected)
    }
    #expect(try trial.run(rows, shards: 2, batchRows: 7, restartAt: 1_500, with: 4) == expected)
  }

  @Test(arguments: detectors.indices) func survivesValuesOfAnySize(_ index: Int) throws {
    let trial = DetectorTrial(detector: Self.detectors[index].1)
    var random = SeededRandom(18)
    let odd: [Double?] = [nil, .infinity, -.infinity, 1e308, -1e308, 1e150, 2.3e-308, 0, -0.0, 1e100, 1]
    var rows: [DetectorTrial.Row] = []
    for number in 0..<400 {
      let value = random.below(3) == 0 ? Double(random.below(100)) : odd[random.below(odd.count)]
      rows.append(DetectorTrial.Row(time: 1_800_000_000_000_000_000 + Int64(number) * Self.hour, key: "a", value: value))
    }
    // Times far apart, at the ends of what there is.
    rows.append(DetectorTrial.Row(time: 4_000_000_000_000_000_000, key: "a", value: 1))
    rows.append(DetectorTrial.Row(time: eventTimeNanos.upperBound - 1, key: "a", value: 2))
    let results = try trial.run(rows)
    #expect(results.count == rows.count)
    for result in results { #expect(result.columns.allSatisfy { $0?.isFinite != false }) }
  }

  @Test(arguments: detectors.indices) func damagedStateIsRefusedOrHarmless(_ index: Int) throws {
    let trial = DetectorTrial(detector: Self.detectors[index].1)
    let rows = DetectorTrial.rows(seed: 19, keys: 5, count: 30, stepNanos: Self.hour)
    let shards = DetectorTrial.Shards(trial, shards: 1, batchRows: 16)
    shards.feed(Array(rows[..<60]))
    let good = try #require(shards.capture().first)
    var random = SeededRandom(20)
    var refused = 0
    for _ in 0..<200 {
      var bytes = good
      switch random.below(3) {
      case 0: bytes.removeLast(1 + random.below(bytes.count - 1))
      case 1: bytes[random.below(bytes.count)] ^= UInt8(1 + random.below(255))
      default: for _ in 0..<8 { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
      }
      let again = DetectorTrial.Shards(trial, shards: 1, batchRows: 16)
      do {
        try again.restore([bytes])
        again.feed(Array(rows[60...]))
      } catch is StateCorruption {
        refused += 1
      }
    }
    #expect(refused > 60)
    // Another detector's state is not taken for one's own.
    let other = DetectorTrial.Shards(
      DetectorTrial(detector: Changed(settings(["threshold": .number(77)]))), shards: 1, batchRows: 16)
    #expect(throws: StateCorruption.self) { try other.restore([good]) }
  }

  /// The reference page prints the specs: each has what a reader needs, and its example compiles (docs/anomalies.md).
  @Test func everySpecIsComplete() {
    for type in detectorList {
      let spec = type.spec
      #expect(!spec.summary.isEmpty && spec.example.hasPrefix("\(spec.name) "))
      #expect(spec.columns.last?.name == "is_anomaly")
      #expect(spec.options.allSatisfy { !$0.summary.isEmpty })
      #expect(Set(spec.options.map(\.name)).count == spec.options.count)
      #expect(spec.options.allSatisfy { !["by", "limit", "prefix", "members"].contains($0.name) })
    }
  }
}
