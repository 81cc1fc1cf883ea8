import Catalog
import Runtime

/// `forecast used reaches 90% within 4h`: where a series will be, and when it gets to a level.
///
/// `linear` is the least-squares line through the last rows. `holt_winters` smooths a level, a trend and, with `season`, an
/// additive season exponentially (Holt 1957; Winters, Management Science 1960), in memory that does not grow with time.
public struct Forecast: Detector {
  /// Most steps that are looked ahead one by one, which a season needs.
  static let stepsMax = 10_000

  public static let spec: DetectorSpec = DetectorSpec(
    name: "forecast",
    summary: "Where a series will be after `within`, and how long until it reaches a level; an anomaly when that is sooner.",
    takesColumn: true,
    options: [
      DetectorOption("reaches", .value(-1e150...1e150), default: nil, "the level, in the unit of the column"),
      DetectorOption("within", .duration(1_000_000...31_536_000_000_000_000), default: nil, "how far to look ahead"),
      DetectorOption("direction", .word(["up", "down"]), default: .word("up"), "whether the level is reached from below or from above"),
      DetectorOption("method", .word(["linear", "holt_winters"]), default: .word("linear"), "a line through the last rows, or smoothed level, trend and season"),
      DetectorOption("over", .rows(3...4_096), default: .rows(60), "rows that the line goes through"),
      DetectorOption("season", .rows(0...4_096), default: .rows(0), "rows in a season of `holt_winters`, such as 24 for a day of hours; `none`"),
      DetectorOption("alpha", .number(0.0001...1), default: .number(0.2), "weight of a new row in the level of `holt_winters`"),
      DetectorOption("beta", .number(0...1), default: .number(0.05), "weight of a new step in its trend"),
      DetectorOption("gamma", .number(0...1), default: .number(0.1), "weight of a new row in its season"),
      DetectorOption("warmup", .rows(3...1_000_000), default: .rows(10), "rows of a series before it gets a forecast; of `holt_winters` with a season two seasons at least"),
      DetectorOption("confirm", .rows(1...10_000), default: .rows(3), "rows in a row that must say so before an anomaly begins, and before it ends"),
      DetectorOption("band", .number(0...1_000), default: .number(2), "deviations of past errors between `forecast` and `lower`, `upper`"),
    ],
    columns: [
      DetectorColumn("forecast", .likeArgument, "the value expected after `within`"),
      DetectorColumn("lower", .likeArgument, "`forecast` less `band` deviations"),
      DetectorColumn("upper", .likeArgument, "`forecast` plus `band` deviations"),
      DetectorColumn("reaches_in", .type(.duration), "time until the level is reached, 0 where it has been; null where that is not within ten times `within`"),
      DetectorColumn("is_anomaly", .type(.bool), "the level is reached within `within`"),
    ],
    validate: { Forecast.problem($0) }, stateBytes: { (Forecast($0).words + SeriesTable.headerWords) * 8 },
    example: "forecast used reaches 80GiB within 4h by host, mount")

  let level: Double
  let withinNanos: Double
  /// 1 upwards, -1 downwards.
  let sign: Double
  let isLinear: Bool
  let over: Int
  let season: Int
  let alpha: Double
  let beta: Double
  let gamma: Double
  let warmup: Double
  let confirm: Double
  let band: Double
  let hopNanos: Double
  public let words: Int
  public let fingerprint: String

  public init(_ settings: DetectorSettings) {
    let spec = Self.spec
    level = settings.number("reaches", in: spec)
    withinNanos = Double(settings.nanos("within", in: spec))
    sign = settings.word("direction", in: spec) == "down" ? -1 : 1
    isLinear = settings.word("method", in: spec) == "linear"
    over = settings.rows("over", in: spec)
    season = settings.rows("season", in: spec)
    alpha = settings.number("alpha", in: spec)
    beta = settings.number("beta", in: spec)
    gamma = settings.number("gamma", in: spec)
    let rows = settings.number("warmup", in: spec)
    warmup = isLinear ? rows : max(rows, Double(2 * season))
    confirm = settings.number("confirm", in: spec)
    band = settings.number("band", in: spec)
    hopNanos = Double(settings.hopNanos)
    words = isLinear ? LinearForecastKernel.words(over: over) : HoltWintersKernel.words(season: season)
    fingerprint = settings.fingerprint(of: spec, members: [])
  }

  private static func problem(_ settings: DetectorSettings) -> DetectorProblem? {
    let forecast = Forecast(settings)
    if forecast.isLinear {
      let only = ["season", "alpha", "beta", "gamma"].first { settings.given[$0] != nil }
      return only.map {
        DetectorProblem($0, "a line has no `\($0)`", hint: "add `method holt_winters`, or leave it out")
      }
    }
    if settings.given["over"] != nil {
      return DetectorProblem(
        "over", "`holt_winters` goes through no last rows", hint: "`alpha`, `beta` and `gamma` say how fast it forgets")
    }
    if settings.hopNanos <= 0 {
      return DetectorProblem(
        "method", "`holt_winters` counts steps, and these rows come at any time",
        hint: "put `| window tumbling 1m by … | aggregate …` before it, or use `method linear`")
    }
    if forecast.withinNanos / forecast.hopNanos * 10 > Double(stepsMax) {
      return DetectorProblem(
        "within", "that is more than \(stepsMax / 10) windows ahead",
        hint: "aggregate into longer windows before it, or use `method linear`")
    }
    if forecast.season == 1 {
      return DetectorProblem("season", "a season has two rows at least", hint: "leave it out")
    }
    return nil
  }

  public func makeKernel(batchRows: Int) -> DetectorKernel {
    isLinear ? LinearForecastKernel(self) : HoltWintersKernel(self)
  }

  /// Rows in a row that say another thing than the state does, and whether an anomaly is open: two words.
  static let episodeWords = 2

  @inline(__always)
  func episode(_ isReached: Bool, _ state: UnsafeMutablePointer<Double>) -> Bool {
    let isOpen = state[1] > 0
    if isReached == isOpen {
      state[0] = 0
    } else {
      state[0] += 1
      if state[0] >= confirm {
        state[0] = 0
        state[1] = isReached ? 1 : 0
      }
    }
    return state[1] > 0
  }

  /// Time until a line from `value` at `slope` a nanosecond gets to the level; NaN for longer than ten times `within`.
  func reaches(from value: Double, slope: Double) -> Double {
    let distance = (level - value) * sign
    if distance <= 0 { return 0 }
    let time = distance / (slope * sign)
    return time >= 0 && time <= 10 * withinNanos ? time : .nan
  }
}

/// What both methods write of a row.
struct ForecastColumns {
  let forecast: DetectorRows.Numbers
  let lower: DetectorRows.Numbers
  let upper: DetectorRows.Numbers
  let reachesIn: DetectorRows.Numbers
  let flags: DetectorRows.Flags
  init(_ rows: DetectorRows) {
    forecast = rows.numbers(0)
    lower = rows.numbers(1)
    upper = rows.numbers(2)
    reachesIn = rows.numbers(3)
    flags = rows.flags(4)
  }

  @inline(__always)
  func set(_ index: Int, _ value: Double, margin: Double, reachesIn time: Double, isAnomaly: Bool) {
    forecast.set(index, value)
    lower.set(index, value - margin)
    upper.set(index, value + margin)
    reachesIn.set(index, time)
    flags.set(index, isAnomaly)
  }
}

/// Least squares over the last rows.
final class LinearForecastKernel: DetectorKernel {
  /// The episode; rows seen, next place; times (as bits), values.
  static func words(over: Int) -> Int { Forecast.episodeWords + 2 + 2 * over }
  private let definition: Forecast
  init(_ definition: Forecast) { self.definition = definition }

  override func process(_ rows: DetectorRows) {
    let columns = ForecastColumns(rows)
    let size = definition.over
    for index in 0..<rows.count {
      let value = rows.input(index)
      guard let state = rows.state(index), value.isFinite else {
        columns.set(index, .nan, margin: 0, reachesIn: .nan, isAnomaly: (rows.state(index)?[1] ?? 0) > 0)
        continue
      }
      let words = state + Forecast.episodeWords
      let times = words + 2
      let values = times + size
      let place = wordIndex(words[1], below: size)
      let now = rows.time(index)
      times[place] = Double(bitPattern: UInt64(bitPattern: now))
      values[place] = value
      words[0] += 1
      words[1] = Double(place + 1 == size ? 0 : place + 1)
      guard words[0] >= definition.warmup else {
        columns.set(index, .nan, margin: 0, reachesIn: .nan, isAnomaly: false)
        continue
      }
      let count = words[0] < Double(size) ? wordIndex(words[0], below: size + 1) : size
      let line = Self.fit(times, values, count, now: now)
      let reachesIn = definition.reaches(from: line.value, slope: line.slope)
      let isReached = reachesIn <= definition.withinNanos
      columns.set(
        index, line.value + line.slope * definition.withinNanos, margin: definition.band * line.deviation,
        reachesIn: reachesIn, isAnomaly: definition.episode(isReached, state))
    }
  }

  /// The line's value at `now`, its slope a nanosecond, and the deviation of the rows from it.
  private static func fit(
    _ times: UnsafePointer<Double>, _ values: UnsafePointer<Double>, _ count: Int, now: Int64
  ) -> (value: Double, slope: Double, deviation: Double) {
    @inline(__always) func age(_ index: Int) -> Double {
      Double(Int64(bitPattern: times[index].bitPattern) &- now)
    }
    var meanAge = 0.0
    var meanValue = 0.0
    for index in 0..<count {
      meanAge += age(index)
      meanValue += values[index]
    }
    meanAge /= Double(count)
    meanValue /= Double(count)
    var square = 0.0
    var product = 0.0
    for index in 0..<count {
      let distance = age(index) - meanAge
      square += distance * distance
      product += distance * (values[index] - meanValue)
    }
    let slope = square > 0 ? product / square : 0
    let value = meanValue - slope * meanAge
    var errors = 0.0
    for index in 0..<count {
      let error = values[index] - (value + slope * age(index))
      errors += error * error
    }
    return (value, slope, (errors / Double(max(1, count - 2))).squareRoot())
  }
}

/// Exponential smoothing of level, trend and season.
final class HoltWintersKernel: DetectorKernel {
  /// The episode; rows seen, level, trend a row, mean square of one-step errors, number of the last step; the season.
  static func words(season: Int) -> Int { Forecast.episodeWords + 5 + season }
  private let definition: Forecast
  init(_ definition: Forecast) { self.definition = definition }

  override func process(_ rows: DetectorRows) {
    let columns = ForecastColumns(rows)
    let ahead = max(1, (definition.withinNanos / definition.hopNanos).rounded(.down))
    for index in 0..<rows.count {
      let value = rows.input(index)
      guard let state = rows.state(index), value.isFinite else {
        columns.set(index, .nan, margin: 0, reachesIn: .nan, isAnomaly: (rows.state(index)?[1] ?? 0) > 0)
        continue
      }
      let words = state + Forecast.episodeWords
      let step = (Double(rows.time(index)) / definition.hopNanos).rounded(.down)
      learn(value, step, words)
      guard words[0] >= definition.warmup else {
        columns.set(index, .nan, margin: 0, reachesIn: .nan, isAnomaly: false)
        continue
      }
      let reachesIn = self.reachesIn(value, step, words)
      let expected = words[1] + ahead * words[2] + season(step + ahead, words)
      columns.set(
        index, expected, margin: definition.band * words[3].squareRoot(), reachesIn: reachesIn,
        isAnomaly: definition.episode(reachesIn <= definition.withinNanos, state))
    }
  }

  @inline(__always) private func place(_ step: Double) -> Int {
    let length = Double(definition.season)
    return wordIndex(step - (step / length).rounded(.down) * length, below: definition.season)
  }

  @inline(__always) private func season(_ step: Double, _ words: UnsafeMutablePointer<Double>) -> Double {
    definition.season > 0 ? words[5 + place(step)] : 0
  }

  private func learn(_ value: Double, _ step: Double, _ words: UnsafeMutablePointer<Double>) {
    let seen = words[0]
    words[0] = seen + 1
    guard seen > 0 else {
      words[1] = value
      words[4] = step
      return
    }
    // Windows without a row are steps all the same.
    let steps = max(1, step - words[4])
    words[4] = step
    let before = words[1]
    let base = before + steps * words[2]
    let error = value - (base + season(step, words))
    words[3] += max(1 / seen, 0.05) * (error * error - words[3])
    if definition.season > 0, seen < Double(definition.season) {
      // The first season: the level is the mean so far, and what is left of each row its season.
      words[1] += (value - words[1]) / (seen + 1)
      words[5 + place(step)] = value - words[1]
      return
    }
    words[1] = base + definition.alpha * (value - season(step, words) - base)
    words[2] += definition.beta * ((words[1] - before) / steps - words[2])
    if definition.season > 0 {
      words[5 + place(step)] += definition.gamma * (value - words[1] - words[5 + place(step)])
    }
  }

  /// Nanoseconds until the first step at which the level is reached; NaN where none of ten times `within` does.
  private func reachesIn(_ value: Double, _ step: Double, _ words: UnsafeMutablePointer<Double>) -> Double {
    if (definition.level - value) * definition.sign <= 0 { return 0 }
    if definition.season == 0 {
      return definition.reaches(from: words[1], slope: words[2] / definition.hopNanos)
    }
    let most = Int(min(Double(Forecast.stepsMax), 10 * definition.withinNanos / definition.hopNanos))
    var ahead = 1
    while ahead <= most {
      let expected = words[1] + Double(ahead) * words[2] + season(step + Double(ahead), words)
      if (definition.level - expected) * definition.sign <= 0 { return Double(ahead) * definition.hopNanos }
      ahead += 1
    }
    return .nan
  }
}
