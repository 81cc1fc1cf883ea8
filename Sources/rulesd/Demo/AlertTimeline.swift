import Runtime

/// Tells alerts as a person on call would want them told: when, what, on which evidence, and for how long.
struct AlertTimeline {
  private let useColor: Bool
  /// When each alert that fires began to, by rule and labels.
  private var firingSince: [String: Int64] = [:]
  private(set) var firedCount = 0
  private(set) var resolvedCount = 0

  init(useColor: Bool) {
    self.useColor = useColor
  }

  /// How many alerts have fired and not resolved yet.
  var openCount: Int { firingSince.count }

  /// The lines for a record; nil for one that is no alert.
  mutating func lines(for record: JSONValue) -> String? {
    guard record["type"] == .string("alert"), let rule = record["rule"]?.text,
      let state = record["state"]?.text, let time = record["time"]?.text
    else { return nil }
    let labels = Self.pairs(record["labels"])
    let severity = record["severity"]?.text ?? ""
    let clock = String(time.dropFirst(11).prefix(8))
    let nanos = timestampNanos(time) ?? 0
    let identity = "\(rule) \(labels)"
    let title = "\(rule)  \(labels)"
    switch state {
    case "firing":
      let isKnown = firingSince[identity] != nil
      if isKnown {
        // Said again, or worse by now: it is the same alert.
        let what = record["escalated_from"] == nil ? "again   " : "WORSE   "
        return "\(clock)  \(colored(what, "31"))  \(padded(severity, 8))  \(title)"
      }
      firedCount += 1
      firingSince[identity] = nanos
      var text = "\(clock)  \(colored("FIRING  ", "31;1"))  \(padded(severity, 8))  \(title)\n"
      if let summary = record["annotations"]?["summary"]?.text { text += "\(indent)\(summary)\n" }
      text += "\(indent)\(colored("evidence: \(Self.pairs(record["values"]))", "2"))"
      if let runbook = record["annotations"]?["runbook"]?.text {
        text += "\n\(indent)\(colored("runbook: \(runbook)", "2"))"
      }
      return text
    case "resolved":
      resolvedCount += 1
      let since = firingSince.removeValue(forKey: identity)
      let lasted = since.map { "  after \(minutes(nanos - $0))" } ?? ""
      return "\(clock)  \(colored("resolved", "32"))  \(padded(severity, 8))  \(title)\(lasted)"
    case "suppressed":
      let by = record["silenced_by"]?.text ?? record["inhibited_by"]?.text ?? ""
      return "\(clock)  \(colored("silent  ", "2"))  \(padded(severity, 8))  \(title)  because of \(by)"
    default:
      return "\(clock)  \(colored("pending ", "33"))  \(padded(severity, 8))  \(title)"
    }
  }

  private let indent = String(repeating: " ", count: 30)

  private static func pairs(_ object: JSONValue?) -> String {
    (object?.members ?? []).map { "\($0.name)=\(shown($0.value))" }.joined(separator: " ")
  }

  /// Numbers with six digits, which is what a glance takes in.
  private static func shown(_ value: JSONValue) -> String {
    switch value {
    case .string(let text): return text
    case .number(let number):
      if number == number.rounded(), abs(number) < 1e15 { return "\(Int(number))" }
      // Six significant digits, without a formatter.
      var scale = 1.0
      while abs(number) * scale < 100_000, scale < 1e12 { scale *= 10 }
      return "\((number * scale).rounded() / scale)"
    case .null: return "null"
    case .bool(let flag): return "\(flag)"
    case .array, .object: return "…"
    }
  }

  private func minutes(_ nanos: Int64) -> String {
    let seconds = max(nanos, 0) / 1_000_000_000
    return seconds % 60 == 0 ? "\(seconds / 60) min" : "\(seconds / 60) min \(seconds % 60) s"
  }

  private func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  private func colored(_ text: String, _ code: String) -> String {
    useColor ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
  }
}
