/// A typed expression over the columns of a row. Equal trees mean equal values, which is what the planner shares by.
///
/// Operands of a binary operator already have one physical type: the checker inserts `toFloat` where an `int` meets a
/// `float`, `ratio` or another number, and constants come in the unit of their column. The exception is time:
/// `timestamp - timestamp` is a duration of two int64 operands, and `timestamp ± duration` a timestamp of an int64 on the
/// left and a float64 on the right (the checker puts the timestamp first).
///
/// Both operands of `divide` are float64, those of `remainder` int64. In a call an `int` beside a `float` or `ratio`
/// becomes a double as well, but for the parameters that the function declares constant; a literal `null` has a type
/// that its parameter takes. `between` is two comparisons, `not in` and `is not null` are `not`.
public indirect enum TypedExpr: Sendable, Hashable {
  case constant(Value, ValueType)
  case column(Int, ValueType)
  case not(TypedExpr)
  case negate(TypedExpr, ValueType)
  /// `and`, `or`: Kleene's three-valued logic.
  case logical(LogicalOperator, TypedExpr, TypedExpr)
  /// Null when a side is null. Strings compare by bytes; bools only for equality.
  case compare(ComparisonOperator, TypedExpr, TypedExpr)
  /// Null when a side is null, on division by zero, on integer overflow, and where the result is NaN.
  case arithmetic(ArithmeticOperator, TypedExpr, TypedExpr, ValueType)
  case isNull(TypedExpr)
  /// Null when the operand is null.
  case isIn(TypedExpr, [Value])
  case call(String, [TypedExpr], ValueType)
  /// An `int` as a double, in the unit of the type given (`float` or `ratio`).
  case toFloat(TypedExpr, ValueType)

  public var type: ValueType {
    switch self {
    case .constant(_, let type), .column(_, let type), .negate(_, let type),
      .arithmetic(_, _, _, let type), .call(_, _, let type), .toFloat(_, let type):
      type
    case .not, .logical, .compare, .isNull, .isIn: .bool
    }
  }
}

public enum LogicalOperator: String, Sendable, Hashable { case and, or }

public enum ComparisonOperator: String, Sendable, Hashable, CaseIterable {
  case equal = "=="
  case notEqual = "!="
  case less = "<"
  case lessOrEqual = "<="
  case greater = ">"
  case greaterOrEqual = ">="
}

public enum ArithmeticOperator: String, Sendable, Hashable, CaseIterable {
  case add = "+"
  case subtract = "-"
  case multiply = "*"
  /// Always floating point: `int / int` is a ratio.
  case divide = "/"
  /// `int % int` is an int, with the sign of the dividend.
  case remainder = "%"
}

extension TypedExpr {
  /// The columns that the expression reads.
  public var columnIndexes: Set<Int> {
    var indexes: Set<Int> = []
    forEachColumn { indexes.insert($0) }
    return indexes
  }

  /// Calls `body` for each column reference, from left to right.
  public func forEachColumn(_ body: (Int) -> Void) {
    switch self {
    case .constant: break
    case .column(let index, _): body(index)
    case .not(let inner), .negate(let inner, _), .isNull(let inner), .isIn(let inner, _),
      .toFloat(let inner, _):
      inner.forEachColumn(body)
    case .logical(_, let left, let right), .compare(_, let left, let right),
      .arithmetic(_, let left, let right, _):
      left.forEachColumn(body)
      right.forEachColumn(body)
    case .call(_, let arguments, _):
      for argument in arguments { argument.forEachColumn(body) }
    }
  }
}
