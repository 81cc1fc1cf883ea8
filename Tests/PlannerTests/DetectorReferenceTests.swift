import Catalog
import Foundation
import Operators
import RuleLang
import Testing

/// The tables of detectors in docs/language.md are printed from their specs; `RULESD_REWRITE_CASES=1 swift test` writes them.
@Suite struct DetectorReferenceTests {
  @Test func tablesAreThoseOfTheSpecs() throws { try expectTables("detectors", Self.tables) }

  private static var tables: String {
    makeCatalog(formats: []).detectors.map { spec in
      var text = "\n### `\(spec.name)`\n\n\(spec.summary) `\(spec.example)`\n\n| column | |\n|---|---|\n"
      for column in spec.columns { text += tableRow(["`\(column.name)`", column.summary]) }
      text += "\n| option | takes | when left out | |\n|---|---|---|---|\n"
      for option in spec.options {
        text += tableRow([
          "`\(option.name)`\(option.isMember ? " (member)" : "")", option.kind.text,
          option.defaultValue.map { "`\($0.ruleText)`" } ?? "must be given", option.summary,
        ])
      }
      if spec.takesMembers {
        text += tableRow([
          "`members`", "`{ name: option value …, … }`", "", "scores with options of their own; the largest counts",
        ])
      }
      return text
    }.joined() + "\n"
  }
}
