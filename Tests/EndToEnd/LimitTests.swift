import Connectors
import Foundation
import Runtime
import Testing

@testable import rulesd

/// The limits of docs/operations.md: one below, at, and one above each.
@Suite struct LimitTests {
  private static let head = """
    source requests {
      time ts  watermark 10s
      fields { ts: timestamp(ms), service: string, note: string? }
    }

    """
  private static let rules =
    head + """
      stream minutes = requests | window tumbling 1m by service | aggregate n = count()
      metric rows = minutes.n
      """

  /// What a dry run makes of a recording.
  private func output(_ rules: String, _ recording: [UInt8]) throws -> [JSONValue] {
    let directory = try TemporaryDirectory()
    try rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    try Data(recording).write(to: directory.url.appendingPathComponent("in.jsonl"))
    let result = runCaptured([
      "dry-run", directory.path("case.rules"), "--quiet", "--output", directory.path("out.jsonl"), "--input",
      "requests=\(directory.path("in.jsonl"))",
    ])
    #expect(result.exit == .ok, "\(result.errors)")
    return try directory.lines("out.jsonl").compactMap { JSONValue(Array($0.utf8)) }
  }

  private func record(_ service: String, filler: String) -> String {
    "{\"ts\":1795230000000,\"service\":\"\(service)\",\"x\":\(filler)}"
  }

  @Test(arguments: [(-1, true), (0, true), (1, false), (9 << 20, false)])
  func linesOfAMebibyte(_ over: Int, _ isTaken: Bool) throws {
    let empty = record("ranker", filler: "\"\"").utf8.count
    let line = record("ranker", filler: "\"" + String(repeating: "a", count: (1 << 20) + over - empty) + "\"")
    #expect(line.utf8.count == (1 << 20) + over)
    let good = record("ranker", filler: "1")
    let lines = try output(Self.rules, Array("\(good)\n\(line)\n\(good)\n".utf8))
    let rows = lines.filter { $0["rule"] == .string("rows") }
    #expect(rows.map { $0["values"]?["value"] } == [.number(isTaken ? 3 : 2)])
    let dead = lines.filter { $0["type"] == .string("dead_letter") }
    #expect(dead.count == (isTaken ? 0 : 1))
    guard let letter = dead.first else { return }
    #expect(letter["values"]?["reason"] == .string("line longer than 1 MiB"))
    #expect(letter["values"]?["bytes"] == .number(Double(line.utf8.count)))
    #expect(letter["values"]?["truncated"] == .bool(true))
    #expect(letter["values"]?["payload"]?.text == String(line.prefix(RejectedRecord.payloadBytesMax)))
  }

  /// Dead letters and late rows carry all of a payload up to the bound, and say so beyond it.
  @Test(arguments: [-1, 0, 1])
  func payloadsOfDeadLetters(_ over: Int) throws {
    let size = RejectedRecord.payloadBytesMax + over
    for isLate in [false, true] {
      let head = isLate ? "{\"ts\":1795220000000,\"service\":\"r\",\"x\":\"" : "{\"ts\":\"soon\",\"service\":\"r\",\"x\":\""
      let line = head + String(repeating: "é", count: (size - head.utf8.count - 2) / 2)
        + ((size - head.utf8.count - 2) % 2 == 1 ? "a" : "") + "\"}"
      #expect(line.utf8.count == size)
      let recording = record("r", filler: "1") + "\n" + line + "\n"
      let letters = try output(Self.rules, Array(recording.utf8)).filter { $0["rule"] == .string("requests") }
      let values = try #require(letters.first?["values"])
      #expect(letters.count == 1)
      let kept = values["payload"]?.text.map { Array($0.utf8) } ?? values["payload_base64"]?.text.flatMap(base64Bytes)
      #expect(kept == Array(line.utf8.prefix(RejectedRecord.payloadBytesMax)))
      #expect(values["truncated"] == (over > 0 ? .bool(true) : nil))
    }
  }

  /// No dead letter outgrows the megabyte that brokers take, whatever its bytes are.
  @Test(arguments: [UInt8(0x22), 0x5c, 0x01, 0x0b, 0xff, 0x61, 0x7f])
  func deadLettersFitIntoAMegabyte(_ byte: UInt8) throws {
    let directory = try TemporaryDirectory()
    try Self.rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    try Data([UInt8](repeating: byte, count: (1 << 20) - 10) + [0x0a]).write(
      to: directory.url.appendingPathComponent("in.jsonl"))
    #expect(
      runCaptured([
        "dry-run", directory.path("case.rules"), "--quiet", "--output", directory.path("out.jsonl"), "--input",
        "requests=\(directory.path("in.jsonl"))",
      ]).exit == .ok)
    let lines = try directory.lines("out.jsonl")
    #expect(lines.count == 1 && lines[0].utf8.count < 900_000 && lines[0].utf8.count > RejectedRecord.payloadBytesMax)
    let values = JSONValue(Array(lines[0].utf8))?["values"]
    let kept = values?["payload"]?.text.map { Array($0.utf8) } ?? values?["payload_base64"]?.text.flatMap(base64Bytes)
    #expect(kept == [UInt8](repeating: byte, count: RejectedRecord.payloadBytesMax))
  }

  /// Nesting costs no stack: what no rule reads is passed over, however deep; a needed field lies at most 16 deep.
  @Test(arguments: [1, 1_023, 1_024, 1_025, 100_000])
  func nesting(_ depth: Int) throws {
    let deep = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    let deepObject = String(repeating: "{\"a\":", count: depth) + "1" + String(repeating: "}", count: depth)
    for filler in [deep, deepObject] {
      let lines = try output(Self.rules, Array((record("r", filler: filler) + "\n").utf8))
      #expect(lines.map { $0["values"]?["value"] } == [.number(1)])
      // Where a value is needed it is a wrong type, and that is all.
      let bad = "{\"ts\":1795230000000,\"service\":\(filler)}\n"
      let dead = try output(Self.rules, Array(bad.utf8))
      #expect(dead.map { $0["type"] } == [.string("dead_letter")])
    }
  }

  @Test(arguments: [(15, true), (16, true), (17, false)])
  func pathsOfFields(_ depth: Int, _ isTaken: Bool) throws {
    let path = (0..<depth).map { "m\($0)" }
    let rules = """
      source requests {
        time ts  watermark 10s
        fields { ts: timestamp(ms), service: string from \(path.joined(separator: ".")) }
      }
      stream minutes = requests | window tumbling 1m by service | aggregate n = count()
      metric rows = minutes.n
      """
    let nested = path.reversed().reduce("\"r\"") { "{\"\($1)\":\($0)}" }
    let directory = try TemporaryDirectory()
    try rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    try "{\"ts\":1795230000000,\(nested.dropFirst())\n".write(
      toFile: directory.path("in.jsonl"), atomically: true, encoding: .utf8)
    let result = runCaptured([
      "dry-run", directory.path("case.rules"), "--quiet", "--output", directory.path("out.jsonl"), "--input",
      "requests=\(directory.path("in.jsonl"))",
    ])
    #expect((result.exit == .ok) == isTaken, "\(result.errors)")
    if isTaken { #expect(try directory.lines("out.jsonl").count == 1) }
  }

  /// A search that goes on for ever is given up: the answer is null, so that neither it nor its opposite is true.
  @Test(arguments: ["(a+)+$", "(a|a)*$", "(a*)*[b-z]$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
  func patternsThatExplode(_ pattern: String) throws {
    let rules =
      Self.head + """
        stream all = requests
          | derive found = matches(note, "\(pattern)"), given_up = matches(note, "\(pattern)") is null
          | window tumbling 1m | aggregate n = count(), yes = count(where found), no = count(where not found),
              unknown = count(where given_up)
        metric n = all.n
        metric yes = all.yes
        metric no = all.no
        metric unknown = all.unknown
        """
    let note = String(repeating: "a", count: 30_000) + "!"
    let lines = try output(
      rules, Array("{\"ts\":1795230000000,\"service\":\"r\",\"note\":\"\(note)\"}\n".utf8))
    var values: [String: JSONValue] = [:]
    for line in lines { values[line["rule"]?.text ?? ""] = line["values"]?["value"] }
    #expect(values["n"] == .number(1) && values["yes"] == .number(0), "\(values)")
    #expect(values["no"] == .number(0) && values["unknown"] == .number(1), "\(values)")
  }

  @Test(arguments: [(16_383, true), (16_384, true), (16_385, false)])
  func patternLength(_ length: Int, _ isTaken: Bool) throws {
    let rules =
      Self.head + "stream all = requests where matches(service, \"\(String(repeating: "a", count: length))\")"
      + " | window tumbling 1m | aggregate n = count()\nmetric n = all.n\n"
    let directory = try TemporaryDirectory()
    try rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    #expect((runCaptured(["check", directory.path("case.rules")]).exit == .ok) == isTaken)
  }

  @Test(arguments: [(999, true), (1_000, true), (1_001, false)])
  func fieldsOfASource(_ count: Int, _ isTaken: Bool) throws {
    let fields = (1..<count).map { "f\($0): int" }.joined(separator: ", ")
    let rules = """
      source s { time ts  fields { ts: timestamp(ms), \(fields) } }
      stream all = s | window tumbling 1m | aggregate n = count()
      metric n = all.n
      """
    let directory = try TemporaryDirectory()
    try rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    let result = runCaptured(["check", directory.path("case.rules")])
    #expect((result.exit == .ok) == isTaken, "\(result.output)")
    if !isTaken { #expect(result.output.contains("a source has at most 1000 fields")) }
  }

  @Test(arguments: [((4 << 20) - 1, true), (4 << 20, true), ((4 << 20) + 1, false)])
  func ruleFiles(_ size: Int, _ isTaken: Bool) throws {
    let directory = try TemporaryDirectory()
    let text = Self.rules + "\n# "
    try (text + String(repeating: "x", count: size - text.utf8.count - 1) + "\n").write(
      toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    let result = runCaptured(["check", directory.path("case.rules")])
    #expect((result.exit == .ok) == isTaken, "\(result.output.prefix(300))")
  }

  @Test(
    arguments: [
      ("1", 1), ("4096B", 4_096), ("1KiB", 1_024), ("2GiB", 2 << 30), ("3kB", 3_000), ("5TB", 5_000_000_000_000),
      ("9007199254740993", 9_007_199_254_740_993), ("", nil), ("MiB", nil), ("-1", nil), ("1.5GiB", nil),
      ("1 GiB", nil), ("1Gib", nil), ("9999999999TiB", nil), ("٣", nil),
    ] as [(String, Int?)])
  func sizes(_ text: String, _ bytes: Int?) { #expect(byteCount(text) == bytes) }

  /// `--key-limit` is the default of windows that name none.
  @Test(arguments: [(2, 1), (3, 0), (4, 0)])
  func keysByDefault(_ limit: Int, _ dropped: Int) throws {
    let directory = try TemporaryDirectory()
    try Self.rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    try ["a", "b", "c", "a"].map { record($0, filler: "1") + "\n" }.joined().write(
      toFile: directory.path("in.jsonl"), atomically: true, encoding: .utf8)
    let result = runCaptured([
      "dry-run", directory.path("case.rules"), "--key-limit", "\(limit)", "--output", directory.path("out.jsonl"),
      "--input", "requests=\(directory.path("in.jsonl"))",
    ])
    #expect(try directory.lines("out.jsonl").count == 3 - dropped)
    #expect(result.errors.contains("1 row not aggregated") == (dropped == 1), "\(result.errors)")
  }
}
