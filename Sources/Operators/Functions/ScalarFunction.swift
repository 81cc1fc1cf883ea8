import CColumns
import Catalog
import Runtime

/// A scalar function: what users read, and what makes its evaluator. One a file or family; listed in `scalarFunctionList`.
protocol ScalarFunction: SendableMetatype {
  static var spec: ScalarFunctionSpec { get }
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator
}

/// The arguments of one call, as the planner bound them.
struct ScalarCall {
  var arguments: [Evaluator]
  var types: [ValueType]
  /// By position; nil where the argument is no constant.
  var constants: [Value?]
  var result: ValueType
  var capacity: Int
}

/// Functions by name.
let scalarFunctions: [String: any ScalarFunction.Type] = Dictionary(
  uniqueKeysWithValues: scalarFunctionList.map { ($0.spec.name, $0) })

/// A function of one column whose result is null where its operand is.
final class MapEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  private let kernel: (Column, Column, Selection) -> Void
  /// `kernel` writes the result's values from the operand's for every selected row.
  init(
    _ operand: Evaluator, type: PhysicalType, capacity: Int,
    kernel: @escaping (_ operand: Column, _ result: Column, Selection) -> Void
  ) {
    self.operand = operand
    self.kernel = kernel
    result = Column(type: type, capacity: capacity)
    super.init(type: type)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    combineValidity(value, nil, into: result, selection)
    kernel(value, result, selection)
    return result
  }
}

/// The signature of a function from one type to another.
func takes(_ accepted: Set<ValueType>, _ what: String, to result: ValueType? = nil)
  -> @Sendable ([ValueType?]) -> SignatureMatch
{
  { types in
    for type in types {
      guard let type else { continue }
      guard accepted.contains(type) else { return .mismatch("takes \(what), not a \(type.rawValue)") }
    }
    return .result(result ?? types.compactMap { $0 }.first ?? .float)
  }
}
