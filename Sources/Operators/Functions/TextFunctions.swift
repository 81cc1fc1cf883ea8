import CColumns
import Catalog
import Runtime

private let text: Set<ValueType> = [.string]

/// A text function whose result is a bool.
private func testText(
  _ call: ScalarCall, _ test: @escaping (rd_string, rd_string) -> Bool
) -> Evaluator {
  TextTestEvaluator(call.arguments[0], call.arguments[1], capacity: call.capacity, test)
}

private final class TextTestEvaluator: Evaluator {
  private let left: Evaluator
  private let right: Evaluator
  private let result: Column
  private let test: (rd_string, rd_string) -> Bool
  init(
    _ left: Evaluator, _ right: Evaluator, capacity: Int,
    _ test: @escaping (rd_string, rd_string) -> Bool
  ) {
    self.left = left
    self.right = right
    self.test = test
    result = Column(type: .bool, capacity: capacity)
    super.init(type: .bool)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let a = left.evaluate(batch, selection)
    let b = right.evaluate(batch, selection)
    combineValidity(a, b, into: result, selection)
    let x = a.strings
    let y = b.strings
    let target = result.bools
    forEachRow(selection) { row in
      // A null string may point nowhere.
      let isPresent = !result.hasNulls || result.validity[row] != 0
      target[row] = isPresent && test(x[row], y[row]) ? 1 : 0
    }
    return result
  }
}

private func textTest(_ name: String, _ summary: String, _ example: String) -> ScalarFunctionSpec {
  ScalarFunctionSpec(
    name: name, summary: summary, parameters: ["text", "part"],
    signature: takes(text, "strings", to: .bool), example: example)
}

enum StartsWith: ScalarFunction {
  static let spec = textTest(
    "starts_with", "Whether a text begins with another, byte by byte.",
    "starts_with(service, \"search-\")")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    testText(call) { a, b in
      a.length >= b.length && (b.length == 0 || memcmp(a.data, b.data, Int(b.length)) == 0)
    }
  }
}

enum EndsWith: ScalarFunction {
  static let spec = textTest(
    "ends_with", "Whether a text ends with another, byte by byte.", "ends_with(service, \"-api\")")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    testText(call) { a, b in
      a.length >= b.length
        && (b.length == 0
          || memcmp(a.data + Int(a.length - b.length), b.data, Int(b.length)) == 0)
    }
  }
}

enum Contains: ScalarFunction {
  static let spec = textTest(
    "contains", "Whether a text holds another, byte by byte.", "contains(service, \"search\")")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    testText(call) { a, b in
      if b.length == 0 { return true }
      guard a.length >= b.length else { return false }
      let first = Int32(b.data[0])
      guard var position = a.data, let wanted = b.data else { return false }
      var left = Int(a.length)
      while left >= Int(b.length), let found = memchr(position, first, left - Int(b.length) + 1) {
        if memcmp(found, wanted, Int(b.length)) == 0 { return true }
        let next = UnsafePointer(found.assumingMemoryBound(to: UInt8.self)) + 1
        left -= next - position
        position = next
      }
      return false
    }
  }
}

enum Length: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "length", summary: "How many bytes a text has.", parameters: ["text"],
    signature: takes(text, "a string", to: .int), example: "length(service)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    MapEvaluator(call.arguments[0], type: .int64, capacity: call.capacity) {
      operand, result, selection in
      let source = operand.strings
      let target = result.ints
      forEachRow(selection) { target[$0] = Int64(source[$0].length) }
    }
  }
}

/// Case mapping of ASCII letters; other bytes stay, so the length never changes.
private final class CaseEvaluator: Evaluator {
  private let operand: Evaluator
  private let result: Column
  private let letters: ClosedRange<UInt8>
  private var arena = ByteArena()
  init(_ operand: Evaluator, letters: ClosedRange<UInt8>, capacity: Int) {
    self.operand = operand
    self.letters = letters
    result = Column(type: .string, capacity: capacity)
    super.init(type: .string)
  }
  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    combineValidity(value, nil, into: result, selection)
    let source = value.strings
    let target = result.strings
    // The results of the batch before are no longer read.
    arena = ByteArena()
    forEachRow(selection) { row in
      let text = source[row]
      guard !(result.hasNulls && result.validity[row] == 0), text.length > 0,
        let copy = arena.copy(text.data, Int(text.length))
      else {
        target[row] = rd_string()
        return
      }
      let bytes = UnsafeMutablePointer(mutating: copy)
      for index in 0..<Int(text.length) where letters.contains(bytes[index]) { bytes[index] ^= 0x20 }
      target[row] = rd_string(
        data: copy, length: text.length, hash: rd_hash_bytes(copy, text.length))
    }
    return result
  }
}

enum Lower: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "lower", summary: "The text with A–Z as a–z; other letters stay.", parameters: ["text"],
    signature: takes(text, "a string", to: .string), example: "lower(service)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    CaseEvaluator(
      call.arguments[0], letters: UInt8(ascii: "A")...UInt8(ascii: "Z"), capacity: call.capacity)
  }
}

enum Upper: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "upper", summary: "The text with a–z as A–Z; other letters stay.", parameters: ["text"],
    signature: takes(text, "a string", to: .string), example: "upper(service)")
  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    CaseEvaluator(
      call.arguments[0], letters: UInt8(ascii: "a")...UInt8(ascii: "z"), capacity: call.capacity)
  }
}
