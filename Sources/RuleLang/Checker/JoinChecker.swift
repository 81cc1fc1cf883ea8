import Catalog

/// `join`, `left join` and `unless`.
extension Checker {
  /// Longest time that rows are kept for a partner.
  static let withinNanosMax: Int64 = 7 * dayNanos
  /// Most stages that join or put traces together: each has a place in the metadata of commits.
  static let gatheringsMax = 64

  mutating func join(_ syntax: JoinSyntax, _ pipeline: inout Pipeline) {
    noteGathering(at: syntax.range)
    guard let (input, right) = rightSide(syntax.right) else {
      pipeline.scope.isOpen = true
      pipeline.isWindowingUnknown = true
      return
    }
    let name = syntax.alias ?? syntax.right
    let leftColumns = pipeline.scope.columns.count
    var isComplete = !right.scope.isOpen && !pipeline.scope.isOpen
    let (leftKeys, rightKeys) = joinKeys(syntax, name.text, pipeline, right, &isComplete)
    var typed = TypedJoin(
      kind: syntax.kind, right: input, name: name.text, leftKeys: leftKeys, rightKeys: rightKeys, lowNanos: 0,
      highNanos: 0, isByWindow: false,
      rightColumns: right.scope.columns.map {
        TypedColumn(name: $0.name, type: $0.type ?? .int, isNullable: $0.isNullable)
      })
    if !setInterval(syntax, &typed, pipeline, right) { isComplete = false }
    for (unit, value) in syntax.limits { setLimit(unit, value, &typed) }
    if syntax.kind != .unless {
      if let first = pipeline.scope.joined[name.text] {
        reporter.report(
          .duplicateName, "columns of `\(name.text)` are there already", at: name.range, "again",
          context: [(first, "first joined here")], hint: "give it another name: `join \(syntax.right.text) as other on …`")
        isComplete = false
      } else {
        for (column, added) in zip(right.scope.columns, typed.addedColumns) {
          pipeline.scope.add(ColumnInfo(name: added.name, type: column.type, isNullable: added.isNullable))
        }
        pipeline.scope.joined[name.text] = name.range
      }
      if right.scope.isOpen { pipeline.scope.isOpen = true }
    }
    let isUnknown = pipeline.isWindowingUnknown || right.isWindowingUnknown
    pipeline.windowing = typed.windowing(left: pipeline.windowing, leftColumns: leftColumns, right: right.windowing)
    pipeline.isWindowingUnknown = isUnknown && syntax.within == nil
    pipeline.clustering = nil
    pipeline.ordering = nil
    pipeline.detection = nil
    pipeline.isGathered = true
    if isComplete { pipeline.stages.append(.join(typed)) } else { pipeline.scope.isOpen = true }
  }

  mutating func noteGathering(at range: TextRange) {
    gatherings += 1
    guard gatherings == Self.gatheringsMax + 1 else { return }
    reporter.report(
      .badJoin, "there are more than \(Self.gatheringsMax) stages that join or put traces together", at: range,
      hint: "name a joined stream once, and let rules share it")
  }

  private mutating func rightSide(_ name: NameSyntax) -> (StreamInput, StreamInfo)? {
    switch inputs[name.text] {
    case .source(let source)?:
      usedSources.insert(source)
      return (.source(source), StreamInfo(scope: sourceScopes[source], windowing: nil))
    case .stream(let other)?:
      usedStreams.insert(other)
      guard let info = streamInfos[other] else { return nil }
      return (.stream(streamPlaces[other]), info)
    case nil:
      unknownInput(name, "source or stream")
      return nil
    }
  }

  private func joinKeys(
    _ syntax: JoinSyntax, _ name: String, _ pipeline: Pipeline, _ right: StreamInfo, _ isComplete: inout Bool
  ) -> (left: [Int], right: [Int]) {
    var leftKeys: [Int] = []
    var rightKeys: [Int] = []
    for (left, other) in syntax.keys {
      // The right side's own name may stand in front of its columns.
      var own = other
      if own.text.hasPrefix("\(name).") { own.text.removeFirst(name.utf8.count + 1) }
      let a = column(left, in: pipeline.scope)
      let b = column(own, in: right.scope)
      guard let a, let b else {
        isComplete = false
        continue
      }
      if zip(leftKeys, rightKeys).contains(where: { $0 == a && $1 == b }) {
        reporter.report(
          .duplicateName, "the key `\(left.text)` is given twice", at: left.range, hint: "leave it out")
        continue
      }
      guard let x = pipeline.scope.columns[a].type, let y = right.scope.columns[b].type else {
        isComplete = false
        continue
      }
      checkKey(left, x)
      if x != y {
        reporter.report(
          .badJoin, "`\(left.text)` is \(x.withArticle), and `\(own.text)` of `\(syntax.right.text)` is \(y.withArticle)",
          at: other.range, hint: "keys have one type on both sides")
        isComplete = false
      }
      leftKeys.append(a)
      rightKeys.append(b)
    }
    return (leftKeys, rightKeys)
  }

  /// Answers whether the interval is known.
  private func setInterval(
    _ syntax: JoinSyntax, _ typed: inout TypedJoin, _ pipeline: Pipeline, _ right: StreamInfo
  ) -> Bool {
    guard let within = syntax.within else {
      if pipeline.isWindowingUnknown || right.isWindowingUnknown { return false }
      guard let windowing = pipeline.windowing, let other = right.windowing, windowing.window == other.window else {
        let isWindowed = pipeline.windowing != nil && right.windowing != nil
        reporter.report(
          .badJoin, "this join does not say how far apart in time rows may be", at: syntax.range,
          hint: isWindowed
            ? "give both sides the same windows, or write `within 5m`" : "write `within 30s`: rows are kept for so long")
        return false
      }
      typed.isByWindow = true
      return true
    }
    guard let nanos = duration(within, "`within`", code: .badJoin, in: 0...Self.withinNanosMax) else { return false }
    typed.lowNanos = syntax.direction?.text == "after" ? 0 : -nanos
    typed.highNanos = syntax.direction?.text == "before" ? 0 : nanos
    return true
  }

  private func setLimit(_ unit: NameSyntax, _ syntax: ExprSyntax, _ typed: inout TypedJoin) {
    guard let checked = expressions.check(syntax, in: .constant) else { return }
    let isState = unit.text == "state"
    let range: ClosedRange<Int> =
      isState ? 1 << 20...1 << 40 : unit.text == "rows" ? 1...1_000_000 : 1...Int(Self.keyLimitMax)
    var value: Int?
    switch checked.constant {
    case .int(let given)? where !isState: value = Int(given)
    case .bytes(let given)? where isState: value = Int(exactly: given.rounded())
    default: break
    }
    guard let value, range.contains(value) else {
      reporter.report(
        .badJoin,
        isState
          ? "a limit of state is a constant size of 1MiB to 1TiB"
          : "a limit of \(unit.text) is a constant whole number of 1 to \(range.upperBound)", at: syntax.range,
        hint: isState ? "write it like `limit 1GiB state`" : "write it like `limit 10000 \(unit.text)`")
      return
    }
    switch unit.text {
    case "rows":
      twice(unit, typed.rowLimit)
      typed.rowLimit = value
    case "keys":
      twice(unit, typed.keyLimit)
      typed.keyLimit = value
    default:
      twice(unit, typed.byteLimit)
      typed.byteLimit = value
    }
  }

  private func twice(_ unit: NameSyntax, _ known: Int?) {
    guard known != nil else { return }
    reporter.report(.duplicateItem, "a limit of \(unit.text) is given twice", at: unit.range, hint: "leave one out")
  }
}
