/// What a byte may be in a log line, as bits of a table: the scanner reads a line once, byte by byte, and ors the bits
/// of a token's bytes together, so that what the token is made of is known when its end is.
enum ByteClass {
  static let word: UInt16 = 1 << 0
  /// A byte that may begin a word or follow a joining `.`, `-`, `/`, `'`, `\`.
  static let start: UInt16 = 1 << 1
  static let digit: UInt16 = 1 << 2
  static let upper: UInt16 = 1 << 3
  static let lower: UInt16 = 1 << 4
  static let hexLetter: UInt16 = 1 << 5
  /// A letter that is no hexadecimal digit, and every byte of a character beyond ASCII.
  static let otherLetter: UInt16 = 1 << 6
  static let underscore: UInt16 = 1 << 7
  /// `@ # $ + * ~`: part of a name, never of a word of language.
  static let sign: UInt16 = 1 << 8
  /// `. - ' / \ :`: part of a name when it stands between two parts of one.
  static let joiner: UInt16 = 1 << 9
  /// Space and control characters.
  static let space: UInt16 = 1 << 10
  static let path: UInt16 = 1 << 11
  /// `. * = # ~ _ + -`: lines are drawn with them, and how long such a line is means nothing.
  static let repeated: UInt16 = 1 << 12
  /// `< > ~ + - # @ $`: belongs to the number behind it.
  static let numberPrefix: UInt16 = 1 << 13
  /// Ends a URL.
  static let urlEnd: UInt16 = 1 << 14

  /// 256 entries, allocated once and never freed.
  nonisolated(unsafe) static let table: UnsafePointer<UInt16> = {
    let table = UnsafeMutablePointer<UInt16>.allocate(capacity: 256)
    table.initialize(repeating: 0, count: 256)
    func mark(_ bytes: some Sequence<UInt8>, _ bits: UInt16) { for byte in bytes { table[Int(byte)] |= bits } }
    mark(0...32, space | urlEnd)
    mark(UInt8(ascii: "0")...UInt8(ascii: "9"), word | start | digit | path)
    mark(UInt8(ascii: "A")...UInt8(ascii: "Z"), word | start | upper | otherLetter | path)
    mark(UInt8(ascii: "a")...UInt8(ascii: "z"), word | start | lower | otherLetter | path)
    for byte in "abcdefABCDEF".utf8 { table[Int(byte)] = table[Int(byte)] & ~otherLetter | hexLetter }
    mark(0x80...0xFF, word | start | lower | otherLetter | path)
    mark("_".utf8, word | start | underscore | path)
    mark("@#$+*~".utf8, word | sign)
    mark(".-'/\\:".utf8, joiner)
    mark(".*%+~@$-".utf8, path)
    mark(".*=#~_+-".utf8, repeated)
    mark("<>~+-#@$".utf8, numberPrefix)
    mark("\"'<>[](){},;`|".utf8, urlEnd)
    return UnsafePointer(table)
  }()

  /// Where a line of no bytes may lie.
  nonisolated(unsafe) static let nothing: UnsafeMutablePointer<UInt8> = {
    let byte = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
    byte.initialize(to: 0)
    return byte
  }()

  @inline(__always) static func of(_ byte: UInt8) -> UInt16 { table[Int(byte)] }
}

/// What a wildcard stood for in a line. The names are what rules write.
public enum MaskKind: UInt8, CaseIterable, Sendable {
  case number, id, hex, uuid, ip, mac, host, url, email, path, timestamp, duration, size, quoted
  /// What stands behind `key=`.
  case value
  /// Nothing: `key=` with nothing behind it, an empty pair of brackets.
  case empty
  /// A word, where the template has become a wildcard.
  case word
  /// What is left of a line with more tokens, or bytes, than are looked at.
  case rest

  public var name: String { String(describing: self) }
}
