import Connectors
import Glibc
import Operators
import Planner
import Runtime

/// What `run` needs to know beyond the rules; `demo` uses the same.
struct RunSetup {
  var brokers: String
  var group: String
  var properties: [KafkaProperty] = []
  var fromBeginning = true
  var isBounded = false
  var workers: Int
  var batchRows = RecordBatch.rowsMax
  var commitNanos: Int64 = 1_000_000_000
  var checkpointNanos: Int64 = 10_000_000_000
  /// Hash of the rule text.
  var revision = ""
  /// Where checkpoints go; without one state is rebuilt by reading again.
  var store: (any CheckpointStore)?
  var checkpointsKept = 3
  /// How long a store that does not answer is waited for before the state is rebuilt by reading.
  var storeWaitNanos: Int64 = 60_000_000_000
  /// Keyed state in bytes beyond which partitions wait; 0 for no limit.
  var stateBytesMax = 0
  /// Keys in a pane of a partition, for windows that set no limit of their own.
  var keyLimit = PaneAggregation.keyLimitDefault
  /// The checkpoint to begin with.
  var restore: String?
  /// Whether daemons share the partitions; otherwise one of them reads and the others stand by.
  var isShared = false
  var instanceID: String?
  var httpSecurity = HTTPSecurity()
  var reloader: Reloader?
  var audit: AuditLog?

  /// How long an open transaction may last. Whoever takes over under the same name ends what was left open; where daemons
  /// share the partitions, each under a name of its own, nobody does, and readers of committed records wait so long
  /// behind one that died. Several commits must fit in.
  var transactionMillis: Int64 {
    let least: Int64 = isShared && instanceID == nil ? 10_000 : 60_000
    return max(least, 5 * (commitNanos / 1_000_000))
  }

  /// Who writes. One daemon writes at a time, or each under a name of its own.
  var transactionalID: String {
    guard isShared else { return group }
    if let instanceID { return "\(group).\(instanceID)" }
    return "\(group).\(hostName()).\(getpid())"
  }
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
    let reloader = setup.reloader
    server = try HTTPServer(bind: listen.host, port: listen.port, security: setup.httpSecurity) { request in
      answer(request, board, reloader, startNanos: startNanos)
    }
    let scheme = setup.httpSecurity.isEncrypted ? "https" : "http"
    environment.note("listening on \(scheme)://\(listen.host):\(server?.port ?? listen.port)")
  }
  defer { server?.stop() }
  var options = CoordinatorOptions(
    engine: EngineOptions(
      workers: setup.workers, batchRows: setup.batchRows,
      order: setup.isBounded ? .total : .bySource, isLive: true), group: setup.group)
  options.engine.stateBytesMax = setup.stateBytesMax
  options.commitNanos = setup.commitNanos
  options.checkpointNanos = setup.checkpointNanos
  options.checkpointsKept = setup.checkpointsKept
  let partitioning = PartitioningCheck()
  options.engine.partitioning = partitioning
  options.storeWaitNanos = setup.storeWaitNanos
  options.restore = setup.restore
  options.isShared = setup.isShared
  options.isBounded = setup.isBounded
  let daemon = try Daemon(
    rules: RunningRules(graph: graph, revision: setup.revision), sink: sink, store: setup.store, options: options,
    board: board, onBrokenPartitioning: { environment.note($0.warning) }, nextRules: { setup.reloader?.next() },
    observe: { event in
      log(event, setup, environment)
      setup.reloader?.note(event)
    }
  ) { node, offsets in
    // Each source is a group of its own: two sources may read one topic, each at its own pace.
    var options = KafkaSourceOptions(
      brokers: setup.brokers, group: "\(setup.group).\(node.schema.name)", properties: setup.properties)
    options.fromBeginning = setup.fromBeginning
    options.untilEnd = setup.isBounded
    options.ownership = setup.isShared || setup.isBounded ? .shared : .standby(leads: node.schema.index == 0)
    options.instanceID = setup.instanceID
    options.startOffset = { partition, _, _ in offsets.offset(of: partition) }
    return try KafkaSource(schema: node.schema, options: options)
  }
  defer { sink.close() }
  try daemon.run(isStopping: isStopping)
  let status = board.current.before.adding(board.current.status)
  environment.note(
    "read \(counted(status.rows, "record")), wrote \(grouped(status.recordsByKind.reduce(0, +))); "
      + "\(grouped(status.late)) late, \(counted(status.deadLetters, "dead letter"))")
}

private func answer(
  _ request: HTTPRequest, _ board: StatusBoard, _ reloader: Reloader?, startNanos: Int64
) -> HTTPResponse {
  if request.path == "/-/reload" {
    guard request.method == "POST" else { return .methodNotAllowed(allow: "POST") }
    guard let reloader else { return .notFound }
    switch reloader.request(by: request.peer) {
    case .accepted(let revision): return .text("revision \(revision) is being put in place\n")
    case .unchanged(let revision): return .text("unchanged: revision \(revision) runs\n")
    case .refused(let reason): return .text("refused, the old rules run on: \(reason)\n", status: 409)
    }
  }
  if request.method == "POST" { return .methodNotAllowed(allow: "GET, HEAD") }
  switch request.path {
  case "/healthz": return .text("ok\n")
  case "/readyz":
    let contents = board.current
    let problems = contents.problems + memoryProblems(contents.status)
    if problems.isEmpty, contents.isStandingBy {
      return .text("ready: standing by, another daemon of the group reads\n")
    }
    return problems.isEmpty
      ? .text("ready\n") : .text(problems.map { "not ready: \($0)\n" }.joined(), status: 503)
  case "/metrics":
    let text = metricsText(
      board.current, nowNanos: wallClockNanos(), startNanos: startNanos)
    return HTTPResponse(
      status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", body: Array(text.utf8))
  case "/": return .text("rulesd: /metrics /healthz /readyz\n")
  default: return .notFound
  }
}

/// What a person on call should find in the log.
private func log(_ event: CoordinatorEvent, _ setup: RunSetup, _ environment: CommandEnvironment) {
  switch event {
  case .engineStarted(let partitions, let restored, let without):
    if !without.isEmpty {
      environment.note("started without partitions of \(without.joined(separator: ", ")): their rules wait for them")
    }
    guard let restored else { return }
    environment.note("\(counted(partitions, "partition")) go on from checkpoint \(restored)")
    auditRestore(.done(restored), setup)
  case .rereads(let reason):
    environment.note("\(reason); the state is rebuilt by reading again")
    auditRestore(.failed(reason), setup)
  case .restoreDelayed(let reason): environment.note("\(reason); the store is asked again")
  case .checkpointFailed(let reason): environment.note("checkpoint failed: \(reason)")
  case .transactionAborted(let reason): environment.note("going back to the last commit: \(reason)")
  case .checkpoint, .committed, .commitFailed, .barrier, .reloaded, .reloadFailed, .engineEnded: return
  }
}

/// With the rules that run now, which a reload may have changed since the start.
private func auditRestore(_ outcome: AuditOutcome, _ setup: RunSetup) {
  setup.audit?.record(
    .restore, revision: setup.reloader?.revision ?? setup.revision, rules: setup.reloader?.ruleNames ?? [], outcome)
}

extension BrokenPartitioning {
  var warning: String {
    "warning: source \(source): \(key) comes in partitions \(partitions.map { String($0) }.joined(separator: " and ")) of "
      + "\(topic), which is not `partitioned by` these fields: daemons that share its partitions get it wrong"
  }
}

private func hostName() -> String {
  var name = [CChar](repeating: 0, count: 256)
  guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
  return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// What `/readyz` says while state is over its limit.
private func memoryProblems(_ status: EngineStatus) -> [String] {
  status.isOverStateLimit
    ? ["keyed state (\(grouped(status.stateBytes)) bytes) exceeds --memory-limit: partitions wait"] : []
}
