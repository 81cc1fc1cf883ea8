/// A plan as people and tools look at it: what each node does in the words of the language, whose it is, what it keeps.
/// Made by `Plan.explanation`; printed as a tree (`text`), for Graphviz (`dot`) and for programs (`json`).
public struct Explanation: Sendable {
  public enum Kind: String, Sendable, CaseIterable {
    /// Decodes a source's records, checks requirements and time.
    case source
    /// Finds the filter that a row belongs to by one lookup of a column's value.
    case dispatch
    /// Keeps the rows that satisfy a condition.
    case filter
    /// Partial aggregates by key and pane; the exchange between workers.
    case panes
    /// Puts windows together from panes.
    case window
    /// Finds the pattern of each row's message, in the rows' order.
    case cluster
    /// Brings rows of two inputs together.
    case join
    /// Puts spans of a trace together.
    case trace
    /// Keeps an error budget, and how fast it burns.
    case slo
    /// Brings rows into their order, at the owners of their keys.
    case order
    /// Finds what is out of the ordinary in each series.
    case detector
    case metric
    case alert
    case pattern
    case anomaly
    /// Tells of alerts together.
    case group

    /// Whether it is the end of a rule rather than a step that rules may share.
    public var isRule: Bool { self == .metric || self == .alert || self == .pattern || self == .anomaly || self == .group }
  }

  /// Something to know of a node. The name is a member of the JSON, and a label in the text.
  public struct Fact: Sendable, Hashable {
    public enum Value: Sendable, Hashable {
      case text(String)
      case number(Int)
      case list([String])
    }
    public var name: String
    public var value: Value

    static func text(_ name: String, _ text: String) -> Fact { Fact(name: name, value: .text(text)) }
    static func number(_ name: String, _ number: Int) -> Fact { Fact(name: name, value: .number(number)) }
    static func list(_ name: String, _ items: [String]) -> Fact { Fact(name: name, value: .list(items)) }
  }

  public struct Node: Sendable, Hashable {
    /// Made of what the node does to what: it stays the same when other rules change.
    public var id: String
    public var kind: Kind
    public var title: String
    public var facts: [Fact]
    /// The node whose rows it takes; nil for a source.
    public var input: String?
    /// Further nodes whose rows it takes: the right side of a join.
    public var otherInputs: [String] = []
    /// Metrics and alerts that depend on it, sorted; of a metric or an alert itself none.
    public var rules: [String]
  }

  /// Inputs before those who take their rows, depth first.
  public internal(set) var nodes: [Node] = []
  public var ruleCount: Int { nodes.count { $0.kind.isRule } }
  public var sourceCount: Int { nodes.count { $0.kind == .source } }

  /// Steps that run: all that are not the end of a rule.
  public var operatorCount: Int { nodes.count { !$0.kind.isRule && $0.kind != .dispatch } }
  /// Steps that would run if every rule had its own.
  public var unsharedOperatorCount: Int {
    nodes.reduce(0) { $1.kind.isRule || $1.kind == .dispatch ? $0 : $0 + $1.rules.count }
  }
}
