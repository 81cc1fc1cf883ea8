import Connectors
import Foundation
import Runtime
import Testing

@testable import rulesd

private let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent()
private let pack = repository.appendingPathComponent("rules/search-quality").path
private let sources = ["requests": "search.events", "consumer_lag": "ops.lag", "disk_use": "ops.disk"]

private func dryRun(_ arguments: [String]) throws -> String {
  let result = runCaptured(["dry-run", pack, "--quiet"] + arguments)
  #expect(result.exit == .ok, "\(result.errors)")
  return result.output
}

/// The rule pack that ships, over the incident that the demo shows.
@Suite struct IncidentTests {
  private func record(
    _ scenario: String, rate: Int, partitions: Int, into directory: TemporaryDirectory
  ) -> [String] {
    let result = runCaptured([
      "simulate", "--scenario", scenario, "--seed", "7", "--duration", "32m", "--rate", "\(rate)",
      "--partitions", "\(partitions)", "--out", directory.url.path,
    ])
    #expect(result.exit == .ok)
    return sources.sorted { $0.key < $1.key }.flatMap { source, topic in
      (0..<partitions).flatMap { partition in
        ["--input", "\(source)=\(directory.path("\(topic)\(partitions == 1 ? "" : "-\(partition)").jsonl"))"]
      }
    }
  }

  private func output(_ arguments: [String], in directory: TemporaryDirectory) throws -> String {
    _ = try dryRun(arguments + ["--output", directory.path("output")])
    return try String(contentsOfFile: directory.path("output"), encoding: .utf8)
  }

  private func told(_ output: String) -> [String] {
    output.split(separator: "\n").compactMap { line in
      guard let record = JSONValue(Array(line.utf8)), record["type"] == .string("alert"),
        let rule = record["rule"]?.text, let state = record["state"]?.text, state != "pending"
      else { return nil }
      let labels = record["labels"]
      let key = ["service", "group", "host"].compactMap { labels?[$0]?.text }.joined()
      return "\(rule) \(key) \(state)"
    }
  }

  @Test func everyAlertFiresAndResolves() throws {
    let directory = try TemporaryDirectory()
    let inputs = record("incident", rate: 100, partitions: 1, into: directory)
    let alerts = told(try output(inputs, in: directory))
    let fired = Set(alerts.filter { $0.hasSuffix(" firing") }.map { $0.dropLast(7) })
    #expect(
      fired == [
        "SearchP99High index-reader", "SearchP99High search-api", "SearchErrorRatioHigh search-api",
        "ConsumerLagHigh search-indexer", "DiskAlmostFull es-data-2",
      ])
    #expect(Set(alerts.filter { $0.hasSuffix(" resolved") }.map { $0.dropLast(9) }) == fired)
    #expect(alerts.count == 2 * fired.count, "\(alerts)")
  }

  @Test(
    arguments: [
      ("steady", []),
      ("error_spike", ["SearchErrorRatioHigh ranker firing", "SearchErrorRatioHigh ranker resolved"]),
      (
        "slow_queries",
        [
          "SearchP99High index-reader firing", "ConsumerLagHigh search-indexer firing",
          "ConsumerLagHigh search-indexer resolved", "SearchP99High index-reader resolved",
        ]
      ),
    ] as [(String, [String])])
  func scenariosPageWhatTheySay(_ scenario: String, _ expected: [String]) throws {
    let directory = try TemporaryDirectory()
    let inputs = record(scenario, rate: 100, partitions: 1, into: directory)
    #expect(told(try output(inputs, in: directory)).sorted() == expected.sorted())
  }

  /// rules/incidents: an alert that escalates and repeats, and three rules that are one notification, one of them silent
  /// behind its cause.
  @Test func anIncidentIsOneNotification() throws {
    let directory = try TemporaryDirectory()
    _ = record("incident", rate: 100, partitions: 1, into: directory)
    let pack = ["rules/search-quality/sources.rules", "rules/incidents"].map { repository.appendingPathComponent($0).path }
    var outputs: Set<String> = []
    for (workers, rows) in [("1", "4096"), ("2", "7"), ("4", "1")] {
      let result = runCaptured([
        "dry-run"] + pack + ["--quiet", "--only", "alert", "--output", directory.path("output"), "--workers", workers,
        "--batch-rows", rows, "--input", "requests=\(directory.path("search.events.jsonl"))",
      ])
      #expect(result.exit == .ok, "\(result.errors)")
      outputs.insert(try String(contentsOfFile: directory.path("output"), encoding: .utf8))
    }
    #expect(outputs.count == 1)
    let told = try (outputs.first ?? "").split(separator: "\n").map { line -> String in
      let record = try #require(JSONValue(Array(line.utf8)))
      let time = try #require(record["time"]?.text).dropFirst(11).prefix(8)
      var text = "\(time) \(record["rule"]?.text ?? "") \(record["state"]?.text ?? "") \(record["severity"]?.text ?? "")"
      if case .array(let alerts)? = record["alerts"] { text += " " + alerts.map { $0["rule"]?.text ?? "" }.joined(separator: ",") }
      return text
    }
    #expect(
      told == [
        "03:07:00 IndexSlow pending ticket", "03:08:00 IndexSlow firing ticket", "03:11:00 IndexSlow firing ticket",
        "03:12:00 IndexSlow firing critical", "03:15:00 IndexSlow firing critical",
        "03:15:30 ServiceIncident firing page ServiceFailing", "03:16:00 IndexSlow firing page",
        "03:19:00 IndexSlow firing page", "03:20:00 IndexSlow resolved page",
        "03:20:30 ServiceIncident resolved page ServiceFailing",
      ])
  }

  @Test func workersAndBatchesChangeNothing() throws {
    let directory = try TemporaryDirectory()
    let inputs = record("incident", rate: 8, partitions: 4, into: directory)
    let first = try output(inputs + ["--workers", "1"], in: directory)
    #expect(first.split(separator: "\n").count > 1_000)
    for workers in ["1", "2", "4"] {
      for rows in ["1", "7", "4096"] {
        let again = try output(inputs + ["--workers", workers, "--batch-rows", rows], in: directory)
        #expect(again == first, "\(workers) workers, batches of \(rows)")
      }
    }
  }

  /// What `kcat -J` wrote of a topic is a recording too, and says the same.
  @Test func throughABrokerAndKcat() throws {
    let directory = try TemporaryDirectory()
    let inputs = record("incident", rate: 8, partitions: 2, into: directory)
    let fromFiles = try output(inputs + ["--only", "metric", "--only", "alert"], in: directory)

    let broker = try EmbeddedBroker()
    for topic in sources.values { try broker.createTopic(topic, partitions: 2) }
    let result = runCaptured([
      "simulate", "--kafka", broker.bootstrapServers, "--scenario", "incident", "--seed", "7",
      "--duration", "32m", "--rate", "8", "--partitions", "2", "--start", "2026-11-21T03:00:00Z",
      "--speed", "max", "--topic", "search.events", "--topic", "ops.lag", "--topic", "ops.disk",
    ])
    #expect(result.exit == .ok, "\(result.errors)")
    var envelopes: [String] = []
    for (source, topic) in sources.sorted(by: { $0.key < $1.key }) {
      let file = directory.path("\(topic).kcat")
      try Data().write(to: URL(fileURLWithPath: file))
      let kcat = Process()
      kcat.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      kcat.arguments = ["kcat", "-C", "-b", broker.bootstrapServers, "-t", topic, "-e", "-q", "-J"]
      kcat.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: file))
      try kcat.run()
      kcat.waitUntilExit()
      #expect(kcat.terminationStatus == 0)
      envelopes += ["--input", "\(source)=\(file)"]
    }
    let fromKafka = try output(envelopes + ["--only", "metric", "--only", "alert"], in: directory)
    #expect(fromKafka == fromFiles)
  }
}
