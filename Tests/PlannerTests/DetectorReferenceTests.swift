import Catalog
import Foundation
import Operators
import RuleLang
import Testing

/// The tables of detectors in docs/language.md are printed from their specs; `RULESD_REWRITE_CASES=1 swift test` writes them.
@Suite struct DetectorReferenceTests {
  private static let page = testFolder.appendingPathComponent("../../docs/language.md")

  @Test func tablesAreThoseOfTheSpecs() throws {
    let text = try String(contentsOf: Self.page, encoding: .utf8)
    let begin = try #require(text.range(of: "<!-- detectors:begin -->\n"))
    let end = try #require(text.range(of: "<!-- detectors:end -->"))
    let expected = text[..<begin.upperBound] + Self.tables + text[end.lowerBound...]
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try expected.write(to: Self.page, atomically: true, encoding: .utf8)
    } else {
      #expect(text == expected)
    }
  }

  private static var tables: String {
    makeCatalog(formats: []).detectors.map { spec in
      var text = "\n### `\(spec.name)`\n\n\(spec.summary) `\(spec.example)`\n\n| column | |\n|---|---|\n"
      for column in spec.columns { text += row(["`\(column.name)`", column.summary]) }
      text += "\n| option | takes | when left out | |\n|---|---|---|---|\n"
      for option in spec.options {
        text += row([
          "`\(option.name)`\(option.isMember ? " (member)" : "")", option.kind.text,
          option.defaultValue.map { "`\($0.ruleText)`" } ?? "must be given", option.summary,
        ])
      }
      if spec.takesMembers {
        text += row(["`members`", "`{ name: option value …, … }`", "", "scores with options of their own; the largest counts"])
      }
      return text
    }.joined() + "\n"
  }

  private static func row(_ cells: [String]) -> String {
    "| \(cells.map { $0.replacingOccurrences(of: "|", with: "\\|") }.joined(separator: " | ")) |\n"
  }
}
