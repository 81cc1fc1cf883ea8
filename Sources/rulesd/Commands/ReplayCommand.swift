import Connectors
import Runtime

let replayPage = CommandPage(
  name: "replay",
  summary: "write dead letters and late rows back to the topics they came from, after a fix",
  positionals: "[FILE…]", positionalCount: 0...CommandPage.unlimited,
  details: """
    Reads records of type dead_letter and late from files (JSON lines as rulesd writes them, or kcat -J
    around them; plain, .gz or .zst; - is standard input), or with --from from topics, from their
    beginning to the end that they have now. The original payload and key are written to the topic
    and partition that the record names, with the header rulesd-replays counted up: a record that
    fails again shows it, and is left alone once it has come back --max-replays times.

    A replayed row has the event time that it always had: where its window has closed, it is late. With
    --to or --to-file it can be looked at apart. Replaying the same records twice writes them twice.

    Exit code 0 when every record that was asked for is written, 1 when some could not be (payloads that
    were cut off, tombstones, records that came back too often, lines that are no records), 2 for
    usage and environment.
    """,
  options: [
    .option("kafka", "BROKERS", "host:port, several with commas: where --from and the origin topics are"),
    .option("from", "TOPIC", repeatable: true, "a topic of dead letters or late rows, such as rulesd.dead_letters"),
    .option("to", "TOPIC", "write all records to this topic, by their keys, instead of where they came from"),
    .option("to-file", "FILE", "write a recording (kcat -J) instead, for rulesd dry-run"),
    .option("reason", "TEXT", repeatable: true, "only records whose reason contains this; several: any of them"),
    .option("rule", "NAME", repeatable: true, "only records of this source"),
    .option("since", "TIME", "only records of this time or later, RFC 3339 in UTC; those without a time are left out"),
    .option("until", "TIME", "only records before this time"),
    .option("limit", "N", "at most this many"),
    .option("rate", "N", "at most this many a second"),
    .option("max-replays", "N", "leave records alone that came back this often; default 3"),
    .flag("dry-run", letter: "n", "write nothing: count by topic and reason"),
  ] + kafkaSecurityOptions,
  examples: [
    CommandExample(
      "rulesd replay --kafka localhost:9092 --from rulesd.dead_letters --dry-run",
      "what is there, by topic and reason"),
    CommandExample(
      "rulesd replay --kafka k1:9092 --from rulesd.dead_letters --reason latency_ms --since 2026-11-21 --rate 500",
      "what failed since that day for the sake of one field, gently"),
    CommandExample(
      "rulesd replay dead.jsonl.zst --rule requests --to-file again.jsonl",
      "a recording of the original records, to try mended rules on"),
  ])

let replayCommand = Command(replayPage) { arguments, environment in
  let files = arguments.positionals
  let topics = arguments.all("from")
  guard files.isEmpty != topics.isEmpty else {
    throw CommandFailure.usage(
      "replay reads either files or --from TOPIC", hint: "rulesd replay --help shows examples")
  }
  var replay = Replay(environment: environment)
  replay.filter = try replayFilter(arguments)
  replay.replaysMax = try arguments.integer("max-replays", 1...RecordDetails.replaysMax) ?? 3
  replay.limit = try arguments.integer("limit", 0...Int.max) ?? .max
  replay.rate = try arguments.number("rate", 0.001...10_000_000)
  do {
    let properties = try kafkaProperties(arguments, environment)
    replay.target = try replayTarget(arguments, properties)
    if topics.isEmpty {
      try read(files: files, into: &replay)
    } else {
      let brokers = try replayBrokers(arguments)
      for topic in topics where !replay.isDone {
        let reader = try KafkaTopicReader(brokers: brokers, topic: topic, properties: properties)
        while !replay.isDone, let message = try reader.next() { try replay.take(message.payload ?? []) }
      }
    }
    try replay.finish()
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure.environment("\(error)")
  }
  try environment.standardOutput.write(replay.report())
  environment.note(
    "\(counted(replay.replayedCount, "record")) \(replay.target == nil ? "to replay" : "replayed"), "
      + "\(grouped(replay.refusedCount)) left alone, \(grouped(replay.passedOver)) not asked for, "
      + "\(grouped(replay.unreadable)) unreadable")
  return replay.refusedCount > 0 || replay.unreadable > 0 ? .refused : .ok
}

private func read(files: [String], into replay: inout Replay) throws {
  for path in files where !replay.isDone {
    let file = try LineFile(path: path)
    while !replay.isDone, let line = try file.next() { try replay.take(line) }
    replay.noteUnreadable(file.oversizedCount)
  }
}

private func replayFilter(_ arguments: ParsedArguments) throws(CommandFailure) -> ReplayFilter {
  var filter = ReplayFilter()
  filter.reasons = arguments.all("reason")
  filter.rules = Set(arguments.all("rule"))
  func time(_ option: String) throws(CommandFailure) -> Int64? {
    guard let text = arguments.text(option) else { return nil }
    guard let nanos = timestampNanos(text) else {
      throw .usage("--\(option): `\(text)` is not a time", hint: "write 2026-11-21T03:00:00Z")
    }
    return nanos
  }
  filter.sinceNanos = try time("since")
  filter.untilNanos = try time("until")
  return filter
}

private func replayBrokers(_ arguments: ParsedArguments) throws(CommandFailure) -> String {
  guard let brokers = arguments.text("kafka") else { throw .usage("replay needs --kafka BROKERS") }
  return brokers
}

private func replayTarget(
  _ arguments: ParsedArguments, _ properties: [KafkaProperty]
) throws -> (any ReplayTarget)? {
  if arguments.flag("dry-run") { return nil }
  if let path = arguments.text("to-file") {
    return RecordingTarget(try RecordingFile(path: path), topic: arguments.text("to"))
  }
  let writer = try KafkaWriter(brokers: try replayBrokers(arguments), properties: properties)
  return TopicTarget(writer, topic: arguments.text("to"))
}
