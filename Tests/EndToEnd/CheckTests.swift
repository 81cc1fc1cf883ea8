import Foundation
import Runtime
import Testing

@testable import rulesd

@Suite struct CheckTests {
  private static let bad = """
    source requests {
      time ts
      fields { ts: timestamp(ms), service: string, latency: duration(ms) from latency_ms }
    }
    stream minutes = requests | window tumbling 1m by servce | aggregate p99 = quantile(latncy, 0.99)
    metric p99_seconds = minutes.p99
    """

  @Test(arguments: ["text", "json", "github"])
  func reportsEveryErrorInOneRun(_ format: String) throws {
    let directory = try TemporaryDirectory()
    try Self.bad.write(toFile: directory.path("bad.rules"), atomically: true, encoding: .utf8)
    let result = runCaptured(["check", "--format", format, directory.url.path])
    #expect(result.exit == .refused)
    #expect(result.output.contains("did you mean `service`?"))
    #expect(result.output.contains("did you mean `latency`?"))
    #expect(result.errors == "1 file: 2 errors, no warnings\n")
    switch format {
    case "json":
      for line in result.output.split(separator: "\n") { #expect(JSONValue(Array(line.utf8)) != nil) }
    case "github": #expect(result.output.contains("::error file=\(directory.path("bad.rules")),line=5,col="))
    default: #expect(result.output.contains("--> \(directory.path("bad.rules")):5:51"))
    }
  }

  @Test func unreadableTextIsADiagnosticToo() throws {
    let directory = try TemporaryDirectory()
    try Data([0xFF, 0x00, 0x80]).write(to: directory.url.appendingPathComponent("binary.rules"))
    try Self.bad.write(toFile: directory.path("text.rules"), atomically: true, encoding: .utf8)
    let result = runCaptured(["check", directory.url.path])
    #expect(result.exit == .refused)
    #expect(result.errors == "2 files: 3 errors, no warnings\n")
  }

  @Test func strictRefusesWarnings() throws {
    let directory = try TemporaryDirectory()
    let unused = "source requests { time ts  fields { ts: timestamp(ms) } }"
    try unused.write(toFile: directory.path("a.rules"), atomically: true, encoding: .utf8)
    #expect(runCaptured(["check", directory.url.path]).exit == .ok)
    #expect(runCaptured(["check", "--strict", directory.url.path]).exit == .refused)
  }

  @Test func noFileIsAnEnvironmentFailure() {
    #expect(runCaptured(["check", "/nowhere.rules"]).exit == .usage)
  }

  /// The packs that ship, together and those with sources by themselves, and the benchmark's rules, compile without a word.
  @Test func shippedRulesAreClean() throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let packs = root.appendingPathComponent("rules")
    for pack in ["", "search-quality", "traces"] {
      let result = runCaptured(["check", "--strict", packs.appendingPathComponent(pack).path])
      #expect(result.exit == .ok, "\(result.output)")
    }
    let directory = try TemporaryDirectory()
    #expect(runCaptured(["bench", "--generate", directory.url.path, "--rows", "4"]).exit == .ok)
    for name in ["one", "hundred", "thousand"] {
      let result = runCaptured(["check", "--strict", directory.path("\(name).rules")])
      #expect(result.exit == .ok, "\(result.output.prefix(2_000))")
    }
  }
}
