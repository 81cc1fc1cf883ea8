/// What the compiler has to say about one place in rule text.
///
/// The message says what is wrong, the primary label why here, the hint what to write instead.
public struct Diagnostic: Error, Sendable, Hashable {
  public enum Severity: String, Sendable, Hashable {
    /// The program does not run.
    case error
    /// The program runs, and probably not as its author meant.
    case warning
  }

  /// A range and the few words that stand under it.
  public struct Label: Sendable, Hashable {
    public var range: SourceRange
    /// May be empty: carets alone.
    public var text: String
    public init(_ range: SourceRange, _ text: String = "") {
      self.range = range
      self.text = text
    }
  }

  public var code: DiagnosticCode
  public var message: String
  public var primary: Label
  /// Other places that matter, such as the first of two declarations.
  public var context: [Label]
  public var hint: String?

  public var severity: Severity { code.severity }

  public init(
    _ code: DiagnosticCode, _ message: String, primary: Label, context: [Label] = [],
    hint: String? = nil
  ) {
    self.code = code
    self.message = message
    self.primary = primary
    self.context = context
    self.hint = hint
  }
}

/// A place in the files of a compilation, small enough to be kept in every node of the syntax tree.
/// Offsets are UTF-8 bytes; a file is at most `SourceFile.bytesMax` long, so they fit.
struct TextRange: Sendable, Hashable {
  var file: Int32
  var start: Int32
  var end: Int32

  /// From the start of this range to the end of the other.
  func through(_ other: TextRange) -> TextRange {
    TextRange(file: file, start: start, end: max(end, other.end))
  }
}

/// Collects diagnostics, and turns the compiler's compact ranges into places that people read.
final class Reporter {
  /// Most diagnostics that one run reports: a file of random bytes must not fill the terminal or
  /// the memory.
  static let diagnosticsMax = 500

  let texts: [SourceText]
  private(set) var diagnostics: [Diagnostic] = []
  private var leftOut = 0
  private(set) var errorCount = 0
  /// One a file.
  private var cursors: [SourceText.ColumnCursor]

  init(texts: [SourceText]) {
    self.texts = texts
    cursors = Array(repeating: .init(), count: texts.count)
  }

  var hasErrors: Bool { errorCount > 0 }

  /// A name for a hint; none once there is no room for it, as looking for one costs time.
  func closest(to word: String, among candidates: some Sequence<String>) -> String? {
    diagnostics.count < Self.diagnosticsMax ? RuleLang.closest(to: word, among: candidates) : nil
  }

  func place(_ range: TextRange) -> SourceRange {
    texts[Int(range.file)].place(range, from: &cursors[Int(range.file)])
  }

  func report(
    _ code: DiagnosticCode, _ message: String, at range: TextRange, _ label: String = "",
    context: [(TextRange, String)] = [], hint: String? = nil
  ) {
    if code.severity == .error { errorCount += 1 }
    guard diagnostics.count < Self.diagnosticsMax else {
      leftOut += 1
      return
    }
    diagnostics.append(
      Diagnostic(
        code, message, primary: .init(place(range), label),
        context: context.map { .init(place($0.0), $0.1) }, hint: hint))
  }

  /// Everything reported, by file and place; what was found at one place in the order it was found.
  func finish() -> [Diagnostic] {
    var fileOrder: [String: Int] = [:]
    for (index, text) in texts.enumerated() where fileOrder[text.path] == nil {
      fileOrder[text.path] = index
    }
    func key(_ found: (offset: Int, element: Diagnostic)) -> (Int, Int, Int) {
      let range = found.element.primary.range
      return (fileOrder[range.file] ?? 0, range.start, found.offset)
    }
    var sorted = diagnostics.enumerated().sorted { key($0) < key($1) }.map(\.element)
    if leftOut > 0, let last = sorted.last {
      sorted.append(
        Diagnostic(
          .tooManyDiagnostics, "\(leftOut) more diagnostics are left out",
          primary: .init(last.primary.range, "the last one shown"),
          hint: "mend the first ones; the rest often go with them"))
    }
    return sorted
  }
}
