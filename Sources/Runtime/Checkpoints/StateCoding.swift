/// Stored state that cannot be read: damaged, cut short, or of a version that this program does not know.
public struct StateCorruption: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }
}

/// Writes what a task keeps as little-endian bytes. Called once an array, not once a row.
///
/// What has been written is handed on in chunks, so that the state of a million keys is never there twice.
public final class StateWriter {
  /// Bytes in a chunk before it is handed on.
  public static let chunkBytes = 1 << 20

  public private(set) var bytes: [UInt8] = []
  /// Everything written so far, chunks that were handed on included.
  public private(set) var total = 0
  private let drain: (([UInt8]) throws -> Void)?
  private var failure: (any Error)?

  /// Collects everything in `bytes`.
  public init() { drain = nil }

  /// Hands on each full chunk; `finish` hands on the last one.
  public init(drain: @escaping ([UInt8]) throws -> Void) {
    self.drain = drain
    bytes.reserveCapacity(Self.chunkBytes + 4_096)
  }

  /// Hands on what is left. Throws the first failure of `drain`; after that nothing more was handed on.
  public func finish() throws {
    if let drain, failure == nil, !bytes.isEmpty {
      do { try drain(bytes) } catch { failure = error }
    }
    if drain != nil { bytes = [] }
    if let failure { throw failure }
  }

  /// Any fixed-width integer.
  public func append<T: FixedWidthInteger>(_ value: T) {
    withUnsafeBytes(of: value.littleEndian) { append(raw: $0) }
  }

  public func append(_ value: Double) { append(value.bitPattern) }
  public func append(_ value: Bool) { append(UInt8(value ? 1 : 0)) }

  /// A length and the UTF-8 bytes.
  public func append(_ text: String) { append(Array(text.utf8)) }

  /// A length and the bytes.
  public func append(_ bytes: [UInt8]) { bytes.withUnsafeBytes { append(counted: $0) } }

  /// A length and the bytes.
  public func append(counted bytes: UnsafeRawBufferPointer) {
    append(UInt64(bytes.count))
    append(raw: bytes)
  }

  /// A count and the elements as they lie in memory (all our machines are little-endian). The element type
  /// must have no padding, or equal states would not be equal bytes.
  public func append<T: BitwiseCopyable>(_ array: borrowing NativeArray<T>) {
    append(UInt64(array.count))
    append(raw: UnsafeRawBufferPointer(start: array.base, count: array.count * MemoryLayout<T>.stride))
  }

  /// Bytes without a length.
  public func append(raw: UnsafeRawBufferPointer) {
    guard failure == nil else { return }
    total += raw.count
    guard let drain else { return bytes.append(contentsOf: raw) }
    var rest = raw
    while !rest.isEmpty {
      let taken = min(rest.count, max(0, Self.chunkBytes - bytes.count))
      bytes.append(contentsOf: rest.prefix(taken))
      rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(taken))
      guard bytes.count >= Self.chunkBytes else { continue }
      do { try drain(bytes) } catch {
        failure = error
        return
      }
      bytes.removeAll(keepingCapacity: true)
    }
  }
}

/// Reads what a `StateWriter` wrote; every length is checked against what is there.
public struct StateReader {
  private let bytes: [UInt8]
  public private(set) var position = 0

  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  public var left: Int { bytes.count - position }
  public var isAtEnd: Bool { left == 0 }

  private mutating func take(_ count: Int) throws(StateCorruption) -> Int {
    guard count >= 0, count <= left else {
      throw StateCorruption("the state ends at byte \(bytes.count), where \(count) more are expected at \(position)")
    }
    defer { position += count }
    return position
  }

  public mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(StateCorruption) -> T {
    let start = try take(MemoryLayout<T>.size)
    return bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: T.self)) }
  }

  public mutating func double() throws(StateCorruption) -> Double {
    Double(bitPattern: try integer(UInt64.self))
  }

  public mutating func bool() throws(StateCorruption) -> Bool {
    let value = try integer(UInt8.self)
    guard value <= 1 else { throw StateCorruption("a flag of the state is \(value)") }
    return value == 1
  }

  /// A count of things that take at least `bytesEach` bytes.
  public mutating func count(bytesEach: Int = 1) throws(StateCorruption) -> Int {
    let value = try integer(UInt64.self)
    guard value <= UInt64(left / max(1, bytesEach)) else {
      throw StateCorruption("the state names \(value) elements with \(left) bytes left")
    }
    return Int(value)
  }

  /// Passes over `count` bytes.
  public mutating func skip(_ count: Int) throws(StateCorruption) { _ = try take(count) }

  /// Bytes without a length, as many as `target` has.
  public mutating func bytes(into target: UnsafeMutableRawBufferPointer) throws(StateCorruption) {
    let start = try take(target.count)
    bytes.withUnsafeBytes { target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + target.count])) }
  }

  public mutating func counted() throws(StateCorruption) -> [UInt8] {
    let count = try count()
    let start = try take(count)
    return Array(bytes[start..<start + count])
  }

  public mutating func text() throws(StateCorruption) -> String {
    let part = try counted()
    guard let text = String(validating: part, as: UTF8.self) else {
      throw StateCorruption("a text of the state is not UTF-8")
    }
    return text
  }

  public mutating func array<T: BitwiseCopyable>(of type: T.Type = T.self) throws(StateCorruption) -> NativeArray<T> {
    let stride = MemoryLayout<T>.stride
    let count = try count(bytesEach: stride)
    let start = try take(count * stride)
    guard count > 0 else { return NativeArray() }
    let first = bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: start, as: T.self) }
    let array = NativeArray<T>(repeating: first, count: count)
    bytes.withUnsafeBytes { raw in
      UnsafeMutableRawBufferPointer(start: array.base, count: count * stride)
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: raw[start..<start + count * stride]))
    }
    return array
  }

  /// Checks the version that a task wrote in front of its state.
  public mutating func expect(version known: UInt16, of what: String) throws(StateCorruption) {
    let version = try integer(UInt16.self)
    guard version == known else {
      throw StateCorruption("the state of \(what) has version \(version); this program reads \(known)")
    }
  }
}
