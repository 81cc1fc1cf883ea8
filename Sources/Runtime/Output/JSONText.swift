import CColumns

/// JSON text, appended byte by byte. Numbers print as the shortest text that reads back as the same double.
extension TextOutput where Self: ~Copyable {
  @inlinable public mutating func append(json text: StaticString) {
    append(bytes: text.utf8Start, count: text.utf8CodeUnitCount)
  }

  /// A quoted JSON string.
  @inlinable public mutating func append(jsonString text: some Collection<UInt8>) {
    append(UInt8(ascii: "\""))
    appendEscaped(text)
    append(UInt8(ascii: "\""))
  }

  @inlinable public mutating func append(jsonString text: String) { append(jsonString: text.utf8) }

  @inlinable public mutating func append(jsonString text: rd_string) {
    append(jsonString: UnsafeBufferPointer(start: text.data, count: Int(text.length)))
  }

  /// The inside of a JSON string: quotes, backslashes and control characters escaped, all else as it is.
  @inlinable public mutating func appendEscaped(_ text: some Collection<UInt8>) {
    // Nearly every text is plain.
    let isDone = text.withContiguousStorageIfAvailable { bytes in
      guard let base = bytes.baseAddress else { return true }
      guard rd_is_plain(base, bytes.count) != 0 else { return false }
      append(bytes: base, count: bytes.count)
      return true
    }
    if isDone == true { return }
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

  @inlinable public mutating func append(json value: Int64) {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
      guard let base = digits.baseAddress else { return }
      var place = 20
      var rest = value.magnitude
      repeat {
        place -= 1
        (base + place).initialize(to: UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest % 10))
        rest /= 10
      } while rest > 0
      if value < 0 { append(UInt8(ascii: "-")) }
      append(bytes: base + place, count: 20 - place)
    }
  }

  /// A double as a JSON number, whole ones without a fraction; infinities as the strings "+Inf" and "-Inf",
  /// NaN as null.
  @inlinable public mutating func append(json value: Double) {
    if value.isNaN { return append(json: "null") }
    if value.isInfinite { return append(json: value > 0 ? "\"+Inf\"" : "\"-Inf\"") }
    appendNumber(value)
  }

  /// A time as a quoted RFC 3339 text.
  @inlinable public mutating func append(jsonTime nanos: Int64) {
    append(UInt8(ascii: "\""))
    appendTimestamp(nanos, to: &self)
    append(UInt8(ascii: "\""))
  }

  /// Sixteen hexadecimal digits.
  @inlinable public mutating func append(hex value: UInt64) {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 16) { digits in
      for index in 0..<16 {
        let nibble = UInt8(truncatingIfNeeded: value >> UInt64(60 - 4 * index)) & 15
        digits.initializeElement(at: index, to: nibble &+ (nibble < 10 ? 48 : 87))
      }
      guard let base = digits.baseAddress else { return }
      append(bytes: base, count: 16)
    }
  }

  /// The digits of a finite double.
  @inlinable public mutating func appendNumber(_ value: Double) {
    if value == value.rounded(), abs(value) < 9_007_199_254_740_992 {
      append(json: Int64(value))
    } else {
      append(utf8: value.description)
    }
  }
}

@usableFromInline
func hexDigit(_ nibble: UInt8) -> UInt8 {
  nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") + nibble - 10
}
