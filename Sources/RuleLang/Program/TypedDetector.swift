import Catalog

/// A detector stage: `zscore p99 by service threshold 3`.
public struct TypedDetector: Sendable, Hashable {
  /// The name of its `DetectorSpec`.
  public var name: String
  /// Column of the input; numeric.
  public var argument: Int?
  /// Columns of the input that tell one series from another. Over windows, all keys of the windows are among them.
  public var keys: [Int]
  /// Whether rows must first be brought into their order, at the owner of their key: records that come straight from a source.
  public var isExchanged: Bool
  /// Whether its rows are of its own making: keys, then `columns`.
  public var isOwnRows: Bool
  public var settings: DetectorSettings
  /// Most series that are followed at a time; about, since each of 256 key groups has its share.
  public var seriesMax: Int
  /// What it adds, in the order of the spec.
  public var columns: [TypedColumn]

  public init(
    name: String, argument: Int?, keys: [Int], isExchanged: Bool, isOwnRows: Bool, settings: DetectorSettings,
    seriesMax: Int, columns: [TypedColumn]
  ) {
    self.name = name
    self.argument = argument
    self.keys = keys
    self.isExchanged = isExchanged
    self.isOwnRows = isOwnRows
    self.settings = settings
    self.seriesMax = seriesMax
    self.columns = columns
  }

  public static let seriesMaxDefault = 1_000_000
  public static let seriesMaxRange: ClosedRange<Int64> = 1...100_000_000

  /// The stage as rule text.
  public func text(columns: [String]) -> String {
    var text = name
    if let argument { text += " \(columns[argument])" }
    if !keys.isEmpty { text += " by \(keys.map { columns[$0] }.joined(separator: ", "))" }
    let options = settings.text
    if !options.isEmpty { text += " \(options)" }
    if seriesMax != Self.seriesMaxDefault { text += " limit \(seriesMax) series" }
    return text
  }
}

/// `anomaly name = pipeline`: a record when an episode begins, and one when it ends.
public struct TypedAnomaly: Sendable, Hashable {
  public struct Evidence: Sendable, Hashable {
    /// As records call it.
    public var name: String
    public var column: Int
    public init(name: String, column: Int) {
      self.name = name
      self.column = column
    }
  }

  public var name: String
  public var origin: SourceRange
  /// The pipeline.
  public var stream: Int
  /// Columns that tell one series from another; they label the record.
  public var labels: [Int]
  /// Column that says whether a row is out of the ordinary; nil where every row is.
  public var flag: Int?
  public var values: [Evidence]

  public init(
    name: String, origin: SourceRange, stream: Int, labels: [Int], flag: Int?, values: [Evidence]
  ) {
    self.name = name
    self.origin = origin
    self.stream = stream
    self.labels = labels
    self.flag = flag
    self.values = values
  }
}

extension DetectorSettings {
  /// What the rule says, as rule text, sorted by the options' names; members in their order.
  public var text: String {
    var parts = Self.text(given)
    if !members.isEmpty {
      let listed = members.map { member in
        let options = Self.text(member.given).joined(separator: " ")
        return options.isEmpty ? member.name : "\(member.name): \(options)"
      }
      parts.append("members { \(listed.joined(separator: ", ")) }")
    }
    return parts.joined(separator: " ")
  }

  private static func text(_ given: [String: DetectorValue]) -> [String] {
    given.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }.map { "\($0.key) \($0.value.ruleText)" }
  }
}

extension DetectorValue {
  /// As a rule would spell it.
  public var ruleText: String {
    switch self {
    case .number(let number): numberText(number)
    case .measured(let number, .duration): Value.duration(number).ruleText
    case .measured(let number, .bytes): Value.bytes(number).ruleText
    case .measured(let number, .ratio): Value.ratio(number).ruleText
    case .measured(let number, _): numberText(number)
    case .rows(let count): "\(count)"
    case .duration(let nanos): durationText(Double(nanos))
    case .word(let word): word
    case .all: "all"
    case .halfLife(let rows): "half_life \(numberText(rows))"
    case .none: "none"
    }
  }
}
