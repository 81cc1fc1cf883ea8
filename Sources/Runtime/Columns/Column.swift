import CColumns
import Catalog

#if canImport(Glibc)
  import Glibc
#endif

/// One typed column of a batch: `capacity` values and as many validity bytes (1 present, 0 null).
///
/// Memory is allocated once and reused by every batch that passes; whoever produces rows writes `values` and
/// `validity` for rows `0..<rowCount`. A null row's value is unspecified but initialised. Validity is a byte a row and
/// not a bit, because kernels and the decoder write rows one by one through selection vectors.
public final class Column {
  public let type: PhysicalType
  public let capacity: Int
  /// `capacity` slots of `type`'s stride; 64 bytes of padding behind them.
  public let raw: UnsafeMutableRawPointer
  /// One byte a row; read only while `hasNulls` is set.
  public let validity: UnsafeMutablePointer<UInt8>
  /// Whether some row of the current batch may be null; when false, `validity` need not be read (nor written).
  public var hasNulls = false

  public init(type: PhysicalType, capacity: Int) {
    self.type = type
    self.capacity = capacity
    // Zeroed by the kernel where it is new, so that what no row ever uses costs no memory.
    guard let values = calloc(capacity * type.stride + 64, 1), let flags = calloc(capacity + 64, 1) else {
      preconditionFailure("out of memory for a column of \(capacity) rows")
    }
    raw = values
    validity = flags.assumingMemoryBound(to: UInt8.self)
  }

  deinit {
    free(raw)
    free(validity)
  }

  /// The values of a `bool` column.
  @inlinable public var bools: UnsafeMutablePointer<UInt8> {
    assert(type == .bool)
    return raw.assumingMemoryBound(to: UInt8.self)
  }
  /// The values of an `int64` column.
  @inlinable public var ints: UnsafeMutablePointer<Int64> {
    assert(type == .int64)
    return raw.assumingMemoryBound(to: Int64.self)
  }
  /// The values of a `float64` column.
  @inlinable public var doubles: UnsafeMutablePointer<Double> {
    assert(type == .float64)
    return raw.assumingMemoryBound(to: Double.self)
  }
  /// The values of a `string` column.
  @inlinable public var strings: UnsafeMutablePointer<rd_string> {
    assert(type == .string)
    return raw.assumingMemoryBound(to: rd_string.self)
  }
}

extension PhysicalType {
  /// Bytes a value takes in a column.
  @inlinable public var stride: Int {
    switch self {
    case .bool: 1
    case .int64, .float64: 8
    case .string: MemoryLayout<rd_string>.stride
    }
  }
}
