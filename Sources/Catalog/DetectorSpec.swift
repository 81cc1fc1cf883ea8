/// What a detector stage (`zscore`, `changed`, `forecast`, `absent`) is to a rule's author: its argument, its options and the
/// columns that it adds. The parser, the checker, the planner and the reference page know detectors by this alone.
public struct DetectorSpec: Sendable {
  /// What comes out of the stage.
  public enum Rows: Sendable, Hashable {
    /// The rows that go in, with columns added.
    case same
    /// Rows of its own at the end of each window, of the keys and the added columns alone.
    case ownAtWindowEnd
  }

  public let name: String
  /// One sentence for the reference page.
  public let summary: String
  /// Whether a column of numbers stands behind the name: `zscore p99`.
  public let takesColumn: Bool
  public let rows: Rows
  /// Options, those of members included. A required one has no default.
  public let options: [DetectorOption]
  /// Whether options may be given several times over: `members { level, daily: season hour_of_day }`.
  public let takesMembers: Bool
  /// Columns that it adds; the last is `is_anomaly`.
  public let columns: [DetectorColumn]
  /// The stage's own checks over resolved options; a returned problem says what is wrong with which option.
  public let validate: @Sendable (DetectorSettings) -> DetectorProblem?
  /// Bytes that one series keeps.
  public let stateBytes: @Sendable (DetectorSettings) -> Int
  /// A stage over the fields of the reference page's fragments.
  public let example: String

  public init(
    name: String, summary: String, takesColumn: Bool, rows: Rows = .same, options: [DetectorOption],
    takesMembers: Bool = false, forgetNanos: Int64 = 604_800_000_000_000, columns: [DetectorColumn],
    validate: @escaping @Sendable (DetectorSettings) -> DetectorProblem? = { _ in nil },
    stateBytes: @escaping @Sendable (DetectorSettings) -> Int, example: String
  ) {
    self.name = name
    self.summary = summary
    self.takesColumn = takesColumn
    self.rows = rows
    self.options =
      options + [
        DetectorOption(
          "forget", .duration(60_000_000_000...31_536_000_000_000_000), default: .duration(forgetNanos),
          "a series without a row for so long, or up to an eighth longer, is forgotten")
      ]
    self.takesMembers = takesMembers
    self.columns = columns
    self.validate = validate
    self.stateBytes = stateBytes
    self.example = example
  }

  public func option(_ name: String) -> DetectorOption? { options.first { $0.name == name } }

  /// Most bytes that a rule may ask for a series.
  public static let seriesBytesMax = 1 << 20
  /// Most members of one stage.
  public static let membersMax = 16
}

/// `word value`: one option of a detector.
public struct DetectorOption: Sendable {
  public enum Kind: Sendable, Hashable {
    /// A number without a unit.
    case number(ClosedRange<Double>)
    /// A count of rows of a series: `20`, `60 windows`, `none` where 0 is in the range.
    case rows(ClosedRange<Int>)
    /// A length of time, in nanoseconds.
    case duration(ClosedRange<Int64>)
    case word([String])
    /// What is remembered: `all`, `60 windows`, `half_life 500 windows`; `none` where allowed.
    case memory(windowsMax: Int, allowsNone: Bool)
    /// A constant of the argument's type.
    case value(ClosedRange<Double>)
  }

  public let name: String
  public let kind: Kind
  /// Nil where it must be given.
  public let defaultValue: DetectorValue?
  public let summary: String
  /// Whether each member may have its own.
  public let isMember: Bool

  public init(
    _ name: String, _ kind: Kind, default defaultValue: DetectorValue?, _ summary: String, isMember: Bool = false
  ) {
    self.name = name
    self.kind = kind
    self.defaultValue = defaultValue
    self.summary = summary
    self.isMember = isMember
  }
}

/// What an option says. Durations in nanoseconds, values in the unit of their column.
public enum DetectorValue: Sendable, Hashable {
  case number(Double)
  /// In the unit of a type's column.
  case measured(Double, ValueType)
  case rows(Int)
  case duration(Int64)
  case word(String)
  case all
  case halfLife(Double)
  case none
}

/// A column that a detector adds.
public struct DetectorColumn: Sendable, Hashable {
  public enum Kind: Sendable, Hashable {
    /// The type of the argument; an int's is a float.
    case likeArgument
    case type(ValueType)
  }
  public let name: String
  public let kind: Kind
  public let summary: String
  public init(_ name: String, _ kind: Kind, _ summary: String) {
    self.name = name
    self.kind = kind
    self.summary = summary
  }

  public func type(argument: ValueType?) -> ValueType {
    switch kind {
    case .type(let type): type
    case .likeArgument: argument == .int ? .float : argument ?? .float
    }
  }
}

/// The options of a stage: what the rule says, else the defaults.
public struct DetectorSettings: Sendable, Hashable {
  /// One of several scores that are combined, with its own options.
  public struct Member: Sendable, Hashable {
    public var name: String
    public var given: [String: DetectorValue]
    public init(name: String, given: [String: DetectorValue] = [:]) {
      self.name = name
      self.given = given
    }
  }

  /// What the rule says of the stage.
  public var given: [String: DetectorValue]
  /// What it says of members; empty where it names none.
  public var members: [Member]
  /// How far apart in time the rows of a series stand; 0 for records, which come at any time.
  public var hopNanos: Int64
  public var argumentType: ValueType?

  public init(
    given: [String: DetectorValue] = [:], members: [Member] = [], hopNanos: Int64 = 0, argumentType: ValueType? = nil
  ) {
    self.given = given
    self.members = members
    self.hopNanos = hopNanos
    self.argumentType = argumentType
  }

  /// An option's value: the member's, the stage's, the default.
  public func value(_ name: String, of member: Member? = nil, in spec: DetectorSpec) -> DetectorValue {
    if let value = member?.given[name] ?? given[name] { return value }
    return spec.option(name)?.defaultValue ?? .none
  }

  public func number(_ name: String, of member: Member? = nil, in spec: DetectorSpec) -> Double {
    switch value(name, of: member, in: spec) {
    case .number(let number), .halfLife(let number), .measured(let number, _): number
    case .rows(let count): Double(count)
    case .duration(let nanos): Double(nanos)
    case .word, .all, .none: 0
    }
  }

  public func rows(_ name: String, of member: Member? = nil, in spec: DetectorSpec) -> Int {
    if case .rows(let count) = value(name, of: member, in: spec) { count } else { 0 }
  }

  public func nanos(_ name: String, in spec: DetectorSpec) -> Int64 {
    if case .duration(let nanos) = value(name, in: spec) { nanos } else { 0 }
  }

  public func word(_ name: String, of member: Member? = nil, in spec: DetectorSpec) -> String {
    if case .word(let word) = value(name, of: member, in: spec) { word } else { "" }
  }
}

/// What is wrong with options that are each right for themselves.
public struct DetectorProblem: Sendable, Hashable {
  public var option: String
  public var message: String
  public var hint: String?
  public init(_ option: String, _ message: String, hint: String? = nil) {
    self.option = option
    self.message = message
    self.hint = hint
  }
}
