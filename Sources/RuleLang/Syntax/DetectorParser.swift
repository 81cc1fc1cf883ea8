import Catalog

/// `zscore p99 by service baseline 60 windows threshold 3 direction up`: which options there are, the catalog says.
extension Parser {
  private static let rowUnits: Set<String> = ["windows", "rows", "samples"]

  mutating func detector(_ spec: DetectorSpec) throws(SyntaxFailure) -> DetectorSyntax {
    var stage = DetectorSyntax(
      range: currentRange, name: NameSyntax(text: text(current), range: currentRange))
    let start = currentRange
    advance()
    if spec.takesColumn {
      if isAtDeclaration { throw unexpected("a column of numbers", hint: "a stage reads `\(spec.example)`") }
      if kind == .identifier, spec.option(text(current)) != nil || keyword == .by || text(current) == "members" {
        throw unexpected("a column of numbers", hint: "a stage reads `\(spec.example)`")
      }
      stage.argument = try name("a column of numbers")
    }
    var seen: Set<String> = []
    while kind == .identifier, !isAtDeclaration {
      let option = NameSyntax(text: text(current), range: currentRange)
      guard isKnown(option.text, spec) else { throw unknown(option, stageOptions(spec), spec) }
      guard seen.insert(option.text).inserted else { throw twice(option) }
      advance()
      switch option.text {
      case "by": stage.keys = try names("a key column")
      case "prefix": stage.prefix = try name("the beginning of the added columns' names")
      case "limit":
        stage.limit = try expression()
        guard kind == .identifier, text(current) == "series" else {
          throw unexpected("`series`", hint: "a limit reads `limit 10000 series`")
        }
        advance()
      case "members" where spec.takesMembers: stage.members = try members(spec)
      default:
        guard let known = spec.option(option.text) else { throw unknown(option, stageOptions(spec), spec) }
        stage.options.append(DetectorOptionSyntax(name: option, value: try value(of: known)))
      }
    }
    stage.range = range(from: start)
    return stage
  }

  private func isKnown(_ word: String, _ spec: DetectorSpec) -> Bool {
    ["by", "prefix", "limit"].contains(word) || word == "members" && spec.takesMembers || spec.option(word) != nil
  }

  private func stageOptions(_ spec: DetectorSpec) -> [String] {
    ["by"] + spec.options.map(\.name) + (spec.takesMembers ? ["members"] : []) + ["limit", "prefix"]
  }

  private func unknown(_ option: NameSyntax, _ known: [String], _ spec: DetectorSpec) -> SyntaxFailure {
    let meant = closest(to: option.text, among: known)
    return fail(
      .unknownItem, "`\(spec.name)` has no option `\(option.text)`", at: option.range,
      hint: meant.map { "did you mean `\($0)`?" } ?? "options: \(known.joined(separator: ", "))")
  }

  private func twice(_ option: NameSyntax) -> SyntaxFailure {
    fail(.duplicateItem, "`\(option.text)` is given twice", at: option.range, hint: "leave one out")
  }

  private mutating func value(of option: DetectorOption) throws(SyntaxFailure) -> DetectorOptionSyntax.Value {
    switch option.kind {
    case .word: return .word(try name("a word"))
    case .number, .duration, .value: return .constant(try expression())
    case .rows, .memory:
      if kind == .identifier, text(current) == "none" || text(current) == "all" { return .word(try name("a word")) }
      var isHalfLife = false
      if case .memory = option.kind, kind == .identifier, text(current) == "half_life" {
        isHalfLife = true
        advance()
      }
      let count = try expression()
      if kind == .identifier, Self.rowUnits.contains(text(current)) { advance() }
      return isHalfLife ? .halfLife(count) : .constant(count)
    }
  }

  /// `{ level, daily: season hour_of_day min_samples 12, jump: input difference }`
  private mutating func members(
    _ spec: DetectorSpec
  ) throws(SyntaxFailure) -> [(name: NameSyntax, options: [DetectorOptionSyntax])] {
    var members: [(name: NameSyntax, options: [DetectorOptionSyntax])] = []
    let known = spec.options.filter(\.isMember)
    try expect(.leftBrace, "`{`", hint: "members { level, daily: season hour_of_day, jump: input difference }")
    while kind != .rightBrace {
      let member = try name("the member's name")
      var options: [DetectorOptionSyntax] = []
      if take(.colon) {
        while kind == .identifier {
          let word = NameSyntax(text: text(current), range: currentRange)
          guard let option = known.first(where: { $0.name == word.text }) else {
            throw unknown(word, known.map(\.name), spec)
          }
          guard !options.contains(where: { $0.name.text == word.text }) else { throw twice(word) }
          advance()
          options.append(DetectorOptionSyntax(name: word, value: try value(of: option)))
        }
      }
      members.append((member, options))
      if !take(.comma) { break }
    }
    try expect(.rightBrace, "`,` or `}`")
    return members
  }
}
