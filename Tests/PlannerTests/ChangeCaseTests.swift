import Foundation
import Planner
import RuleLang
import Runtime
import Testing

/// A case is a file: rules, `=== after` with what takes their place, `=== fates` with what must become of rules and state,
/// written by hand, then `=== plan` with what `rulesd plan` prints. `RULESD_REWRITE_CASES=1 swift test` writes the plans.
/// They hold operator ids, so a hash that differed from run to run or from machine to machine would show.
@Suite struct ChangeCaseTests {
  static let folder = testFolder.appendingPathComponent("Changes")
  static let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [])
    .filter { $0.hasSuffix(".case") && !$0.hasPrefix(".") }.sorted()

  struct Case {
    var url: URL
    var sections: [String]
    var old: TypedProgram
    var new: TypedProgram

    init(_ name: String) throws {
      url = ChangeCaseTests.folder.appendingPathComponent(name)
      sections = try String(contentsOf: url, encoding: .utf8).components(separatedBy: "=== ")
      try #require(sections.count >= 3)
      old = try program(sections[0])
      new = try program(String(sections[1].dropFirst("after\n".count)))
    }
  }

  @Test(arguments: names) func isWhatItsFileSays(_ name: String) throws {
    let given = try Case(name)
    let change = RuleSetChange(from: given.old, to: given.new)
    var operators: [String: Int] = [:]
    for part in change.operators { operators[part.fate.rawValue, default: 0] += 1 }
    var rules: [String: Set<String>] = [:]
    for rule in change.rules { rules[rule.fate.rawValue, default: []].insert(rule.name) }
    var expectedOperators: [String: Int] = [:]
    var expectedRules: [String: Set<String>] = [:]
    var lost: Set<String>?
    for line in given.sections[2].split(separator: "\n").dropFirst() {
      let words = line.split(separator: " ", maxSplits: 1).map(String.init)
      let names = Set(words[1].split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) })
      if words[0] == "lost" {
        lost = names == ["none"] ? [] : names
      } else if let count = Int(words[1]) {
        expectedOperators[words[0]] = count
      } else {
        expectedRules[words[0]] = names
      }
    }
    #expect(operators == expectedOperators)
    #expect(rules == expectedRules)
    #expect(Set(change.operators.flatMap(\.losers)) == lost)
    #expect(change.losesState == (lost?.isEmpty == false))
    let plan = "plan\n" + change.text
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try (given.sections[0...2].joined(separator: "=== ") + "=== " + plan)
        .write(to: given.url, atomically: true, encoding: .utf8)
    } else {
      #expect(given.sections.dropFirst(3).first == plan)
    }
  }

  /// What holds of every change, whatever it is; in both directions.
  @Test(arguments: names) func agreesWithTheGraphs(_ name: String) throws {
    let given = try Case(name)
    for (old, new) in [(given.old, given.new), (given.new, given.old), (given.old, given.old)] {
      let change = RuleSetChange(from: old, to: new)
      let before = Dictionary(uniqueKeysWithValues: buildPlan(old).lower().operators.map { ($0.id, $0) })
      let after = Dictionary(uniqueKeysWithValues: buildPlan(new).lower().operators.map { ($0.id, $0) })
      for part in change.operators {
        switch part.fate {
        case .kept, .partlyKept: #expect(before[part.id] != nil && after[part.id] != nil)
        case .rebuilt:
          #expect(before[part.id] == nil && after[part.id] != nil)
          #expect(part.replaces.map { before[$0] != nil } == true && !part.reasons.isEmpty)
        case .new: #expect(before[part.id] == nil && after[part.id] != nil)
        case .dropped: #expect(before[part.id] != nil && after[part.id] == nil)
        }
        #expect(part.rules == (after[part.id] ?? before[part.id])?.rules)
        #expect(part.kind == (after[part.id] ?? before[part.id])?.kind)
      }
      // Each operator of either side is spoken of, and once.
      let told = change.operators.map(\.id) + change.operators.compactMap(\.replaces)
      #expect(Set(told) == Set(before.keys).union(after.keys))
      #expect(Set(change.operators.map(\.id)).count == change.operators.count)
      if old == new {
        #expect(change.operators.allSatisfy { $0.fate == .kept } && !change.losesState)
        #expect(change.rules.allSatisfy { $0.fate == .unchanged })
        #expect(change.sources.allSatisfy { $0.fate == .unchanged })
      }
    }
  }

  @Test(arguments: names) func jsonSaysTheSame(_ name: String) throws {
    let given = try Case(name)
    let change = RuleSetChange(from: given.old, to: given.new)
    let object = try #require(try JSONSerialization.jsonObject(with: Data(change.json.utf8)) as? [String: Any])
    #expect(object["loses_state"] as? Bool == change.losesState)
    let operators = try #require(object["operators"] as? [[String: Any]])
    #expect(operators.map { $0["id"] as? String } == change.operators.map(\.id))
    #expect(operators.map { $0["state"] as? String } == change.operators.map(\.fate.rawValue))
    let rules = try #require(object["rules"] as? [[String: Any]])
    #expect(rules.map { $0["change"] as? String } == change.rules.map(\.fate.rawValue))
    let sources = try #require(object["sources"] as? [[String: Any]])
    #expect(sources.map { $0["name"] as? String } == change.sources.map(\.name))
    let page = try String(
      contentsOf: testFolder.appendingPathComponent("../../docs/operations.md"), encoding: .utf8)
    var members = Set(object.keys)
    for entry in operators + rules + sources { members.formUnion(entry.keys) }
    for window in operators.flatMap({ $0["windows"] as? [[String: Any]] ?? [] }) { members.formUnion(window.keys) }
    let unnamed = members.filter { !page.contains("`\($0)`") }
    #expect(unnamed.isEmpty, "docs/operations.md does not name them")
  }

  @Test func thereAreCases() { #expect(Self.names.count >= 34) }
}
