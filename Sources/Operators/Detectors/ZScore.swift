import Catalog
import Runtime

#if canImport(Glibc)
  import Glibc
#endif

/// `zscore p99`: how far a value lies from what its series has shown before, in deviations.
///
/// A score is made in steps, each of which an option sets: the input (value, difference, residual), the baseline that says
/// what was to be expected (by season, where it has one), the distance from it in deviations, its direction, a cap; smoothed
/// over some rows, and measured against the mean and the deviation that the smoothed distance has had itself, so that one
/// threshold fits every series (after the anomaly likelihood of Lavin and Ahmad, ICMLA 2015, with an exponential average for
/// its two windows). The largest of the members' scores is the stage's. docs/anomalies.md has what each step is worth.
public struct ZScore: Detector {
  static let hourOfDay = "hour_of_day"
  static let hourOfWeek = "hour_of_week"

  public static let spec: DetectorSpec = DetectorSpec(
    name: "zscore",
    summary: "How far a value lies from what its series has shown before, in deviations; an anomaly from the threshold on.",
    takesColumn: true,
    options: [
      DetectorOption("threshold", .number(0.1...1_000), default: .number(4.25), "score from which on a row is an anomaly"),
      DetectorOption("direction", .word(["both", "up", "down"]), default: .word("both"), "which side of the expected value counts"),
      DetectorOption("warmup", .rows(0...1_000_000), default: .rows(30), "rows of a series before it gets a score"),
      DetectorOption("smoothing", .rows(0...10_000), default: .rows(16), "rows over which the distance is averaged, exponentially; `none` for each row by itself"),
      DetectorOption("normalise", .memory(windowsMax: 0, allowsNone: true), default: .halfLife(5_000), "memory of the score's own mean and deviation, by which it is divided; `none` leaves deviations of the value"),
      DetectorOption("cooldown", .rows(0...1_000_000), default: .rows(100), "rows from the start of an anomaly before it may end"),
      DetectorOption("band", .number(0...1_000), default: .number(3), "deviations between `expected` and `lower`, `upper`"),
      DetectorOption("input", .word(["value", "difference", "residual"]), default: .word("value"), "the value, its difference from the row before, or from its exponential average", isMember: true),
      DetectorOption("average", .number(0.5...1e9), default: .number(12), "half-life, in rows, of the average that `input residual` is taken against", isMember: true),
      DetectorOption("baseline", .memory(windowsMax: 4_096, allowsNone: false), default: .all, "what mean and deviation are taken of", isMember: true),
      DetectorOption("estimator", .word(["mean", "median"]), default: .word("mean"), "mean and standard deviation, or median and 1.4826 times the median absolute deviation (of `N windows` only)", isMember: true),
      DetectorOption("season", .word(["none", hourOfDay, hourOfWeek]), default: .word("none"), "a baseline for each hour, UTC", isMember: true),
      DetectorOption("min_samples", .rows(2...1_000_000), default: .rows(24), "rows of an hour before its baseline is used; until then the one without season is", isMember: true),
      DetectorOption("floor", .number(0...10), default: .number(0.2), "least deviation, as a share of the deviation of all history", isMember: true),
      DetectorOption("min_deviation", .value(0...1e150), default: .number(0), "least deviation, in the unit of the value", isMember: true),
      DetectorOption("cap", .number(1...1e9), default: .number(16), "most deviations that a row counts for", isMember: true),
    ],
    takesMembers: true,
    columns: [
      DetectorColumn("expected", .likeArgument, "the baseline's mean or median, of the member with the largest score"),
      DetectorColumn("lower", .likeArgument, "`expected` less `band` deviations"),
      DetectorColumn("upper", .likeArgument, "`expected` plus `band` deviations"),
      DetectorColumn("score", .type(.float), "null during the warm-up"),
      DetectorColumn("is_anomaly", .type(.bool), "from the first row at or over the threshold to the first one below it after the cool-down"),
    ],
    validate: { ZScore.problem($0) }, stateBytes: { (ZScore($0).words + SeriesTable.headerWords) * 8 },
    example: "zscore p99 by service threshold 5 direction up")

  /// The members of a stage that names none and no option of one.
  static let defaultMembers = [
    DetectorSettings.Member(name: "level", given: ["baseline": .halfLife(3_000)]),
    DetectorSettings.Member(name: "hour", given: ["season": .word(hourOfDay), "baseline": .halfLife(200)]),
    DetectorSettings.Member(
      name: "jump", given: ["input": .word("difference"), "season": .word(hourOfDay), "baseline": .halfLife(200)]),
  ]

  /// One score, its options resolved, and where its words are among those of a series.
  struct Member: Sendable {
    enum Input: Sendable { case value, difference, residual }
    enum Season: Sendable { case none, hourOfDay, hourOfWeek }
    var input = Input.value
    var averageStep = 0.0
    /// Rows of the window; 0 for a running mean.
    var window = 0
    /// Least weight of a new row; 0 for all history.
    var step = 0.0
    var isMedian = false
    var season = Season.none
    var minSamples = 0.0
    var floor = 0.0
    var minDeviation = 0.0
    var cap = 0.0
    /// First word.
    var base = 0

    var buckets: Int {
      switch season {
      case .none: 0
      case .hourOfDay: 24
      case .hourOfWeek: 168
      }
    }
  }

  let threshold: Double
  let direction: Double
  let warmup: Double
  let smoothingStep: Double
  /// Least weight of a new score; nil for no normalising.
  let normalStep: Double?
  let cooldown: Double
  let band: Double
  let members: [Member]
  public let words: Int
  public let fingerprint: String

  public init(_ settings: DetectorSettings) {
    let spec = Self.spec
    threshold = settings.number("threshold", in: spec)
    switch settings.word("direction", in: spec) {
    case "up": direction = 1
    case "down": direction = -1
    default: direction = 0
    }
    warmup = settings.number("warmup", in: spec)
    let rows = settings.number("smoothing", in: spec)
    smoothingStep = rows > 1 ? 2 / (rows + 1) : 1
    switch settings.value("normalise", in: spec) {
    case .all: normalStep = 0
    case .halfLife(let rows): normalStep = Self.step(halfLife: rows)
    case .number, .measured, .rows, .duration, .word, .none: normalStep = nil
    }
    cooldown = settings.number("cooldown", in: spec)
    band = settings.number("band", in: spec)
    let chosen = Self.members(of: settings)
    var members: [Member] = []
    var base = ZScoreKernel.stageWords
    for given in chosen {
      var member = Self.member(given, settings)
      member.base = base
      base += ZScoreKernel.words(of: member)
      members.append(member)
    }
    self.members = members
    words = base
    fingerprint = settings.fingerprint(of: spec, members: chosen)
  }

  /// Named ones; else one of the stage's options if it has any; else the default ones.
  static func members(of settings: DetectorSettings) -> [DetectorSettings.Member] {
    if !settings.members.isEmpty { return settings.members }
    let shape: Set<String> = ["input", "average", "baseline", "estimator", "season"]
    return settings.given.keys.contains { shape.contains($0) } ? [DetectorSettings.Member(name: "level")] : defaultMembers
  }

  private static func step(halfLife rows: Double) -> Double { 1 - exp2(-1 / rows) }

  private static func member(_ given: DetectorSettings.Member, _ settings: DetectorSettings) -> Member {
    var member = Member()
    switch settings.word("input", of: given, in: spec) {
    case "difference": member.input = .difference
    case "residual": member.input = .residual
    default: member.input = .value
    }
    member.averageStep = step(halfLife: settings.number("average", of: given, in: spec))
    switch settings.value("baseline", of: given, in: spec) {
    case .rows(let count): member.window = count
    case .halfLife(let rows): member.step = step(halfLife: rows)
    case .all, .none, .number, .measured, .duration, .word: member.step = 0
    }
    member.isMedian = settings.word("estimator", of: given, in: spec) == "median"
    switch settings.word("season", of: given, in: spec) {
    case hourOfDay: member.season = .hourOfDay
    case hourOfWeek: member.season = .hourOfWeek
    default: member.season = .none
    }
    member.minSamples = settings.number("min_samples", of: given, in: spec)
    member.floor = settings.number("floor", of: given, in: spec)
    member.minDeviation = settings.number("min_deviation", of: given, in: spec)
    member.cap = settings.number("cap", of: given, in: spec)
    return member
  }

  private static func problem(_ settings: DetectorSettings) -> DetectorProblem? {
    for given in members(of: settings) {
      let member = member(given, settings)
      if member.isMedian, member.window == 0 {
        return DetectorProblem(
          "estimator", "the median is taken of the last rows, and this baseline keeps none",
          hint: "add `baseline 60 windows`, or use `estimator mean`")
      }
      if member.window > 0, member.season != .none {
        return DetectorProblem(
          "season", "a season keeps a mean for each hour, and no windows",
          hint: "use `baseline all` or `baseline half_life 200 windows`, or leave the season out")
      }
    }
    return nil
  }

  public func makeKernel(batchRows: Int) -> DetectorKernel { ZScoreKernel(self) }
}
