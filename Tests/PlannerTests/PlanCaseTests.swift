import Foundation
import Planner
import Testing

/// A case is a file: rules, `=== counts` with how many nodes of each kind there must be, then `=== plan` with what
/// `explain` prints. `RULESD_REWRITE_CASES=1 swift test` writes the plans; the counts are written by hand alone.
@Suite struct PlanCaseTests {
  static let folder = testFolder.appendingPathComponent("Cases")
  static let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [])
    .filter { $0.hasSuffix(".case") && !$0.hasPrefix(".") }.sorted()

  @Test(arguments: names) func isPlannedAsItsFileSays(_ name: String) throws {
    let url = Self.folder.appendingPathComponent(name)
    let text = try String(contentsOf: url, encoding: .utf8)
    let sections = text.components(separatedBy: "=== ")
    try #require(sections.count >= 2)
    let explanation = buildPlan(try program(sections[0])).explanation
    var counts = 0
    for line in sections[1].split(separator: "\n").dropFirst() {
      let words = line.split(separator: " ")
      let kind = try #require(Explanation.Kind(rawValue: String(words[0])))
      #expect(explanation.nodes.count { $0.kind == kind } == Int(words[1]), "\(kind) in \(name)")
      counts += 1
    }
    #expect(counts > 0)
    let plan = "plan\n" + explanation.text(.none)
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try (sections[0...1].joined(separator: "=== ") + "=== " + plan)
        .write(to: url, atomically: true, encoding: .utf8)
    } else {
      #expect(sections.dropFirst(2).first == plan)
    }
  }

  @Test func thereAreCases() { #expect(Self.names.count >= 9) }
}
