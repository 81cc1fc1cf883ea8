#if canImport(Glibc)
  import Glibc
#endif

/// The offsets of a time zone from UTC, out of the system's tz database (RFC 8536, "TZif"), from 1970 to 2200. Read once,
/// when rules are compiled; what follows is arithmetic.
public struct TimeZoneRules: Sendable, Hashable {
  public let name: String
  /// Seconds since the epoch, ascending. `offsets[i]` holds before `transitions[i]`, the last one behind all.
  private let transitions: [Int64]
  /// Seconds to add to UTC.
  private let offsets: [Int64]

  public static let utc = TimeZoneRules(name: "UTC", transitions: [], offsets: [0])

  init(name: String, transitions: [Int64], offsets: [Int64]) {
    self.name = name
    self.transitions = transitions
    self.offsets = offsets
  }

  /// Where the database lies: `TZDIR`, as the C library has it, or its usual place.
  public static var directory: String { getenv("TZDIR").map { String(cString: $0) } ?? "/usr/share/zoneinfo" }

  /// Reads a zone such as `Europe/Berlin`; nil when the database has no such zone, or none that can be read.
  public static func load(_ name: String) -> TimeZoneRules? {
    if name == "UTC" { return .utc }
    // What a rule names must stay within the database.
    let isPlain = name.utf8.allSatisfy { byte in
      isLetter(byte) || isDigit(byte) || [UInt8(ascii: "/"), UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "-")].contains(byte)
    }
    guard isPlain, name.utf8.count <= 64, name.utf8.first.map(isLetter) == true, !name.utf8.contains(UInt8(ascii: ".")) else {
      return nil
    }
    guard let bytes = readFile("\(directory)/\(name)") else { return nil }
    return parse(bytes, name: name)
  }

  // MARK: Questions

  /// The offset at a time.
  public func offset(atUTC seconds: Int64) -> Int64 { offsets[segment(of: seconds)] }

  /// The number of transitions at or before a time.
  private func segment(of seconds: Int64) -> Int {
    var low = 0
    var high = transitions.count
    while low < high {
      let middle = (low + high) / 2
      if transitions[middle] <= seconds { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// The moment at which clocks on the wall show `local` (seconds since the epoch, as if they were UTC). A time that clocks
  /// show twice is the first of the two; one that they skip is the moment of the skip.
  public func utc(local: Int64) -> Int64 {
    let dayAndMore: Int64 = 100_000
    var index = segment(of: local - dayAndMore)
    while true {
      let moment = local - offsets[index]
      guard index < transitions.count else { return moment }
      if moment < transitions[index] { return moment }
      // Behind the end of this stretch; before the begin of the next: clocks skip it.
      if local - offsets[index + 1] < transitions[index] { return transitions[index] }
      index += 1
    }
  }

  // MARK: The file

  /// A file of at most 64 KiB; the largest zone has some 4.
  private static func readFile(_ path: String) -> [UInt8]? {
    guard let file = fopen(path, "rb") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let count = bytes.withUnsafeMutableBytes { fread($0.baseAddress, 1, $0.count, file) }
    guard count < bytes.count else { return nil }
    bytes.removeLast(bytes.count - count)
    return bytes
  }

  /// Reads the second block (64-bit times) and the rule behind it for the years that follow.
  static func parse(_ bytes: [UInt8], name: String) -> TimeZoneRules? {
    func number(at place: Int, bytes width: Int) -> Int64? {
      guard place >= 0, place + width <= bytes.count else { return nil }
      var value: UInt64 = 0
      for byte in bytes[place..<place + width] { value = value << 8 | UInt64(byte) }
      return width == 4 ? Int64(Int32(truncatingIfNeeded: value)) : Int64(bitPattern: value)
    }
    /// isutc, isstd, leap, time, type, char.
    func counts(at place: Int) -> [Int]? {
      guard place + 44 <= bytes.count, Array(bytes[place..<place + 4]) == Array("TZif".utf8) else { return nil }
      let found = (0..<6).compactMap { number(at: place + 20 + 4 * $0, bytes: 4) }
      return found.allSatisfy { (0...65_536).contains($0) } ? found.map { Int($0) } : nil
    }
    guard let first = counts(at: 0), bytes[4] >= UInt8(ascii: "2") else { return nil }
    let second = 44 + first[3] * 5 + first[4] * 6 + first[5] + first[2] * 8 + first[1] + first[0]
    guard let block = counts(at: second), block[4] > 0 else { return nil }
    let times = second + 44
    let kinds = times + block[3] * 8
    let types = kinds + block[3]
    let footer = types + block[4] * 6 + block[5] + block[2] * 12 + block[1] + block[0]
    guard footer < bytes.count, bytes[footer] == UInt8(ascii: "\n") else { return nil }
    let rule = bytes[(footer + 1)...].prefix { $0 != UInt8(ascii: "\n") }
    var transitions: [Int64] = []
    guard let earliest = number(at: types, bytes: 4) else { return nil }
    var offsets = [earliest]
    for index in 0..<block[3] {
      let kind = Int(bytes[kinds + index])
      guard kind < block[4], let time = number(at: times + 8 * index, bytes: 8),
        let offset = number(at: types + 6 * kind, bytes: 4), transitions.last.map({ $0 < time }) ?? true
      else { return nil }
      if time < 0 {
        offsets[0] = offset
      } else if offset != offsets[offsets.count - 1] {
        transitions.append(time)
        offsets.append(offset)
      }
    }
    guard offsets.allSatisfy({ abs($0) <= 93_600 }) else { return nil }
    if let yearly = YearlyRule(ArraySlice(rule)) {
      for (time, offset) in yearly.transitions(behind: transitions.last ?? 0) where offset != offsets[offsets.count - 1] {
        transitions.append(time)
        offsets.append(offset)
      }
    }
    return TimeZoneRules(name: name, transitions: transitions, offsets: offsets)
  }
}

func isLetter(_ byte: UInt8) -> Bool {
  (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
}
func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

/// What a zone does each year, as POSIX writes it in `TZ`: `CET-1CEST,M3.5.0,M10.5.0/3`.
private struct YearlyRule {
  enum Day {
    /// The `week`th (5: last) `weekday` (0: Sunday) of a month.
    case weekday(month: Int64, week: Int64, weekday: Int64)
    /// Day of the year from 1, without counting 29 February.
    case julian(Int64)
    /// Day of the year from 0, leap days counted.
    case ordinal(Int64)
  }
  let standard: Int64
  /// Summer time, and when it begins and ends: a day and seconds behind its midnight, by clocks as they are before.
  var summer: (offset: Int64, start: (Day, Int64), end: (Day, Int64))?

  init?(_ text: ArraySlice<UInt8>) {
    var rest = text
    guard Self.passName(&rest), let west = Self.time(&rest) else { return nil }
    standard = -west
    if rest.isEmpty { return }
    guard Self.passName(&rest) else { return nil }
    var offset = standard + 3_600
    if rest.first != UInt8(ascii: ","), let west = Self.time(&rest) { offset = -west }
    guard let start = Self.day(&rest), let end = Self.day(&rest), rest.isEmpty else { return nil }
    summer = (offset, start, end)
  }

  private static func passName(_ rest: inout ArraySlice<UInt8>) -> Bool {
    if rest.first == UInt8(ascii: "<") {
      guard let end = rest.firstIndex(of: UInt8(ascii: ">")) else { return false }
      rest = rest[(end + 1)...]
      return true
    }
    let name = rest.prefix(while: isLetter)
    rest = rest.dropFirst(name.count)
    return name.count >= 3
  }

  private static func digits(_ rest: inout ArraySlice<UInt8>) -> Int64? {
    let text = rest.prefix(while: isDigit)
    guard (1...4).contains(text.count) else { return nil }
    rest = rest.dropFirst(text.count)
    return text.reduce(0) { $0 * 10 + Int64($1 - UInt8(ascii: "0")) }
  }

  private static func take(_ byte: Character, _ rest: inout ArraySlice<UInt8>) -> Bool {
    guard rest.first == byte.asciiValue else { return false }
    rest = rest.dropFirst()
    return true
  }

  /// `[+-]h[:m[:s]]` in seconds.
  private static func time(_ rest: inout ArraySlice<UInt8>) -> Int64? {
    var sign: Int64 = 1
    if take("-", &rest) { sign = -1 } else { _ = take("+", &rest) }
    guard let hours = digits(&rest), hours <= 167 else { return nil }
    var total = hours * 3_600
    if take(":", &rest) {
      guard let minutes = digits(&rest) else { return nil }
      total += minutes * 60
      if take(":", &rest) {
        guard let seconds = digits(&rest) else { return nil }
        total += seconds
      }
    }
    return sign * total
  }

  /// `,M3.5.0/2` or `,J60` or `,59`.
  private static func day(_ rest: inout ArraySlice<UInt8>) -> (Day, Int64)? {
    guard take(",", &rest) else { return nil }
    let day: Day
    if take("M", &rest) {
      guard let month = digits(&rest), (1...12).contains(month), take(".", &rest), let week = digits(&rest),
        (1...5).contains(week), take(".", &rest), let weekday = digits(&rest), weekday <= 6
      else { return nil }
      day = .weekday(month: month, week: week, weekday: weekday)
    } else if take("J", &rest) {
      guard let number = digits(&rest), (1...365).contains(number) else { return nil }
      day = .julian(number)
    } else {
      guard let number = digits(&rest), number <= 365 else { return nil }
      day = .ordinal(number)
    }
    guard take("/", &rest) else { return (day, 7_200) }
    return time(&rest).map { (day, $0) }
  }

  /// Transitions of the years up to 2200 that lie behind a time, ascending.
  func transitions(behind time: Int64) -> [(Int64, Int64)] {
    guard let summer else { return [] }
    var found: [(Int64, Int64)] = []
    for year: Int64 in 1970...2200 {
      found.append((Self.number(summer.start.0, year) * 86_400 + summer.start.1 - standard, summer.offset))
      found.append((Self.number(summer.end.0, year) * 86_400 + summer.end.1 - summer.offset, standard))
    }
    return found.filter { $0.0 > time }.sorted { $0.0 < $1.0 }
  }

  /// The day's number since the epoch.
  private static func number(_ day: Day, _ year: Int64) -> Int64 {
    let january = dayNumber(year: year, month: 1, day: 1)
    let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    switch day {
    case .julian(let number): return january + number - 1 + (isLeap && number >= 60 ? 1 : 0)
    case .ordinal(let number): return january + number
    case .weekday(let month, let week, let weekday):
      let first = dayNumber(year: year, month: month, day: 1)
      let following = month == 12 ? dayNumber(year: year + 1, month: 1, day: 1) : dayNumber(year: year, month: month + 1, day: 1)
      // Day 0 was a Thursday.
      let ahead = (weekday - (first + 4) % 7 + 7) % 7
      var found = first + ahead + (week - 1) * 7
      while found >= following { found -= 7 }
      return found
    }
  }
}

/// Days since the epoch of a date of the Gregorian calendar, from 1970 on; H. Hinnant, "chrono-compatible low-level date
/// algorithms", days_from_civil.
func dayNumber(year: Int64, month: Int64, day: Int64) -> Int64 {
  let shifted = month <= 2 ? year - 1 : year
  let era = shifted / 400
  let yearOfEra = shifted - era * 400
  let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
  return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
}
