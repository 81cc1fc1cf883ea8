/// What a diagnostic is about. Codes are stable: one is never used again for something else.
/// E codes are errors, W codes warnings.
public enum DiagnosticCode: String, Sendable, Hashable, CaseIterable {
  case fileNotUTF8 = "E0001"
  case fileHasNUL = "E0002"
  case fileTooLarge = "E0003"
  case tooManyDiagnostics = "E0004"
  case unexpectedCharacter = "E0101"
  case unterminatedString = "E0102"
  case badEscape = "E0103"
  case badNumber = "E0104"
  case numberOutOfRange = "E0105"
  case badTimestamp = "E0106"
  case unknownUnit = "E0107"
  case syntax = "E0110"
  case unknownDeclaration = "E0111"
  case unknownItem = "E0112"
  case duplicateItem = "E0113"
  case missingItem = "E0114"
  case unclosedBlock = "E0115"
  case unknownStage = "E0116"
  case notInThisVersion = "E0117"
  case nestedTooDeep = "E0118"
  case chainedComparison = "E0119"
  case foreignOperator = "E0120"
  case badTemplate = "E0121"
  case duplicateName = "E0201"
  case unknownInput = "E0202"
  case unknownField = "E0203"
  case unknownFunction = "E0204"
  case cyclicDefinition = "E0205"
  case badName = "E0206"
  case columnExists = "E0207"
  case unknownType = "E0208"
  case badFieldUnit = "E0209"
  case unknownFormat = "E0210"
  case unknownSeverity = "E0211"
  case badTimeField = "E0212"
  case qualifiedName = "E0213"
  case typeMismatch = "E0301"
  case notBool = "E0302"
  case badArguments = "E0303"
  case notConstant = "E0304"
  case alwaysNull = "E0305"
  case percentOfNumber = "E0306"
  case misplacedAggregate = "E0307"
  case badConstant = "E0308"
  case windowWithoutAggregate = "E0401"
  case badWindow = "E0402"
  case windowMisaligned = "E0403"
  case notWindowed = "E0404"
  case badDuration = "E0405"
  case badMetric = "E0501"
  case labelNotKey = "E0502"
  case badCluster = "E0601"
  case badJoin = "E0701"
  case badTrace = "E0702"
  case badGrouping = "E0510"
  case badMaintenance = "E0511"
  case badEscalation = "E0512"
  case badSlo = "E0801"
  case badBurn = "E0802"
  case badDetector = "E0620"
  case unused = "W0001"
  case ratioAboveOne = "W0002"
  case neverTrue = "W0003"
  case hidesConstant = "W0004"

  public var severity: Diagnostic.Severity {
    rawValue.utf8.first == UInt8(ascii: "W") ? .warning : .error
  }

  /// A few words, for lists.
  public var title: String {
    switch self {
    case .fileNotUTF8: "a rule file is not UTF-8"
    case .fileHasNUL: "a rule file holds a NUL byte"
    case .fileTooLarge: "a rule file is too large"
    case .tooManyDiagnostics: "too many diagnostics"
    case .unexpectedCharacter: "a character means nothing here"
    case .unterminatedString: "a string does not end"
    case .badEscape: "an escape in a string is unknown"
    case .badNumber: "a number is malformed"
    case .numberOutOfRange: "a number is out of range"
    case .badTimestamp: "a timestamp literal is malformed"
    case .unknownUnit: "a unit is unknown"
    case .syntax: "the syntax is wrong"
    case .unknownDeclaration: "a declaration is unknown"
    case .unknownItem: "a block has no such item"
    case .duplicateItem: "an item is given twice"
    case .missingItem: "an item is missing"
    case .unclosedBlock: "a block is not closed"
    case .unknownStage: "a pipeline stage is unknown"
    case .notInThisVersion: "this version does not have it yet"
    case .nestedTooDeep: "an expression is nested too deep, or a source too wide"
    case .chainedComparison: "comparisons cannot be chained"
    case .foreignOperator: "an operator is written as in another language"
    case .badTemplate: "a template is malformed"
    case .duplicateName: "a name is declared twice"
    case .unknownInput: "a source or stream is unknown"
    case .unknownField: "a field is unknown"
    case .unknownFunction: "a function is unknown"
    case .cyclicDefinition: "a definition leads back to itself"
    case .badName: "a name has the wrong form"
    case .columnExists: "a column exists already"
    case .unknownType: "a type is unknown"
    case .badFieldUnit: "a field's unit is missing or wrong"
    case .unknownFormat: "a payload format is unknown"
    case .unknownSeverity: "a severity is unknown"
    case .badTimeField: "the event time is no timestamp"
    case .qualifiedName: "a name is qualified where it need not be, or bare where it must be"
    case .typeMismatch: "types do not go together"
    case .notBool: "a condition is not a bool"
    case .badArguments: "a function is called with the wrong arguments"
    case .notConstant: "a constant is needed"
    case .alwaysNull: "the value is always null"
    case .percentOfNumber: "a plain number is compared with a percentage"
    case .misplacedAggregate: "an aggregate function stands outside `aggregate`"
    case .badConstant: "a constant does not fit"
    case .windowWithoutAggregate: "`window` and `aggregate` belong together"
    case .badWindow: "a window's size or hop makes no sense"
    case .windowMisaligned: "a window does not fit the windows it reads"
    case .notWindowed: "a stream has no windows"
    case .badDuration: "a duration is out of range"
    case .badMetric: "a metric cannot be computed"
    case .labelNotKey: "a label changes with the value"
    case .badCluster: "patterns of texts cannot be found so"
    case .badJoin: "rows cannot be joined so"
    case .badTrace: "traces cannot be put together so"
    case .badGrouping: "alerts cannot be put together so"
    case .badMaintenance: "a maintenance window is not well described"
    case .badEscalation: "an escalation leads nowhere"
    case .badSlo: "an SLO cannot be kept so"
    case .badBurn: "a burn condition makes no sense"
    case .badDetector: "a detector cannot work so"
    case .unused: "a declaration is never used"
    case .ratioAboveOne: "a ratio is compared with a number above 1"
    case .neverTrue: "a condition can never be true"
    case .hidesConstant: "a column hides a constant"
    }
  }

  /// What it means and what to do, for `docs/language.md`.
  public var explanation: String {
    switch self {
    case .fileNotUTF8:
      """
      Rule files are UTF-8 text. The label names the first byte that belongs to no character.
      """
    case .fileHasNUL:
      """
      A file with NUL bytes is no text; probably a binary file was given by mistake.
      """
    case .fileTooLarge:
      """
      A rule file has at most 4 MiB. Split it: all files that are given together form one program.
      """
    case .tooManyDiagnostics:
      """
      One run reports 500 diagnostics at most; this one stands for the rest.
      """
    case .unexpectedCharacter:
      """
      The text is no token of the language: a character from another language, or one that belongs in a \
      string.
      """
    case .unterminatedString:
      """
      A string ends on the line on which it begins. A line break inside one is written `\\n`.
      """
    case .badEscape:
      """
      Strings know the escapes `\\n`, `\\t`, `\\"`, `\\\\` and `\\u{1F600}`.
      """
    case .badNumber:
      """
      Numbers look like 12, 1_000, 2.5, 1e6, 2.5s, 1h30m, 80GiB or 5%.
      """
    case .numberOutOfRange:
      """
      An int has 64 bits, a duration at most 292 years of nanoseconds, a float is finite. Constant \
      arithmetic is held to the same.
      """
    case .badTimestamp:
      """
      A timestamp is RFC 3339 text behind a `t`: t"2026-11-21T03:00:00Z".
      """
    case .unknownUnit:
      """
      Durations have the units ns us ms s m h d w, sizes B kB KiB MB MiB GB GiB TB TiB, parts of a whole \
      %.
      """
    case .syntax:
      """
      Something else was expected at this place.
      """
    case .unknownDeclaration:
      """
      A rule file consists of `let`, `source`, `stream`, `metric`, `alert`, `pattern`, `anomaly`, `slo`, `group`, `inhibit` \
      and `maintenance` declarations.
      """
    case .unknownItem:
      """
      The items of a source: kafka, partitioned by, format, time, fields, require, dead_letter, late. Those of an alert: \
      on, when, for, keep_firing, severity, escalate, repeat, group, labels, annotations. Those of a group: alerts, by, wait, \
      interval, repeat, limit. Those of a maintenance window: from, to, every, zone, alerts, matching. Those of an slo: on, by, \
      good, bad, total, objective, every, min_events, burn, group, labels, annotations.
      """
    case .duplicateItem:
      """
      Each item of a block but `require` is given once.
      """
    case .missingItem:
      """
      A source needs `time` and `fields`, an alert `on` and `when`, an slo `on`, `good` or `bad`, and `objective`, a group \
      `alerts`, a maintenance window `from` and `to`, or `every`.
      """
    case .unclosedBlock:
      """
      A `{` has no `}`: the next declaration begins before it.
      """
    case .unknownStage:
      """
      The stages of a pipeline: where, derive, window, aggregate, cluster, join, left join, unless, trace, edges, and the detectors.
      """
    case .notInThisVersion:
      """
      The word belongs to the language, and this version does not implement it.
      """
    case .nestedTooDeep:
      """
      Expressions nest 64 levels deep at most. Name the parts with `derive`, or use `in (…)` for long \
      lists of alternatives. A source declares at most 1,000 fields.
      """
    case .chainedComparison:
      """
      `a < b < c` does not mean what it says in most languages, so it means nothing here. Write `b between \
      a and c`, or `a < b and b < c`.
      """
    case .foreignOperator:
      """
      Equality is `==`, and the logical operators are the words `and`, `or` and `not`.
      """
    case .badTemplate:
      """
      In labels and annotations `{expression}` is replaced by a value; a brace itself is written `{{` or \
      `}}`.
      """
    case .duplicateName:
      """
      All files form one program. Sources and streams share one namespace; constants, metrics and alerts \
      have one each (groups of alerts count as alerts); so have the fields of a source, the labels and the annotations of an alert.
      """
    case .unknownInput:
      """
      A pipeline, a metric or an alert reads a source or stream that no file declares.
      """
    case .unknownField:
      """
      The rows that reach this place have no such column, and no constant has the name.
      """
    case .unknownFunction:
      """
      Scalar functions may stand in every expression, aggregate functions in `aggregate` alone.
      """
    case .cyclicDefinition:
      """
      A stream or a constant is defined, directly or through others, by itself.
      """
    case .badName:
      """
      Names of labels and annotations match [A-Za-z_][A-Za-z0-9_]*; a reserved word (and, or, not, \
      between, in, is, null, true, false, where) names nothing.
      """
    case .columnExists:
      """
      `derive` and `aggregate` add columns; they cannot replace one, so that a name means one thing along \
      a pipeline.
      """
    case .unknownType:
      """
      Field types: bool, int, float, string, timestamp(unit), duration(unit), bytes, ratio.
      """
    case .badFieldUnit:
      """
      A raw number says nothing of its unit: `duration` and `timestamp` fields name it, as in \
      `duration(ms)` or `timestamp(rfc3339)`.
      """
    case .unknownFormat:
      """
      The formats that a source can name are those of this build.
      """
    case .unknownSeverity:
      """
      Severities: page, critical, ticket, warning, info.
      """
    case .badTimeField:
      """
      `time` names a field of the source that is a timestamp and present in every record: without `?` and \
      without a default.
      """
    case .qualifiedName:
      """
      A metric writes `stream.column`; everywhere else a column goes by its own name.
      """
    case .typeMismatch:
      """
      Units are part of types: a duration is compared with a duration, and added to one. Numbers without a \
      unit (int, float, ratio) mix.
      """
    case .notBool:
      """
      `where`, `when`, `require`, `and`, `or` and `not` take conditions.
      """
    case .badArguments:
      """
      The function takes other arguments, in number or in type.
      """
    case .notConstant:
      """
      The value is needed when the rules are compiled: write a literal, a `let` name, or arithmetic on \
      them.
      """
    case .alwaysNull:
      """
      An operation on the literal `null`, or a division by a constant zero, is always null.
      """
    case .percentOfNumber:
      """
      The field is an int or a float; whether its 5 means 5 % or 500 % only its author knows. Declare it \
      `ratio` or `ratio(percent)`, or write a plain number.
      """
    case .misplacedAggregate:
      """
      Aggregate functions summarise the rows of a window; they stand alone behind `name =` in `aggregate`. \
      Arithmetic on their results goes in a `derive` behind it.
      """
    case .badConstant:
      """
      A constant argument or default has a value that the function or field does not take.
      """
    case .windowWithoutAggregate:
      """
      A `window` stage is followed by `aggregate`, and `aggregate` stands behind `window`.
      """
    case .badWindow:
      """
      A window is between 1ms and 90d long; its size is a multiple of its hop, and the hop is at most the \
      size, at least a 100,000th of it. `limit N keys` takes 1 to 100,000,000, stands behind `by`, and in the first \
      windows of a pipeline only.
      """
    case .windowMisaligned:
      """
      Rows of a windowed stream come once a hop, so a window over them must hop and last by multiples of \
      that hop.
      """
    case .notWindowed:
      """
      Metrics and alerts are evaluated when a window ends, so they read a stream with `window` and \
      `aggregate` in its pipeline.
      """
    case .badDuration:
      """
      `watermark`, `idle`, `max_ahead`, `allowed_lateness`, `for` and `keep_firing` are durations of 0 to \
      365d; so are `after` and `repeat`, from 1s on. A group's `wait` is at most 1d, its `interval` 1s to 7d.
      """
    case .badMetric:
      """
      A metric is a number made from columns of one windowed stream; its `by` lists all keys of that \
      stream.
      """
    case .labelNotKey:
      """
      Labels are an alert's identity: a label made from a measured value would be a new alert, and a new \
      `for`, at each change. Labels use key columns only; values belong in annotations.
      """
    case .badCluster:
      """
      `cluster` reads a text column of records, before any window and once in a pipeline; `pattern` reads a stream behind \
      it. Its options are `similarity` 0.1 to 1, `depth` 0 to 8, `limit` 1 to 1,000,000, `siblings` 0 to 1,000, \
      `merge_runs` true or false, `delimiters "…"`, `masks { name: "pattern" }` and `values { column: mask 2 }`.
      """
    case .badSlo:
      """
      An slo counts records (`good condition`), slices of time (the same over a stream with windows) or amounts (`good column \
      total column`). Its objective lies above 0 % and below 100 %, over up to 90d or over `day`, `week`, `month` or `quarter`. It is \
      evaluated each 10s to 1d; `min_events` is a whole number.
      """
    case .badBurn:
      """
      `burn severity when rate > 14.4 over 1h and 5m or …`: one to four windows a condition, none twice, each a multiple of the time \
      between two evaluations, no longer than a rolling objective's period nor than 20,160 evaluations; the rate is a number above 0. \
      `with min_events 100` behind the windows is a floor for this condition alone.
      """
    case .badDetector:
      """
      A detector goes through the rows of each series in their order, and takes the options of its table under "Detectors"; \
      over windows a series has all keys of the windows. An `anomaly` reads windows, or rows behind a detector or \
      `cluster`.
      """
    case .badJoin:
      """
      `join`, `left join` and `unless` name a source or stream, the keys that are equal on both sides, of one type, and \
      `within` what time (0 to 7d; left out, both sides have the same windows). Their limits are `limit 10000 rows` a key \
      (1 to 1,000,000), `limit 1000000 keys` (1 to 100,000,000) and `limit 1GiB state` (1MiB to 1TiB). A program has at most \
      64 stages that join or put traces together.
      """
    case .badTrace:
      """
      `trace` and `edges` name the trace's key, `gap` (1ms to 1h), and in braces the columns of a span: `span` and `parent` \
      (one type), `service` (a string), `duration`, and, where there are such, `start` (a timestamp), `error` (a bool) and \
      `name`. `longest` is 1ms to 24h, `limit N spans` 1 to 1,000,000.
      """
    case .badGrouping:
      """
      `group` and `inhibit` name alerts or slos, and labels that each of them has. An alert is in one group at most, and \
      no alert inhibits itself, neither directly nor by way of others. `limit` lists 1 to 1,000 alerts. Sources may come together \
      in at most 64 ways, in groups, inhibitions and joins.
      """
    case .badMaintenance:
      """
      A maintenance window is open either `from t"…" to t"…"` or `every DAY HH:MM for DURATION`, on days of the week, `day` or \
      `weekday`, for 1m to 7d, in a `zone` of the system's tz database (UTC when left out). `matching` compares labels with \
      texts: `service == "search"`, `!=`, `in ("a", "b")`, `not in`.
      """
    case .badEscalation:
      """
      Each `escalate` raises the severity, after a longer time of firing than the one before. From the lowest: info, warning, \
      ticket, critical, page.
      """
    case .unused:
      """
      No metric, alert or other stream reads it.
      """
    case .ratioAboveOne:
      """
      A ratio is a fraction of one: 5 means 500 %. Five percent is written `5%`.
      """
    case .neverTrue:
      """
      The lower bound of `between` lies above the upper one, or a burn rate is asked for that even a total outage does not reach.
      """
    case .hidesConstant:
      """
      A column and a `let` have one name; the column is meant.
      """
    }
  }
}
