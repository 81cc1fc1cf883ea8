/// Nanoseconds of `250ms`, `90s`, `40m`, `1h30m`, `2d`; nil for anything else or beyond 292 years.
func durationNanos(_ text: String) -> Int64? {
  let units: [(suffix: String, nanos: Int64)] = [
    ("ms", 1_000_000), ("us", 1_000), ("ns", 1), ("s", 1_000_000_000), ("m", 60_000_000_000),
    ("h", 3_600_000_000_000), ("d", 86_400_000_000_000),
  ]
  var rest = text[...]
  var total: Int64 = 0
  repeat {
    let digits = rest.prefix { $0.isASCII && $0.isNumber }
    rest = rest.dropFirst(digits.count)
    guard let count = Int64(digits), let unit = units.first(where: { rest.hasPrefix($0.suffix) }) else {
      return nil
    }
    rest = rest.dropFirst(unit.suffix.count)
    let (part, partOverflows) = count.multipliedReportingOverflow(by: unit.nanos)
    let (sum, sumOverflows) = total.addingReportingOverflow(part)
    if partOverflows || sumOverflows { return nil }
    total = sum
  } while !rest.isEmpty
  return total
}

/// Nanoseconds since the epoch of `2026-11-21T03:00:00Z`, with a fraction of a second or without, or of
/// `2026-11-21`; UTC, from 1970 to 2261. Nil for anything else.
func timestampNanos(_ text: String) -> Int64? {
  let parts = text.split(separator: "T", maxSplits: 1, omittingEmptySubsequences: false)
  let date = parts[0].split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
  guard date.count == 3, let year = date[0], let month = date[1], let day = date[2],
    (1970...2261).contains(year), (1...12).contains(month), (1...31).contains(day)
  else { return nil }
  let days = Int64(daysSinceEpoch(year: year, month: month, day: day)) * 86_400_000_000_000
  if parts.count == 1 { return days }
  guard parts[1].hasSuffix("Z") else { return nil }
  let whole = parts[1].dropLast().split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
  let time = whole[0].split(separator: ":", omittingEmptySubsequences: false).map { Int64($0) }
  guard time.count == 3, let hour = time[0], let minute = time[1], let second = time[2],
    (0...23).contains(hour), (0...59).contains(minute), (0...59).contains(second)
  else { return nil }
  var fraction: Int64 = 0
  if whole.count == 2 {
    let digits = whole[1]
    guard (1...9).contains(digits.count), digits.allSatisfy({ $0.isASCII && $0.isNumber }) else { return nil }
    fraction = Int64(digits + String(repeating: "0", count: 9 - digits.count)) ?? 0
  }
  return days + (hour * 3_600 + minute * 60 + second) * 1_000_000_000 + fraction
}

/// Days from 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
private func daysSinceEpoch(year: Int, month: Int, day: Int) -> Int {
  let shifted = month <= 2 ? year - 1 : year
  let era = shifted / 400
  let yearOfEra = shifted - era * 400
  let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
  return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
}

/// The candidate that somebody who typed `name` most likely meant: at most two edits away, and fewer than
/// half its letters.
func closest(to name: String, among candidates: [String]) -> String? {
  let typed = Array(name.utf8.prefix(64))
  var best: (distance: Int, candidate: String)?
  for candidate in candidates {
    let distance = editDistance(typed, Array(candidate.utf8.prefix(64)))
    if distance <= 2, distance * 2 < candidate.utf8.count, distance < best?.distance ?? .max {
      best = (distance, candidate)
    }
  }
  return best?.candidate
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one into the other (optimal string
/// alignment).
private func editDistance(_ from: [UInt8], _ to: [UInt8]) -> Int {
  var beforeLast: [Int] = []
  var last = Array(0...to.count)
  for row in from.indices {
    var current = [row + 1]
    for column in to.indices {
      let isSame = from[row] == to[column]
      var least = min(last[column + 1] + 1, current[column] + 1, last[column] + (isSame ? 0 : 1))
      if row > 0, column > 0, from[row] == to[column - 1], from[row - 1] == to[column] {
        least = min(least, beforeLast[column - 1] + 1)
      }
      current.append(least)
    }
    (beforeLast, last) = (last, current)
  }
  return last[to.count]
}
