import Catalog

extension TypedExpr {
  /// The expression as rule text, with the names of the columns that it reads; conversions are left
  /// out.
  public func text(columns: [String]) -> String {
    text { columns.indices.contains($0) ? columns[$0] : "#\($0)" }
  }

  /// The same, where the columns' names are not simply a list.
  public func text(column name: (Int) -> String) -> String { text(name, within: 0) }

  /// `level` is the binding strength around: an operator that binds less tightly is put in
  /// parentheses.
  private func text(_ name: (Int) -> String, within level: Int) -> String {
    func wrapped(_ text: String, _ own: Int) -> String { own < level ? "(\(text))" : text }
    switch self {
    case .constant(let value, _): return value.ruleText
    case .column(let index, _): return name(index)
    case .not(.isNull(let inner)): return wrapped("\(inner.text(name, within: 5)) is not null", 4)
    case .not(.isIn(let inner, let values)):
      let list = values.map(\.ruleText).joined(separator: ", ")
      return wrapped("\(inner.text(name, within: 5)) not in (\(list))", 4)
    case .not(let inner): return wrapped("not \(inner.text(name, within: 4))", 3)
    case .negate(let inner, _): return wrapped("-\(inner.text(name, within: 7))", 7)
    case .logical(let operation, let left, let right):
      let own = operation == .or ? 1 : 2
      return wrapped(
        "\(left.text(name, within: own)) \(operation.rawValue) \(right.text(name, within: own))",
        own)
    case .compare(let operation, let left, let right):
      return wrapped(
        "\(left.text(name, within: 5)) \(operation.rawValue) \(right.text(name, within: 5))", 4)
    case .arithmetic(let operation, let left, let right, _):
      let own = operation == .add || operation == .subtract ? 5 : 6
      return wrapped(
        "\(left.text(name, within: own)) \(operation.rawValue) "
          + right.text(name, within: own + 1), own)
    case .isNull(let inner): return wrapped("\(inner.text(name, within: 5)) is null", 4)
    case .isIn(let inner, let values):
      let list = values.map(\.ruleText).joined(separator: ", ")
      return wrapped("\(inner.text(name, within: 5)) in (\(list))", 4)
    case .call(let function, let arguments, _):
      return "\(function)(\(arguments.map { $0.text(name, within: 0) }.joined(separator: ", ")))"
    case .toFloat(let inner, _): return inner.text(name, within: level)
    }
  }
}

extension WindowSpec {
  /// `tumbling 1m`, `hopping 5m every 1m`.
  public var ruleText: String {
    let size = durationText(Double(sizeNanos))
    return hopNanos == sizeNanos
      ? "tumbling \(size)" : "hopping \(size) every \(durationText(Double(hopNanos)))"
  }
}

extension Value {
  /// The value as a literal of the language, in the largest unit that leaves a whole number.
  public var ruleText: String {
    switch self {
    case .null: "null"
    case .bool(let value): value ? "true" : "false"
    case .int(let value): "\(value)"
    case .float(let value): value.rounded() == value ? "\(numberText(value)).0" : numberText(value)
    case .string(let value): quotedText(value)
    case .timestamp(let nanos): "t\"\(timestampText(nanos))\""
    case .duration(let nanos): durationText(nanos)
    case .bytes(let bytes): unitText(bytes, Units.sizes.map { ($0.name, $0.bytes) })
    case .ratio(let value): "\(numberText(value * 100))%"
    }
  }
}

private func quotedText(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\n": result += "\\n"
    case "\t": result += "\\t"
    default:
      if scalar.value < 0x20 || scalar.value == 0x7F {
        result += "\\u{\(String(scalar.value, radix: 16))}"
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
  }
  return result + "\""
}

/// Nanoseconds as a literal: `90s` is `1m30s`.
func durationText(_ nanos: Double) -> String {
  guard let whole = Int64(exactly: nanos), whole != .min else { return "\(numberText(nanos))ns" }
  if whole == 0 { return "0s" }
  var rest = abs(whole)
  var result = whole < 0 ? "-" : ""
  // A week is seven days to whoever reads a window.
  for unit in Units.durations.reversed() where unit.name != "w" && rest >= unit.nanos {
    result += "\(rest / unit.nanos)\(unit.name)"
    rest %= unit.nanos
  }
  return result
}

private func unitText(_ value: Double, _ units: [(name: String, size: Int64)]) -> String {
  guard let whole = Int64(exactly: value), whole != 0 else { return "\(numberText(value))B" }
  // Of units that divide it the one with the shortest number; among equals the smaller.
  var best = "\(whole)B"
  for unit in units where whole % unit.size == 0 {
    let text = "\(whole / unit.size)\(unit.name)"
    if (whole / unit.size).magnitude < 1 << 53, text.utf8.count < best.utf8.count { best = text }
  }
  return best
}

/// RFC 3339 in UTC, with as many digits of a second as there are.
func timestampText(_ nanos: Int64) -> String {
  func padded(_ value: Int64, _ width: Int) -> String {
    let digits = "\(value)"
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }
  let second: Int64 = 1_000_000_000
  let fraction = ((nanos % second) + second) % second
  let seconds = (nanos - fraction) / second
  let secondOfDay = ((seconds % 86_400) + 86_400) % 86_400
  // Howard Hinnant's civil_from_days; days stay within 1677–2262.
  let shifted = (seconds - secondOfDay) / 86_400 + 719_468
  let era = shifted / 146_097
  let dayOfEra = shifted - era * 146_097
  let yearOfEra =
    (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let shiftedMonth = (5 * dayOfYear + 2) / 153
  let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
  let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
  let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  var text =
    "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(padded(secondOfDay / 3_600, 2)):"
    + "\(padded(secondOfDay / 60 % 60, 2)):\(padded(secondOfDay % 60, 2))"
  if fraction > 0 {
    var digits = padded(fraction, 9)
    while digits.hasSuffix("0") { digits.removeLast() }
    text += ".\(digits)"
  }
  return text + "Z"
}

extension TypedCluster {
  /// The stage as rule text.
  public func text(columns: [String]) -> String {
    var text = "cluster \(columns[message])"
    if !keys.isEmpty { text += " by \(keys.map { columns[$0] }.joined(separator: ", "))" }
    if let similarity { text += " similarity \(similarity)" }
    if let depth { text += " depth \(depth)" }
    if let limit { text += " limit \(limit)" }
    if let siblings { text += " siblings \(siblings)" }
    if let mergesRuns { text += " merge_runs \(mergesRuns)" }
    if !delimiters.isEmpty { text += " delimiters \(Value.string(delimiters).ruleText)" }
    if !masks.isEmpty {
      text += " masks { \(masks.map { "\($0.name): \(Value.string($0.pattern).ruleText)" }.joined(separator: ", ")) }"
    }
    if !values.isEmpty { text += " values { \(values.map(\.text).joined(separator: ", ")) }" }
    return text
  }
}

extension TypedClusterValue {
  /// `client: ip`, `second: ip 2`, `third: 3`.
  public var text: String {
    guard let mask else { return "\(name): \(number)" }
    return number == 1 ? "\(name): \(mask)" : "\(name): \(mask) \(number)"
  }
}

extension TypedSlo {
  /// The stage as rule text.
  public func text(columns: [String]) -> String {
    var text = "slo\(keys.isEmpty ? "" : " by \(keys.map { columns[$0] }.joined(separator: ", "))")"
    text += " \(isBad ? "bad" : "good") \(measure.text(columns: columns))"
    if let total { text += " total \(total.text(columns: columns))" }
    text += " objective \(objectiveText) over \(period.text) every \(durationText(Double(stepNanos)))"
    return text + " burns over \(burnWindows.map { durationText(Double($0)) }.joined(separator: ", "))"
  }

  /// `99.9%`
  public var objectiveText: String { Value.ratio(objective).ruleText }
}

extension SloPeriod {
  /// `30d`, `month`.
  public var text: String {
    switch self {
    case .rolling(let nanos): durationText(Double(nanos))
    case .calendar(let calendar): calendar.rawValue
    }
  }
}

extension SloColumn {
  /// As rules call it: `budget_left`, `burn_1h`.
  public var name: String {
    switch self {
    case .good: "good"
    case .total: "total"
    case .errorRatio: "error_ratio"
    case .budgetLeft: "budget_left"
    case .exhaustsIn: "exhausts_in"
    case .since: "since"
    case .periodLeft: "period_left"
    case .burn(let nanos): "burn_\(durationText(Double(nanos)))"
    case .events(let nanos): "events_\(durationText(Double(nanos)))"
    }
  }
}
