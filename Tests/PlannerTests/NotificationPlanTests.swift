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
    #expect(graph.exchanges.dropLast().allSatisfy { $0.level < router.level && $0.flow == router.flow })
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

  // MARK: Several sources

  private func meeting(_ more: String = "") -> String {
    """
    source calls { kafka "calls"  partitioned by callee  time ts  fields { ts: timestamp(ms), callee: string, failed: bool } }
    source probes { kafka "probes"  partitioned by target  time ts  fields { ts: timestamp(ms), target: string, ok: bool } }
    stream minutes = calls | window tumbling 1m by callee | aggregate failures = count(where failed)
    stream hours = minutes | window tumbling 1h by callee | aggregate failures = max(failures)
    stream checks = probes | window tumbling 1m by target | aggregate failures = count(where not ok)
    alert Failing { on minutes when failures > 5 }
    alert FailingLong { on hours when failures > 5 }
    alert Down { on checks when failures > 0 }
    alert Lonely { on checks when failures > 9 }
    alert Other { on minutes when failures > 9 }
    \(more)
    """
  }

  /// The router has a flow of its own behind the levels at which its alerts stand, and only alerts that are tied to another
  /// source are in it.
  @Test func alertsOfSeveralSourcesMeetInAFlow() throws {
    let rules = meeting("group All { alerts Failing, FailingLong, Down }  \ngroup Near { alerts Lonely by target }\ninhibit Other when Failing")
    let graph = buildPlan(try program(rules)).lower()
    let flow = try #require(graph.flows.last)
    #expect(graph.flows.count == 3 && flow.sources.isEmpty && flow.name.hasPrefix("alerts-"))
    #expect(Set(flow.inputs) == [.init(flow: 0, level: 0), .init(flow: 0, level: 1), .init(flow: 1, level: 0)])
    let routers = graph.exchanges.filter { $0.definition is AlertRouter }
    #expect(routers.map(\.flow).sorted() == [1, 2])
    let members = try #require(routers.first { $0.flow == 2 }?.definition as? AlertRouter).members.map(\.name)
    #expect(Set(members) == ["Failing", "FailingLong", "Down", "Other"], "what an inhibition ties to the group comes along")
    // The same alerts in whatever order, with other rules beside: the same flow.
    let reordered = buildPlan(
      try program(meeting("inhibit Lonely when FailingLong\ngroup Near { alerts Down, Other }"))).lower()
    #expect(reordered.flows.last?.name == flow.name)
  }

  @Test func explainSaysWhoIsWaitedFor() throws {
    let text = buildPlan(try program(meeting("group All { alerts Failing, Down }"))).explanation.text(.none)
    #expect(text.contains("waits for: calls, probes"), "\(text)")
    #expect(text.contains("also reads [source:probes]"), "\(text)")
  }

  /// Partitions of two topics need not go together.
  @Test func daemonsCannotShareThem() throws {
    #expect(try program(meeting()).separability.isSeparable)
    let text = try program(meeting("group All { alerts Failing, Down }")).separability.text
    #expect(text.contains("group All is of alerts, of more than one topic"), "\(text)")
  }
}
