import Catalog

extension TypedProgram {
  /// The program, one declaration or stage a line: for golden files, and for whoever wants to see
  /// what the compiler understood.
  public var dump: String {
    var lines: [String] = []
    for source in sources { dump(source, &lines) }
    for stream in streams { dump(stream, &lines) }
    for metric in metrics {
      let columns = streams[metric.stream].columns.map(\.name)
      lines.append(
        "metric \(metric.name) = \(metric.value.text(columns: columns)): \(metric.value.type.rawValue)"
          + " on \(streams[metric.stream].name)"
          + Self.by(metric.labels.map { columns[$0] }))
    }
    for alert in alerts { dump(alert, &lines) }
    dumpNotifications(&lines)
    for pattern in patterns {
      let columns = streams[pattern.stream].columns.map(\.name)
      lines.append("pattern \(pattern.name) on \(streams[pattern.stream].name)" + Self.by(pattern.keys.map { columns[$0] }))
    }
    for anomaly in anomalies {
      let columns = streams[anomaly.stream].columns.map(\.name)
      lines.append(
        "anomaly \(anomaly.name) on \(streams[anomaly.stream].name)" + Self.by(anomaly.labels.map { columns[$0] })
          + (anomaly.flag.map { " when \(columns[$0])" } ?? ""))
      lines.append("  values \(anomaly.values.map { "\($0.name): \(columns[$0.column])" }.joined(separator: ", "))")
    }
    return lines.joined(separator: "\n") + (lines.isEmpty ? "" : "\n")
  }

  private func dump(_ source: TypedSource, _ lines: inout [String]) {
    var head = "source \(source.name)"
    if let topic = source.topic { head += " kafka \(Value.string(topic).ruleText)" }
    lines.append(head + " format \(source.format)")
    if !source.partitionedBy.isEmpty {
      lines.append("  partitioned\(Self.by(source.partitionedBy.map { source.fields[$0].name }))")
    }
    let time = source.time
    lines.append(
      "  time \(source.fields[time.field].name) bound \(durationText(Double(time.boundNanos)))"
        + " idle \(durationText(Double(time.idleNanos)))"
        + " max_ahead \(durationText(Double(time.maxAheadNanos)))")
    for field in source.fields {
      var line = "  \(field.name): \(field.type.rawValue)\(field.isNullable ? "?" : "")"
      switch field.unit {
      case .native: break
      case .scaled(let factor): line += " x \(numberText(factor))"
      case .rfc3339: line += " rfc3339"
      }
      if field.path != [field.name] {
        line += " from \(field.path.map { Value.string($0).ruleText }.joined(separator: "."))"
      }
      if let value = field.defaultValue { line += " = \(value.ruleText)" }
      lines.append(line)
    }
    let columns = source.columns.map(\.name)
    for requirement in source.requirements {
      lines.append(
        "  require \(requirement.condition.text(columns: columns)) "
          + "else \(Value.string(requirement.reason).ruleText)")
    }
    if let topic = source.deadLetterTopic {
      lines.append("  dead_letter kafka \(Value.string(topic).ruleText)")
    }
    if let topic = source.lateTopic { lines.append("  late kafka \(Value.string(topic).ruleText)") }
  }

  private func dump(_ stream: TypedStream, _ lines: inout [String]) {
    var columns: [String]
    switch stream.input {
    case .source(let index):
      lines.append("stream \(stream.name) = \(sources[index].name)")
      columns = sources[index].columns.map(\.name)
    case .stream(let index):
      lines.append("stream \(stream.name) = \(streams[index].name)")
      columns = streams[index].columns.map(\.name)
    }
    for stage in stream.stages {
      switch stage {
      case .filter(let condition): lines.append("  | where \(condition.text(columns: columns))")
      case .derive(let assignments):
        for assignment in assignments {
          lines.append(
            "  | derive \(assignment.name) = \(assignment.expression.text(columns: columns)): "
              + assignment.expression.type.rawValue)
          columns.append(assignment.name)
        }
      case .cluster(let cluster):
        lines.append("  | \(cluster.text(columns: columns))")
        columns += TypedCluster.columnNames + cluster.values.map(\.name)
      case .join(let join):
        let right =
          switch join.right {
          case .source(let index): sources[index].name
          case .stream(let index): streams[index].name
          }
        lines.append("  | \(join.text(columns: columns, right: right))")
        columns += join.addedColumns.map(\.name)
      case .trace(let trace):
        lines.append("  | \(trace.text(columns: columns))")
        columns = trace.keys.map { keyName(columns[$0]) } + trace.columns.map(\.name)
      case .slo(let slo):
        lines.append("  | \(slo.text(columns: columns))")
        columns = slo.keys.map { columns[$0] } + slo.outputs.map(\.name)
      case .detector(let detector):
        lines.append("  | \(detector.text(columns: columns))")
        columns = (detector.isOwnRows ? detector.keys.map { columns[$0] } : columns) + detector.columns.map(\.name)
      case .aggregate(let aggregation):
        let keys = aggregation.keys.map { columns[$0] }
        let limit = aggregation.keyLimit.map { " limit \($0) keys" } ?? ""
        lines.append("  | window \(aggregation.window.ruleText)\(Self.by(keys))\(limit)")
        for aggregate in aggregation.aggregates {
          var arguments = aggregate.argument.map { [$0.text(columns: columns)] } ?? []
          arguments += aggregate.constants.map(\.ruleText)
          if let filter = aggregate.filter {
            arguments.append("where \(filter.text(columns: columns))")
          }
          lines.append(
            "  | aggregate \(aggregate.name) = \(aggregate.function)"
              + "(\(arguments.joined(separator: ", "))): \(aggregate.type.rawValue)")
        }
        columns = keys.map(keyName) + aggregation.aggregates.map(\.name)
      }
    }
    lines.append(
      "  -> "
        + stream.columns.map { "\($0.name): \($0.type.rawValue)\($0.isNullable ? "?" : "")" }
        .joined(separator: ", "))
  }

  private func dump(_ alert: TypedAlert, _ lines: inout [String]) {
    let stream = streams[alert.stream]
    let columns = stream.columns.map(\.name)
    let keys = stream.windowing?.keyColumns.map { columns[$0] } ?? []
    lines.append("\(alert.burn == nil ? "alert" : "burn alert") \(alert.name) on \(stream.name)\(Self.by(keys)) severity \(alert.severity)")
    lines.append(
      "  when \(alert.condition.text(columns: columns)) for \(durationText(Double(alert.forNanos)))"
        + " keep_firing \(durationText(Double(alert.keepFiringNanos)))")
    for step in alert.escalations {
      lines.append("  escalate to \(step.severity) after \(durationText(Double(step.afterNanos)))")
    }
    if alert.repeatNanos > 0 { lines.append("  repeat \(durationText(Double(alert.repeatNanos)))") }
    if alert.conditionText != alert.condition.text(columns: columns) {
      lines.append("  as written: \(alert.conditionText)")
    }
    for (what, templates) in [("label", alert.labels), ("annotation", alert.annotations)] {
      for template in templates {
        let parts = template.parts.map { part in
          switch part {
          case .text(let text): Value.string(text).ruleText
          case .value(let value): "{\(value.text(columns: columns))}"
          }
        }
        lines.append("  \(what) \(template.name): \(parts.joined(separator: " "))")
      }
    }
  }

  private func dumpNotifications(_ lines: inout [String]) {
    func names(_ alerts: [Int]) -> String {
      // Those of an slo have one name.
      alerts.map { self.alerts[$0] }.map { $0.burn == nil ? $0.name : "\($0.name) \($0.severity)" }.joined(separator: ", ")
    }
    for group in groups {
      let again = group.repeatNanos > 0 ? " repeat \(durationText(Double(group.repeatNanos)))" : ""
      lines.append(
        "group \(group.name) of \(names(group.alerts))\(Self.by(group.by))"
          + " wait \(durationText(Double(group.waitNanos))) interval \(durationText(Double(group.intervalNanos)))\(again)"
          + " limit \(group.listedMax)")
    }
    for inhibition in inhibitions {
      let equal = inhibition.equal.isEmpty ? "" : " equal \(inhibition.equal.joined(separator: ", "))"
      lines.append("inhibit \(names(inhibition.targets)) when \(names(inhibition.sources))\(equal)")
    }
    for maintenance in maintenances {
      lines.append("maintenance \(maintenance.name) \(maintenance.schedule.ruleText) on \(names(maintenance.alerts))")
      for matcher in maintenance.matchers { lines.append("  matching \(matcher.ruleText)") }
    }
  }

  private static func by(_ keys: [String]) -> String {
    keys.isEmpty ? "" : " by \(keys.joined(separator: ", "))"
  }
}
