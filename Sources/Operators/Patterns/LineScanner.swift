import CColumns

/// A part of a line: a word, a mark between words, or a value that a mask recognised.
public struct LineToken: BitwiseCopyable {
  /// What a token is for the comparison of lines.
  public enum Role: UInt8, BitwiseCopyable, Sendable {
    /// A mark (`:`, `(`, …): lines with other marks have other patterns.
    case mark
    /// A word of language, or a constant: two patterns differ where such words do.
    case word
    /// A name (`io.netty`, `read-only`, what stands behind `user`): may differ within one pattern.
    case name
    /// A value: a wildcard from the start.
    case value
  }
  /// Of the bytes; equal for all values.
  public internal(set) var symbol: UInt64
  /// The bytes of the line that it covers; a run of values covers all of it.
  public internal(set) var start: UInt32
  public internal(set) var end: UInt32
  public internal(set) var role: Role
  /// For a value: a `MaskKind`, or `LineToken.userKind` and up for the user's masks.
  public internal(set) var kind: UInt8
  /// Whether a space stands before it.
  public internal(set) var hasSpace: Bool

  /// The kinds of a user's masks begin here, in their order.
  public static let userKind: UInt8 = 64
  static let valueSymbol: UInt64 = 0x9e37_79b9_7f4a_7c15
  /// A mark's symbol: how often it is repeated means nothing.
  @inline(__always) static func markSymbol(_ byte: UInt8) -> UInt64 { UInt64(byte) &* 0xa076_1d64_78bd_642f | 1 }
}

/// Cuts lines into tokens, one pass over the bytes and no allocation. One thread's; the tokens are those of the last line.
///
/// What it takes for a value is meant for logs in general: everything with a digit in it (numbers, addresses, ids,
/// times, `12 KB`), URLs, e-mail addresses, paths, names of hosts and packages (two dots and more), what stands behind
/// `key=`, an empty pair of brackets. Values next to each other, with spaces or commas between, are one
/// value: a list's length does not make a pattern.
public final class LineScanner {
  /// Tokens that are looked at; the rest of a line is one value.
  public static let tokensMax = 192
  /// Bytes that are looked at: a line of a megabyte costs no more than one of this length.
  public static let bytesMax = 8_192
  private static let valueBytesMax = 512

  public private(set) var count = 0
  /// The line scanned last; whoever scans it keeps it alive.
  private(set) var bytes: UnsafePointer<UInt8>
  let tokens: UnsafeMutablePointer<LineToken>
  /// Statics that are looked at for each word cost a call each time.
  private let classes = ByteClass.table
  private let labels = LineScanner.labelWords
  private let mergesRuns: Bool
  private let masks: UserMasks?
  private let maskNames: [String]
  /// Bytes that end a word wherever they stand, by byte.
  private let delimiters: UnsafeMutablePointer<UInt8>
  private let hasDelimiters: Bool

  public init(_ options: PatternOptions) {
    bytes = UnsafePointer(ByteClass.nothing)
    tokens = .allocate(capacity: Self.tokensMax + 4)
    tokens.initialize(
      repeating: LineToken(symbol: 0, start: 0, end: 0, role: .mark, kind: 0, hasSpace: false), count: Self.tokensMax + 4)
    mergesRuns = options.mergesRuns
    maskNames = options.masks.map(\.name)
    masks = options.masks.isEmpty ? nil : UserMasks(options.masks)
    delimiters = .allocate(capacity: 256)
    delimiters.initialize(repeating: 0, count: 256)
    for byte in options.delimiters.utf8 where byte < 0x80 { delimiters[Int(byte)] = 1 }
    hasDelimiters = !options.delimiters.isEmpty
  }

  deinit {
    tokens.deallocate()
    delimiters.deallocate()
  }

  public subscript(index: Int) -> LineToken { tokens[index] }

  /// What a value's kind is called: the name of the mask that found it.
  public func name(ofKind kind: UInt8) -> String {
    if kind >= LineToken.userKind { return maskNames[Int(kind - LineToken.userKind)] }
    return MaskKind(rawValue: kind)?.name ?? ""
  }

  /// Words behind which stands a name: `session closed for user cyrus`.
  private static let labelWords = WordTable([
    (
      1,
      "user username account host hostname node device domain interface container pod client named name file module package "
        + "service job task queue topic table database group role zone rule"
    ),
    (
      1,
      "User Username Account Host Hostname Node Device Domain Interface Container Pod Client Named Name File Module Package "
        + "Service Job Task Queue Topic Table Database Group Role Zone Rule"
    ),
    (2, "for"),
    (3, "password publickey login logon Password Login Logon"),
    // They stand for a value that is not there.
    (4, "null NULL none None nil undefined NaN nan inf"),
  ])

  /// Reads a line of any bytes. What is not ASCII counts as letters.
  public func scan(_ p: UnsafePointer<UInt8>, _ length: Int) {
    count = 0
    bytes = p
    var limit = min(length, Self.bytesMax)
    // Not within a character.
    if limit < length { while limit > 0, p[limit] & 0xC0 == 0x80 { limit -= 1 } }
    masks?.find(in: p, limit)
    var nextMask = masks?.spanCount ?? 0 > 0 ? Int(masks?.spans[0].start ?? 0) : Int.max
    var maskIndex = 0
    let table = classes
    var i = 0
    var hasSpace = true
    while i < limit {
      let byte = p[i]
      let bits = table[Int(byte)]
      if bits & ByteClass.space != 0 {
        hasSpace = true
        i += 1
        continue
      }
      if count >= Self.tokensMax {
        appendValue(i, length, .rest, hasSpace)
        return
      }
      if i >= nextMask, let masks {
        let span = masks.spans[maskIndex]
        appendValue(i, Int(span.end), kind: LineToken.userKind + span.mask, hasSpace)
        i = Int(span.end)
        maskIndex += 1
        nextMask = maskIndex < masks.spanCount ? Int(masks.spans[maskIndex].start) : Int.max
        hasSpace = false
        continue
      }
      let bound = nextMask < limit ? nextMask : limit
      if hasDelimiters, delimiters[Int(byte)] != 0 {
        appendMark(byte, i, i + 1, hasSpace)
        i += 1
      } else if bits & ByteClass.start != 0 {
        i = scanWord(p, i, bound, hasSpace, prefix: 0)
      } else if bits & ByteClass.numberPrefix != 0, i + 1 < bound, ValueScanners.isDigit(p[i + 1]),
        byte != UInt8(ascii: "<") && byte != UInt8(ascii: ">") && byte != UInt8(ascii: "~") || hasSpace
      {
        i = scanWord(p, i, bound, hasSpace, prefix: 1)
      } else if byte == UInt8(ascii: "/"), i + 1 == bound || table[Int(p[i + 1])] & (ByteClass.path | ByteClass.space) != 0 {
        let end = ValueScanners.path(p, i, bound)
        let isAddress = end > i + 7 && ValueScanners.isDigit(p[i + 1]) && ValueScanners.isIPv4(p, i + 1, end)
        appendValue(i, end, isAddress ? .ip : .path, hasSpace)
        i = end
      } else if byte == UInt8(ascii: "\\"), i + 2 < bound, p[i + 1] == byte, table[Int(p[i + 2])] & ByteClass.start != 0 {
        let end = ValueScanners.url(p, i, bound)
        appendValue(i, end, .path, hasSpace)
        i = end
      } else {
        i = scanMark(p, i, bound, bits, hasSpace)
      }
      hasSpace = false
    }
    if length > limit { appendValue(limit, length, .rest, false) }
  }

  // MARK: Marks

  private func scanMark(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int, _ bits: UInt16, _ hasSpace: Bool) -> Int {
    let byte = p[start]
    var i = start + 1
    if bits & ByteClass.repeated != 0 {
      while i < limit, p[i] == byte { i += 1 }
    } else if hasSpace, i < limit, p[i] == Self.closer(of: byte), byte != p[i] {
      // An empty pair of brackets that stands alone is a value that is missing.
      appendMark(byte, start, i, true)
      appendValue(i, i, .empty, false)
      appendMark(p[i], i, i + 1, false)
      return i + 1
    }
    if byte == UInt8(ascii: "="), i == start + 1, !hasSpace, count > 0, tokens[count - 1].role != .mark {
      appendMark(byte, start, i, false)
      return scanSetting(p, i, limit)
    }
    appendMark(byte, start, i, hasSpace)
    return i
  }

  private static func closer(of byte: UInt8) -> UInt8 {
    switch byte {
    case UInt8(ascii: "("): UInt8(ascii: ")")
    case UInt8(ascii: "["): UInt8(ascii: "]")
    case UInt8(ascii: "{"): UInt8(ascii: "}")
    default: byte
    }
  }

  /// What stands behind `key=`, from `start`.
  private func scanSetting(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int) -> Int {
    guard count < Self.tokensMax else { return start }
    guard start < limit else {
      appendValue(start, start, .empty, false)
      return start
    }
    let byte = p[start]
    let bits = ByteClass.of(byte)
    if bits & ByteClass.space != 0 || byte == UInt8(ascii: ",") || byte == UInt8(ascii: ";") {
      appendValue(start, start, .empty, false)
      return start
    }
    if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
      var i = start + 1
      let end = min(limit, start + Self.valueBytesMax)
      while i < end, p[i] != byte { i += 1 }
      guard i < end else { return start }
      appendValue(start, i + 1, .quoted, false)
      return i + 1
    }
    // A value that is made of words is found as any other token is, and then called a value.
    let first = count
    var end = start
    if bits & ByteClass.start != 0 {
      end = scanWord(p, start, limit, false, prefix: 0)
    } else if bits & ByteClass.numberPrefix != 0, start + 1 < limit, ValueScanners.isDigit(p[start + 1]) {
      end = scanWord(p, start, limit, false, prefix: 1)
    } else if byte == UInt8(ascii: "/") {
      end = ValueScanners.path(p, start, limit)
      appendValue(start, end, .path, false)
    } else {
      return start
    }
    if end < limit, p[end] != Self.closer(of: p[end]),
      let closed = ValueScanners.closing(p, end, limit, most: Self.valueBytesMax)
    {
      end = closed
      tokens[count - 1].kind = MaskKind.value.rawValue
    }
    if count > first, tokens[count - 1].role != .value {
      tokens[count - 1].symbol = LineToken.valueSymbol
      tokens[count - 1].role = .value
      tokens[count - 1].kind = MaskKind.value.rawValue
    }
    tokens[count - 1].end = UInt32(truncatingIfNeeded: end)
    return end
  }

  // MARK: Words

  /// Reads what begins with a letter or a digit, or with `prefix` bytes before a digit. Returns its end.
  private func scanWord(_ p: UnsafePointer<UInt8>, _ start: Int, _ limit: Int, _ hasSpace: Bool, prefix: Int) -> Int {
    let table = classes
    var i = start + prefix
    // All bytes' bits; those behind the last dot; the joiners that were met, as the bits below.
    var bits: UInt16 = 0
    var tail: UInt16 = 0
    var joins: UInt8 = 0
    var dots = 0
    scanning: while i < limit {
      let c = table[Int(p[i])]
      if c & ByteClass.word != 0, !hasDelimiters || delimiters[Int(p[i])] == 0 {
        bits |= c
        tail |= c
        i += 1
        continue
      }
      guard c & ByteClass.joiner != 0, i + 1 < limit, !hasDelimiters || delimiters[Int(p[i])] == 0 else { break }
      let next = table[Int(p[i + 1])]
      switch p[i] {
      case UInt8(ascii: "."):
        guard next & ByteClass.start != 0 else { break scanning }
        dots += 1
        joins |= Join.dot
        tail = 0
      case UInt8(ascii: "-"):
        var j = i + 1
        while j < limit, j < i + 3, p[j] == UInt8(ascii: "-") { j += 1 }
        guard j < limit, table[Int(p[j])] & ByteClass.start != 0 else { break scanning }
        joins |= Join.dash
        i = j - 1
      case UInt8(ascii: ":"):
        guard i > start, next & ByteClass.digit != 0, table[Int(p[i - 1])] & ByteClass.digit != 0 else { break scanning }
        joins |= Join.colon
      case UInt8(ascii: "'"):
        guard next & ByteClass.start != 0 else { break scanning }
        joins |= Join.apostrophe
      default:
        guard next & ByteClass.start != 0 else { break scanning }
        joins |= Join.slash
      }
      i += 1
    }
    if bits & ByteClass.digit != 0 {
      return finishWithDigits(p, start, i, limit, hasSpace, bits, joins, dots, prefix: prefix)
    }
    return finishWord(p, start, i, limit, hasSpace, bits, tail, joins, dots)
  }

  private enum Join {
    static let dot: UInt8 = 1
    static let dash: UInt8 = 2
    static let colon: UInt8 = 4
    static let apostrophe: UInt8 = 8
    static let slash: UInt8 = 16
  }

  private static let letters = ByteClass.upper | ByteClass.lower

  /// A word without a digit: a value by its form or what follows it, a name, or a word of language.
  @inline(__always)
  private func finishWord(
    _ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ limit: Int, _ hasSpace: Bool, _ bits: UInt16, _ tail: UInt16,
    _ joins: UInt8, _ dots: Int
  ) -> Int {
    let next: UInt8 = end < limit ? p[end] : 32
    if next == UInt8(ascii: ":") || next == UInt8(ascii: "("),
      let found = valueEnd(p, start, end, limit, bits, joins, dots)
    {
      appendValue(start, found.end, found.kind, hasSpace)
      return found.end
    }
    let length = end - start
    let named = ByteClass.sign | ByteClass.underscore
    if length >= 8, joins == 0, bits & (ByteClass.otherLetter | named) == 0 {
      appendValue(start, end, .hex, hasSpace)
      return end
    }
    let isPlain = bits & named == 0 && joins & ~Join.apostrophe == 0
    // `LOOKING`, `android.intent.action.SCREEN_ON`: a constant. Two constants are two things.
    let isConstant =
      !isPlain && bits & ByteClass.sign == 0 && joins & ~Join.dot == 0 && tail & ByteClass.upper != 0
      && tail & ByteClass.lower == 0
    if !isPlain, !isConstant {
      if bits & ByteClass.sign != 0, joins & Join.dot != 0, isEmail(p, start, end) {
        appendValue(start, end, .email, hasSpace)
        return end
      }
      if dots >= 2, joins & Join.slash == 0, bits & ByteClass.sign == 0 {
        appendValue(start, end, .host, hasSpace)
        return end
      }
    }
    if length == 3, isPlain, hasSpace || count > 0, let dateEnd = ValueScanners.calendarDate(p, start, limit) {
      appendValue(start, dateEnd, .timestamp, hasSpace)
      return dateEnd
    }
    let symbol = rd_hash64(p + start, UInt32(truncatingIfNeeded: length))
    var role: LineToken.Role = isPlain || isConstant ? .word : .name
    // The first word says what a line is about, as names of functions do.
    if count == 0, joins == 0, bits & ByteClass.sign == 0 { role = .word }
    if role == .word, start > 0 {
      let before = p[start - 1]
      let isEnclosed =
        (before == UInt8(ascii: "\"") || before == UInt8(ascii: "'")) && next == before
        || before == UInt8(ascii: "[") && next == UInt8(ascii: "]")
      if isEnclosed || hasSpace && isLabelled(symbol) { role = .name }
    }
    tokens[count] = LineToken(
      symbol: symbol, start: UInt32(truncatingIfNeeded: start), end: UInt32(truncatingIfNeeded: end), role: role, kind: 0,
      hasSpace: hasSpace)
    count += 1
    return end
  }

  /// Whether the word before says that a name follows, or the word itself stands for nothing.
  @inline(__always)
  private func isLabelled(_ symbol: UInt64) -> Bool {
    guard count > 0, tokens[count - 1].role == .word || tokens[count - 1].role == .name else {
      return labels[symbol] == 4
    }
    switch labels[tokens[count - 1].symbol] {
    case 1: return true
    case 2: return count > 1 && labels[tokens[count - 2].symbol] == 3
    default: return labels[symbol] == 4
    }
  }

  private func isEmail(_ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Bool {
    var at = start
    while at < end, p[at] != UInt8(ascii: "@") { at += 1 }
    guard at > start, at + 1 < end else { return false }
    for i in at + 1..<end where p[i] == UInt8(ascii: ".") { return true }
    return false
  }

  /// Values that a colon or a bracket makes of the word before it: `http://…`, `C:\…`, `db.example.com:5432`, `::1`-like
  /// addresses, `LOCAL(0)`.
  private func valueEnd(
    _ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ limit: Int, _ bits: UInt16, _ joins: UInt8, _ dots: Int
  ) -> (end: Int, kind: MaskKind)? {
    guard end + 1 < limit else { return nil }
    let next = p[end + 1]
    if p[end] == UInt8(ascii: "(") {
      // An instance of something: `LOCAL(0)`. Functions are not written in capitals.
      guard joins == 0, bits & (ByteClass.lower | ByteClass.sign) == 0, ValueScanners.isDigit(next) else { return nil }
      var i = end + 1
      while i < limit, ValueScanners.isDigit(p[i]) { i += 1 }
      return i < limit && p[i] == UInt8(ascii: ")") ? (i + 1, .id) : nil
    }
    if next == UInt8(ascii: "/"), end + 2 < limit, p[end + 2] == UInt8(ascii: "/") {
      return (ValueScanners.url(p, start, limit), .url)
    }
    if next == UInt8(ascii: "\\"), end == start + 1 { return (ValueScanners.url(p, end + 1, limit), .path) }
    if dots >= 1, ValueScanners.isDigit(next), dots >= 2 || bits & ByteClass.upper == 0 {
      var i = end + 1
      while i < limit, ValueScanners.isDigit(p[i]) { i += 1 }
      let isPort = i - end <= 6 && (i == limit || ByteClass.of(p[i]) & ByteClass.word == 0)
      if isPort { return (i, .host) }
    }
    if joins == 0, bits & (ByteClass.otherLetter | ByteClass.sign | ByteClass.underscore) == 0, end - start <= 4,
      let address = ValueScanners.hexColons(p, start, limit)
    {
      return (address.end, address.isMAC ? .mac : .ip)
    }
    return nil
  }

  // MARK: Values with digits

  /// Anything with a digit in it is a value; which one is told by its form and, for units and times, what follows.
  @inline(__always)
  private func finishWithDigits(
    _ p: UnsafePointer<UInt8>, _ start: Int, _ wordEnd: Int, _ limit: Int, _ hasSpace: Bool, _ bits: UInt16, _ joins: UInt8,
    _ dots: Int, prefix: Int
  ) -> Int {
    var end = wordEnd
    var kind = MaskKind.id
    let digitsStart = start + prefix
    let notNumber =
      ByteClass.hexLetter | ByteClass.otherLetter | ByteClass.underscore | ByteClass.sign
    if bits & notNumber == 0, joins & ~(Join.dot | Join.colon) == 0 {
      // Digits, dots, colons.
      if joins & Join.colon == 0 {
        if dots <= 1 {
          kind = .number
          while end + 1 < limit, p[end] == UInt8(ascii: ","), ValueScanners.isDigit(p[end + 1]) {
            end = ValueScanners.number(p, end + 1, limit)
          }
        } else if dots == 3, ValueScanners.isIPv4(p, digitsStart, end) {
          kind = .ip
        }
      } else if dots == 3, ValueScanners.isIPv4(p, digitsStart, end) {
        kind = .ip
      } else if let timeEnd = ValueScanners.time(p, digitsStart, limit), timeEnd >= end {
        end = timeEnd
        kind = .duration
      }
    } else if bits & (ByteClass.otherLetter | ByteClass.sign | ByteClass.underscore) == 0, joins & ~Join.dash == 0 {
      // Hexadecimal digits and dashes.
      if joins == 0 {
        kind = .hex
      } else if end - start == 36, ValueScanners.isUUID(p, start, end) {
        kind = .uuid
      } else if bits & ByteClass.hexLetter == 0, ValueScanners.isDate(p, start, end) {
        kind = .timestamp
      }
    } else if p[digitsStart] == UInt8(ascii: "0"), end > digitsStart + 2, p[digitsStart + 1] | 0x20 == UInt8(ascii: "x") {
      kind = .hex
    } else if ValueScanners.isDigit(p[start]), joins & (Join.dash | Join.slash) != 0, ValueScanners.isDate(p, start, end) {
      kind = .timestamp
    } else if bits & ByteClass.sign != 0, joins & Join.dot != 0, isEmail(p, start, end) {
      kind = .email
    } else if joins & Join.dot != 0, bits & ByteClass.sign == 0, joins & Join.slash == 0, bits & Self.letters != 0,
      bits & ByteClass.underscore == 0, !ValueScanners.isDigit(p[end - 1]) || joins & Join.colon != 0
    {
      kind = .host
    }
    if end < limit {
      let next = p[end]
      if next == UInt8(ascii: ":"), let found = colonValue(p, start, end, limit, bits, joins, dots) {
        end = found.end
        kind = found.kind
      } else if kind == .timestamp || kind == .number || kind == .id || kind == .hex {
        finishMeasure(p, digitsStart, &end, &kind, limit)
      }
    } else if kind == .id || kind == .hex {
      finishMeasure(p, digitsStart, &end, &kind, limit)
    }
    appendValue(start, end, kind, hasSpace)
    return end
  }

  /// Addresses and URLs that go on behind a colon.
  private func colonValue(
    _ p: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ limit: Int, _ bits: UInt16, _ joins: UInt8, _ dots: Int
  ) -> (end: Int, kind: MaskKind)? {
    guard end + 1 < limit else { return nil }
    if p[end + 1] == UInt8(ascii: "/"), end + 2 < limit, p[end + 2] == UInt8(ascii: "/") {
      return (ValueScanners.url(p, start, limit), .url)
    }
    if bits & (ByteClass.otherLetter | ByteClass.sign | ByteClass.underscore) == 0, joins & ~Join.colon == 0,
      let address = ValueScanners.hexColons(p, start, limit), address.end > end
    {
      return (address.end, address.isMAC ? .mac : .ip)
    }
    if joins & Join.dot != 0 || joins & Join.dash != 0, ValueScanners.isDigit(p[end + 1]) {
      var i = end + 1
      while i < limit, ValueScanners.isDigit(p[i]) { i += 1 }
      let isPort = i - end <= 6 && (i == limit || ByteClass.of(p[i]) & ByteClass.word == 0)
      if isPort { return (i, .host) }
    }
    return nil
  }

  /// A unit in the value or behind it, a percent sign, the time behind a date.
  @inline(__always)
  private func finishMeasure(
    _ p: UnsafePointer<UInt8>, _ start: Int, _ end: inout Int, _ kind: inout MaskKind, _ limit: Int
  ) {
    switch kind {
    case .number:
      guard end < limit else { return }
      if p[end] == UInt8(ascii: "%") {
        end += 1
        return
      }
      guard p[end] == 32, end + 1 < limit, ByteClass.of(p[end + 1]) & Self.letters != 0 else { return }
      let first = end + 1
      var i = first
      while i < limit, ByteClass.of(p[i]) & Self.letters != 0 { i += 1 }
      if i < limit, ByteClass.of(p[i]) & ByteClass.word != 0 { return }
      // `3 user-level threads`, `4 io.netty workers`: no unit.
      if i + 1 < limit, ByteClass.of(p[i]) & ByteClass.joiner != 0, ByteClass.of(p[i + 1]) & ByteClass.start != 0 { return }
      guard ValueScanners.isSpelt(p, first, i), let unit = ValueScanners.unit(p, first, i) else { return }
      finishUnit(unit, p, i, &end, &kind, limit)
    case .id, .hex:
      let number = ValueScanners.number(p, start, end)
      guard number > start, number < end, end - number <= 12, let unit = ValueScanners.unit(p, number, end) else { return }
      finishUnit(unit, p, end, &end, &kind, limit)
    case .timestamp:
      if end - start == 10, end < limit, p[end] == 32, let timeEnd = ValueScanners.time(p, end + 1, limit) {
        end = timeEnd
      } else if end + 1 < limit, p[end] == UInt8(ascii: ","), ValueScanners.isDigit(p[end + 1]) {
        end = ValueScanners.number(p, end + 1, limit)
      }
    default: break
    }
  }

  private func finishUnit(
    _ unit: ValueScanners.Unit, _ p: UnsafePointer<UInt8>, _ unitEnd: Int, _ end: inout Int, _ kind: inout MaskKind,
    _ limit: Int
  ) {
    switch unit {
    case .duration:
      kind = .duration
      end = unitEnd
    case .size:
      kind = .size
      end = ValueScanners.restatedSize(p, unitEnd, limit)
    }
  }

  // MARK: Appending

  @inline(__always)
  private func appendMark(_ byte: UInt8, _ start: Int, _ end: Int, _ hasSpace: Bool) {
    guard count < Self.tokensMax else { return }
    tokens[count] = LineToken(
      symbol: LineToken.markSymbol(byte), start: UInt32(truncatingIfNeeded: start),
      end: UInt32(truncatingIfNeeded: end), role: .mark, kind: byte, hasSpace: hasSpace)
    count += 1
  }

  @inline(__always)
  private func appendValue(_ start: Int, _ end: Int, _ kind: MaskKind, _ hasSpace: Bool) {
    appendValue(start, end, kind: kind.rawValue, hasSpace)
  }

  @inline(__always)
  private func appendValue(_ start: Int, _ end: Int, kind: UInt8, _ hasSpace: Bool) {
    if mergesRuns, count > 0 {
      if tokens[count - 1].role == .value {
        tokens[count - 1].end = UInt32(truncatingIfNeeded: end)
        return
      }
      if count > 1, tokens[count - 1].role == .mark, tokens[count - 1].kind == UInt8(ascii: ","),
        tokens[count - 2].role == .value
      {
        count -= 1
        tokens[count - 1].end = UInt32(truncatingIfNeeded: end)
        return
      }
    }
    tokens[count] = LineToken(
      symbol: LineToken.valueSymbol, start: UInt32(truncatingIfNeeded: start), end: UInt32(truncatingIfNeeded: end),
      role: .value, kind: kind, hasSpace: hasSpace)
    count += 1
  }
}
