import Catalog

extension Checker {
  mutating func checkSource(_ syntax: SourceSyntax) {
    let fields = checkFields(syntax)
    var scope = Scope(
      kind: .rows, owner: syntax.name.text,
      columns: fields.map { ColumnInfo(name: $0.name, type: $0.type, isNullable: $0.isNullable) })
    scope.isOpen =
      syntax.hasBrokenFields || fields.count != syntax.fields.count || syntax.seen[.fields] == nil
    sourceScopes.append(scope)
    if syntax.seen[.fields] == nil {
      missing(
        "fields", of: "source", at: syntax.name, hint: "add `fields { ts: timestamp(ms), … }`")
    } else if fields.isEmpty, !scope.isOpen {
      missing("field", of: "source", at: syntax.name, hint: "declare at least the time field")
    }
    let time = checkTime(syntax, fields, scope)
    if let format = syntax.format, !catalog.hasFormat(format.text) {
      let names = catalog.formats.map(\.name)
      reporter.report(
        .unknownFormat, "unknown format `\(format.text)`", at: format.range,
        hint: reporter.closest(to: format.text, among: names).map { "did you mean `\($0)`?" }
          ?? "formats: \(names.joined(separator: ", "))")
    }
    for topic in [syntax.topic, syntax.deadLetterTopic, syntax.lateTopic] {
      if let topic { checkTopic(topic) }
    }
    var requirements: [TypedRequirement] = []
    for requirement in syntax.requirements {
      guard
        let condition = expressions.condition(requirement.condition, in: scope, of: "`require`")
      else { continue }
      requirements.append(
        TypedRequirement(condition: condition.expression, reason: requirement.reason.text))
    }
    program.sources.append(
      TypedSource(
        name: syntax.name.text, origin: reporter.place(syntax.name.range),
        topic: syntax.topic?.text, format: syntax.format?.text ?? "json",
        time: time ?? TimeSpec(field: 0, boundNanos: 0, idleNanos: 0, maxAheadNanos: 0),
        fields: fields, requirements: requirements, deadLetterTopic: syntax.deadLetterTopic?.text,
        lateTopic: syntax.lateTopic?.text,
        partitionedBy: checkPartitioning(syntax.partitionedBy, scope)))
  }

  /// `partitioned by`: indexes of the fields, in the order of the text.
  private func checkPartitioning(_ names: [NameSyntax], _ scope: Scope) -> [Int] {
    var indexes: [Int] = []
    var first: [String: TextRange] = [:]
    for name in names {
      if let place = first[name.text] {
        duplicate(name, "field", first: place)
        continue
      }
      first[name.text] = name.range
      if let index = scope.index(of: name.text) {
        indexes.append(index)
      } else if !scope.isOpen {
        expressions.unknownColumn(name.text, at: name.range, in: scope)
      }
    }
    return indexes
  }

  func missing(_ item: String, of block: String, at name: NameSyntax, hint: String) {
    reporter.report(
      .missingItem, "the \(block) `\(name.text)` has no `\(item)`", at: name.range, hint: hint)
  }

  /// Kafka's own rule for topic names: broken here rather than at the broker.
  private func checkTopic(_ topic: TextSyntax) {
    let isLegal = topic.text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "-"):
        true
      default: false
      }
    }
    if !isLegal || topic.text.isEmpty || topic.text.utf8.count > 249 || topic.text == "."
      || topic.text == ".."
    {
      reporter.report(
        .badConstant, "\"\(printable(String(topic.text.prefix(60))))\" is no Kafka topic",
        at: topic.range, hint: "topics have 1 to 249 letters, digits, `.`, `_` and `-`")
    }
  }

  // MARK: Time

  private func checkTime(
    _ syntax: SourceSyntax, _ fields: [TypedField], _ scope: Scope
  ) -> TimeSpec? {
    guard let time = syntax.time else {
      if syntax.seen[.time] == nil {
        let candidate = fields.first { $0.type == .timestamp }?.name ?? "ts"
        missing("time", of: "source", at: syntax.name, hint: "add `time \(candidate)`")
      }
      return nil
    }
    func option(_ word: Keyword, _ defaultNanos: Int64) -> Int64 {
      guard let expression = time.options[word] else { return defaultNanos }
      return duration(
        expression, "`\(word.rawValue)`", code: .badDuration, in: 0...Self.waitNanosMax)
        ?? defaultNanos
    }
    let watermark = option(.watermark, 10 * Self.secondNanos)
    let lateness = option(.allowedLateness, 0)
    let idle = option(.idle, 30 * Self.secondNanos)
    let ahead = option(.maxAhead, 3_600 * Self.secondNanos)
    guard let index = scope.index(of: time.field.text), index < fields.count else {
      if !scope.isOpen { expressions.unknownColumn(time.field.text, at: time.field.range, in: scope) }
      return nil
    }
    let field = fields[index]
    guard field.type == .timestamp, !field.isNullable, field.defaultValue == nil else {
      let why =
        field.type != .timestamp
        ? "it is \(field.type.withArticle)"
        : field.isNullable ? "it may be missing" : "it has a default"
      reporter.report(
        .badTimeField, "`\(field.name)` cannot be the event time: \(why)", at: time.field.range,
        hint: "declare it `\(field.name): timestamp(ms)`, without `?` and default")
      return nil
    }
    // Both are bounded by a year, so their sum fits.
    return TimeSpec(
      field: index, boundNanos: watermark + lateness, idleNanos: idle, maxAheadNanos: ahead)
  }

  // MARK: Fields

  private func checkFields(_ syntax: SourceSyntax) -> [TypedField] {
    var first: [String: TextRange] = [:]
    var fields: [TypedField] = []
    for field in syntax.fields {
      if let place = first[field.name.text] {
        duplicate(field.name, "field", first: place)
        continue
      }
      first[field.name.text] = field.name.range
      if let typed = checkField(field) { fields.append(typed) }
    }
    return fields
  }

  private func checkField(_ field: FieldSyntax) -> TypedField? {
    guard let type = fieldType(field.type), let unit = fieldUnit(field, type) else { return nil }
    var defaultValue: Value?
    if let expression = field.defaultValue {
      guard let value = checkDefault(expression, of: field, type) else { return nil }
      defaultValue = value
    }
    return TypedField(
      name: field.name.text, type: type, isNullable: field.isOptional && defaultValue == nil,
      unit: unit, path: field.path ?? [field.name.text], defaultValue: defaultValue)
  }

  private func fieldType(_ name: NameSyntax) -> ValueType? {
    if let type = ValueType(rawValue: name.text) { return type }
    let others = [
      "boolean": "bool", "integer": "int", "long": "int", "int64": "int", "int32": "int",
      "uint64": "int", "number": "float", "double": "float", "float64": "float", "decimal": "float",
      "str": "string", "text": "string", "varchar": "string", "datetime": "timestamp(rfc3339)",
      "date": "timestamp(rfc3339)", "percent": "ratio(percent)", "size": "bytes",
      "time": "timestamp(ms)", "interval": "duration(ms)",
    ]
    let meant =
      others[name.text.lowercased()]
      ?? reporter.closest(to: name.text, among: ValueType.allCases.map(\.rawValue))
    reporter.report(
      .unknownType, "unknown type `\(name.text)`", at: name.range,
      hint: meant.map { "did you mean `\($0)`?" }
        ?? "types: \(ValueType.allCases.map(\.rawValue).joined(separator: ", "))")
    return nil
  }

  /// The unit in which the raw number arrives; `nil`, and reported, when there is none or a wrong
  /// one.
  private func fieldUnit(_ field: FieldSyntax, _ type: ValueType) -> FieldUnit? {
    let units: [String]
    switch type {
    case .timestamp: units = ["s", "ms", "us", "ns", "rfc3339"]
    case .duration: units = ["ns", "us", "ms", "s", "m", "h"]
    case .bytes: units = Units.sizes.map(\.name)
    case .ratio: units = ["percent"]
    case .bool, .int, .float, .string: units = []
    }
    guard let unit = field.unit else {
      guard type == .timestamp || type == .duration else { return .native }
      let example = type == .timestamp ? "timestamp(ms)` or `timestamp(rfc3339)" : "duration(ms)"
      reporter.report(
        .badFieldUnit, "a \(type.rawValue) field names the unit of its raw number",
        at: field.type.range, hint: "write `\(example)`")
      return nil
    }
    guard units.contains(unit.text) else {
      let hint: String
      if units.isEmpty {
        hint =
          Units.nanos(unit.text) != nil
          ? "a time in \(unit.text) is `duration(\(unit.text))`"
          : Units.bytes(unit.text) != nil
            ? "a size in \(unit.text) is `bytes(\(unit.text))`" : "leave the parentheses out"
      } else {
        hint =
          reporter.closest(to: unit.text, among: units).map { "did you mean `\($0)`?" }
          ?? "units: \(units.joined(separator: ", "))"
      }
      reporter.report(
        .badFieldUnit,
        units.isEmpty
          ? "the type `\(type.rawValue)` takes no unit"
          : "`\(unit.text)` is no unit of `\(type.rawValue)`", at: unit.range, hint: hint)
      return nil
    }
    if unit.text == "rfc3339" { return .rfc3339 }
    if unit.text == "percent" { return .scaled(0.01) }
    let factor = type == .bytes ? Units.bytes(unit.text) : Units.nanos(unit.text)
    return factor.map { .scaled(Double($0)) }
  }

  private func checkDefault(
    _ syntax: ExprSyntax, of field: FieldSyntax, _ type: ValueType
  ) -> Value? {
    guard let checked = expressions.check(syntax, in: .constant) else { return nil }
    if checked.type == nil {
      reporter.report(
        .badConstant, "null is no default", at: syntax.range,
        hint: "a field that may be missing is `\(field.name.text): \(field.type.text)?`")
      return nil
    }
    guard let constant = checked.constant else {
      reporter.report(
        .notConstant, "a default is a constant", at: syntax.range)
      return nil
    }
    guard let value = expressions.convert(constant, to: type) else {
      let wanted = Checked(
        expression: .column(0, type), type: type, isNullable: false, range: field.name.range)
      expressions.mismatch(wanted, checked, at: syntax.range)
      return nil
    }
    return value
  }
}
