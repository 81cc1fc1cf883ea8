import Catalog

/// Makes a typed program of a syntax tree. Goes on after an error: what is unknown because of it is
/// not complained about.
struct Checker {
  /// Where a name of the namespace of sources and streams leads.
  enum Input {
    case source(Int)
    case stream(Int)
  }

  /// What later declarations need to know of a stream.
  struct StreamInfo {
    var scope: Scope
    var windowing: Windowing?
    /// Set when an error hides whether the stream has windows, and which.
    var isWindowingUnknown = false
    var clustering: Clustering?
    /// Of records that come in their order: the columns by which they have their owners.
    var ordering: [Int]?
    var detection: Detection?
    /// Behind a join or a trace.
    var isGathered = false
  }

  /// Where a stream's rows have their patterns.
  struct Clustering {
    var keys: [Int]
    var columns: [Int]
  }

  /// What the last detector of a pipeline has found.
  struct Detection {
    var keys: [Int]
    var argument: Int?
    var columns: [Int]
    var names: [String]
    /// `is_anomaly`.
    var flag: Int
  }

  let syntax: ProgramSyntax
  let catalog: Catalog
  let reporter: Reporter
  var expressions: ExpressionChecker
  var inputs: [String: Input] = [:]
  var sourceScopes: [Scope] = []
  /// By the stream's place in the syntax tree; `nil` before it is checked.
  var streamInfos: [StreamInfo?] = []
  /// By the same place: the place in the typed program.
  var streamPlaces: [Int] = []
  /// What its burn alerts need to know of an SLO, by its stream's place in the syntax tree.
  var slos: [Int: CheckedSlo] = [:]
  var usedSources: Set<Int> = []
  var usedStreams: Set<Int> = []
  /// Stages `join`, `left join`, `unless`, `trace` and `edges` so far.
  var gatherings = 0
  var program = TypedProgram()

  init(syntax: ProgramSyntax, catalog: Catalog, reporter: Reporter) {
    self.syntax = syntax
    self.catalog = catalog
    self.reporter = reporter
    expressions = ExpressionChecker(catalog: catalog, reporter: reporter)
  }

  /// Worth something only when the reporter has no errors afterwards.
  mutating func run() -> TypedProgram {
    checkConstants()
    declareInputs()
    for source in syntax.sources { checkSource(source) }
    checkStreams()
    checkUnique(syntax.metrics.map(\.name), "metric")
    checkUnique(syntax.patterns.map(\.name), "pattern")
    for metric in syntax.metrics { checkMetric(metric) }
    for alert in syntax.alerts { checkAlert(alert) }
    for pattern in syntax.patterns { checkPattern(pattern) }
    for anomaly in syntax.anomalies { checkAnomaly(anomaly) }
    for (index, stream) in syntax.streams.enumerated() {
      if case .slo(let slo)? = stream.stages.last { checkBurns(slo, at: index) }
    }
    checkNotifications()
    warnOfUnused()
    return program
  }

  // MARK: Names

  func checkUnique(_ names: [NameSyntax], _ what: String) {
    var first: [String: TextRange] = [:]
    for name in names {
      if let place = first[name.text] {
        duplicate(name, what, first: place)
      } else {
        first[name.text] = name.range
      }
    }
  }

  func duplicate(_ name: NameSyntax, _ what: String, first: TextRange) {
    reporter.report(
      .duplicateName, "the \(what) `\(name.text)` is declared twice", at: name.range, "again",
      context: [(first, "first here")],
      hint: first.file == name.range.file ? nil : "all files form one program")
  }

  private mutating func declareInputs() {
    var first: [String: TextRange] = [:]
    func isNew(_ name: NameSyntax, _ what: String) -> Bool {
      if let place = first[name.text] {
        duplicate(name, what, first: place)
        return false
      }
      first[name.text] = name.range
      return true
    }
    for (index, source) in syntax.sources.enumerated() where isNew(source.name, "source") {
      inputs[source.name.text] = .source(index)
    }
    for (index, stream) in syntax.streams.enumerated() where isNew(stream.name, stream.what) {
      inputs[stream.name.text] = .stream(index)
    }
  }

  func unknownInput(_ name: NameSyntax, _ what: String) {
    let hint = reporter.closest(to: name.text, among: inputs.keys).map { "did you mean `\($0)`?" }
    reporter.report(
      .unknownInput, "unknown \(what) `\(name.text)`", at: name.range, hint: hint)
  }

  private func warnOfUnused() {
    // What has errors may not be seen to use what it uses.
    if reporter.hasErrors { return }
    for (index, source) in syntax.sources.enumerated() where !usedSources.contains(index) {
      // The second of two declarations is nobody's.
      guard case .source(index)? = inputs[source.name.text] else { continue }
      reporter.report(
        .unused, "the source `\(source.name.text)` is never used", at: source.name.range,
        hint: "no stream reads it, so it is not read")
    }
    for (index, stream) in syntax.streams.enumerated() where !usedStreams.contains(index) {
      guard case .stream(index)? = inputs[stream.name.text] else { continue }
      // It fires alerts of its own.
      if case .slo? = stream.stages.last { continue }
      reporter.report(
        .unused, "the stream `\(stream.name.text)` is never used", at: stream.name.range,
        hint: "no metric, alert or other stream reads it, so it is not computed")
    }
  }

  // MARK: Constants

  private mutating func checkConstants() {
    checkUnique(syntax.lets.map(\.name), "constant")
    var places: [String: Int] = [:]
    for (index, declaration) in syntax.lets.enumerated()
    where places[declaration.name.text] == nil {
      places[declaration.name.text] = index
    }
    let lets = syntax.lets
    let order = DependencyOrder(count: lets.count) { index in
      var names: [String] = []
      if let value = lets[index].value { Self.collectNames(value, into: &names) }
      return names.compactMap { places[$0] }
    }
    for name in places.keys { expressions.constants[name] = .some(nil) }
    for index in order.order {
      let declaration = lets[index]
      guard let value = declaration.value else { continue }
      if let closing = order.cycles[index] {
        reporter.report(
          .cyclicDefinition, "the constant `\(declaration.name.text)` is defined by itself",
          at: declaration.name.range,
          context: closing == index
            ? [] : [(lets[closing].name.range, "which is defined by this one")])
        continue
      }
      guard let checked = expressions.check(value, in: .constant) else { continue }
      guard checked.constant != nil else {
        reporter.report(
          .notConstant, "`\(declaration.name.text)` is not a constant", at: value.range,
          hint: "literals, `let` names and arithmetic on them are constants")
        continue
      }
      if places[declaration.name.text] == index {
        expressions.constants[declaration.name.text] = .some(checked)
      }
    }
  }

  private static func collectNames(_ syntax: ExprSyntax, into names: inout [String]) {
    switch syntax.kind {
    case .literal, .member, .broken: break
    case .name(let text): names.append(text)
    case .negate(let inner), .not(let inner), .isNull(let inner):
      collectNames(inner, into: &names)
    case .arithmetic(_, _, let left, let right), .compare(_, _, let left, let right):
      collectNames(left, into: &names)
      collectNames(right, into: &names)
    case .logical(_, let operands):
      for operand in operands { collectNames(operand, into: &names) }
    case .between(let value, let low, let high):
      for operand in [value, low, high] { collectNames(operand, into: &names) }
    case .isIn(let value, let members):
      collectNames(value, into: &names)
      for member in members { collectNames(member, into: &names) }
    case .call(_, let arguments, let filter):
      for argument in arguments { collectNames(argument, into: &names) }
      if let filter { collectNames(filter, into: &names) }
    }
  }

  static let secondNanos: Int64 = 1_000_000_000
  static let dayNanos: Int64 = 86_400 * secondNanos
  /// Longest wait that `for`, `watermark` and their like may ask for.
  static let waitNanosMax: Int64 = 365 * dayNanos

  /// A constant duration within bounds, in whole nanoseconds.
  func duration(
    _ syntax: ExprSyntax, _ what: String, code: DiagnosticCode, in bounds: ClosedRange<Int64>
  ) -> Int64? {
    guard let checked = expressions.check(syntax, in: .constant) else { return nil }
    guard let constant = checked.constant else {
      reporter.report(
        .notConstant, "\(what) is a constant duration", at: syntax.range,
        hint: "write it like 90s, 5m or 1h30m")
      return nil
    }
    guard case .duration(let nanos) = constant else {
      let isNumber = constant.type == .int || constant.type == .float
      let text = expressions.words(checked)
      reporter.report(
        .typeMismatch,
        "\(what) is a duration, and `\(text)` is "
          + (isNumber ? "a bare number" : constant.type?.withArticle ?? "null"), at: syntax.range,
        hint: isNumber ? "write `\(text)s` or `\(text)m`" : "write it like 90s, 5m or 1h30m")
      return nil
    }
    guard let whole = Int64(exactly: nanos.rounded()), bounds.contains(whole) else {
      reporter.report(
        code,
        "\(what) is between \(durationText(Double(bounds.lowerBound))) and "
          + "\(durationText(Double(bounds.upperBound)))", at: syntax.range,
        "this is \(durationText(nanos))")
      return nil
    }
    return whole
  }
}
