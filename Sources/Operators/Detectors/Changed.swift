import Catalog
import Runtime

/// `changed p99`: the level of a series has moved and stays there. Two cumulative sums of the distance from the level, in its
/// deviations and less a drift, one up and one down (Page, Biometrika 1954): each is zero while values scatter around the
/// level, and grows by each row after a move. `page_hinkley` measures from the mean of all rows since the last change,
/// `cusum` from the level that was learnt behind it.
public struct Changed: Detector {
  public static let spec: DetectorSpec = DetectorSpec(
    name: "changed",
    summary: "Whether the level of a series has moved for good: an anomaly from the row that shows it until the new level has been learnt.",
    takesColumn: true,
    options: [
      DetectorOption("threshold", .number(0.1...1e6), default: .number(12), "deviations that must have come together"),
      DetectorOption("drift", .number(0...100), default: .number(0.75), "deviations from the level that a row may lie without counting"),
      DetectorOption("direction", .word(["both", "up", "down"]), default: .word("both"), "which moves count"),
      DetectorOption("warmup", .rows(2...1_000_000), default: .rows(30), "rows of which a level is learnt, at first and behind each change"),
      DetectorOption("method", .word(["cusum", "page_hinkley"]), default: .word("cusum"), "what rows are measured from: the level as learnt, or the mean of all rows since"),
      DetectorOption("cap", .number(1...1e9), default: .number(6), "most deviations that one row counts for, so that a spike is no change"),
      DetectorOption("floor", .number(0...10), default: .number(0.05), "least deviation, as a share of the level"),
      DetectorOption("min_deviation", .value(0...1e150), default: .number(0), "least deviation, in the unit of the value"),
    ],
    columns: [
      DetectorColumn("before", .likeArgument, "the level that was learnt"),
      DetectorColumn("after", .likeArgument, "mean of the rows since the sum began to grow; behind a change, of those since it"),
      DetectorColumn("score", .type(.float), "the larger sum, in deviations; null while a level is learnt"),
      DetectorColumn("is_anomaly", .type(.bool), "the level has changed, and the new one is being learnt"),
    ],
    stateBytes: { (Changed($0).words + SeriesTable.headerWords) * 8 },
    example: "changed p99 by service threshold 20 direction up")

  let threshold: Double
  let drift: Double
  let up: Bool
  let down: Bool
  let warmup: Double
  let isRunning: Bool
  let cap: Double
  let floor: Double
  let minDeviation: Double
  public let fingerprint: String
  public var words: Int { ChangedKernel.words }

  public init(_ settings: DetectorSettings) {
    let spec = Self.spec
    threshold = settings.number("threshold", in: spec)
    drift = settings.number("drift", in: spec)
    let direction = settings.word("direction", in: spec)
    up = direction != "down"
    down = direction != "up"
    warmup = settings.number("warmup", in: spec)
    isRunning = settings.word("method", in: spec) == "page_hinkley"
    cap = settings.number("cap", in: spec)
    floor = settings.number("floor", in: spec)
    minDeviation = settings.number("min_deviation", in: spec)
    fingerprint = settings.fingerprint(of: spec, members: [])
  }

  public func makeKernel(batchRows: Int) -> DetectorKernel { ChangedKernel(self) }
}

final class ChangedKernel: DetectorKernel {
  /// The level (count, mean, variance); the sum upwards with the count and the total of its rows; the same downwards;
  /// whether a change is being learnt, and the level before it.
  static let words = 11
  private static let sumUp = 3
  private static let sumDown = 6
  private static let isLearning = 9
  private static let before = 10

  private let definition: Changed
  init(_ definition: Changed) { self.definition = definition }

  override func process(_ rows: DetectorRows) {
    let before = rows.numbers(0)
    let after = rows.numbers(1)
    let scores = rows.numbers(2)
    let flags = rows.flags(3)
    for index in 0..<rows.count {
      let value = rows.input(index)
      guard let state = rows.state(index), value.isFinite else {
        before.set(index, .nan)
        after.set(index, .nan)
        scores.set(index, .nan)
        flags.set(index, (rows.state(index)?[Self.isLearning] ?? 0) > 0)
        continue
      }
      let level = RunningMean(state)
      if level.count < definition.warmup {
        level.add(value, step: 0)
        let isChange = state[Self.isLearning] > 0
        before.set(index, isChange ? state[Self.before] : .nan)
        after.set(index, isChange ? level.mean : .nan)
        scores.set(index, .nan)
        flags.set(index, isChange)
        if level.count >= definition.warmup { state[Self.isLearning] = 0 }
        continue
      }
      let mean = level.mean
      let deviation = max(
        level.deviation, definition.floor * abs(mean), definition.minDeviation, 1e-9 * (1 + abs(mean)))
      let distance = min(max((value - mean) / deviation, -definition.cap), definition.cap)
      let up = definition.up ? grow(state + Self.sumUp, by: distance - definition.drift, value) : 0
      let down = definition.down ? grow(state + Self.sumDown, by: -distance - definition.drift, value) : 0
      let score = max(up, down)
      before.set(index, mean)
      scores.set(index, score)
      let sum = state + (up >= down ? Self.sumUp : Self.sumDown)
      after.set(index, sum[1] > 0 ? sum[2] / sum[1] : mean)
      let isChange = score >= definition.threshold
      flags.set(index, isChange)
      if isChange {
        // The new level is learnt from this row on.
        for word in 0..<Self.words { state[word] = 0 }
        state[Self.isLearning] = 1
        state[Self.before] = mean
        level.add(value, step: 0)
      } else if definition.isRunning {
        level.add(value, step: 0)
      }
    }
  }

  /// A sum that does not fall below zero, with the rows since it was there.
  @inline(__always)
  private func grow(_ sum: UnsafeMutablePointer<Double>, by step: Double, _ value: Double) -> Double {
    sum[0] = max(0, sum[0] + step)
    if sum[0] > 0 {
      sum[1] += 1
      sum[2] += value
    } else {
      sum[1] = 0
      sum[2] = 0
    }
    return sum[0]
  }
}
