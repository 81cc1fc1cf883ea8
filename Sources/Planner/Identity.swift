import Catalog
import Operators
import RuleLang

// What operators are, apart from where the plan has put them: texts that two plans have in common exactly where state of
// the one means the same to the other. They are made of fields' names, paths and units, of expressions, keys and
// windows; never of slots (whose numbers depend on other rules), nor of names that rules give to streams and columns.

extension TypedExpr {
  /// The expression as a text that is equal for equal expressions over equal columns. `column` says what a column is.
  ///
  /// Where `canonical` does not care for an order, neither does this.
  func identity(_ column: (Int) -> String) -> String { identity(column, isCondition: true) }

  /// `isCondition`: only `and`, `or` and `not` stand above, which is how far `canonical` reaches.
  private func identity(_ column: (Int) -> String, isCondition: Bool) -> String {
    func inner(_ expression: TypedExpr) -> String { expression.identity(column, isCondition: false) }
    switch self {
    case .constant(let value, let type): return "\(value.identity):\(type.rawValue)"
    case .column(let index, _): return "[\(column(index))]"
    case .not(let operand): return "(not \(operand.identity(column, isCondition: isCondition)))"
    case .negate(let operand, let type): return "(neg:\(type.rawValue) \(inner(operand)))"
    case .isNull(let operand): return "(null \(inner(operand)))"
    case .isIn(let operand, let values):
      return "(in \(inner(operand)) \(values.map(\.identity).joined(separator: " ")))"
    case .toFloat(let operand, let type): return "(float:\(type.rawValue) \(inner(operand)))"
    case .compare(let operation, let left, let right):
      // The column first: that is what conditions are put in order by.
      return "(\(inner(left)) \(operation.rawValue) \(inner(right)))"
    case .arithmetic(let operation, let left, let right, let type):
      return "(\(operation.rawValue):\(type.rawValue) \(inner(left)) \(inner(right)))"
    case .call(let name, let arguments, let type):
      return "(\(name):\(type.rawValue)\(arguments.map { " \(inner($0))" }.joined()))"
    case .logical(let operation, let left, let right):
      guard isCondition else { return "(\(operation.rawValue) \(inner(left)) \(inner(right)))" }
      var operands: [String] = []
      func split(_ expression: TypedExpr) {
        if case .logical(operation, let left, let right) = expression {
          split(left)
          split(right)
        } else {
          operands.append(expression.identity(column, isCondition: true))
        }
      }
      split(self)
      return "(\(operation.rawValue) \(operands.sorted(by: utf8Precedes).joined(separator: " ")))"
    }
  }
}

extension Value {
  /// To the last bit.
  var identity: String {
    switch self {
    case .null, .bool, .int, .string, .timestamp: ruleText
    case .float(let number): "f\(String(number.bitPattern, radix: 16))"
    case .duration(let number): "d\(String(number.bitPattern, radix: 16))"
    case .bytes(let number): "b\(String(number.bitPattern, radix: 16))"
    case .ratio(let number): "r\(String(number.bitPattern, radix: 16))"
    }
  }
}

extension TypedField {
  /// What a value of the field is. Whether a record may lack it is not part of that: a record that is refused from now on
  /// changes no value that is there.
  var identity: String {
    var text = "\(name) \(type.rawValue) "
    switch unit {
    case .native: text += "native"
    case .scaled(let factor): text += "x\(String(factor.bitPattern, radix: 16))"
    case .rfc3339: text += "rfc3339"
    }
    text += " from \(path.map { Value.string($0).ruleText }.joined(separator: "."))"
    if let defaultValue { text += " = \(defaultValue.identity)" }
    return text
  }
}

extension TypedSource {
  /// What its rows are, before anybody looks at a field: records of one topic at one time each. How long is waited for
  /// them, and which of them are refused, may change under the state that earlier ones left.
  var identity: String {
    "source \(name) topic \(topic.map { Value.string($0).ruleText } ?? "none") time \(fields[time.field].identity)"
  }
}

extension WindowSpec {
  /// Which windows share panes: those with the same answer.
  ///
  /// A function of the window alone, so that no rule moves another's state to other panes. Windows of whole minutes share
  /// panes of a minute or more. Shorter ones share where nothing but factors of 2, 3 and 5 tells them apart, as with all
  /// that people commonly write; 7s and 1m are apart, whose common panes would be tiny.
  var paneFamily: Int64 {
    var rest = greatestCommonDivisor(sizeNanos, hopNanos)
    if rest <= 0 || rest % 60_000_000_000 == 0 { return 1 }
    for factor: Int64 in [2, 3, 5] { while rest % factor == 0 { rest /= factor } }
    return rest
  }
}

extension PaneAggregation.State {
  /// What is aggregated: `quantile(latency):4f2a91c0b7d3`. The part in front of the hash is for people.
  func identity(in space: SlotSpace) -> String {
    var parts = [function, argumentType?.rawValue ?? "none"]
    parts.append(argument.map { space.identities[$0] } ?? "none")
    parts.append(filter.map { space.identities[$0] } ?? "none")
    parts += constants.map(\.identity)
    var hash = StableHash()
    for part in parts { hash.add(part) }
    var hint = argument.map { space.fieldName($0) ?? "…" } ?? ""
    if filter != nil { hint += hint.isEmpty ? "where …" : ", where …" }
    return "\(function)(\(hint)):\(hash.digits.prefix(12))"
  }
}

/// Fields of the slots' names by which people know an operator; part of what is hashed, so they move when that does.
extension SlotSpace {
  /// The name of the field that a slot passes on; nil for what is computed.
  func fieldName(_ slot: Int) -> String? {
    switch kinds[slot] {
    case .field, .key: roots[slot]
    case .output, .computed: nil
    }
  }
}

/// `KIND:HINT:HASH`, the hint at most 60 bytes.
func operatorID(_ kind: String, _ hint: String, of identity: String) -> String {
  "\(kind):\(hint.prefix(60)):\(StableHash(identity).digits.prefix(12))"
}

/// The order of bytes: the same in every locale.
func utf8Precedes(_ a: String, _ b: String) -> Bool { a.utf8.lexicographicallyPrecedes(b.utf8) }
