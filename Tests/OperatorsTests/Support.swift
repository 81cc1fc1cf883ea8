import CColumns
import Catalog

@testable import Operators
@testable import Runtime

/// A seeded generator (SplitMix64), so that a failing case can be run again.
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// A value of a column, or null.
enum Cell: Hashable, CustomStringConvertible {
  case null
  case bool(Bool)
  case int(Int64)
  case double(Double)
  case text(String)
  var description: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .int(let value): "\(value)"
    case .double(let value): "\(value)"
    case .text(let value): "\"\(value)\""
    }
  }
}

/// Strings that columns point to, alive as long as the pool.
final class TextPool {
  private var texts: [UnsafeMutablePointer<UInt8>] = []
  deinit { for text in texts { text.deallocate() } }
  func string(_ text: String) -> rd_string {
    let bytes = Array(text.utf8)
    let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, bytes.count))
    for (index, byte) in bytes.enumerated() { copy[index] = byte }
    texts.append(copy)
    return rd_string(data: copy, length: UInt32(bytes.count), hash: 0)
  }
}

extension Column {
  subscript(row: Int) -> Cell {
    if hasNulls, validity[row] == 0 { return .null }
    switch type {
    case .bool: return .bool(bools[row] != 0)
    case .int64: return .int(ints[row])
    case .float64: return .double(doubles[row])
    case .string:
      let text = strings[row]
      return .text(
        String(decoding: UnsafeBufferPointer(start: text.data, count: Int(text.length)), as: UTF8.self))
    }
  }

  /// Fills rows 0, 1, …; a null's value is left as it is.
  func fill(_ cells: [Cell], _ pool: TextPool) {
    hasNulls = cells.contains(.null)
    for (row, cell) in cells.enumerated() {
      validity[row] = cell == .null ? 0 : 1
      switch cell {
      case .null: break
      case .bool(let value): bools[row] = value ? 1 : 0
      case .int(let value): ints[row] = value
      case .double(let value): doubles[row] = value
      case .text(let value): strings[row] = pool.string(value)
      }
    }
  }
}
