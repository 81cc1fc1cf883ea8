import Catalog

/// Why a literal has no value.
struct LiteralProblem: Error, Equatable {
  var code: DiagnosticCode
  var message: String
  var hint: String?
}

/// Durations and sizes as they are written behind a number.
enum Units {
  /// Nanoseconds.
  static let durations: [(name: String, nanos: Int64)] = [
    ("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000),
    ("h", 3_600_000_000_000), ("d", 86_400_000_000_000), ("w", 604_800_000_000_000),
  ]
  /// Bytes.
  static let sizes: [(name: String, bytes: Int64)] = [
    ("B", 1), ("kB", 1_000), ("KiB", 1 << 10), ("MB", 1_000_000), ("MiB", 1 << 20),
    ("GB", 1_000_000_000), ("GiB", 1 << 30), ("TB", 1_000_000_000_000), ("TiB", 1 << 40),
  ]
  static func nanos(_ unit: String) -> Int64? { durations.first { $0.name == unit }?.nanos }
  static func bytes(_ unit: String) -> Int64? { sizes.first { $0.name == unit }?.bytes }

  /// The unit that a word stands for: `sec` and `seconds` are `s`.
  static func meant(by word: String) -> String? {
    if nanos(word) != nil || bytes(word) != nil { return word }
    switch word {
    case "sec", "secs", "second", "seconds": return "s"
    case "min", "mins", "minute", "minutes": return "m"
    case "hr", "hrs", "hour", "hours": return "h"
    case "day", "days": return "d"
    case "week", "weeks": return "w"
    case "percent": return "%"
    default: return nil
    }
  }
}

/// The value of a number token.
enum NumberLiteral {
  static func value(_ text: ArraySlice<UInt8>) throws(LiteralProblem) -> Value {
    var rest = text
    var total: Int64 = 0
    var lastUnit = Int64.max
    var isFirst = true
    while true {
      let number = try digits(&rest, allowsExponent: isFirst)
      let unit = String(
        decoding: rest.prefix { !isDigit($0) }, as: UTF8.self)
      rest = rest.dropFirst(unit.utf8.count)
      if isFirst, rest.isEmpty { return try single(number, unit: unit, text: text) }
      // More than one part: a compound duration, largest unit first.
      guard let nanos = Units.nanos(unit), let whole = number.integer, nanos < lastUnit else {
        throw compoundProblem(text)
      }
      lastUnit = nanos
      let (part, overflow) = whole.multipliedReportingOverflow(by: nanos)
      let (sum, overflows) = total.addingReportingOverflow(part)
      if overflow || overflows { throw outOfRange(text, "a duration") }
      total = sum
      isFirst = false
      if rest.isEmpty { return .duration(Double(total)) }
    }
  }

  private struct Number {
    /// The number as text that `Double` reads.
    var text: String
    /// `nil` when it has a fraction or exponent, or does not fit.
    var integer: Int64?
    var isInteger: Bool
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
  }

  private static func digits(
    _ rest: inout ArraySlice<UInt8>, allowsExponent: Bool
  ) throws(LiteralProblem) -> Number {
    var plain: [UInt8] = []
    var isInteger = true
    var hasExponent = false
    var previous: UInt8 = 0
    let whole = rest
    scan: while let byte = rest.first {
      switch byte {
      case _ where isDigit(byte): plain.append(byte)
      case UInt8(ascii: "_"):
        guard isDigit(previous), let next = rest.dropFirst().first, isDigit(next) else {
          break scan
        }
      case UInt8(ascii: "."):
        guard isInteger else { throw malformed(whole) }
        isInteger = false
        plain.append(byte)
      case UInt8(ascii: "e"), UInt8(ascii: "E"):
        guard allowsExponent, !hasExponent, let next = rest.dropFirst().first,
          isDigit(next) || next == UInt8(ascii: "+") || next == UInt8(ascii: "-")
        else { break scan }
        hasExponent = true
        isInteger = false
        plain.append(byte)
      case UInt8(ascii: "+"), UInt8(ascii: "-"): plain.append(byte)
      default: break scan
      }
      previous = byte
      rest = rest.dropFirst()
    }
    guard !plain.isEmpty, rest.first != UInt8(ascii: "_") else { throw malformed(whole) }
    let text = String(decoding: plain, as: UTF8.self)
    return Number(text: text, integer: isInteger ? Int64(text) : nil, isInteger: isInteger)
  }

  private static func single(
    _ number: Number, unit: String, text: ArraySlice<UInt8>
  ) throws(LiteralProblem) -> Value {
    if unit.isEmpty {
      if number.isInteger {
        guard let integer = number.integer else { throw outOfRange(text, "an int") }
        return .int(integer)
      }
      return .float(try double(number, text))
    }
    if unit == "%" { return .ratio(try double(number, text) / 100) }
    if let nanos = Units.nanos(unit) {
      return .duration(try scaled(number, by: nanos, text, "a duration"))
    }
    if let bytes = Units.bytes(unit) {
      return .bytes(try scaled(number, by: bytes, text, "a size"))
    }
    if unit.hasPrefix("_") || unit.hasSuffix("_") { throw malformed(text) }
    throw unknownUnit(unit, number: number.text)
  }

  private static func double(
    _ number: Number, _ text: ArraySlice<UInt8>
  ) throws(LiteralProblem) -> Double {
    guard let value = Double(number.text) else { throw malformed(text) }
    guard value.isFinite else { throw outOfRange(text, "a float") }
    return value
  }

  private static func scaled(
    _ number: Number, by unit: Int64, _ text: ArraySlice<UInt8>, _ what: String
  ) throws(LiteralProblem) -> Double {
    let value: Double
    if let integer = number.integer {
      let (product, overflow) = integer.multipliedReportingOverflow(by: unit)
      if overflow { throw outOfRange(text, what) }
      value = Double(product)
    } else {
      value = try double(number, text) * Double(unit)
    }
    guard value < 9.2e18 else { throw outOfRange(text, what) }
    return value
  }

  private static func malformed(_ text: ArraySlice<UInt8>) -> LiteralProblem {
    LiteralProblem(
      code: .badNumber, message: "`\(String(decoding: text, as: UTF8.self))` is not a number",
      hint: "numbers look like 12, 1_000, 2.5, 1e6, 2.5s, 80GiB or 5%")
  }

  private static func compoundProblem(_ text: ArraySlice<UInt8>) -> LiteralProblem {
    LiteralProblem(
      code: .badNumber, message: "`\(String(decoding: text, as: UTF8.self))` is not a number",
      hint: "durations are put together from whole numbers, largest unit first: 1h30m")
  }

  private static func outOfRange(_ text: ArraySlice<UInt8>, _ what: String) -> LiteralProblem {
    let limits =
      switch what {
      case "an int": "an int is at most 9_223_372_036_854_775_807"
      case "a duration": "a duration is at most 292 years"
      case "a size": "a size is at most 8 million TiB"
      default: "a float is at most 1.79e308"
      }
    return LiteralProblem(
      code: .numberOutOfRange,
      message: "`\(String(decoding: text.prefix(40), as: UTF8.self))` is too large for \(what)",
      hint: limits)
  }

  private static func unknownUnit(_ unit: String, number: String) -> LiteralProblem {
    let names = Units.durations.map(\.name) + Units.sizes.map(\.name)
    var hint: String
    switch unit {
    case "k", "K": hint = "a thousand is written `\(number)_000`; sizes are kB and KiB"
    case "M", "G", "T": hint = "sizes are \(unit)B and \(unit)iB"
    case "month", "months", "mo", "y", "year", "years":
      hint = "months and years have no fixed length; write days: `30d`"
    default:
      if let name = Units.meant(by: unit) ?? closest(to: unit, among: names) {
        hint = "did you mean `\(number)\(name)`?"
      } else {
        hint = "durations: ns us ms s m h d w; sizes: B kB KiB MB MiB GB GiB TB TiB; parts: %"
      }
    }
    return LiteralProblem(code: .unknownUnit, message: "unknown unit `\(unit)`", hint: hint)
  }
}

/// RFC 3339 text as nanoseconds since the epoch.
enum TimestampLiteral {
  /// `nil` when the text is none, or lies outside 1678–2261 (what 64 bits of nanoseconds hold).
  static func nanos(_ text: String) -> Int64? {
    var rest = Substring(text).utf8
    func take(_ count: Int) -> Int64? {
      guard rest.count >= count else { return nil }
      var value: Int64 = 0
      for byte in rest.prefix(count) {
        guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
        value = value * 10 + Int64(byte - UInt8(ascii: "0"))
      }
      rest = rest.dropFirst(count)
      return value
    }
    func skip(_ characters: String) -> Bool {
      guard let byte = rest.first, characters.utf8.contains(byte) else { return false }
      rest = rest.dropFirst()
      return true
    }
    guard let year = take(4), skip("-"), let month = take(2), skip("-"), let day = take(2),
      (1678...2261).contains(year), (1...12).contains(month),
      day >= 1, day <= days(in: month, of: year)
    else { return nil }
    var seconds = daysSinceEpoch(year, month, day) * 86_400
    var nanos: Int64 = 0
    if !rest.isEmpty {
      guard skip("Tt "), let hour = take(2), skip(":"), let minute = take(2), hour < 24, minute < 60
      else { return nil }
      seconds += hour * 3_600 + minute * 60
      if skip(":") {
        guard let second = take(2), second < 60 else { return nil }
        seconds += second
        if skip(".") {
          var scale: Int64 = 100_000_000
          var digits = 0
          while let digit = take(1) {
            nanos += digit * scale
            scale /= 10
            digits += 1
          }
          guard digits > 0 else { return nil }
        }
      }
      if !rest.isEmpty, !skip("Zz") {
        let isBehind = rest.first == UInt8(ascii: "-")
        guard skip("+-"), let hours = take(2), skip(":"), let minutes = take(2), hours < 24,
          minutes < 60
        else { return nil }
        let offset = hours * 3_600 + minutes * 60
        seconds += isBehind ? offset : -offset
      }
      guard rest.isEmpty else { return nil }
    }
    // Years are bounded above, so this stays inside 64 bits.
    return seconds * 1_000_000_000 + nanos
  }

  private static func days(in month: Int64, of year: Int64) -> Int64 {
    switch month {
    case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  /// Howard Hinnant's days_from_civil.
  private static func daysSinceEpoch(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
    let shifted = month <= 2 ? year - 1 : year
    let era = shifted / 400
    let yearOfEra = shifted - era * 400
    let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
    return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
  }
}
