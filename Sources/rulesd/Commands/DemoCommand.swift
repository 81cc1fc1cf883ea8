import Connectors
import Glibc
import Planner
import Runtime
import Traffic

let demoPage = CommandPage(
  name: "demo",
  summary: "an incident through an embedded broker: what fires, on which evidence, when it resolves",
  positionals: "RULES…", positionalCount: 1...CommandPage.unlimited,
  details: """
    Simulates the traffic into a Kafka broker inside this process and runs the rules on it as `rulesd run`
    does; then dry-runs them over a recording of the same traffic and compares the alerts. Exit code 1 when
    they differ.
    """,
  options: [
    .option("scenario", "NAME", "as of rulesd simulate; default incident"),
    .option("seed", "N", "default 7"),
    .option("rate", "N", "requests per second of event time; default 60"),
    .option("duration", "TIME", "how much event time; default 30m"),
    .option("speed", "N", "this many times as fast as life; default 150"),
    .option("keep", "DIR", "keep the recording there; default a temporary directory"),
  ],
  examples: [
    CommandExample("rulesd demo rules/search-quality", "the incident that make demo shows")
  ])

let demoCommand = Command(demoPage) { arguments, environment in
  let program = try loadProgram(arguments.positionals, environment)
  let scenarios = TrafficScenario.allCases.map(\.rawValue)
  var traffic = SearchTrafficOptions(startNanos: timestampNanos("2026-11-21T03:00:00Z") ?? 0)
  traffic.scenario =
    try arguments.choice("scenario", among: scenarios).flatMap(TrafficScenario.init) ?? .incident
  traffic.seed = UInt64(try arguments.integer("seed", 0...Int.max) ?? 7)
  traffic.requestsPerSecond = try arguments.number("rate", 1...10_000) ?? 60
  traffic.durationNanos = try arguments.duration("duration") ?? 30 * 60_000_000_000
  let read = Set(program.sources.compactMap(\.topic))
  traffic.topics = Set(TrafficTopic.allCases.filter { read.contains($0.name) })
  guard !traffic.topics.isEmpty else {
    throw CommandFailure.usage("the rules read none of the topics that rulesd simulate makes")
  }
  let demo = Demo(
    rules: arguments.positionals, graph: buildPlan(program).lower(), traffic: traffic,
    speed: try arguments.number("speed", 1...10_000) ?? 150, keptPath: arguments.text("keep"),
    sources: program.sources.compactMap { source in
      TrafficTopic.allCases.first { $0.name == source.topic }.map { (source.name, $0) }
    })
  do {
    return try demo.run(environment) ? .ok : .refused
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure.environment("\(error)")
  }
}

/// The traffic, the broker, the daemon and the recording of one demonstration.
private struct Demo {
  private static let partitionsMax = 4
  /// After the last record was read: longer than any worker is silent while it still has something to say.
  private static let quietNanos: Int64 = 500_000_000
  /// A daemon that has not read everything by then, after the last record was sent, will not.
  private static let patienceNanos: Int64 = 30_000_000_000

  /// A gauge has a handful of keys: over several partitions some would stay empty, and an empty partition of
  /// a live topic holds event time back until it counts as idle, which is long at this speed.
  private static func partitions(of topic: TrafficTopic) -> Int {
    switch topic {
    case .events, .logs, .spans: partitionsMax
    case .lag, .disk: 1
    }
  }

  let rules: [String]
  let graph: Graph
  let traffic: SearchTrafficOptions
  let speed: Double
  let keptPath: String?
  let sources: [(name: String, topic: TrafficTopic)]

  /// Whether the dry run said the same.
  func run(_ environment: CommandEnvironment) throws -> Bool {
    let directory = try RecordingFolder(keeping: keptPath)
    let broker = try EmbeddedBroker()
    for topic in traffic.topics { try broker.createTopic(topic.name, partitions: Self.partitions(of: topic)) }
    try environment.say(
      "\(minutes(traffic.durationNanos ?? 0)) of a search service (\(traffic.scenario.rawValue)), "
        + "\(grouped(Int(speed))) times as fast as life,\n"
        + "through a Kafka broker in this process (\(broker.bootstrapServers)) into `rulesd run`:\n")
    let began = environment.monotonicNanos()
    let sink = DemoSink(environment)
    try feed(broker, directory.path, sink, environment)
    let seconds = Double(environment.monotonicNanos() - began) / 1e9
    let told = sink.contents
    try environment.say(
      "\n\(counted(told.timeline.firedCount, "alert")) fired, \(told.timeline.resolvedCount) resolved, "
        + "in \((seconds * 10).rounded() / 10) s.")
    return try compare(told.alerts, directory.path, environment)
  }

  /// Sends the traffic at its speed while the daemon runs on it, and returns when all of it has been worked
  /// on.
  private func feed(
    _ broker: EmbeddedBroker, _ directory: String, _ sink: DemoSink, _ environment: CommandEnvironment
  ) throws {
    var simulation = SearchTraffic(options: traffic)
    var batch = TrafficBatch()
    let plan = SimulationPlan(traffic: traffic, partitions: Self.partitionsMax, speed: speed)
    let recording = try RecordingDirectory(directory, plan)
    let writer = try KafkaWriter(brokers: broker.bootstrapServers)
    let topics = KafkaTopics(
      writer: writer, brokers: broker.bootstrapServers, suffix: "", hasPartitions: true)
    let board = StatusBoard()
    let began = environment.monotonicNanos()
    var sentCount = 0
    var sentAll: Int64?
    var failure: (any Error)?
    // The daemon asks many times a second whether to stop: that is when the next traffic leaves, so that the
    // demo needs no thread of its own.
    func isDone() -> Bool {
      let now = environment.monotonicNanos()
      do {
        let due = Double(now - began) * speed
        while sentAll == nil, Double(simulation.nowNanos - traffic.startNanos) < due {
          if simulation.fill(&batch, recordsMax: 64) {
            for entry in batch.entries {
              let partition = batch.partition(
                of: entry, count: Self.partitions(of: entry.topic))
              try topics.write(entry, of: batch, partition: partition)
              try recording.write(entry, of: batch, partition: partition)
            }
            sentCount += batch.entries.count
          } else {
            try topics.finish()
            try recording.finish()
            sentAll = environment.monotonicNanos()
          }
        }
      } catch {
        failure = error
        return true
      }
      guard let sentAll else { return false }
      let status = board.current
      let isRead = status.before.rows + status.status.rows >= sentCount
      if now - sentAll > Self.patienceNanos {
        failure = CommandFailure.environment("the daemon has not read everything that was sent")
        return true
      }
      return isRead && now - max(sink.lastWrittenNanos, sentAll) > Self.quietNanos
    }
    try runDaemon(
      RunSetup(brokers: broker.bootstrapServers, group: "demo", workers: coreCount()), graph: graph,
      sink: sink, listen: nil, environment, board: board, isStopping: isDone)
    if let failure { throw failure }
  }

  /// Dry-runs the rules over the recording, and says whether they paged for the same.
  private func compare(
    _ live: [String], _ directory: String, _ environment: CommandEnvironment
  ) throws -> Bool {
    var arguments = ["dry-run"] + rules
    arguments += ["--only", "alert", "--quiet", "--output", "\(directory)/alerts.jsonl"]
    for (source, topic) in sources {
      for partition in 0..<Self.partitions(of: topic) {
        arguments += ["--input", "\(source)=\(directory)/\(topic.name)-\(partition).jsonl"]
      }
    }
    let exit = runCommandLine(arguments, environment)
    guard exit == .ok else { throw CommandFailure(exitCode: exit, message: "the dry run failed", hint: nil) }
    let bytes = try readWhole("\(directory)/alerts.jsonl")
    let recorded = bytes.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
    // The daemon was stopped with its last windows open, as ever; a recording has an end, and closes them.
    let end = traffic.startNanos + (traffic.durationNanos ?? 0) - 60_000_000_000
    func closed(_ lines: [String]) -> [String] {
      lines.filter { line in
        JSONValue(Array(line.utf8))?["time"]?.text.flatMap(timestampNanos).map { $0 <= end } ?? false
      }.sorted()
    }
    let (fromKafka, fromRecording) = (closed(live), closed(recorded))
    if fromKafka == fromRecording {
      try environment.say(
        "A dry run over the recording of the same traffic wrote the same "
          + "\(counted(fromRecording.count, "alert record")), byte for byte.")
      return true
    }
    try environment.say("The dry run over the recording of the same traffic differs:")
    for line in fromKafka where !fromRecording.contains(line) { try environment.say("  run      \(line)") }
    for line in fromRecording where !fromKafka.contains(line) { try environment.say("  dry run  \(line)") }
    return false
  }

  private func minutes(_ nanos: Int64) -> String {
    counted(Int(nanos / 60_000_000_000), "minute")
  }
}

/// A directory that is gone with its files when this is, unless somebody wants to keep it.
private final class RecordingFolder {
  let path: String
  private let isKept: Bool

  init(keeping kept: String?) throws(CommandFailure) {
    isKept = kept != nil
    if let kept {
      path = kept
      return
    }
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/rulesd-demo-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw .environment("cannot make a directory in \(parent): \(errorText(errno))")
    }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    if isKept { return }
    for name in (try? fileNames(in: path)) ?? [] { unlink("\(path)/\(name)") }
    rmdir(path)
  }
}
