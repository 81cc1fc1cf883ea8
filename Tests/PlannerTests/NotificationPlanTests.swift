import Foundation
import Operators
import RuleLang
import Runtime
import Testing

@testable import Planner

/// Groups, inhibitions and maintenance windows on their way to the graph.
@Suite struct NotificationPlanTests {
  private func rules(_ group: String, _ inhibition: String) -> String {
    """
    source requests {
      kafka "search.events"  partitioned by service
      time ts  watermark 10s
      fields { ts: timestamp(ms), service: string, region: string, latency: duration(ms) }
    }
    stream minutes = requests | window tumbling 1m by service, region | aggregate worst = max(latency)
    stream hours = minutes | window tumbling 1h by service, region | aggregate worst = max(worst)
    alert Slow { on minutes when worst > 2s severity ticket escalate to page after 15m repeat 4h }
    alert SlowHour { on hours when worst > 9s }
    alert Worse { on minutes when worst > 4s }
    group Both { alerts SlowHour, Worse \(group) }
    inhibit Slow when Worse \(inhibition)
    maintenance Nights { every day 22:00 for 8h alerts Slow matching service == "a" }
    """
  }

  @Test func theRouterStandsBehindAllWindowsOfItsSource() throws {
    let plan = buildPlan(try program(rules("by service", "equal service")))
    let graph = plan.lower()
    let router = try #require(graph.exchanges.last)
    #expect(router.definition is AlertRouter)
    #expect(graph.exchanges.dropLast().allSatisfy { $0.level < router.level && $0.source == router.source })
    #expect(router.rules == ["Both", "Slow", "SlowHour", "Worse"])
    let kinds = graph.operators.map(\.kind)
    #expect(kinds.contains("router") && kinds.filter { $0 == "group" }.count == 1)
    #expect(graph.rules.contains("Both"))
  }

  @Test func explainTellsOfThem() throws {
    let text = buildPlan(try program(rules("by service", "equal service"))).explanation.text(.none)
    for words in [
      "group Both by service", "escalates: to page after 15m", "repeat 4h", "maintenance: Nights",
      "inhibited when: Worse equal service", "alerts: SlowHour, Worse",
    ] {
      #expect(text.contains(words), "\(words) in\n\(text)")
    }
  }

  /// Daemons that share partitions see the alerts of theirs alone.
  @Test func togetherMeansByTheFieldsOfThePartitions() throws {
    #expect(try program(rules("by service", "equal region, service")).separability.isSeparable)
    let group = try program(rules("by region", "equal service")).separability
    #expect(group.text.contains("group Both") && group.text.contains("not by service"), "\(group.text)")
    let inhibition = try program(rules("by service", "equal region")).separability
    #expect(inhibition.text.contains("inhibition of Slow") && inhibition.text.contains("not by service"), "\(inhibition.text)")
    #expect(try !program(rules("by service", "")).separability.isSeparable)
  }
}
