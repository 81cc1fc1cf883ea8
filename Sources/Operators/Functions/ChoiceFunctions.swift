import CColumns
import Catalog
import Runtime

/// Copies one row's value between columns of one type.
@inline(__always)
private func copyValue(_ source: Column, _ target: Column, _ row: Int) {
  switch target.type {
  case .bool: target.bools[row] = source.bools[row]
  case .int64: target.ints[row] = source.ints[row]
  case .float64: target.doubles[row] = source.doubles[row]
  case .string: target.strings[row] = source.strings[row]
  }
}

/// One type for all arguments; a dimensionless mix of ints and floats is not accepted here, to keep results predictable.
private func oneType(_ types: some Sequence<ValueType?>) -> SignatureMatch {
  var found: ValueType?
  for type in types {
    guard let type else { continue }
    if let found, found != type {
      return .mismatch("takes values of one type, not a \(found.rawValue) and a \(type.rawValue)")
    }
    found = type
  }
  guard let found else { return .mismatch("needs a value that is not null") }
  return .result(found)
}

/// `coalesce(a, b, …)`
enum Coalesce: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "coalesce", summary: "The first value that is not null.", parameters: ["x", "other"],
    isVariadic: true, signature: { oneType($0) }, example: "coalesce(relevance, 0.0)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator { CoalesceEvaluator(call) }
}

private final class CoalesceEvaluator: Evaluator {
  private let arguments: [Evaluator]
  private let result: Column
  init(_ call: ScalarCall) {
    arguments = call.arguments
    result = Column(type: call.result.physical, capacity: call.capacity)
    super.init(type: call.result.physical)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let columns = arguments.map { $0.evaluate(batch, selection) }
    result.hasNulls = columns.allSatisfy(\.hasNulls)
    forEachRow(selection) { row in
      for column in columns where !column.hasNulls || column.validity[row] != 0 {
        copyValue(column, result, row)
        result.validity[row] = 1
        return
      }
      result.validity[row] = 0
      if result.type == .string { result.strings[row] = rd_string() }
    }
    return result
  }
}

/// `if(condition, a, b)`
enum If: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "if", summary: "The second value where the condition is true, else the third.",
    parameters: ["condition", "then", "else"],
    signature: { types in
      if let condition = types[0], condition != .bool {
        return .mismatch("takes a condition first, not a \(condition.rawValue)")
      }
      return oneType(types.dropFirst())
    }, example: "if(status >= 500, 1, 0)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator { IfEvaluator(call) }
}

private final class IfEvaluator: Evaluator {
  private let condition: Evaluator
  private let yes: Evaluator
  private let no: Evaluator
  private let result: Column
  init(_ call: ScalarCall) {
    condition = call.arguments[0]
    yes = call.arguments[1]
    no = call.arguments[2]
    result = Column(type: call.result.physical, capacity: call.capacity)
    super.init(type: call.result.physical)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let flags = condition.evaluate(batch, selection)
    let a = yes.evaluate(batch, selection)
    let b = no.evaluate(batch, selection)
    result.hasNulls = a.hasNulls || b.hasNulls
    forEachRow(selection) { row in
      let isTrue = (!flags.hasNulls || flags.validity[row] != 0) && flags.bools[row] != 0
      let chosen = isTrue ? a : b
      let isPresent = !chosen.hasNulls || chosen.validity[row] != 0
      result.validity[row] = isPresent ? 1 : 0
      if isPresent {
        copyValue(chosen, result, row)
      } else if result.type == .string {
        result.strings[row] = rd_string()
      }
    }
    return result
  }
}
