import CColumns
import Catalog

/// One key column of a batch, ready to be read row by row without a retain.
public struct KeyAccess: BitwiseCopyable {
  @usableFromInline let values: UnsafeMutableRawPointer
  @usableFromInline let validity: UnsafeMutablePointer<UInt8>
  @usableFromInline let type: PhysicalType
  @usableFromInline let hasNulls: Bool

  @inlinable var isString: Bool { type == .string }
  @inlinable func isNull(_ row: Int) -> Bool { hasNulls && validity[row] == 0 }
  @inlinable func string(_ row: Int) -> rd_string {
    values.assumingMemoryBound(to: rd_string.self)[row]
  }
  /// A fixed-width value as bits; -0.0 is 0.0, so that equal numbers are one key.
  @inlinable func word(_ row: Int) -> UInt64 {
    switch type {
    case .int64: return values.assumingMemoryBound(to: UInt64.self)[row]
    case .float64:
      let value = values.assumingMemoryBound(to: Double.self)[row]
      return value == 0 ? 0 : value.bitPattern
    case .bool: return UInt64(values.assumingMemoryBound(to: UInt8.self)[row])
    case .string: return 0
    }
  }
}

/// The key columns of an operator, bound to the batch at hand.
public struct KeyColumns: ~Copyable {
  var columns: NativeArray<KeyAccess>

  public init() { columns = NativeArray() }

  public mutating func bind(_ batch: Batch, slots: [Int]) {
    columns.removeAll()
    for slot in slots {
      let column = batch.columns[slot]
      columns.append(
        KeyAccess(
          values: column.raw, validity: column.validity, type: column.type,
          hasNulls: column.hasNulls))
    }
  }

  /// Whether some row's key may hold a null.
  var hasNulls: Bool {
    for index in 0..<columns.count where columns.base[index].hasNulls { return true }
    return false
  }

  /// 64-bit hash of each row's key: the same on every machine, whatever the batch.
  public func hashRows(
    _ rows: UnsafePointer<Int32>, count: Int, into hashes: UnsafeMutablePointer<UInt64>
  ) {
    hashes.update(repeating: 0, count: count)
    for index in 0..<columns.count {
      let access = columns.base[index]
      switch access.type {
      case .string:
        for position in 0..<count {
          let row = Int(rows[position])
          var word: UInt64 = 0
          if !access.isNull(row) {
            let value = access.string(row)
            word = UInt64(value.hash != 0 ? value.hash : rd_hash_bytes(value.data, value.length))
          }
          hashes[position] = Self.combine(hashes[position], word)
        }
      case .int64, .float64, .bool:
        for position in 0..<count {
          let row = Int(rows[position])
          let word = access.isNull(row) ? Self.nullWord : access.word(row)
          hashes[position] = Self.combine(hashes[position], word)
        }
      }
    }
  }

  /// What a null of a fixed-width key counts as.
  static let nullWord: UInt64 = 0x5bd1_e995

  @inline(__always)
  static func combine(_ hash: UInt64, _ word: UInt64) -> UInt64 {
    rd_hash_word(hash &* 0x9e37_79b9_7f4a_7c15 ^ word)
  }
}
