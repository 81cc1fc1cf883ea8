import Catalog

/// Functions of the same shapes as the product's, so that the language is tested without its
/// operators.
let testCatalog = Catalog(
  scalarFunctions: [
    scalar("abs", ["x"], example: "abs(retries)") { numeric($0[0], "abs") },
    scalar("floor", ["x"], example: "floor(score)") { _ in .result(.int) },
    scalar("ceil", ["x"], example: "ceil(score)") { _ in .result(.int) },
    scalar("round", ["x", "digits"], optional: 1, constants: [1], example: "round(score, 2)") {
      numeric($0[0], "round")
    },
    scalar("coalesce", ["value", "other"], variadic: true, example: "coalesce(score, 0)") {
      common($0)
    },
    scalar("if", ["condition", "then", "otherwise"], example: "if(ok, 1, 0)") { types in
      types[0] ?? .bool == .bool
        ? common(Array(types.dropFirst())) : .mismatch("takes a bool as its condition")
    },
    scalar("lower", ["text"], example: "lower(service)") { text($0, .string) },
    scalar("upper", ["text"], example: "upper(service)") { text($0, .string) },
    scalar("length", ["text"], example: "length(service)") { text($0, .int) },
    scalar("starts_with", ["text", "prefix"], example: "starts_with(route, \"/api\")") {
      text($0, .bool)
    },
    scalar("ends_with", ["text", "suffix"], example: "ends_with(route, \"/\")") { text($0, .bool) },
    scalar("contains", ["text", "part"], example: "contains(route, \"api\")") { text($0, .bool) },
    ScalarFunctionSpec(
      name: "matches", summary: "Whether a pattern is found in a text.",
      parameters: ["text", "pattern"], constantParameters: [1], signature: { text($0, .bool) },
      validateConstant: { _, value in
        if case .string(let pattern) = value, pattern.contains("(") != pattern.contains(")") {
          return "is not a valid pattern: a parenthesis is not closed"
        }
        return nil
      }, example: "matches(route, \"^/api\")"),
  ],
  aggregateFunctions: [
    aggregate("count", takesValue: false, mayBeNull: false) { _ in .result(.int) },
    aggregate("rate", takesValue: false, mayBeNull: false) { _ in .result(.float) },
    aggregate("sum", mayBeNull: false) { numeric($0, "sum") },
    aggregate("increase", mayBeNull: true) { numeric($0, "increase") },
    aggregate("avg", mayBeNull: true) { type in
      type == .int ? .result(.float) : numeric(type, "avg")
    },
    aggregate("stddev", mayBeNull: true) { type in
      type == .int ? .result(.float) : numeric(type, "stddev")
    },
    aggregate("min", mayBeNull: true) { type in type.map { .result($0) } ?? .mismatch("takes a value") },
    aggregate("max", mayBeNull: true) { type in type.map { .result($0) } ?? .mismatch("takes a value") },
    aggregate("first", mayBeNull: true) { type in type.map { .result($0) } ?? .mismatch("takes a value") },
    aggregate("last", mayBeNull: true) { type in type.map { .result($0) } ?? .mismatch("takes a value") },
    aggregate("distinct", mayBeNull: false) { _ in .result(.int) },
    AggregateFunctionSpec(
      name: "quantile", summary: "The value of rank ceil(q·n).", takesValue: true,
      constants: ["q"], signature: { type in type == .int ? .result(.float) : numeric(type, "quantile") },
      validateConstant: { _, value in
        if let q = value.number, value.type?.isDimensionless == true, (0...1).contains(q) { return nil }
        return "is not between 0 and 1"
      }, mayBeNull: true, state: "", example: "quantile(latency, 0.99)"),
  ],
  formats: [FormatSpec(name: "json", summary: ""), FormatSpec(name: "logfmt", summary: "")], cluster: productCatalog.cluster,
  detectors: productCatalog.detectors)

private func scalar(
  _ name: String, _ parameters: [String], optional: Int = 0, variadic: Bool = false,
  constants: Set<Int> = [], example: String,
  _ signature: @escaping @Sendable ([ValueType?]) -> SignatureMatch
) -> ScalarFunctionSpec {
  ScalarFunctionSpec(
    name: name, summary: "", parameters: parameters, optionalParameters: optional,
    isVariadic: variadic, constantParameters: constants, signature: signature, example: example)
}

private func aggregate(
  _ name: String, takesValue: Bool = true, mayBeNull: Bool,
  _ signature: @escaping @Sendable (ValueType?) -> SignatureMatch
) -> AggregateFunctionSpec {
  AggregateFunctionSpec(
    name: name, summary: "", takesValue: takesValue, signature: signature, mayBeNull: mayBeNull,
    state: "", example: takesValue ? "\(name)(latency)" : "\(name)()")
}

private func numeric(_ type: ValueType?, _ name: String) -> SignatureMatch {
  guard let type, type.isNumeric else {
    return .mismatch("takes a number, not \(type.map { "a \($0.rawValue)" } ?? "null")")
  }
  return .result(type)
}

private func text(_ types: [ValueType?], _ result: ValueType) -> SignatureMatch {
  types.allSatisfy { $0 ?? .string == .string } ? .result(result) : .mismatch("takes strings")
}

private func common(_ types: [ValueType?]) -> SignatureMatch {
  let known = types.compactMap { $0 }
  guard let first = known.first else { return .mismatch("needs a value that is not null") }
  if known.allSatisfy({ $0 == first }) { return .result(first) }
  if known.allSatisfy(\.isDimensionless) {
    return .result(known.contains(.float) ? .float : .ratio)
  }
  return .mismatch("takes values of one type")
}
