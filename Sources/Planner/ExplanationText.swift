extension Explanation {
  /// How much of long lists the text shows.
  public struct Limits: Sendable {
    /// Rules, fields, aggregates or expressions of one list.
    public var items: Int
    /// Nodes of one kind behind one node.
    public var children: Int

    public init(items: Int, children: Int) {
      self.items = items
      self.children = children
    }

    public static let none = Limits(items: .max, children: .max)
  }

  /// What a person can take in: everything of a small plan, less of a large one.
  public var readableLimits: Limits {
    nodes.count <= 120 ? Limits(items: 12, children: .max) : Limits(items: 6, children: 2)
  }

  /// The plan as a tree, a node a line and beneath it what is to be known of it.
  public func text(_ limits: Limits) -> String {
    var printer = TreePrinter(self, limits)
    return printer.print()
  }
}

private struct TreePrinter {
  /// Where a list that does not fit goes on a line for each item.
  private static let columnsMax = 110
  private let explanation: Explanation
  private let limits: Explanation.Limits
  private var children: [String: [Explanation.Node]] = [:]
  private var text = ""

  init(_ explanation: Explanation, _ limits: Explanation.Limits) {
    self.explanation = explanation
    self.limits = limits
    for node in explanation.nodes {
      if let input = node.input { children[input, default: []].append(node) }
    }
  }

  mutating func print() -> String {
    let counts = explanation
    text =
      "\(count(counts.ruleCount, "rule")) over \(count(counts.sourceCount, "source")): "
      + "\(count(counts.operatorCount, "operator")), \(counts.unsharedOperatorCount) if nothing were shared\n"
    for node in counts.nodes where node.input == nil {
      text += "\n"
      add(node, under: nil, head: "", body: "")
    }
    return text
  }

  /// `head` stands before the node's own line, `body` before those beneath it.
  private mutating func add(
    _ node: Explanation.Node, under input: Explanation.Node?, head: String, body: String
  ) {
    let children = children[node.id] ?? []
    text += "\(head)\(label(node))  [\(node.id)]\n"
    let inner = body + (children.isEmpty ? "   " : "│  ")
    // A step that is its input's only one serves the same rules; they have just been named.
    if !node.kind.isRule, node.rules != input?.rules { addRules(node.rules, inner) }
    addFacts(node.facts.filter { isShown($0, of: node) }, inner)
    for other in node.otherInputs { text += "\(inner)also reads [\(other)]\n" }
    var left: [Explanation.Kind: Int] = [:]
    for child in children { left[child.kind, default: 0] += 1 }
    var shown: [Explanation.Node] = []
    for kind in Explanation.Kind.allCases {
      guard let count = left[kind] else { continue }
      // Leaving out one alone would save nothing.
      let take = count > limits.children && count - limits.children > 1 ? limits.children : count
      shown += children.filter { $0.kind == kind }.prefix(take)
      left[kind] = count - take
    }
    left = left.filter { $0.value > 0 }
    for (index, child) in shown.enumerated() {
      let isLast = index == shown.count - 1 && left.isEmpty
      add(
        child, under: node, head: body + (isLast ? "└─ " : "├─ "), body: body + (isLast ? "   " : "│  "))
    }
    if !left.isEmpty {
      let kinds = Explanation.Kind.allCases.compactMap { kind in
        left[kind].map { "\($0) more \(plural(kind))" }
      }
      text += "\(body)└─ … and \(kinds.joined(separator: ", "))\n"
    }
  }

  private func label(_ node: Explanation.Node) -> String {
    switch node.kind {
    case .filter: node.title
    case .dispatch:
      "dispatch by \(node.title): one lookup a row for \(children[node.id]?.count ?? 0) filters"
    case .metric: "metric \(node.title)\(labels(node))"
    case .detector: node.title
    case .source, .panes, .window, .alert, .cluster, .slo, .pattern, .order, .anomaly, .join, .trace, .group:
      "\(node.kind.rawValue) \(node.title)"
    }
  }

  private func labels(_ metric: Explanation.Node) -> String {
    for fact in metric.facts where fact.name == "labels" {
      if case .list(let names) = fact.value { return " by \(names.joined(separator: ", "))" }
    }
    return ""
  }

  private mutating func addRules(_ rules: [String], _ body: String) {
    let shown = rules.prefix(limits.items)
    var line = body + (rules.count > 1 ? "shared by \(rules.count) rules:" : "for")
    let left = rules.count - shown.count
    for (index, rule) in shown.enumerated() {
      let isLast = index == shown.count - 1
      let word = isLast ? (left > 0 ? "\(rule) and \(left) more" : rule) : "\(rule),"
      if line.count + 1 + word.count > Self.columnsMax {
        text += "\(line)\n"
        line = "\(body)  "
      }
      line += " \(word)"
    }
    text += "\(line)\n"
  }

  private func plural(_ kind: Explanation.Kind) -> String {
    switch kind {
    case .dispatch: "dispatches"
    case .panes: "panes"
    case .anomaly: "anomalies"
    case .order: "exchanges of rows"
    case .source, .filter, .window, .metric, .alert, .cluster, .slo, .pattern, .detector, .join, .trace, .group: "\(kind.rawValue)s"
    }
  }

  /// The title has said it.
  private func isShown(_ fact: Explanation.Fact, of node: Explanation.Node) -> Bool {
    switch node.kind {
    case .panes: fact.name != "keys" && fact.name != "pane"
    case .alert: fact.name != "values" && fact.value != .text("0s")
    case .metric, .dispatch: false
    case .source, .filter, .window, .cluster, .slo, .pattern, .order, .detector, .anomaly, .join, .trace, .group: true
    }
  }

  private mutating func addFacts(_ facts: [Explanation.Fact], _ body: String) {
    var short: [String] = []
    for fact in facts {
      let name = fact.name.replacing("_", with: " ")
      switch fact.value {
      case .text(let value) where fact.name == "state":
        flush(&short, body)
        text += "\(body)state: \(value)\n"
      case .text(let value): short.append("\(name) \(value)")
      case .number(let value): short.append("\(name) \(value)")
      case .list(let items):
        flush(&short, body)
        line("\(name): ", items, body)
      }
    }
    flush(&short, body)
  }

  private mutating func flush(_ short: inout [String], _ body: String) {
    if !short.isEmpty { text += "\(body)\(short.joined(separator: ", "))\n" }
    short = []
  }

  /// A list on one line where it fits, else a line for each item.
  private mutating func line(_ name: String, _ items: [String], _ body: String) {
    guard !items.isEmpty else { return }
    let isCut = items.count > limits.items
    var shown = Array(items.prefix(limits.items))
    let more = isCut ? "and \(items.count - limits.items) more" : ""
    let joined = shown.joined(separator: ", ") + (isCut ? " \(more)" : "")
    if isCut { shown.append("… \(more)") }
    if body.count + name.count + joined.count <= Self.columnsMax {
      text += "\(body)\(name)\(joined)\n"
    } else {
      text += "\(body)\(name.hasSuffix(" ") ? String(name.dropLast()) : name)\n"
      for item in shown { text += "\(body)  \(item)\n" }
    }
  }

  private func count(_ count: Int, _ noun: String) -> String { "\(count) \(noun)\(count == 1 ? "" : "s")" }
}
