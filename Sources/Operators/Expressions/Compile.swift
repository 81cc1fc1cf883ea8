import Catalog
import Runtime

/// Turns a typed expression over slots into an evaluator for batches of up to `capacity` rows.
func makeEvaluator(_ expression: TypedExpr, capacity: Int) -> Evaluator {
  switch expression {
  case .constant(let value, let type):
    return ConstantEvaluator(value, type: type.physical, capacity: capacity)
  case .column(let slot, let type):
    return SlotEvaluator(slot: slot, type: type.physical)
  case .not(let operand):
    return NotEvaluator(makeEvaluator(operand, capacity: capacity), capacity: capacity)
  case .negate(let operand, let type):
    return NegateEvaluator(
      makeEvaluator(operand, capacity: capacity), type: type.physical, capacity: capacity)
  case .logical(let operation, let left, let right):
    return LogicalEvaluator(
      operation, makeEvaluator(left, capacity: capacity), makeEvaluator(right, capacity: capacity),
      capacity: capacity)
  case .compare(let operation, let left, let right):
    return CompareEvaluator(
      operation, makeEvaluator(left, capacity: capacity), makeEvaluator(right, capacity: capacity),
      capacity: capacity)
  case .arithmetic(let operation, let left, let right, let type):
    return ArithmeticEvaluator(
      operation, makeEvaluator(left, capacity: capacity), makeEvaluator(right, capacity: capacity),
      type: type.physical, capacity: capacity)
  case .isNull(let operand):
    return IsNullEvaluator(makeEvaluator(operand, capacity: capacity), capacity: capacity)
  case .isIn(let operand, let values):
    return IsInEvaluator(makeEvaluator(operand, capacity: capacity), values, capacity: capacity)
  case .toFloat(let operand, _):
    return ToFloatEvaluator(makeEvaluator(operand, capacity: capacity), capacity: capacity)
  case .call(let name, let arguments, let type):
    guard let function = scalarFunctions[name] else {
      preconditionFailure("the checker let an unknown function `\(name)` through")
    }
    let constants = arguments.map { argument -> Value? in
      if case .constant(let value, _) = argument { return value }
      return nil
    }
    return function.makeEvaluator(
      ScalarCall(
        arguments: arguments.map { makeEvaluator($0, capacity: capacity) },
        types: arguments.map(\.type), constants: constants, result: type, capacity: capacity))
  }
}
