import Catalog
import Operators
import RuleLang
import Runtime

/// What becomes of rules, sources and state when one rule set takes the place of another: what `rulesd plan` says before
/// a deploy, and what a reload does.
///
/// State goes by operator ids. An operator with the same id before and after goes on with its panes; within it,
///
/// - aggregates go by `PaneAggregation.State.id`. A window (one size and hop) begins again with the first whole window
///   after the deploy for the rules that need an aggregate of it that was not kept before: windows are never emitted
///   half-filled. For all other rules it goes on;
/// - a window of another size or hop begins with its first whole window after the deploy;
/// - windows over the rows of windows that begin again are not emitted while those miss rows;
/// - all other windows go on, and none of theirs is missing.
///
/// An alert with the same id keeps its pending and firing label sets. Everything else starts empty.
///
/// State is *lost* when a rule that is in both sets no longer has what it had. That of a rule that was taken out is dropped,
/// and listed, but it was meant to be.
public struct RuleSetChange: Sendable {
  public enum RuleFate: String, Sendable { case added, changed, removed, unchanged }

  /// A metric or an alert.
  public struct Rule: Sendable {
    public var name: String
    /// `metric` or `alert`.
    public var kind: String
    public var fate: RuleFate
    /// What about it, or about what it depends on, has changed.
    public var differences: [String]
  }

  /// A source that rules read, before or after.
  public struct Source: Sendable {
    public var name: String
    public var fate: RuleFate
    /// What has changed, each with what that does.
    public var differences: [String]
  }

  public enum OperatorFate: String, Sendable, CaseIterable {
    /// All that rules had in it goes on.
    case kept
    /// Some of its windows begin again.
    case partlyKept = "partly_kept"
    /// It is another operator now, and starts empty, in the place of one that rules had.
    case rebuilt
    /// Nobody had it.
    case new
    /// Nobody needs it any more.
    case dropped
  }

  /// How a window goes on.
  public enum WindowStart: Sendable, Hashable {
    /// As if nothing had happened.
    case goesOn
    /// With the first whole window after the deploy: there was none of this size and hop.
    case newWindow
    /// With the first whole window after the deploy: these aggregates (`PaneAggregation.State.id`) were not kept.
    case newAggregates([String])
    /// When the windows whose rows it reads have begun again, with the first that lacks none of them.
    case windowsBelow
  }

  /// Windows of one size and hop of an operator, after the change.
  public struct Window: Sendable {
    public var sizeNanos: Int64
    public var hopNanos: Int64
    public var start: WindowStart
    /// How long nothing may be heard of it at most: event time from the latest row that was read before the deploy to the
    /// end of the first window that comes. 0 for one that goes on.
    public var gapNanos: Int64
    /// Rules that read it, sorted.
    public var rules: [String]
    /// The aggregates of `start`, as a rule would spell them.
    var missing: [String] = []
    /// Operators whose windows take its rows.
    var above: Set<String> = []
    var spec: WindowSpec { WindowSpec(sizeNanos: sizeNanos, hopNanos: hopNanos) }
    public var text: String { spec.ruleText }

    init(
      _ window: RuleSetParts.Window, start: WindowStart, gapNanos: Int64, missing: [String] = []
    ) {
      above = Set(window.above.keys)
      sizeNanos = window.spec.sizeNanos
      hopNanos = window.spec.hopNanos
      self.start = start
      self.gapNanos = gapNanos
      rules = window.rules.sorted(by: utf8Precedes)
      self.missing = missing
    }
  }

  /// What keeps state: windows over one list of keys, or an alert.
  public struct Operator: Sendable {
    /// After the change; of one that is dropped, before.
    public var id: String
    /// `window` or `alert`.
    public var kind: String
    public var title: String
    public var fate: OperatorFate
    /// Of a rebuilt one: the id of what rules had in its place.
    public var replaces: String?
    /// Why it is not the same any more.
    public var reasons: [String]
    /// Empty for an alert, and for what is dropped.
    public var windows: [Window]
    /// Metrics and alerts that use it, sorted.
    public var rules: [String]
    /// Rules of both sets that lose something here, sorted.
    public var losers: [String]
  }

  /// By name, in the order added, changed, removed, unchanged.
  public var rules: [Rule] = []
  public var sources: [Source] = []
  /// In the order of their fates, then by id.
  public var operators: [Operator] = []

  /// Whether a rule that is in both sets loses state that it had.
  public var losesState: Bool { operators.contains { !$0.losers.isEmpty } }

  public init(from old: TypedProgram, to new: TypedProgram) {
    self.init(from: RuleSetParts(buildPlan(old)), to: RuleSetParts(buildPlan(new)))
  }

  init(from old: RuleSetParts, to new: RuleSetParts) {
    rules = Self.rules(old, new)
    sources = Self.sources(old, new)
    operators = Self.operators(old, new)
  }

  public func rules(_ fate: RuleFate) -> [Rule] { rules.filter { $0.fate == fate } }
}

// MARK: Rules and sources

extension RuleSetChange {
  private static func rules(_ old: RuleSetParts, _ new: RuleSetParts) -> [Rule] {
    var rules: [Rule] = []
    for rule in new.rules {
      guard let before = old.rule[rule.name], before.kind == rule.kind else {
        rules.append(Rule(name: rule.name, kind: rule.kind, fate: .added, differences: []))
        continue
      }
      let differences = Self.differences(before, rule)
      rules.append(
        Rule(
          name: rule.name, kind: rule.kind, fate: differences.isEmpty ? .unchanged : .changed,
          differences: differences))
    }
    for rule in old.rules where new.rule[rule.name]?.kind != rule.kind {
      rules.append(Rule(name: rule.name, kind: rule.kind, fate: .removed, differences: []))
    }
    let order: [RuleFate] = [.added, .changed, .removed, .unchanged]
    return order.flatMap { fate in
      rules.filter { $0.fate == fate }.sorted { utf8Precedes($0.name, $1.name) }
    }
  }

  private static func differences(_ old: RuleSetParts.Rule, _ new: RuleSetParts.Rule) -> [String] {
    let names = Facet.namesOfDifferences(old.sourceFacets, new.sourceFacets)
    var source: [String] = []
    if old.source != new.source { source = ["source: \(old.source) → \(new.source)"] }
    // In full it stands with the source.
    else if !names.isEmpty { source = ["source \(new.source): \(names.joined(separator: ", "))"] }
    var own = Facet.differences(old.facets, new.facets)
    // That says nothing where the source does.
    if !source.isEmpty { own.removeAll { $0.hasSuffix("is made of") } }
    if own.contains(where: { $0.hasPrefix("condition: ") }) { own.removeAll { $0.hasPrefix("text of the condition: ") } }
    return own + source
  }

  private static func sources(_ old: RuleSetParts, _ new: RuleSetParts) -> [Source] {
    var sources: [Source] = []
    for source in new.sources {
      guard let before = old.sources.first(where: { $0.name == source.name }) else {
        sources.append(Source(name: source.name, fate: .added, differences: []))
        continue
      }
      let known = Dictionary(before.effects.map { ($0.facet.name, $0.facet) }) { first, _ in first }
      var lines: [String] = []
      for (facet, effect) in source.effects {
        if let line = Facet.differences(known[facet.name].map { [$0] } ?? [], [facet]).first {
          // A field that was not there can have been read by nobody.
          lines.append(known[facet.name] == nil ? line : "\(line) (\(effect))")
        }
      }
      let left = Set(source.effects.map(\.facet.name))
      lines += before.effects.filter { !left.contains($0.facet.name) }.flatMap { Facet.differences([$0.facet], []) }
      sources.append(
        Source(name: source.name, fate: lines.isEmpty ? .unchanged : .changed, differences: lines))
    }
    for source in old.sources where !new.sources.contains(where: { $0.name == source.name }) {
      sources.append(Source(name: source.name, fate: .removed, differences: []))
    }
    return sources.sorted { utf8Precedes($0.name, $1.name) }
  }
}

// MARK: Operators

extension RuleSetChange {
  private static func operators(_ old: RuleSetParts, _ new: RuleSetParts) -> [Operator] {
    var operators: [Operator] = []
    var replaced: Set<String> = []
    /// Rules of both sets.
    func survivors(_ rules: Set<String>) -> Set<String> {
      rules.filter { old.rule[$0] != nil && old.rule[$0]?.kind == new.rule[$0]?.kind }
    }
    /// Windows of the new operators, by operator: those below come first.
    var windows: [String: [Window]] = [:]
    for part in new.operators {
      let below = part.below.flatMap { windows[$0] }?.first { $0.spec == part.belowSpec && $0.above.contains(part.id) }
      let rules = part.rules.sorted(by: utf8Precedes)
      if let before = old.operatorWith[part.id] {
        var entry = Operator(
          id: part.id, kind: part.kind, title: part.title, fate: .kept, reasons: [], windows: [], rules: rules,
          losers: [])
        compareWindows(of: part, with: before, below, survivors(part.rules.intersection(before.rules)), &entry)
        windows[part.id] = entry.windows
        operators.append(entry)
        continue
      }
      windows[part.id] = part.windows.map { window in
        let gap = window.spec.sizeNanos + window.spec.hopNanos + part.lookbackNanos()
          + max(part.upstreamNanos, below?.gapNanos ?? 0)
        return Window(window, start: .newWindow, gapNanos: gap)
      }
      // What those of its rules that were there before had in its place, and no longer use.
      let left = survivors(part.rules)
      let candidates = old.operators.filter { before in
        let still = new.operatorWith[before.id]?.rules ?? []
        return before.kind == part.kind && !before.rules.intersection(left).subtracting(still).isEmpty
      }
      func likeness(_ before: RuleSetParts.Operator) -> Int {
        before.rules.intersection(left).count + (before.level == part.level ? 1_000_000 : 0)
      }
      let before = candidates.max { a, b in
        (likeness(a), b.id) < (likeness(b), a.id)
      }
      var losers: Set<String> = []
      if let before {
        replaced.insert(before.id)
        losers = before.rules.intersection(left)
      }
      operators.append(
        Operator(
          id: part.id, kind: part.kind, title: part.title, fate: before == nil ? .new : .rebuilt,
          replaces: before?.id, reasons: before.map { reasons($0, part, old, new) } ?? [],
          windows: windows[part.id] ?? [],
          rules: rules, losers: losers.sorted(by: utf8Precedes)))
    }
    for part in old.operators where new.operatorWith[part.id] == nil && !replaced.contains(part.id) {
      let left = survivors(part.rules)
      operators.append(
        Operator(
          id: part.id, kind: part.kind, title: part.title, fate: .dropped,
          reasons: left.isEmpty
            ? ["the rules that had it are gone"]
            : ["\(left.sorted(by: utf8Precedes).joined(separator: ", ")) no longer needs it"],
          windows: [], rules: part.rules.sorted(by: utf8Precedes), losers: left.sorted(by: utf8Precedes)))
    }
    return OperatorFate.allCases.flatMap { fate in
      operators.filter { $0.fate == fate }.sorted { utf8Precedes($0.id, $1.id) }
    }
  }

  private static func compareWindows(
    of part: RuleSetParts.Operator, with before: RuleSetParts.Operator, _ below: Window?, _ survivors: Set<String>,
    _ entry: inout Operator
  ) {
    let known = Set(before.states.map(\.id))
    let lookback = before.lookbackNanos()
    var losers: Set<String> = []
    for window in part.windows.flatMap({ $0.divided(known: known) }) {
      let missing = part.states.filter { window.states.contains($0.id) && !known.contains($0.id) }
      let start: WindowStart
      let had = before.windows.first { $0.spec == window.spec }
      let isBelow = below.map { $0.start != .goesOn } ?? false
      let needed = part.lookbackNanos(of: window.states)
      // What an aggregate looks back at must be there as well.
      var gap = window.spec.sizeNanos + window.spec.hopNanos
      if had == nil {
        start = .newWindow
        if needed > lookback { gap += needed }
        gap += part.mixedPaneNanos(before, cutBy: window.spec)
      } else if !missing.isEmpty {
        start = .newAggregates(missing.map(\.id))
        gap += part.lookbackNanos(of: Set(missing.map(\.id)))
      } else {
        start = isBelow ? .windowsBelow : .goesOn
      }
      if isBelow { gap += (below?.gapNanos ?? 0) + needed }
      if start != .goesOn { losers.formUnion(window.rules.intersection(survivors)) }
      entry.windows.append(
        Window(
          window, start: start, gapNanos: start == .goesOn ? 0 : gap, missing: missing.map(\.text)))
    }
    // A rule may have had these windows and another operator take their place: that is told there.
    entry.losers = losers.sorted(by: utf8Precedes)
    if !losers.isEmpty { entry.fate = .partlyKept }
  }

  /// Why one is not the other.
  private static func reasons(
    _ before: RuleSetParts.Operator, _ after: RuleSetParts.Operator, _ old: RuleSetParts, _ new: RuleSetParts
  ) -> [String] {
    var reasons = Facet.differences(before.facets, after.facets)
    if let below = after.below, before.below != nil, below != before.below {
      let name = old.operatorWith[below] == nil ? "that are rebuilt" : "of another operator"
      // What has changed about those is told there.
      reasons.insert("it reads windows \(name) (\(below))", at: 0)
      return reasons
    }
    reasons += Facet.differences(before.deepFacets, after.deepFacets)
    if before.source != after.source {
      reasons.append("source: \(before.source) → \(after.source)")
    } else {
      let names = Set(Facet.namesOfDifferences(before.sourceFacets, after.sourceFacets))
      if !names.isEmpty { reasons.removeAll { $0.hasSuffix("is made of") } }
      reasons += Facet.differences(
        before.sourceFacets.filter { names.contains($0.name) }, after.sourceFacets.filter { names.contains($0.name) })
    }
    if !reasons.isEmpty { return reasons }
    return before.family != after.family
      ? ["windows of such a length share no panes with those it had"] : ["its rows are made of other columns"]
  }
}
