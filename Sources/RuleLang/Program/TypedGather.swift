import Catalog

/// `join`, `left join`, `unless`.
public struct TypedJoin: Sendable, Hashable {
  public enum Kind: String, Sendable, Hashable { case inner, left, unless }
  public var kind: Kind
  public var right: StreamInput
  /// What columns of the right side are called by: `spans` in `spans.duration`.
  public var name: String
  /// Columns of the left side, and those of the right side that equal them.
  public var leftKeys: [Int]
  public var rightKeys: [Int]
  /// A right row's time lies between the left row's plus `lowNanos` (0 or less) and plus `highNanos` (0 or more).
  public var lowNanos: Int64
  public var highNanos: Int64
  /// Both sides are rows of the same windows, and are joined window by window: the result has these windows too.
  public var isByWindow: Bool
  /// Most rows of a key on a side, keys, and bytes; nil where the rule says nothing.
  public var rowLimit: Int?
  public var keyLimit: Int?
  public var byteLimit: Int?
  /// Columns of the right side, as the right stream has them.
  public var rightColumns: [TypedColumn]

  public init(
    kind: Kind, right: StreamInput, name: String, leftKeys: [Int], rightKeys: [Int], lowNanos: Int64, highNanos: Int64,
    isByWindow: Bool, rowLimit: Int? = nil, keyLimit: Int? = nil, byteLimit: Int? = nil, rightColumns: [TypedColumn]
  ) {
    self.kind = kind
    self.right = right
    self.name = name
    self.leftKeys = leftKeys
    self.rightKeys = rightKeys
    self.lowNanos = lowNanos
    self.highNanos = highNanos
    self.isByWindow = isByWindow
    self.rowLimit = rowLimit
    self.keyLimit = keyLimit
    self.byteLimit = byteLimit
    self.rightColumns = rightColumns
  }

  /// The columns that it adds.
  public var addedColumns: [TypedColumn] {
    guard kind != .unless else { return [] }
    return rightColumns.map {
      TypedColumn(name: "\(name).\($0.name)", type: $0.type, isNullable: $0.isNullable || kind == .left)
    }
  }

  /// Windows of the rows that come out, from those of both sides.
  public func windowing(left: Windowing?, leftColumns: Int, right: Windowing?) -> Windowing? {
    guard isByWindow, var result = left else { return nil }
    if kind != .unless {
      result.keyColumns += (right?.keyColumns ?? []).filter { !rightKeys.contains($0) }.map { leftColumns + $0 }
    }
    return result
  }

  /// The stage as rule text.
  public func text(columns: [String], right: String) -> String {
    let word = kind == .inner ? "join" : kind == .left ? "left join" : "unless"
    var text = "\(word) \(right)"
    if name != right { text += " as \(name)" }
    let keys = zip(leftKeys, rightKeys).map { left, right in
      columns[left] == rightColumns[right].name ? columns[left] : "\(columns[left]) == \(rightColumns[right].name)"
    }
    text += " on \(keys.joined(separator: ", "))"
    if !isByWindow { text += " \(withinText)" }
    if let rowLimit { text += " limit \(rowLimit) rows" }
    if let keyLimit { text += " limit \(keyLimit) keys" }
    if let byteLimit { text += " limit \(Value.bytes(Double(byteLimit)).ruleText) state" }
    return text
  }

  /// `within 30s after`
  public var withinText: String {
    if highNanos == 0, lowNanos < 0 { return "within \(durationText(Double(-lowNanos))) before" }
    return "within \(durationText(Double(highNanos)))" + (lowNanos == 0 && highNanos > 0 ? " after" : "")
  }
}

/// `trace`, `edges`. Columns are those of the input.
public struct TypedTrace: Sendable, Hashable {
  public var isEdges: Bool
  /// The trace's id.
  public var keys: [Int]
  /// A trace is over when no span of it has come for so long, in event time.
  public var gapNanos: Int64
  /// A trace is over this long after its first span, whatever comes.
  public var longestNanos: Int64
  public var spanLimit: Int?
  public var span: Int
  public var parent: Int
  public var service: Int
  /// Nil: the row's event time.
  public var start: Int?
  public var duration: Int
  public var error: Int?
  public var name: Int?

  public init(
    isEdges: Bool, keys: [Int], gapNanos: Int64, longestNanos: Int64, spanLimit: Int?, span: Int, parent: Int,
    service: Int, start: Int?, duration: Int, error: Int?, name: Int?
  ) {
    self.isEdges = isEdges
    self.keys = keys
    self.gapNanos = gapNanos
    self.longestNanos = longestNanos
    self.spanLimit = spanLimit
    self.span = span
    self.parent = parent
    self.service = service
    self.start = start
    self.duration = duration
    self.error = error
    self.name = name
  }

  /// Columns of a trace, behind its keys.
  public static let traceColumns: [TypedColumn] = [
    TypedColumn(name: "start", type: .timestamp, isNullable: false),
    TypedColumn(name: "duration", type: .duration, isNullable: false),
    TypedColumn(name: "root", type: .string, isNullable: false),
    TypedColumn(name: "root_service", type: .string, isNullable: false),
    TypedColumn(name: "error", type: .bool, isNullable: false),
    TypedColumn(name: "spans", type: .int, isNullable: false),
    TypedColumn(name: "errors", type: .int, isNullable: false),
    TypedColumn(name: "services", type: .int, isNullable: false),
    TypedColumn(name: "critical_path", type: .string, isNullable: false),
    TypedColumn(name: "slowest_span", type: .string, isNullable: false),
    TypedColumn(name: "slowest_service", type: .string, isNullable: false),
    TypedColumn(name: "slowest_time", type: .duration, isNullable: false),
    TypedColumn(name: "self_times", type: .string, isNullable: false),
    TypedColumn(name: "missing_root", type: .bool, isNullable: false),
    TypedColumn(name: "orphans", type: .int, isNullable: false),
    TypedColumn(name: "loops", type: .int, isNullable: false),
    TypedColumn(name: "skewed", type: .int, isNullable: false),
    TypedColumn(name: "lost_spans", type: .int, isNullable: false),
  ]

  /// Columns of a call between two services, behind the trace's keys.
  public static let edgeColumns: [TypedColumn] = [
    TypedColumn(name: "caller", type: .string, isNullable: false),
    TypedColumn(name: "callee", type: .string, isNullable: false),
    TypedColumn(name: "error", type: .bool, isNullable: false),
    TypedColumn(name: "duration", type: .duration, isNullable: false),
    TypedColumn(name: "start", type: .timestamp, isNullable: false),
  ]

  public var columns: [TypedColumn] { isEdges ? Self.edgeColumns : Self.traceColumns }

  /// The stage as rule text.
  public func text(columns: [String]) -> String {
    var text = "\(isEdges ? "edges" : "trace") by \(keys.map { columns[$0] }.joined(separator: ", "))"
    text += " gap \(durationText(Double(gapNanos))) longest \(durationText(Double(longestNanos)))"
    if let spanLimit { text += " limit \(spanLimit) spans" }
    var items = ["span \(columns[span])", "parent \(columns[parent])", "service \(columns[service])"]
    if let start { items.append("start \(columns[start])") }
    items.append("duration \(columns[duration])")
    if let error { items.append("error \(columns[error])") }
    if let name { items.append("name \(columns[name])") }
    return "\(text) { \(items.joined(separator: ", ")) }"
  }
}

/// What a key is called behind `aggregate`, `trace` and `edges`: a column of a joined stream by its own name.
public func keyName(_ column: String) -> String {
  guard let dot = column.lastIndex(of: ".") else { return column }
  return String(column[column.index(after: dot)...])
}
