import Catalog

/// A pipeline while it is being checked, stage by stage.
struct Pipeline {
  var scope: Scope
  var windowing: Windowing?
  var isWindowingUnknown = false
  var stages: [TypedStage] = []
  /// A `window` that waits for its `aggregate`.
  var window: WindowSyntax?
  var isWindowReported = false
  var clustering: Checker.Clustering?
  var ordering: [Int]?
  var detection: Checker.Detection?
  /// Behind a join or a trace: rows have no place in a source any more.
  var isGathered = false
}

extension Checker {
  static let windowNanosMax: Int64 = 90 * dayNanos
  static let windowNanosMin: Int64 = 1_000_000
  /// Most hops in a window: each key keeps a state for every one.
  static let windowHopsMax: Int64 = 100_000
  /// Most keys that a rule may allow itself: groups are numbered by 32 bits.
  static let keyLimitMax: Int64 = 100_000_000

  mutating func checkStreams() {
    let streams = syntax.streams
    streamInfos = Array(repeating: nil, count: streams.count)
    streamPlaces = Array(repeating: -1, count: streams.count)
    let inputs = inputs
    let order = DependencyOrder(count: streams.count) { index in
      var names = streams[index].input.map { [$0] } ?? []
      for case .join(let join) in streams[index].stages { names.append(join.right) }
      return names.compactMap { name in
        if case .stream(let input)? = inputs[name.text] { return input }
        return nil
      }
    }
    for index in order.order {
      if let closing = order.cycles[index] {
        reporter.report(
          .cyclicDefinition, "the \(streams[index].what) `\(streams[index].name.text)` reads itself",
          at: streams[index].input?.range ?? streams[index].name.range,
          context: closing == index
            ? [] : [(streams[closing].name.range, "which reads this one")])
        // Unknown to those who read it; its own mistakes are still looked for.
        streamInfos[index] = unknownStream(streams[index])
      }
      checkStream(streams[index], at: index)
    }
  }

  private func unknownStream(_ stream: StreamSyntax) -> StreamInfo {
    var scope = Scope(kind: .rows, owner: stream.name.text)
    scope.isOpen = true
    return StreamInfo(scope: scope, windowing: nil, isWindowingUnknown: true)
  }

  private mutating func checkStream(_ stream: StreamSyntax, at index: Int) {
    var pipeline = unknownPipeline(stream)
    var input = StreamInput.source(0)
    if let name = stream.input {
      switch inputs[name.text] {
      case .source(let source)?:
        usedSources.insert(source)
        input = .source(source)
        pipeline = Pipeline(scope: sourceScopes[source])
      case .stream(let other)?:
        usedStreams.insert(other)
        if let info = streamInfos[other] {
          input = .stream(streamPlaces[other])
          pipeline = Pipeline(
            scope: info.scope, windowing: info.windowing,
            isWindowingUnknown: info.isWindowingUnknown, clustering: info.clustering, ordering: info.ordering,
            detection: info.detection, isGathered: info.isGathered)
        }
      case nil:
        unknownInput(name, "source or stream")
      }
    }
    for stage in stream.stages { checkStage(stage, of: stream, at: index, &pipeline) }
    if let window = pipeline.window, !pipeline.isWindowReported {
      windowWithoutAggregate(window)
    }
    if pipeline.window != nil { pipeline.isWindowingUnknown = true }
    pipeline.scope.owner = stream.name.text
    streamPlaces[index] = program.streams.count
    streamInfos[index] = StreamInfo(
      scope: pipeline.scope, windowing: pipeline.windowing,
      isWindowingUnknown: pipeline.isWindowingUnknown, clustering: pipeline.clustering, ordering: pipeline.ordering,
      detection: pipeline.detection, isGathered: pipeline.isGathered)
    program.streams.append(
      TypedStream(
        name: stream.name.text, origin: reporter.place(stream.name.range), input: input,
        stages: pipeline.stages,
        columns: pipeline.scope.columns.map {
          TypedColumn(name: $0.name, type: $0.type ?? .int, isNullable: $0.isNullable)
        },
        windowing: pipeline.windowing))
  }

  private func unknownPipeline(_ stream: StreamSyntax) -> Pipeline {
    Pipeline(scope: unknownStream(stream).scope, isWindowingUnknown: true)
  }

  private mutating func checkStage(
    _ stage: StageSyntax, of stream: StreamSyntax, at index: Int, _ pipeline: inout Pipeline
  ) {
    switch stage {
    case .slo(let slo): checkSlo(slo, of: stream, at: index, &pipeline)
    case .filter(let syntax):
      reportPendingWindow(&pipeline)
      if let condition = expressions.condition(syntax, in: pipeline.scope, of: "`where`") {
        pipeline.stages.append(.filter(condition.expression))
      }
    case .derive(let assignments):
      reportPendingWindow(&pipeline)
      derive(assignments, &pipeline)
    case .window(let window):
      if let pending = pipeline.window, !pipeline.isWindowReported {
        windowWithoutAggregate(pending)
      }
      pipeline.window = window
      pipeline.isWindowReported = false
    case .aggregate(let assignments, let range):
      aggregate(assignments, at: range, of: stream, &pipeline)
    case .cluster(let cluster):
      reportPendingWindow(&pipeline)
      self.cluster(cluster, &pipeline)
    case .detector(let detector):
      reportPendingWindow(&pipeline)
      self.detector(detector, of: stream, &pipeline)
    case .join(let join):
      reportPendingWindow(&pipeline)
      self.join(join, &pipeline)
    case .trace(let trace):
      reportPendingWindow(&pipeline)
      self.trace(trace, of: stream, &pipeline)
    case .broken:
      // Whatever it was, it may have added columns or windows.
      pipeline.scope.isOpen = true
      pipeline.isWindowingUnknown = true
      pipeline.isWindowReported = true
    }
  }

  private func reportPendingWindow(_ pipeline: inout Pipeline) {
    guard let window = pipeline.window, !pipeline.isWindowReported else { return }
    windowWithoutAggregate(window)
    pipeline.isWindowReported = true
  }

  private func windowWithoutAggregate(_ window: WindowSyntax) {
    reporter.report(
      .windowWithoutAggregate, "`window` is not followed by `aggregate`", at: window.range,
      hint: "`| aggregate n = count()` comes next; `where` and `derive` go before or behind both")
  }

  private func derive(_ assignments: [AssignmentSyntax], _ pipeline: inout Pipeline) {
    var typed: [TypedAssignment] = []
    for assignment in assignments {
      let checked = expressions.check(assignment.value, in: pipeline.scope)
      if pipeline.scope.index(of: assignment.name.text) != nil {
        columnExists(assignment.name, of: pipeline.scope.owner)
        continue
      }
      if let checked, checked.type == nil {
        reporter.report(
          .alwaysNull, "this column is always null", at: assignment.value.range,
          hint: "`if(condition, value, null)` is null in some rows")
      }
      pipeline.scope.add(
        ColumnInfo(
          name: assignment.name.text, type: checked?.type, isNullable: checked?.isNullable ?? true))
      if let checked, checked.type != nil {
        typed.append(
          TypedAssignment(name: assignment.name.text, expression: checked.expression))
      }
    }
    pipeline.stages.append(.derive(typed))
  }

  func columnExists(_ name: NameSyntax, of owner: String) {
    reporter.report(
      .columnExists, "there is a column `\(name.text)` already", at: name.range,
      "a column of `\(owner)`", hint: "choose another name; a name means one thing in a pipeline")
  }

  // MARK: Windows

  private func aggregate(
    _ assignments: [AssignmentSyntax], at range: TextRange, of stream: StreamSyntax,
    _ pipeline: inout Pipeline
  ) {
    var keys: [Int] = []
    var keyNames: [NameSyntax] = []
    var spec: WindowSpec?
    var limit: Int?
    var isKeysKnown = true
    if let window = pipeline.window {
      spec = windowSpec(window, over: pipeline)
      limit = keyLimit(window, over: pipeline)
      let list = keyList(window.keys, in: pipeline.scope)
      keys = list.columns
      keyNames = list.names
      isKeysKnown = list.areKnown
    } else {
      isKeysKnown = false
      if !pipeline.isWindowReported {
        reporter.report(
          .windowWithoutAggregate, "`aggregate` without a window before it", at: range,
          hint: "put `| window tumbling 1m by …` before it")
      }
    }
    var after = Scope(
      kind: .rows, owner: stream.name.text)
    for (key, index) in zip(keyNames, keys) {
      var column = pipeline.scope.columns[index]
      column.name = keyName(column.name)
      if after.index(of: column.name) != nil {
        reporter.report(
          .columnExists, "two keys are called `\(column.name)` behind `aggregate`", at: key.range,
          hint: "give one another name before: `| derive other = \(key.text)`")
      }
      after.add(column)
    }
    after.isOpen = !isKeysKnown
    var aggregates: [TypedAggregate] = []
    for assignment in assignments {
      let typed = expressions.aggregate(assignment, in: pipeline.scope)
      if after.index(of: assignment.name.text) != nil {
        columnExists(assignment.name, of: stream.name.text)
        continue
      }
      after.add(
        ColumnInfo(
          name: assignment.name.text, type: typed?.aggregate.type,
          isNullable: typed?.isNullable ?? true))
      if let typed { aggregates.append(typed.aggregate) }
    }
    after.lost = Set(pipeline.scope.columns.map(\.name))
    if let spec {
      pipeline.stages.append(
        .aggregate(TypedAggregation(window: spec, keys: keys, aggregates: aggregates, keyLimit: limit)))
      pipeline.windowing = Windowing(window: spec, keyColumns: Array(keys.indices))
    }
    pipeline.isWindowingUnknown = spec == nil || !isKeysKnown
    pipeline.scope = after
    pipeline.clustering = nil
    pipeline.ordering = nil
    pipeline.detection = nil
    pipeline.window = nil
    pipeline.isWindowReported = false
  }

  /// `limit N keys`, where it has a meaning.
  private func keyLimit(_ window: WindowSyntax, over pipeline: Pipeline) -> Int? {
    keyLimit(window.keyLimit, keys: window.keys, over: pipeline)
  }

  func keyLimit(_ syntax: ExprSyntax?, keys: [NameSyntax], over pipeline: Pipeline) -> Int? {
    guard let syntax, let checked = expressions.check(syntax, in: .constant) else { return nil }
    guard case .int(let limit)? = checked.constant else {
      reporter.report(
        checked.constant == nil ? .notConstant : .typeMismatch, "a limit of keys is a constant whole number",
        at: syntax.range, hint: "write it like `limit 10000 keys`")
      return nil
    }
    guard (1...Self.keyLimitMax).contains(limit) else {
      reporter.report(
        .badWindow, "a limit of keys is between 1 and \(Self.keyLimitMax)", at: syntax.range)
      return nil
    }
    if keys.isEmpty {
      reporter.report(
        .badWindow, "this window has no keys to limit", at: syntax.range,
        hint: "leave the limit out, or name keys: `by service limit \(limit) keys`")
      return nil
    }
    if pipeline.windowing != nil, !pipeline.isWindowingUnknown {
      reporter.report(
        .badWindow, "a limit of keys belongs to the first window", at: syntax.range,
        hint: "these windows read a row for each key of the windows before them: limit those")
      return nil
    }
    return Int(limit)
  }

  /// Columns by which rows are told apart, each once.
  struct KeyList {
    var columns: [Int] = []
    /// As they are written, by column.
    var names: [NameSyntax] = []
    /// Whether the scope has all that are written.
    var areKnown = true
    /// Whether none is written twice.
    var areDistinct = true
  }

  func keyList(_ names: [NameSyntax], in scope: Scope) -> KeyList {
    var keys = KeyList()
    for name in names {
      guard let index = column(name, in: scope) else {
        keys.areKnown = false
        continue
      }
      if keys.columns.contains(index) {
        reporter.report(
          .duplicateName, "the key `\(name.text)` is given twice", at: name.range, hint: "leave it out")
        keys.areDistinct = false
        continue
      }
      if let type = scope.columns[index].type { checkKey(name, type) }
      keys.columns.append(index)
      keys.names.append(name)
    }
    return keys
  }

  func column(_ name: NameSyntax, in scope: Scope) -> Int? {
    if let index = scope.index(of: name.text) { return index }
    if !scope.isOpen { expressions.unknownColumn(name.text, at: name.range, in: scope) }
    return nil
  }

  func checkKey(_ key: NameSyntax, _ type: ValueType) {
    switch type {
    case .string, .int, .bool: break
    case .float, .timestamp, .duration, .bytes, .ratio:
      reporter.report(
        .typeMismatch, "`\(key.text)` is \(type.withArticle), and keys are strings, ints or bools",
        at: key.range, hint: "a measured value makes a group of nearly every row")
    }
  }

  private func windowSpec(_ window: WindowSyntax, over pipeline: Pipeline) -> WindowSpec? {
    let bounds = Self.windowNanosMin...Self.windowNanosMax
    let size = duration(window.size, "a window's size", code: .badWindow, in: bounds)
    let hop = window.hop.map { duration($0, "a window's hop", code: .badWindow, in: bounds) } ?? size
    guard let size, let hop else { return nil }
    let hopRange = window.hop?.range ?? window.size.range
    if hop > size {
      reporter.report(
        .badWindow, "the hop is longer than the window", at: hopRange,
        context: [(window.size.range, "the window's size")],
        hint: "rows between the windows would be in none; make the hop \(durationText(Double(size)))")
      return nil
    }
    if size % hop != 0 {
      reporter.report(
        .badWindow, "the size is no multiple of the hop", at: window.size.range,
        context: [(hopRange, "\(durationText(Double(size % hop))) is left over")],
        hint: "for example \(durationText(Double(size - size % hop)))")
      return nil
    }
    if size / hop > Self.windowHopsMax {
      reporter.report(
        .badWindow, "the window hops \(size / hop) times in its length", at: hopRange,
        hint: "a window has at most \(Self.windowHopsMax) hops; hop less often")
      return nil
    }
    if let inner = pipeline.windowing?.window, !pipeline.isWindowingUnknown,
      hop % inner.hopNanos != 0
    {
      let step = durationText(Double(inner.hopNanos))
      reporter.report(
        .windowMisaligned, "this window does not fit the windows it reads", at: window.range,
        "hops every \(durationText(Double(hop)))",
        hint: "its input has a row each \(step); use a multiple of \(step)")
      return nil
    }
    return WindowSpec(sizeNanos: size, hopNanos: hop)
  }
}
