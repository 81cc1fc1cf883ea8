/// Cuts a file, or the inside of a template's braces, into tokens. Reports what is no token and
/// goes on.
struct Lexer {
  private let bytes: [UInt8]
  private let file: Int32
  private let end: Int
  private var position: Int
  private var startsLine = true
  /// Inside a template a quote is written `\"`.
  private let isInTemplate: Bool
  private let reporter: Reporter
  private var tokens: [Token] = []

  private init(
    bytes: [UInt8], file: Int32, start: Int, end: Int, isInTemplate: Bool, reporter: Reporter
  ) {
    self.bytes = bytes
    self.file = file
    self.end = end
    self.isInTemplate = isInTemplate
    self.reporter = reporter
    position = start
  }

  /// The tokens of a file, `.end` last.
  static func tokens(of file: Int, reporter: Reporter) -> [Token] {
    let text = reporter.texts[file]
    var lexer = Lexer(
      bytes: text.bytes, file: Int32(file), start: text.start, end: text.bytes.count,
      isInTemplate: false, reporter: reporter)
    lexer.tokens.reserveCapacity(text.bytes.count / 5)
    return lexer.run()
  }

  /// The tokens of `{…}` in a template, `.end` last.
  static func tokens(inTemplate range: TextRange, reporter: Reporter) -> [Token] {
    var lexer = Lexer(
      bytes: reporter.texts[Int(range.file)].bytes, file: range.file, start: Int(range.start),
      end: Int(range.end), isInTemplate: true, reporter: reporter)
    return lexer.run()
  }

  private mutating func run() -> [Token] {
    while true {
      skipBlanks()
      guard position < end else { break }
      let start = position
      let kind = next()
      var keyword = Keyword.none
      if kind == .identifier {
        keyword = Keyword.byText[String(decoding: bytes[start..<position], as: UTF8.self)] ?? .none
      }
      append(kind, from: start, keyword: keyword)
    }
    position = end
    append(.end, from: end)
    return tokens
  }

  private mutating func append(_ kind: TokenKind, from start: Int, keyword: Keyword = .none) {
    tokens.append(
      Token(
        kind: kind, startsLine: startsLine, keyword: keyword, start: Int32(start),
        end: Int32(position)))
    startsLine = false
  }

  private func peek(_ ahead: Int = 0) -> UInt8 {
    position + ahead < end ? bytes[position + ahead] : 0
  }

  private func range(from start: Int) -> TextRange {
    TextRange(file: file, start: Int32(start), end: Int32(position))
  }

  private mutating func skipBlanks() {
    while position < end {
      switch bytes[position] {
      case UInt8(ascii: "\n"):
        startsLine = true
        position += 1
      case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"):
        position += 1
      case UInt8(ascii: "#"):
        skipLine()
      case UInt8(ascii: "/") where peek(1) == UInt8(ascii: "/"):
        skipLine()
      default:
        return
      }
    }
  }

  private mutating func skipLine() {
    while position < end, bytes[position] != UInt8(ascii: "\n") { position += 1 }
  }

  private mutating func next() -> TokenKind {
    let byte = bytes[position]
    switch byte {
    case UInt8(ascii: "t") where peek(1) == UInt8(ascii: "\""):
      position += 1
      return string(from: position - 1) ? .timestamp : .bad
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "_"):
      position += 1
      while isNameByte(peek()) { position += 1 }
      return .identifier
    case UInt8(ascii: "0")...UInt8(ascii: "9"):
      number()
      return .number
    case UInt8(ascii: "\""):
      return string(from: position) ? .string : .bad
    case UInt8(ascii: "\\") where isInTemplate && peek(1) == UInt8(ascii: "\""):
      return string(from: position) ? .string : .bad
    default:
      break
    }
    if let (kind, length) = symbol(byte) {
      position += length
      return kind
    }
    unknown(byte)
    return .bad
  }

  private func symbol(_ byte: UInt8) -> (TokenKind, Int)? {
    let following = peek(1)
    switch byte {
    case UInt8(ascii: "{"): return (.leftBrace, 1)
    case UInt8(ascii: "}"): return (.rightBrace, 1)
    case UInt8(ascii: "("): return (.leftParen, 1)
    case UInt8(ascii: ")"): return (.rightParen, 1)
    case UInt8(ascii: ","): return (.comma, 1)
    case UInt8(ascii: ":"): return (.colon, 1)
    case UInt8(ascii: "."): return (.dot, 1)
    case UInt8(ascii: "?"): return (.question, 1)
    case UInt8(ascii: "+"): return (.plus, 1)
    case UInt8(ascii: "-"): return (.minus, 1)
    case UInt8(ascii: "*"): return (.star, 1)
    case UInt8(ascii: "/"): return (.slash, 1)
    case UInt8(ascii: "%"): return (.percent, 1)
    case UInt8(ascii: "|"):
      return following == UInt8(ascii: "|") ? (.foreignOr, 2) : (.pipe, 1)
    case UInt8(ascii: "&"):
      return following == UInt8(ascii: "&") ? (.foreignAnd, 2) : nil
    case UInt8(ascii: "="):
      if following == UInt8(ascii: "~") { return nil }
      return following == UInt8(ascii: "=") ? (.equalEqual, 2) : (.equal, 1)
    case UInt8(ascii: "!"):
      if following == UInt8(ascii: "~") { return nil }
      return following == UInt8(ascii: "=") ? (.notEqual, 2) : (.foreignNot, 1)
    case UInt8(ascii: "<"):
      if following == UInt8(ascii: ">") { return nil }
      return following == UInt8(ascii: "=") ? (.lessOrEqual, 2) : (.less, 1)
    case UInt8(ascii: ">"):
      return following == UInt8(ascii: "=") ? (.greaterOrEqual, 2) : (.greater, 1)
    default: return nil
    }
  }

  private func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private func isDigit(_ byte: UInt8) -> Bool {
    byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
  }

  /// Takes digits and the unit attached to them; `NumberLiteral` finds out what they mean.
  private mutating func number() {
    var mayHaveExponent = true
    while position < end {
      let byte = bytes[position]
      if isDigit(byte) || byte == UInt8(ascii: "_") {
        position += 1
      } else if byte == UInt8(ascii: "."), isDigit(peek(1)) {
        position += 1
      } else if mayHaveExponent, byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E") {
        mayHaveExponent = false
        let isSigned = peek(1) == UInt8(ascii: "+") || peek(1) == UInt8(ascii: "-")
        position += isSigned && isDigit(peek(2)) ? 2 : 1
      } else if isNameByte(byte) {
        mayHaveExponent = false
        position += 1
      } else {
        break
      }
    }
    if peek() == UInt8(ascii: "%") { position += 1 }
  }

  /// Takes a string up to its closing quote; false, and reported, when the line ends first.
  private mutating func string(from start: Int) -> Bool {
    let isQuoteEscaped = bytes[position] == UInt8(ascii: "\\")
    position += isQuoteEscaped ? 2 : 1
    while position < end {
      switch bytes[position] {
      case UInt8(ascii: "\n"):
        return unterminated(from: start)
      case UInt8(ascii: "\\") where isQuoteEscaped && peek(1) == UInt8(ascii: "\""):
        position += 2
        return true
      case UInt8(ascii: "\\"):
        position = min(position + 2, end)
        if bytes[position - 1] == UInt8(ascii: "\n") {
          position -= 1
          return unterminated(from: start)
        }
      case UInt8(ascii: "\"") where !isQuoteEscaped:
        position += 1
        return true
      default:
        position += 1
      }
    }
    return unterminated(from: start)
  }

  private mutating func unterminated(from start: Int) -> Bool {
    reporter.report(
      .unterminatedString, "this string does not end on its line", at: range(from: start),
      "no closing `\"`", hint: "close it with `\"`; write a line break as `\\n`")
    return false
  }

  /// Takes and reports a run of bytes that begin no token.
  private mutating func unknown(_ byte: UInt8) {
    let start = position
    let following = peek(1)
    var hint: String?
    switch byte {
    case UInt8(ascii: "'"):
      position += 1
      while position < end, bytes[position] != byte, bytes[position] != UInt8(ascii: "\n") {
        position += 1
      }
      if peek() == byte { position += 1 }
      reporter.report(
        .unexpectedCharacter, "text is quoted with `\"` here, not with `'`", at: range(from: start),
        hint: "write \"…\"")
      return
    case UInt8(ascii: "="), UInt8(ascii: "!"):
      position += 2
      hint = "text is tested by functions: `starts_with(text, \"a\")`, `contains(text, \"b\")`"
    case UInt8(ascii: "<"):
      position += 2
      hint = "`not equal` is written `!=`"
    case UInt8(ascii: ";"):
      position += 1
      hint = "nothing ends with `;` here; leave it out"
    case UInt8(ascii: "&"):
      position += 1
      hint = "write `and`"
    default:
      if byte >= 0x80 { hint = "names are ASCII letters, digits and `_`; other text goes in \"…\"" }
      // One diagnostic for a whole run of them.
      repeat { position += 1 } while position < end && isStrange(bytes[position])
    }
    let text = String(decoding: bytes[start..<min(position, start + 24)], as: UTF8.self)
    let shown = following == 0 && byte < 0x20 ? "a control character" : "`\(printable(text))`"
    reporter.report(
      .unexpectedCharacter, "\(shown) means nothing here", at: range(from: start), hint: hint)
  }

  private func isStrange(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "\n"), UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"),
      UInt8(ascii: "#"), UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: ";"),
      UInt8(ascii: "&"):
      false
    default:
      !isNameByte(byte) && symbol(byte) == nil
    }
  }
}

/// Text without control characters, so that rule text cannot drive a terminal.
func printable(_ text: String) -> String {
  guard text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) else {
    return text
  }
  var result = ""
  for scalar in text.unicodeScalars {
    result.unicodeScalars.append(scalar.value < 0x20 || scalar.value == 0x7F ? "\u{FFFD}" : scalar)
  }
  return result
}
