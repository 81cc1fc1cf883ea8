import Connectors
import Glibc
import Planner
import Runtime
import Traffic

let demoPage = CommandPage(
  name: "demo",
  summary: "an incident through an embedded broker: what fires, on which evidence, when it resolves",
  positionals: "RULES", positionalCount: 1...1,
  details: """
    Simulates the traffic into a Kafka broker inside this process and runs the rules on it as `rulesd run`
    does; then dry-runs them over a recording of the same traffic and compares the alerts.
    """,
  options: [
    .option("seed", "N", "default 7"),
    .option("rate", "N", "requests per second of event time; default 60"),
    .option("duration", "TIME", "how much event time; default 32m"),
    .option("keep", "DIR", "keep the recording there; default a temporary directory"),
  ],
  examples: [
    CommandExample("rulesd demo rules/search-quality", "the incident that make demo shows")
  ])

let demoCommand = Command(demoPage) { arguments, environment in
  let program = try loadProgram(arguments.positionals, environment)
  let graph = buildPlan(program).lower()
  var traffic = SearchTrafficOptions(startNanos: timestampNanos("2026-11-21T03:00:00Z") ?? 0)
  traffic.scenario = .incident
  traffic.seed = UInt64(try arguments.integer("seed", 0...Int.max) ?? 7)
  traffic.requestsPerSecond = try arguments.number("rate", 0.1...10_000) ?? 60
  traffic.durationNanos = try arguments.duration("duration") ?? 32 * 60_000_000_000
  let read = Set(graph.sources.compactMap(\.schema.topic))
  traffic.topics = traffic.topics.filter { read.contains($0.name) }
  // The embedded broker keeps 5 MiB of each partition and drops what is older: more partitions, more room.
  let plan = SimulationPlan(traffic: traffic, partitions: 8, speed: nil)
  let workers = coreCount()
  do {
    let recording = try ScratchDirectory(keeping: arguments.text("keep"))
    defer { recording.remove() }
    let broker = try EmbeddedBroker()
    for topic in traffic.topics { try broker.createTopic(topic.name, partitions: plan.partitions) }
    try environment.say("1. An incident of \(traffic.durationNanos.map(minutesText) ?? "") on a search service, into an embedded Kafka broker at \(broker.bootstrapServers)")
    try simulate(
      plan,
      into: Twice(
        try RecordingDirectory(recording.path, plan),
        KafkaTopics(
          writer: try KafkaWriter(brokers: broker.bootstrapServers), brokers: broker.bootstrapServers,
          suffix: "", hasPartitions: true)), environment)

    try environment.say("\n2. rulesd run \(arguments.positionals.joined(separator: " ")) --kafka \(broker.bootstrapServers)\n")
    let live = AlertSink(environment)
    let began = environment.monotonicNanos()
    try runDaemon(
      RunSetup(brokers: broker.bootstrapServers, group: "demo", isBounded: true, workers: workers),
      graph: graph, sink: live, listen: nil, environment, isStopping: { false })
    let seconds = Double(environment.monotonicNanos() - began) / 1e9
    let factor = Double(traffic.durationNanos ?? 0) / 1e9 / max(seconds, 1e-9)
    try environment.say(
      "\n   \(counted(live.timeline.firedCount, "alert")) fired, \(live.timeline.resolvedCount) resolved; "
        + "\(grouped(Int(factor))) times faster than life")

    try environment.say("\n3. rulesd dry-run \(arguments.positionals.joined(separator: " ")) over the recording of the same incident")
    let again = AlertSink(nil)
    try dryRunRecording(
      recording.path, plan, graph: graph, workers: workers, sink: SharedSink(again))
    guard again.alerts == live.alerts else {
      try environment.say("   the alerts differ: \(live.alerts.count) live, \(again.alerts.count) dry")
      return .refused
    }
    try environment.say(
      "   the same \(counted(live.alerts.count, "alert record")), byte for byte: a dry run is the real run")
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure.environment("\(error)")
  }
  return .ok
}

private func minutesText(_ nanos: Int64) -> String { "\(nanos / 60_000_000_000) minutes" }

private func dryRunRecording(
  _ directory: String, _ plan: SimulationPlan, graph: Graph, workers: Int, sink: SharedSink
) throws {
  var starts: [PartitionStart] = []
  for node in graph.sources {
    let paths = (0..<plan.partitions).map { "\(directory)/\(node.schema.topic ?? "")-\($0).jsonl" }
    for reader in try openRecordings(paths: paths, schema: node.schema) {
      starts.append(PartitionStart(reader: reader, committedOffset: nil, metadata: ""))
    }
  }
  let engine = Engine(
    graph: graph, options: EngineOptions(workers: workers), partitions: starts,
    sink: sink)
  try engine.start()
  try engine.wait()
}

/// Shows alerts as they come, and keeps their text for a comparison.
private final class AlertSink: RecordSink {
  private let environment: CommandEnvironment?
  private(set) var timeline: AlertTimeline
  private(set) var alerts: [[UInt8]] = []

  /// Shows nothing without an environment.
  init(_ environment: CommandEnvironment?) {
    self.environment = environment
    timeline = AlertTimeline(useColor: environment?.standardOutput.isTerminal ?? false)
  }

  func write(_ batch: OutputBatch) throws {
    for entry in batch.entries where entry.kind == .alert {
      let text = Array(batch.bytes[entry.start..<entry.start + entry.length])
      alerts.append(text)
      guard let record = JSONValue(text), let lines = timeline.lines(for: record) else { continue }
      try environment?.say(lines)
    }
  }

  func flush() {}
  var problem: String? { nil }
  func close() {}
}

/// Traffic that goes to two places.
private struct Twice<A: TrafficDestination, B: TrafficDestination>: TrafficDestination {
  let first: A
  let second: B
  init(_ first: A, _ second: B) {
    self.first = first
    self.second = second
  }
  var description: String { "\(second.description), and a recording of them to \(first.description)" }
  func write(_ entry: TrafficBatch.Entry, of batch: TrafficBatch, partition: Int) throws {
    try first.write(entry, of: batch, partition: partition)
    try second.write(entry, of: batch, partition: partition)
  }
  func finish() throws {
    try first.finish()
    try second.finish()
  }
}

/// A directory that goes away again, unless somebody wants to keep it.
private struct ScratchDirectory {
  let path: String
  private let isKept: Bool

  init(keeping path: String?) throws(CommandFailure) {
    isKept = path != nil
    if let path {
      self.path = path
      return
    }
    var template = Array("/tmp/rulesd-demo.XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw .environment("cannot make a directory in /tmp: \(errorText(errno))")
    }
    self.path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  func remove() {
    guard !isKept, let directory = opendir(path) else { return }
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      unlink("\(path)/\(name)")
    }
    closedir(directory)
    rmdir(path)
  }
}
