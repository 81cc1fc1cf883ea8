/// `cluster message by service similarity 0.9 limit 5000 masks { order: "…" } values { client: ip }`
extension Parser {
  private static let clusterNumbers = ["similarity", "depth", "limit", "siblings", "merge_runs"]
  private static let clusterOptions = clusterNumbers + ["delimiters", "masks", "values"]

  mutating func cluster(_ start: TextRange) throws(SyntaxFailure) -> ClusterSyntax {
    var cluster = ClusterSyntax(range: start, message: try name("the column with the message"))
    if take(.by) { cluster.keys = try names("a key column") }
    var seen: Set<String> = []
    while kind == .identifier, !isAtDeclaration {
      let option = NameSyntax(text: text(current), range: currentRange)
      guard Self.clusterOptions.contains(option.text) else {
        let meant = closest(to: option.text, among: Self.clusterOptions)
        throw fail(
          .unknownItem, "`cluster` has no option `\(option.text)`", at: option.range,
          hint: meant.map { "did you mean `\($0)`?" } ?? "options: \(Self.clusterOptions.joined(separator: ", "))")
      }
      guard seen.insert(option.text).inserted else {
        throw fail(.duplicateItem, "`\(option.text)` is given twice", at: option.range, hint: "leave one out")
      }
      advance()
      switch option.text {
      case "delimiters": cluster.delimiters = try string("characters that end a word, such as \"_/\"")
      case "masks": cluster.masks = try masks()
      case "values": cluster.values = try clusterValues()
      default: cluster.numbers.append((option, try expression()))
      }
    }
    cluster.range = range(from: start)
    return cluster
  }

  private mutating func masks() throws(SyntaxFailure) -> [(name: NameSyntax, pattern: TextSyntax)] {
    var masks: [(name: NameSyntax, pattern: TextSyntax)] = []
    try expect(.leftBrace, "`{`", hint: "masks { order: \"ORD-[0-9]+\" }")
    while kind != .rightBrace {
      let name = try name("the mask's name")
      try expect(.colon, "`:`")
      masks.append((name, try string("a pattern in quotes")))
      if !take(.comma) { break }
    }
    try expect(.rightBrace, "`,` or `}`")
    return masks
  }

  private mutating func clusterValues() throws(SyntaxFailure) -> [ClusterValueSyntax] {
    var values: [ClusterValueSyntax] = []
    try expect(.leftBrace, "`{`", hint: "values { client: ip, took: duration }")
    while kind != .rightBrace {
      var value = ClusterValueSyntax(name: try name("a column name"))
      try expect(.colon, "`:`")
      if kind == .identifier { value.mask = try name("a mask") }
      if kind == .number || value.mask == nil { value.number = try expression() }
      values.append(value)
      if !take(.comma) { break }
    }
    try expect(.rightBrace, "`,` or `}`")
    return values
  }

  /// `pattern name = stream`
  mutating func pattern() throws(SyntaxFailure) -> PatternSyntax {
    var declaration = PatternSyntax(name: try name("the pattern rule's name"))
    do throws(SyntaxFailure) {
      try expect(.equal, "`=`")
      declaration.stream = try name("a stream behind `cluster`")
    } catch {
      skipToDeclaration()
    }
    return declaration
  }
}
