import CColumns
import Catalog
import Foundation
import Testing

@testable import Operators
@testable import Runtime

/// Evaluators against a row-wise interpreter, over random typed trees; filters and dispatches against plain
/// filters.
@Suite struct ExpressionTests {
  private static let slots: [ValueType] = [
    .int, .int, .float, .duration, .string, .string, .bool, .timestamp,
  ]

  // MARK: The interpreter

  private func number(_ cell: Cell) -> Double? {
    switch cell {
    case .int(let value): Double(value)
    case .double(let value): value
    default: nil
    }
  }

  private func constant(_ value: Value) -> Cell {
    switch value {
    case .null: .null
    case .bool(let flag): .bool(flag)
    case .int(let number), .timestamp(let number): .int(number)
    case .float(let number), .duration(let number), .bytes(let number), .ratio(let number): .double(number)
    case .string(let text): .text(text)
    }
  }

  private func compared<T: Comparable>(_ operation: ComparisonOperator, _ a: T, _ b: T) -> Cell {
    switch operation {
    case .equal: .bool(a == b)
    case .notEqual: .bool(a != b)
    case .less: .bool(a < b)
    case .lessOrEqual: .bool(a <= b)
    case .greater: .bool(a > b)
    case .greaterOrEqual: .bool(a >= b)
    }
  }

  private func value(_ expression: TypedExpr, _ row: [Cell]) -> Cell {
    switch expression {
    case .constant(let value, _): return constant(value)
    case .column(let slot, _): return row[slot]
    case .not(let operand):
      if case .bool(let flag) = value(operand, row) { return .bool(!flag) }
      return .null
    case .negate(let operand, _):
      switch value(operand, row) {
      case .int(let number): return number == .min ? .null : .int(-number)
      case .double(let number): return .double(-number)
      default: return .null
      }
    case .logical(let operation, let left, let right):
      let deciding = operation == .or
      let sides = [value(left, row), value(right, row)]
      if sides.contains(.bool(deciding)) { return .bool(deciding) }
      return sides.contains(.null) ? .null : .bool(!deciding)
    case .compare(let operation, let left, let right):
      switch (value(left, row), value(right, row)) {
      case (.int(let a), .int(let b)): return compared(operation, a, b)
      case (.double(let a), .double(let b)): return compared(operation, a, b)
      case (.text(let a), .text(let b)):
        let order = a.utf8.elementsEqual(b.utf8) ? 0 : (a.utf8.lexicographicallyPrecedes(b.utf8) ? -1 : 1)
        return compared(operation, order, 0)
      case (.bool(let a), .bool(let b)): return compared(operation, a ? 1 : 0, b ? 1 : 0)
      default: return .null
      }
    case .arithmetic(let operation, let left, let right, let type):
      return arithmetic(operation, value(left, row), value(right, row), type)
    case .isNull(let operand): return .bool(value(operand, row) == .null)
    case .isIn(let operand, let values):
      let cell = value(operand, row)
      return cell == .null ? .null : .bool(values.contains { constant($0) == cell })
    case .toFloat(let operand, _): return number(value(operand, row)).map { .double($0) } ?? .null
    case .call(let name, let arguments, _): return call(name, arguments.map { value($0, row) })
    }
  }

  private func arithmetic(_ operation: ArithmeticOperator, _ left: Cell, _ right: Cell, _ type: ValueType)
    -> Cell
  {
    func exact(_ outcome: (partialValue: Int64, overflow: Bool)) -> Cell {
      outcome.overflow ? .null : .int(outcome.partialValue)
    }
    switch (left, right) {
    case (.int(let a), .int(let b)) where type == .duration:
      let (exact, overflow) = a.subtractingReportingOverflow(b)
      return .double(overflow ? Double(a) - Double(b) : Double(exact))
    case (.int(let a), .double(let b)):
      guard let step = Int64(exactly: b.rounded()) else { return .null }
      return exact(operation == .add ? a.addingReportingOverflow(step) : a.subtractingReportingOverflow(step))
    case (.int(let a), .int(let b)):
      switch operation {
      case .add: return exact(a.addingReportingOverflow(b))
      case .subtract: return exact(a.subtractingReportingOverflow(b))
      case .multiply: return exact(a.multipliedReportingOverflow(by: b))
      case .divide: return exact(a.dividedReportingOverflow(by: b))
      case .remainder: return exact(a.remainderReportingOverflow(dividingBy: b))
      }
    case (.double(let a), .double(let b)):
      let result: Double
      switch operation {
      case .add: result = a + b
      case .subtract: result = a - b
      case .multiply: result = a * b
      case .divide: result = b == 0 ? .nan : a / b
      case .remainder: result = fmod(a, b)
      }
      return result.isNaN ? .null : .double(result)
    default: return .null
    }
  }

  private func call(_ name: String, _ arguments: [Cell]) -> Cell {
    switch name {
    case "coalesce": return arguments.first { $0 != .null } ?? .null
    case "if": return arguments[0] == .bool(true) ? arguments[1] : arguments[2]
    default: break
    }
    if arguments.contains(.null) { return .null }
    switch (name, arguments[0], arguments.count > 1 ? arguments[1] : .null) {
    case ("abs", .int(let value), _): return .int(value == .min ? .max : Swift.abs(value))
    case ("abs", .double(let value), _): return .double(Swift.abs(value))
    case ("lower", .text(let text), _): return .text(text.lowercased())
    case ("upper", .text(let text), _): return .text(text.uppercased())
    case ("length", .text(let text), _): return .int(Int64(text.utf8.count))
    case ("starts_with", .text(let text), .text(let part)): return .bool(text.hasPrefix(part))
    case ("ends_with", .text(let text), .text(let part)): return .bool(text.hasSuffix(part))
    case ("contains", .text(let text), .text(let part)): return .bool(part.isEmpty || text.contains(part))
    default: break
    }
    guard let value = number(arguments[0]) else { return .null }
    switch name {
    case "round": return .double(value.rounded())
    case "floor": return .double(value.rounded(.down))
    case "ceil": return .double(value.rounded(.up))
    case "log10": return value > 0 ? .double(log10(value)) : .null
    default: return .null
    }
  }

  // MARK: Random rows and trees

  private func cell(_ type: ValueType, _ random: inout SeededRandom) -> Cell {
    if Int.random(in: 0..<6, using: &random) == 0 { return .null }
    switch type.physical {
    case .bool: return .bool(Bool.random(using: &random))
    case .string: return .text(["", "a", "ab", "abc", "Ab", "bc", "b"].randomElement(using: &random) ?? "")
    case .int64:
      let extremes: [Int64] = [.min, .max, .min + 1, 0, 1, -1]
      if type == .timestamp { return .int(Int64.random(in: 0...4_000_000_000_000_000_000, using: &random)) }
      return .int(
        Bool.random(using: &random)
          ? Int64.random(in: -3...3, using: &random) : extremes.randomElement(using: &random) ?? 0)
    case .float64:
      let extremes: [Double] = [
        Double.infinity, -Double.infinity, 0, -0.0, 1e300, -1e300, Double.leastNonzeroMagnitude,
      ]
      return .double(
        Bool.random(using: &random)
          ? Double(Int.random(in: -3...3, using: &random)) / 2 : extremes.randomElement(using: &random) ?? 0)
    }
  }

  private func literal(_ type: ValueType, _ random: inout SeededRandom) -> Value {
    switch (cell(type, &random), type) {
    case (.null, _): .null
    case (.bool(let flag), _): .bool(flag)
    case (.int(let number), .timestamp): .timestamp(number)
    case (.int(let number), _): .int(number)
    case (.double(let number), .duration): .duration(number)
    case (.double(let number), _): .float(number)
    case (.text(let text), _): .string(text)
    }
  }

  private func tree(_ type: ValueType, _ depth: Int, _ random: inout SeededRandom) -> TypedExpr {
    if depth == 0 || Int.random(in: 0..<6, using: &random) == 0 {
      let slots = Self.slots.indices.filter { Self.slots[$0] == type }
      if let slot = slots.randomElement(using: &random), Int.random(in: 0..<4, using: &random) > 0 {
        return .column(slot, type)
      }
      return .constant(literal(type, &random), type)
    }
    func sub(_ type: ValueType) -> TypedExpr { tree(type, depth - 1, &random) }
    switch Int.random(in: 0..<10, using: &random) {
    case 0: return .call("coalesce", [sub(type), sub(type)], type)
    case 1: return .call("if", [sub(.bool), sub(type), sub(type)], type)
    default: break
    }
    let arithmetic = ArithmeticOperator.allCases
    switch type {
    case .bool:
      let compared: [ValueType] = [.int, .float, .duration, .string, .bool, .timestamp]
      let operand = compared.randomElement(using: &random) ?? .int
      switch Int.random(in: 0..<6, using: &random) {
      case 0: return .not(sub(.bool))
      case 1: return .logical(Bool.random(using: &random) ? .and : .or, sub(.bool), sub(.bool))
      case 2: return .isNull(sub(operand))
      case 3: return .isIn(sub(operand), (0..<3).map { _ in literal(operand, &random) })
      case 4:
        let name = ["starts_with", "ends_with", "contains"].randomElement(using: &random) ?? ""
        return .call(name, [sub(.string), sub(.string)], .bool)
      default:
        let operations = operand == .bool ? [.equal, .notEqual] : ComparisonOperator.allCases
        return .compare(operations.randomElement(using: &random) ?? .equal, sub(operand), sub(operand))
      }
    case .int:
      switch Int.random(in: 0..<4, using: &random) {
      case 0: return .negate(sub(.int), .int)
      case 1: return .call("abs", [sub(.int)], .int)
      case 2: return .call("length", [sub(.string)], .int)
      default:
        let operation = arithmetic.filter { $0 != .divide }.randomElement(using: &random) ?? .add
        return .arithmetic(operation, sub(.int), sub(.int), .int)
      }
    case .float:
      switch Int.random(in: 0..<4, using: &random) {
      case 0: return .toFloat(sub(.int), .float)
      case 1: return .negate(sub(.float), .float)
      case 2:
        let name = ["round", "floor", "ceil", "log10"].randomElement(using: &random) ?? ""
        return .call(name, [sub(Bool.random(using: &random) ? .int : .float)], .float)
      default:
        let operation = arithmetic.filter { $0 != .remainder }.randomElement(using: &random) ?? .add
        return .arithmetic(operation, sub(.float), sub(.float), .float)
      }
    case .duration:
      if Bool.random(using: &random) {
        return .arithmetic(.subtract, sub(.timestamp), sub(.timestamp), .duration)
      }
      return .arithmetic(.add, sub(.duration), sub(.duration), .duration)
    case .timestamp:
      return .arithmetic(
        Bool.random(using: &random) ? .add : .subtract, sub(.timestamp), sub(.duration), .timestamp)
    case .string:
      return .call(Bool.random(using: &random) ? "lower" : "upper", [sub(.string)], .string)
    case .bytes, .ratio: return .constant(.null, type)
    }
  }

  private func batch(_ count: Int, _ pool: TextPool, _ random: inout SeededRandom) -> (Batch, [[Cell]]) {
    let batch = Batch(types: Self.slots.map(\.physical), capacity: count)
    let rows = (0..<count).map { _ in Self.slots.map { cell($0, &random) } }
    for slot in Self.slots.indices {
      var cells = rows.map { $0[slot] }
      // A column without nulls takes other paths.
      if Bool.random(using: &random) {
        cells = cells.map { $0 == .null ? defaultCell(Self.slots[slot]) : $0 }
      }
      batch.columns[slot].fill(cells, pool)
    }
    batch.rowCount = count
    return (batch, (0..<count).map { row in batch.columns.map { $0[row] } })
  }

  private func defaultCell(_ type: ValueType) -> Cell {
    switch type.physical {
    case .bool: .bool(false)
    case .int64: .int(7)
    case .float64: .double(1.5)
    case .string: .text("abc")
    }
  }

  private func selections(_ batch: Batch, _ random: inout SeededRandom) -> [[Int32]] {
    let all = (0..<Int32(batch.rowCount)).map { $0 }
    return [all, all.filter { _ in Bool.random(using: &random) }, Array(all.suffix(1)), []]
  }

  private func same(_ a: Cell, _ b: Cell) -> Bool {
    // 0 and -0 are one value, and Swift's Hashable says so too.
    a == b
  }

  @Test(arguments: 1...40)
  func evaluatorsEqualTheInterpreter(_ seed: Int) {
    var random = SeededRandom(UInt64(seed))
    let pool = TextPool()
    for _ in 0..<60 {
      let type =
        [ValueType.bool, .int, .float, .duration, .timestamp, .string].randomElement(using: &random) ?? .bool
      let expression = tree(type, 4, &random)
      let evaluator = makeEvaluator(expression, capacity: 50)
      // One evaluator sees batch after batch: nothing of the one before may show.
      for _ in 0..<3 {
        let (batch, rows) = batch(50, pool, &random)
        for chosen in selections(batch, &random) {
          let isDense = chosen.count == 50
          chosen.withUnsafeBufferPointer { chosen in
            guard let base = chosen.baseAddress else { return }
            let column = evaluator.evaluate(
              batch, Selection(rows: base, count: chosen.count, isDense: isDense))
            for row in chosen {
              let expected = value(expression, rows[Int(row)])
              if !same(column[Int(row)], expected) {
                Issue.record("\(expression)\nrow \(rows[Int(row)]): \(column[Int(row)]), not \(expected)")
                return
              }
            }
          }
        }
      }
    }
  }

  // MARK: Filters and dispatches

  /// Notes which rows reach it.
  private final class Collector: RowTaskDefinition, @unchecked Sendable {
    // @unchecked: used by one thread.
    var rows: [Int32] = []
    func makeTask(_ context: TaskContext) -> RowTask { CollectorTask(self) }
  }
  private final class CollectorTask: RowTask {
    let collector: Collector
    init(_ collector: Collector) { self.collector = collector }
    override func process(_ batch: Batch, _ selection: Selection) {
      for index in 0..<selection.count { collector.rows.append(selection.rows[index]) }
    }
  }

  private func context() -> TaskContext {
    TaskContext(shard: 0, shardCount: 1, batchRows: 50, output: RecordWriter())
  }

  @Test(arguments: 1...20)
  func filterEqualsAPlainFilter(_ seed: Int) {
    var random = SeededRandom(UInt64(seed + 900))
    let pool = TextPool()
    for round in 0..<60 {
      var condition = tree(.bool, 3, &random)
      if round % 2 == 0 {
        // A number against a constant has a kernel of its own.
        let slot = [0, 2, 3, 7].randomElement(using: &random) ?? 0
        let operation = ComparisonOperator.allCases.randomElement(using: &random) ?? .equal
        let type = Self.slots[slot]
        condition = .compare(operation, .column(slot, type), .constant(literal(type, &random), type))
      }
      let collector = Collector()
      let task = RowSet(branches: [.init(condition: condition, rows: RowSet(consumers: [collector]))])
        .makeTask(context())
      for _ in 0..<2 {
        let (batch, rows) = batch(50, pool, &random)
        for chosen in selections(batch, &random) {
          collector.rows = []
          chosen.withUnsafeBufferPointer { chosen in
            guard let base = chosen.baseAddress else { return }
            task.process(batch, Selection(rows: base, count: chosen.count, isDense: chosen.count == 50))
          }
          #expect(collector.rows == chosen.filter { value(condition, rows[Int($0)]) == .bool(true) })
        }
      }
    }
  }

  @Test(arguments: 1...20)
  func dispatchEqualsAFilterForEachBranch(_ seed: Int) {
    var random = SeededRandom(UInt64(seed + 1_900))
    let pool = TextPool()
    for slot in Self.slots.indices {
      let type = Self.slots[slot]
      var constants: [Value] = []
      for _ in 0..<5 {
        let value = literal(type, &random)
        // Equal constants are one branch: 0 and -0 as well.
        if value != .null, !constants.contains(where: { constant($0) == constant(value) }) {
          constants.append(value)
        }
      }
      let collectors = constants.map { _ in Collector() }
      let task = RowSet(
        dispatches: [
          .init(
            slot: slot, type: type,
            branches: zip(constants, collectors).map { ($0, RowSet(consumers: [$1])) })
        ]
      ).makeTask(context())
      for _ in 0..<3 {
        let (batch, rows) = batch(50, pool, &random)
        for chosen in selections(batch, &random) {
          for collector in collectors { collector.rows = [] }
          chosen.withUnsafeBufferPointer { chosen in
            guard let base = chosen.baseAddress else { return }
            task.process(batch, Selection(rows: base, count: chosen.count, isDense: chosen.count == 50))
          }
          for (value, collector) in zip(constants, collectors) {
            #expect(collector.rows == chosen.filter { rows[Int($0)][slot] == constant(value) })
          }
        }
      }
    }
  }
}
