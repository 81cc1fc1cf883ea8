import Runtime

/// `12 B`, `3.4 kB`, `56 MB`: decimal units, two digits at least.
func byteText(_ bytes: Int) -> String {
  let units = ["B", "kB", "MB", "GB", "TB"]
  var value = Double(bytes)
  var unit = 0
  while value >= 1_000, unit < units.count - 1 {
    value /= 1_000
    unit += 1
  }
  if unit == 0 { return "\(bytes) B" }
  let tenths = Int((value * 10).rounded())
  return tenths < 100 ? "\(tenths / 10).\(tenths % 10) \(units[unit])" : "\((tenths + 5) / 10) \(units[unit])"
}

private func keyCount(_ manifest: CheckpointManifest) -> Int {
  // Sums of numbers that a file claims.
  manifest.sections.reduce(0) { min($0 + min($1.keys, 1 << 53), 1 << 53) }
}

/// Bytes a key, rounded; nil without keys.
private func bytesPerKey(_ manifest: CheckpointManifest) -> Int? {
  let keys = keyCount(manifest)
  return keys == 0 ? nil : (manifest.storedBytes + keys / 2) / keys
}

/// One line a checkpoint, under a line of headings; empty without any.
func checkpointTable(_ entries: [SurveyedCheckpoint]) -> String {
  guard !entries.isEmpty else { return "" }
  var rows = [["NAME", "TAKEN", "RULES", "PARTITIONS", "KEYS", "SIZE", "BYTES/KEY", "KIND"]]
  for entry in entries {
    guard let manifest = entry.manifest else {
      rows.append([entry.name, entry.problem.map { "damaged: \($0)" } ?? "unfinished"])
      continue
    }
    rows.append([
      manifest.name, formatTimestamp(manifest.createdNanos), String(manifest.revision.prefix(12)),
      grouped(manifest.partitions.count), grouped(keyCount(manifest)), byteText(manifest.storedBytes),
      bytesPerKey(manifest).map(grouped) ?? "-", manifest.isSavepoint ? "savepoint" : "checkpoint",
    ])
  }
  return table(rows, rightFrom: 3, to: 7)
}

/// Columns two blanks apart; those in `rightFrom..<to` flush right. Short rows stand for themselves.
private func table(_ rows: [[String]], rightFrom: Int, to: Int) -> String {
  let width = rows.map(\.count).max() ?? 0
  let widths = (0..<width).map { column in
    rows.filter { $0.count == width || column == 0 }.map { $0[column].count }.max() ?? 0
  }
  var text = ""
  for row in rows {
    var line = ""
    for (column, cell) in row.enumerated() {
      let blanks = String(repeating: " ", count: max(0, widths[column] - cell.count))
      let isRight = row.count == width && rightFrom..<to ~= column
      line += (column > 0 ? "  " : "") + (isRight ? blanks + cell : column == row.count - 1 ? cell : cell + blanks)
    }
    text += line + "\n"
  }
  return text
}

/// What `list --format json` prints for one.
func checkpointJSON(_ entry: SurveyedCheckpoint) -> String {
  var bytes: [UInt8] = []
  bytes.append(json: "{\"name\":")
  bytes.append(jsonString: entry.name)
  if let manifest = entry.manifest {
    bytes.append(json: ",\"state\":\"complete\",\"created\":")
    bytes.append(jsonTime: manifest.createdNanos)
    bytes.append(json: ",\"revision\":")
    bytes.append(jsonString: manifest.revision)
    bytes.append(json: ",\"workers\":")
    bytes.append(json: Int64(manifest.workers))
    bytes.append(json: ",\"partitions\":")
    bytes.append(json: Int64(manifest.partitions.count))
    bytes.append(json: ",\"keys\":")
    bytes.append(json: Int64(keyCount(manifest)))
    bytes.append(json: ",\"bytes\":")
    bytes.append(json: Int64(manifest.storedBytes))
    bytes.append(json: ",\"savepoint\":")
    bytes.append(json: manifest.isSavepoint ? "true" : "false")
  } else if let problem = entry.problem {
    bytes.append(json: ",\"state\":\"damaged\",\"problem\":")
    bytes.append(jsonString: problem)
  } else {
    bytes.append(json: ",\"state\":\"unfinished\"")
  }
  bytes.append(json: "}")
  return String(decoding: bytes, as: UTF8.self)
}

/// The manifest itself, as the store keeps it.
func manifestText(_ manifest: CheckpointManifest) throws -> String {
  String(decoding: try manifest.encoded(), as: UTF8.self)
}

/// What `show` prints.
func checkpointText(_ manifest: CheckpointManifest) -> String {
  var text = "\(manifest.isSavepoint ? "savepoint" : "checkpoint") \(manifest.name)\n"
  text += "  taken  \(formatTimestamp(manifest.createdNanos)) by group \(manifest.group), "
  text += "\(counted(manifest.workers, "worker"))\n"
  text += "  rules  \(manifest.revision)\n"
  text += "  state  \(byteText(manifest.storedBytes)) in \(counted(manifest.sections.count, "section")), "
  text += counted(keyCount(manifest), "key")
  if let each = bytesPerKey(manifest) { text += ", \(grouped(each)) bytes a key" }
  text += "\n\npartitions\n"
  if manifest.partitions.isEmpty { text += "  none\n" } else {
    var rows = [["  SOURCE", "PARTITION", "NEXT OFFSET", "WATERMARK"]]
    for partition in manifest.partitions {
      rows.append([
        "  \(partition.source)", "\(partition.topic)/\(partition.partition)",
        partition.offset < 0 ? "none read" : String(partition.offset), watermarkText(partition.watermark),
      ])
    }
    text += table(rows, rightFrom: 2, to: 3)
  }
  text += "\noperators\n"
  let rows = operatorRows(manifest)
  let headings = [["  OPERATOR", "KIND", "KEYS", "SIZE", "RULES"]]
  text += rows.isEmpty ? "  none\n" : table(headings + rows, rightFrom: 2, to: 4)
  return text
}

private func operatorRows(_ manifest: CheckpointManifest) -> [[String]] {
  let sections = Dictionary(grouping: manifest.sections, by: \.operatorID)
  let known = Set(manifest.operators.map(\.id))
  // Sections without an entry are still somebody's state.
  let others = Set(sections.keys).subtracting(known).sorted().map {
    StoredOperator(id: $0, kind: "-", summary: "", rules: [])
  }
  return (manifest.operators + others).map { entry in
    let own = sections[entry.id] ?? []
    let rules = entry.rules.isEmpty ? "-" : entry.rules.joined(separator: ", ")
    return [
      "  \(entry.id)", entry.kind, grouped(own.reduce(0) { $0 &+ $1.keys }),
      byteText(own.reduce(0) { $0 &+ $1.storedBytes }), entry.summary.isEmpty ? rules : "\(rules) (\(entry.summary))",
    ]
  }
}

private func watermarkText(_ nanos: Int64) -> String {
  switch nanos {
  case .min: "none"
  case .max: "the end"
  default: formatTimestamp(nanos)
  }
}
