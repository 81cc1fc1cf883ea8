import Connectors
import Glibc
import Planner
import RuleLang
import Runtime
import Synchronization

let runPage = CommandPage(
  name: "run",
  summary: "the daemon: rules over Kafka topics, with metrics and health over HTTP",
  positionals: "RULES…", positionalCount: 1...CommandPage.unlimited,
  details: """
    Serves /metrics, /healthz and /readyz. SIGTERM and SIGINT drain, flush, store, commit and end it with exit
    code 0. SIGHUP, POST /-/reload or a change of the rule files put the rules anew; those that do not
    compile change nothing.
    """,
  options: [
    .option("kafka", "BROKERS", "host:port, several with commas"),
    .option("group", "NAME", "the consumer group; default rulesd"),
    .option(
      "from", "PLACE", "earliest or latest: where a partition without a commit begins; default earliest"),
    .flag(
      "until-end",
      "stop at the ends that the topics have now; begins where the group has come to, and stores no state"),
    .option(
      "sink", "NAME", repeatable: true,
      "where records go: kafka, - for standard output, or a file's path; default kafka"),
    .option(
      "topic", "TYPE=NAME", repeatable: true,
      "the topic of a record type, such as alert=pages; default rulesd.metrics, rulesd.alerts, …"),
    .option("listen", "HOST:PORT", "the HTTP face; default 127.0.0.1:9464, port 0 takes a free one"),
    .option("commit-every", "TIME", "how often offsets are committed, 10ms to 2m; default 1s"),
    .option(
      "delivery", "HOW",
      "exactly-once or at-least-once; default exactly-once where records go to Kafka, at-least-once elsewhere"),
    .option(
      "checkpoints", "PLACE",
      "a directory or postgresql://… for the state, or none; default $STATE_DIRECTORY or ~/.local/state/rulesd"),
    .option("checkpoint-every", "TIME", "how often the state is stored; default 10s"),
    .option("checkpoints-kept", "N", "besides those in use and savepoints; default 3"),
    .option(
      "checkpoint-wait", "TIME",
      "how long a store that does not answer at the start is waited for, before state is rebuilt by reading; default 1m"),
    .option("restore", "NAME", "begin with this checkpoint, whatever was committed"),
    .option(
      "instance-id", "NAME",
      "a name of its own in the group: a restart within its session (6 s or more) moves no partition"),
    .flag("no-watch", "look at the rules on SIGHUP and POST /-/reload only, not whenever they change"),
    .option("workers", "N", "threads; default one per core"),
    .option("batch-rows", "N", "rows in a batch, 1 to 4096; default 4096"),
    .option(
      "key-limit", "N",
      "most keys in a pane of a partition, for windows without `limit N keys`; default 1000000"),
    .option("memory-limit", "SIZE", "keyed state beyond which partitions wait, such as 2GiB; default none"),
    .option("audit-log", "FILE", "append a JSON line for each start and stop to this file; default standard error"),
  ] + httpFaceOptions + kafkaSecurityOptions,
  examples: [
    CommandExample("rulesd run rules/search-quality --kafka localhost:9092", "against a broker"),
    CommandExample(
      "rulesd run rules/search-quality --kafka k1:9093 --kafka-tls-ca ca.pem --sink out.jsonl",
      "over TLS, with the records in a file"),
    CommandExample(
      "rulesd run rules --kafka k1:9092 --listen 0.0.0.0:9464 --http-token-file token --audit-log audit.jsonl",
      "reachable for others, who need the token"),
  ])

let runCommand = Command(runPage) { arguments, environment in
  let (loaded, program) = try loadCheckedRules(arguments.positionals, environment)
  guard let brokers = arguments.text("kafka") else {
    throw CommandFailure.usage("run needs --kafka BROKERS", hint: "rulesd run --help shows an example")
  }
  var setup = RunSetup(
    brokers: brokers, group: arguments.text("group") ?? "rulesd",
    properties: try kafkaProperties(arguments, environment),
    fromBeginning: try arguments.choice("from", among: ["earliest", "latest"]) != "latest",
    isBounded: arguments.flag("until-end"),
    workers: try arguments.integer("workers", 1...256) ?? coreCount(),
    batchRows: try arguments.integer("batch-rows", 1...RecordBatch.rowsMax) ?? RecordBatch.rowsMax,
    commitNanos: try arguments.duration("commit-every") ?? 1_000_000_000)
  guard commitRange.contains(setup.commitNanos) else {
    throw CommandFailure.usage("--commit-every is from 10ms to 2m")
  }
  setup.isShared = !setup.isBounded && program.declaresPartitioning && program.separability.isSeparable
  setup.instanceID = arguments.text("instance-id")
  setup.checkpointNanos = try arguments.duration("checkpoint-every") ?? setup.checkpointNanos
  setup.checkpointsKept = try arguments.integer("checkpoints-kept", 1...1_000) ?? setup.checkpointsKept
  setup.storeWaitNanos = try arguments.duration("checkpoint-wait") ?? setup.storeWaitNanos
  setup.restore = arguments.text("restore")
  setup.stateBytesMax = try byteCount("memory-limit", arguments) ?? 0
  setup.keyLimit = try keyLimit(arguments)
  let graph = buildPlan(program).lower(keyLimit: setup.keyLimit)
  let topics = try recordTopics(arguments.pairs("topic"))
  let names = arguments.all("sink").isEmpty ? ["kafka"] : arguments.all("sink")
  let isExactlyOnce = try exactlyOnce(arguments, setup, sinks: names)
  do {
    var sinkOptions = KafkaSinkOptions(brokers: brokers, properties: setup.properties)
    sinkOptions.topics.merge(topics) { _, given in given }
    sinkOptions.topicOverrides = graph.topics
    // What is not on the brokers by then is written again after a restart: nothing after it was committed.
    sinkOptions.flushMillisMax = 15_000
    var transactions = KafkaTransactionOptions(transactionalID: setup.transactionalID)
    transactions.timeoutMillis = setup.transactionMillis
    let sink = try makeSink(names, sinkOptions, isExactlyOnce ? transactions : nil)
    setup.store = try checkpointStore(arguments, setup)
    let listen = try listenAddress(arguments.text("listen") ?? "127.0.0.1:9464")
    setup.httpSecurity = try httpSecurity(arguments, host: listen.host, environment)
    let audit = try auditLog(arguments, environment)
    setup.audit = audit
    let board = StatusBoard()
    let reloader = Reloader(
      paths: arguments.positionals, program: program, revision: loaded.revision,
      watches: !arguments.flag("no-watch"), keyLimit: setup.keyLimit, board: board, environment: environment, audit: audit
    ) { [setup] program in try checkReload(program, setup) }
    setup.reloader = reloader
    setup.revision = loaded.revision
    let rules = program.metrics.map(\.name) + program.alerts.map(\.name) + program.patterns.map(\.name) + program.anomalies.map(\.name)
    stopOnSignals()
    audit.record(.start, revision: loaded.revision, rules: rules, .done())
    do {
      try runDaemon(setup, graph: graph, sink: sink, listen: listen, environment, board: board) {
        stopSignal.load(ordering: .relaxed)
      }
    } catch {
      audit.record(.stop, revision: reloader.revision, rules: rules, .failed(failureText(error)))
      throw error
    }
    let isSignalled = stopSignal.load(ordering: .relaxed)
    audit.record(
      .stop, revision: reloader.revision, rules: rules, .done(isSignalled ? "by a signal" : "everything has been read"))
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure.environment("\(error)")
  }
  return .ok
}

/// More often than that the commits would be all that is done; more rarely, and five of them would not fit into the 15
/// minutes that brokers let a transaction last (`transaction.max.timeout.ms`).
private let commitRange: ClosedRange<Int64> = 10_000_000...120_000_000_000

/// Whether records and offsets are committed together. Files know no transactions.
private func exactlyOnce(
  _ arguments: ParsedArguments, _ setup: RunSetup, sinks: [String]
) throws(CommandFailure) -> Bool {
  let asked = try arguments.choice("delivery", among: ["exactly-once", "at-least-once"])
  let canBe = sinks.contains("kafka") && !setup.isBounded
  if asked == "exactly-once", !canBe {
    throw .usage(
      "--delivery exactly-once needs records to go to Kafka, and to a daemon without --until-end",
      hint: "add --sink kafka, or leave --delivery out")
  }
  return canBe && asked != "at-least-once"
}

private func makeSink(
  _ names: [String], _ options: KafkaSinkOptions, _ transactions: KafkaTransactionOptions?
) throws -> any RecordSink {
  let lines = try names.filter { $0 != "kafka" }.map { try openLines($0, appends: true) }
  guard names.contains("kafka") else { return lines.count == 1 ? lines[0] : FanOutSink(lines) }
  if let transactions {
    let sink = try KafkaTransactionalSink(options: options, transactions: transactions)
    return lines.isEmpty ? sink : TransactionalFanOutSink(sink, others: lines)
  }
  let sink = try KafkaSink(options: options)
  return lines.isEmpty ? sink : FanOutSink([sink] + lines)
}

/// `--checkpoints`, or where state belongs on this machine.
private func checkpointStore(_ arguments: ParsedArguments, _ setup: RunSetup) throws -> (any CheckpointStore)? {
  let place = arguments.text("checkpoints") ?? defaultStatePlace()
  if place == "none" {
    if setup.restore != nil {
      throw CommandFailure.usage("--restore needs a place to read from", hint: "give --checkpoints PLACE")
    }
    return nil
  }
  do { return try openCheckpointStore(place, group: setup.group) } catch {
    throw CommandFailure.environment("--checkpoints: \(error)")
  }
}

/// What a running daemon cannot take on.
private func checkReload(_ program: TypedProgram, _ setup: RunSetup) throws {
  for source in program.sources where source.topic == nil {
    throw CommandFailure.usage("source `\(source.name)` names no Kafka topic", hint: nil)
  }
  if setup.isShared, !program.separability.isSeparable {
    throw CommandFailure.usage(
      "daemons share the partitions, and these rules cannot be shared out: \(program.separability.text)",
      hint: "restart the daemons to let one of them read everything")
  }
}

/// `--audit-log FILE`, or standard error.
private func auditLog(
  _ arguments: ParsedArguments, _ environment: CommandEnvironment
) throws(CommandFailure) -> AuditLog {
  if let path = arguments.text("audit-log") { return try AuditLog(path: path) }
  return AuditLog(note: { _ in }, write: environment.errorWriter)
}

private func failureText(_ error: any Error) -> String {
  (error as? CommandFailure)?.message ?? "\(error)"
}

/// Set by SIGTERM and SIGINT.
private let stopSignal = Atomic<Bool>(false)

/// Set by SIGHUP: the rules are to be read again. Whoever does so takes it back first, or a signal that comes meanwhile is lost.
let reloadSignal = Atomic<Bool>(false)

private func stopOnSignals() {
  signal(SIGHUP) { _ in reloadSignal.store(true, ordering: .relaxed) }
  for number in [SIGTERM, SIGINT] {
    signal(number) { _ in stopSignal.store(true, ordering: .relaxed) }
  }
}

/// `--topic TYPE=NAME` pairs.
private func recordTopics(
  _ pairs: [(name: String, value: String)]
) throws(CommandFailure) -> [RecordKind: String] {
  var topics: [RecordKind: String] = [:]
  for pair in pairs {
    guard let kind = RecordKind.allCases.first(where: { $0.name == pair.name }) else {
      throw .usage(
        "--topic: there is no record type `\(pair.name)`",
        hint: closest(to: pair.name, among: RecordKind.allCases.map(\.name)).map {
          "did you mean `\($0)`?"
        })
    }
    topics[kind] = pair.value
  }
  return topics
}

/// `host:port`; a port alone is on the loopback interface.
private func listenAddress(_ text: String) throws(CommandFailure) -> (host: String, port: UInt16) {
  let parts = text.split(separator: ":", omittingEmptySubsequences: false)
  guard let port = UInt16(parts.last ?? ""), parts.count <= 2 else {
    throw .usage("--listen: `\(text)` is not of the form HOST:PORT", hint: "write 127.0.0.1:9464")
  }
  let host = parts.count == 2 ? String(parts[0]) : ""
  return (host.isEmpty ? "127.0.0.1" : host, port)
}
