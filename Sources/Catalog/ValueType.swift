/// The types that a rule's author sees. A unit is part of the type: `latency > 2s` compiles when
/// `latency` is a duration and is a diagnostic when it is a bare number.
public enum ValueType: String, Sendable, Hashable, CaseIterable {
  case bool
  /// 64-bit signed.
  case int
  /// IEEE 754 double; never NaN in a column (a NaN result is null).
  case float
  case string
  /// A point in event time.
  case timestamp
  /// A length of time.
  case duration
  /// A size in bytes.
  case bytes
  /// A part of a whole: 0.25 is 25 %.
  case ratio

  /// How a column of this type is stored.
  public var physical: PhysicalType {
    switch self {
    case .bool: .bool
    case .int, .timestamp: .int64
    case .float, .duration, .bytes, .ratio: .float64
    case .string: .string
    }
  }

  /// Types that arithmetic and sums are defined on.
  public var isNumeric: Bool {
    switch self {
    case .int, .float, .duration, .bytes, .ratio: true
    case .bool, .string, .timestamp: false
    }
  }

  /// Numbers without a unit: `int`, `float`, `ratio`. They mix in arithmetic and in comparisons.
  public var isDimensionless: Bool { self == .int || self == .float || self == .ratio }
}

/// The storage of a column.
public enum PhysicalType: UInt8, Sendable, Hashable, CaseIterable, BitwiseCopyable {
  /// One byte a row, 0 or 1.
  case bool
  /// `int` as it is; `timestamp` in nanoseconds since the epoch, UTC.
  case int64
  /// `float`; `duration` in nanoseconds; `bytes` in bytes; `ratio` as a fraction of one.
  case float64
  /// A slice of bytes, valid UTF-8.
  case string
}

/// A constant of a rule, in the unit of its column: see `PhysicalType`.
public enum Value: Sendable, Hashable {
  case null
  case bool(Bool)
  case int(Int64)
  case float(Double)
  case string(String)
  /// Nanoseconds since the epoch.
  case timestamp(Int64)
  /// Nanoseconds.
  case duration(Double)
  case bytes(Double)
  /// A fraction of one: 1 % is 0.01.
  case ratio(Double)

  /// `nil` for null, which has every type.
  public var type: ValueType? {
    switch self {
    case .null: nil
    case .bool: .bool
    case .int: .int
    case .float: .float
    case .string: .string
    case .timestamp: .timestamp
    case .duration: .duration
    case .bytes: .bytes
    case .ratio: .ratio
    }
  }

  /// The number behind a numeric value or a timestamp, in the column's unit.
  public var number: Double? {
    switch self {
    case .int(let value), .timestamp(let value): Double(value)
    case .float(let value), .duration(let value), .bytes(let value), .ratio(let value): value
    case .null, .bool, .string: nil
    }
  }
}

/// The unit in which a field's raw number arrives: `latency: duration(ms)`.
public enum FieldUnit: Sendable, Hashable {
  /// As the type stores it; what a field without a unit gets (`int`, `float`, `string`, `bool`, fractions, bytes).
  case native
  /// Multiply the raw number by this to get the stored one: `duration(ms)` is 1e6, `ratio(percent)` is 0.01,
  /// `bytes(MiB)` is 1,048,576. For `timestamp(ms)` 1,000,000, an integer.
  case scaled(Double)
  /// `timestamp(rfc3339)`: text such as `2026-11-21T03:17:04.250Z`, with `T` or a blank, with an offset or
  /// without (then UTC).
  case rfc3339
}
