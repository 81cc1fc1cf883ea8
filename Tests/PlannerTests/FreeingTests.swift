import Foundation
import Planner
import Runtime
import Testing

/// A daemon plans at each reload and starts its tasks at each rebalance: what it leaves behind must not hold on to itself.
@Suite struct FreeingTests {
  private func rules(_ name: String) throws -> String {
    let text = try String(contentsOf: PlanCaseTests.folder.appendingPathComponent(name), encoding: .utf8)
    return text.components(separatedBy: "=== ")[0]
  }

  private struct Weak { weak var object: AnyObject? }

  @Test(arguments: PlanCaseTests.names) func plansAreFreed(_ name: String) throws {
    func make() throws -> [Weak] {
      let plan = buildPlan(try program(try rules(name)))
      let nodes: [AnyObject] =
        [plan] + plan.sources + plan.panes + plan.ordered + plan.routers + plan.detectors + plan.gathers
      return nodes.map { Weak(object: $0) }
    }
    let nodes = try make()
    #expect(!nodes.isEmpty)
    for (index, node) in nodes.enumerated() { #expect(node.object == nil, "node \(index) of \(name)") }
  }

  @Test(arguments: PlanCaseTests.names) func tasksAreFreed(_ name: String) throws {
    let graph = buildPlan(try program(try rules(name))).lower()
    func make() -> [Weak] {
      graph.flows.indices.flatMap { flow in
        // As a worker makes them: owners first, then what takes the source's rows.
        let context = TaskContext(shard: 0, shardCount: 2, batchRows: 16, output: RecordWriter())
        let keyed = graph.exchanges.filter { $0.flow == flow }.map { $0.definition.makeKeyed(context) }
        let roots = graph.sources.indices.contains(flow) ? [graph.sources[flow].root.makeTask(context)] : []
        let objects: [AnyObject] = [context] + keyed + roots + context.statefulTasks + Array(context.partials.values)
        return objects.map { Weak(object: $0) }
      }
    }
    let tasks = make()
    #expect(!tasks.isEmpty)
    for (index, task) in tasks.enumerated() { #expect(task.object == nil, "task \(index) of \(name)") }
  }
}
