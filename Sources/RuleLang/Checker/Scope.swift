import Catalog

/// A column as the checker knows it.
struct ColumnInfo {
  var name: String
  /// `nil` when its expression has errors: whatever is made of it is not complained about.
  var type: ValueType?
  var isNullable: Bool
}

/// The names that an expression may use.
struct Scope {
  enum Kind {
    /// Columns go by their own names.
    case rows
    /// Columns go by `stream.column`.
    case metric
    /// There are no columns.
    case constant
  }
  var kind: Kind
  /// The source or stream that the rows belong to.
  var owner: String
  private(set) var columns: [ColumnInfo] = []
  private var indexes: [String: Int] = [:]
  /// Some columns are unknown because of an error: an unknown name may be one of them.
  var isOpen = false
  /// Names by which columns of joined streams go, and where they were given.
  var joined: [String: TextRange] = [:]
  /// Columns that were there before `aggregate`.
  var lost: Set<String> = []

  static let constant = Scope(kind: .constant, owner: "")

  init(kind: Kind, owner: String, columns: [ColumnInfo] = []) {
    self.kind = kind
    self.owner = owner
    for column in columns { add(column) }
  }

  /// A second column of one name is not found by it.
  mutating func add(_ column: ColumnInfo) {
    if indexes[column.name] == nil { indexes[column.name] = columns.count }
    columns.append(column)
  }

  func index(of name: String) -> Int? { indexes[name] }

  /// For a hint: the names there are.
  var columnList: String {
    let shown = columns.prefix(12).map(\.name).joined(separator: ", ")
    return columns.count > 12 ? "\(shown), …" : shown
  }
}

/// An expression with its type.
struct Checked {
  var expression: TypedExpr
  /// `nil` for the literal `null`, which has every type.
  var type: ValueType?
  var isNullable: Bool
  var range: TextRange

  /// The value, when it is known at compile time; not for `null`.
  var constant: Value? {
    if type != nil, case .constant(let value, _) = expression { return value }
    return nil
  }

  static func constant(_ value: Value, _ range: TextRange) -> Checked {
    Checked(
      expression: .constant(value, value.type ?? .int), type: value.type,
      isNullable: value.type == nil, range: range)
  }
}

extension ValueType {
  /// For messages: "a duration".
  var withArticle: String {
    switch self {
    case .int: "an int"
    case .bytes: "a size in bytes"
    case .bool, .float, .string, .timestamp, .duration, .ratio: "a \(rawValue)"
    }
  }

  var hasUnit: Bool { self == .duration || self == .bytes }
}
