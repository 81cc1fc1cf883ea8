import Foundation
import RuleLang
import Testing

/// A case is a file: rules, then `=== diagnostics` and what `check` prints of them, then `===
/// program` and the typed program's dump when there are no errors. `RULESD_REWRITE_CASES=1 swift
/// test` writes what is printed now into the files.
@Suite struct CaseTests {
  static let cases = (try? files(in: "Cases", ending: "case").map(\.lastPathComponent)) ?? []

  @Test(arguments: cases) func agreesWithItsFile(_ name: String) throws {
    let url = testFolder.appendingPathComponent("Cases/\(name)")
    let text = try String(contentsOf: url, encoding: .utf8)
    let rules = text.components(separatedBy: "=== ")[0]
    let result = compile(rules)
    var expected = rules
    if !result.diagnostics.isEmpty {
      let file = SourceFile(path: "a.rules", text: rules)
      expected +=
        "=== diagnostics\n"
        + DiagnosticTextRenderer(files: [file]).render(result.diagnostics)
    }
    if let program = result.program {
      #expect(ProgramInvariants.problems(of: program) == [])
      expected += "=== program\n" + program.dump
    }
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try expected.write(to: url, atomically: true, encoding: .utf8)
    } else {
      #expect(text == expected)
    }
  }

  @Test func thereAreCases() { #expect(Self.cases.count > 10) }
}

/// Lines of the list of rules that users want, as complete programs.
@Suite struct WantedRulesTests {
  static let programs = (try? files(in: "Wanted", ending: "rules").map(\.lastPathComponent)) ?? []

  @Test(arguments: programs) func compilesWithoutAnyDiagnostic(_ name: String) throws {
    let text = try String(
      contentsOf: testFolder.appendingPathComponent("Wanted/\(name)"), encoding: .utf8)
    #expect(rendered(text, path: name, catalog: productCatalog) == "")
    let file = SourceFile(path: name, text: text)
    let program = try #require(compileRules([file], catalog: productCatalog).program)
    #expect(ProgramInvariants.problems(of: program) == [])
    #expect(!program.alerts.isEmpty || !program.metrics.isEmpty)
  }

  @Test func thereArePrograms() { #expect(Self.programs.count == 6) }
}
