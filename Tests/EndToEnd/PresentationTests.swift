import Foundation
import Runtime
import Testing

@testable import rulesd

@Suite struct JSONValueTests {
  @Test(
    arguments: [
      ("null", .null), (" true ", .bool(true)), ("-1.5e3", .number(-1500)),
      (#""a\n\u00e9\ud83d\ude00""#, .string("a\né😀")),
      ("[1, []]", .array([.number(1), .array([])])),
      (#"{"b":1,"a":{}}"#, .object([("b", .number(1)), ("a", .object([]))])),
      ("", nil), ("{", nil), ("[1,]", nil), ("1 2", nil), (#"{"a"}"#, nil), (#""\ud83d""#, nil),
      (#""\u12""#, nil),
      ("nul", nil), (String(repeating: "[", count: 100_000), nil), ("\"", nil), ("\"\\", nil),
    ] as [(String, JSONValue?)])
  func reads(_ text: String, _ expected: JSONValue?) {
    #expect(JSONValue(Array(text.utf8)) == expected)
  }
}

@Suite struct AlertTimelineTests {
  @Test func tellsFromPendingToResolved() throws {
    var timeline = AlertTimeline(useColor: false)
    func alert(_ state: String, _ time: String) throws -> String? {
      let text = """
        {"type":"alert","rule":"SearchP99High","time":"2026-11-21T\(time).000Z",\
        "labels":{"service":"ranker"},\
        "values":{"p99":3.6214567,"n":240},"id":"x","state":"\(state)","severity":"page",\
        "annotations":{"summary":"ranker: p99 is 3.62s","runbook":"https://runbooks.example.com/p99"}}
        """
      return timeline.lines(for: try #require(JSONValue(Array(text.utf8))))
    }
    #expect(try alert("pending", "03:07:00") == "03:07:00  pending   page      SearchP99High  service=ranker")
    let gap = String(repeating: " ", count: 30)
    #expect(
      try alert("firing", "03:12:00") == """
        03:12:00  FIRING    page      SearchP99High  service=ranker
        \(gap)ranker: p99 is 3.62s
        \(gap)evidence: p99=3.62146 n=240
        \(gap)runbook: https://runbooks.example.com/p99
        """)
    #expect(timeline.openCount == 1)
    #expect(
      try alert("resolved", "03:19:30")
        == "03:19:30  resolved  page      SearchP99High  service=ranker  after 7 min 30 s")
    #expect(timeline.openCount == 0 && timeline.firedCount == 1 && timeline.resolvedCount == 1)
  }

  @Test func leavesOtherRecordsOut() throws {
    var timeline = AlertTimeline(useColor: true)
    let metric = try #require(
      JSONValue(Array(#"{"type":"metric","rule":"m","time":"t","state":"firing"}"#.utf8)))
    #expect(timeline.lines(for: metric) == nil)
    #expect(timeline.lines(for: .null) == nil)
  }
}

@Suite struct RuleFilesTests {
  @Test func directoriesAreReadInOrderAndFilesOnce() throws {
    let directory = try TemporaryDirectory()
    try FileManager.default.createDirectory(
      atPath: directory.path("b"), withIntermediateDirectories: true)
    for name in ["z.rules", "a.rules", "b/c.rules", "b/readme.md", ".hidden.rules"] {
      try name.write(toFile: directory.path(name), atomically: true, encoding: .utf8)
    }
    let root = directory.url.path
    let files = try readRuleFiles([root + "/", directory.path("a.rules"), directory.path("b/readme.md")])
    #expect(
      files.map { $0.path.dropFirst(root.count + 1) } == ["a.rules", "b/c.rules", "z.rules", "b/readme.md"])
    #expect(files.map { String(decoding: $0.bytes, as: UTF8.self) }[1] == "b/c.rules")
  }

  @Test func whatCannotBeReadIsSaid() throws {
    let directory = try TemporaryDirectory()
    for path in [directory.url.path, directory.path("none.rules")] {
      let failure = #expect(throws: CommandFailure.self) { try readRuleFiles([path]) }
      #expect(failure?.exitCode == .usage)
      #expect(failure?.message.contains(path) == true)
    }
    // A loop of links ends, with a message.
    try FileManager.default.createSymbolicLink(
      atPath: directory.path("loop"), withDestinationPath: directory.url.path)
    #expect(throws: CommandFailure.self) { try readRuleFiles([directory.url.path]) }
  }
}
