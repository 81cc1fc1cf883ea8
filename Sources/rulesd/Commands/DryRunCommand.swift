import Connectors
import Planner
import RuleLang
import Runtime

let dryRunPage = CommandPage(
  name: "dry-run",
  summary: "run rules over recordings: the records they would have written, and a summary",
  positionals: "RULES…", positionalCount: 1...CommandPage.unlimited,
  details: """
    A recording is JSON lines, plain, .gz or .zst: bare payloads, or what `kcat -J` writes. Several files
    for one source are its partitions. The output does not depend on workers or batches, and is that of
    `rulesd run` on the same rows.
    """,
  options: [
    .option("input", "SOURCE=FILE", repeatable: true, "a recording of a source; - is standard input"),
    .option("output", "FILE", "where the records go; default standard output"),
    .option(
      "only", "TYPE", repeatable: true,
      "only records of this type: metric, alert, dead_letter, late, …; default all"),
    .option("workers", "N", "threads; default one per core"),
    .option("batch-rows", "N", "rows in a batch, 1 to 4096; default 4096"),
    .option(
      "key-limit", "N",
      "most keys in a pane of a partition, for windows without `limit N keys`; default 1000000"),
    .flag("quiet", letter: "q", "no summary on standard error"),
  ],
  examples: [
    CommandExample(
      "rulesd dry-run rules/search-quality --only alert --input requests=traffic/search.events.jsonl",
      "what the rules would have paged on a recording that rulesd simulate made"),
    CommandExample(
      "kcat -C -b k1 -t search.events -e -q -J | rulesd dry-run rules/search-quality --input requests=-",
      "over a topic as it stands"),
  ])

let dryRunCommand = Command(dryRunPage) { arguments, environment in
  let program = try loadProgram(arguments.positionals, environment)
  let kinds = try recordKinds(arguments.all("only"))
  let graph = buildPlan(program).lower(keyLimit: try keyLimit(arguments))
  let recordings: Recordings
  do {
    recordings = try Recordings(
      arguments.pairs("input"), program: program, graph: graph, environment)
  } catch let failure as SourceFailure {
    throw CommandFailure.environment(failure.description)
  }
  let options = EngineOptions(
    workers: try arguments.integer("workers", 1...256) ?? coreCount(),
    batchRows: try arguments.integer("batch-rows", 1...RecordBatch.rowsMax) ?? RecordBatch.rowsMax)
  let sink: JSONLinesSink
  do {
    sink = try openLines(arguments.text("output") ?? "-")
  } catch {
    throw CommandFailure.environment("\(error)")
  }
  let started = environment.monotonicNanos()
  let engine = Engine(
    graph: graph, options: options, partitions: recordings.starts,
    sink: KindFilterSink(sink, keeping: kinds))
  var progress = ProgressLine("records", environment)
  do {
    try engine.start()
    // Without a terminal there is nobody to tell, and `wait` returns at once when the work is done.
    while environment.standardError.isTerminal, engine.isRunning {
      environment.sleep(20_000_000)
      progress.update(count: engine.status.rows, share: recordings.share)
    }
    progress.finish()
    try engine.wait()
  } catch {
    progress.finish()
    throw CommandFailure.environment("\(error)")
  }
  if !arguments.flag("quiet") {
    environment.note(
      summary(engine.status, graph: graph, nanos: environment.monotonicNanos() - started))
  }
  return .ok
}

/// What a run did, for a person.
private func summary(_ status: EngineStatus, graph: Graph, nanos: Int64) -> String {
  let seconds = max(Double(nanos) / 1e9, 1e-9)
  let rate = Int(Double(status.rows) / seconds)
  let megabytes = Int(Double(status.bytes) / 1e6 / seconds)
  var text =
    "read \(counted(status.rows, "record")) in \((seconds * 1_000).rounded() / 1_000) s "
    + "(\(grouped(rate))/s, \(grouped(megabytes)) MB/s); "
    + "\(grouped(status.late)) late, \(counted(status.deadLetters, "dead letter"))\n"
  let overLimit = status.operators.reduce(0) { $0 + $1.rowsOverLimit }
  if overLimit > 0 { text += "  \(counted(overLimit, "row")) not aggregated or joined: a limit of keys, rows or spans was reached\n" }
  let alertsOverLimit = status.rules.reduce(0) { $0 + $1.rowsOverLimit }
  if alertsOverLimit > 0 {
    text += "  \(counted(alertsOverLimit, "row")) made no alert: the alerts of a rule are limited\n"
  }
  for kind in RecordKind.allCases {
    let count = status.recordsByKind[Int(kind.rawValue)]
    if count > 0 { text += "  \(kind.name): \(grouped(count))\n" }
  }
  for (rule, count) in zip(graph.rules, status.recordsByRule) where count > 0 {
    text += "    \(rule): \(grouped(count))\n"
  }
  return String(text.dropLast())
}

/// `--only` values as record kinds; all of them when there is none.
func recordKinds(_ names: [String]) throws(CommandFailure) -> Set<RecordKind> {
  if names.isEmpty { return Set(RecordKind.allCases) }
  var kinds: Set<RecordKind> = []
  for name in names {
    guard let kind = RecordKind.allCases.first(where: { $0.name == name }) else {
      let known = RecordKind.allCases.map(\.name)
      throw .usage(
        "--only: there is no record type `\(name)`",
        hint: closest(to: name, among: known).map { "did you mean `\($0)`?" }
          ?? "one of \(known.joined(separator: ", "))")
    }
    kinds.insert(kind)
  }
  return kinds
}
