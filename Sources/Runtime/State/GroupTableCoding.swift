import CColumns
import Catalog

/// Stored keys: a count, then column by column the nulls, the fixed-width values, or lengths and bytes of the
/// strings. Hashes are not stored: they are made anew from the keys, and so can never contradict them.
extension GroupTable {
  public func encode(into writer: StateWriter) {
    writer.append(UInt32(count))
    writer.append(nulls.count > 0)
    if nulls.count > 0 { writer.append(nulls) }
    for column in 0..<width {
      if keyTypes[column] == .string {
        encodeTexts(count: count, into: writer) { strings[$0 * width + column] }
      } else {
        let values = NativeArray<UInt64>(repeating: 0, count: count)
        for group in 0..<count { values[group] = words[group * width + column] }
        writer.append(values)
      }
    }
  }

  /// Reads what `encode` wrote; the ids of groups are those that they had.
  public convenience init(
    keyTypes: [PhysicalType], from reader: inout StateReader
  ) throws(StateCorruption) {
    let count = Int(try reader.integer(UInt32.self))
    let leastBytes = keyTypes.reduce(0) { $0 + ($1 == .string ? 4 : 8) }
    guard count <= (keyTypes.isEmpty ? 1 : min(Int(Int32.max), reader.left / leastBytes)) else {
      throw StateCorruption("the state names \(count) keys with \(reader.left) bytes left")
    }
    self.init(keyTypes: keyTypes, expectedGroups: count)
    try restoreNulls(count, from: &reader)
    if hasWords { words.grow(to: count * width, filling: 0) }
    if hasStrings { strings.grow(to: count * width, filling: rd_string()) }
    let restoredHashes = NativeArray<UInt64>(repeating: 0, count: count)
    for column in 0..<width {
      if keyTypes[column] == .string {
        try restoreStrings(column, count, from: &reader)
      } else {
        try restoreWords(column, count, from: &reader)
      }
      for group in 0..<count {
        restoredHashes[group] = KeyColumns.combine(restoredHashes[group], hashWord(group * width + column, column))
      }
    }
    for group in 0..<count {
      guard place(restored: group, hash: restoredHashes[group]) else {
        throw StateCorruption("the state holds a key twice")
      }
    }
  }

  /// What `KeyColumns.hashRows` takes of a value.
  private func hashWord(_ index: Int, _ column: Int) -> UInt64 {
    let isNull = nulls.count > 0 && nulls[index] != 0
    if keyTypes[column] != .string { return isNull ? KeyColumns.nullWord : words[index] }
    return isNull ? 0 : UInt64(strings[index].hash)
  }

  private func restoreNulls(_ count: Int, from reader: inout StateReader) throws(StateCorruption) {
    guard try reader.bool() else { return }
    nulls = try reader.array(of: UInt8.self)
    guard nulls.count == count * width else {
      throw StateCorruption("the state has \(nulls.count) nulls for \(count) keys")
    }
    for index in 0..<nulls.count where nulls[index] > 1 {
      throw StateCorruption("a null of the state is \(nulls[index])")
    }
  }

  private func restoreWords(_ column: Int, _ count: Int, from reader: inout StateReader) throws(StateCorruption) {
    let values = try reader.array(of: UInt64.self)
    guard values.count == count else {
      throw StateCorruption("the state has \(values.count) values for \(count) keys")
    }
    for group in 0..<count {
      let index = group * width + column
      let value = values[group]
      let isNull = nulls.count > 0 && nulls[index] != 0
      switch keyTypes[column] {
      case .float64:
        guard !Double(bitPattern: value).isNaN, value != (-0.0).bitPattern else {
          throw StateCorruption("a key of the state is no number")
        }
      case .bool:
        guard value <= 1 else { throw StateCorruption("a bool of the state is \(value)") }
      case .int64, .string: break
      }
      guard !isNull || value == 0 else { throw StateCorruption("a null of the state has a value") }
      words[index] = value
    }
  }

  private func restoreStrings(_ column: Int, _ count: Int, from reader: inout StateReader) throws(StateCorruption) {
    let texts = try reader.texts(count: count, into: &arena)
    for group in 0..<count {
      let index = group * width + column
      var text = texts[group]
      let isNull = nulls.count > 0 && nulls[index] != 0
      guard !isNull || text.length == 0 else { throw StateCorruption("a null of the state has a text") }
      if !isNull { text.hash = rd_hash_bytes(text.data, text.length) }
      strings[index] = text
    }
  }
}

/// Writes `count` texts: their lengths, then their bytes in one piece.
public func encodeTexts(count: Int, into writer: StateWriter, _ text: (Int) -> rd_string) {
  let lengths = NativeArray<UInt32>(repeating: 0, count: count)
  var total = 0
  for index in 0..<count {
    lengths[index] = text(index).length
    total += Int(lengths[index])
  }
  writer.append(lengths)
  writer.append(UInt64(total))
  var gathered: [UInt8] = []
  gathered.reserveCapacity(min(total, textBytesGathered))
  for index in 0..<count {
    let value = text(index)
    gathered.append(contentsOf: UnsafeBufferPointer(start: value.data, count: Int(value.length)))
    if gathered.count >= textBytesGathered {
      gathered.withUnsafeBytes { writer.append(raw: $0) }
      gathered.removeAll(keepingCapacity: true)
    }
  }
  gathered.withUnsafeBytes { writer.append(raw: $0) }
}

/// Bytes of texts that are gathered before they are handed to the writer.
private let textBytesGathered = 1 << 16

extension StateReader {
  /// The texts that `encodeTexts` wrote, as slices of `arena`; valid UTF-8, each of them, as operators expect it.
  public mutating func texts(
    count: Int, into arena: inout ByteArena
  ) throws(StateCorruption) -> NativeArray<rd_string> {
    let lengths = try array(of: UInt32.self)
    guard lengths.count == count else {
      throw StateCorruption("the state has \(lengths.count) texts where \(count) are expected")
    }
    let bytes = try counted()
    var total = 0
    for index in 0..<count { total += Int(lengths[index]) }
    guard total == bytes.count else {
      throw StateCorruption("the texts of the state are \(bytes.count) bytes where \(total) are expected")
    }
    guard (try? UTF8Span(validating: bytes.span)) != nil else {
      throw StateCorruption("a text of the state is not UTF-8")
    }
    let texts = NativeArray<rd_string>(repeating: rd_string(), count: count)
    let base = bytes.withUnsafeBufferPointer { arena.copy($0.baseAddress, $0.count) }
    var start = 0
    for index in 0..<count {
      let length = lengths[index]
      guard length > 0 else { continue }
      // All bytes are valid together; a text that begins between characters is too.
      guard bytes[start] & 0xC0 != 0x80 else { throw StateCorruption("a text of the state is not UTF-8") }
      texts[index] = rd_string(data: base.map { $0 + start }, length: length, hash: 0)
      start += Int(length)
    }
    return texts
  }
}
