/// Rows that go by one watermark: those of a source and of the windows over it, or those of an operator with several inputs
/// (a join) and of what stands behind it.
///
/// Each flow has its own levels of exchanges, its own watermark, its own order of records and its own place in commits, so
/// that a join waits for all of its inputs, and nobody else waits for the join.
public struct Flow: Sendable, Hashable {
  /// The same in every run: stored state and commits know the flow by it.
  public var name: String
  /// Sources whose rows come into it directly.
  public var sources: [Int]
  /// Flows whose rows come into it.
  public var inputs: [Input]

  /// Rows that leave a level of another flow.
  public struct Input: Sendable, Hashable {
    public var flow: Int
    public var level: Int
    public init(flow: Int, level: Int) {
      self.flow = flow
      self.level = level
    }
  }

  public init(name: String, sources: [Int], inputs: [Input] = []) {
    self.name = name
    self.sources = sources
    self.inputs = inputs
  }
}

extension Graph {
  /// By flow, how many levels of other flows stand before its first: barriers align level by level over all flows.
  var flowBases: [Int] {
    var bases: [Int] = []
    for flow in flows { bases.append(flow.inputs.map { bases[$0.flow] + $0.level + 1 }.max() ?? 0) }
    return bases
  }

  /// By flow, the sources whose rows come into it, directly or through others.
  var flowSources: [Set<Int>] {
    var behind: [Set<Int>] = []
    for flow in flows {
      behind.append(flow.inputs.reduce(into: Set(flow.sources)) { $0.formUnion(behind[$1.flow]) })
    }
    return behind
  }

  /// Sources that go on together after a restart: those whose rows meet somewhere.
  func joinedSources(of source: Int) -> Set<Int> {
    var joined: Set<Int> = [source]
    let behind = flowSources
    while true {
      let before = joined.count
      for sources in behind where !sources.isDisjoint(with: joined) { joined.formUnion(sources) }
      if joined.count == before { return joined }
    }
  }
}
