import Connectors
import Foundation
import Runtime
import Testing

@testable import Traffic
@testable import rulesd

@Suite struct SturdyTests {
  private static let rules = """
    source requests {
      time ts  watermark 10s
      fields { ts: timestamp(ms), service: string, status: int }
    }
    stream minutes = requests
      | window tumbling 1m by service
      | aggregate n = count(), errors = count(where status >= 500)
    metric rows = minutes.n
    metric errors = minutes.errors
    """
  private static let good = #"{"ts":1795230000000,"service":"ranker","status":200}"#

  /// A bad record between two good ones is a dead letter with a reason, and costs the good ones nothing. (A
  /// field that no rule reads is not looked at, and cannot be wrong.)
  @Test(arguments: [
    (#"{"ts":1795230000000,"service":"ran"#, "truncated"),
    (#"{"ts":1795230000000,"service":"ranker"}{"x":1}"#, "two documents"),
    ("\u{0}\u{1}\u{2}", "control bytes"),
    (String(repeating: "[", count: 100_000), "deep nesting"),
    (#"{"ts":253370764800000,"service":"ranker","status":200}"#, "the year 9999"),
    (#"{"ts":"soon","service":"ranker","status":200}"#, "a wrong type"),
    (#"{"ts":1795230000000,"service":"ranker","status":1e400}"#, "an infinite number"),
    (#"{"ts":1795230000000,"service":"\ud800","status":200}"#, "half a surrogate pair"),
  ])
  func badRecordsAreDeadLetters(_ bad: String, _ name: String) throws {
    for record in [bad, bad + "\r"] {
      var example = try DryRunCase(Self.rules)
      example.inputs = [("requests", 0, "\(Self.good)\n\(record)\n\(Self.good)\n")]
      let output = try example.run(workers: 2, batchRows: 1).split(separator: "\n").compactMap {
        JSONValue(Array($0.utf8))
      }
      let dead = output.filter { $0["type"] == .string("dead_letter") }
      #expect(dead.count == 1, "\(name): \(output)")
      #expect(dead.first?["values"]?["reason"]?.text?.isEmpty == false)
      let rows = output.filter { $0["rule"] == .string("rows") }
      #expect(rows.map { $0["values"]?["value"] } == [.number(2)], "\(name)")
    }
  }

  /// Bytes that no text can hold: invalid UTF-8, a very long line, random bytes.
  @Test func bytesThatAreNoText() throws {
    let directory = try TemporaryDirectory()
    try Self.rules.write(toFile: directory.path("case.rules"), atomically: true, encoding: .utf8)
    var random = TrafficRandom(seed: 3)
    var bytes = Array(Self.good.utf8) + [0x0A]
    bytes +=
      Array(#"{"ts":1795230000000,"service":"\#u{FF}"#.utf8.dropLast()) + [0xFF, 0xFE]
      + Array(#"","status":1}"#.utf8) + [0x0A]
    bytes +=
      Array(#"{"ts":1795230000000,"service":""#.utf8) + [UInt8](repeating: 0x61, count: 10 << 20) + [0x0A]
    bytes += (0..<100_000).map { _ in UInt8(truncatingIfNeeded: random.next()) } + [0x0A]
    bytes += Array(Self.good.utf8)
    try Data(bytes).write(to: directory.url.appendingPathComponent("rows"))
    try Data().write(to: directory.url.appendingPathComponent("empty"))
    let result = runCaptured([
      "dry-run", directory.path("case.rules"), "--quiet", "--output", directory.path("output"),
      "--input", "requests=\(directory.path("rows"))", "--input", "requests=\(directory.path("empty"))",
    ])
    #expect(result.exit == .ok, "\(result.errors)")
    let output = try directory.lines("output").compactMap { JSONValue(Array($0.utf8)) }
    let rows = output.filter { $0["rule"] == .string("rows") }
    #expect(rows.map { $0["values"]?["value"] } == [.number(2)])
    #expect(output.count { $0["type"] == .string("dead_letter") } > 300)
  }

  @Test func randomBytesAsRulesAreDiagnostics() throws {
    let directory = try TemporaryDirectory()
    var random = TrafficRandom(seed: 11)
    let words = ["source", "stream", "alert", "{", "}", "|", "window", "\"", "(", "1m", "by", "=", "\n", "é"]
    for round in 0..<60 {
      let bytes: [UInt8] =
        round % 2 == 0
        ? (0..<2_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        : (0..<400).flatMap { _ in Array((words[random.below(words.count)] + " ").utf8) }
      try Data(bytes).write(to: directory.url.appendingPathComponent("random.rules"))
      let result = runCaptured(["check", directory.path("random.rules")])
      #expect(result.exit == .refused)
      #expect(!result.output.isEmpty)
    }
  }
}

/// The daemon over a broker, against the dry run of the same rows.
@Suite struct DaemonTests {
  @Test(arguments: [1, 3])
  func aBoundedRunWritesWhatTheDryRunWrites(_ workers: Int) throws {
    let directory = try TemporaryDirectory()
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let pack = root.appendingPathComponent("rules/search-quality").path
    let broker = try EmbeddedBroker()
    let topics = ["requests": "search.events", "consumer_lag": "ops.lag", "disk_use": "ops.disk"]
    for topic in topics.values { try broker.createTopic(topic, partitions: 3) }
    let traffic = [
      "simulate", "--scenario", "incident", "--duration", "25m", "--rate", "15", "--partitions", "3",
      "--start", "2026-11-21T03:00:00Z", "--speed", "max",
    ]
    #expect(runCaptured(traffic + ["--out", directory.url.path]).exit == .ok)
    #expect(runCaptured(traffic + ["--kafka", broker.bootstrapServers]).exit == .ok)
    var arguments = [
      "dry-run", pack, "--quiet", "--only", "metric", "--only", "alert", "--output", directory.path("dry"),
    ]
    for (source, topic) in topics.sorted(by: { $0.key < $1.key }) {
      for partition in 0..<3 {
        arguments += ["--input", "\(source)=\(directory.path("\(topic)-\(partition).jsonl"))"]
      }
    }
    #expect(runCaptured(arguments).exit == .ok)
    let run = runCaptured([
      "run", pack, "--kafka", broker.bootstrapServers, "--until-end", "--listen", "127.0.0.1:0",
      "--sink", directory.path("run"), "--workers", "\(workers)",
    ])
    #expect(run.exit == .ok, "\(run.errors)")
    let written = try directory.lines("run")
    #expect(written.count > 1_000)
    #expect(try written == directory.lines("dry"))
  }
}
