import Foundation
import RuleLang
import Testing

/// Every operator between columns and constants of every type: the result's type or the code of the error, as
/// Cases/operators.txt has it. Whatever compiles keeps the planner's invariants.
@Suite struct OperatorMatrixTests {
  private static let operands = [
    "b", "i", "f", "s", "t", "d", "z", "r", "true", "2", "2.5", "1e3", "\"x\"", "t\"2026-11-21\"", "2s",
    "1ms",
    "3KiB", "5%", "null",
  ]
  private static let operators = ["+", "-", "*", "/", "%", "==", "<", "and"]

  private static func outcome(_ expression: String) -> String {
    let text = """
      source r { time ts fields {
        ts: timestamp(ms), b: bool, i: int, f: float, s: string, t: timestamp(ms), d: duration(ms)
        z: bytes, r: ratio
      } }
      stream x = r | derive value = \(expression)
      """
    let result = compile(text)
    guard let program = result.program else {
      let codes = result.diagnostics.filter { $0.severity == .error }.map(\.code.rawValue)
      #expect(!codes.isEmpty)
      return codes.joined(separator: "+")
    }
    #expect(ProgramInvariants.problems(of: program) == [], "\(expression)")
    return program.streams[0].columns.last?.type.rawValue ?? "nothing"
  }

  @Test func everyPairOfTypes() throws {
    var lines: [String] = []
    for operation in Self.operators {
      lines.append("== \(operation)")
      for left in Self.operands {
        let cells = Self.operands.map { Self.outcome("\(left) \(operation) \($0)") }
        lines.append(
          left.padding(toLength: 16, withPad: " ", startingAt: 0)
            + cells.map { $0.padding(toLength: 10, withPad: " ", startingAt: 0) }.joined())
      }
    }
    let text =
      String(repeating: " ", count: 16)
      + Self.operands.map { $0.padding(toLength: 10, withPad: " ", startingAt: 0) }.joined() + "\n"
      + lines.joined(separator: "\n") + "\n"
    let url = testFolder.appendingPathComponent("Cases/operators.txt")
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try text.write(to: url, atomically: true, encoding: .utf8)
    } else {
      #expect(try String(contentsOf: url, encoding: .utf8) == text)
    }
  }
}
