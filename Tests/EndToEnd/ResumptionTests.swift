import Connectors
import Foundation
import Planner
import Runtime
import Testing
import Traffic

@testable import rulesd

/// `rulesd run` over the embedded broker says what a dry run says: read in one go, stopped and started again, and with the
/// broker gone in the middle.
@Suite(.serialized) struct ResumptionTests {
  private static let rules = """
    source requests {
      kafka "search.events"  format json
      time ts  watermark 5s  idle 10m
      fields {
        ts: timestamp(ms), service: string, status: int, latency: duration(ms) from latency_ms,
        relevance: float?
      }
      require latency between 0s and 120s else "latency out of range"
    }
    stream minutes = requests
      | window tumbling 1m by service
      | aggregate n = count(), errors = count(where status >= 500), p99 = quantile(latency, 0.99),
          mean = avg(latency), spread = stddev(relevance), first_status = first(status)
      | derive error_ratio = errors / n
    stream hops = requests
      | window hopping 5m every 1m by service
      | aggregate total = sum(latency)
    metric requests_total = minutes.n
    metric latency_p99 = minutes.p99
    metric latency_mean = minutes.mean
    metric relevance_spread = minutes.spread
    metric latency_sum_5m = hops.total
    alert Slow { on minutes  when p99 > 1s  for 3m  keep_firing 2m  severity page
      annotations { summary: "{service}: {p99}" } }
    alert Failing { on minutes  when error_ratio > 1%  for 2m }
    """
  private static let partitions = 3

  /// The rules, a recording, a broker with a topic, and the records to feed it.
  private final class Stage {
    let directory: TemporaryDirectory
    let broker: EmbeddedBroker
    let writer: KafkaWriter
    var records: [(partition: Int, payload: [UInt8], millis: Int64)] = []
    var sent = 0
    /// What the last daemon said on standard error.
    var log = ""

    init(minutes: Int = 24, rules: String = ResumptionTests.rules, isByService: Bool = false) throws {
      directory = try TemporaryDirectory()
      broker = try EmbeddedBroker(brokers: 1)
      try broker.createTopic("search.events", partitions: ResumptionTests.partitions)
      writer = try KafkaWriter(brokers: broker.bootstrapServers)
      try Data(rules.utf8).write(to: URL(fileURLWithPath: directory.path("a.rules")))
      var options = SearchTrafficOptions(startNanos: 1_795_230_000_000_000_000)
      options.scenario = .incident
      options.seed = 5
      options.requestsPerSecond = 12
      options.durationNanos = Int64(minutes) * 60_000_000_000
      options.topics = [.events]
      var traffic = SearchTraffic(options: options)
      var batch = TrafficBatch()
      while traffic.fill(&batch, recordsMax: 4_096) {
        for entry in batch.entries {
          let payload = Array(batch.bytes[entry.payload])
          let partition =
            isByService
            ? try Self.service(payload).utf8.reduce(0) { $0 + Int($1) } % ResumptionTests.partitions
            : batch.partition(of: entry, count: ResumptionTests.partitions)
          records.append((partition, payload, entry.eventNanos / 1_000_000))
        }
      }
      for partition in 0..<ResumptionTests.partitions {
        let lines = records.filter { $0.partition == partition }.map { Data($0.payload + [10]) }
        try lines.reduce(into: Data()) { $0 += $1 }
          .write(to: URL(fileURLWithPath: directory.path("\(partition).jsonl")))
      }
    }

    private static func service(_ payload: [UInt8]) throws -> String {
      let row = try JSONSerialization.jsonObject(with: Data(payload)) as? [String: Any]
      return try #require(row?["service"] as? String)
    }

    /// Sends records until `share` of all are sent.
    func send(upTo share: Double) throws {
      let end = Int(Double(records.count) * share)
      while sent < end {
        let record = records[sent]
        try writer.write(
          topic: "search.events", key: [], payload: record.payload, timestampMillis: record.millis,
          partition: Int32(record.partition))
        sent += 1
      }
      try writer.flush()
    }

    var rulesPath: String { directory.path("a.rules") }

    func dryRun() throws -> [String] {
      let inputs = (0..<ResumptionTests.partitions).flatMap {
        ["--input", "requests=\(directory.path("\($0).jsonl"))"]
      }
      let result = runCaptured(
        ["dry-run", rulesPath, "--quiet", "--output", directory.path("dry.jsonl")] + inputs)
      #expect(result.exit == .ok, "\(result.errors)")
      return try directory.lines("dry.jsonl").map(String.init)
    }

    /// Runs the daemon until `isDone`, which is asked many times a second, says so; answers what it wrote.
    func live(
      _ name: String, workers: Int = 2, isBounded: Bool = false, batchRows: Int = RecordBatch.rowsMax,
      isShared: Bool = false, store: (any CheckpointStore)? = nil, storeWaitNanos: Int64 = 60_000_000_000,
      isDone: (StatusBoard) throws -> Bool
    ) throws -> [String] {
      let program = try #require(try loadRules([rulesPath]).program)
      let graph = buildPlan(program).lower()
      let output = CapturedOutput()
      let process = CommandEnvironment.process()
      let environment = CommandEnvironment(
        standardOutput: output, standardError: output, monotonicNanos: process.monotonicNanos,
        sleep: process.sleep, epochNanos: process.epochNanos)
      let board = StatusBoard()
      var failure: (any Error)?
      let deadline = Date().addingTimeInterval(20)
      var setup = RunSetup(
        brokers: broker.bootstrapServers, group: "test", properties: EmbeddedBroker.consumerProperties,
        isBounded: isBounded, workers: workers, batchRows: batchRows, commitNanos: 200_000_000)
      setup.isShared = isShared
      setup.store = store
      setup.storeWaitNanos = storeWaitNanos
      try runDaemon(
        setup, graph: graph, sink: try JSONLinesSink(path: directory.path(name)), listen: nil, environment,
        board: board
      ) {
        do {
          if Date() > deadline {
            Issue.record("the daemon did not get there in 20 s: \(board.current)")
            return true
          }
          return try isDone(board)
        } catch {
          failure = error
          return true
        }
      }
      log = output.text
      if let failure { throw failure }
      return try directory.lines(name).map(String.init)
    }
  }

  private func read(_ board: StatusBoard) -> Int {
    board.current.before.rows + board.current.status.rows
  }

  @Test(arguments: [(1, 4_096), (2, 7), (4, 1)])
  func aBoundedRunIsTheDryRun(workers: Int, batchRows: Int) throws {
    let stage = try Stage()
    try stage.send(upTo: 1)
    let expected = try stage.dryRun()
    #expect(expected.count > 500)
    #expect(expected.contains { $0.contains("\"firing\"") })
    let written = try stage.live(
      "run.jsonl", workers: workers, isBounded: true, batchRows: batchRows
    ) { _ in false }
    #expect(written == expected)
  }

  /// Three daemons one after the other: each is stopped with windows open and an alert pending or firing, and the next
  /// goes on from what the one before has committed. Together they write what one dry run writes, nothing twice.
  @Test func stoppedAndStartedAgain() throws {
    let stage = try Stage()
    let expected = try stage.dryRun()
    var written: [String] = []
    for (number, share) in [0.33, 0.47, 0.71].enumerated() {
      try stage.send(upTo: share)
      var quiet = 0
      var last = -1
      written += try stage.live("run\(number).jsonl", workers: 1 + number % 2) { board in
        let count = board.current.before.rows + board.current.status.rows
        quiet = count == last && count > 0 ? quiet + 1 : 0
        last = count
        // What was behind the committed offset is read again, so the count says nothing: it must have come to rest.
        return quiet > 40
      }
      #expect(!written.isEmpty)
    }
    try stage.send(upTo: 1)
    written += try stage.live("last.jsonl", isBounded: true) { _ in false }
    #expect(Set(written).count == written.count, "a record was written twice")
    #expect(written.sorted() == expected.sorted())
  }

  /// A bounded run goes on from a daemon's checkpoint; not from those of daemons that shared the partitions, whose state
  /// would not fit.
  @Test(arguments: [false, true])
  func aBoundedRunAfterADaemon(isShared: Bool) throws {
    let stage = try Stage()
    let expected = try stage.dryRun()
    let place = stage.directory.path("checkpoints")
    try stage.send(upTo: 0.6)
    let sent = stage.sent
    var written = try stage.live(
      "run.jsonl", isShared: isShared, store: try openCheckpointStore(place, group: "test")
    ) { board in self.read(board) >= sent && board.current.commits > 0 }
    let stored = try openCheckpointStore(place, group: "test").list().map(\.name)
    #expect(!stored.isEmpty)
    try stage.send(upTo: 1)
    func rest() throws -> [String] {
      try stage.live("last.jsonl", isBounded: true, store: try openCheckpointStore(place, group: "test")) { _ in false }
    }
    if isShared {
      let failure = #expect(throws: SourceFailure.self) { try rest() }
      #expect(failure?.description.contains("daemons that shared the partitions") == true)
    } else {
      written += try rest()
      #expect(written.sorted() == expected.sorted())
    }
    #expect(try openCheckpointStore(place, group: "test").list().map(\.name) == stored, "a bounded run stores nothing")
  }

  /// `partitioned by` is believed, and checked: a key in two partitions is a warning and a count, not a failure.
  @Test func aKeyInTwoPartitionsIsAWarning() throws {
    let rules = Self.rules.replacingOccurrences(
      of: "format json", with: "partitioned by service  format json")
    let stage = try Stage(rules: rules, isByService: true)
    try stage.send(upTo: 0.5)
    var seen: StatusBoard?
    func read() throws {
      // Batches of which every row is looked at.
      _ = try stage.live("run.jsonl", isBounded: true, batchRows: 64) { board in
        seen = board
        return false
      }
    }
    try read()
    #expect(seen?.current.brokenKeys == [:] && !stage.log.contains("warning"))
    let stray = try #require(stage.records.first)
    let other = (stray.partition + 1) % Self.partitions
    try stage.writer.write(
      topic: "search.events", key: [], payload: stray.payload, timestampMillis: stray.millis, partition: Int32(other))
    try stage.writer.flush()
    try read()
    // That one row comes too late for windows, being from the beginning; late rows are none of the watch's business.
    #expect(seen?.current.brokenKeys == [:])
    try stage.send(upTo: 0.6)
    let next = try #require(stage.records[stage.sent...].first { $0.partition == stray.partition })
    try stage.writer.write(
      topic: "search.events", key: [], payload: next.payload, timestampMillis: next.millis, partition: Int32(other))
    try stage.writer.flush()
    try read()
    #expect(seen?.current.brokenKeys == ["requests": 1])
    #expect(stage.log.contains("warning: source requests: service \""))
    #expect(stage.log.contains(" of search.events, which is not `partitioned by` these fields"))
  }

  enum Trouble: CaseIterable { case none, passes, stays, isMissing }

  /// A store that does not answer is asked again for a while, and then the state is rebuilt by reading; at once where the
  /// store says that it has no such checkpoint. Each time the records are those of the dry run.
  @Test(arguments: Trouble.allCases)
  func theStoreIsAwayAtTheStart(_ trouble: Trouble) throws {
    let stage = try Stage()
    let expected = try stage.dryRun()
    let place = stage.directory.path("checkpoints")
    try stage.send(upTo: 0.6)
    let sent = stage.sent
    var written = try stage.live("run.jsonl", store: try openCheckpointStore(place, group: "test")) { board in
      self.read(board) >= sent && board.current.commits > 0
    }
    try stage.send(upTo: 1)
    let store = TroubledStore(try openCheckpointStore(place, group: "test"), trouble)
    var seen: StatusBoard?
    var problems: Set<String> = []
    written += try stage.live("last.jsonl", isBounded: true, store: store, storeWaitNanos: 700_000_000) { board in
      seen = board
      problems.formUnion(board.current.problems)
      return false
    }
    #expect(written.sorted() == expected.sorted())
    let board = try #require(seen).current
    // How often within the time depends on the machine.
    #expect(trouble == .stays ? board.restoreRetries >= 1 : board.restoreRetries == (trouble == .passes ? 1 : 0))
    #expect(board.rereads == (trouble == .stays || trouble == .isMissing ? 1 : 0))
    let says = problems.contains { $0.contains("waiting for the checkpoint store") && $0.contains("on holiday") }
    #expect(says == (trouble == .passes || trouble == .stays))
  }

  /// The store of a group that has trouble when manifests are asked for.
  private final class TroubledStore: CheckpointStore {
    private let store: any CheckpointStore
    private let trouble: Trouble
    private var questions = 0

    init(_ store: any CheckpointStore, _ trouble: Trouble) {
      self.store = store
      self.trouble = trouble
    }

    func manifest(named name: String) throws -> CheckpointManifest? {
      questions += 1
      switch trouble {
      case .passes where questions == 1, .stays: throw CheckpointFailure("the database is on holiday", mayPass: true)
      case .isMissing: return nil
      case .none, .passes: return try store.manifest(named: name)
      }
    }

    func write(_ manifest: CheckpointManifest, _ sections: [StateSection]) throws -> CheckpointManifest {
      try store.write(manifest, sections)
    }
    func list() throws -> [CheckpointManifest] { try store.list() }
    func read(_ section: StoredSection, of manifest: CheckpointManifest) throws -> [UInt8] {
      try store.read(section, of: manifest)
    }
    func prune(keep: Int, alive: Set<String>) throws { try store.prune(keep: keep, alive: alive) }
  }

  /// The broker goes away for some seconds in the middle; nothing is lost.
  @Test func theBrokerGoesAway() throws {
    let stage = try Stage()
    let expected = try stage.dryRun()
    try stage.send(upTo: 0.5)
    let half = stage.sent
    var downSince: Date?
    var isBack = false
    var sawProblem = false
    var written = try stage.live("run.jsonl") { board in
      let count = self.read(board)
      if downSince == nil, count >= half / 2 {
        stage.broker.setBrokerDown(1)
        downSince = Date()
      }
      if let since = downSince, !isBack {
        if !board.current.problems.isEmpty { sawProblem = true }
        if Date().timeIntervalSince(since) > 4 {
          stage.broker.setBrokerUp(1)
          isBack = true
          try stage.send(upTo: 0.8)
        }
      }
      return isBack && count >= stage.sent && board.current.problems.isEmpty
    }
    #expect(sawProblem, "readiness never said that the broker was gone")
    try stage.send(upTo: 1)
    written += try stage.live("last.jsonl", isBounded: true) { _ in false }
    #expect(Set(written).sorted() == expected.sorted())
  }
}
