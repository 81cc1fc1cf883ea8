import Foundation
import Runtime
import Testing
import Traffic

@testable import rulesd

@Suite struct ExplainTests {
  private let pack = URL(fileURLWithPath: #filePath)
    .appendingPathComponent("../../../rules/search-quality").standardized.path

  @Test func thePackIsATree() {
    let result = runCaptured(["explain", pack])
    #expect(result.exit == .ok && result.errors == "")
    #expect(result.output.hasPrefix("16 rules over 3 sources: 12 operators, 53 if nothing were shared\n"))
    #expect(result.output.contains("shared by 12 rules: SearchErrorRatioHigh, SearchP99High"))
    #expect(result.output.contains("quantile(latency): up to 16 KiB a key"))
    #expect(result.output.contains("alert SearchP99High when p99 > 2s"))
  }

  @Test func otherFormatsAreForPrograms() throws {
    let json = runCaptured(["explain", "--format", "json", pack])
    let plan = try #require(JSONValue(Array(json.output.trimmingCharacters(in: .newlines).utf8)))
    #expect(plan["rules"] == .number(16))
    let dot = runCaptured(["explain", "--format", "dot", pack])
    #expect(dot.output.hasPrefix("digraph rules {\n") && dot.output.hasSuffix("}\n"))
    #expect(runCaptured(["explain", "--format", "svg", pack]).exit == .usage)
  }

  @Test func rulesWithErrorsAreNotExplained() throws {
    let directory = try TemporaryDirectory()
    try "metric m = nothing.n".write(
      toFile: directory.path("a.rules"), atomically: true, encoding: .utf8)
    let result = runCaptured(["explain", directory.path("a.rules")])
    #expect(result.exit == .refused && result.output == "")
    #expect(result.errors.contains("a.rules:1:12"))
  }

  /// What a person is shown does not grow with the rules.
  @Test func aThousandRulesStayReadable() throws {
    let directory = try TemporaryDirectory()
    try BenchRules.many(1_000).write(
      toFile: directory.path("a.rules"), atomically: true, encoding: .utf8)
    let short = runCaptured(["explain", directory.path("a.rules")]).output
    #expect(short.hasPrefix("1000 rules over 1 source: "))
    #expect(short.split(separator: "\n").count < 600)
    #expect(short.split(separator: "\n").allSatisfy { $0.count < 160 })
    let all = runCaptured(["explain", "--all", directory.path("a.rules")]).output
    #expect(all.components(separatedBy: "metric r").count + all.components(separatedBy: "alert A").count == 1_002)
  }
}
