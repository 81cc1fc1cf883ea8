/// A place in rule text. Lines and columns start at 1; a column counts Unicode scalars.
/// Equality ignores nothing: two ranges are equal when file and offsets are.
public struct SourceRange: Sendable, Hashable {
  public var file: String
  /// UTF-8 offsets into the file, end excluded.
  public var start: Int
  public var end: Int
  public var line: Int
  public var column: Int
  public init(file: String, start: Int, end: Int, line: Int, column: Int) {
    self.file = file
    self.start = start
    self.end = end
    self.line = line
    self.column = column
  }
}
