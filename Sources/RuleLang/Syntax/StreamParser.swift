/// Pipelines: an input, then stages.
extension Parser {
  mutating func stream() throws(SyntaxFailure) -> StreamSyntax {
    var declaration = StreamSyntax(name: try name("the stream's name"))
    do throws(SyntaxFailure) {
      try expect(.equal, "`=`")
      declaration.input = try name("a source or stream")
    } catch {
      skipStage()
    }
    if keyword == .where {
      declaration.stages.append(stage())
    }
    while true {
      if take(.pipe) {
        declaration.stages.append(stage())
      } else if isAtEnd || isAtDeclaration {
        return declaration
      } else if kind == .identifier, Self.stageWords.contains(keyword) || isDetector {
        reporter.report(
          .syntax, "expected `|` before `\(text(current))`", at: currentRange,
          "a stage begins with `|`")
        declaration.stages.append(stage())
      } else {
        _ = unexpected(
          "`|` or a declaration",
          hint: keyword.isDeclaration ? "a declaration begins on a line of its own" : nil)
        declaration.stages.append(.broken)
        skipStage()
      }
    }
  }

  private static let stageWords: Set<Keyword> = [
    .where, .derive, .window, .aggregate, .cluster, .join, .left, .unless, .trace, .edges,
  ]
  /// Stages of the language that this version does not have.
  private static let laterStages: Set<String> = [
    "dedupe", "sequence", "topk", "session", "rate_of_change", "histogram", "sample", "redact", "lookup", "union",
  ]

  private var stageList: String {
    (["where", "derive", "window", "aggregate", "cluster", "join", "left join", "unless", "trace", "edges"] + detectors.map(\.name)).joined(separator: ", ")
  }

  /// Whether a detector's stage begins here. Its name may be a column's elsewhere.
  private var isDetector: Bool { detectors.contains { $0.name == text(current) } }

  private mutating func stage() -> StageSyntax {
    do throws(SyntaxFailure) {
      return try knownStage()
    } catch {
      skipStage()
      return .broken
    }
  }

  private mutating func knownStage() throws(SyntaxFailure) -> StageSyntax {
    guard kind == .identifier else {
      throw unexpected("a stage", hint: "stages: \(stageList)")
    }
    let start = currentRange
    switch keyword {
    case .where:
      advance()
      return .filter(try expression())
    case .derive:
      advance()
      return .derive(try assignments())
    case .aggregate:
      advance()
      return .aggregate(try assignments(), range: start)
    case .window:
      advance()
      return .window(try window(start))
    case .cluster:
      advance()
      return .cluster(try cluster(start))
    case .join:
      advance()
      return .join(try join(start, .inner))
    case .left:
      advance()
      guard take(.join) else { throw unexpected("`join`", hint: "write `left join`") }
      return .join(try join(start, .left))
    case .unless:
      advance()
      return .join(try join(start, .unless))
    case .trace, .edges:
      let isEdges = keyword == .edges
      advance()
      return .trace(try trace(start, isEdges: isEdges))
    default:
      let word = text(current)
      if let spec = detectors.first(where: { $0.name == word }) { return .detector(try detector(spec)) }
      if Self.laterStages.contains(word) {
        throw fail(
          .notInThisVersion, "this version has no `\(word)` stage", at: start,
          hint: "stages: \(stageList)")
      }
      let meant = closest(
        to: word, among: Self.stageWords.map(\.rawValue) + Self.laterStages + detectors.map(\.name))
      throw fail(
        .unknownStage, "unknown stage `\(word)`", at: start,
        hint: meant.map { "did you mean `\($0)`?" } ?? stageHint(word))
    }
  }

  private func stageHint(_ word: String) -> String {
    switch word {
    case "filter", "having": "rows are chosen with `where`"
    case "select", "map", "let", "extend", "eval", "project": "columns are added with `derive`"
    case "group", "by", "summarize", "stats":
      "grouping is `| window tumbling 1m by key | aggregate n = count()`"
    default: "stages: \(stageList)"
    }
  }

  private mutating func assignments() throws(SyntaxFailure) -> [AssignmentSyntax] {
    var list: [AssignmentSyntax] = []
    repeat {
      // A comma may stand behind the last one.
      if !list.isEmpty, kind == .pipe || isAtEnd || isAtDeclaration { break }
      if kind == .identifier, ahead(1).kind == .leftParen {
        throw fail(
          .syntax, "this value has no name", at: currentRange, "expected `name =`",
          hint: "write `name = \(text(current))(…)`")
      }
      let name = try name("a column name")
      try expect(.equal, "`=`", hint: "columns are named: `name = expression`")
      list.append(AssignmentSyntax(name: name, value: try expression()))
    } while take(.comma)
    return list
  }

  private mutating func window(_ start: TextRange) throws(SyntaxFailure) -> WindowSyntax {
    var window: WindowSyntax
    switch keyword {
    case .tumbling:
      advance()
      window = WindowSyntax(range: start, size: try expression())
      if keyword == .every {
        throw fail(
          .syntax, "a tumbling window has no `every`", at: currentRange,
          hint: "windows that overlap are `window hopping 1h every 1m`")
      }
    case .hopping:
      advance()
      window = WindowSyntax(range: start, size: try expression())
      guard take(.every) else {
        throw unexpected("`every`", hint: "a hopping window says how often: `hopping 1h every 1m`")
      }
      window.hop = try expression()
    default:
      if kind == .identifier, text(current) == "session" || text(current) == "sliding" {
        throw fail(
          .notInThisVersion, "this version has no \(text(current)) windows", at: currentRange,
          hint: "tumbling and hopping windows are there")
      }
      throw unexpected(
        "`tumbling` or `hopping`",
        hint: kind == .number ? "write `window tumbling \(text(current))`" : nil)
    }
    window.range = range(from: start)
    if take(.by) {
      window.keys = try qualifiedNames("a key column")
      if kind == .leftParen {
        throw fail(
          .syntax, "a key is a column, not an expression", at: currentRange,
          hint: "name the expression first: `| derive key = …`")
      }
    }
    if take(.limit) {
      window.keyLimit = try expression()
      guard kind == .identifier, text(current) == "keys" else {
        throw unexpected("`keys`", hint: "a limit reads `limit 10000 keys`")
      }
      advance()
    }
    return window
  }
}
