import Catalog

/// `cluster` stages and `pattern` declarations.
extension Checker {
  /// Longest text of delimiters.
  private static let delimitersMax = 32

  func cluster(_ syntax: ClusterSyntax, _ pipeline: inout Pipeline) {
    guard let spec = catalog.cluster else {
      pipeline.scope.isOpen = true
      return
    }
    if pipeline.isGathered {
      reporter.report(
        .badCluster, "`cluster` reads records of a source, and these rows are made of others", at: syntax.range,
        hint: "put `cluster` before `join`")
      pipeline.scope.isOpen = true
      return
    }
    if pipeline.windowing != nil || pipeline.clustering != nil {
      reporter.report(
        .badCluster,
        pipeline.clustering != nil
          ? "these rows have their patterns already" : "`cluster` reads records, and these rows come from windows",
        at: syntax.range,
        hint: pipeline.clustering != nil
          ? "a pipeline has one `cluster` stage" : "put `cluster` before `window`, and group by `template_id`")
      pipeline.scope.isOpen = true
      return
    }
    if pipeline.ordering != nil {
      reporter.report(
        .badCluster, "`cluster` stands behind a detector here", at: syntax.range,
        hint: "put `cluster` first: a detector may stand behind it")
      pipeline.scope.isOpen = true
      return
    }
    let message = column(syntax.message, in: pipeline.scope)
    if let message, let type = pipeline.scope.columns[message].type, type != .string {
      reporter.report(
        .typeMismatch, "`\(syntax.message.text)` is \(type.withArticle), and patterns are those of texts",
        at: syntax.message.range)
    }
    let keys = keyList(syntax.keys, in: pipeline.scope)
    let isComplete = message != nil && keys.areKnown
    var typed = TypedCluster(
      message: message ?? 0, keys: keys.columns, similarity: nil, depth: nil, limit: nil, siblings: nil, mergesRuns: nil,
      delimiters: "", masks: [], values: [])
    for (option, value) in syntax.numbers { set(option, value, spec, &typed) }
    if let delimiters = syntax.delimiters {
      typed.delimiters = delimiters.text
      let isPlain = delimiters.text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F } && !delimiters.text.isEmpty
      if !isPlain || delimiters.text.utf8.count > Self.delimitersMax {
        reporter.report(
          .badCluster, "delimiters are 1 to \(Self.delimitersMax) visible ASCII characters", at: delimiters.range,
          hint: "spaces end words anyway")
      }
    }
    checkMasks(syntax.masks, spec, &typed)
    let isNullable = message.map { pipeline.scope.columns[$0].isNullable } ?? true
    let first = pipeline.scope.columns.count
    let types: [ValueType] = [.string, .string, .bool, .bool, .string]
    for (name, type) in zip(TypedCluster.columnNames, types) {
      if pipeline.scope.index(of: name) != nil {
        columnExists(NameSyntax(text: name, range: syntax.range), of: pipeline.scope.owner)
      }
      pipeline.scope.add(ColumnInfo(name: name, type: type, isNullable: isNullable))
    }
    checkValues(syntax.values, spec, &typed, &pipeline)
    pipeline.ordering = keys.columns
    pipeline.clustering = Clustering(keys: keys.columns, columns: types.indices.map { first + $0 })
    if isComplete { pipeline.stages.append(.cluster(typed)) } else { pipeline.scope.isOpen = true }
  }

  private func set(_ option: NameSyntax, _ syntax: ExprSyntax, _ spec: ClusterSpec, _ typed: inout TypedCluster) {
    guard let checked = expressions.check(syntax, in: .constant) else { return }
    var number: Double?
    switch checked.constant {
    case .int(let value)?: number = Double(value)
    case .float(let value)?, .ratio(let value)?: number = value
    default: break
    }
    func whole(_ range: ClosedRange<Int>, _ what: String) -> Int? {
      if let number, let value = Int(exactly: number), range.contains(value) { return value }
      reporter.report(
        .badCluster, "`\(option.text)` is a whole number from \(range.lowerBound) to \(range.upperBound)",
        at: syntax.range, hint: what)
      return nil
    }
    switch option.text {
    case "similarity":
      if let number, spec.limits.similarity.contains(number) {
        typed.similarity = number
      } else {
        reporter.report(
          .badCluster,
          "`similarity` is a number from \(numberText(spec.limits.similarity.lowerBound)) to "
            + numberText(spec.limits.similarity.upperBound), at: syntax.range,
          hint: "the share of a pattern's words that a line must have")
      }
    case "depth": typed.depth = whole(spec.limits.depth, "tokens from the start that must be equal")
    case "limit": typed.limit = whole(spec.limits.templates, "patterns kept for each key")
    case "merge_runs":
      if case .bool(let merges)? = checked.constant {
        typed.mergesRuns = merges
      } else {
        reporter.report(
          .badCluster, "`merge_runs` is true or false", at: syntax.range,
          hint: "whether values with nothing but spaces and commas between them are one value")
      }
    default: typed.siblings = whole(0...1_000, "patterns that differ in one word before it is taken for a value")
    }
  }

  private func checkMasks(
    _ masks: [(name: NameSyntax, pattern: TextSyntax)], _ spec: ClusterSpec, _ typed: inout TypedCluster
  ) {
    var first: [String: TextRange] = [:]
    for (name, pattern) in masks {
      if let place = first[name.text] {
        duplicate(name, "mask", first: place)
      } else {
        first[name.text] = name.range
      }
      if spec.valueTypes[name.text] != nil {
        reporter.report(
          .badCluster, "`\(name.text)` is a mask that is always there", at: name.range, hint: "choose another name")
      }
      if let problem = spec.problemWithMask(pattern.text) {
        reporter.report(.badCluster, "this is no valid pattern: \(problem)", at: pattern.range)
      }
      typed.masks.append(TypedMask(name: name.text, pattern: pattern.text))
    }
    if masks.count > spec.limits.masksMax {
      reporter.report(
        .badCluster, "there are \(masks.count) masks, and at most \(spec.limits.masksMax) are taken",
        at: masks[spec.limits.masksMax].name.range)
    }
  }

  private func checkValues(
    _ values: [ClusterValueSyntax], _ spec: ClusterSpec, _ typed: inout TypedCluster, _ pipeline: inout Pipeline
  ) {
    for value in values {
      var type = ValueType.string
      if let mask = value.mask {
        if let known = spec.valueTypes[mask.text] {
          type = known
        } else if !typed.masks.contains(where: { $0.name == mask.text }) {
          let names = Set(spec.valueTypes.keys).union(typed.masks.map(\.name)).sorted()
          let meant = reporter.closest(to: mask.text, among: names)
          reporter.report(
            .badCluster, "there is no mask `\(mask.text)`", at: mask.range,
            hint: meant.map { "did you mean `\($0)`?" } ?? "masks: \(names.joined(separator: ", "))")
        }
      }
      var number = 1
      if let syntax = value.number, let checked = expressions.check(syntax, in: .constant) {
        if case .int(let given)? = checked.constant, (1...100).contains(given) {
          number = Int(given)
        } else {
          reporter.report(
            .badCluster, "which value is meant is a number from 1 to 100", at: syntax.range,
            hint: "`ip 2` is the second address of the line, `2` its second value")
        }
      }
      if pipeline.scope.index(of: value.name.text) != nil {
        columnExists(value.name, of: pipeline.scope.owner)
        continue
      }
      pipeline.scope.add(ColumnInfo(name: value.name.text, type: type, isNullable: true))
      typed.values.append(
        TypedClusterValue(name: value.name.text, mask: value.mask?.text, number: number, type: type))
    }
  }

  // MARK: Patterns

  mutating func checkPattern(_ pattern: PatternSyntax) {
    guard let name = pattern.stream else { return }
    switch inputs[name.text] {
    case .stream(let index)?:
      usedStreams.insert(index)
      guard let info = streamInfos[index] else { return }
      guard let clustering = info.clustering else {
        if info.isWindowingUnknown || info.scope.isOpen { return }
        reporter.report(
          .badCluster, "the rows of `\(name.text)` have no patterns", at: name.range,
          context: [(syntax.streams[index].name.range, "declared here")],
          hint: info.windowing == nil
            ? "add `| cluster message` to it" : "a pattern rule reads a stream before its windows")
        return
      }
      program.patterns.append(
        TypedPattern(
          name: pattern.name.text, origin: reporter.place(pattern.name.range), stream: streamPlaces[index],
          keys: clustering.keys, columns: clustering.columns))
    case .source(let index)?:
      usedSources.insert(index)
      reporter.report(
        .badCluster, "`\(name.text)` is a source, and its rows have no patterns", at: name.range,
        hint: "declare `stream x = \(name.text) | cluster message`")
    case nil: unknownInput(name, "stream")
    }
  }
}
