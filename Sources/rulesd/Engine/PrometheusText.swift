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
func metricsText(_ board: StatusBoard.Contents, nowNanos: Int64, startNanos: Int64) -> String {
  var out = PrometheusText()
  let status = board.before.adding(board.status)
  let graph = board.rules?.graph
  var partitions = board.endedPartitions
  var lags: [PartitionKey: Int64] = [:]
  var records = board.endedByRule
  if let graph {
    for (identity, counters) in board.status.partitions {
      partitions[PartitionKey(identity, graph), default: PartitionCounters()].add(counters)
    }
    for (identity, lag) in board.lags { lags[PartitionKey(identity, graph)] = lag }
    for rule in graph.rules { records[rule, default: 0] += 0 }
    for (rule, count) in zip(graph.rules, board.status.recordsByRule) { records[rule, default: 0] += count }
  }
  let places = partitions.keys.sorted {
    ($0.source, $0.topic, $0.partition) < ($1.source, $1.topic, $1.partition)
  }
  func perPartition(
    _ name: String, _ type: String, _ help: String, _ value: (PartitionKey, PartitionCounters) -> Double?
  ) {
    out.family(name, type, help)
    for place in places {
      guard let counters = partitions[place], let value = value(place, counters) else { continue }
      out.sample(
        name,
        [("source", place.source), ("topic", place.topic), ("partition", String(place.partition))], value)
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
  perPartition("rulesd_consumer_lag_records", "gauge", "Broker's end minus the position.") { place, _ in
    lags[place].map(Double.init)
  }
  out.family("rulesd_records_out_total", "counter", "Records written, by rule.")
  for (rule, count) in records.sorted(by: { $0.key < $1.key }) {
    out.sample("rulesd_records_out_total", [("rule", rule)], Double(count))
  }
  out.family("rulesd_events_out_total", "counter", "Records written, by type.")
  for kind in RecordKind.allCases where status.recordsByKind.count > Int(kind.rawValue) {
    out.sample(
      "rulesd_events_out_total", [("type", kind.name)], Double(status.recordsByKind[Int(kind.rawValue)]))
  }
  out.family(
    "rulesd_misplaced_keys_total", "counter",
    "Keys, of a sample, that came in more than one partition although the source is partitioned by them.")
  for node in graph?.sources ?? [] where !node.partitionedBy.isEmpty {
    let name = node.schema.name
    out.sample("rulesd_misplaced_keys_total", [("source", name)], Double(board.brokenKeys[name] ?? 0))
  }
  out.family("rulesd_queue_depth", "gauge", "Messages in a worker's inbox.")
  for (worker, depth) in board.status.queueDepths.enumerated() {
    out.sample("rulesd_queue_depth", [("worker", String(worker))], Double(depth))
  }
  out.family("rulesd_batch_seconds", "summary", "Time from reading a batch to its last operator.")
  out.sample("rulesd_batch_seconds_sum", [], Double(status.batchNanos) / 1e9)
  out.sample("rulesd_batch_seconds_count", [], Double(status.batches))
  out.family("rulesd_batch_seconds_max", "gauge", "The longest batch since the checkpoint before the last one.")
  out.sample("rulesd_batch_seconds_max", [], Double(board.status.batchNanosMax) / 1e9)
  out.family("rulesd_state_keys", "gauge", "Keys held by windows, over all operators.")
  out.sample("rulesd_state_keys", [], Double(board.status.stateKeys))
  out.family("rulesd_state_bytes", "gauge", "Bytes held by windows.")
  out.sample("rulesd_state_bytes", [], Double(board.status.stateBytes))
  if let graph { addStateByRule(board, status, graph, to: &out) }
  out.family("rulesd_commits_total", "counter", "Offset commits, by outcome.")
  out.sample("rulesd_commits_total", [("outcome", "done")], Double(board.commits))
  out.sample("rulesd_commits_total", [("outcome", "failed")], Double(board.failedCommits))
  out.family("rulesd_checkpoints_total", "counter", "Checkpoints, by outcome.")
  out.sample("rulesd_checkpoints_total", [("outcome", "done")], Double(board.checkpoints))
  out.sample("rulesd_checkpoints_total", [("outcome", "failed")], Double(board.failedCheckpoints))
  out.family("rulesd_checkpoint_bytes", "gauge", "Stored bytes of the last checkpoint.")
  out.sample("rulesd_checkpoint_bytes", [], Double(board.checkpointBytes))
  out.family("rulesd_checkpoint_keys", "gauge", "Keys in the last checkpoint.")
  out.sample("rulesd_checkpoint_keys", [], Double(board.checkpointKeys))
  out.family("rulesd_checkpoint_seconds", "gauge", "How long the last checkpoint took to store.")
  out.sample("rulesd_checkpoint_seconds", [], Double(board.checkpointNanos) / 1e9)
  if board.checkpointedAt > 0 {
    out.family("rulesd_checkpoint_age_seconds", "gauge", "Since the last checkpoint was stored.")
    out.sample("rulesd_checkpoint_age_seconds", [], Double(nowNanos - board.checkpointedAt) / 1e9)
  }
  out.family("rulesd_barrier_pause_seconds_max", "gauge", "The longest that a barrier kept a worker from reading.")
  out.sample("rulesd_barrier_pause_seconds_max", [], Double(board.pauseNanosMax) / 1e9)
  out.family("rulesd_checkpoints_lost_total", "counter", "Checkpoints that were committed and could not be read back.")
  out.sample("rulesd_checkpoints_lost_total", [], Double(board.rereads))
  out.family(
    "rulesd_restore_retries_total", "counter", "Times that the checkpoint store did not answer when state was to be restored.")
  out.sample("rulesd_restore_retries_total", [], Double(board.restoreRetries))
  out.family("rulesd_transactions_aborted_total", "counter", "Times that work since the last commit was done again.")
  out.sample("rulesd_transactions_aborted_total", [], Double(board.abortedTransactions))
  out.family("rulesd_reloads_total", "counter", "Changes of the rules, by outcome.")
  out.sample("rulesd_reloads_total", [("outcome", "done")], Double(board.reloads))
  out.sample("rulesd_reloads_total", [("outcome", "failed")], Double(board.failedReloads))
  out.family("rulesd_rules_stale", "gauge", "1 while the rules on disk are not those that run, since they were refused.")
  out.sample("rulesd_rules_stale", [], board.reloadProblem == nil ? 0 : 1)
  if let rules = board.rules {
    out.family("rulesd_rules_info", "gauge", "The revision of the rules that run.")
    out.sample("rulesd_rules_info", [("revision", rules.revision)], 1)
  }
  out.family("rulesd_standing_by", "gauge", "1 while another daemon of the group reads.")
  out.sample("rulesd_standing_by", [], board.isStandingBy ? 1 : 0)
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
  for (number, rule) in graph.rules.enumerated() {
    let size = number < board.status.rules.count ? board.status.rules[number] : OperatorStatus()
    let counted = number < total.rules.count ? total.rules[number] : OperatorStatus()
    guard sizes[rule] != nil else { continue }
    sizes[rule, default: OperatorStatus()].keys += size.keys
    sizes[rule, default: OperatorStatus()].bytes += size.bytes
    sizes[rule, default: OperatorStatus()].rowsOverLimit += counted.rowsOverLimit
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
    "Rows that a rule did not see, or did not keep, because a limit of keys, rows or spans was reached."
  ) { $0.rowsOverLimit }
  out.family("rulesd_memory_limited", "gauge", "1 while partitions wait because state exceeds --memory-limit.")
  out.sample("rulesd_memory_limited", [], board.status.isOverStateLimit ? 1 : 0)
}
