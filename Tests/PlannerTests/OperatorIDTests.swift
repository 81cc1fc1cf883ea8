import Catalog
import Operators
import Planner
import Runtime
import Testing

/// What ids promise, over random rule sets.
@Suite struct OperatorIDTests {
  private func lowered(_ rules: [RandomRule]) throws -> Graph {
    buildPlan(try program(RandomRows.source + rules.map(\.text).joined())).lower()
  }

  /// Ids of a graph's exchanges and alerts, taken from where tasks find them, and what the aggregates are called.
  private func ids(_ graph: Graph) -> (operators: [String], states: [String: Set<String>]) {
    var operators: [String] = []
    var states: [String: Set<String>] = [:]
    func visit(_ set: RowSet) {
      for consumer in set.consumers {
        if let alert = consumer as? Alert { operators.append(alert.operatorID) }
      }
      for branch in set.branches { visit(branch.rows) }
      for dispatch in set.dispatches { for (_, rows) in dispatch.branches { visit(rows) } }
    }
    for exchange in graph.exchanges {
      guard let aggregation = exchange.definition as? PaneAggregation else { continue }
      operators.append(aggregation.operatorID)
      states[aggregation.operatorID] = Set(aggregation.states.map(\.id))
      #expect(states[aggregation.operatorID]?.count == aggregation.states.count, "\(aggregation.states.map(\.id))")
      for window in aggregation.windows { visit(window.rows) }
    }
    return (operators, states)
  }

  @Test(arguments: 0..<60) func areUniqueAndListed(_ seed: Int) throws {
    var random = Random(seed: UInt64(5_000 + seed))
    let graph = try lowered((0..<random.int(1...30)).map { RandomRule($0, &random) })
    let found = ids(graph).operators
    #expect(Set(found).count == found.count, "\(found.sorted())")
    #expect(graph.operators.map(\.id) == found.sorted())
    for part in graph.operators {
      #expect(!part.rules.isEmpty && part.rules == part.rules.sorted() && !part.summary.isEmpty)
      #expect(part.id.utf8.count <= 90 && part.id.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
    }
  }

  /// A rule's operators, and their aggregates, are called the same alone, among others, and in any order.
  @Test(arguments: 0..<60) func doNotDependOnOtherRules(_ seed: Int) throws {
    var random = Random(seed: UInt64(6_000 + seed))
    var rules = (0..<random.int(2...20)).map { RandomRule($0, &random) }
    let together = ids(try lowered(rules))
    for rule in rules {
      let alone = ids(try lowered([rule]))
      #expect(Set(alone.operators).isSubset(of: together.operators), "\(rule.text)")
      for (id, states) in alone.states { #expect(states.isSubset(of: together.states[id] ?? []), "\(rule.text)") }
    }
    for index in rules.indices.reversed() { rules.swapAt(index, random.int(0...index)) }
    let shuffled = ids(try lowered(rules))
    #expect(Set(shuffled.operators) == Set(together.operators))
    #expect(shuffled.states == together.states)
  }

  /// Two streams that compute different things must not be taken for one: an id for each of these, all different.
  @Test func tellApartWhatDiffers() throws {
    let streams = [
      "requests | window tumbling 1m by service", "requests | window tumbling 1m by region",
      "requests | window tumbling 1m by region, service", "requests | window tumbling 1m by service, region",
      "requests | window tumbling 1m", "requests | where status == 1 | window tumbling 1m",
      "requests | where status == 11 | window tumbling 1m", "requests | where status != 1 | window tumbling 1m",
      "requests | where status == 1 and status == 11 | window tumbling 1m",
      "requests | where not (status == 1 or status == 11) | window tumbling 1m",
      "requests | where status == 1 or status == 11 | window tumbling 1m",
      "requests | where status in (1, 11) | window tumbling 1m",
      "requests | where status not in (1, 11) | window tumbling 1m",
      "requests | where service == \"a b\" | window tumbling 1m", "requests | where service == \"a\" | window tumbling 1m",
      "requests | where region == \"a\" | window tumbling 1m", "requests | where region is null | window tumbling 1m",
      "requests | where latency > 1s | window tumbling 1m", "requests | where latency > 1001ms | window tumbling 1m",
      "requests | where latency + latency > 1s | window tumbling 1m",
      "requests | where latency - latency > 1s | window tumbling 1m",
      "requests | derive k = status + 1 | window tumbling 1m by k",
      "requests | derive k = status + 2 | window tumbling 1m by k",
      "requests | derive k = status % 2 | window tumbling 1m by k",
      "requests | derive k = lower(service) | window tumbling 1m by k",
      "requests | derive k = upper(service) | window tumbling 1m by k",
      "requests | window tumbling 7s", "requests | window tumbling 11s",
    ]
    var rules = RandomRows.source
    for (number, stream) in streams.enumerated() {
      rules += "stream s\(number) = \(stream) | aggregate n = count()\nmetric m\(number) = s\(number).n\n"
    }
    let found = ids(buildPlan(try program(rules)).lower()).operators
    #expect(found.count == streams.count)
    #expect(Set(found).count == streams.count)
  }

  @Test func hashesAreThoseOfEveryMachine() {
    // By an implementation in another language. Another value here means that all state that is stored would be dropped.
    #expect(StableHash("").digits == "7bd3144f29c0cc9e")
    #expect(StableHash("requests").digits == "c876c1bd5266809f")
    var joined = StableHash()
    joined.add("ab")
    joined.add("c")
    var other = StableHash()
    other.add("a")
    other.add("bc")
    #expect(joined.value != other.value)
  }
}
