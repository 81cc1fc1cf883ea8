/// Prints diagnostics for people: the message, the source line with a label under it, the hint.
public struct DiagnosticTextRenderer: Sendable {
  /// Longest part of a source line that is shown, in columns of a terminal.
  static let lineColumnsMax = 160
  private static let tabColumns = 4

  private let files: [String: SourceText]
  private let useColor: Bool

  /// - Parameters:
  ///   - files: What was compiled; a diagnostic in another file is printed without its source line.
  ///   - useColor: Whether to write ANSI escapes.
  public init(files: [SourceFile], useColor: Bool = false) {
    var texts: [String: SourceText] = [:]
    for file in files where texts[file.path] == nil {
      texts[file.path] = SourceText(path: file.path, bytes: Array(file.text.utf8))
    }
    self.files = texts
    self.useColor = useColor
  }

  /// All of them, a blank line behind each.
  public func render(_ diagnostics: [Diagnostic]) -> String {
    diagnostics.map { render($0) + "\n" }.joined()
  }

  /// One diagnostic; ends with a line break.
  public func render(_ diagnostic: Diagnostic) -> String {
    let isError = diagnostic.severity == .error
    let tone: Tone = isError ? .error : .warning
    var result = paint("\(diagnostic.severity.rawValue)[\(diagnostic.code.rawValue)]", tone)
    result += paint(": \(printable(diagnostic.message))", .strong) + "\n"
    let labels = [diagnostic.primary] + diagnostic.context
    let width = labels.map { "\($0.range.line)".utf8.count }.max() ?? 1
    let margin = String(repeating: " ", count: width)
    for (index, label) in labels.enumerated() {
      let arrow = index == 0 ? "-->" : ":::"
      let place = "\(printable(label.range.file)):\(label.range.line):\(label.range.column)"
      result += "\(margin)\(paint(arrow, .frame)) \(place)\n"
      guard let excerpt = excerpt(label) else {
        if !label.text.isEmpty { result += "\(margin) \(paint("=", .frame)) \(label.text)\n" }
        continue
      }
      let number = "\(label.range.line)"
      let padding = String(repeating: " ", count: width - number.utf8.count)
      result += "\(margin) \(paint("|", .frame))\n"
      result +=
        paint("\(padding)\(number) |", .frame) + (excerpt.line.isEmpty ? "" : " ")
        + excerpt.line + "\n"
      let carets = String(repeating: index == 0 ? "^" : "-", count: excerpt.length)
      let note = label.text.isEmpty ? carets : "\(carets) \(printable(label.text))"
      result += "\(margin) \(paint("|", .frame)) "
      result += String(repeating: " ", count: excerpt.offset)
      result += paint(note, index == 0 ? tone : .frame) + "\n"
    }
    if let hint = diagnostic.hint {
      result += "\(margin) \(paint("=", .frame)) \(paint("hint:", .strong)) \(printable(hint))\n"
    }
    return result
  }

  // MARK: Excerpts

  private struct Excerpt {
    var line: String
    /// Columns before the label, and under it.
    var offset: Int
    var length: Int
  }

  /// The line of a label's start, tabs as blanks, long lines cut around the label.
  private func excerpt(_ label: Diagnostic.Label) -> Excerpt? {
    guard let text = files[label.range.file], label.range.start <= text.bytes.count else {
      return nil
    }
    let newline = UInt8(ascii: "\n")
    var start = label.range.start
    while start > text.start, text.bytes[start - 1] != newline { start -= 1 }
    start = max(start, min(text.start, label.range.start))
    var end = label.range.start
    while end < text.bytes.count, text.bytes[end] != newline { end += 1 }
    if end > start, text.bytes[end - 1] == UInt8(ascii: "\r") { end -= 1 }
    let labelEnd = min(max(label.range.end, label.range.start), end)
    // The label may begin on the line break itself, as at the end of a file.
    let labelStart = min(label.range.start, end)

    let before = columns(text.bytes[start..<labelStart])
    let under = columns(text.bytes[labelStart..<max(labelStart, labelEnd)])
    let after = columns(text.bytes[max(labelStart, labelEnd)..<end])
    let budget = Self.lineColumnsMax
    var line = before.text + under.text + after.text
    var offset = before.width
    var length = max(1, under.width)
    if before.width + under.width + after.width > budget {
      // Cuts count scalars: exact for nearly all rule text, and never more than the budget's double
      // in width.
      let context = 40
      let scalars = Array(line.unicodeScalars)
      let first = max(0, before.text.unicodeScalars.count - context)
      let last = min(scalars.count, first + budget)
      line = ""
      if first > 0 { line = "…" }
      line.unicodeScalars.append(contentsOf: scalars[first..<last])
      if last < scalars.count { line += "…" }
      var skipped = ""
      skipped.unicodeScalars.append(contentsOf: scalars[0..<first])
      offset = before.width - columns(Array(skipped.utf8)[...]).width + (first > 0 ? 1 : 0)
      length = max(1, min(length, budget - offset))
    }
    return Excerpt(line: line, offset: offset, length: length)
  }

  private func columns(_ bytes: ArraySlice<UInt8>) -> (text: String, width: Int) {
    var text = ""
    var width = 0
    for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
      if scalar == "\t" {
        text += String(repeating: " ", count: Self.tabColumns)
        width += Self.tabColumns
      } else if scalar.value < 0x20 || scalar.value == 0x7F || (0x80..<0xA0).contains(scalar.value) {
        text += "\u{FFFD}"
        width += 1
      } else {
        text.unicodeScalars.append(scalar)
        width += Self.width(of: scalar)
      }
    }
    return (text, width)
  }

  /// Columns that a terminal gives a character: the ranges that matter of Unicode's East Asian
  /// Width and combining marks.
  private static func width(of scalar: Unicode.Scalar) -> Int {
    switch scalar.value {
    case 0x300...0x36F, 0x200B...0x200F, 0x202A...0x202E, 0x2066...0x2069, 0xFE00...0xFE0F, 0xFEFF:
      0
    case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF,
      0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F900...0x1F9FF,
      0x20000...0x3FFFD:
      2
    default: 1
    }
  }

  // MARK: Colour

  private enum Tone: String {
    case error = "1;31"
    case warning = "1;33"
    case frame = "1;34"
    case strong = "1"
  }

  private func paint(_ text: String, _ tone: Tone) -> String {
    useColor ? "\u{1B}[\(tone.rawValue)m\(text)\u{1B}[0m" : text
  }
}
