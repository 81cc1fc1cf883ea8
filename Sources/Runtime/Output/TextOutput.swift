import CColumns

/// Text in the making, as UTF-8: what JSON and the values of rows are appended to.
public protocol TextOutput: ~Copyable {
  mutating func append(_ byte: UInt8)
  mutating func append(bytes: UnsafePointer<UInt8>, count: Int)
}

/// The text of one output record: nothing is shared, so that nothing is checked or counted for each of its dozen pieces.
public typealias RecordText = NativeArray<UInt8>

extension NativeArray: TextOutput where Element == UInt8 {}

extension Array: TextOutput where Element == UInt8 {
  @inlinable public mutating func append(bytes: UnsafePointer<UInt8>, count: Int) {
    append(contentsOf: UnsafeBufferPointer(start: bytes, count: count))
  }
}

extension TextOutput where Self: ~Copyable {
  @inlinable public mutating func append(bytes: [UInt8]) {
    bytes.withUnsafeBufferPointer { bytes in
      guard let base = bytes.baseAddress else { return }
      append(bytes: base, count: bytes.count)
    }
  }

  @inlinable public mutating func append(string: rd_string) {
    if string.length > 0 { append(bytes: string.data, count: Int(string.length)) }
  }

  @inlinable public mutating func append(utf8 text: String) {
    var text = text
    text.withUTF8 { bytes in
      guard let base = bytes.baseAddress else { return }
      append(bytes: base, count: bytes.count)
    }
  }
}
