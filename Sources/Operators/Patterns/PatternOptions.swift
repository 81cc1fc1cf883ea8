/// A pattern of the user's own (PCRE2) whose matches are values, with the name that parameters show.
public struct PatternMask: Sendable, Hashable {
  public var name: String
  public var pattern: String
  public init(name: String, pattern: String) {
    self.name = name
    self.pattern = pattern
  }
}

/// How lines are put into patterns. The defaults are one setting for logs of all kinds (docs/patterns.md, "Quality").
public struct PatternOptions: Sendable, Hashable {
  /// Share of a pattern's words that a line must have in the same places to belong to it, 0.1 to 1; a name that differs
  /// counts for four fifths of a word that is the same.
  public var similarity = 0.95
  /// Tokens from the start that must be equal, besides the number of tokens, 0 to 8.
  public var depth = 1
  /// Most patterns kept for one key; the one that has been matched longest ago goes first. At most 1,000,000.
  public var limit = 10_000
  /// Patterns that differ in one word only, and in the same one, before that word is taken for a value. 0: never.
  public var siblings = 10
  /// The user's masks, applied in this order, before anything else is recognised. At most 32.
  public var masks: [PatternMask] = []
  /// ASCII characters that end a word wherever they stand.
  public var delimiters = ""
  /// Whether values with nothing but spaces and commas between them are one value.
  public var mergesRuns = true

  public init() {}

  public static let similarityRange = 0.1...1.0
  public static let depthRange = 0...8
  public static let limitRange = 1...1_000_000
  public static let masksMax = 32

  /// Hash of everything that decides what a line's pattern is: state of one setting is of no use to another.
  public var fingerprint: UInt64 {
    var text = "\(similarity) \(depth) \(limit) \(siblings) \(mergesRuns) \(delimiters.utf8.count) \(delimiters)"
    for mask in masks { text += " \(mask.name.utf8.count) \(mask.name) \(mask.pattern.utf8.count) \(mask.pattern)" }
    return PatternHash.of(Array(text.utf8))
  }
}
