import Connectors
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
    .option(
      "start", "TIME",
      "the first event time, RFC 3339 in UTC, or now; default now for Kafka, 2026-11-21T03:00:00Z for files"),
    .option("duration", "TIME", "how much event time to make; default no end for Kafka, 40m for files"),
    .option("rate", "N", "requests per second over all services; default 200"),
    .option(
      "service", "NAME", repeatable: true,
      "only this one; default all: \(SearchTraffic.serviceNames.joined(separator: ", "))"),
    .option("topic", "NAME", repeatable: true, "only this one; default all"),
    .option("partitions", "N", "partitions of each topic; default 1"),
    .option("out", "DIR", "write DIR/TOPIC.jsonl, or with partitions DIR/TOPIC-0.jsonl and so on"),
    .option("kafka", "BROKERS", "write to these brokers instead: host:port, several with commas"),
    .option("topic-suffix", "TEXT", "behind the name of each Kafka topic"),
    .option("speed", "N", "this many times as fast as life, or max; default 1 for Kafka, max for files"),
  ] + kafkaSecurityOptions,
  examples: [
    CommandExample(
      "rulesd simulate --scenario incident --seed 7 --duration 40m --rate 200 --out traffic",
      "forty minutes of an incident as a recording, ready for rulesd dry-run"),
    CommandExample(
      "rulesd simulate --kafka localhost:9092 --scenario slow_queries --speed 60",
      "an hour of traffic a minute, into a broker, until it is stopped"),
    CommandExample(
      "rulesd simulate --scenario error_spike --topic search.events --partitions 4 --out traffic",
      "four partitions of one topic"),
  ])

let simulateCommand = Command(simulatePage) { arguments, environment in
  let plan = try SimulationPlan(arguments, nowNanos: environment.epochNanos())
  switch (arguments.text("out"), arguments.text("kafka")) {
  case (let directory?, nil):
    try simulate(plan, into: try RecordingDirectory(directory, plan), environment)
  case (nil, let brokers?):
    let properties = try kafkaProperties(arguments, environment)
    let writer = try KafkaWriter(brokers: brokers, properties: properties)
    let topics = KafkaTopics(
      writer: writer, brokers: brokers, suffix: arguments.text("topic-suffix") ?? "",
      hasPartitions: arguments.text("partitions") != nil)
    try simulate(plan, into: topics, environment)
  case (nil, nil), (.some, .some):
    throw CommandFailure.usage("simulate needs either --out DIR or --kafka BROKERS")
  }
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

  init(traffic: SearchTrafficOptions, partitions: Int, speed: Double?) {
    self.traffic = traffic
    self.partitions = partitions
    self.speed = speed
  }

  init(_ arguments: ParsedArguments, nowNanos: Int64) throws(CommandFailure) {
    let isLive = arguments.text("kafka") != nil
    let startText = arguments.text("start") ?? (isLive ? "now" : "2026-11-21T03:00:00Z")
    guard let start = startText == "now" ? nowNanos : timestampNanos(startText) else {
      throw .usage("--start: `\(startText)` is not a time", hint: "write 2026-11-21T03:00:00Z or now")
    }
    traffic = SearchTrafficOptions(startNanos: start)
    let scenarios = TrafficScenario.allCases.map(\.rawValue)
    traffic.scenario =
      try arguments.choice("scenario", among: scenarios).flatMap(TrafficScenario.init) ?? .steady
    traffic.seed = UInt64(try arguments.integer("seed", 0...Int.max) ?? 1)
    traffic.durationNanos = try arguments.duration("duration") ?? (isLive ? nil : 40 * 60_000_000_000)
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
      speed = try arguments.number("speed", 0.001...1_000_000) ?? (isLive ? 1 : nil)
    }
  }
}
