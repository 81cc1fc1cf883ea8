import Runtime

extension Explanation {
  /// One JSON object: `version`, counts, and `nodes`, each with `id`, `kind`, `title`, `input`, `rules` and its facts as
  /// members. Members are only ever added; docs/explain.md names them.
  public var json: String {
    var bytes: [UInt8] = []
    bytes.append(json: "{\"version\":1,\"rules\":")
    bytes.append(json: Int64(ruleCount))
    bytes.append(json: ",\"operators\":")
    bytes.append(json: Int64(operatorCount))
    bytes.append(json: ",\"operators_unshared\":")
    bytes.append(json: Int64(unsharedOperatorCount))
    bytes.append(json: ",\"nodes\":[")
    for (index, node) in nodes.enumerated() {
      bytes.append(contentsOf: (index == 0 ? "\n  " : ",\n  ").utf8)
      Self.append(node, to: &bytes)
    }
    bytes.append(json: "\n]}")
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func append(_ node: Node, to bytes: inout [UInt8]) {
    bytes.append(json: "{\"id\":")
    bytes.append(jsonString: node.id)
    bytes.append(json: ",\"kind\":")
    bytes.append(jsonString: node.kind.rawValue)
    bytes.append(json: ",\"title\":")
    bytes.append(jsonString: node.title)
    bytes.append(json: ",\"input\":")
    if let input = node.input { bytes.append(jsonString: input) } else { bytes.append(json: "null") }
    if !node.otherInputs.isEmpty {
      bytes.append(json: ",\"other_inputs\":")
      append(node.otherInputs, to: &bytes)
    }
    for fact in node.facts {
      bytes.append(UInt8(ascii: ","))
      bytes.append(jsonString: fact.name)
      bytes.append(UInt8(ascii: ":"))
      switch fact.value {
      case .text(let text): bytes.append(jsonString: text)
      case .number(let number): bytes.append(json: Int64(number))
      case .list(let items): append(items, to: &bytes)
      }
    }
    bytes.append(json: ",\"rules\":")
    append(node.rules, to: &bytes)
    bytes.append(UInt8(ascii: "}"))
  }

  private static func append(_ items: [String], to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "["))
    for (index, item) in items.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: item)
    }
    bytes.append(UInt8(ascii: "]"))
  }

  /// A graph for Graphviz, from left to right; how many rules share a step stands in its box.
  public var dot: String {
    var text = """
      digraph rules {
        rankdir=LR
        node [fontname="Helvetica", fontsize=10, shape=box]
        edge [color="#777777"]

      """
    for node in nodes {
      var lines = ["\(node.kind.rawValue) \(node.title)"]
      for fact in node.facts {
        // The box of an operator shows what it computes; the rest is in the text.
        if case .list(let items) = fact.value, ["keeps", "gives", "decodes"].contains(fact.name) {
          lines += items.prefix(4)
          if items.count > 4 { lines.append("… and \(items.count - 4) more") }
        }
      }
      if node.rules.count > 1 { lines.append("shared by \(node.rules.count) rules") }
      let label = lines.map { Self.dotEscaped($0) }.joined(separator: "\\l") + "\\l"
      text += "  \"\(Self.dotEscaped(node.id))\" [label=\"\(label)\"\(Self.style(node.kind))]\n"
      for input in (node.input.map { [$0] } ?? []) + node.otherInputs {
        text += "  \"\(Self.dotEscaped(input))\" -> \"\(Self.dotEscaped(node.id))\"\n"
      }
    }
    return text + "}"
  }

  private static func style(_ kind: Kind) -> String {
    switch kind {
    case .source: ", shape=cylinder, style=filled, fillcolor=\"#dbe9f6\""
    case .dispatch: ", shape=diamond"
    case .filter: ""
    case .panes: ", style=filled, fillcolor=\"#fdf2cf\""
    case .window: ", style=filled, fillcolor=\"#e4f2dc\""
    case .join: ", style=filled, fillcolor=\"#d8eee9\""
    case .trace: ", style=filled, fillcolor=\"#d8e4ee\""
    case .cluster: ", style=filled, fillcolor=\"#eadcf4\""
    case .slo: ", style=filled, fillcolor=\"#f7e3cf\""
    case .order: ""
    case .detector: ", style=filled, fillcolor=\"#fbe3cf\""
    case .metric, .pattern: ", shape=ellipse"
    case .anomaly: ", shape=octagon"
    case .alert, .group: ", shape=octagon, style=filled, fillcolor=\"#f9dcd9\""
    }
  }

  /// Inside of a quoted string: a backslash would begin one of Graphviz's own escapes.
  private static func dotEscaped(_ text: String) -> String {
    var escaped = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": escaped += "\\\""
      case "\\": escaped += "\\\\"
      case "\n": escaped += "\\n"
      default: escaped.unicodeScalars.append(scalar)
      }
    }
    return escaped
  }
}
