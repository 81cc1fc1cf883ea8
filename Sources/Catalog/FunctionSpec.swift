/// What a signature says to argument types that it was offered.
public enum SignatureMatch: Sendable, Hashable {
  case result(ValueType)
  /// Why not, as a phrase that follows "`name` ": "takes a duration, not a string".
  case mismatch(String)
}

/// A scalar function as a rule's author sees it: one value a row from values of the same row.
public struct ScalarFunctionSpec: Sendable {
  public let name: String
  /// One sentence for the reference page.
  public let summary: String
  /// Parameter names, for the reference page and diagnostics.
  public let parameters: [String]
  /// How many of the last parameters may be left out.
  public let optionalParameters: Int
  /// Whether the last parameter may be repeated.
  public let isVariadic: Bool
  /// Positions of parameters that must be constants (a pattern, for example).
  public let constantParameters: Set<Int>
  /// The result type for argument types; a null literal comes as `nil`.
  public let signature: @Sendable ([ValueType?]) -> SignatureMatch
  /// Checks constant arguments (by position); a returned phrase says what is wrong: "is not a valid pattern: …".
  public let validateConstant: @Sendable (_ position: Int, Value) -> String?
  /// An expression over the fields of the reference page's example source, such as `lower(service)`.
  public let example: String

  public init(
    name: String, summary: String, parameters: [String], optionalParameters: Int = 0,
    isVariadic: Bool = false, constantParameters: Set<Int> = [],
    signature: @escaping @Sendable ([ValueType?]) -> SignatureMatch,
    validateConstant: @escaping @Sendable (Int, Value) -> String? = { _, _ in nil },
    example: String
  ) {
    self.name = name
    self.summary = summary
    self.parameters = parameters
    self.optionalParameters = optionalParameters
    self.isVariadic = isVariadic
    self.constantParameters = constantParameters
    self.signature = signature
    self.validateConstant = validateConstant
    self.example = example
  }
}

/// An aggregate function as a rule's author sees it: one value for the rows of a key in a window.
/// Any aggregate also takes `where condition` as its last argument.
public struct AggregateFunctionSpec: Sendable {
  public let name: String
  public let summary: String
  /// Whether it reads a value: `sum(latency)` does, `count()` does not.
  public let takesValue: Bool
  /// Names of the constant parameters after the value: `["q"]` for `quantile(latency, 0.99)`.
  public let constants: [String]
  /// The result type for the type of the value (`nil` when it takes none).
  public let signature: @Sendable (ValueType?) -> SignatureMatch
  /// Checks a constant by its position among `constants`; a returned phrase says what is wrong.
  public let validateConstant: @Sendable (_ position: Int, Value) -> String?
  /// Whether the result may be null (no row had a value).
  public let mayBeNull: Bool
  /// What the planner and `explain` say of the state: "32 bytes a key", "up to 16 KiB a key".
  public let state: String
  public let example: String

  public init(
    name: String, summary: String, takesValue: Bool, constants: [String] = [],
    signature: @escaping @Sendable (ValueType?) -> SignatureMatch,
    validateConstant: @escaping @Sendable (Int, Value) -> String? = { _, _ in nil },
    mayBeNull: Bool, state: String, example: String
  ) {
    self.name = name
    self.summary = summary
    self.takesValue = takesValue
    self.constants = constants
    self.signature = signature
    self.validateConstant = validateConstant
    self.mayBeNull = mayBeNull
    self.state = state
    self.example = example
  }
}

/// A payload format that a source can name.
public struct FormatSpec: Sendable {
  public let name: String
  public let summary: String
  public init(name: String, summary: String) {
    self.name = name
    self.summary = summary
  }
}

/// What `cluster` can be told: masks, and the values that lines have.
public struct ClusterSpec: Sendable {
  /// Values by the mask that finds them, and what they are: `ip` a string, `duration` a duration.
  public let valueTypes: [String: ValueType]
  /// Nil for a valid pattern of a mask, else a phrase that says what is wrong.
  public let problemWithMask: @Sendable (String) -> String?
  public let limits: Limits

  /// What numbers the options take.
  public struct Limits: Sendable {
    public let similarity: ClosedRange<Double>
    public let depth: ClosedRange<Int>
    public let templates: ClosedRange<Int>
    public let masksMax: Int
    public init(
      similarity: ClosedRange<Double>, depth: ClosedRange<Int>, templates: ClosedRange<Int>, masksMax: Int
    ) {
      self.similarity = similarity
      self.depth = depth
      self.templates = templates
      self.masksMax = masksMax
    }
  }

  public init(
    valueTypes: [String: ValueType], problemWithMask: @escaping @Sendable (String) -> String?, limits: Limits
  ) {
    self.valueTypes = valueTypes
    self.problemWithMask = problemWithMask
    self.limits = limits
  }
}

/// Everything that the checker knows beyond the language itself, handed to it as a value.
public struct Catalog: Sendable {
  public let scalarFunctions: [ScalarFunctionSpec]
  public let aggregateFunctions: [AggregateFunctionSpec]
  public let formats: [FormatSpec]
  /// Nil where there is no `cluster` stage.
  public let cluster: ClusterSpec?
  /// Stages that find what is out of the ordinary.
  public let detectors: [DetectorSpec]

  private let scalarByName: [String: ScalarFunctionSpec]
  private let aggregateByName: [String: AggregateFunctionSpec]

  public init(
    scalarFunctions: [ScalarFunctionSpec], aggregateFunctions: [AggregateFunctionSpec],
    formats: [FormatSpec], cluster: ClusterSpec? = nil, detectors: [DetectorSpec] = []
  ) {
    self.detectors = detectors
    self.scalarFunctions = scalarFunctions
    self.aggregateFunctions = aggregateFunctions
    self.formats = formats
    self.cluster = cluster
    scalarByName = Dictionary(uniqueKeysWithValues: scalarFunctions.map { ($0.name, $0) })
    aggregateByName = Dictionary(uniqueKeysWithValues: aggregateFunctions.map { ($0.name, $0) })
  }

  public func scalarFunction(_ name: String) -> ScalarFunctionSpec? { scalarByName[name] }
  public func aggregateFunction(_ name: String) -> AggregateFunctionSpec? { aggregateByName[name] }
  public func detector(_ name: String) -> DetectorSpec? { detectors.first { $0.name == name } }
  public func hasFormat(_ name: String) -> Bool { formats.contains { $0.name == name } }
}
