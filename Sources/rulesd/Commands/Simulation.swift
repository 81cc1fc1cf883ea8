import Connectors
import Traffic

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

/// Kafka topics by the names that the rules know them by.
struct KafkaTopics: TrafficDestination {
  let writer: KafkaWriter
  let brokers: String
  let suffix: String
  /// Whether a record's partition is the one that a recording would have it in; else the key's hash decides,
  /// over as many as the topic has.
  let hasPartitions: Bool

  var description: String { brokers }

  func write(_ entry: TrafficBatch.Entry, of batch: TrafficBatch, partition: Int) throws {
    try writer.write(
      topic: entry.topic.name + suffix, key: Array(batch.keys[entry.key]),
      payload: Array(batch.bytes[entry.payload]), timestampMillis: entry.eventNanos / 1_000_000,
      partition: hasPartitions ? Int32(partition) : -1)
  }

  func finish() throws { try writer.flush() }
}
