import Traffic

let simulatePage = CommandPage(
  name: "simulate",
  summary: "make seeded, repeatable traffic of a search service, into files or into Kafka",
  positionals: "", positionalCount: 0...0,
  details: """
    Writes requests (search.events), their logs (search.logs) and spans (search.spans), and gauges of
    consumer lag (ops.lag) and disk use (ops.disk). The same options give the same bytes.

    scenarios:
    \(TrafficScenario.allCases.map(scenarioLine).joined(separator: "\n"))
    """,
  options: [
    .option("scenario", "NAME", "what goes wrong, see above; default steady"),
    .option("seed", "N", "default 1"),
    .option("start", "TIME", "the first event time, RFC 3339 in UTC; default 2026-11-21T03:00:00Z"),
    .option("duration", "TIME", "how much event time to make; default 40m"),
    .option("rate", "N", "requests per second over all services; default 200"),
    .option(
      "service", "NAME", repeatable: true,
      "only this one; default all: \(SearchTraffic.serviceNames.joined(separator: ", "))"),
    .option("topic", "NAME", repeatable: true, "only this one; default all"),
    .option("partitions", "N", "partitions of each topic; default 1"),
    .option("out", "DIR", "write DIR/TOPIC.jsonl, or with partitions DIR/TOPIC-0.jsonl and so on"),
    .option(
      "speed", "N", "this many times as fast as life, or max; default max"),
  ],
  examples: [
    CommandExample(
      "rulesd simulate --scenario incident --seed 7 --duration 40m --rate 200 --out traffic",
      "forty minutes of an incident as a recording, ready for rulesd dry-run"),
    CommandExample(
      "rulesd simulate --scenario error_spike --topic search.events --partitions 4 --out traffic",
      "four partitions of one topic"),
  ])

let simulateCommand = Command(simulatePage) { arguments, environment in
  let plan = try SimulationPlan(arguments)
  guard let directory = arguments.text("out") else {
    throw CommandFailure.usage("simulate needs --out DIR")
  }
  let destination = try RecordingDirectory(directory, plan)
  try simulate(plan, into: destination, environment)
  return .ok
}

private func scenarioLine(_ scenario: TrafficScenario) -> String {
  let gap = String(repeating: " ", count: max(1, 16 - scenario.rawValue.count))
  return "  \(scenario.rawValue)\(gap)\(scenario.summary)"
}

/// What `simulate` was asked for, checked.
struct SimulationPlan {
  var traffic: SearchTrafficOptions
  var partitions: Int
  /// Event time per wall-clock time; nil for as fast as it goes.
  var speed: Double?

  init(_ arguments: ParsedArguments) throws(CommandFailure) {
    let startText = arguments.text("start") ?? "2026-11-21T03:00:00Z"
    guard let start = timestampNanos(startText) else {
      throw .usage("--start: `\(startText)` is not a time", hint: "write 2026-11-21T03:00:00Z")
    }
    traffic = SearchTrafficOptions(startNanos: start)
    let scenarios = TrafficScenario.allCases.map(\.rawValue)
    traffic.scenario =
      try arguments.choice("scenario", among: scenarios).flatMap(TrafficScenario.init) ?? .steady
    traffic.seed = UInt64(try arguments.integer("seed", 0...Int.max) ?? 1)
    traffic.durationNanos = try arguments.duration("duration") ?? 40 * 60_000_000_000
    traffic.requestsPerSecond = try arguments.number("rate", 0.001...10_000_000) ?? 200
    for service in arguments.all("service") {
      guard SearchTraffic.serviceNames.contains(service) else {
        throw .usage(
          "--service: there is no `\(service)`",
          hint: "one of \(SearchTraffic.serviceNames.joined(separator: ", "))")
      }
      traffic.services.append(service)
    }
    let names = arguments.all("topic")
    if !names.isEmpty {
      traffic.topics = []
      for name in names {
        guard let topic = TrafficTopic.allCases.first(where: { $0.name == name }) else {
          throw .usage(
            "--topic: there is no `\(name)`",
            hint: "one of \(TrafficTopic.allCases.map(\.name).joined(separator: ", "))")
        }
        traffic.topics.insert(topic)
      }
    }
    partitions = try arguments.integer("partitions", 1...1_024) ?? 1
    if arguments.text("speed") != "max" {
      speed = try arguments.number("speed", 0.001...1_000_000)
    }
  }
}

/// Where simulated records go.
protocol TrafficDestination {
  func write(_ entry: TrafficBatch.Entry, of batch: TrafficBatch, partition: Int) throws
  /// Returns when everything written has arrived.
  func finish() throws
  /// Where that was, for the closing line.
  var description: String { get }
}

/// Makes the traffic and paces it. Notes on standard error how much it was.
func simulate(
  _ plan: SimulationPlan, into destination: some TrafficDestination, _ environment: CommandEnvironment
) throws {
  var traffic = SearchTraffic(options: plan.traffic)
  var batch = TrafficBatch()
  var progress = ProgressLine("records", environment)
  var records = 0
  let wallStart = environment.monotonicNanos()
  // Paced traffic leaves in small steps: at most a tenth of a second of wall-clock time in one.
  let recordsMax = plan.speed.map { max(1, Int($0 * plan.traffic.requestsPerSecond / 10)) } ?? 4_096
  while traffic.fill(&batch, recordsMax: min(recordsMax, 4_096)) {
    if let speed = plan.speed {
      let elapsed = Double(traffic.nowNanos - plan.traffic.startNanos) / speed
      let due = wallStart &+ Int64(elapsed)
      environment.sleep(due &- environment.monotonicNanos())
    }
    for entry in batch.entries {
      let partition = batch.partition(of: entry, count: plan.partitions)
      try destination.write(entry, of: batch, partition: partition)
    }
    records += batch.entries.count
    progress.update(
      count: records,
      share: plan.traffic.durationNanos.map {
        Double(traffic.nowNanos - plan.traffic.startNanos) / Double(max($0, 1))
      })
  }
  try destination.finish()
  progress.finish()
  environment.note("\(grouped(records)) records written to \(destination.description)")
}

/// A directory with a file of JSON lines for each topic, or for each partition of it.
struct RecordingDirectory: TrafficDestination {
  let description: String
  private let partitions: Int
  private let files: [TrafficTopic: [RecordingFile]]

  init(_ path: String, _ plan: SimulationPlan) throws(CommandFailure) {
    try makeDirectories(path)
    description = path
    partitions = plan.partitions
    var files: [TrafficTopic: [RecordingFile]] = [:]
    for topic in plan.traffic.topics {
      for partition in 0..<partitions {
        let suffix = partitions == 1 ? "" : "-\(partition)"
        files[topic, default: []].append(
          try RecordingFile(path: "\(path)/\(topic.name)\(suffix).jsonl"))
      }
    }
    self.files = files
  }

  func write(_ entry: TrafficBatch.Entry, of batch: TrafficBatch, partition: Int) throws {
    try files[entry.topic]?[partition].append(line: batch.bytes[entry.payload])
  }

  func finish() throws {
    for file in files.values.joined() { try file.finish() }
  }
}
