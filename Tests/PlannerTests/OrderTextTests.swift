import Catalog
import Testing

@testable import Planner

/// Conditions are in the order of the text that reflection gives, in every plan that there has ever been.
@Suite struct OrderTextTests {
  static let values: [Value] = [
    .null, .bool(true), .int(-7), .float(0.1), .float(-0.0), .float(1e300), .string(""),
    .string("a \"b\"\\\n\t\u{1}é\u{1F600}"), .timestamp(1_795_230_000_000_000_000), .duration(4e8),
    .bytes(22 * 1_048_576), .ratio(0.25),
  ]
  static let expressions: [TypedExpr] = {
    var made: [TypedExpr] = ValueType.allCases.enumerated().map { .column($0.offset * 7, $0.element) }
    made += values.map { .constant($0, $0.type ?? .string) }
    let left = TypedExpr.column(3, .int)
    let right = TypedExpr.constant(.int(5), .int)
    made += ComparisonOperator.allCases.map { .compare($0, left, right) }
    made += ArithmeticOperator.allCases.map { .arithmetic($0, left, right, .float) }
    made += [
      .isIn(left, []), .isIn(left, [.int(1)]), .isIn(.column(1, .string), values),
      .call("now", [], .timestamp), .call("lower", [.column(1, .string)], .string),
      .call("a\"b", [left, .toFloat(right, .ratio)], .float), .negate(left, .int), .isNull(left),
    ]
    let conditions: [TypedExpr] = [.compare(.less, left, right), .not(.isNull(left)), .column(2, .bool)]
    for operation in [LogicalOperator.and, .or] {
      for condition in conditions {
        made.append(.logical(operation, condition, .logical(.or, .not(condition), .isIn(left, values))))
      }
    }
    return made
  }()

  @Test(arguments: expressions) func isTheReflectedText(_ expression: TypedExpr) {
    #expect(expression.orderText == "\(expression)")
  }
}
