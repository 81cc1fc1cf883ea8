import Catalog
import RuleLang

/// Whether several daemons of one consumer group can share the work of a rule set, each with some of the partitions.
///
/// They can when no key has rows in two daemons: every source that rules read says by which fields its topic is
/// partitioned, and each window over it, at every level, has all of them among its keys.
public struct Separability: Sendable, Hashable {
  public struct Reason: Sendable, Hashable {
    /// The metric or alert that stands against it, the first in the program.
    public var rule: String
    /// `metric` or `alert`.
    public var kind: String
    /// Where the window is, or the source that says nothing.
    public var place: SourceRange
    /// Completes "because": `alert X groups by route only, not by service`.
    public var text: String
  }

  /// What stands against it, one reason for each stream or source, in the order of the rules; empty when nothing does.
  public var reasons: [Reason]
  public var isSeparable: Bool { reasons.isEmpty }

  /// One line, such as `yes` or `no, because alert X groups by route only, not by service (a.rules:12)`.
  public var text: String {
    guard let first = reasons.first else { return "yes" }
    let more = reasons.count > 1 ? "; and \(reasons.count - 1) more" : ""
    return "no, because \(first.text) (\(first.place.file):\(first.place.line))\(more)"
  }
}

extension TypedProgram {
  /// Whether daemons can share this program, or what stands against it.
  public var separability: Separability {
    var walk = SeparabilityWalk(program: self)
    for (rule, kind, stream) in metrics.map({ ($0.name, "metric", $0.stream) })
      + alerts.map({ ($0.name, $0.burn == nil ? "alert" : "slo", $0.stream) }) + patterns.map({ ($0.name, "pattern", $0.stream) })
      + anomalies.map({ ($0.name, "anomaly", $0.stream) })
    {
      walk.rule = rule
      walk.kind = kind
      _ = walk.columns(ofStream: stream)
    }
    for group in groups {
      walk.together(
        alerts: group.alerts, labels: group.by, place: group.origin, rule: group.name,
        "group \(group.name) is of alerts\(group.by.isEmpty ? "" : " by \(group.by.joined(separator: ", "))")")
    }
    for inhibition in inhibitions {
      let names = distinct(inhibition.targets.map { alerts[$0].name }).joined(separator: ", ")
      walk.together(
        alerts: inhibition.targets + inhibition.sources, labels: inhibition.equal, place: inhibition.origin,
        rule: names, "the inhibition of \(names) is by \(inhibition.equal.isEmpty ? "no label" : inhibition.equal.joined(separator: ", "))")
    }
    return Separability(reasons: walk.reasons)
  }

  /// Whether a source that some rule reads says how it is partitioned: whoever says so wants to know what comes of it.
  public var declaresPartitioning: Bool { sources.contains { !$0.partitionedBy.isEmpty } }
}

/// Follows the rules' streams from their sources, and of each column which field it passes on unchanged.
private struct SeparabilityWalk {
  let program: TypedProgram
  var rule = ""
  var kind = ""
  var reasons: [Separability.Reason] = []
  private var known: [Int: Rows] = [:]
  private var silentSources: Set<Int> = []

  struct Rows {
    var source: Int
    /// The source's field that each column passes on; nil for one that is computed.
    var fields: [Int?]
  }

  init(program: TypedProgram) { self.program = program }

  mutating func columns(ofStream index: Int) -> Rows {
    if let rows = known[index] { return rows }
    let stream = program.streams[index]
    var rows: Rows
    switch stream.input {
    case .source(let source): rows = Rows(source: source, fields: program.sources[source].fields.indices.map { $0 })
    case .stream(let input): rows = columns(ofStream: input)
    }
    var reason: Separability.Reason?
    for stage in stream.stages {
      switch stage {
      case .filter: break
      case .derive(let assignments):
        for assignment in assignments {
          if case .column(let column, _) = assignment.expression {
            rows.fields.append(rows.fields[column])
          } else {
            rows.fields.append(nil)
          }
        }
      case .cluster(let cluster):
        if reason == nil { reason = self.reason(stream, rows.source, cluster.keys.map { rows.fields[$0] }) }
        rows.fields += (TypedCluster.columnNames + cluster.values.map(\.name)).map { _ in nil }
      case .join(let join):
        if reason == nil {
          reason = Separability.Reason(
            rule: rule, kind: kind, place: stream.origin,
            text: "\(kind) \(rule) joins rows of more than one topic, whose partitions need not go together")
        }
        rows.fields += join.addedColumns.map { _ in nil }
      case .trace(let trace):
        let keys = trace.keys.map { rows.fields[$0] }
        if reason == nil { reason = self.reason(stream, rows.source, keys) }
        rows.fields = keys + trace.columns.map { _ in nil }
      case .slo(let slo):
        // By the keys of the windows below.
        rows.fields = slo.keys.map { rows.fields[$0] } + slo.outputs.map { _ in nil }
      case .detector(let detector):
        let keys = detector.keys.map { rows.fields[$0] }
        if reason == nil, detector.isExchanged { reason = self.reason(stream, rows.source, keys) }
        rows.fields = (detector.isOwnRows ? keys : rows.fields) + detector.columns.map { _ in nil }
      case .aggregate(let aggregation):
        let keys = aggregation.keys.map { rows.fields[$0] }
        if reason == nil { reason = self.reason(stream, rows.source, keys) }
        rows.fields = keys + aggregation.aggregates.map { _ in nil }
      }
    }
    if let reason { reasons.append(reason) }
    known[index] = rows
    return rows
  }

  /// Alerts that must be seen together are when the labels by which they are found hold all fields of the partitions.
  mutating func together(
    alerts: [Int], labels: [String], place: SourceRange, rule: String, _ text: String
  ) {
    let sources = Set(alerts.map { columns(ofStream: program.alerts[$0].stream).source })
    if sources.count > 1 {
      reasons.append(
        Separability.Reason(
          rule: rule, kind: "alert", place: place,
          text: "\(text), of more than one topic, whose partitions need not go together"))
      return
    }
    for alert in alerts {
      let stream = program.alerts[alert].stream
      let rows = columns(ofStream: stream)
      let fields = labels.map { label -> Int? in
        program.streams[stream].columns.firstIndex { $0.name == label }.flatMap { rows.fields.indices.contains($0) ? rows.fields[$0] : nil }
      }
      let source = program.sources[rows.source]
      let missing = source.partitionedBy.filter { !fields.contains($0) }
      guard let first = missing.first else { continue }
      reasons.append(
        Separability.Reason(
          rule: rule, kind: "alert", place: place, text: "\(text), not by \(source.fields[first].name)"))
      return
    }
  }

  private mutating func reason(_ stream: TypedStream, _ index: Int, _ keys: [Int?]) -> Separability.Reason? {
    let source = program.sources[index]
    guard !source.partitionedBy.isEmpty else {
      guard silentSources.insert(index).inserted else { return nil }
      return Separability.Reason(
        rule: rule, kind: kind, place: source.origin,
        text: "source \(source.name), which \(kind) \(rule) reads, does not say `partitioned by`")
    }
    let missing = source.partitionedBy.filter { !keys.contains($0) }
    if missing.isEmpty { return nil }
    let absent = missing.map { source.fields[$0].name }.joined(separator: ", ")
    let named = keys.map { $0.map { source.fields[$0].name } ?? "a computed column" }
    let text =
      keys.isEmpty
      ? "\(kind) \(rule) has windows without keys, not by \(absent)"
      : "\(kind) \(rule) groups by \(named.joined(separator: ", ")) only, not by \(absent)"
    return Separability.Reason(rule: rule, kind: kind, place: stream.origin, text: text)
  }
}
