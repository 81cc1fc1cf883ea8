import CColumns
import CPcre2
import Catalog
import Runtime

/// `matches(text, pattern)`
enum Matches: ScalarFunction {
  static let spec = ScalarFunctionSpec(
    name: "matches",
    summary: """
      Whether a pattern (PCRE2) is found anywhere in a text; `^` and `$` tie it to the ends. Null where the text is null, and \
      where the search was given up after 100,000 steps. In a rule a backslash is written twice: `"\\\\d+"`.
      """,
    parameters: ["text", "pattern"], constantParameters: [1],
    signature: takes([.string], "strings", to: .bool),
    validateConstant: { _, value in
      guard case .string(let pattern) = value else { return nil }
      do throws(Pattern.Invalid) {
        _ = try Pattern(pattern)
        return nil
      } catch {
        return "is not a valid pattern: \(error.reason), at character \(error.position + 1)"
      }
    }, example: "matches(service, \"^search-(api|web)$\")")

  static func makeEvaluator(_ call: ScalarCall) -> Evaluator {
    guard case .string(let text)? = call.constants[1], let pattern = try? Pattern(text) else {
      preconditionFailure("the checker let an invalid pattern through")
    }
    pattern.prepare()
    return MatchesEvaluator(call.arguments[0], pattern, capacity: call.capacity)
  }
}

private final class MatchesEvaluator: Evaluator {
  private let operand: Evaluator
  private let pattern: Pattern
  private let result: Column

  init(_ operand: Evaluator, _ pattern: Pattern, capacity: Int) {
    self.operand = operand
    self.pattern = pattern
    result = Column(type: .bool, capacity: capacity)
    super.init(type: .bool)
  }

  override func evaluate(_ batch: Batch, _ selection: Selection) -> Column {
    let value = operand.evaluate(batch, selection)
    combineValidity(value, nil, into: result, selection)
    let texts = value.strings
    let target = result.bools
    forEachRow(selection) { row in
      target[row] = 0
      // A null string may point nowhere.
      if result.hasNulls, result.validity[row] == 0 { return }
      switch pattern.isFound(in: texts[row]) {
      case true?: target[row] = 1
      case false?: break
      case nil: setNull(row)
      }
    }
    return result
  }

  private func setNull(_ row: Int) {
    if !result.hasNulls {
      result.hasNulls = true
      result.validity.update(repeating: 1, count: result.capacity)
    }
    result.validity[row] = 0
  }
}

/// A compiled pattern and the memory to match with: used by one thread at a time.
private final class Pattern {
  struct Invalid: Error {
    var reason: String
    /// Of the pattern's characters, from 0.
    var position: Int
  }

  /// Steps of one search, so that no text and no pattern can hang a worker.
  private static let stepsMax: UInt32 = 100_000
  /// For the interpreter, where there is no machine code.
  private static let heapKilobytesMax: UInt32 = 1_024
  private static let patternBytesMax = 16_384

  private let code: OpaquePointer
  private let match: OpaquePointer
  private let context: OpaquePointer
  private var isMachineCode = false

  init(_ text: String) throws(Invalid) {
    let bytes = Array(text.utf8)
    guard bytes.count <= Self.patternBytesMax else {
      throw Invalid(reason: "it is longer than \(Self.patternBytesMax) bytes", position: 0)
    }
    var error: Int32 = 0
    var offset = 0
    // Texts are valid UTF-8, and `\C` could cut a character in two.
    // The byte behind it gives an empty pattern an address, too.
    let compiled = (bytes + [0]).withUnsafeBufferPointer {
      pcre2_compile_8(
        $0.baseAddress, bytes.count, UInt32(PCRE2_UTF) | UInt32(PCRE2_NEVER_BACKSLASH_C), &error, &offset,
        nil)
    }
    guard let compiled else {
      let before = String(decoding: bytes.prefix(offset), as: UTF8.self)
      throw Invalid(reason: Self.message(error), position: before.count)
    }
    // Whether something is found needs no groups.
    guard let match = pcre2_match_data_create_8(1, nil), let context = pcre2_match_context_create_8(nil)
    else { preconditionFailure("out of memory for a pattern") }
    code = compiled
    self.match = match
    self.context = context
    pcre2_set_match_limit_8(context, Self.stepsMax)
    pcre2_set_heap_limit_8(context, Self.heapKilobytesMax)
  }

  deinit {
    pcre2_match_context_free_8(context)
    pcre2_match_data_free_8(match)
    pcre2_code_free_8(code)
  }

  /// Turns the pattern into machine code, where the system allows it; without, matching is some ten times slower.
  func prepare() { isMachineCode = pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE)) == 0 }

  /// Nil when the search was given up.
  func isFound(in text: rd_string) -> Bool? {
    let status: Int32
    if text.length > 0, let data = text.data {
      status = search(data, Int(text.length))
    } else {
      // The library refuses a null address even for nothing.
      status = withUnsafePointer(to: UInt8(0)) { search($0, 0) }
    }
    if status >= 0 { return true }
    return status == PCRE2_ERROR_NOMATCH ? false : nil
  }

  private func search(_ text: UnsafePointer<UInt8>, _ length: Int) -> Int32 {
    isMachineCode
      ? pcre2_jit_match_8(code, text, length, 0, 0, match, context)
      : pcre2_match_8(code, text, length, 0, UInt32(PCRE2_NO_UTF_CHECK), match, context)
  }

  private static func message(_ error: Int32) -> String {
    var buffer = [UInt8](repeating: 0, count: 256)
    let length = pcre2_get_error_message_8(error, &buffer, buffer.count)
    return length > 0 ? String(decoding: buffer.prefix(Int(length)), as: UTF8.self) : "error \(error)"
  }
}
