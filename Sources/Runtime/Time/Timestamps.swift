/// Event times that the engine accepts, nanoseconds since the epoch: 1970 to 2200. Within them a watermark
/// bound or a window of 90 days can be added or taken away without overflow.
public let eventTimeNanos: ClosedRange<Int64> = 0...7_258_118_400_000_000_000

/// Before any event time: the watermark of a partition that has shown nothing yet.
public let beforeAllTime = Int64.min
/// Behind any event time: the watermark at the end of a recording.
public let afterAllTime = Int64.max

/// `a` rounded down to a multiple of `step` (> 0), also for negative `a`. `a` is no nearer to the ends of
/// Int64 than that.
@inlinable
public func floorToMultiple(_ a: Int64, of step: Int64) -> Int64 {
  let remainder = a % step
  return a - (remainder < 0 ? remainder + step : remainder)
}

/// Appends a time as RFC 3339 in UTC with milliseconds (rounded down), such as `2026-11-21T03:17:04.250Z`.
public func appendTimestamp(_ nanos: Int64, to bytes: inout some TextOutput & ~Copyable) {
  // Any time at all may stand in a record's field: nothing here leaves the range of its type.
  let millisTotal = nanos / 1_000_000 - (nanos % 1_000_000 < 0 ? 1 : 0)
  let dayMillis: Int64 = 86_400_000
  let dayStart = floorToMultiple(millisTotal, of: dayMillis)
  let (year, month, day) = civilDate(daysSinceEpoch: dayStart / dayMillis)
  let millis = millisTotal - dayStart
  appendPadded(Int64(year), width: 4, to: &bytes)
  bytes.append(UInt8(ascii: "-"))
  appendPadded(Int64(month), width: 2, to: &bytes)
  bytes.append(UInt8(ascii: "-"))
  appendPadded(Int64(day), width: 2, to: &bytes)
  bytes.append(UInt8(ascii: "T"))
  appendPadded(millis / 3_600_000, width: 2, to: &bytes)
  bytes.append(UInt8(ascii: ":"))
  appendPadded(millis / 60_000 % 60, width: 2, to: &bytes)
  bytes.append(UInt8(ascii: ":"))
  appendPadded(millis / 1_000 % 60, width: 2, to: &bytes)
  bytes.append(UInt8(ascii: "."))
  appendPadded(millis % 1_000, width: 3, to: &bytes)
  bytes.append(UInt8(ascii: "Z"))
}

public func formatTimestamp(_ nanos: Int64) -> String {
  var bytes: [UInt8] = []
  appendTimestamp(nanos, to: &bytes)
  return String(decoding: bytes, as: UTF8.self)
}

private func appendPadded(_ value: Int64, width: Int, to bytes: inout some TextOutput & ~Copyable) {
  var divisor: Int64 = 1
  for _ in 1..<width { divisor *= 10 }
  var rest = value
  while divisor > 0 {
    bytes.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest / divisor % 10))
    rest %= divisor
    divisor /= 10
  }
}

/// Proleptic Gregorian date of a day number; H. Hinnant, "chrono-compatible low-level date algorithms",
/// civil_from_days.
private func civilDate(daysSinceEpoch: Int64) -> (year: Int, month: Int, day: Int) {
  let shifted = daysSinceEpoch + 719_468
  let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
  let dayOfEra = shifted - era * 146_097
  let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let monthIndex = (5 * dayOfYear + 2) / 153
  let day = dayOfYear - (153 * monthIndex + 2) / 5 + 1
  let month = monthIndex < 10 ? monthIndex + 3 : monthIndex - 9
  let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  return (Int(year), Int(month), Int(day))
}
