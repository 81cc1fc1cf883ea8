import Foundation
import Testing

@testable import rulesd

/// A case is a file: rules, `=== input SOURCE [PARTITION]` with records, then `=== output` with what
/// `dry-run` writes. `RULESD_REWRITE_CASES=1 swift test` writes what comes out now into the files; a person
/// reads the difference.
struct DryRunCase {
  var rules: String
  var inputs: [(source: String, partition: Int, text: String)] = []
  var output: String?

  init(_ text: String) throws {
    let sections = text.components(separatedBy: "\n=== ")
    rules = sections[0] + "\n"
    for section in sections.dropFirst() {
      let title = section.prefix { $0 != "\n" }
      let body = String(section.dropFirst(title.count + 1))
      let words = title.split(separator: " ")
      switch words.first {
      case "input" where words.count >= 2:
        let partition = words.count > 2 ? try #require(Int(words[2])) : 0
        inputs.append((String(words[1]), partition, body))
      case "output":
        output = body
      default:
        Issue.record("a section named `\(title)`")
      }
    }
  }

  /// What dry-run writes with these workers and batches. The partitions of a source are its files, in their
  /// order.
  func run(workers: Int, batchRows: Int) throws -> String {
    let directory = try TemporaryDirectory()
    try rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    var arguments = [
      "dry-run", directory.path("case.rules"), "--workers", "\(workers)", "--batch-rows", "\(batchRows)",
      "--quiet", "--output", directory.path("output"),
    ]
    for input in inputs.sorted(by: { ($0.source, $0.partition) < ($1.source, $1.partition) }) {
      let name = directory.path("\(input.source)-\(input.partition).jsonl")
      var text = input.text
      if !text.isEmpty, !text.hasSuffix("\n") { text += "\n" }
      try text.write(toFile: name, atomically: true, encoding: .utf8)
      arguments += ["--input", "\(input.source)=\(name)"]
    }
    let result = runCaptured(arguments)
    #expect(result.exit == .ok, "\(result.errors)")
    return try String(contentsOfFile: directory.path("output"), encoding: .utf8)
  }
}

@Suite struct DryRunCaseTests {
  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("Cases")
  static let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [])
    .filter { $0.hasSuffix(".case") }.sorted()

  @Test(arguments: names)
  func givesItsOutputHoweverItIsRun(_ name: String) throws {
    let url = Self.folder.appendingPathComponent(name)
    let text = try String(contentsOf: url, encoding: .utf8)
    let example = try DryRunCase(text)
    let output = try example.run(workers: 1, batchRows: 4_096)
    for (workers, batchRows) in [(1, 1), (1, 7), (2, 7), (4, 1), (4, 4_096)] {
      let again = try example.run(workers: workers, batchRows: batchRows)
      #expect(again == output, "\(workers) workers, batches of \(batchRows)")
    }
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      let kept = text.components(separatedBy: "\n=== output")[0]
      try "\(kept.hasSuffix("\n") ? kept : kept + "\n")=== output\n\(output)"
        .write(to: url, atomically: true, encoding: .utf8)
    } else {
      #expect(output == example.output)
    }
  }

  @Test func thereAreCases() { #expect(Self.names.count >= 7) }
}
