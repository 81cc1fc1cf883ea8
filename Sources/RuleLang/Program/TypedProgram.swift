import Catalog

/// What the checker makes of rule text: every name resolved to an index, every expression typed, every constant in
/// the unit of its column. The planner reads nothing else.
public struct TypedProgram: Sendable, Hashable {
  public var sources: [TypedSource]
  /// In an order in which each stream stands behind its input.
  public var streams: [TypedStream]
  public var metrics: [TypedMetric]
  public var alerts: [TypedAlert]
  public var patterns: [TypedPattern]
  public var groups: [TypedGroup] = []
  public var inhibitions: [TypedInhibition] = []
  public var maintenances: [TypedMaintenance] = []
  public var anomalies: [TypedAnomaly]

  public init(
    sources: [TypedSource] = [], streams: [TypedStream] = [], metrics: [TypedMetric] = [],
    alerts: [TypedAlert] = [], patterns: [TypedPattern] = [], anomalies: [TypedAnomaly] = []
  ) {
    self.anomalies = anomalies
    self.sources = sources
    self.streams = streams
    self.metrics = metrics
    self.alerts = alerts
    self.patterns = patterns
  }
}

/// A column of a stream.
public struct TypedColumn: Sendable, Hashable {
  public var name: String
  public var type: ValueType
  /// Whether a row may hold null here.
  public var isNullable: Bool
  public init(name: String, type: ValueType, isNullable: Bool) {
    self.name = name
    self.type = type
    self.isNullable = isNullable
  }
}

/// A source: where records come from, how their time is read, what is required of them.
public struct TypedSource: Sendable, Hashable {
  public var name: String
  public var origin: SourceRange
  public var topic: String?
  public var format: String
  public var time: TimeSpec
  public var fields: [TypedField]
  public var requirements: [TypedRequirement]
  /// The Kafka topic for this source's dead letters, where it names one.
  public var deadLetterTopic: String?
  /// The Kafka topic for this source's late rows, where it names one.
  public var lateTopic: String?
  /// Indexes of the fields by which producers partition the topic: records that agree in them are in one partition. Empty
  /// where the source says nothing of it.
  public var partitionedBy: [Int]

  public init(
    name: String, origin: SourceRange, topic: String?, format: String, time: TimeSpec,
    fields: [TypedField], requirements: [TypedRequirement], deadLetterTopic: String?,
    lateTopic: String?, partitionedBy: [Int] = []
  ) {
    self.partitionedBy = partitionedBy
    self.name = name
    self.origin = origin
    self.topic = topic
    self.format = format
    self.time = time
    self.fields = fields
    self.requirements = requirements
    self.deadLetterTopic = deadLetterTopic
    self.lateTopic = lateTopic
  }

  /// The columns that a pipeline on this source sees: one a field, in their order.
  public var columns: [TypedColumn] {
    fields.map { TypedColumn(name: $0.name, type: $0.type, isNullable: $0.isNullable) }
  }
}

/// How event time and the watermark of a source come about. All in nanoseconds.
public struct TimeSpec: Sendable, Hashable {
  /// Index into the source's fields; always a timestamp, never nullable.
  public var field: Int
  /// How far a row may lie behind the largest time seen in its partition and still be in time
  /// (`watermark` plus `allowed_lateness`).
  public var boundNanos: Int64
  /// After this long without a record a partition no longer holds the watermark back.
  public var idleNanos: Int64
  /// A record whose time lies further than this ahead of its Kafka timestamp is a dead letter.
  public var maxAheadNanos: Int64

  public init(field: Int, boundNanos: Int64, idleNanos: Int64, maxAheadNanos: Int64) {
    self.field = field
    self.boundNanos = boundNanos
    self.idleNanos = idleNanos
    self.maxAheadNanos = maxAheadNanos
  }
}

public struct TypedField: Sendable, Hashable {
  public var name: String
  public var type: ValueType
  /// Declared optional (`float?`) and without a default.
  public var isNullable: Bool
  public var unit: FieldUnit
  /// Member names from the record's root; `["ctx", "route"]` for `from ctx.route`.
  public var path: [String]
  /// What a missing or null member becomes; such a field is not nullable.
  public var defaultValue: Value?

  public init(
    name: String, type: ValueType, isNullable: Bool, unit: FieldUnit, path: [String],
    defaultValue: Value? = nil
  ) {
    self.name = name
    self.type = type
    self.isNullable = isNullable
    self.unit = unit
    self.path = path
    self.defaultValue = defaultValue
  }
}

/// `require condition else "reason"`: a row for which the condition is not true is a dead letter with this reason.
public struct TypedRequirement: Sendable, Hashable {
  /// Over the source's columns; bool.
  public var condition: TypedExpr
  public var reason: String
  public init(condition: TypedExpr, reason: String) {
    self.condition = condition
    self.reason = reason
  }
}

public enum StreamInput: Sendable, Hashable {
  case source(Int)
  case stream(Int)
}

/// A named pipeline.
public struct TypedStream: Sendable, Hashable {
  public var name: String
  public var origin: SourceRange
  public var input: StreamInput
  public var stages: [TypedStage]
  /// The columns of its rows.
  public var columns: [TypedColumn]
  /// Where its rows come from windows: which, and what keys a row. `nil` for a stream of plain records.
  public var windowing: Windowing?

  public init(
    name: String, origin: SourceRange, input: StreamInput, stages: [TypedStage],
    columns: [TypedColumn], windowing: Windowing?
  ) {
    self.name = name
    self.origin = origin
    self.input = input
    self.stages = stages
    self.columns = columns
    self.windowing = windowing
  }
}

/// What a row of a windowed stream stands for.
public struct Windowing: Sendable, Hashable {
  public var window: WindowSpec
  /// Indexes of the key columns in the stream's columns, in the order of `by`.
  public var keyColumns: [Int]
  public init(window: WindowSpec, keyColumns: [Int]) {
    self.window = window
    self.keyColumns = keyColumns
  }
}

/// A tumbling window is a hopping one whose hop is its size. Windows are aligned to the epoch: [k·hop, k·hop + size).
public struct WindowSpec: Sendable, Hashable {
  public var sizeNanos: Int64
  public var hopNanos: Int64
  public init(sizeNanos: Int64, hopNanos: Int64) {
    self.sizeNanos = sizeNanos
    self.hopNanos = hopNanos
  }
}

/// One step of a pipeline. Column indexes are those of the rows that enter the stage.
public enum TypedStage: Sendable, Hashable {
  /// Keeps the rows for which the condition is true (not false, not null).
  case filter(TypedExpr)
  /// Adds columns behind the present ones. An assignment sees those before it in the same `derive`.
  case derive([TypedAssignment])
  /// One row a key and window: the key columns, then one column an aggregate.
  case aggregate(TypedAggregation)
  /// Adds the message's pattern: `template_id`, `template`, `is_new`, `is_changed`, `parameters`, then the values that it
  /// names.
  case cluster(TypedCluster)
  /// Adds a detector's columns to each row, or makes rows of its own: see `DetectorSpec.rows`.
  case detector(TypedDetector)
  /// Adds the columns of the right side; `unless` adds none.
  case join(TypedJoin)
  /// One row a trace, or one for each call between two services of it: the keys, then the columns of
  /// `TypedTrace.columns`.
  case trace(TypedTrace)
  /// Of rows of windows: one row a key and evaluation with the key columns, then `TypedSlo.outputs`.
  case slo(TypedSlo)

  /// Whether it makes rows of several, with an event time of their own.
  var isGathering: Bool {
    switch self {
    case .join, .trace: true
    case .filter, .derive, .aggregate, .cluster, .detector, .slo: false
    }
  }
}

/// The error budget of an `slo`, kept over the rows of windows that hop and last by the time between two evaluations.
public struct TypedSlo: Sendable, Hashable {
  /// Key columns of the input, in the order of its windows' keys.
  public var keys: [Int]
  /// Over the input's columns. With `total` a number: the good (or bad) part of it. Without, a bool: whether the row, a slice
  /// of time, is good (or bad).
  public var measure: TypedExpr
  public var isBad: Bool
  public var total: TypedExpr?
  /// 0.999 for 99.9 %.
  public var objective: Double
  public var period: SloPeriod
  /// Between two evaluations.
  public var stepNanos: Int64
  /// The windows of all burn conditions, ascending, none twice.
  public var burnWindows: [Int64]
  /// A key without events for so long has no rows, for no burn condition can hold. One of `burnWindows`.
  public var idleNanos: Int64
  /// The burn window by whose rate the time to exhaustion is told. One of `burnWindows`.
  public var exhaustionNanos: Int64

  public init(
    keys: [Int], measure: TypedExpr, isBad: Bool, total: TypedExpr?, objective: Double, period: SloPeriod,
    stepNanos: Int64, burnWindows: [Int64], idleNanos: Int64, exhaustionNanos: Int64
  ) {
    self.keys = keys
    self.measure = measure
    self.isBad = isBad
    self.total = total
    self.objective = objective
    self.period = period
    self.stepNanos = stepNanos
    self.burnWindows = burnWindows
    self.idleNanos = idleNanos
    self.exhaustionNanos = exhaustionNanos
  }

  /// The columns behind the keys.
  public var outputs: [SloColumn] {
    var columns: [SloColumn] = [.good, .total, .errorRatio, .budgetLeft, .exhaustsIn, .since]
    if case .calendar = period { columns.append(.periodLeft) }
    for window in burnWindows { columns += [.burn(nanos: window), .events(nanos: window)] }
    return columns
  }
}

/// `cluster message by keys …`. Nil for an option that is left out.
public struct TypedCluster: Sendable, Hashable {
  /// Column of the input; string.
  public var message: Int
  /// Columns of the input that have patterns of their own.
  public var keys: [Int]
  public var similarity: Double?
  public var depth: Int?
  public var limit: Int?
  public var siblings: Int?
  /// Whether values that stand side by side are one.
  public var mergesRuns: Bool?
  public var delimiters: String
  public var masks: [TypedMask]
  public var values: [TypedClusterValue]
  public init(
    message: Int, keys: [Int], similarity: Double?, depth: Int?, limit: Int?, siblings: Int?, mergesRuns: Bool?,
    delimiters: String, masks: [TypedMask], values: [TypedClusterValue]
  ) {
    self.message = message
    self.keys = keys
    self.similarity = similarity
    self.depth = depth
    self.limit = limit
    self.siblings = siblings
    self.mergesRuns = mergesRuns
    self.delimiters = delimiters
    self.masks = masks
    self.values = values
  }

  /// Names of the columns that it always adds.
  public static let columnNames = ["template_id", "template", "is_new", "is_changed", "parameters"]
}

public struct TypedMask: Sendable, Hashable {
  public var name: String
  /// PCRE2.
  public var pattern: String
  public init(name: String, pattern: String) {
    self.name = name
    self.pattern = pattern
  }
}

/// A value of the line as a column.
public struct TypedClusterValue: Sendable, Hashable {
  public var name: String
  /// Only values that this mask found; nil for all.
  public var mask: String?
  /// Which of them, from 1.
  public var number: Int
  public var type: ValueType
  public init(name: String, mask: String?, number: Int, type: ValueType) {
    self.name = name
    self.mask = mask
    self.number = number
    self.type = type
  }
}

/// `pattern name = stream`: one record a row of a stream behind `cluster`.
public struct TypedPattern: Sendable, Hashable {
  public var name: String
  public var origin: SourceRange
  public var stream: Int
  /// Key columns of the stream's `cluster`; they label the record.
  public var keys: [Int]
  /// Columns `template_id`, `template`, `is_new`, `is_changed`, `parameters`.
  public var columns: [Int]
  public init(name: String, origin: SourceRange, stream: Int, keys: [Int], columns: [Int]) {
    self.name = name
    self.origin = origin
    self.stream = stream
    self.keys = keys
    self.columns = columns
  }
}

public struct TypedAssignment: Sendable, Hashable {
  public var name: String
  public var expression: TypedExpr
  public init(name: String, expression: TypedExpr) {
    self.name = name
    self.expression = expression
  }
}

public struct TypedAggregation: Sendable, Hashable {
  public var window: WindowSpec
  /// Columns of the input to group by; their names carry over. Empty: one group for all.
  public var keys: [Int]
  public var aggregates: [TypedAggregate]
  /// `limit N keys`: most keys in a pane of a partition; nil where the rule says nothing.
  public var keyLimit: Int?
  public init(window: WindowSpec, keys: [Int], aggregates: [TypedAggregate], keyLimit: Int? = nil) {
    self.window = window
    self.keys = keys
    self.aggregates = aggregates
    self.keyLimit = keyLimit
  }
}

/// `name = function(argument, constants…, where filter)`.
public struct TypedAggregate: Sendable, Hashable {
  public var name: String
  public var function: String
  public var argument: TypedExpr?
  public var constants: [Value]
  /// Rows for which this is not true do not count.
  public var filter: TypedExpr?
  public var type: ValueType
  public init(
    name: String, function: String, argument: TypedExpr?, constants: [Value], filter: TypedExpr?,
    type: ValueType
  ) {
    self.name = name
    self.function = function
    self.argument = argument
    self.constants = constants
    self.filter = filter
    self.type = type
  }
}

/// `metric name = expression by keys`: one record a row of a windowed stream.
public struct TypedMetric: Sendable, Hashable {
  public var name: String
  public var origin: SourceRange
  public var stream: Int
  /// Over the stream's columns; numeric. A null makes no record.
  public var value: TypedExpr
  /// Key columns of the stream that label the record: all of its keys.
  public var labels: [Int]
  public init(name: String, origin: SourceRange, stream: Int, value: TypedExpr, labels: [Int]) {
    self.name = name
    self.origin = origin
    self.stream = stream
    self.value = value
    self.labels = labels
  }
}

/// `alert`: see docs/language.md for its life cycle. Always on a windowed stream; a window's end is an evaluation.
public struct TypedAlert: Sendable, Hashable {
  public var name: String
  public var origin: SourceRange
  public var stream: Int
  /// Over the stream's columns; bool. Null is not true.
  public var condition: TypedExpr
  /// The condition as its author wrote it, for the evidence.
  public var conditionText: String
  public var forNanos: Int64
  public var keepFiringNanos: Int64
  public var severity: String
  /// What becomes of the severity while it goes on firing, in the order of time.
  public var escalations: [TypedEscalation] = []
  /// How long until a firing alert is told of again; 0 for never.
  public var repeatNanos: Int64 = 0
  /// Beside the stream's keys, which label every alert. Templates use key columns only.
  public var labels: [TypedTemplate]
  public var annotations: [TypedTemplate]
  /// Set for what an `slo` fires when its budget burns: its records are of type `slo`, and its state is that of the SLO and the
  /// severity, whatever the condition.
  public var burn: TypedBurn?
  public init(
    name: String, origin: SourceRange, stream: Int, condition: TypedExpr, conditionText: String,
    forNanos: Int64, keepFiringNanos: Int64, severity: String, labels: [TypedTemplate],
    annotations: [TypedTemplate], burn: TypedBurn? = nil
  ) {
    self.burn = burn
    self.name = name
    self.origin = origin
    self.stream = stream
    self.condition = condition
    self.conditionText = conditionText
    self.forNanos = forNanos
    self.keepFiringNanos = keepFiringNanos
    self.severity = severity
    self.labels = labels
    self.annotations = annotations
  }
}

/// What sets an SLO's burn alert apart from other alerts.
public struct TypedBurn: Sendable, Hashable {
  /// The longest window of its first condition: what its records show as their window.
  public var windowNanos: Int64
  /// Columns of the SLO that every record shows, in this order.
  public var evidence: [Int]
  public init(windowNanos: Int64, evidence: [Int]) {
    self.windowNanos = windowNanos
    self.evidence = evidence
  }
}

/// A named text with values in it.
public struct TypedTemplate: Sendable, Hashable {
  public enum Part: Sendable, Hashable {
    case text(String)
    /// Over the stream's columns; printed in the unit of its type (`2.31s`, `1.2%`, `80 GiB`).
    case value(TypedExpr)
  }
  public var name: String
  public var parts: [Part]
  public init(name: String, parts: [Part]) {
    self.name = name
    self.parts = parts
  }
}
