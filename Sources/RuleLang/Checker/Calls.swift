import Catalog

/// Calls of scalar and aggregate functions, by the catalog's signatures.
extension ExpressionChecker {
  func call(
    _ name: NameSyntax, _ arguments: [ExprSyntax], filter: ExprSyntax?, at range: TextRange,
    in scope: Scope
  ) -> Checked? {
    guard let spec = catalog.scalarFunction(name.text) else {
      // Wrong as the call is, its arguments may be wrong as well.
      if catalog.aggregateFunction(name.text) == nil {
        unknownFunction(name, isAggregate: false)
        for argument in arguments { _ = check(argument, in: scope) }
      } else {
        reporter.report(
          .misplacedAggregate, "`\(name.text)` is an aggregate function", at: name.range,
          hint: "it belongs in `| window … | aggregate name = \(name.text)(…)`")
      }
      return nil
    }
    if let filter {
      reporter.report(
        .badArguments, "`\(name.text)` takes no `where`", at: filter.range,
        hint: "only aggregate functions do")
      return nil
    }
    let checked = arguments.map { check($0, in: scope) }
    let given = checked.compactMap { $0 }
    let countMin = spec.parameters.count - spec.optionalParameters
    let fits = given.count >= countMin && (spec.isVariadic || given.count <= spec.parameters.count)
    guard checked.count == given.count else { return nil }
    guard fits else {
      reporter.report(
        .badArguments, "`\(name.text)` takes \(parameterText(spec)), not \(given.count)", at: range,
        hint: "for example `\(spec.example)`")
      return nil
    }
    for position in spec.constantParameters.sorted() where position < given.count {
      guard let constant = given[position].constant else {
        reporter.report(
          .notConstant,
          "`\(spec.parameters[min(position, spec.parameters.count - 1)])` of "
            + "`\(name.text)` is a constant", at: given[position].range,
          hint: "for example `\(spec.example)`")
        return nil
      }
      if let problem = spec.validateConstant(position, constant) {
        reporter.report(
          .badConstant, "\(quoted(given[position])) \(problem)", at: given[position].range)
        return nil
      }
    }
    var types = given.map(\.type)
    var match = spec.signature(types)
    if case .mismatch = match, let promoted = promoted(types, of: spec),
      case .result(let type) = spec.signature(promoted)
    {
      (types, match) = (promoted, .result(type))
    }
    switch match {
    case .mismatch(let why):
      reporter.report(
        .badArguments, "`\(name.text)` \(why)", at: range, hint: "for example `\(spec.example)`")
      return nil
    case .result(let type):
      guard let arguments = physical(given, as: types, of: spec, result: type) else {
        reporter.report(.alwaysNull, "`\(name.text)` of null is always null", at: range)
        return nil
      }
      return Checked(
        expression: .call(name.text, arguments, type), type: type, isNullable: true, range: range)
    }
  }

  /// Numbers without a unit that differ, as one type: `coalesce(relevance, 0)` is one of floats.
  /// Constant parameters stay as they are; `nil` when there is nothing to promote.
  private func promoted(_ types: [ValueType?], of spec: ScalarFunctionSpec) -> [ValueType?]? {
    func isMixable(_ position: Int) -> Bool {
      types[position]?.isDimensionless == true && !spec.constantParameters.contains(position)
    }
    let mixed = Set(types.indices.filter(isMixable).compactMap { types[$0] })
    guard mixed.count > 1 else { return nil }
    let common: ValueType = mixed.contains(.float) ? .float : .ratio
    return types.indices.map { isMixable($0) ? common : types[$0] }
  }

  /// The arguments as columns of one physical type: an int beside a float or ratio becomes a double, and
  /// `null` gets the type that its parameter takes. `nil` when no type would do.
  private func physical(
    _ arguments: [Checked], as types: [ValueType?], of spec: ScalarFunctionSpec, result: ValueType
  ) -> [TypedExpr]? {
    let hasFloat = types.indices.contains { position in
      !spec.constantParameters.contains(position)
        && (types[position] == .float || types[position] == .ratio)
    }
    var types = types
    var physical: [TypedExpr] = []
    for (position, argument) in arguments.enumerated() {
      if argument.type == nil {
        guard let type = nullType(at: position, of: types, spec, result: result) else { return nil }
        types[position] = type
        physical.append(.constant(.null, type))
      } else if hasFloat, types[position]?.isDimensionless == true,
        !spec.constantParameters.contains(position)
      {
        physical.append(asFloat(argument, types[position] == .ratio ? .ratio : .float))
      } else {
        physical.append(argument.expression)
      }
    }
    return physical
  }

  /// The type of a literal null: one with which the call means the same, the result's type first.
  private func nullType(
    at position: Int, of types: [ValueType?], _ spec: ScalarFunctionSpec, result: ValueType
  ) -> ValueType? {
    ([result] + ValueType.allCases).first { type in
      var tried = types
      tried[position] = type
      return spec.signature(tried) == .result(result)
    }
  }

  private func parameterText(_ spec: ScalarFunctionSpec) -> String {
    if spec.parameters.isEmpty { return "no arguments" }
    let required = spec.parameters.count - spec.optionalParameters
    let names = spec.parameters.enumerated()
      .map { $0.offset < required ? $0.element : "\($0.element)?" }
    let count = spec.parameters.count
    return "\(count) argument\(count == 1 ? "" : "s") "
      + "(\(names.joined(separator: ", "))\(spec.isVariadic ? ", …" : ""))"
  }

  private func unknownFunction(_ name: NameSyntax, isAggregate: Bool) {
    let aggregates = catalog.aggregateFunctions.map(\.name)
    let scalars = catalog.scalarFunctions.map(\.name)
    let hint: String
    if let meant = reporter.closest(to: name.text, among: isAggregate ? aggregates : scalars) {
      hint = "did you mean `\(meant)`?"
    } else if let meant = reporter.closest(to: name.text, among: isAggregate ? scalars : aggregates) {
      hint = "did you mean `\(meant)`?"
    } else if isAggregate {
      hint = "aggregate functions: \(aggregates.joined(separator: ", "))"
    } else {
      hint = "functions: \(scalars.joined(separator: ", "))"
    }
    reporter.report(.unknownFunction, "unknown function `\(name.text)`", at: name.range, hint: hint)
  }

  // MARK: Aggregates

  /// What stands behind `name =` in `aggregate`, and whether it may be null.
  func aggregate(
    _ assignment: AssignmentSyntax, in scope: Scope
  ) -> (aggregate: TypedAggregate, isNullable: Bool)? {
    guard case .call(let name, let arguments, let filter) = assignment.value.kind else {
      if case .broken = assignment.value.kind { return nil }
      let name = assignment.name.text
      reporter.report(
        .misplacedAggregate, "`aggregate` takes one function a name", at: assignment.value.range,
        "not a call of an aggregate function",
        hint: "do arithmetic behind it: `| aggregate n = count() | derive \(name) = …`")
      return nil
    }
    guard let spec = catalog.aggregateFunction(name.text) else {
      if catalog.scalarFunction(name.text) != nil {
        reporter.report(
          .misplacedAggregate, "`\(name.text)` is no aggregate function", at: name.range,
          hint: "call it before, in `derive`, or behind, on the result")
      } else {
        unknownFunction(name, isAggregate: true)
        for argument in arguments { _ = check(argument, in: scope) }
      }
      return nil
    }
    var isGood = true
    var typedFilter: TypedExpr?
    if let filter {
      typedFilter = condition(filter, in: scope, of: "`where`")?.expression
      isGood = typedFilter != nil
    }
    let expected = (spec.takesValue ? 1 : 0) + spec.constants.count
    let checked = arguments.map { check($0, in: scope) }
    guard checked.count == expected else {
      wrongCount(spec, given: checked, at: assignment.value.range)
      return nil
    }
    var argument: Checked?
    if spec.takesValue {
      argument = checked[0]
      isGood = isGood && argument != nil
      if let argument, argument.type == nil {
        reporter.report(.alwaysNull, "`\(name.text)` of null is always null", at: argument.range)
        isGood = false
      }
    }
    var constants: [Value] = []
    for (position, value) in checked.dropFirst(spec.takesValue ? 1 : 0).enumerated() {
      guard let value else {
        isGood = false
        continue
      }
      guard let constant = value.constant else {
        reporter.report(
          .notConstant, "`\(spec.constants[position])` of `\(name.text)` is a constant",
          at: value.range, hint: "for example `\(spec.example)`")
        isGood = false
        continue
      }
      if let problem = spec.validateConstant(position, constant) {
        reporter.report(.badConstant, "\(quoted(value)) \(problem)", at: value.range)
        isGood = false
      }
      // 99% and 0.99 are one constant to whoever shares aggregates.
      if case .ratio(let ratio) = constant {
        constants.append(.float(ratio))
      } else {
        constants.append(constant)
      }
    }
    guard isGood else { return nil }
    switch spec.signature(argument?.type) {
    case .mismatch(let why):
      reporter.report(
        .badArguments, "`\(name.text)` \(why)", at: argument?.range ?? assignment.value.range,
        hint: "for example `\(spec.example)`")
      return nil
    case .result(let type):
      let aggregate = TypedAggregate(
        name: assignment.name.text, function: name.text, argument: argument?.expression,
        constants: constants, filter: typedFilter, type: type)
      return (aggregate, spec.mayBeNull)
    }
  }

  private func wrongCount(_ spec: AggregateFunctionSpec, given: [Checked?], at range: TextRange) {
    var hint = "for example `\(spec.example)`"
    if given.count == 1, !spec.takesValue, let condition = given[0], condition.type == .bool {
      hint = "a condition goes behind `where`: `\(spec.name)(where \(words(condition)))`"
    }
    let parameters = (spec.takesValue ? ["value"] : []) + spec.constants
    let takes =
      parameters.isEmpty
      ? "no value" : "\(parameters.count) (\(parameters.joined(separator: ", ")))"
    reporter.report(
      .badArguments,
      "`\(spec.name)` takes \(takes), and \(given.count) \(given.count == 1 ? "is" : "are") given", at: range,
      hint: hint)
  }
}
