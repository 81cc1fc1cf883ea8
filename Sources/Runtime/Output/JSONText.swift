import CColumns

/// JSON text, appended byte by byte. Numbers print as the shortest text that reads back as the same double.
extension Array where Element == UInt8 {
  public mutating func append(json text: StaticString) {
    append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// A quoted JSON string.
  public mutating func append(jsonString text: some Collection<UInt8>) {
    append(UInt8(ascii: "\""))
    appendEscaped(text)
    append(UInt8(ascii: "\""))
  }

  public mutating func append(jsonString text: String) { append(jsonString: text.utf8) }

  public mutating func append(jsonString text: rd_string) {
    append(jsonString: UnsafeBufferPointer(start: text.data, count: Int(text.length)))
  }

  /// The inside of a JSON string: quotes, backslashes and control characters escaped, all else as it is.
  public mutating func appendEscaped(_ text: some Collection<UInt8>) {
    // Nearly every text is plain.
    if !text.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) {
      return append(contentsOf: text)
    }
    for byte in text {
      switch byte {
      case UInt8(ascii: "\""): append(json: "\\\"")
      case UInt8(ascii: "\\"): append(json: "\\\\")
      case 0x0A: append(json: "\\n")
      case 0x0D: append(json: "\\r")
      case 0x09: append(json: "\\t")
      case 0..<0x20:
        append(json: "\\u00")
        append(hexDigit(byte >> 4))
        append(hexDigit(byte & 15))
      default: append(byte)
      }
    }
  }

  public mutating func append(json value: Int64) { append(contentsOf: String(value).utf8) }

  /// A double as a JSON number, whole ones without a fraction; infinities as the strings "+Inf" and "-Inf",
  /// NaN as null.
  public mutating func append(json value: Double) {
    if value.isNaN { return append(json: "null") }
    if value.isInfinite { return append(json: value > 0 ? "\"+Inf\"" : "\"-Inf\"") }
    appendNumber(value)
  }

  /// A time as a quoted RFC 3339 text.
  public mutating func append(jsonTime nanos: Int64) {
    append(UInt8(ascii: "\""))
    appendTimestamp(nanos, to: &self)
    append(UInt8(ascii: "\""))
  }

  /// Sixteen hexadecimal digits.
  public mutating func append(hex value: UInt64) {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 16) { digits in
      for index in 0..<16 {
        let nibble = UInt8(truncatingIfNeeded: value >> UInt64(60 - 4 * index)) & 15
        digits.initializeElement(at: index, to: nibble &+ (nibble < 10 ? 48 : 87))
      }
      append(contentsOf: digits)
    }
  }

  /// The digits of a finite double.
  public mutating func appendNumber(_ value: Double) {
    if value == value.rounded(), abs(value) < 9_007_199_254_740_992 {
      append(json: Int64(value))
    } else {
      append(contentsOf: value.description.utf8)
    }
  }
}

func hexDigit(_ nibble: UInt8) -> UInt8 {
  nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") + nibble - 10
}
