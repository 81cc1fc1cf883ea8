import Catalog
import Foundation

@testable import Operators

/// What `docs/anomalies.md` says, over whole arrays and from its beginning for each row: slow, and meant to be obviously right.
struct ZScoreReference {
  var definition: ZScore

  /// Weighted mean and deviation: each new value gets the weight 1/n or `step`, whichever is more, and takes it from those before.
  static func weighted(_ values: [Double], step: Double) -> (mean: Double, deviation: Double) {
    // Of equal values the mean is theirs to the last bit, which matters where no deviation is left to hide it.
    if let first = values.first, values.allSatisfy({ $0 == first }) { return (first, 0) }
    var weights: [Double] = []
    for index in values.indices {
      let own = max(1 / Double(index + 1), step)
      weights = weights.map { $0 * (1 - own) } + [own]
    }
    let mean = zip(weights, values).reduce(0) { $0 + $1.0 * $1.1 }
    let variance = zip(weights, values).reduce(0) { $0 + $1.0 * ($1.1 - mean) * ($1.1 - mean) }
    return (mean, max(0, variance).squareRoot())
  }

  static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
  }

  /// Expected, lower, upper, score and flag of each row of one series.
  func run(_ rows: [(time: Int64, value: Double?)]) -> [[Double?]] {
    let given = rows.compactMap { row in row.value.map { (time: row.time, value: $0) } }
    var verdicts: [[(score: Double, expected: Double?, deviation: Double?)]] = []
    for member in definition.members { verdicts.append(run(member, given)) }
    var results: [[Double?]] = []
    var isOpen = false
    var begun = 0
    var number = 0
    for row in rows {
      guard row.value != nil else {
        results.append([nil, nil, nil, nil, isOpen ? 1 : 0])
        continue
      }
      var best = verdicts[0][number]
      for verdict in verdicts.dropFirst() where verdict[number].score > best.score { best = verdict[number] }
      let isWarm = Double(number) >= definition.warmup
      let isOver = isWarm && best.score >= definition.threshold
      if !isOpen, isOver {
        isOpen = true
        begun = number
      } else if isOpen, !isOver, Double(number - begun) > definition.cooldown {
        isOpen = false
      }
      var margin: Double?
      if let deviation = best.deviation { margin = definition.band * deviation }
      results.append([
        best.expected, best.expected.flatMap { e in margin.map { e - $0 } },
        best.expected.flatMap { e in margin.map { e + $0 } }, isWarm ? best.score : nil, isOpen ? 1 : 0,
      ])
      number += 1
    }
    return results
  }

  private func bucket(_ time: Int64, _ season: ZScore.Member.Season) -> Int {
    var calendar = Calendar(identifier: .gregorian)
    calendar.timeZone = TimeZone(identifier: "UTC")!
    let date = Date(timeIntervalSince1970: Double(time / 1_000_000_000))
    let parts = calendar.dateComponents([.weekday, .hour], from: date)
    switch season {
    case .none: return 0
    case .hourOfDay: return parts.hour!
    case .hourOfWeek: return parts.weekday! * 24 + parts.hour!
    }
  }

  private func run(
    _ member: ZScore.Member, _ rows: [(time: Int64, value: Double)]
  ) -> [(score: Double, expected: Double?, deviation: Double?)] {
    var inputs: [(bucket: Int, value: Double)] = []
    var distances: [Double] = []
    var smoothed: [Double] = []
    var verdicts: [(score: Double, expected: Double?, deviation: Double?)] = []
    for index in rows.indices {
      var origin: Double? = 0
      switch member.input {
      case .value: break
      case .difference: origin = index > 0 ? rows[index - 1].value : nil
      case .residual:
        origin = nil
        for before in 0..<index {
          origin = origin.map { $0 + member.averageStep * (rows[before].value - $0) } ?? rows[before].value
        }
      }
      var distance = 0.0
      var expected: Double?
      var deviation: Double?
      if let origin {
        let input = rows[index].value - origin
        let bucket = bucket(rows[index].time, member.season)
        let history = inputs.map(\.value)
        if history.count >= 2 {
          var known = history
          if member.season != .none {
            let same = inputs.filter { $0.bucket == bucket }.map(\.value)
            if Double(same.count) >= member.minSamples { known = same }
          }
          var center: Double
          var spread: Double
          if member.window > 0 {
            let last = Array(history.suffix(member.window))
            if member.isMedian {
              center = Self.median(last)
              spread = 1.4826 * Self.median(last.map { abs($0 - center) })
            } else {
              (center, spread) = Self.weighted(last, step: 0)
            }
          } else {
            (center, spread) = Self.weighted(known, step: member.step)
          }
          spread = max(
            spread, member.floor * Self.weighted(history, step: 0).deviation, member.minDeviation,
            1e-9 * (1 + abs(center)))
          distance = (input - center) / spread
          if definition.direction == 0 { distance = abs(distance) }
          if definition.direction > 0 { distance = max(0, distance) }
          if definition.direction < 0 { distance = max(0, -distance) }
          distance = min(distance, member.cap)
          expected = origin + center
          deviation = spread
        }
        inputs.append((bucket, input))
      }
      distances.append(distance)
      smoothed.append(
        definition.smoothingStep < 1 ? Self.weighted(distances, step: definition.smoothingStep).mean : distance)
      var score = smoothed[index]
      if let step = definition.normalStep {
        let before = Self.weighted(Array(smoothed.dropLast()), step: step)
        score = index >= 2 ? (smoothed[index] - before.mean) / max(before.deviation, 0.1) : 0
      }
      verdicts.append((score, expected, deviation))
    }
    return verdicts
  }
}

/// Cumulative sums over arrays: of the rows since the last change, the first `warmup` are the level.
struct ChangedReference {
  var definition: Changed

  func run(_ rows: [(time: Int64, value: Double?)]) -> [[Double?]] {
    var results: [[Double?]] = []
    var since: [Double] = []
    var levelBefore: Double?
    for row in rows {
      guard let value = row.value else {
        results.append([nil, nil, nil, levelBefore != nil && Double(since.count) < definition.warmup ? 1 : 0])
        continue
      }
      let warmup = Int(definition.warmup)
      if since.count < warmup {
        since.append(value)
        let mean = since.reduce(0, +) / Double(since.count)
        results.append(levelBefore.map { [$0, mean, nil, 1] } ?? [nil, nil, nil, 0])
        continue
      }
      since.append(value)
      // Both sums anew, from the rows behind the warm-up on.
      var sums = [(sum: 0.0, rows: [Double]()), (sum: 0.0, rows: [Double]())]
      var mean = 0.0
      for index in warmup..<since.count {
        let known = Array(since[..<(definition.isRunning ? index : warmup)])
        let level = ZScoreReference.weighted(known, step: 0)
        mean = level.mean
        let spread = max(
          level.deviation, definition.floor * abs(mean), definition.minDeviation, 1e-9 * (1 + abs(mean)))
        let distance = min(max((since[index] - mean) / spread, -definition.cap), definition.cap)
        for (side, sign) in [(0, 1.0), (1, -1.0)] where side == 0 ? definition.up : definition.down {
          sums[side].sum = max(0, sums[side].sum + sign * distance - definition.drift)
          sums[side].rows = sums[side].sum > 0 ? sums[side].rows + [since[index]] : []
        }
      }
      let larger = sums[0].sum >= sums[1].sum ? sums[0] : sums[1]
      let after = larger.rows.isEmpty ? mean : larger.rows.reduce(0, +) / Double(larger.rows.count)
      let isChange = larger.sum >= definition.threshold
      results.append([mean, after, larger.sum, isChange ? 1 : 0])
      if isChange {
        levelBefore = mean
        since = [value]
      }
    }
    return results
  }
}

/// Least squares by the normal equations, in hours; Holt and Winters by their recurrences over arrays.
struct ForecastReference {
  var definition: Forecast

  func run(_ rows: [(time: Int64, value: Double?)]) -> [[Double?]] {
    var results: [[Double?]] = []
    var known: [(time: Int64, value: Double)] = []
    var isOpen = false
    var streak = 0
    for row in rows {
      guard let value = row.value else {
        results.append([nil, nil, nil, nil, isOpen ? 1 : 0])
        continue
      }
      known.append((row.time, value))
      guard Double(known.count) >= definition.warmup else {
        results.append([nil, nil, nil, nil, 0])
        continue
      }
      let (forecast, margin, reachesIn) = definition.isLinear ? line(known) : smoothed(known)
      let isReached = reachesIn.map { $0 <= definition.withinNanos } ?? false
      streak = isReached == isOpen ? 0 : streak + 1
      if Double(streak) >= definition.confirm {
        isOpen = isReached
        streak = 0
      }
      results.append([forecast, forecast - margin, forecast + margin, reachesIn, isOpen ? 1 : 0])
    }
    return results
  }

  private func reaches(_ path: (Double) -> Double, value: Double, steps: Double, most: Int) -> Double? {
    if (definition.level - value) * definition.sign <= 0 { return 0 }
    for step in 1...most where (definition.level - path(Double(step) * steps)) * definition.sign <= 0 {
      return Double(step) * steps
    }
    return nil
  }

  private func line(_ known: [(time: Int64, value: Double)]) -> (Double, Double, Double?) {
    let last = known.suffix(definition.over)
    let now = known[known.count - 1].time
    let hour = 3.6e12
    let x = last.map { Double($0.time - now) / hour }
    let y = last.map(\.value)
    let n = Double(x.count)
    let sx = x.reduce(0, +)
    let sy = y.reduce(0, +)
    let sxx = x.reduce(0) { $0 + $1 * $1 }
    let sxy = zip(x, y).reduce(0) { $0 + $1.0 * $1.1 }
    let slope = (n * sxy - sx * sy) / (n * sxx - sx * sx)
    let value = (sy - slope * sx) / n
    let errors = zip(x, y).reduce(0) { $0 + ($1.1 - value - slope * $1.0) * ($1.1 - value - slope * $1.0) }
    let margin = definition.band * (errors / max(1, n - 2)).squareRoot()
    var time: Double? = (definition.level - value) / slope * hour
    if (definition.level - value) * definition.sign <= 0 { time = 0 }
    if let found = time, found < 0 || found > 10 * definition.withinNanos { time = nil }
    return (value + slope * definition.withinNanos / hour, margin, time)
  }

  private func smoothed(_ known: [(time: Int64, value: Double)]) -> (Double, Double, Double?) {
    let hop = Int64(definition.hopNanos)
    var level = known[0].value
    var trend = 0.0
    var errors: [Double] = []
    var season: [Int64: Double] = [:]
    let length = Int64(definition.season)
    func seasonal(_ step: Int64) -> Double { length > 0 ? season[step % length] ?? 0 : 0 }
    var last = known[0].time / hop
    for (number, row) in known.enumerated().dropFirst() {
      let step = row.time / hop
      let steps = Double(max(1, step - last))
      last = step
      let base = level + steps * trend
      errors.append(row.value - base - seasonal(step))
      if length > 0, number < length {
        level = known[...number].map(\.value).reduce(0, +) / Double(number + 1)
        season[step % length] = row.value - level
        continue
      }
      let before = level
      level = base + definition.alpha * (row.value - seasonal(step) - base)
      trend += definition.beta * ((level - before) / steps - trend)
      if length > 0 { season[step % length] = seasonal(step) + definition.gamma * (row.value - level - seasonal(step)) }
    }
    let ahead = Int64(max(1, definition.withinNanos / definition.hopNanos))
    let squares = ZScoreReference.weighted(errors.map { $0 * $0 }, step: 0.05).mean
    let now = known[known.count - 1]
    var time: Double?
    if length > 0 {
      time = reaches(
        { level + $0 / definition.hopNanos * trend + seasonal(last + Int64($0 / definition.hopNanos)) }, value: now.value,
        steps: definition.hopNanos, most: Int(10 * ahead))
    } else if (definition.level - now.value) * definition.sign <= 0 || (definition.level - level) * definition.sign <= 0 {
      time = 0
    } else {
      time = (definition.level - level) / trend * definition.hopNanos
      if let found = time, !(found >= 0) || found > 10 * definition.withinNanos { time = nil }
    }
    return (level + Double(ahead) * trend + seasonal(last + ahead), definition.band * squares.squareRoot(), time)
  }
}
