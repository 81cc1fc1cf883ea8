enum TokenKind: UInt8, Sendable {
  case identifier
  /// Digits with whatever unit is attached: `5`, `2.5s`, `1h30m`, `80GiB`, `0.1%`.
  case number
  /// Quotes included.
  case string
  /// `t"…"`, quotes and `t` included.
  case timestamp
  case leftBrace, rightBrace, leftParen, rightParen
  case comma, colon, dot, pipe, question
  case equal, equalEqual, notEqual, less, lessOrEqual, greater, greaterOrEqual
  case plus, minus, star, slash, percent
  /// `&&`, `||`, `!`: other languages' operators, understood for the sake of a good diagnostic.
  case foreignAnd, foreignOr, foreignNot
  /// Text that the lexer has already complained about.
  case bad
  case end
}

struct Token: Sendable {
  var kind: TokenKind
  /// Whether only blanks stand before it on its line.
  var startsLine: Bool
  var keyword: Keyword
  var start: Int32
  var end: Int32
}

/// Words with a meaning of their own. Only the reserved ones are out of bounds for names in
/// expressions; the others are keywords by their place.
enum Keyword: String, Sendable, CaseIterable {
  case none = ""
  case and, or, not, between, `in`, `is`, null, `true`, `false`, `where`
  // Declarations.
  case `let`, source, stream, metric, alert, pattern, anomaly, slo, group, inhibit, maintenance
  case test, table
  // Stages.
  case derive, window, aggregate, cluster, join, left, unless, trace, edges
  case tumbling, hopping, every, by, limit, within, gap
  // Items of a source.
  case kafka, partitioned, format, time, fields, require
  case deadLetter = "dead_letter"
  case late
  case watermark, idle
  case maxAhead = "max_ahead"
  case allowedLateness = "allowed_lateness"
  case from, `else`
  // Items of an alert.
  case on, when, `for`
  case keepFiring = "keep_firing"
  case severity, labels, annotations
  case escalate, to, after, `repeat`
  // Items of a group, an inhibition and a maintenance window.
  case alerts, wait, interval, matching, zone
  case equalLabels = "equal"
  // Items of an SLO.
  case good, bad, total, objective, over, burn
  case minEvents = "min_events"

  static let byText: [String: Keyword] = Dictionary(
    uniqueKeysWithValues: allCases.filter { $0 != .none }.map { ($0.rawValue, $0) })

  /// Whether it cannot name a column.
  var isReserved: Bool {
    switch self {
    case .and, .or, .not, .between, .in, .is, .null, .true, .false, .where: true
    default: false
    }
  }

  static let declarations: [Keyword] = [
    .let, .source, .stream, .metric, .alert, .pattern, .anomaly, .slo, .group, .inhibit, .maintenance,
  ]
  /// Declarations of the language that this version does not have.
  static let laterDeclarations: Set<Keyword> = [.test, .table]
  var isDeclaration: Bool {
    switch self {
    case .let, .source, .stream, .metric, .alert, .pattern, .group, .inhibit, .maintenance, .anomaly, .slo, .test,
      .table: true
    default: false
    }
  }
}
