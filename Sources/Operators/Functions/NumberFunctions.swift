import Catalog
import Runtime

#if canImport(Glibc)
  import Glibc
#endif

private let numeric: Set<ValueType> = [.int, .float, .duration, .bytes, .ratio]

/// Rows of a numeric function that keeps its operand's type.
private func mapNumber(
  _ call: ScalarCall, int: @escaping (Int64) -> Int64, double: @escaping (Double) -> Double
) -> Evaluator {
  let type = call.result.physical
  return MapEvaluator(call.arguments[0], type: type, capacity: call.capacity) {
    operand, result, selection in
    if type == .int64 {
      let source = operand.ints
      let target = result.ints
      forEachRow(selection) { target[$0] = int(source[$0]) }
    } else {
      let source = operand.doubles
      let target = result.doubles
      forEachRow(selection) { target[$0] = double(source[$0]) }
    }
  }
}

enum Abs: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "abs", summary: "The value without its sign.", parameters: ["x"],
    signature: takes(numeric, "a number"), example: "abs(latency - 1s)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    // The smallest int has no positive twin; the largest int is as near as one can get.
    mapNumber(call, int: { $0 == .min ? .max : Swift.abs($0) }, double: { Swift.abs($0) })
  }
}

enum Round: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "round", summary: "The nearest whole number, halves away from zero.", parameters: ["x"],
    signature: takes([.int, .float, .ratio], "a number without a unit", to: .float),
    example: "round(relevance * 10)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator { wholeNumber(call) { $0.rounded() } }
}

enum Floor: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "floor", summary: "The largest whole number that is not above the value.",
    parameters: ["x"],
    signature: takes([.int, .float, .ratio], "a number without a unit", to: .float),
    example: "floor(relevance * 10)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    wholeNumber(call) { $0.rounded(.down) }
  }
}

enum Ceil: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "ceil", summary: "The smallest whole number that is not below the value.",
    parameters: ["x"],
    signature: takes([.int, .float, .ratio], "a number without a unit", to: .float),
    example: "ceil(relevance * 10)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    wholeNumber(call) { $0.rounded(.up) }
  }
}

private func wholeNumber(_ call: ScalarCall, _ round: @escaping (Double) -> Double) -> Evaluator {
  MapEvaluator(
    ToFloatEvaluator(call.arguments[0], capacity: call.capacity), type: .float64,
    capacity: call.capacity
  ) { operand, result, selection in
    let source = operand.doubles
    let target = result.doubles
    forEachRow(selection) { target[$0] = round(source[$0]) }
  }
}

enum Log10: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "log10", summary: "The decimal logarithm; null for a value that is not above zero.",
    parameters: ["x"],
    signature: takes([.int, .float, .ratio], "a number without a unit", to: .float),
    example: "log10(relevance)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    MapEvaluator(
      ToFloatEvaluator(call.arguments[0], capacity: call.capacity), type: .float64,
      capacity: call.capacity
    ) { operand, result, selection in
      let source = operand.doubles
      let target = result.doubles
      ensureValidityWritten(result, selection)
      forEachRow(selection) { row in
        if source[row] > 0 {
          target[row] = Glibc.log10(source[row])
        } else {
          result.validity[row] = 0
        }
      }
      result.hasNulls = true
    }
  }
}
