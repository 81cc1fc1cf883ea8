import Foundation
import Testing

@testable import Runtime
@testable import rulesd

@Suite struct PlanTests {
  private static let root = URL(fileURLWithPath: #filePath).appendingPathComponent("../../..").standardized
  private static let pack = root.appendingPathComponent("rules/search-quality").path

  /// The pack, and a copy with edits.
  private func copies(_ edits: [(file: String, from: String, to: String)]) throws -> (TemporaryDirectory, String) {
    let directory = try TemporaryDirectory()
    let copy = directory.path("rules")
    try FileManager.default.copyItem(atPath: Self.pack, toPath: copy)
    for edit in edits {
      let path = "\(copy)/\(edit.file)"
      let text = try String(contentsOfFile: path, encoding: .utf8)
      try #require(text.contains(edit.from))
      try text.replacingOccurrences(of: edit.from, with: edit.to)
        .write(toFile: path, atomically: true, encoding: .utf8)
    }
    return (directory, copy)
  }

  /// The edit of the page's example.
  private static let example = [
    (file: "platform.rules", from: "for 2m", to: "for 10m"),
    (file: "requests.rules", from: "p99 > 2s", to: "p99 > 3s"),
    (
      file: "requests.rules", from: "metric search_error_ratio",
      to: """
        stream slowest = requests | window tumbling 5m by service | aggregate worst = max(latency)
        metric search_latency_max_seconds = slowest.worst
        metric search_error_ratio
        """
    ),
  ]

  @Test func thePageShowsWhatIsPrinted() throws {
    let (directory, copy) = try copies(Self.example)
    defer { _ = directory }
    let result = runCaptured(["plan", Self.pack, copy])
    #expect(result.exit == .losesState && result.errors == "")
    let page = Self.root.appendingPathComponent("docs/operations.md")
    let text = try String(contentsOf: page, encoding: .utf8)
    let start = "<!-- plan: the example's output; a test runs it -->\n```\n$ rulesd plan deployed rules\n"
    let parts = text.components(separatedBy: start)
    try #require(parts.count == 2)
    let rest = try #require(parts[1].range(of: "```\n"))
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try (parts[0] + start + result.output + parts[1][rest.lowerBound...])
        .write(to: page, atomically: true, encoding: .utf8)
    } else {
      #expect(parts[1][..<rest.lowerBound] == result.output)
    }
  }

  @Test func theSameRulesElsewhereChangeNothing() throws {
    let (directory, copy) = try copies([])
    defer { _ = directory }
    let result = runCaptured(["plan", Self.pack, copy + "/"])
    #expect(result.exit == .ok && result.errors == "")
    #expect(result.output.hasPrefix("rules: 0 added, 0 changed, 0 removed, 16 unchanged\n"))
    #expect(result.output.hasSuffix("no state is lost\n"))
    #expect(try loadRules([Self.pack]).revision == loadRules([copy]).revision)
  }

  @Test func exitCodesSayWhatIsLost() throws {
    let (directory, copy) = try copies([(file: "requests.rules", from: "for 5m", to: "for 6m")])
    defer { _ = directory }
    #expect(runCaptured(["plan", Self.pack, copy]).exit == .ok)
    try FileManager.default.removeItem(atPath: "\(copy)/platform.rules")
    #expect(runCaptured(["plan", Self.pack, copy]).exit == .ok)
    #expect(runCaptured(["plan", copy, Self.pack]).exit == .ok)
    try FileManager.default.removeItem(atPath: "\(copy)/relevance.rules")
    let (other, filtered) = try copies([(file: "requests.rules", from: "for 5m", to: "for 6m"), (file: "requests.rules", from: "= requests\n", to: "= requests | where status > 0\n")])
    defer { _ = other }
    let lost = runCaptured(["plan", "--format", "json", Self.pack, filtered])
    #expect(lost.exit == .losesState)
    #expect(lost.exit.rawValue == 3)
    let json = try #require(JSONValue(Array(lost.output.trimmingCharacters(in: .newlines).utf8)))
    #expect(json["loses_state"] == .bool(true))
    #expect(runCaptured(["plan", Self.pack]).exit == .usage)
    #expect(runCaptured(["plan", Self.pack, copy, copy]).exit == .usage)
    #expect(runCaptured(["plan", Self.pack, directory.path("nowhere")]).exit == .usage)
    #expect(runCaptured(["plan", "--format", "dot", Self.pack, copy]).exit == .usage)
  }

  @Test(arguments: [0, 1]) func whatDoesNotCompileIsShown(_ side: Int) throws {
    let (directory, copy) = try copies([(file: "requests.rules", from: "p99 > 2s", to: "p99 > 2")])
    defer { _ = directory }
    let result = runCaptured(["plan"] + (side == 0 ? [copy, Self.pack] : [Self.pack, copy]))
    #expect(result.exit == .refused && result.output == "")
    #expect(result.errors.contains("requests.rules:"))
    #expect(result.errors.contains("\(copy) has 1 error"))
  }

  /// What a set of files is known by depends on their names and bytes, and on nothing else.
  @Test func revisionsAreOfNamesAndBytes() {
    func revision(_ files: [(path: String, name: String, text: String)]) -> String {
      ruleRevision(files.map { RuleFileBytes(path: $0.path, name: $0.name, bytes: Array($0.text.utf8)) })
    }
    let known = revision([("/x/a.rules", "a.rules", "1"), ("/x/b.rules", "b.rules", "2")])
    #expect(known == revision([("b.rules", "b.rules", "2"), ("a.rules", "a.rules", "1")]))
    #expect(known != revision([("/x/a.rules", "a.rules", "2"), ("/x/b.rules", "b.rules", "1")]))
    #expect(known != revision([("/x/a.rules", "a.rules", "12")]))
    #expect(known != revision([("/x/a.rules", "a.rules", "1"), ("/x/c.rules", "c.rules", "2")]))
    #expect(known.utf8.count == 16)
  }
}

@Suite struct SharingTests {
  private static let source = """
    source requests {
      kafka "requests"  partitioned by service
      time ts
      fields { ts: timestamp(ms), service: string, route: string }
    }
    source silent { kafka "other" time ts fields { ts: timestamp(ms), service: string } }

    """

  @Test(
    arguments: [
      ("stream s = requests | window tumbling 1m by route, service | aggregate n = count()", "yes"),
      ("stream s = requests | derive svc = service | window tumbling 1m by svc | aggregate n = count()", "yes"),
      (
        "stream s = requests | window tumbling 1m by service, route | aggregate n = count()\n"
          + "  | window tumbling 1h by service | aggregate n = max(n)", "yes"
      ),
      (
        "stream s = requests\n  | window tumbling 1m by route | aggregate n = count()",
        "no, because metric m groups by route only, not by service (a.rules:7)"
      ),
      (
        "stream s = requests | window tumbling 1m | aggregate n = count()",
        "no, because metric m has windows without keys, not by service (a.rules:7)"
      ),
      (
        "stream s = requests | derive service2 = lower(service) | window tumbling 1m by service2 | aggregate n = count()",
        "no, because metric m groups by a computed column only, not by service (a.rules:7)"
      ),
      (
        "stream s = requests | window tumbling 1m by service, route | aggregate n = count()\n"
          + "  | window tumbling 1h by route | aggregate n = max(n)",
        "no, because metric m groups by route only, not by service (a.rules:7)"
      ),
      (
        "stream t = requests | window tumbling 1m by service | aggregate n = count()\n"
          + "stream s = t | window tumbling 1h | aggregate n = max(n)",
        "no, because metric m has windows without keys, not by service (a.rules:8)"
      ),
      (
        "stream s = silent | window tumbling 1m by service | aggregate n = count()",
        "no, because source silent, which metric m reads, does not say `partitioned by` (a.rules:6)"
      ),
      // What no rule reads does not matter.
      (
        "stream s = requests | window tumbling 1m by service | aggregate n = count()\n"
          + "stream unused = requests | window tumbling 1m | aggregate n = count()", "yes"
      ),
      (
        "stream s = requests | window tumbling 1m | aggregate n = count()\n"
          + "stream t = requests | window tumbling 1m by route | aggregate n = count()\nmetric m2 = t.n",
        "no, because metric m2 groups by route only, not by service (a.rules:8); and 1 more"
      ),
    ])
  func isSaidByCheckAndExplain(_ stream: String, _ answer: String) throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("a.rules")
    try (Self.source + stream + "\nmetric m = s.n\n").write(toFile: path, atomically: true, encoding: .utf8)
    let line = "can be shared by several daemons: "
      + answer.replacingOccurrences(of: "(a.rules", with: "(\(path)") + "\n"
    #expect(runCaptured(["check", path]).errors.hasSuffix(line))
    #expect(runCaptured(["explain", path]).output.hasSuffix("\n\n" + line))
  }
}
