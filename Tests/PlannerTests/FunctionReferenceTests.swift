import Catalog
import Foundation
import Operators
import RuleLang
import Testing

/// The catalog is what users read: its tables stand in docs/language.md, and every example in it runs.
@Suite struct FunctionReferenceTests {
  private static let catalog = makeCatalog(formats: [])

  /// The fields that examples use; they are those of the reference page's fragments.
  private static let source = """
    source requests {
      time ts  watermark 0s
      fields {
        ts: timestamp(ms), service: string, status: int, latency: duration(ms), trace_id: string?,
        relevance: float?, route: string, retries: int = 0, size: bytes
      }
    }

    """

  private static let rows: [MemoryReader.Row] = (0..<10).map(row)

  private static func row(_ number: Int64) -> MemoryReader.Row {
    var row: MemoryReader.Row = [:]
    row["ts"] = .timestamp(1_800_000_000_000_000_000 + number * 1_000_000_000)
    row["service"] = .string("search-api")
    row["status"] = .int(number % 2 == 0 ? 200 : 500)
    row["latency"] = .duration(Double(number + 1) * 1e8)
    row["trace_id"] = .string("t\(number)")
    row["relevance"] = .float(0.5)
    row["route"] = .string("/api/search")
    row["retries"] = .int(number)
    row["size"] = .bytes(1_000)
    return row
  }

  /// Whether the column `value` of a stream's rows is not null.
  private func isPresent(_ stages: String) throws -> Bool {
    let lines = try output(
      "\(Self.source)stream s = requests\n\(stages)\nmetric present = s.present\n", [Self.rows])
    return lines.count == 1 && lines[0].contains("\"values\":{\"value\":1}")
  }

  @Test(arguments: catalog.scalarFunctions.map(\.name)) func scalarExampleRuns(_ name: String) throws {
    let spec = try #require(Self.catalog.scalarFunction(name))
    #expect(!spec.summary.isEmpty && spec.example.hasPrefix("\(name)("))
    let stages = """
        | derive value = \(spec.example) | derive flag = if(value is null, 0, 1)
        | window tumbling 1m | aggregate present = min(flag)
      """
    #expect(try isPresent(stages))
  }

  @Test(arguments: catalog.aggregateFunctions.map(\.name)) func aggregateExampleRuns(_ name: String) throws {
    let spec = try #require(Self.catalog.aggregateFunction(name))
    #expect(!spec.summary.isEmpty && !spec.state.isEmpty && spec.example.hasPrefix("\(name)("))
    let stages = """
        | window tumbling 1m | aggregate value = \(spec.example)
        | derive present = if(value is null, 0, 1)
      """
    #expect(try isPresent(stages))
  }

  /// `RULESD_REWRITE_CASES=1 swift test` writes the tables.
  @Test func tablesAreThoseOfTheCatalog() throws { try expectTables("functions", Self.tables) }

  private static var tables: String {
    var text = "\nOf the values of one row; unless it says otherwise, the result is null where an argument is:\n\n"
    text += "| function | result | example |\n|---|---|---|\n"
    for spec in catalog.scalarFunctions {
      var names = spec.parameters.enumerated().map { index, name in
        index >= spec.parameters.count - spec.optionalParameters ? "\(name)?" : name
      }
      if spec.isVariadic { names.append("…") }
      text += tableRow(["`\(spec.name)(\(names.joined(separator: ", ")))`", spec.summary, "`\(spec.example)`"])
    }
    text += "\nAggregates, of the rows of a window with the same keys; rows whose value is null do not count:\n\n"
    text += "| function | result | state | example |\n|---|---|---|---|\n"
    for spec in catalog.aggregateFunctions {
      let names = (spec.takesValue ? ["x"] : []) + spec.constants
      text += tableRow([
        "`\(spec.name)(\(names.joined(separator: ", ")))`", spec.summary, spec.state,
        "`\(spec.example)`",
      ])
    }
    return text + "\n"
  }
}

/// `matches(text, pattern)`
@Suite struct MatchesTests {
  private static let source = """
    source logs { time ts  watermark 0s  fields { ts: timestamp(ms), line: string?, n: int } }

    """

  /// For each text whether the pattern matches it: 1, 0, or nil for null. The pattern is written as in a rule.
  private func matches(_ pattern: String, _ texts: [String?]) throws -> [Int?] {
    let rules = """
      \(Self.source)stream s = logs | derive found = matches(line, \(pattern))
        | window tumbling 1s by n
        | aggregate yes = count(where found), no = count(where not found)
        | derive answer = if(yes + no == 0, -1, yes)
      metric answer = s.answer
      """
    let rows = texts.enumerated().map { number, text -> MemoryReader.Row in
      let time = 1_800_000_000_000_000_000 + Int64(number) * 1_000_000_000
      let line: Value = text.map { .string($0) } ?? .null
      return ["ts": .timestamp(time), "line": line, "n": .int(Int64(number))]
    }
    return try output(rules, [rows]).map { line in
      let tail = try #require(line.components(separatedBy: "\"value\":").last)
      let number = try #require(Int(tail.prefix { $0 == "-" || $0.isNumber }))
      return number < 0 ? nil : number
    }
  }

  @Test(arguments: [
    (#""timeout""#, ["a timeout", "TIMEOUT", "", nil], [1, 0, 0, nil]),
    (#""(?i)^timeout$""#, ["timeout", "Timeout", "a timeout"], [1, 1, 0]),
    (#""^search-(api|web)$""#, ["search-api", "search-apis", "x search-web"], [1, 0, 0]),
    (#""\\d+ms""#, ["took 12ms", "took ms"], [1, 0]),
    (#""^.$""#, ["ü", "üü", "😀", ""], [1, 0, 1, 0]),
    (#""""#, ["", "anything", nil], [1, 1, nil]),
    (#""^$""#, ["", "x"], [1, 0]),
  ] as [(String, [String?], [Int?])])
  func finds(_ pattern: String, _ texts: [String?], _ expected: [Int?]) throws {
    #expect(try matches(pattern, texts) == expected)
  }

  /// A pattern that would try for ages is given up, for that row alone.
  @Test func aSearchEnds() throws {
    let hard = String(repeating: "a", count: 60) + "b"
    #expect(try matches(#""^(a|aa|a?)+$""#, [hard, "aaa", hard, "b"]) == [nil, 1, nil, 0])
  }

  @Test(arguments: [
    (#""a(b""#, "missing closing parenthesis"), (#""[z-a]""#, "range out of order"),
    (#""\\C""#, "using \\C is disabled"), ("status", "is a constant"), ("5", "takes strings"),
  ])
  func aBadPatternIsADiagnostic(_ pattern: String, _ message: String) {
    let text = """
      source logs { time ts  fields { ts: timestamp(ms), line: string, status: string } }
      stream s = logs where matches(line, \(pattern)) | window tumbling 1m | aggregate n = count()
      metric m = s.n
      """
    let file = SourceFile(path: "a.rules", text: text)
    let result = compileRules(
      [file], catalog: makeCatalog(formats: [FormatSpec(name: "json", summary: "")]))
    #expect(result.program == nil)
    let printed = DiagnosticTextRenderer(files: [file]).render(result.diagnostics)
    #expect(printed.contains(message), "\(printed)")
    #expect(printed.contains("a.rules:2:"))
  }
}
