import CColumns
import Catalog
import Runtime

final class NotEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  init(_ operand: Evaluator, capacity: Int) {
    self.operand = operand
    result = Column(type: .bool, capacity: capacity)
    super.init(type: .bool)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    combineValidity(value, nil, into: result, selection)
    let source = value.bools
    let target = result.bools
    forEachRow(selection) { target[$0] = source[$0] ^ 1 }
    return result
  }
}

final class NegateEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  init(_ operand: Evaluator, type: PhysicalType, capacity: Int) {
    self.operand = operand
    result = Column(type: type, capacity: capacity)
    super.init(type: type)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    combineValidity(value, nil, into: result, selection)
    if type == .int64 {
      let source = value.ints
      let target = result.ints
      ensureValidityWritten(result, selection)
      let validity = result.validity
      var overflowed = false
      forEachRow(selection) { row in
        let (negated, overflow) = (0 as Int64).subtractingReportingOverflow(source[row])
        target[row] = negated
        if overflow {
          validity[row] = 0
          overflowed = true
        }
      }
      if overflowed { result.hasNulls = true }
    } else {
      let source = value.doubles
      let target = result.doubles
      forEachRow(selection) { target[$0] = -source[$0] }
    }
    return result
  }
}

/// Kleene's `and` and `or`: a false side decides `and`, a true side decides `or`, whatever the other is.
final class LogicalEvaluator: Evaluator {
  private let operation: LogicalOperator
  private let left: Evaluator
  private let right: Evaluator
  private let result: Column
  init(_ operation: LogicalOperator, _ left: Evaluator, _ right: Evaluator, capacity: Int) {
    self.operation = operation
    self.left = left
    self.right = right
    result = Column(type: .bool, capacity: capacity)
    super.init(type: .bool)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let a = left.evaluate(batch, selection)
    let b = right.evaluate(batch, selection)
    let x = a.bools
    let y = b.bools
    let target = result.bools
    if !a.hasNulls && !b.hasNulls {
      result.hasNulls = false
      switch operation {
      case .and: forEachRow(selection) { target[$0] = x[$0] & y[$0] }
      case .or: forEachRow(selection) { target[$0] = x[$0] | y[$0] }
      }
      return result
    }
    result.hasNulls = true
    let validity = result.validity
    // What one side must be to decide alone.
    let deciding: UInt8 = operation == .and ? 0 : 1
    forEachRow(selection) { row in
      let aPresent = !a.hasNulls || a.validity[row] != 0
      let bPresent = !b.hasNulls || b.validity[row] != 0
      if (aPresent && x[row] == deciding) || (bPresent && y[row] == deciding) {
        target[row] = deciding
        validity[row] = 1
      } else {
        target[row] = 1 - deciding
        validity[row] = aPresent && bPresent ? 1 : 0
      }
    }
    return result
  }
}

final class CompareEvaluator: Evaluator {
  private let operation: ComparisonOperator
  private let left: Evaluator
  private let right: Evaluator
  private let result: Column
  init(_ operation: ComparisonOperator, _ left: Evaluator, _ right: Evaluator, capacity: Int) {
    self.operation = operation
    self.left = left
    self.right = right
    result = Column(type: .bool, capacity: capacity)
    super.init(type: .bool)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let a = left.evaluate(batch, selection)
    let b = right.evaluate(batch, selection)
    combineValidity(a, b, into: result, selection)
    switch left.type {
    case .int64: compare(a.ints, b.ints, selection)
    case .float64: compare(a.doubles, b.doubles, selection)
    case .bool: compare(a.bools, b.bools, selection)
    case .string: compareStrings(a, b, selection)
    }
    return result
  }

  @inline(__always)
  private func compare<T: Comparable & BitwiseCopyable>(
    _ a: UnsafeMutablePointer<T>, _ b: UnsafeMutablePointer<T>, _ selection: Selection
  ) {
    let target = result.bools
    switch operation {
    case .equal: forEachRow(selection) { target[$0] = a[$0] == b[$0] ? 1 : 0 }
    case .notEqual: forEachRow(selection) { target[$0] = a[$0] != b[$0] ? 1 : 0 }
    case .less: forEachRow(selection) { target[$0] = a[$0] < b[$0] ? 1 : 0 }
    case .lessOrEqual: forEachRow(selection) { target[$0] = a[$0] <= b[$0] ? 1 : 0 }
    case .greater: forEachRow(selection) { target[$0] = a[$0] > b[$0] ? 1 : 0 }
    case .greaterOrEqual: forEachRow(selection) { target[$0] = a[$0] >= b[$0] ? 1 : 0 }
    }
  }

  private func compareStrings(_ a: Column, _ b: Column, _ selection: Selection) {
    let target = result.bools
    let x = a.strings
    let y = b.strings
    let validity = result.validity
    let hasNulls = result.hasNulls
    forEachRow(selection) { row in
      // A null string may point nowhere.
      if hasNulls && validity[row] == 0 {
        target[row] = 0
        return
      }
      let isTrue: Bool
      switch operation {
      case .equal: isTrue = rd_string_equal(x[row], y[row]) != 0
      case .notEqual: isTrue = rd_string_equal(x[row], y[row]) == 0
      case .less: isTrue = compareBytes(x[row], y[row]) < 0
      case .lessOrEqual: isTrue = compareBytes(x[row], y[row]) <= 0
      case .greater: isTrue = compareBytes(x[row], y[row]) > 0
      case .greaterOrEqual: isTrue = compareBytes(x[row], y[row]) >= 0
      }
      target[row] = isTrue ? 1 : 0
    }
  }
}

/// Arithmetic on two columns. Null on division by zero, on integer overflow and where the result is NaN.
///
/// The operands are both int64 or both float64, except for times: timestamp - timestamp is a float64 duration, and
/// timestamp ± duration is an int64 timestamp.
final class ArithmeticEvaluator: Evaluator {
  private let operation: ArithmeticOperator
  private let left: Evaluator
  private let right: Evaluator
  private let result: Column
  init(
    _ operation: ArithmeticOperator, _ left: Evaluator, _ right: Evaluator, type: PhysicalType,
    capacity: Int
  ) {
    self.operation = operation
    self.left = left
    self.right = right
    result = Column(type: type, capacity: capacity)
    super.init(type: type)
  }

  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let a = left.evaluate(batch, selection)
    let b = right.evaluate(batch, selection)
    combineValidity(a, b, into: result, selection)
    switch (left.type, right.type, type) {
    case (.int64, .int64, .int64): integers(a.ints, b.ints, selection)
    case (.float64, .float64, .float64):
      let x = a.doubles
      let y = b.doubles
      doubles(selection, { x[$0] }, { y[$0] })
    case (.int64, .float64, .int64): shiftTime(a.ints, b.doubles, selection)
    case (.float64, .int64, .int64): shiftTime(b.ints, a.doubles, selection)
    case (.int64, .int64, .float64) where operation == .subtract:
      // A difference of times, taken in integers: doubles would round nanoseconds of this epoch.
      let x = a.ints
      let y = b.ints
      let target = result.doubles
      forEachRow(selection) { row in
        let (exact, overflow) = x[row].subtractingReportingOverflow(y[row])
        target[row] = overflow ? Double(x[row]) - Double(y[row]) : Double(exact)
      }
    default:
      let x = numbers(a)
      let y = numbers(b)
      doubles(selection, x, y)
    }
    return result
  }

  private func numbers(_ column: Column) -> (Int) -> Double {
    if column.type == .int64 {
      let values = column.ints
      return { Double(values[$0]) }
    }
    let values = column.doubles
    return { values[$0] }
  }

  @inline(__always)
  private func doubles(
    _ selection: Selection, _ x: (Int) -> Double, _ y: (Int) -> Double
  ) {
    let target = result.doubles
    switch operation {
    case .add: forEachRow(selection) { target[$0] = x($0) + y($0) }
    case .subtract: forEachRow(selection) { target[$0] = x($0) - y($0) }
    case .multiply: forEachRow(selection) { target[$0] = x($0) * y($0) }
    case .divide:
      forEachRow(selection) { row in
        let divisor = y(row)
        target[row] = divisor == 0 ? .nan : x(row) / divisor
      }
    case .remainder:
      forEachRow(selection) { target[$0] = x($0).truncatingRemainder(dividingBy: y($0)) }
    }
    nullNaN(selection)
  }

  private func nullNaN(_ selection: Selection) {
    let target = result.doubles
    var found = false
    forEachRow(selection) { if target[$0].isNaN { found = true } }
    guard found else { return }
    ensureValidityWritten(result, selection)
    result.hasNulls = true
    let validity = result.validity
    forEachRow(selection) { if target[$0].isNaN { validity[$0] = 0 } }
  }

  private func integers(
    _ x: UnsafeMutablePointer<Int64>, _ y: UnsafeMutablePointer<Int64>, _ selection: Selection
  ) {
    let target = result.ints
    ensureValidityWritten(result, selection)
    let validity = result.validity
    var lost = false
    @inline(__always) func keep(_ row: Int, _ outcome: (partialValue: Int64, overflow: Bool)) {
      target[row] = outcome.partialValue
      if outcome.overflow {
        validity[row] = 0
        lost = true
      }
    }
    switch operation {
    case .add: forEachRow(selection) { keep($0, x[$0].addingReportingOverflow(y[$0])) }
    case .subtract: forEachRow(selection) { keep($0, x[$0].subtractingReportingOverflow(y[$0])) }
    case .multiply: forEachRow(selection) { keep($0, x[$0].multipliedReportingOverflow(by: y[$0])) }
    case .divide: forEachRow(selection) { keep($0, x[$0].dividedReportingOverflow(by: y[$0])) }
    case .remainder:
      forEachRow(selection) { keep($0, x[$0].remainderReportingOverflow(dividingBy: y[$0])) }
    }
    if lost { result.hasNulls = true }
  }

  private func shiftTime(
    _ times: UnsafeMutablePointer<Int64>, _ durations: UnsafeMutablePointer<Double>,
    _ selection: Selection
  ) {
    let target = result.ints
    ensureValidityWritten(result, selection)
    let validity = result.validity
    let sign: Double = operation == .subtract ? -1 : 1
    var lost = false
    forEachRow(selection) { row in
      let moved: (partialValue: Int64, overflow: Bool)
      if let step = Int64(exactly: (sign * durations[row]).rounded()) {
        moved = times[row].addingReportingOverflow(step)
      } else {
        moved = (0, true)
      }
      target[row] = moved.partialValue
      if moved.overflow {
        validity[row] = 0
        lost = true
      }
    }
    if lost { result.hasNulls = true }
  }
}

final class IsNullEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  init(_ operand: Evaluator, capacity: Int) {
    self.operand = operand
    result = Column(type: .bool, capacity: capacity)
    super.init(type: .bool)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    let target = result.bools
    if value.hasNulls {
      forEachRow(selection) { target[$0] = value.validity[$0] ^ 1 }
    } else {
      forEachRow(selection) { target[$0] = 0 }
    }
    return result
  }
}

/// Membership in a list of constants: few, so each row walks the list.
final class IsInEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  private let members: Column
  private let memberCount: Int
  private var arena = ByteArena()

  init(_ operand: Evaluator, _ values: [Value], capacity: Int) {
    self.operand = operand
    result = Column(type: .bool, capacity: capacity)
    let present = values.filter { $0 != .null }
    memberCount = present.count
    members = Column(type: operand.type, capacity: max(1, present.count))
    for (index, value) in present.enumerated() {
      switch operand.type {
      case .int64: members.ints[index] = value.intBits
      case .float64: members.doubles[index] = value.number ?? 0
      case .bool: if case .bool(let flag) = value { members.bools[index] = flag ? 1 : 0 }
      case .string: if case .string(let text) = value { members.strings[index] = arena.intern(text) }
      }
    }
    super.init(type: .bool)
  }

  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    combineValidity(value, nil, into: result, selection)
    switch operand.type {
    case .int64: find(value.ints, members.ints, selection)
    case .float64: find(value.doubles, members.doubles, selection)
    case .bool: find(value.bools, members.bools, selection)
    case .string:
      let target = result.bools
      let strings = value.strings
      let list = members.strings
      forEachRow(selection) { row in
        target[row] = 0
        if value.hasNulls && value.validity[row] == 0 { return }
        for index in 0..<memberCount where rd_string_equal(strings[row], list[index]) != 0 {
          target[row] = 1
          break
        }
      }
    }
    return result
  }

  @inline(__always)
  private func find<T: Equatable & BitwiseCopyable>(
    _ values: UnsafeMutablePointer<T>, _ list: UnsafeMutablePointer<T>, _ selection: Selection
  ) {
    let target = result.bools
    forEachRow(selection) { row in
      var found: UInt8 = 0
      for index in 0..<memberCount where values[row] == list[index] { found = 1 }
      target[row] = found
    }
  }
}

final class ToFloatEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  init(_ operand: Evaluator, capacity: Int) {
    self.operand = operand
    result = Column(type: .float64, capacity: capacity)
    super.init(type: .float64)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    guard value.type == .int64 else { return value }
    combineValidity(value, nil, into: result, selection)
    let source = value.ints
    let target = result.doubles
    forEachRow(selection) { target[$0] = Double(source[$0]) }
    return result
  }
}
