import Catalog

/// Detector stages: everything about one that is not the same for all stands in its `DetectorSpec`.
extension Checker {
  func detector(_ syntax: DetectorSyntax, of stream: StreamSyntax, _ pipeline: inout Pipeline) {
    guard let spec = catalog.detector(syntax.name.text) else {
      pipeline.scope.isOpen = true
      return
    }
    if spec.rows == .ownAtWindowEnd, pipeline.windowing == nil {
      if !pipeline.isWindowingUnknown {
        reporter.report(
          .badDetector, "`\(spec.name)` is evaluated when a window ends, and these rows come from no windows",
          at: syntax.range, hint: "put `| window tumbling 1m by … | aggregate n = count()` before it")
      }
      pipeline.scope.isOpen = true
      pipeline.isWindowingUnknown = true
      return
    }
    if pipeline.isGathered, pipeline.windowing == nil {
      if !pipeline.isWindowingUnknown {
        reporter.report(
          .badDetector, "`\(spec.name)` reads windows or the records of a source, and these rows come from a join or a trace",
          at: syntax.range, hint: "put `| window tumbling 1m by … | aggregate n = count()` before it")
      }
      pipeline.scope.isOpen = true
      return
    }
    let errorsBefore = reporter.errorCount
    let argument = syntax.argument.flatMap { self.argument($0, spec, pipeline) }
    let argumentType = argument.flatMap { pipeline.scope.columns[$0].type }
    let keys = seriesKeys(syntax, spec, pipeline)
    let isExchanged = pipeline.windowing == nil && pipeline.ordering == nil
    var settings = DetectorSettings(
      hopNanos: pipeline.windowing?.window.hopNanos ?? 0, argumentType: argumentType)
    settings.given = options(syntax.options, spec, argumentType)
    var names: [String: TextRange] = [:]
    for (name, given) in syntax.members {
      if let place = names[name.text] {
        duplicate(name, "member", first: place)
        continue
      }
      names[name.text] = name.range
      settings.members.append(
        DetectorSettings.Member(name: name.text, given: options(given, spec, argumentType)))
    }
    var isGood = keys != nil && (argument != nil || !spec.takesColumn)
    for option in spec.options
    where option.defaultValue == nil && !syntax.options.contains(where: { $0.name.text == option.name }) {
      reporter.report(
        .missingItem, "`\(spec.name)` needs `\(option.name)`", at: syntax.range,
        hint: "a stage reads `\(spec.example)`")
      isGood = false
    }
    if isGood, reporter.errorCount == errorsBefore { checkTogether(settings, spec, syntax) }
    let columns = spec.columns.map {
      TypedColumn(
        name: (syntax.prefix?.text ?? "") + $0.name, type: $0.type(argument: argumentType), isNullable: $0.name != "is_anomaly")
    }
    let seriesMax = syntax.limit.flatMap { self.seriesMax($0) } ?? TypedDetector.seriesMaxDefault
    if isGood, let keys {
      pipeline.stages.append(
        .detector(
          TypedDetector(
            name: spec.name, argument: argument, keys: keys, isExchanged: isExchanged,
            isOwnRows: spec.rows == .ownAtWindowEnd, settings: settings, seriesMax: seriesMax, columns: columns)))
    }
    add(columns, keys ?? [], argument, spec, syntax, of: stream, &pipeline)
    if !isGood { pipeline.scope.isOpen = true }
  }

  /// The rows behind the stage.
  private func add(
    _ columns: [TypedColumn], _ keys: [Int], _ argument: Int?, _ spec: DetectorSpec, _ syntax: DetectorSyntax,
    of stream: StreamSyntax, _ pipeline: inout Pipeline
  ) {
    var keys = keys
    if spec.rows == .ownAtWindowEnd {
      var after = Scope(kind: .rows, owner: stream.name.text, columns: keys.map { pipeline.scope.columns[$0] })
      after.lost = Set(pipeline.scope.columns.map(\.name))
      keys = Array(keys.indices)
      if let windowing = pipeline.windowing {
        pipeline.windowing = Windowing(window: windowing.window, keyColumns: keys)
      }
      pipeline.scope = after
    }
    let first = pipeline.scope.columns.count
    let known = columns.filter { pipeline.scope.index(of: $0.name) != nil }.map(\.name)
    if let one = known.first {
      let list = known.map { "`\($0)`" }.joined(separator: ", ")
      reporter.report(
        .columnExists, "there is a column \(list) already, and `\(spec.name)` adds \(known.count == 1 ? "one" : "them")",
        at: syntax.name.range, "columns of `\(pipeline.scope.owner)`",
        hint: "`prefix \(spec.name)_` at its end calls them `\(spec.name)_\(one)` and so on")
    }
    for column in columns {
      pipeline.scope.add(ColumnInfo(name: column.name, type: column.type, isNullable: column.isNullable))
    }
    if pipeline.windowing == nil, pipeline.ordering == nil { pipeline.ordering = keys }
    let added = Array(first..<first + columns.count)
    guard let flag = added.last else { return }
    pipeline.detection = Detection(
      keys: keys, argument: spec.rows == .same ? argument : nil, columns: added.dropLast(),
      names: spec.columns.dropLast().map(\.name), flag: flag)
  }

  private func argument(_ name: NameSyntax, _ spec: DetectorSpec, _ pipeline: Pipeline) -> Int? {
    guard let index = column(name, in: pipeline.scope) else { return nil }
    guard let type = pipeline.scope.columns[index].type else { return nil }
    if !type.isNumeric {
      reporter.report(
        .typeMismatch, "`\(name.text)` is \(type.withArticle), and `\(spec.name)` reads numbers", at: name.range,
        hint: type == .bool ? "`| derive x = if(\(name.text), 1, 0)` makes a number of it" : nil)
      return nil
    }
    return index
  }

  /// The columns that tell series apart: those of `by`, else the windows' keys.
  private func seriesKeys(_ syntax: DetectorSyntax, _ spec: DetectorSpec, _ pipeline: Pipeline) -> [Int]? {
    guard let names = syntax.keys else {
      if let windowing = pipeline.windowing { return windowing.keyColumns }
      return pipeline.ordering ?? []
    }
    let list = keyList(names, in: pipeline.scope)
    let keys = list.columns
    guard list.areKnown, let last = names.last else { return nil }
    let owners = pipeline.windowing?.keyColumns ?? pipeline.ordering ?? []
    let missing = owners.filter { !keys.contains($0) }.map { pipeline.scope.columns[$0].name }
    if !missing.isEmpty {
      let list = missing.map { "`\($0)`" }.joined(separator: ", ")
      reporter.report(
        .badDetector,
        pipeline.windowing != nil
          ? "`by` leaves out \(list), so that a series would have several rows in one window"
          : "`by` leaves out \(list), by which these rows have been put in order", at: last.range,
        hint: pipeline.windowing != nil
          ? "aggregate again by fewer keys before it, or leave `by` out: it is the windows' keys then"
          : "start from the records in a stream of its own, or name all of them")
      return nil
    }
    if spec.rows == .ownAtWindowEnd, keys.count != owners.count {
      reporter.report(
        .badDetector, "`\(spec.name)` follows the windows' keys, and no others", at: last.range,
        hint: "leave `by` out, or name the keys of the windows")
      return nil
    }
    return keys
  }

  private func seriesMax(_ syntax: ExprSyntax) -> Int? {
    guard let checked = expressions.check(syntax, in: .constant) else { return nil }
    let range = TypedDetector.seriesMaxRange
    guard case .int(let limit)? = checked.constant, range.contains(limit) else {
      reporter.report(
        .badDetector, "a limit of series is a whole number from \(range.lowerBound) to \(range.upperBound)",
        at: syntax.range, hint: "write it like `limit 10000 series`")
      return nil
    }
    return Int(limit)
  }

  private func checkTogether(_ settings: DetectorSettings, _ spec: DetectorSpec, _ syntax: DetectorSyntax) {
    if settings.members.count > DetectorSpec.membersMax {
      reporter.report(
        .badDetector, "there are \(settings.members.count) members, and at most \(DetectorSpec.membersMax) are taken",
        at: syntax.members[DetectorSpec.membersMax].name.range)
      return
    }
    if let problem = spec.validate(settings) {
      let place =
        syntax.options.first { $0.name.text == problem.option }?.name.range
        ?? syntax.members.flatMap(\.options).first { $0.name.text == problem.option }?.name.range ?? syntax.range
      reporter.report(.badDetector, problem.message, at: place, hint: problem.hint)
      return
    }
    let bytes = spec.stateBytes(settings)
    if bytes > DetectorSpec.seriesBytesMax {
      reporter.report(
        .badDetector, "each series would keep \(bytes) bytes, and at most \(DetectorSpec.seriesBytesMax) are allowed",
        at: syntax.range, hint: "remember less: a shorter baseline, or fewer members")
    }
  }

  // MARK: Options

  private func options(
    _ given: [DetectorOptionSyntax], _ spec: DetectorSpec, _ argument: ValueType?
  ) -> [String: DetectorValue] {
    var values: [String: DetectorValue] = [:]
    for syntax in given {
      guard let option = spec.option(syntax.name.text) else { continue }
      if let value = value(syntax.value, of: option, argument) { values[option.name] = value }
    }
    return values
  }

  private func value(
    _ syntax: DetectorOptionSyntax.Value, of option: DetectorOption, _ argument: ValueType?
  ) -> DetectorValue? {
    switch (option.kind, syntax) {
    case (.word(let words), .word(let word)):
      if words.contains(word.text) { return .word(word.text) }
      let meant = reporter.closest(to: word.text, among: words)
      return bad(option, at: word.range, hint: meant.map { "did you mean `\($0)`?" })
    case (.rows(let range), .word(let word)):
      return word.text == "none" && range.contains(0) ? .rows(0) : bad(option, at: word.range)
    case (.memory(_, let allowsNone), .word(let word)):
      if word.text == "all" { return .all }
      return word.text == "none" && allowsNone ? DetectorValue.none : bad(option, at: word.range)
    case (.rows(let range), .constant(let syntax)): return rows(syntax, range, option).map { .rows($0) }
    case (.memory(..<2, _), .constant(let syntax)): return bad(option, at: syntax.range)
    case (.memory(let most, _), .constant(let syntax)): return rows(syntax, 2...most, option).map { .rows($0) }
    case (.memory, .halfLife(let syntax)):
      guard let number = number(syntax) else { return bad(option, at: syntax.range) }
      return (0.5...1e9).contains(number) ? .halfLife(number) : bad(option, at: syntax.range)
    case (.number(let range), .constant(let syntax)):
      guard let number = number(syntax), range.contains(number) else { return bad(option, at: syntax.range) }
      return .number(number)
    case (.duration(let range), .constant(let syntax)):
      return duration(syntax, "`\(option.name)`", code: .badDetector, in: range).map { .duration($0) }
    case (.value(let range), .constant(let syntax)): return measured(syntax, range, option, argument)
    default: return nil
    }
  }

  private func rows(_ syntax: ExprSyntax, _ range: ClosedRange<Int>, _ option: DetectorOption) -> Int? {
    if let checked = expressions.check(syntax, in: .constant), case .int(let count)? = checked.constant,
      let whole = Int(exactly: count), range.contains(whole)
    {
      return whole
    }
    _ = bad(option, at: syntax.range)
    return nil
  }

  /// A number without a unit.
  private func number(_ syntax: ExprSyntax) -> Double? {
    guard let constant = expressions.check(syntax, in: .constant)?.constant, constant.type?.isDimensionless == true
    else { return nil }
    return constant.number
  }

  /// A constant of the argument's type.
  private func measured(
    _ syntax: ExprSyntax, _ range: ClosedRange<Double>, _ option: DetectorOption, _ argument: ValueType?
  ) -> DetectorValue? {
    guard let argument, let checked = expressions.check(syntax, in: .constant) else { return nil }
    guard let constant = checked.constant, let type = constant.type, let number = constant.number else {
      return bad(option, at: syntax.range)
    }
    guard type == argument || type.isDimensionless && argument.isDimensionless else {
      reporter.report(
        .typeMismatch, "`\(option.name)` is \(type.withArticle), and the column is \(argument.withArticle)",
        at: syntax.range, hint: "write it in the unit of the column")
      return nil
    }
    return range.contains(number) ? .measured(number, argument) : bad(option, at: syntax.range)
  }

  private func bad(_ option: DetectorOption, at range: TextRange, hint: String? = nil) -> DetectorValue? {
    reporter.report(
      .badDetector, "`\(option.name)` is \(option.kind.text)", at: range, hint: hint ?? option.summary)
    return nil
  }

  // MARK: Anomalies

  mutating func checkAnomaly(_ anomaly: AnomalySyntax) {
    // The second of two declarations of one name is nobody's.
    guard case .stream(anomaly.stream)? = inputs[anomaly.name.text] else { return }
    usedStreams.insert(anomaly.stream)
    guard let info = streamInfos[anomaly.stream], !info.scope.isOpen, !info.isWindowingUnknown else { return }
    if info.windowing == nil, info.ordering == nil {
      reporter.report(
        .badDetector, "the rows of `\(anomaly.name.text)` are plain records, of which none is out of the ordinary",
        at: anomaly.name.range, hint: "add a detector, such as `| zscore column by key`, or read a stream with windows")
      return
    }
    var labels = info.windowing?.keyColumns ?? info.clustering?.keys ?? []
    if let detection = info.detection { labels += detection.keys.filter { !labels.contains($0) } }
    var values: [TypedAnomaly.Evidence] = []
    if let detection = info.detection {
      if let argument = detection.argument { values.append(.init(name: "value", column: argument)) }
      values += zip(detection.names, detection.columns).map { .init(name: $0, column: $1) }
    } else {
      if let id = info.clustering?.columns.first, info.windowing == nil { labels.append(id) }
      values = info.scope.columns.indices.filter { !labels.contains($0) }
        .map { .init(name: info.scope.columns[$0].name, column: $0) }
    }
    program.anomalies.append(
      TypedAnomaly(
        name: anomaly.name.text, origin: reporter.place(anomaly.name.range), stream: streamPlaces[anomaly.stream],
        labels: labels, flag: info.detection?.flag, values: values))
  }
}

extension DetectorOption.Kind {
  /// What fits, for messages and the reference page.
  public var text: String {
    switch self {
    case .number(let range): "a number from \(numberText(range.lowerBound)) to \(numberText(range.upperBound))"
    case .rows(let range):
      "a count of rows from \(range.lowerBound) to \(range.upperBound)\(range.contains(0) ? ", or `none`" : "")"
    case .duration(let range):
      "a duration from \(durationText(Double(range.lowerBound))) to \(durationText(Double(range.upperBound)))"
    case .word(let words): words.map { "`\($0)`" }.joined(separator: ", ")
    case .memory(..<2, let allowsNone): "`all` or `half_life N windows`\(allowsNone ? ", or `none`" : "")"
    case .memory(let most, let allowsNone):
      "`all`, `half_life N windows` or `N windows` with 2 to \(most)\(allowsNone ? ", or `none`" : "")"
    case .value: "a constant of the column's type"
    }
  }
}
