/// JSON written by hand into bytes: traffic is made faster than the engine reads it, or a benchmark would
/// measure the wrong program.
extension [UInt8] {
  @inline(__always)
  mutating func append(text: StaticString) {
    text.withUTF8Buffer { append(contentsOf: $0) }
  }

  mutating func append(text: String) {
    append(contentsOf: text.utf8)
  }

  mutating func append(decimal value: Int) {
    if value < 0 {
      append(UInt8(ascii: "-"))
      append(magnitude: value.magnitude)
    } else {
      append(magnitude: UInt(value))
    }
  }

  private mutating func append(magnitude value: UInt) {
    var divisor: UInt = 1
    while value / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }

  /// `thousandths` of one as a decimal with three places: 41873 is `41.873`. Not negative.
  mutating func append(thousandths: Int) {
    append(decimal: thousandths / 1_000)
    append(UInt8(ascii: "."))
    append(digits: thousandths % 1_000, count: 3)
  }

  /// The last `count` decimal digits of a value that is not negative, with leading zeros.
  mutating func append(digits value: Int, count: Int) {
    var divisor = 1
    for _ in 1..<count { divisor *= 10 }
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }

  /// 16 lower-case hexadecimal digits.
  mutating func append(hex value: UInt64) {
    var shift: UInt64 = 64
    while shift > 0 {
      shift -= 4
      let nibble = UInt8(truncatingIfNeeded: value &>> shift & 15)
      append(nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") - 10 + nibble)
    }
  }

  /// Nanoseconds since the epoch as `2026-11-21T03:00:00.000Z`.
  mutating func append(rfc3339 nanos: Int64) {
    let millis = Int(nanos / 1_000_000)
    let days = millis / 86_400_000
    let millisOfDay = millis - days * 86_400_000
    let (year, month, day) = civilDate(days: days)
    append(digits: year, count: 4)
    append(UInt8(ascii: "-"))
    append(digits: month, count: 2)
    append(UInt8(ascii: "-"))
    append(digits: day, count: 2)
    append(UInt8(ascii: "T"))
    append(digits: millisOfDay / 3_600_000, count: 2)
    append(UInt8(ascii: ":"))
    append(digits: millisOfDay / 60_000 % 60, count: 2)
    append(UInt8(ascii: ":"))
    append(digits: millisOfDay / 1_000 % 60, count: 2)
    append(UInt8(ascii: "."))
    append(digits: millisOfDay % 1_000, count: 3)
    append(UInt8(ascii: "Z"))
  }
}

/// The date of a day since 1970-01-01, not negative (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
private func civilDate(days: Int) -> (year: Int, month: Int, day: Int) {
  let shifted = days + 719_468
  let era = shifted / 146_097
  let dayOfEra = shifted - era * 146_097
  let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let monthIndex = (5 * dayOfYear + 2) / 153
  let month = monthIndex < 10 ? monthIndex + 3 : monthIndex - 9
  return (
    yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthIndex + 2) / 5 + 1
  )
}
