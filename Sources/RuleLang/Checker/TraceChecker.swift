import Catalog

/// `trace` and `edges`.
extension Checker {
  static let gapNanosMax: Int64 = 3_600 * secondNanos
  static let longestNanosDefault: Int64 = 600 * secondNanos
  static let spanLimitMax: Int64 = 1_000_000

  mutating func trace(_ syntax: TraceSyntax, of stream: StreamSyntax, _ pipeline: inout Pipeline) {
    noteGathering(at: syntax.range)
    let word = syntax.isEdges ? "edges" : "trace"
    let before = pipeline.scope
    var isComplete = !before.isOpen
    if pipeline.windowing != nil {
      reporter.report(
        .badTrace, "`\(word)` reads spans, and these rows come from windows", at: syntax.range,
        hint: "put `\(word)` before `window`")
      isComplete = false
    }
    let list = keyList(syntax.keys, in: before)
    let keys = list.columns
    if !list.areKnown { isComplete = false }
    var typed = TypedTrace(
      isEdges: syntax.isEdges, keys: keys, gapNanos: 0, longestNanos: Self.longestNanosDefault, spanLimit: nil, span: 0,
      parent: 0, service: 0, start: nil, duration: 0, error: nil, name: nil)
    if !setTimes(syntax, &typed) { isComplete = false }
    if !setColumns(syntax, &typed, before) { isComplete = false }
    var after = Scope(kind: .rows, owner: stream.name.text)
    after.isOpen = !isComplete
    for (key, index) in zip(list.names, keys) {
      var column = before.columns[index]
      column.name = keyName(column.name)
      // A span without its trace's id is in no trace.
      column.isNullable = false
      if typed.columns.contains(where: { $0.name == column.name }) || after.index(of: column.name) != nil {
        reporter.report(
          .columnExists, "`\(word)` adds a column `\(column.name)` itself", at: key.range,
          hint: "give the key another name before: `| derive trace_id = \(key.text)`")
      }
      after.add(column)
    }
    for column in typed.columns {
      after.add(ColumnInfo(name: column.name, type: column.type, isNullable: column.isNullable))
    }
    after.lost = Set(before.columns.map(\.name))
    pipeline.scope = after
    pipeline.windowing = nil
    pipeline.clustering = nil
    pipeline.ordering = nil
    pipeline.detection = nil
    pipeline.isGathered = true
    if isComplete { pipeline.stages.append(.trace(typed)) }
  }

  private func setTimes(_ syntax: TraceSyntax, _ typed: inout TypedTrace) -> Bool {
    var isGood = true
    if let gap = syntax.gap {
      if let nanos = duration(gap, "`gap`", code: .badTrace, in: 1_000_000...Self.gapNanosMax) {
        typed.gapNanos = nanos
      } else {
        isGood = false
      }
    }
    if let longest = syntax.longest {
      if let nanos = duration(longest, "`longest`", code: .badTrace, in: 1_000_000...Self.dayNanos) {
        typed.longestNanos = nanos
      } else {
        isGood = false
      }
    }
    if let limit = syntax.limit, let checked = expressions.check(limit, in: .constant) {
      if case .int(let spans)? = checked.constant, (1...Self.spanLimitMax).contains(spans) {
        typed.spanLimit = Int(spans)
      } else {
        reporter.report(
          .badTrace, "a limit of spans is a constant whole number of 1 to \(Self.spanLimitMax)", at: limit.range,
          hint: "write it like `limit 50000 spans`")
        isGood = false
      }
    }
    return isGood
  }

  private func setColumns(_ syntax: TraceSyntax, _ typed: inout TypedTrace, _ scope: Scope) -> Bool {
    var places: [String: Int] = [:]
    var isGood = true
    for (item, column) in syntax.columns {
      guard let index = self.column(column, in: scope) else {
        isGood = false
        continue
      }
      places[item.text] = index
      guard let type = scope.columns[index].type else { continue }
      let wanted: ValueType =
        switch item.text {
        case "start": .timestamp
        case "duration": .duration
        case "error": .bool
        default: .string
        }
      if type != wanted {
        reporter.report(
          .badTrace, "the \(item.text) of a span is \(wanted.withArticle), and `\(column.text)` is \(type.withArticle)",
          at: column.range,
          hint: item.text == "error" ? "make a condition of it before: `| derive failed = status >= 500`" : nil)
        isGood = false
      }
    }
    for item in ["span", "parent", "service", "duration"] where !syntax.columns.contains(where: { $0.item.text == item }) {
      reporter.report(
        .missingItem, "spans have no `\(item)`", at: syntax.range,
        hint: "say which column it is: `{ \(item) \(item == "span" ? "span_id" : item == "parent" ? "parent_id" : item) … }`")
      isGood = false
    }
    guard isGood else { return false }
    typed.span = places["span"] ?? 0
    typed.parent = places["parent"] ?? 0
    typed.service = places["service"] ?? 0
    typed.duration = places["duration"] ?? 0
    typed.start = places["start"]
    typed.error = places["error"]
    typed.name = places["name"]
    return true
  }
}
