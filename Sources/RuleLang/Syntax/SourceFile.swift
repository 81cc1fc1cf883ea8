/// A file of rules.
public struct SourceFile: Sendable, Hashable {
  /// Longest file that is compiled: 4 MiB, several hundred times a large rule file.
  public static let bytesMax = 4 << 20

  /// As diagnostics print it.
  public var path: String
  public var text: String

  public init(path: String, text: String) {
    self.path = path
    self.text = text
  }

  /// From bytes of unknown origin. Throws a diagnostic when they are too many, hold a NUL or are
  /// not UTF-8.
  public init(path: String, bytes: [UInt8]) throws(Diagnostic) {
    if let problem = Self.problem(path: path, bytes: bytes) { throw problem }
    self.path = path
    text = String(decoding: bytes, as: UTF8.self)
  }

  static func problem(path: String, bytes: [UInt8]) -> Diagnostic? {
    func place(_ offset: Int) -> SourceRange {
      let text = SourceText(path: path, bytes: bytes)
      return text.place(
        TextRange(file: 0, start: Int32(clamping: offset), end: Int32(clamping: offset + 1)))
    }
    guard bytes.count <= bytesMax else {
      return Diagnostic(
        .fileTooLarge, "`\(path)` is \(bytes.count) bytes long; a rule file has at most \(bytesMax)",
        primary: .init(SourceRange(file: path, start: 0, end: 0, line: 1, column: 1)),
        hint: "split it; all files that are given together form one program")
    }
    if let offset = bytes.firstIndex(of: 0) {
      return Diagnostic(
        .fileHasNUL, "`\(path)` holds a NUL byte: it is no text",
        primary: .init(place(offset), "byte \(offset) is 0"))
    }
    if let offset = firstInvalidUTF8(bytes) {
      return Diagnostic(
        .fileNotUTF8, "`\(path)` is not UTF-8",
        primary: .init(place(offset), "byte \(offset) belongs to no character"),
        hint: "convert the file: `iconv -f latin1 -t utf-8`")
    }
    return nil
  }

  /// The offset of the first byte that is no part of a well-formed sequence (Unicode 15, table
  /// 3-7).
  private static func firstInvalidUTF8(_ bytes: [UInt8]) -> Int? {
    var index = 0
    let count = bytes.count
    while index < count {
      let lead = bytes[index]
      if lead < 0x80 {
        index += 1
        continue
      }
      var lowest: UInt8 = 0x80
      var highest: UInt8 = 0xBF
      let length: Int
      switch lead {
      case 0xC2...0xDF: length = 2
      case 0xE0: (length, lowest) = (3, 0xA0)
      case 0xED: (length, highest) = (3, 0x9F)
      case 0xE1...0xEF: length = 3
      case 0xF0: (length, lowest) = (4, 0x90)
      case 0xF1...0xF3: length = 4
      case 0xF4: (length, highest) = (4, 0x8F)
      default: return index
      }
      guard index + length <= count else { return index }
      guard (lowest...highest).contains(bytes[index + 1]) else { return index }
      for offset in index + 2..<max(index + 2, index + length)
      where bytes[offset] & 0xC0 != 0x80 {
        return index
      }
      index += length
    }
    return nil
  }
}

/// A file as the compiler reads it: bytes, and where its lines begin.
struct SourceText: Sendable {
  let path: String
  let bytes: [UInt8]
  private let lineStarts: [Int32]

  init(path: String, bytes: [UInt8]) {
    self.path = path
    self.bytes = bytes
    var starts: [Int32] = [0]
    for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "\n") {
      starts.append(Int32(clamping: index + 1))
    }
    lineStarts = starts
  }

  /// The first byte that is not part of a byte order mark.
  var start: Int { bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0 }

  func place(_ range: TextRange) -> SourceRange {
    var cursor = ColumnCursor()
    return place(range, from: &cursor)
  }

  /// A place whose column has been counted, so that the next one on its line need not begin at the
  /// line's start: a line may be as long as a file.
  struct ColumnCursor {
    var lineStart = -1
    var offset = 0
    var column = 1
  }

  func place(_ range: TextRange, from cursor: inout ColumnCursor) -> SourceRange {
    let offset = min(Int(range.start), bytes.count)
    var low = 0
    var high = lineStarts.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if Int(lineStarts[middle]) <= offset { low = middle } else { high = middle }
    }
    let lineStart = low == 0 ? min(start, offset) : Int(lineStarts[low])
    if cursor.lineStart != lineStart || cursor.offset > offset {
      cursor = ColumnCursor(lineStart: lineStart, offset: lineStart, column: 1)
    }
    for byte in bytes[cursor.offset..<offset] where byte & 0xC0 != 0x80 { cursor.column += 1 }
    cursor.offset = offset
    return SourceRange(
      file: path, start: offset, end: min(Int(range.end), bytes.count), line: low + 1,
      column: cursor.column)
  }

  func string(_ range: TextRange) -> String {
    String(decoding: bytes[Int(range.start)..<Int(range.end)], as: UTF8.self)
  }
}
