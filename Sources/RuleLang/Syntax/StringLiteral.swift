/// What stands between the quotes of a string.
enum StringLiteral {
  /// The text, escapes resolved.
  static func text(_ range: TextRange, reporter: Reporter) throws(SyntaxFailure) -> String {
    let bytes = reporter.texts[Int(range.file)].bytes
    var cursor = Cursor(bytes: bytes, range: range, reporter: reporter)
    var result: [UInt8] = []
    while cursor.position < cursor.end { try cursor.character(into: &result) }
    return String(decoding: result, as: UTF8.self)
  }

  /// The text and the expressions between braces of a template.
  static func parts(
    _ range: TextRange, reporter: Reporter
  ) throws(SyntaxFailure) -> [TemplateSyntax.Part] {
    let bytes = reporter.texts[Int(range.file)].bytes
    var cursor = Cursor(bytes: bytes, range: range, reporter: reporter)
    var parts: [TemplateSyntax.Part] = []
    var text: [UInt8] = []
    func flush() {
      guard !text.isEmpty else { return }
      parts.append(.text(String(decoding: text, as: UTF8.self)))
      text = []
    }
    while cursor.position < cursor.end {
      let byte = bytes[cursor.position]
      let isDoubled = cursor.position + 1 < cursor.end && bytes[cursor.position + 1] == byte
      switch byte {
      case UInt8(ascii: "{") where isDoubled, UInt8(ascii: "}") where isDoubled:
        text.append(byte)
        cursor.position += 2
      case UInt8(ascii: "}"):
        throw cursor.fail("a `}` without `{`", length: 1, hint: "write `}}` for a brace itself")
      case UInt8(ascii: "{"):
        flush()
        let open = cursor.position
        do throws(SyntaxFailure) {
          parts.append(.value(try cursor.value()))
        } catch {
          // Without its closing brace the rest is a guess; behind one, the next expression may be
          // wrong as well.
          if cursor.position == open { throw error }
          let range = cursor.range(open, cursor.position)
          parts.append(.value(ExprSyntax(kind: .broken, range: range, depth: 1)))
        }
      default:
        try cursor.character(into: &text)
      }
    }
    flush()
    return parts
  }

  private struct Cursor {
    let bytes: [UInt8]
    let file: Int32
    let end: Int
    let reporter: Reporter
    var position: Int

    init(bytes: [UInt8], range: TextRange, reporter: Reporter) {
      self.bytes = bytes
      self.reporter = reporter
      file = range.file
      end = Int(range.end)
      position = Int(range.start)
    }

    func range(_ start: Int, _ end: Int) -> TextRange {
      TextRange(file: file, start: Int32(start), end: Int32(end))
    }

    func fail(_ message: String, length: Int, hint: String) -> SyntaxFailure {
      reporter.report(
        .badTemplate, message, at: range(position, min(position + length, end)), hint: hint)
      return SyntaxFailure()
    }

    /// An expression between braces; the cursor is left behind the closing one.
    mutating func value() throws(SyntaxFailure) -> ExprSyntax {
      let open = position
      var close = open + 1
      var isQuoted = false
      while close < end, isQuoted || bytes[close] != UInt8(ascii: "}") {
        if bytes[close] == UInt8(ascii: "\""), bytes[close - 1] == UInt8(ascii: "\\") {
          isQuoted.toggle()
        }
        close += 1
      }
      guard close < end else {
        throw fail("this `{` has no `}`", length: 1, hint: "write `{{` for a brace itself")
      }
      position = close + 1
      var parser = Parser(template: range(open + 1, close), reporter: reporter)
      if parser.isAtEnd {
        reporter.report(
          .badTemplate, "nothing stands between these braces", at: range(open, close + 1),
          hint: "write `{column}`, or `{{` for a brace itself")
        throw SyntaxFailure()
      }
      let expression = try parser.expression()
      guard parser.isAtEnd else {
        throw parser.unexpected(
          "`}`",
          hint: parser.kind == .colon
            ? "values are printed in the unit of their type; there are no formats" : nil)
      }
      return expression
    }

    /// Takes one character or escape.
    mutating func character(into text: inout [UInt8]) throws(SyntaxFailure) {
      guard bytes[position] == UInt8(ascii: "\\") else {
        text.append(bytes[position])
        position += 1
        return
      }
      let start = position
      let escaped = position + 1 < end ? bytes[position + 1] : 0
      position = min(position + 2, end)
      switch escaped {
      case UInt8(ascii: "n"): text.append(UInt8(ascii: "\n"))
      case UInt8(ascii: "t"): text.append(UInt8(ascii: "\t"))
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): text.append(escaped)
      case UInt8(ascii: "u"):
        guard let scalar = unicodeScalar() else {
          throw badEscape(start, hint: "a character by its number: `\\u{1F600}`")
        }
        text.append(contentsOf: Array(String(Character(scalar)).utf8))
      default:
        throw badEscape(
          start, hint: "escapes: \\n \\t \\\" \\\\ \\u{…}; a backslash itself is `\\\\`")
      }
    }

    private func badEscape(_ start: Int, hint: String) -> SyntaxFailure {
      // The label covers whole characters.
      var stop = position
      while stop < end, bytes[stop] & 0xC0 == 0x80 { stop += 1 }
      reporter.report(
        .badEscape, "unknown escape in a string", at: range(start, stop), hint: hint)
      return SyntaxFailure()
    }

    private mutating func unicodeScalar() -> Unicode.Scalar? {
      guard position < end, bytes[position] == UInt8(ascii: "{") else { return nil }
      var value: UInt32 = 0
      var digits = 0
      var index = position + 1
      while index < end, bytes[index] != UInt8(ascii: "}") {
        guard let digit = Character(Unicode.Scalar(bytes[index])).hexDigitValue, digits < 6 else {
          return nil
        }
        value = value << 4 | UInt32(digit)
        digits += 1
        index += 1
      }
      guard index < end, digits > 0, let scalar = Unicode.Scalar(value), scalar.value != 0 else {
        return nil
      }
      position = index + 1
      return scalar
    }
  }
}
