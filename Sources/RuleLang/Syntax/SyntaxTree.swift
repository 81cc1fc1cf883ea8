import Catalog

/// The declarations of all files, in their order.
struct ProgramSyntax {
  var lets: [LetSyntax] = []
  var sources: [SourceSyntax] = []
  var streams: [StreamSyntax] = []
  var metrics: [MetricSyntax] = []
  var alerts: [AlertSyntax] = []
  var patterns: [PatternSyntax] = []
  var groups: [GroupSyntax] = []
  var inhibitions: [InhibitionSyntax] = []
  var maintenances: [MaintenanceSyntax] = []
  var anomalies: [AnomalySyntax] = []
}

struct NameSyntax {
  var text: String
  var range: TextRange
}

/// A string literal, unescaped.
struct TextSyntax {
  var text: String
  var range: TextRange
}

struct LetSyntax {
  var name: NameSyntax
  /// `nil` when it did not parse.
  var value: ExprSyntax?
}

struct SourceSyntax {
  var name: NameSyntax
  var topic: TextSyntax?
  var format: NameSyntax?
  var time: TimeSyntax?
  var fields: [FieldSyntax] = []
  var requirements: [RequirementSyntax] = []
  var partitionedBy: [NameSyntax] = []
  var deadLetterTopic: TextSyntax?
  var lateTopic: TextSyntax?
  /// Items that were there, whether or not they parsed.
  var seen: [Keyword: TextRange] = [:]
  /// Some field did not parse: names that nobody knows may be its.
  var hasBrokenFields = false
}

struct TimeSyntax {
  var field: NameSyntax
  var options: [Keyword: ExprSyntax] = [:]
}

struct FieldSyntax {
  var name: NameSyntax
  var type: NameSyntax
  var unit: NameSyntax?
  var isOptional = false
  var path: [String]?
  var defaultValue: ExprSyntax?
}

struct RequirementSyntax {
  var condition: ExprSyntax
  var reason: TextSyntax
}

struct StreamSyntax {
  var name: NameSyntax
  /// `nil` when it did not parse.
  var input: NameSyntax?
  var stages: [StageSyntax] = []

  /// What people call it: `slo` where it was declared as one.
  var what: String {
    if case .slo? = stages.last { return "slo" }
    return "stream"
  }
}

enum StageSyntax {
  case filter(ExprSyntax)
  case derive([AssignmentSyntax])
  case window(WindowSyntax)
  case aggregate([AssignmentSyntax], range: TextRange)
  case cluster(ClusterSyntax)
  case join(JoinSyntax)
  case trace(TraceSyntax)
  /// The body of an `slo` declaration, which is a stream with this one stage behind its `where`.
  case slo(SloSyntax)
  case detector(DetectorSyntax)
  /// A stage that did not parse or that this version does not have.
  case broken
}

struct AssignmentSyntax {
  var name: NameSyntax
  var value: ExprSyntax
}

struct WindowSyntax {
  var range: TextRange
  var size: ExprSyntax
  /// `nil` for a tumbling window.
  var hop: ExprSyntax?
  var keys: [NameSyntax] = []
  /// `limit N keys`
  var keyLimit: ExprSyntax?
}

struct MetricSyntax {
  var name: NameSyntax
  /// `nil` when it did not parse.
  var value: ExprSyntax?
  /// `nil` when left out: all keys.
  var keys: [NameSyntax]?
}

/// `pattern name = stream`
struct PatternSyntax {
  var name: NameSyntax
  /// `nil` when it did not parse.
  var stream: NameSyntax?
}

/// `anomaly name = pipeline`: the pipeline is a stream of the same name.
struct AnomalySyntax {
  var name: NameSyntax
  /// Index among the program's streams.
  var stream: Int
}

/// `zscore p99 by service threshold 3 members { level, daily: season hour_of_day }`
struct DetectorSyntax {
  var range: TextRange
  var name: NameSyntax
  var argument: NameSyntax?
  /// `nil` when there is no `by`.
  var keys: [NameSyntax]?
  var prefix: NameSyntax?
  var limit: ExprSyntax?
  var options: [DetectorOptionSyntax] = []
  var members: [(name: NameSyntax, options: [DetectorOptionSyntax])] = []
}

struct DetectorOptionSyntax {
  enum Value {
    case word(NameSyntax)
    /// A constant, with the unit of rows behind it where there is one.
    case constant(ExprSyntax)
    case halfLife(ExprSyntax)
  }
  var name: NameSyntax
  var value: Value
}

/// `cluster message by keys option value …`
struct ClusterSyntax {
  var range: TextRange
  var message: NameSyntax
  var keys: [NameSyntax] = []
  /// Numbers, by the option's word.
  var numbers: [(option: NameSyntax, value: ExprSyntax)] = []
  var delimiters: TextSyntax?
  var masks: [(name: NameSyntax, pattern: TextSyntax)] = []
  var values: [ClusterValueSyntax] = []
}

/// `name: mask`, `name: mask 2`, `name: 2`
struct ClusterValueSyntax {
  var name: NameSyntax
  var mask: NameSyntax?
  var number: ExprSyntax?
}

/// `join spans as s on trace_id, a == b within 30s after limit 1000 rows`
struct JoinSyntax {
  var range: TextRange
  var kind: TypedJoin.Kind
  var right: NameSyntax
  var alias: NameSyntax?
  /// Columns of the left and of the right side; one name stands for both.
  var keys: [(left: NameSyntax, right: NameSyntax)] = []
  var within: ExprSyntax?
  /// `before` or `after`.
  var direction: NameSyntax?
  /// By the unit's word: `rows`, `keys`, `state`.
  var limits: [(unit: NameSyntax, value: ExprSyntax)] = []
}

/// `trace by trace_id gap 30s longest 1h limit 50000 spans { span span_id … }`, or `edges …` with the same.
struct TraceSyntax {
  var range: TextRange
  var isEdges: Bool
  var keys: [NameSyntax] = []
  var gap: ExprSyntax?
  var longest: ExprSyntax?
  var limit: ExprSyntax?
  /// What the columns of a span are called, by the word for them.
  var columns: [(item: NameSyntax, column: NameSyntax)] = []
}

struct AlertSyntax {
  var name: NameSyntax
  var stream: NameSyntax?
  var condition: ExprSyntax?
  var conditionText = ""
  var hold: ExprSyntax?
  var keepFiring: ExprSyntax?
  var severity: NameSyntax?
  var escalations: [EscalationSyntax] = []
  var repeatEvery: ExprSyntax?
  /// `group by …` within the alert.
  var group: GroupSyntax?
  var labels: [TemplateSyntax] = []
  var annotations: [TemplateSyntax] = []
  var seen: [Keyword: TextRange] = [:]
}

/// `escalate to severity after duration`
struct EscalationSyntax {
  var severity: NameSyntax
  var after: ExprSyntax
}

/// `group name { … }`, or `group by …` within an alert, whose name it then has.
struct GroupSyntax {
  var name: NameSyntax
  var alerts: [NameSyntax] = []
  var by: [NameSyntax] = []
  /// `wait`, `interval`, `repeat`, `limit`.
  var options: [Keyword: ExprSyntax] = [:]
  var seen: [Keyword: TextRange] = [:]
}

/// `inhibit targets when sources equal labels`
struct InhibitionSyntax {
  var range: TextRange
  var targets: [NameSyntax]
  var sources: [NameSyntax] = []
  var equal: [NameSyntax] = []
}

/// `maintenance name { … }`
struct MaintenanceSyntax {
  struct Matcher {
    var label: NameSyntax
    var values: [TextSyntax]
    var isNegated: Bool
  }
  var name: NameSyntax
  var from: ExprSyntax?
  var until: ExprSyntax?
  var days: [NameSyntax] = []
  /// Seconds behind midnight.
  var start: Int64 = 0
  var length: ExprSyntax?
  var zone: TextSyntax?
  var alerts: [NameSyntax] = []
  var matchers: [Matcher] = []
  var seen: [Keyword: TextRange] = [:]
}

/// `slo name { … }`, but for its name and the stream that it reads.
struct SloSyntax {
  /// The declaration's name: where what is missing is reported.
  var name: NameSyntax
  var keys: [NameSyntax]?
  var keyLimit: ExprSyntax?
  /// `good …` or `bad …`
  var measure: ExprSyntax?
  var isBad = false
  var total: ExprSyntax?
  var objective: ExprSyntax?
  var period: SloPeriodSyntax?
  var step: ExprSyntax?
  var minEvents: ExprSyntax?
  var burns: [BurnSyntax] = []
  /// `group by` in the SLO: of its burn alerts alone.
  var group: GroupSyntax?
  var labels: [TemplateSyntax] = []
  var annotations: [TemplateSyntax] = []
  var seen: [Keyword: TextRange] = [:]
}

enum SloPeriodSyntax {
  case rolling(ExprSyntax)
  case calendar(NameSyntax)

  var range: TextRange {
    switch self {
    case .rolling(let length): length.range
    case .calendar(let name): name.range
    }
  }
}

/// `burn page when rate > 14.4 over 1h and 5m or rate > 6 over 6h and 30m`
struct BurnSyntax {
  struct Condition {
    var range: TextRange
    /// `>=` rather than `>`.
    var isInclusive: Bool
    var rate: ExprSyntax
    var windows: [ExprSyntax]
    /// `with min_events`; the SLO's own when it is left out.
    var minEvents: ExprSyntax?
  }
  var severity: NameSyntax
  var conditions: [Condition]
  var text: String
}

struct TemplateSyntax {
  enum Part {
    case text(String)
    case value(ExprSyntax)
  }
  var name: NameSyntax
  var parts: [Part]
}

struct ExprSyntax {
  indirect enum Kind {
    case literal(Value)
    case name(String)
    /// `stream.column`
    case member(NameSyntax, NameSyntax)
    case negate(ExprSyntax)
    case not(ExprSyntax)
    case arithmetic(ArithmeticOperator, TextRange, ExprSyntax, ExprSyntax)
    case compare(ComparisonOperator, TextRange, ExprSyntax, ExprSyntax)
    /// Two operands or more.
    case logical(LogicalOperator, [ExprSyntax])
    case between(ExprSyntax, ExprSyntax, ExprSyntax)
    case isIn(ExprSyntax, [ExprSyntax])
    case isNull(ExprSyntax)
    case call(NameSyntax, [ExprSyntax], filter: ExprSyntax?)
    /// Reported already.
    case broken
  }
  var kind: Kind
  var range: TextRange
  /// Height of the tree, bounded by `Parser.depthMax` so that whoever walks it can recurse.
  var depth: Int
}
