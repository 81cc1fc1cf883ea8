import CColumns

/// Hand-written recognisers of values, each over the bytes `[start, end)` of a line. They replace regular
/// expressions, which are some fifty times slower; a byte is looked at a few times at most.
enum ValueScanners {
  @inline(__always) static func isDigit(_ byte: UInt8) -> Bool { byte &- 48 < 10 }
  @inline(__always) static func isHex(_ byte: UInt8) -> Bool {
    ByteClass.of(byte) & (ByteClass.digit | ByteClass.hexLetter) != 0
  }

  /// `1.2.3.4`, with `:port` or without. `[start, end)` begins with a digit and holds three dots or more.
  static func isIPv4(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Bool {
    var i = start
    for part in 0..<4 {
      let first = i
      while i < end, isDigit(p[i]) { i += 1 }
      guard i > first, i - first <= 3 else { return false }
      if part < 3 {
        guard i < end, p[i] == UInt8(ascii: ".") else { return false }
        i += 1
      }
    }
    if i == end { return true }
    guard p[i] == UInt8(ascii: ":") || p[i] == UInt8(ascii: "/") else { return false }
    i += 1
    guard i < end else { return false }
    while i < end, isDigit(p[i]) { i += 1 }
    return i == end
  }

  /// `8-4-4-4-12` hexadecimal digits.
  static func isUUID(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Bool {
    guard end - start == 36 else { return false }
    for offset in 0..<36 {
      let byte = p[start + offset]
      switch offset {
      case 8, 13, 18, 23: if byte != UInt8(ascii: "-") { return false }
      default: if !isHex(byte) { return false }
      }
    }
    return true
  }

  /// Hexadecimal groups with two colons or more, a digit among them, from `start`: an IPv6 or hardware address.
  /// Returns its end, or nil.
  static func hexColons(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> (end: Int, isMAC: Bool)? {
    var i = start
    var colons = 0
    var group = 0
    var hasDigit = false
    var pairs = true
    while i < limit {
      let byte = p[i]
      if isHex(byte) {
        group += 1
        if group > 4 { return nil }
        hasDigit = hasDigit || isDigit(byte)
      } else if byte == UInt8(ascii: ":") {
        // A colon that ends the value: `fe80::1: unreachable`.
        if i + 1 >= limit || (!isHex(p[i + 1]) && p[i + 1] != UInt8(ascii: ":")) { break }
        colons += 1
        if colons > 8 { return nil }
        pairs = pairs && group == 2
        group = 0
      } else {
        break
      }
      i += 1
    }
    guard colons >= 2, hasDigit else { return nil }
    if i < limit {
      let next = ByteClass.of(p[i])
      if next & ByteClass.word != 0 { return nil }
      if p[i] == UInt8(ascii: "."), i + 1 < limit, ByteClass.of(p[i + 1]) & ByteClass.start != 0 { return nil }
    }
    return (i, colons == 5 && pairs && group == 2)
  }

  /// `2015-07-29`, `2015/07/29`, and with a time behind it.
  static func isDate(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Bool {
    guard end - start >= 10 else { return false }
    func digits(_ from: Int, _ count: Int) -> Bool {
      for offset in from..<from + count where !isDigit(p[start + offset]) { return false }
      return true
    }
    func separator(_ at: Int) -> Bool {
      p[start + at] == UInt8(ascii: "-") || p[start + at] == UInt8(ascii: "/")
    }
    if digits(0, 4), separator(4), digits(5, 2), separator(7), digits(8, 2) {
      return end - start == 10 || !isDigit(p[start + 10])
    }
    // 31/12/2015, 12/31/2015
    return digits(0, 2) && separator(2) && digits(3, 2) && separator(5) && digits(6, 4)
      && (end - start == 10 || !isDigit(p[start + 10]))
  }

  /// End of `hh:mm` with optional `:ss` and fraction from `start`, or nil.
  static func time(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int? {
    func pair(_ at: Int) -> Bool { at + 1 < limit && isDigit(p[at]) && isDigit(p[at + 1]) }
    guard pair(start), start + 2 < limit, p[start + 2] == UInt8(ascii: ":"), pair(start + 3) else { return nil }
    var i = start + 5
    if i < limit, p[i] == UInt8(ascii: ":"), pair(i + 1) { i += 3 }
    if i + 1 < limit, p[i] == UInt8(ascii: ".") || p[i] == UInt8(ascii: ","), isDigit(p[i + 1]) {
      i += 1
      while i < limit, isDigit(p[i]) { i += 1 }
    }
    if i < limit, ByteClass.of(p[i]) & ByteClass.word != 0 {
      guard p[i] == UInt8(ascii: "Z") || p[i] == UInt8(ascii: "+") else { return nil }
      i += 1
      while i < limit, isDigit(p[i]) || p[i] == UInt8(ascii: ":") { i += 1 }
    }
    return i
  }

  private static let names = WordTable([
    (1, "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"), (2, "Mon Tue Wed Thu Fri Sat Sun"),
  ])

  /// 1 for a month's name of three letters at `start`, 2 for a day's, else 0.
  private static func calendarName(_ p: UnsafePointer<UInt8>, _ start: Int) -> UInt8 { names[rd_hash64(p + start, 3)] }

  /// `Jun 17 07:07:00`, with the day of the week before it, and the zone and the year behind or between. `start` is
  /// where a word of three letters begins. Returns the end, or nil.
  static func calendarDate(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int? {
    var i = start
    guard i + 3 < limit else { return nil }
    let first = calendarName(p, i)
    guard first != 0 else { return nil }
    if first == 2 {
      i += 3
      if i < limit, p[i] == UInt8(ascii: ",") { i += 1 }
      guard i < limit, p[i] == 32 else { return nil }
      i += 1
      guard i + 3 < limit, calendarName(p, i) == 1 else { return nil }
    }
    i += 3
    guard i < limit, p[i] == 32 else { return nil }
    while i < limit, p[i] == 32 { i += 1 }
    func number(_ digits: ClosedRange<Int>) -> Bool {
      let first = i
      while i < limit, isDigit(p[i]) { i += 1 }
      return digits.contains(i - first)
    }
    guard number(1...2) else { return nil }
    func year() {
      let before = i
      guard i < limit, p[i] == 32 else { return }
      i += 1
      if !number(4...4) || (i < limit && ByteClass.of(p[i]) & (ByteClass.word | ByteClass.joiner) != 0) { i = before }
    }
    year()
    guard i < limit, p[i] == 32, let end = time(p, i + 1, limit) else { return nil }
    i = end
    // A zone: ` EST`, ` CEST`.
    let zone = i
    if i < limit, p[i] == 32 {
      i += 1
      let first = i
      while i < limit, ByteClass.of(p[i]) & ByteClass.upper != 0 { i += 1 }
      let isZone = (3...4).contains(i - first) && (i == limit || ByteClass.of(p[i]) & ByteClass.word == 0)
      if !isZone { i = zone }
    }
    year()
    return i
  }

  enum Unit { case duration, size }

  private static let units = WordTable([
    (1, "ns us ms s sec secs second seconds msec msecs millis millisecond milliseconds m min mins minute minutes h hr hrs"),
    (1, "hour hours d day days week weeks MS SECONDS MINUTES HOURS DAYS MILLISECONDS"),
    (2, "B b byte bytes Bytes K KB kB KiB M MB MiB G GB GiB T TB TiB PB PiB"),
  ])

  /// The unit spelt by `[start, end)`.
  static func unit(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Unit? {
    guard end > start, end - start <= 12 else { return nil }
    switch units[rd_hash64(p + start, UInt32(end - start))] {
    case 1: return .duration
    case 2: return .size
    default: return nil
    }
  }

  /// Units that may stand behind a number and a space: one letter alone could be anything.
  static func isSpelt(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Bool {
    end - start > 1 || p[start] == UInt8(ascii: "s") || p[start] == UInt8(ascii: "B")
  }

  /// End of a number's digits with `.` or `,` between them, from `start`.
  static func number(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int {
    var i = start
    while i < limit {
      if isDigit(p[i]) {
        i += 1
      } else if p[i] == UInt8(ascii: ".") || p[i] == UInt8(ascii: ","), i > start, i + 1 < limit, isDigit(p[i + 1]) {
        i += 1
      } else {
        break
      }
    }
    return i
  }

  /// ` (1.02 KB)` behind a size says the same again; returns its end, or `start`.
  static func restatedSize(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int {
    var i = start
    guard i + 3 < limit, p[i] == 32, p[i + 1] == UInt8(ascii: "("), isDigit(p[i + 2]) else { return start }
    i = number(p, i + 2, limit)
    if i < limit, p[i] == 32 { i += 1 }
    let first = i
    while i < limit, ByteClass.of(p[i]) & (ByteClass.upper | ByteClass.lower) != 0 { i += 1 }
    guard i > first, i < limit, p[i] == UInt8(ascii: ")"), case .size? = unit(p, first, i) else { return start }
    return i + 1
  }

  /// End of a path whose first `/` is at `start`. Behind a `?`, what separates the parts of a query belongs to it.
  static func path(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int {
    var i = start + 1
    var inQuery = false
    while i < limit {
      let byte = p[i]
      if ByteClass.of(byte) & ByteClass.path != 0 {
        i += 1
        continue
      }
      let next: UInt8 = i + 1 < limit ? p[i + 1] : 32
      let nextIsPath = ByteClass.of(next) & ByteClass.path != 0
      switch byte {
      case UInt8(ascii: "/"): i += 1
      case UInt8(ascii: ":") where isDigit(next) || next == UInt8(ascii: "/"): i += 1
      case UInt8(ascii: "?") where nextIsPath:
        inQuery = true
        i += 1
      case UInt8(ascii: "&"), UInt8(ascii: "="), UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: ":"):
        guard inQuery, nextIsPath else { return trimmed(p, start, i) }
        i += 1
      default: return trimmed(p, start, i)
      }
    }
    return trimmed(p, start, i)
  }

  /// A full stop behind a path or URL ends the sentence.
  private static func trimmed(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Int {
    var end = end
    while end > start + 1, p[end - 1] == UInt8(ascii: ".") { end -= 1 }
    return end
  }

  /// End of what is not space nor bracket, quote, comma, from `start`: a URL, a Windows path.
  static func url(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int {
    var i = start
    while i < limit, ByteClass.of(p[i]) & ByteClass.urlEnd == 0 { i += 1 }
    while i > start, p[i - 1] == UInt8(ascii: ".") || p[i - 1] == UInt8(ascii: ":") { i -= 1 }
    return i
  }

  /// One behind the bracket that closes the one at `start`, within `most` bytes; nil when there is none.
  static func closing(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int, most: Int) -> Int? {
    var depth = 0
    var i = start
    let end = min(limit, start + most)
    while i < end {
      switch p[i] {
      case UInt8(ascii: "("), UInt8(ascii: "["), UInt8(ascii: "{"): depth += 1
      case UInt8(ascii: ")"), UInt8(ascii: "]"), UInt8(ascii: "}"):
        depth -= 1
        if depth == 0 { return i + 1 }
      default: break
      }
      i += 1
    }
    return nil
  }
}
