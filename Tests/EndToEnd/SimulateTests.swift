import Foundation
import Testing

@testable import rulesd

/// A directory that is gone when the test is over.
final class TemporaryDirectory {
  let url: URL
  init() throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(at: url) }
  func path(_ name: String) -> String { url.appendingPathComponent(name).path }
  func lines(_ name: String) throws -> [Substring] {
    try String(contentsOfFile: path(name), encoding: .utf8).split(separator: "\n")
  }
  var names: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []).sorted()
  }
}

@Suite struct SimulateTests {
  @Test func writesAFileForEachTopic() throws {
    let directory = try TemporaryDirectory()
    let result = runCaptured([
      "simulate", "--scenario", "incident", "--duration", "1m", "--rate", "20", "--out",
      directory.path("deep/er"),
    ])
    #expect(result.exit == .ok)
    #expect(result.output.isEmpty)
    let inner = directory.path("deep/er")
    let names = try FileManager.default.contentsOfDirectory(atPath: inner).sorted()
    #expect(
      names == ["ops.disk", "ops.lag", "search.events", "search.logs", "search.spans"].map { "\($0).jsonl" })
    #expect(try directory.lines("deep/er/ops.disk.jsonl").count == 16)
  }

  @Test func partitionsHoldTheRowsOfTheWhole() throws {
    let directory = try TemporaryDirectory()
    let common = ["simulate", "--duration", "30s", "--topic", "search.events", "--out", directory.url.path]
    #expect(runCaptured(common).exit == .ok)
    #expect(runCaptured(common + ["--partitions", "3"]).exit == .ok)
    #expect(directory.names.count == 4)
    let whole = try directory.lines("search.events.jsonl")
    let parts = try (0..<3).flatMap { try directory.lines("search.events-\($0).jsonl") }
    #expect(parts.sorted() == whole.sorted())
    #expect(whole.count > 5_000)
  }

  @Test func paceFollowsTheSpeed() throws {
    let directory = try TemporaryDirectory()
    var now: Int64 = 0
    let environment = CommandEnvironment(
      standardOutput: CapturedOutput(), standardError: CapturedOutput(), monotonicNanos: { now },
      sleep: { now += max(0, $0) })
    let exit = runCommandLine(
      ["simulate", "--duration", "2m", "--rate", "50", "--speed", "60", "--out", directory.url.path],
      environment)
    #expect(exit == .ok)
    #expect(abs(now - 2_000_000_000) < 50_000_000)
  }

  @Test(arguments: [
    (["simulate"], "simulate needs --out DIR"),
    (["simulate", "--out", "/proc/nowhere"], "cannot make /proc/nowhere"),
    (["simulate", "--out", "x", "--scenario", "incidnet"], "did you mean `incident`?"),
    (["simulate", "--out", "x", "--service", "rankr"], "there is no `rankr`"),
    (["simulate", "--out", "x", "--start", "yesterday"], "is not a time"),
  ])
  func refuses(_ arguments: [String], _ message: String) {
    let result = runCaptured(arguments)
    #expect(result.exit == .usage)
    #expect(result.errors.contains(message))
  }

  @Test func benchGeneratesEventsAndRules() throws {
    let directory = try TemporaryDirectory()
    let result = runCaptured(["bench", "--generate", directory.url.path, "--rows", "1003"])
    #expect(result.exit == .ok)
    let counts = try (0..<4).map { try directory.lines("part-\($0).jsonl").count }
    #expect(counts == [251, 251, 251, 250])
    #expect(directory.names.contains("thousand.rules"))
  }
}
