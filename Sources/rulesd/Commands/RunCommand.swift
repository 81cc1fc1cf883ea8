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
    Serves /metrics, /healthz and /readyz. SIGTERM and SIGINT drain, flush, commit and end it with exit
    code 0.
    """,
  options: [
    .option("kafka", "BROKERS", "host:port, several with commas"),
    .option("group", "NAME", "the consumer group; default rulesd"),
    .option(
      "from", "PLACE", "earliest or latest: where a partition without a commit begins; default earliest"),
    .flag("until-end", "stop at the ends that the topics have now"),
    .option(
      "sink", "NAME", repeatable: true,
      "where records go: kafka, - for standard output, or a file's path; default kafka"),
    .option(
      "topic", "TYPE=NAME", repeatable: true,
      "the topic of a record type, such as alert=pages; default rulesd.metrics, rulesd.alerts, …"),
    .option("listen", "HOST:PORT", "the HTTP face; default 127.0.0.1:9464, port 0 takes a free one"),
    .option("commit-every", "TIME", "how often offsets are committed; default 5s"),
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
  let program = try loadProgram(arguments.positionals, environment)
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
    commitNanos: try arguments.duration("commit-every") ?? 5_000_000_000)
  setup.stateBytesMax = try byteCount("memory-limit", arguments) ?? 0
  let graph = buildPlan(program).lower(keyLimit: try keyLimit(arguments))
  let topics = try recordTopics(arguments.pairs("topic"))
  let names = arguments.all("sink").isEmpty ? ["kafka"] : arguments.all("sink")
  do {
    let sinks = try names.map { name -> any RecordSink in
      guard name == "kafka" else { return try openLines(name, appends: true) }
      var options = KafkaSinkOptions(brokers: brokers, properties: setup.properties)
      options.topics.merge(topics) { _, given in given }
      options.topicOverrides = graph.topics
      // What is not on the brokers by then is written again after a restart: nothing after it was committed.
      options.flushMillisMax = 15_000
      return try KafkaSink(options: options)
    }
    let listen = try listenAddress(arguments.text("listen") ?? "127.0.0.1:9464")
    setup.httpSecurity = try httpSecurity(arguments, host: listen.host, environment)
    let audit = try auditLog(arguments, environment)
    let revision = ruleRevision(try readRuleFiles(arguments.positionals))
    let rules = program.metrics.map(\.name) + program.alerts.map(\.name)
    stopOnSignals()
    audit.record(.start, revision: revision, rules: rules, .done())
    do {
      try runDaemon(
        setup, graph: graph, sink: sinks.count == 1 ? sinks[0] : FanOutSink(sinks), listen: listen,
        environment
      ) { stopSignal.load(ordering: .relaxed) }
    } catch {
      audit.record(.stop, revision: revision, rules: rules, .failed(failureText(error)))
      throw error
    }
    let isSignalled = stopSignal.load(ordering: .relaxed)
    audit.record(
      .stop, revision: revision, rules: rules, .done(isSignalled ? "by a signal" : "everything has been read"))
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure.environment("\(error)")
  }
  return .ok
}

/// What `run` needs to know beyond the rules; `demo` uses the same.
struct RunSetup {
  var brokers: String
  var group: String
  var properties: [KafkaProperty] = []
  var fromBeginning = true
  var isBounded = false
  var workers: Int
  var batchRows = RecordBatch.rowsMax
  var commitNanos: Int64 = 5_000_000_000
  var httpSecurity = HTTPSecurity()
  /// 0 for no limit.
  var stateBytesMax = 0
}

/// Runs a graph over Kafka until it is told to stop, or to the topics' ends; serves HTTP meanwhile when
/// `listen` is given.
func runDaemon(
  _ setup: RunSetup, graph: Graph, sink: any RecordSink, listen: (host: String, port: UInt16)?,
  _ environment: CommandEnvironment, board: StatusBoard = StatusBoard(), isStopping: () -> Bool
) throws {
  for node in graph.sources where node.schema.topic == nil {
    throw CommandFailure.usage(
      "source `\(node.schema.name)` names no Kafka topic", hint: "add `kafka \"topic\"` to it")
  }
  var server: HTTPServer?
  if let listen {
    let startNanos = wallClockNanos()
    server = try HTTPServer(bind: listen.host, port: listen.port, security: setup.httpSecurity) { request in
      answer(request, board, graph: graph, startNanos: startNanos)
    }
    let scheme = setup.httpSecurity.isEncrypted ? "https" : "http"
    environment.note("listening on \(scheme)://\(listen.host):\(server?.port ?? listen.port)")
  }
  defer { server?.stop() }
  let sources = try graph.sources.map { node -> any LiveSource in
    // Each source is a group of its own: two sources may read one topic, each at its own pace.
    var options = KafkaSourceOptions(
      brokers: setup.brokers, group: "\(setup.group).\(node.schema.name)", properties: setup.properties)
    options.fromBeginning = setup.fromBeginning
    options.untilEnd = setup.isBounded
    return try KafkaSource(schema: node.schema, options: options)
  }
  var engineOptions = EngineOptions(
    workers: setup.workers, batchRows: setup.batchRows, order: setup.isBounded ? .total : .bySource, isLive: true)
  engineOptions.stateBytesMax = setup.stateBytesMax
  let daemon = Daemon(
    graph: graph, sources: sources, sink: SharedSink(sink),
    options: DaemonOptions(
      engine: engineOptions,
      commitNanos: setup.commitNanos, isBounded: setup.isBounded), board: board)
  defer { sink.close() }
  try daemon.run(isStopping: isStopping)
  let status = board.current.before.adding(board.current.status)
  environment.note(
    "read \(counted(status.rows, "record")), wrote \(grouped(status.recordsByKind.reduce(0, +))); "
      + "\(grouped(status.late)) late, \(counted(status.deadLetters, "dead letter"))")
}

private func answer(
  _ request: HTTPRequest, _ board: StatusBoard, graph: Graph, startNanos: Int64
) -> HTTPResponse {
  if request.method == "POST" { return .methodNotAllowed(allow: "GET, HEAD") }
  switch request.path {
  case "/healthz": return .text("ok\n")
  case "/readyz":
    let problems = board.current.problems + memoryProblems(board.current.status)
    return problems.isEmpty
      ? .text("ready\n") : .text(problems.map { "not ready: \($0)\n" }.joined(), status: 503)
  case "/metrics":
    let text = metricsText(
      board.current, graph: graph, nowNanos: wallClockNanos(), startNanos: startNanos)
    return HTTPResponse(
      status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", body: Array(text.utf8))
  case "/": return .text("rulesd: /metrics /healthz /readyz\n")
  default: return .notFound
  }
}

/// What `/readyz` says while state is over its limit.
private func memoryProblems(_ status: EngineStatus) -> [String] {
  status.isOverStateLimit
    ? ["keyed state (\(grouped(status.stateBytes)) bytes) exceeds --memory-limit: partitions wait"] : []
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

private func stopOnSignals() {
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
