import Runtime

/// The text that `/metrics` answers with: the Prometheus exposition format, version 0.0.4.
struct PrometheusText {
  private var text = ""

  /// Opens a metric family; its samples follow.
  mutating func family(_ name: String, _ type: String, _ help: String) {
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
  }

  mutating func sample(_ name: String, _ labels: [(String, String)] = [], _ value: Double) {
    text += name
    if !labels.isEmpty {
      text += "{" + labels.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",") + "}"
    }
    text += " \(Self.number(value))\n"
  }

  var finished: String { text }

  private static func number(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : "\(value)"
  }

  private static func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
      switch character {
      case "\\": result += "\\\\"
      case "\"": result += "\\\""
      case "\n": result += "\\n"
      default: result.append(character)
      }
    }
    return result
  }
}

/// Everything that the daemon tells about itself.
func metricsText(
  _ board: StatusBoard.Contents, graph: Graph, nowNanos: Int64, startNanos: Int64
) -> String {
  var out = PrometheusText()
  let status = board.before.adding(board.status)
  func perPartition(
    _ name: String, _ type: String, _ help: String, _ value: (PartitionIdentity, PartitionCounters) -> Double?
  ) {
    out.family(name, type, help)
    for (identity, counters) in status.partitions {
      guard let value = value(identity, counters) else { continue }
      out.sample(
        name,
        [
          ("source", graph.sources[identity.source].schema.name), ("topic", identity.topic),
          ("partition", String(identity.partition)),
        ], value)
    }
  }
  perPartition("rulesd_events_in_total", "counter", "Records decoded as rows.") { Double($1.rows) }
  perPartition("rulesd_bytes_in_total", "counter", "Payload bytes read.") { Double($1.bytes) }
  perPartition("rulesd_late_total", "counter", "Rows behind their partition's watermark.") {
    Double($1.late)
  }
  perPartition("rulesd_dead_letters_total", "counter", "Records that could not become rows.") {
    Double($1.deadLetters)
  }
  perPartition(
    "rulesd_watermark_lag_seconds", "gauge", "Now minus the partition's watermark."
  ) { _, counters in
    counters.watermark == beforeAllTime || counters.watermark == afterAllTime
      ? nil : Double(nowNanos - counters.watermark) / 1e9
  }
  perPartition("rulesd_partition_idle", "gauge", "1 while the watermark follows the clock.") {
    $1.isIdle ? 1 : 0
  }
  perPartition("rulesd_consumer_lag_records", "gauge", "Broker's end minus the position.") { identity, _ in
    board.lags[identity].map(Double.init)
  }
  out.family("rulesd_records_out_total", "counter", "Records written, by rule.")
  for (rule, count) in zip(graph.rules, status.recordsByRule) {
    out.sample("rulesd_records_out_total", [("rule", rule)], Double(count))
  }
  out.family("rulesd_events_out_total", "counter", "Records written, by type.")
  for kind in RecordKind.allCases where status.recordsByKind.count > Int(kind.rawValue) {
    out.sample(
      "rulesd_events_out_total", [("type", kind.name)], Double(status.recordsByKind[Int(kind.rawValue)]))
  }
  out.family("rulesd_queue_depth", "gauge", "Messages in a worker's inbox.")
  for (worker, depth) in board.status.queueDepths.enumerated() {
    out.sample("rulesd_queue_depth", [("worker", String(worker))], Double(depth))
  }
  out.family("rulesd_batch_seconds", "summary", "Time from reading a batch to its last operator.")
  out.sample("rulesd_batch_seconds_sum", [], Double(status.batchNanos) / 1e9)
  out.sample("rulesd_batch_seconds_count", [], Double(status.batches))
  out.family("rulesd_batch_seconds_max", "gauge", "The longest batch since the engine started.")
  out.sample("rulesd_batch_seconds_max", [], Double(board.status.batchNanosMax) / 1e9)
  out.family("rulesd_state_keys", "gauge", "Keys held by windows, over all operators.")
  out.sample("rulesd_state_keys", [], Double(board.status.stateKeys))
  out.family("rulesd_state_bytes", "gauge", "Bytes held by windows.")
  out.sample("rulesd_state_bytes", [], Double(board.status.stateBytes))
  addStateByRule(board, status, graph, to: &out)
  out.family("rulesd_commits_total", "counter", "Offset commits, by outcome.")
  out.sample("rulesd_commits_total", [("outcome", "done")], Double(board.commits))
  out.sample("rulesd_commits_total", [("outcome", "failed")], Double(board.failedCommits))
  out.family("rulesd_engine_starts_total", "counter", "Times that partitions were given or taken.")
  out.sample("rulesd_engine_starts_total", [], Double(board.engineStarts))
  out.family("rulesd_ready", "gauge", "1 while /readyz says yes.")
  out.sample("rulesd_ready", [], board.problems.isEmpty && !board.status.isOverStateLimit ? 1 : 0)
  out.family("rulesd_uptime_seconds", "gauge", "Since the process started.")
  out.sample("rulesd_uptime_seconds", [], Double(nowNanos - startNanos) / 1e9)
  return out.finished
}

/// What each rule keeps, and what its limits cost it. State that rules share counts for each of them.
private func addStateByRule(
  _ board: StatusBoard.Contents, _ total: EngineStatus, _ graph: Graph, to out: inout PrometheusText
) {
  var sizes: [String: OperatorStatus] = [:]
  for (number, exchange) in graph.exchanges.enumerated() {
    let size = number < board.status.operators.count ? board.status.operators[number] : OperatorStatus()
    let counted = number < total.operators.count ? total.operators[number] : OperatorStatus()
    for rule in exchange.rules {
      sizes[rule, default: OperatorStatus()].keys += size.keys
      sizes[rule, default: OperatorStatus()].bytes += size.bytes
      sizes[rule, default: OperatorStatus()].rowsOverLimit += counted.rowsOverLimit
    }
  }
  func family(_ name: String, _ type: String, _ help: String, _ value: (OperatorStatus) -> Int) {
    out.family(name, type, help)
    for rule in sizes.keys.sorted() { out.sample(name, [("rule", rule)], Double(value(sizes[rule] ?? .init()))) }
  }
  family("rulesd_rule_state_keys", "gauge", "Keys held for a rule; rules that share state all count it.") { $0.keys }
  family("rulesd_rule_state_bytes", "gauge", "Bytes held for a rule; rules that share state all count it.") {
    $0.bytes
  }
  family(
    "rulesd_key_limit_dropped_total", "counter",
    "Rows that a rule did not see because their pane held as many keys as it may."
  ) { $0.rowsOverLimit }
  out.family("rulesd_memory_limited", "gauge", "1 while partitions wait because state exceeds --memory-limit.")
  out.sample("rulesd_memory_limited", [], board.status.isOverStateLimit ? 1 : 0)
}
