import Connectors
import Glibc
import Traffic

let benchPage = CommandPage(
  name: "bench",
  summary: "make the benchmark's events and rules, the same on every machine",
  positionals: "", positionalCount: 0...0,
  details: """
    bench/run.sh measures with them; bench/README.md says what they hold. With --generate, DIR gets
    part-0.jsonl and so on, each a partition, and one.rules, hundred.rules and thousand.rules, with 1, 100
    and 1,000 rules. With --serve the same events stand in a topic until standard input ends.
    """,
  options: [
    .option("generate", "DIR", "write files into this directory"),
    .flag("serve", "write a topic; prints the brokers and the topic's name when all events are there"),
    .flag("detectors", "measure what detectors cost, in millions of rows of windows a second"),
    .option("windows", "N", "with --detectors: rows of each key; default 30"),
    .option("checkpoints", "DIR", "measure what checkpoints cost, with files and checkpoints in this directory"),
    .option("keys", "N", "with --checkpoints: keys alive; default 1000000; with --detectors 100000"),
    .option("seconds", "N", "with --checkpoints: how long each run is; default 45"),
    .option("rounds", "N", "with --checkpoints: pairs of runs; default 3"),
    .option("checkpoint-every", "TIME", "with --checkpoints; default 10s"),
    .option("kafka", "BROKERS", "with --serve: these brokers; default a broker inside this process"),
    .option("rows", "N", "events over all partitions; default 1000000"),
    .option("partitions", "N", "files, or partitions of the embedded broker's topic; default 4"),
    .option("seed", "N", "default 1"),
  ],
  examples: [
    CommandExample(
      "rulesd bench --generate bench/out/data --rows 1000000",
      "a million events of about 250 bytes in four files, and the three rule files"),
    CommandExample(
      "rulesd bench --serve --rows 100000 --partitions 16",
      "a hundred thousand events in a topic of an embedded broker"),
  ])

let benchCommand = Command(benchPage) { arguments, environment in
  let load = BenchLoad(
    rows: try arguments.integer("rows", 1...1_000_000_000) ?? 1_000_000,
    partitions: try arguments.integer("partitions", 1...1_024) ?? 4,
    seed: UInt64(try arguments.integer("seed", 0...Int.max) ?? 1))
  if let directory = arguments.text("checkpoints") {
    let bench = CheckpointBench(
      keys: try arguments.integer("keys", 4...100_000_000) ?? 1_000_000,
      seconds: try arguments.integer("seconds", 1...3_600) ?? 45, rounds: try arguments.integer("rounds", 1...99) ?? 3,
      checkpointNanos: try arguments.duration("checkpoint-every") ?? 10_000_000_000, directory: directory)
    try bench.run(environment)
    return .ok
  }
  if arguments.flag("detectors") {
    try DetectorBench(
      keys: try arguments.integer("keys", 1...10_000_000) ?? 100_000,
      windows: try arguments.integer("windows", 1...100_000) ?? 30
    ).run(environment)
    return .ok
  }
  switch (arguments.text("generate"), arguments.flag("serve")) {
  case (let directory?, false): try load.generate(into: directory, environment)
  case (nil, true): try load.serve(on: arguments.text("kafka"), environment)
  default: throw CommandFailure.usage("bench needs --generate DIR, --serve, --detectors or --checkpoints DIR")
  }
  return .ok
}

/// The benchmark's events, on their way to files or to a topic.
private struct BenchLoad {
  /// Lines that are made at a time.
  private static let stepLines = 1_000
  let rows: Int
  let partitions: Int
  let seed: UInt64

  /// Makes all events, a partition behind the other, and hands them on in steps of whole lines.
  private func make(
    _ environment: CommandEnvironment, _ take: (_ partition: Int, _ lines: [UInt8]) throws -> Void
  ) throws {
    var progress = ProgressLine("events", environment)
    defer { progress.finish() }
    var done = 0
    var lines: [UInt8] = []
    for partition in 0..<partitions {
      // The first partitions take the remainder.
      let own = rows / partitions + (partition < rows % partitions ? 1 : 0)
      var events = BenchEvents(seed: seed, partition: partition, rows: own)
      var left = own
      while left > 0 {
        let count = min(left, Self.stepLines)
        lines.removeAll(keepingCapacity: true)
        _ = events.append(lines: count, to: &lines)
        try take(partition, lines)
        left -= count
        done += count
        progress.update(count: done, share: Double(done) / Double(rows))
      }
    }
  }

  func generate(into directory: String, _ environment: CommandEnvironment) throws {
    try makeDirectories(directory)
    let files = try (0..<partitions).map { try RecordingFile(path: "\(directory)/part-\($0).jsonl") }
    try make(environment) { partition, lines in
      try files[partition].edit { $0.append(contentsOf: lines) }
    }
    for file in files { try file.finish() }
    for (name, text) in [
      ("one", BenchRules.one), ("hundred", BenchRules.many(100)), ("thousand", BenchRules.many(1_000)),
    ] {
      let file = try RecordingFile(path: "\(directory)/\(name).rules")
      try file.edit { $0.append(contentsOf: text.utf8) }
      try file.finish()
    }
    environment.note(
      "\(grouped(rows)) events in \(partitions) files, and three rule files, in \(directory)")
  }

  func serve(on brokers: String?, _ environment: CommandEnvironment) throws {
    var embedded: EmbeddedBroker?
    var topic = "bench.events"
    if brokers == nil {
      embedded = try EmbeddedBroker()
      try embedded?.createTopic(topic, partitions: partitions)
    } else {
      // Brokers that last would give this run the events of the one before.
      topic += ".\(getpid())"
    }
    let servers = brokers ?? embedded?.bootstrapServers ?? ""
    let writer = try KafkaWriter(brokers: servers)
    // A topic that brokers make by themselves has as many partitions as they like: there the key decides.
    let isOurs = brokers == nil
    try make(environment) { partition, lines in
      for line in lines.split(separator: UInt8(ascii: "\n")) {
        try writer.write(
          topic: topic, key: Array("\(partition)".utf8), payload: Array(line), timestampMillis: 0,
          partition: isOurs ? Int32(partition) : -1)
      }
    }
    try writer.flush()
    try environment.say("\(servers) \(topic)")
    // Whoever started this holds the other end, and lets go when it is done.
    var byte: UInt8 = 0
    while read(STDIN_FILENO, &byte, 1) != 0 && errno != EBADF {}
    withExtendedLifetime(embedded) {}
  }
}
