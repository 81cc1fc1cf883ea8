import Traffic

let benchPage = CommandPage(
  name: "bench",
  summary: "make the benchmark's events and rules, the same on every machine",
  positionals: "", positionalCount: 0...0,
  details: """
    bench/run.sh measures with them; bench/README.md says what they hold. DIR gets part-0.jsonl and so on,
    each a partition, and one.rules, hundred.rules and thousand.rules, with 1, 100 and 1,000 rules.
    """,
  options: [
    .option("generate", "DIR", "where to write"),
    .option("rows", "N", "events over all files; default 1000000"),
    .option("partitions", "N", "files; default 4"),
    .option("seed", "N", "default 1"),
  ],
  examples: [
    CommandExample(
      "rulesd bench --generate bench/out/data --rows 1000000",
      "a million events of about 250 bytes in four files, and the three rule files")
  ])

let benchCommand = Command(benchPage) { arguments, environment in
  guard let directory = arguments.text("generate") else {
    throw CommandFailure.usage("bench needs --generate DIR")
  }
  let rows = try arguments.integer("rows", 1...1_000_000_000) ?? 1_000_000
  let partitions = try arguments.integer("partitions", 1...1_024) ?? 4
  let seed = UInt64(try arguments.integer("seed", 0...Int.max) ?? 1)
  try makeDirectories(directory)
  var progress = ProgressLine("events", environment)
  var done = 0
  for partition in 0..<partitions {
    let file = try RecordingFile(path: "\(directory)/part-\(partition).jsonl")
    // The first partitions take the remainder.
    let own = rows / partitions + (partition < rows % partitions ? 1 : 0)
    var events = BenchEvents(seed: seed, partition: partition, rows: own)
    var left = own
    while left > 0 {
      let count = min(left, 1_000)
      try file.edit { _ = events.append(lines: count, to: &$0) }
      left -= count
      done += count
      progress.update(count: done, share: Double(done) / Double(rows))
    }
    try file.finish()
  }
  for (name, text) in [
    ("one", BenchRules.one), ("hundred", BenchRules.many(100)), ("thousand", BenchRules.many(1_000)),
  ] {
    let file = try RecordingFile(path: "\(directory)/\(name).rules")
    try file.edit { $0.append(contentsOf: text.utf8) }
    try file.finish()
  }
  progress.finish()
  environment.note("\(grouped(rows)) events in \(partitions) files, and three rule files, in \(directory)")
  return .ok
}
