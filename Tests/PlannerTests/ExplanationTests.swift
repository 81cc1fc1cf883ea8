import Foundation
import Planner
import Testing

/// What holds of every explanation, on the plans of all cases.
@Suite struct ExplanationTests {
  private func explanation(_ name: String) throws -> Explanation {
    let text = try String(
      contentsOf: PlanCaseTests.folder.appendingPathComponent(name), encoding: .utf8)
    return buildPlan(try program(text.components(separatedBy: "=== ")[0])).explanation
  }

  @Test(arguments: PlanCaseTests.names) func inputsComeFirstAndIdsAreUnique(_ name: String) throws {
    var seen: Set<String> = []
    for node in try explanation(name).nodes {
      if let input = node.input { #expect(seen.contains(input), "\(node.id)") }
      #expect(seen.insert(node.id).inserted, "\(node.id)")
      #expect((node.input == nil) == (node.kind == .source))
      #expect(node.kind.isRule == node.rules.isEmpty, "\(node.id)")
    }
  }

  @Test(arguments: PlanCaseTests.names) func jsonHasWhatThePageNames(_ name: String) throws {
    let explanation = try explanation(name)
    let object = try JSONSerialization.jsonObject(with: Data(explanation.json.utf8))
    let plan = try #require(object as? [String: Any])
    let nodes = try #require(plan["nodes"] as? [[String: Any]])
    #expect(nodes.count == explanation.nodes.count)
    #expect(plan["operators"] as? Int == explanation.operatorCount)
    let page = try String(
      contentsOf: testFolder.appendingPathComponent("../../docs/explain.md"), encoding: .utf8)
    for member in Set(nodes.flatMap(\.keys)).union(plan.keys) {
      #expect(page.contains("`\(member)`"), "docs/explain.md does not name \(member)")
    }
  }

  /// Ids must not move when other rules come, nor when columns are renamed.
  @Test func idsStay() throws {
    let source = """
      source requests {
        time ts
        fields { ts: timestamp(ms), service: string, status: int, latency: duration(ms) }
      }

      """
    let before = """
      stream a = requests | derive twice = latency * 2 | where twice > 1s and status >= 500
        | window tumbling 1m by service | aggregate worst = max(twice)
      metric m = a.worst
      """
    let after = """
      stream first = requests | where status == 200 | window tumbling 30s by service | aggregate n = count()
      metric another = first.n
      stream b = requests | derive two = latency * 2 | where status >= 500 and two > 1s
        | window tumbling 1m by service | aggregate top = max(two)
      metric m = b.top
      """
    let old = Set(buildPlan(try program(source + before)).explanation.nodes.map(\.id))
    let new = Set(buildPlan(try program(source + after)).explanation.nodes.map(\.id))
    #expect(old.count == 6)
    #expect(old.isSubset(of: new))
  }

  @Test func dotIsWhatGraphvizReads() throws {
    let graphviz = ["/usr/bin/dot", "/usr/local/bin/dot"].first {
      FileManager.default.isExecutableFile(atPath: $0)
    }
    for name in PlanCaseTests.names {
      let explanation = try explanation(name)
      let text = explanation.dot
      #expect(text.components(separatedBy: " -> ").count - 1 == explanation.nodes.reduce(0) { $0 + ($1.input == nil ? 0 : 1) + $1.otherInputs.count })
      guard let graphviz else { continue }
      let process = Process()
      process.executableURL = URL(fileURLWithPath: graphviz)
      process.arguments = ["-Tplain"]
      let input = Pipe()
      let output = Pipe()
      process.standardInput = input
      process.standardOutput = output
      try process.run()
      try input.fileHandleForWriting.write(contentsOf: Data(text.utf8))
      try input.fileHandleForWriting.close()
      let plain = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      process.waitUntilExit()
      #expect(process.terminationStatus == 0, "\(name)")
      #expect(plain.components(separatedBy: "\nnode ").count - 1 == explanation.nodes.count, "\(name)")
    }
  }

  @Test func aLongListIsCut() throws {
    var rules = """
      source requests { time ts fields { ts: timestamp(ms), service: string, latency: duration(ms) } }

      """
    for number in 0..<200 {
      rules += """
        stream s\(number) = requests | where service == "s\(number)"
          | window tumbling 1m | aggregate n = count()
        metric m\(number) = s\(number).n

        """
    }
    let explanation = buildPlan(try program(rules)).explanation
    let text = explanation.text(explanation.readableLimits)
    #expect(text.contains("dispatch by service: one lookup a row for 200 filters"))
    #expect(text.contains("… and 198 more filters"))
    #expect(text.contains("m102 and 194 more"))
    #expect(text.split(separator: "\n").count < 40)
    #expect(explanation.text(.none).contains("metric m199 = n"))
  }
}
