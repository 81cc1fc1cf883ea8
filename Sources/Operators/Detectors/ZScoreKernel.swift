import Catalog
import Runtime

#if canImport(Glibc)
  import Glibc
#endif

/// Mean and deviation in three words: number of rows, mean, variance (of the population), each row with the weight 1/n or
/// `step`, whichever is more: all history for a step of 0, else an exponential average that begins as a plain one.
/// Welford's update with a weight (West 1979; Finch 2009).
struct RunningMean {
  static let words = 3
  let at: UnsafeMutablePointer<Double>
  @inline(__always) init(_ at: UnsafeMutablePointer<Double>) { self.at = at }
  @inline(__always) var count: Double { at[0] }
  @inline(__always) var mean: Double { at[1] }
  @inline(__always) var variance: Double { at[2] }
  @inline(__always) var deviation: Double { at[2].squareRoot() }
  @inline(__always) func add(_ value: Double, step: Double) {
    let count = at[0] + 1
    let weight = count * step >= 1 ? step : 1 / count
    let distance = value - at[1]
    at[0] = count
    at[1] += weight * distance
    at[2] = (1 - weight) * (at[2] + weight * distance * distance)
  }
}

/// The last rows in a ring, for a mean; beside it the same in ascending order, for a median.
struct LastRows {
  let at: UnsafeMutablePointer<Double>
  let size: Int
  /// Next place, rows held, the ring, then the sorted rows where they are needed.
  static func words(size: Int, isSorted: Bool) -> Int { 2 + size * (isSorted ? 2 : 1) }

  @inline(__always) init(_ at: UnsafeMutablePointer<Double>, size: Int) {
    self.at = at
    self.size = size
  }
  private var ring: UnsafeMutablePointer<Double> { at + 2 }
  private var sorted: UnsafeMutablePointer<Double> { at + 2 + size }
  var count: Int { wordIndex(at[1], below: size + 1) }

  /// Mean and standard deviation (of the population), added up in the order of the ring's places.
  func meanAndDeviation() -> (Double, Double) {
    let count = count
    guard count > 0 else { return (0, 0) }
    var sum = 0.0
    for index in 0..<count { sum += ring[index] }
    let mean = sum / Double(count)
    var squares = 0.0
    for index in 0..<count { squares += (ring[index] - mean) * (ring[index] - mean) }
    return (mean, (squares / Double(count)).squareRoot())
  }

  /// Median and 1.4826 times the median absolute deviation, which is the standard deviation of a normal distribution.
  func medianAndDeviation() -> (Double, Double) {
    let count = count
    guard count > 0 else { return (0, 0) }
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2
    // Distances grow from the middle to both ends: the smallest ones are found by going outwards.
    var below = (count - 1) / 2
    var above = below + 1
    var before = 0.0
    var last = 0.0
    for _ in 0...(count / 2) {
      before = last
      if above >= count || below >= 0 && median - sorted[below] <= sorted[above] - median {
        last = below >= 0 ? median - sorted[below] : last
        below -= 1
      } else {
        last = sorted[above] - median
        above += 1
      }
    }
    return (median, 1.4826 * (count % 2 == 1 ? last : (before + last) / 2))
  }

  func add(_ value: Double, isSorted: Bool) {
    let count = count
    let place = wordIndex(at[0], below: size)
    var held = count
    if isSorted {
      if count == size {
        // The place of the value that leaves: the first that is not smaller.
        let leaving = ring[place]
        var index = Self.lowerBound(sorted, count, leaving)
        if index >= count { index = count - 1 }
        for next in index..<(count - 1) { sorted[next] = sorted[next + 1] }
        held -= 1
      }
      let index = Self.lowerBound(sorted, held, value)
      var next = held
      while next > index {
        sorted[next] = sorted[next - 1]
        next -= 1
      }
      sorted[index] = value
    }
    ring[place] = value
    at[0] = Double(place + 1 == size ? 0 : place + 1)
    at[1] = Double(min(count + 1, size))
  }

  private static func lowerBound(_ sorted: UnsafePointer<Double>, _ count: Int, _ value: Double) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if sorted[middle] < value { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// The z-score at work.
final class ZScoreKernel: DetectorKernel {
  /// Rows seen, the value before, rows since the anomaly began plus one (0 for none).
  static let stageWords = 3
  private static let seen = 0
  private static let previous = 1
  private static let sinceBegun = 2
  /// Average of the value; deviation of all history; the smoothed distance and its number of rows; its own mean and
  /// deviation; then the baseline.
  private static let average = 0
  private static let overall = 1
  private static let smoothed = 4
  private static let normal = 6
  private static let baseline = 9

  /// Least deviation of the smoothed distance, in deviations of the value.
  static let normalDeviationMin = 0.1

  static func words(of member: ZScore.Member) -> Int {
    baseline
      + (member.window > 0
        ? LastRows.words(size: member.window, isSorted: member.isMedian) : RunningMean.words * (1 + member.buckets))
  }

  private let definition: ZScore
  private let members: ContiguousArray<ZScore.Member>

  init(_ definition: ZScore) {
    self.definition = definition
    members = ContiguousArray(definition.members)
  }

  /// What one member says of a row.
  private struct Verdict {
    var score = 0.0
    /// In the unit of the value.
    var expected = Double.nan
    var deviation = Double.nan
  }

  override func process(_ rows: DetectorRows) {
    let expected = rows.numbers(0)
    let lower = rows.numbers(1)
    let upper = rows.numbers(2)
    let scores = rows.numbers(3)
    let flags = rows.flags(4)
    let warmup = definition.warmup
    let band = definition.band
    members.withUnsafeBufferPointer { members in
      for index in 0..<rows.count {
        let value = rows.input(index)
        guard let state = rows.state(index), value.isFinite else {
          // A row without a value says nothing, and ends nothing.
          expected.set(index, .nan)
          lower.set(index, .nan)
          upper.set(index, .nan)
          scores.set(index, .nan)
          flags.set(index, (rows.state(index)?[Self.sinceBegun] ?? 0) > 0)
          continue
        }
        let hour = Self.hours(rows.time(index))
        let seen = state[Self.seen]
        var best = Verdict()
        for place in members.indices {
          let verdict = score(value, seen, hour, members[place], state)
          if place == 0 || verdict.score > best.score { best = verdict }
        }
        state[Self.previous] = value
        state[Self.seen] = seen + 1
        expected.set(index, best.expected)
        lower.set(index, best.expected - band * best.deviation)
        upper.set(index, best.expected + band * best.deviation)
        let isWarm = seen >= warmup
        scores.set(index, isWarm ? best.score : .nan)
        flags.set(index, episode(isWarm && best.score >= definition.threshold, state))
      }
    }
  }

  /// Whether an anomaly is open behind this row.
  @inline(__always)
  private func episode(_ isOver: Bool, _ state: UnsafeMutablePointer<Double>) -> Bool {
    let since = state[Self.sinceBegun]
    if since > 0, isOver || since <= definition.cooldown {
      state[Self.sinceBegun] = since + 1
    } else {
      state[Self.sinceBegun] = isOver ? 1 : 0
    }
    return state[Self.sinceBegun] > 0
  }

  @inline(__always) private static func hours(_ time: Int64) -> Int64 { floorDivide(time, 3_600_000_000_000) }

  /// The bucket of a season, from hours since the epoch, which was a Thursday; a week begins on Monday.
  @inline(__always)
  private static func bucket(_ hours: Int64, _ season: ZScore.Member.Season) -> Int {
    switch season {
    case .none: return 0
    case .hourOfDay: return Int(((hours % 24) + 24) % 24)
    case .hourOfWeek: return Int((((hours + 72) % 168) + 168) % 168)
    }
  }

  @inline(__always)
  private func score(
    _ value: Double, _ seen: Double, _ hours: Int64, _ member: ZScore.Member, _ state: UnsafeMutablePointer<Double>
  ) -> Verdict {
    let words = state + member.base
    var verdict = Verdict()
    // What the input is measured from: 0, the value before, or its average.
    var origin = 0.0
    var hasInput = true
    switch member.input {
    case .value: break
    case .difference:
      origin = state[Self.previous]
      hasInput = seen > 0
    case .residual:
      origin = words[Self.average]
      hasInput = seen > 0
      words[Self.average] = seen > 0 ? origin + member.averageStep * (value - origin) : value
    }
    var distance = 0.0
    if hasInput {
      let input = value - origin
      let overall = RunningMean(words + Self.overall)
      var mean: Double
      var variance: Double
      let count: Double
      if member.window > 0 {
        let last = LastRows(words + Self.baseline, size: member.window)
        let (center, spread) = member.isMedian ? last.medianAndDeviation() : last.meanAndDeviation()
        mean = center
        variance = spread * spread
        count = Double(last.count)
        last.add(input, isSorted: member.isMedian)
      } else {
        let level = RunningMean(words + Self.baseline)
        count = level.count
        mean = level.mean
        variance = level.variance
        if member.season != .none {
          let hour = RunningMean(
            words + Self.baseline + RunningMean.words * (1 + Self.bucket(hours, member.season)))
          if hour.count >= member.minSamples {
            mean = hour.mean
            variance = hour.variance
          }
          hour.add(input, step: member.step)
        }
        level.add(input, step: member.step)
      }
      // One root, of the largest.
      variance = max(
        variance, member.floor * member.floor * overall.variance, member.minDeviation * member.minDeviation)
      // Of a series that never moves, rounding is no anomaly.
      let deviation = max(variance.squareRoot(), 1e-9 * (1 + abs(mean)))
      overall.add(input, step: 0)
      if count >= 2 {
        distance = (input - mean) / deviation
        distance = definition.direction == 0 ? abs(distance) : max(0, distance * definition.direction)
        distance = min(distance, member.cap)
        verdict.expected = origin + mean
        verdict.deviation = deviation
      }
    }
    verdict.score = normalised(smoothed(distance, words), words)
    return verdict
  }

  @inline(__always)
  private func smoothed(_ distance: Double, _ words: UnsafeMutablePointer<Double>) -> Double {
    let step = definition.smoothingStep
    guard step < 1 else { return distance }
    let count = words[Self.smoothed] + 1
    words[Self.smoothed] = count
    words[Self.smoothed + 1] += (count * step >= 1 ? step : 1 / count) * (distance - words[Self.smoothed + 1])
    return words[Self.smoothed + 1]
  }

  @inline(__always)
  private func normalised(_ distance: Double, _ words: UnsafeMutablePointer<Double>) -> Double {
    guard let step = definition.normalStep else { return distance }
    let normal = RunningMean(words + Self.normal)
    // Where `floor` or `min_deviation` makes all distances small, their differences are no news either.
    let deviation = max(normal.deviation, Self.normalDeviationMin)
    let score = normal.count >= 2 ? (distance - normal.mean) / deviation : 0
    normal.add(distance, step: step)
    return score
  }
}
