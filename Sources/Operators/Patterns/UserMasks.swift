import CPcre2

/// Compiled masks of the user's, and what they found in the line at hand. One thread's.
final class UserMasks {
  struct Span: BitwiseCopyable {
    var start: UInt32
    var end: UInt32
    /// Index of the mask.
    var mask: UInt8
  }
  struct Invalid: Error {
    var reason: String
    /// Of the pattern's bytes, from 0.
    var position: Int
  }

  /// Matches in one line that are taken.
  static let spansMax = 128
  private static let patternBytesMax = 16_384
  /// Steps of one search, so that no line and no pattern can hang a worker.
  private static let stepsMax: UInt32 = 100_000
  private static let heapKilobytesMax: UInt32 = 1_024

  private var codes: [OpaquePointer] = []
  private var isMachineCode: [Bool] = []
  private let match: OpaquePointer
  private let context: OpaquePointer
  /// In the order of the line, none overlapping another.
  let spans: UnsafeMutablePointer<Span>
  private(set) var spanCount = 0
  /// Searches that were given up, because they took too many steps.
  private(set) var abandoned = 0

  /// Masks whose patterns `check` has accepted.
  init(_ masks: [PatternMask]) {
    guard let match = pcre2_match_data_create_8(1, nil), let context = pcre2_match_context_create_8(nil) else {
      preconditionFailure("out of memory for masks")
    }
    self.match = match
    self.context = context
    pcre2_set_match_limit_8(context, Self.stepsMax)
    pcre2_set_heap_limit_8(context, Self.heapKilobytesMax)
    spans = .allocate(capacity: Self.spansMax)
    spans.initialize(repeating: Span(start: 0, end: 0, mask: 0), count: Self.spansMax)
    for mask in masks {
      guard let code = try? Self.compile(mask.pattern) else { preconditionFailure("the checker let an invalid mask through") }
      codes.append(code)
      isMachineCode.append(pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE)) == 0)
    }
  }

  deinit {
    for code in codes { pcre2_code_free_8(code) }
    pcre2_match_context_free_8(context)
    pcre2_match_data_free_8(match)
    spans.deallocate()
  }

  /// Nil for a valid pattern, else what is wrong with it and where, counted in characters from 1.
  static func problem(with pattern: String) -> String? {
    do throws(Invalid) {
      pcre2_code_free_8(try compile(pattern))
      return nil
    } catch {
      return "\(error.reason), at character \(error.position + 1)"
    }
  }

  /// A match never cuts a character in two; bytes that are no characters match nothing.
  private static func compile(_ pattern: String) throws(Invalid) -> OpaquePointer {
    let bytes = Array(pattern.utf8)
    guard bytes.count <= patternBytesMax else {
      throw Invalid(reason: "it is longer than \(patternBytesMax) bytes", position: 0)
    }
    let options = UInt32(PCRE2_UTF) | UInt32(PCRE2_MATCH_INVALID_UTF) | UInt32(PCRE2_NEVER_BACKSLASH_C)
    var error: Int32 = 0
    var offset = 0
    let code = (bytes + [0]).withUnsafeBufferPointer {
      pcre2_compile_8($0.baseAddress, bytes.count, options, &error, &offset, nil)
    }
    guard let code else {
      var buffer = [UInt8](repeating: 0, count: 256)
      let length = pcre2_get_error_message_8(error, &buffer, buffer.count)
      let reason = length > 0 ? String(decoding: buffer.prefix(Int(length)), as: UTF8.self) : "error \(error)"
      throw Invalid(reason: reason, position: String(decoding: bytes.prefix(offset), as: UTF8.self).count)
    }
    return code
  }

  /// Finds all masks' matches: those of an earlier mask stand, a later mask's may not overlap them. Matches of nothing are
  /// passed over.
  func find(in line: UnsafePointer<UInt8>, _ length: Int) {
    spanCount = 0
    for index in codes.indices {
      var position = 0
      while position < length, spanCount < Self.spansMax {
        let status =
          isMachineCode[index]
          ? pcre2_jit_match_8(codes[index], line, length, position, 0, match, context)
          : pcre2_match_8(codes[index], line, length, position, 0, match, context)
        if status < 0 {
          if status != PCRE2_ERROR_NOMATCH { abandoned += 1 }
          break
        }
        guard let ends = pcre2_get_ovector_pointer_8(match) else { break }
        let (start, end) = (Int(ends[0]), Int(ends[1]))
        // `\K` in a lookahead can put the start behind the end.
        guard end > start else {
          position = max(position, end) + 1
          continue
        }
        if let other = overlapping(start, end) {
          position = max(position + 1, Int(spans[other].end))
        } else {
          insert(Span(start: UInt32(start), end: UInt32(end), mask: UInt8(index)))
          position = end
        }
      }
    }
  }

  private func overlapping(_ start: Int, _ end: Int) -> Int? {
    for index in 0..<spanCount where Int(spans[index].start) < end && Int(spans[index].end) > start { return index }
    return nil
  }

  private func insert(_ span: Span) {
    var index = spanCount
    while index > 0, spans[index - 1].start > span.start {
      spans[index] = spans[index - 1]
      index -= 1
    }
    spans[index] = span
    spanCount += 1
  }
}
