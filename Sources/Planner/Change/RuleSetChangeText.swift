import Catalog
import RuleLang
import Runtime

extension RuleSetChange {
  /// For a person, before a deploy: what changes, what goes on, and what is lost and why.
  public var text: String {
    var text = "\(countsText)\n"
    addRules(to: &text)
    addSources(to: &text)
    addOperators(to: &text)
    let losers = Set(operators.flatMap(\.losers)).sorted(by: utf8Precedes)
    text +=
      losers.isEmpty
      ? "\nno state is lost\n"
      : "\nstate is lost of \(counted(losers.count, "rule")): \(Self.list(losers, max: 12))\n"
    return text
  }

  /// `2 rules added, 1 changed, …`
  public var countsText: String {
    let fates: [RuleFate] = [.added, .changed, .removed, .unchanged]
    return "rules: " + fates.map { fate in "\(rules(fate).count) \(fate.rawValue)" }.joined(separator: ", ")
  }

  private func addRules(to text: inout String) {
    for rule in rules where rule.fate != .unchanged {
      text += "  \(Self.mark(rule.fate)) \(rule.kind) \(rule.name)\n"
      for line in rule.differences { text += "      \(line)\n" }
    }
  }

  private func addSources(to text: inout String) {
    let changed = sources.filter { $0.fate != .unchanged }
    if changed.isEmpty { return }
    text += "\nsources: \(changed.count) of \(sources.count) not as before\n"
    for source in changed {
      text += "  \(Self.mark(source.fate)) source \(source.name)\n"
      for line in source.differences { text += "      \(line)\n" }
    }
  }

  private func addOperators(to text: inout String) {
    let counts = OperatorFate.allCases.map { fate in
      "\(operators.count { $0.fate == fate }) \(Self.words(fate))"
    }
    text += "\nstate: \(counts.joined(separator: ", "))\n"
    for part in operators {
      // What goes on whole needs no line of its own but for what is new in it.
      let lines = part.lines
      if part.fate == .kept && lines.isEmpty { continue }
      text += "  \(Self.words(part.fate)): \(part.title)  [\(part.id)]\n"
      for line in lines { text += "      \(line)\n" }
    }
  }

  private static func mark(_ fate: RuleFate) -> String {
    switch fate {
    case .added: "+"
    case .changed: "~"
    case .removed: "-"
    case .unchanged: " "
    }
  }

  static func words(_ fate: OperatorFate) -> String {
    switch fate {
    case .kept: "kept"
    case .partlyKept: "partly kept"
    case .rebuilt: "rebuilt"
    case .new: "new"
    case .dropped: "dropped"
    }
  }

  /// `a, b and 5 more`.
  static func list(_ names: [String], max: Int = 4) -> String {
    // Leaving out one alone would save nothing.
    if names.count <= max + 1 { return names.joined(separator: ", ") }
    return "\(names.prefix(max).joined(separator: ", ")) and \(names.count - max) more"
  }

  private func counted(_ count: Int, _ noun: String) -> String { "\(count) \(noun)\(count == 1 ? "" : "s")" }
}

extension RuleSetChange.Operator {
  /// What happens to it, a line each; empty when it goes on whole.
  var lines: [String] {
    switch fate {
    case .kept, .partlyKept: windows.flatMap(lines)
    case .rebuilt:
      ["why: \(reasons.joined(separator: "; "))", "lost: \(lossText)"] + windows.map { firstResult($0) }
    case .new:
      windows.map { firstResult($0) } + ["for \(RuleSetChange.list(rules))"]
    case .dropped:
      losers.isEmpty
        ? ["why: \(reasons.joined(separator: "; "))"]
        : ["why: \(reasons.joined(separator: "; "))", "lost: \(lossText)"]
    }
  }

  private var lossText: String {
    let of = RuleSetChange.list(losers)
    if kind == "group" { return "what was told of the groups of \(of): those that fire are told of again" }
    if kind == "slo" { return "what \(of) counted: burn rates and the error budget begin anew" }
    if kind == "cluster" { return "what was learnt for \(of): patterns are new once more, under the same ids" }
    return kind == "alert"
      ? "pending and firing alerts of \(of) start anew; those that fire are not resolved, they fire again or stay silent"
      : "the open windows of \(of)"
  }

  private func lines(_ window: RuleSetChange.Window) -> [String] {
    let readers = RuleSetChange.list(window.rules)
    switch window.start {
    case .goesOn: return []
    case .newWindow:
      return ["windows \(window.text) are new here: \(Self.startText(window)); for \(readers)"]
    case .newAggregates:
      return [
        "windows \(window.text) begin again: nothing kept \(window.missing.joined(separator: ", ")) before",
        "  \(Self.startText(window)); for \(readers)",
      ]
    case .windowsBelow:
      return [
        "windows \(window.text) begin again when those whose rows they read have",
        "  up to \(Value.duration(Double(window.gapNanos)).ruleText) without results; for \(readers)",
      ]
    }
  }

  private func firstResult(_ window: RuleSetChange.Window) -> String {
    "windows \(window.text) \(Self.startText(window))"
  }

  /// When it is heard of again.
  private static func startText(_ window: RuleSetChange.Window) -> String {
    let gap = Value.duration(Double(window.gapNanos)).ruleText
    return "start with the first whole one after the deploy, up to \(gap) without results"
  }
}

// MARK: JSON

extension RuleSetChange {
  /// One JSON object: `version`, `loses_state`, `rules`, `sources` and `operators`. Members are only ever added;
  /// docs/operations.md names them.
  public var json: String {
    var out: [UInt8] = []
    out.append(json: "{\"version\":1,\"loses_state\":")
    out.append(json: losesState ? "true" : "false")
    out.append(json: ",\"rules\":[")
    for (index, rule) in rules.enumerated() {
      out.append(json: index == 0 ? "\n  {" : ",\n  {")
      Self.member("name", rule.name, to: &out, isFirst: true)
      Self.member("kind", rule.kind, to: &out)
      Self.member("change", rule.fate.rawValue, to: &out)
      Self.member("differences", rule.differences, to: &out)
      out.append(json: "}")
    }
    out.append(json: "],\n\"sources\":[")
    for (index, source) in sources.enumerated() {
      out.append(json: index == 0 ? "\n  {" : ",\n  {")
      Self.member("name", source.name, to: &out, isFirst: true)
      Self.member("change", source.fate.rawValue, to: &out)
      Self.member("differences", source.differences, to: &out)
      out.append(json: "}")
    }
    out.append(json: "],\n\"operators\":[")
    for (index, part) in operators.enumerated() {
      out.append(json: index == 0 ? "\n  {" : ",\n  {")
      Self.append(part, to: &out)
      out.append(json: "}")
    }
    out.append(json: "]}")
    return String(decoding: out, as: UTF8.self)
  }

  private static func append(_ part: Operator, to out: inout [UInt8]) {
    member("id", part.id, to: &out, isFirst: true)
    member("kind", part.kind, to: &out)
    member("title", part.title, to: &out)
    member("state", part.fate.rawValue, to: &out)
    if let replaces = part.replaces { member("replaces", replaces, to: &out) }
    member("reasons", part.reasons, to: &out)
    member("rules", part.rules, to: &out)
    member("lost_by", part.losers, to: &out)
    out.append(json: ",\"windows\":[")
    for (index, window) in part.windows.enumerated() {
      out.append(json: index == 0 ? "{" : ",{")
      member("window", window.text, to: &out, isFirst: true)
      switch window.start {
      case .goesOn: member("start", "goes_on", to: &out)
      case .newWindow: member("start", "new_window", to: &out)
      case .newAggregates(let ids):
        member("start", "new_aggregates", to: &out)
        member("aggregates", ids, to: &out)
      case .windowsBelow: member("start", "windows_below", to: &out)
      }
      out.append(json: ",\"gap_seconds\":")
      out.append(json: Double(window.gapNanos) / 1e9)
      member("rules", window.rules, to: &out)
      out.append(json: "}")
    }
    out.append(json: "]")
  }

  private static func member(_ name: StaticString, _ text: String, to out: inout [UInt8], isFirst: Bool = false) {
    out.append(json: isFirst ? "\"" : ",\"")
    out.append(json: name)
    out.append(json: "\":")
    out.append(jsonString: text)
  }

  private static func member(_ name: StaticString, _ items: [String], to out: inout [UInt8]) {
    out.append(json: ",\"")
    out.append(json: name)
    out.append(json: "\":[")
    for (index, item) in items.enumerated() {
      if index > 0 { out.append(UInt8(ascii: ",")) }
      out.append(jsonString: item)
    }
    out.append(UInt8(ascii: "]"))
  }
}
