import Foundation
import RuleLang
import Testing

@Suite struct DiagnosticTests {
  @Test func codesAreUniqueAndWellFormed() {
    let codes = DiagnosticCode.allCases.map(\.rawValue)
    #expect(Set(codes).count == codes.count)
    for code in DiagnosticCode.allCases {
      #expect(code.rawValue.count == 5)
      #expect(code.rawValue.hasPrefix(code.severity == .error ? "E" : "W"))
      #expect(!code.title.isEmpty && !code.title.hasSuffix("."))
      #expect(code.explanation.hasSuffix("."))
    }
  }

  /// Every code that rules can cause is in some case; the first four belong to files, and have
  /// tests of their own.
  @Test func everyCodeHasACase() throws {
    // While another test rewrites the cases they may be empty.
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil { return }
    let text = try files(in: "Cases", ending: "case")
      .map { try String(contentsOf: $0, encoding: .utf8) }.joined()
    for code in DiagnosticCode.allCases where !code.rawValue.hasPrefix("E000") {
      #expect(text.contains("[\(code.rawValue)]"), "no case shows \(code)")
    }
  }

  /// A commit has room for so many event times of joins and of alerts that come together; groups of the same sources share one.
  @Test func sourcesComeTogetherInSoManyWays() {
    func rules(_ pairs: ArraySlice<(Int, Int)>) -> String {
      var text = ""
      for source in 0..<12 {
        text += "source s\(source) { time ts fields { ts: timestamp(ms) } }\n"
        text += "stream m\(source) = s\(source) | window tumbling 1m | aggregate n = count()\n"
      }
      for (number, pair) in pairs.enumerated() {
        text += "alert A\(number) { on m\(pair.0) when n > \(number) }\nalert B\(number) { on m\(pair.1) when n > \(number) }\n"
        text += "group G\(number) { alerts A\(number), B\(number) }\n"
      }
      return text
    }
    let pairs = (0..<12).flatMap { a in (a + 1..<12).map { (a, $0) } }
    #expect(compile(rules(pairs[..<64])).program != nil)
    #expect(compile(rules((pairs[..<64] + pairs[..<10])[...])).program != nil)
    let report = rendered(rules(pairs[..<65]))
    #expect(report.contains("error[E0510]: alerts of different sources come together in 65 ways"), "\(report)")
  }

  /// The marker `^` in the line below says where the label must land, counted in characters.
  @Test(arguments: [
    ("let a = 5 parsecs\n          ^", "\n"),
    ("let ä\n    ^", "\n"),
    ("let a = \"äöü\" + b\n                ^", "\n"),
    ("let a = \"日本😀\" + b\n                ^", "\r\n"),
    ("let\ta = b\n        ^", "\n"),
    ("# é\nlet a = b\n        ^", "\r\n"),
  ])
  func labelsLandOnTheirMarks(_ text: String, _ lineEnd: String) throws {
    var lines = text.components(separatedBy: "\n")
    let marker = lines.removeLast()
    let column = try #require(marker.firstIndex(of: "^")).utf16Offset(in: marker)
    let result = compile(lines.joined(separator: lineEnd) + lineEnd)
    let range = try #require(result.diagnostics.first).primary.range
    #expect(range.line == lines.count)
    #expect(range.column == column + 1)
  }

  @Test func caretsStandUnderWideCharactersAndTabs() {
    let text = rendered("let\ta = \"日本\" + b\n")
    #expect(text.contains("1 | let    a = \"日本\" + b\n"))
    #expect(text.contains("  |                     ^ a constant is needed here\n"))
  }

  @Test func controlCharactersDoNotReachTheTerminal() {
    let text = rendered("let a = \"\u{1B}[31m\" + b\u{7}\n")
    #expect(!text.contains("\u{1B}") && !text.contains("\u{7}"))
  }

  @Test func longLinesAreCutAroundTheLabel() {
    let text = rendered("let a = \"\(String(repeating: "x", count: 5_000))\" + b\n")
    let lines = text.split(separator: "\n")
    #expect(lines.allSatisfy { $0.count < 220 })
    let source = lines[3]
    let carets = lines[4]
    let column = carets.firstIndex(of: "^").map { carets.distance(from: carets.startIndex, to: $0) }
    #expect(column.map { source[source.index(source.startIndex, offsetBy: $0)] } == "b")
  }

  @Test func colour() {
    let file = SourceFile(path: "a.rules", text: "let a = b")
    let diagnostics = compileRules([file], catalog: testCatalog).diagnostics
    let plain = DiagnosticTextRenderer(files: [file]).render(diagnostics)
    let colored = DiagnosticTextRenderer(files: [file], useColor: true).render(diagnostics)
    #expect(colored.contains("\u{1B}[1;31merror[E0203]"))
    #expect(
      colored.replacingOccurrences(of: "\u{1B}\\[[0-9;]*m", with: "", options: .regularExpression)
        == plain)
  }

  @Test func json() throws {
    let result = compile("let a = \"q\\\"\" + b\nlet a = 3\n", path: "dir/\"a\".rules")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(result.diagnostics[1].json.utf8))
        as? [String: Any])
    #expect(object["code"] as? String == "E0201")
    #expect(object["severity"] as? String == "error")
    #expect(object["file"] as? String == "dir/\"a\".rules")
    #expect(object["line"] as? Int == 2)
    #expect(object["column"] as? Int == 5)
    let context = try #require(object["context"] as? [[String: Any]])
    #expect(context.first?["line"] as? Int == 1)
    for diagnostic in result.diagnostics { #expect(!diagnostic.json.contains("\n")) }
  }

  @Test func github() throws {
    let result = compile("let ok = 100% + lat\n", path: "rules/a,b:c.rules")
    let line = try #require(result.diagnostics.first).github
    #expect(
      line == "::error file=rules/a%2Cb%3Ac.rules,line=1,col=17,title=E0203%3A a field is unknown"
        + "::unknown constant `lat`%0Aa constant is needed here%0A"
        + "hint: literals and `let` names are constants")
  }

  @Test func filesFormOneProgram() {
    let a = SourceFile(
      path: "a.rules",
      text: "let limit = 3\nsource r { time ts fields { ts: timestamp(ms), n: int } }\nstream s = t")
    let b = SourceFile(
      path: "b.rules",
      text: "stream t = r where n > limit | window tumbling 1m | aggregate m = sum(n)\nmetric m = s.m")
    let good = compileRules([a, b], catalog: testCatalog)
    #expect(good.diagnostics.isEmpty)
    #expect(good.program?.streams.map(\.name) == ["t", "s"])
    #expect(good.program?.streams[1].input == .stream(0))
    let c = SourceFile(path: "c.rules", text: "\nstream s = r where n > 1")
    let bad = compileRules([a, b, c], catalog: testCatalog)
    #expect(bad.program == nil)
    #expect(bad.diagnostics.map(\.code) == [.duplicateName])
    #expect(bad.diagnostics.first?.primary.range.file == "c.rules")
    #expect(bad.diagnostics.first?.context.first?.range.file == "a.rules")
    let text = DiagnosticTextRenderer(files: [a, b, c]).render(bad.diagnostics)
    #expect(text.contains("--> c.rules:2:8") && text.contains("::: a.rules:3:8"))
  }
}
