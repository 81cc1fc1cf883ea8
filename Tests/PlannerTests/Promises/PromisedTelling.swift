import Catalog
import Foundation
import RuleLang
import Testing

private let second: Int64 = 1_000_000_000

/// What people are told of alerts that groups, inhibitions and maintenance windows concern, as docs/alerts.md has it: slow and
/// obviously right. It is told at every evaluation which label sets are true of which alert, and says what is to be written.
/// The other side of `AlertTask` and `AlertRouterTask`.
struct PromisedTelling {
  /// One record. Of a group with its alerts.
  struct Told: Hashable, Comparable, CustomStringConvertible {
    var time: Int64
    var rule: String
    var state: String
    var severity: String
    var labels: [String]
    /// `rule severity state label=value …`, sorted.
    var alerts: [String] = []

    var description: String { "\((time / second) % 86_400 / 60) min \(rule) \(state) \(severity) \(labels) \(alerts)" }
    static func < (a: Self, b: Self) -> Bool { (a.time, a.description) < (b.time, b.description) }
  }

  /// What has been said of a firing alert.
  private struct Notice {
    var firedAt: Int64
    var toldAt: Int64?
    var repeats = 0
    var step = 0
    var isSilent = false
  }

  private struct Member: Hashable {
    var alert: String
    var labels: [String]
  }

  private struct Group {
    var next: Int64
    var firing: Set<Member> = []
    var over: [Member: Notice] = [:]
    var told: Set<Member> = []
    var toldAt: Int64?
    var rank = 0
  }

  private var program: TypedProgram
  private var machines: [String: PromisedAlert] = [:]
  private var notices: [Member: Notice] = [:]
  /// By name and labels.
  private var groups: [String: [[String]: Group]] = [:]

  init(_ program: TypedProgram) {
    self.program = program
    for alert in program.alerts { machines[Self.id(alert)] = PromisedAlert(alert) }
  }

  /// The burn alerts of an slo have one name.
  static func id(_ alert: TypedAlert) -> String { alert.burn == nil ? alert.name : "\(alert.name).\(alert.severity)" }

  /// Other rules, with what they keep: alerts by id, groups by name.
  mutating func adopt(_ new: TypedProgram, alerts: Set<String>, groups keptGroups: Set<String>) {
    program = new
    var old = machines
    machines = [:]
    for alert in new.alerts {
      var machine = alerts.contains(Self.id(alert)) ? old.removeValue(forKey: Self.id(alert)) ?? PromisedAlert(alert) : PromisedAlert(alert)
      machine.adopt(alert)
      machines[Self.id(alert)] = machine
    }
    notices = notices.filter { alerts.contains($0.key.alert) }
    var kept: [String: [[String]: Group]] = [:]
    for group in new.groups where keptGroups.contains(group.name) {
      let members = Set(group.alerts.map { Self.id(new.alerts[$0]) })
      for (labels, var state) in groups[group.name] ?? [:] {
        state.firing = state.firing.filter { members.contains($0.alert) && alerts.contains($0.alert) }
        state.over = state.over.filter { members.contains($0.key.alert) && alerts.contains($0.key.alert) }
        state.told = state.told.filter { members.contains($0.alert) }
        if !state.firing.isEmpty || !state.over.isEmpty { kept[group.name, default: [:]][labels] = state }
      }
    }
    groups = kept
  }

  /// An evaluation of all alerts, and what groups have to say before it and then.
  mutating func evaluate(at time: Int64, _ isTrue: (TypedAlert) -> Set<[String]>) -> [Told] {
    var told = flush(before: time)
    for alert in program.alerts {
      let id = Self.id(alert)
      for report in machines[id]?.evaluate(at: time, isTrue(alert)).sorted() ?? [] {
        let member = Member(alert: id, labels: report.labels)
        switch report.state {
        case "pending":
          if group(of: alert) == nil { told.append(record(time, alert, "pending", 0, member)) }
        case "firing": notices[member] = Notice(firedAt: time)
        default:
          guard let notice = notices.removeValue(forKey: member) else { continue }
          if let group = group(of: alert), let key = key(group, member) {
            if groups[group.name]?[key]?.firing.remove(member) != nil { groups[group.name]?[key]?.over[member] = notice }
          } else if notice.toldAt != nil {
            told.append(record(time, alert, "resolved", notice.step, member))
          }
        }
      }
    }
    // Whatever fires is in its group, also where the group is new to it.
    for member in notices.keys {
      guard let alert = alert(member), let group = group(of: alert), let key = key(group, member) else { continue }
      groups[group.name, default: [:]][key, default: Group(next: time + group.waitNanos)].firing.insert(member)
      // It is over, and fires again before anybody was told.
      groups[group.name]?[key]?.over[member] = nil
    }
    for member in notices.keys { told += tell(member, at: time) }
    return told + flush(before: time + 1)
  }

  /// What the alert itself has to say at an evaluation. One of a group keeps count and says nothing.
  private mutating func tell(_ member: Member, at time: Int64) -> [Told] {
    guard let alert = alert(member), var notice = notices[member] else { return [] }
    defer { notices[member] = notice }
    let isGrouped = group(of: alert) != nil
    if isSilenced(alert, at: time) || (!isGrouped && isInhibited(alert, member)) {
      defer { notice.isSilent = true }
      return notice.toldAt == nil && !notice.isSilent && !isGrouped ? [record(time, alert, "suppressed", 0, member)] : []
    }
    notice.isSilent = false
    let step = step(alert, notice, at: time)
    let isDue = notice.toldAt.map { step > notice.step || (alert.repeatNanos > 0 && time - $0 >= alert.repeatNanos) } ?? true
    notice.step = step
    guard isDue else { return [] }
    notice.toldAt = time
    return isGrouped ? [] : [record(time, alert, "firing", step, member)]
  }

  // MARK: Groups

  /// Groups whose waits are over before a time, in the order of the waits.
  private mutating func flush(before time: Int64) -> [Told] {
    var told: [Told] = []
    while true {
      var due: (at: Int64, group: TypedGroup, key: [String])?
      for group in program.groups {
        for (key, state) in groups[group.name] ?? [:] where state.next < time {
          if let due, due.at <= state.next { continue }
          due = (state.next, group, key)
        }
      }
      guard let due, var state = groups[due.group.name]?[due.key] else { return told }
      let heard = state.firing.filter { member in
        alert(member).map { !isSilenced($0, at: due.at) && !isInhibited($0, member) } ?? false
      }
      let over = state.over.filter { state.told.contains($0.key) }
      let rank = heard.compactMap { member in
        alert(member).flatMap { alert in
          notices[member].flatMap { TypedAlert.severities.firstIndex(of: severity(alert, step(alert, $0, at: due.at))) }
        }
      }.min()
      let isWorse = state.toldAt != nil && (rank ?? .max) < state.rank
      let isAgain = !heard.isEmpty && due.group.repeatNanos > 0 && state.toldAt.map { due.at - $0 >= due.group.repeatNanos } ?? false
      if !heard.isSubset(of: state.told) || !over.isEmpty || isWorse || isAgain {
        state.rank = rank ?? state.rank
        state.toldAt = due.at
        state.told = heard
        let listed = heard.map { ($0, "firing", notices[$0]) } + over.map { ($0.key, "resolved", Optional($0.value)) }
        told.append(
          Told(
            time: due.at, rule: due.group.name, state: heard.isEmpty ? "resolved" : "firing",
            severity: TypedAlert.severities[state.rank], labels: due.key,
            alerts: listed.compactMap { member, what, notice in
              alert(member).flatMap { alert in
                notice.map {
                  "\(alert.name) \(severity(alert, step(alert, $0, at: due.at))) \(what) \(member.labels.joined(separator: " "))"
                }
              }
            }.sorted()))
      }
      state.over = [:]
      state.next = due.at + due.group.intervalNanos
      groups[due.group.name]?[due.key] = state.firing.isEmpty ? nil : state
    }
  }

  private func group(of alert: TypedAlert) -> TypedGroup? {
    program.groups.first { $0.alerts.contains { Self.id(program.alerts[$0]) == Self.id(alert) } }
  }

  /// `label=value` of each label that the group is by.
  private func key(_ group: TypedGroup, _ member: Member) -> [String]? { Self.values(of: group.by, in: member.labels) }

  private static func values(of names: [String], in labels: [String]) -> [String]? {
    let found = names.compactMap { name in labels.first { $0.hasPrefix("\(name)=") } }
    return found.count == names.count ? found.sorted() : nil
  }

  private func alert(_ member: Member) -> TypedAlert? { program.alerts.first { Self.id($0) == member.alert } }

  // MARK: Silence

  private func isInhibited(_ alert: TypedAlert, _ member: Member) -> Bool {
    program.inhibitions.contains { inhibition in
      guard inhibition.targets.contains(where: { Self.id(program.alerts[$0]) == member.alert }) else { return false }
      let sources = Set(inhibition.sources.map { Self.id(program.alerts[$0]) })
      return notices.keys.contains {
        sources.contains($0.alert) && Self.values(of: inhibition.equal, in: $0.labels) == Self.values(of: inhibition.equal, in: member.labels)
      }
    }
  }

  /// Of windows that are open each day, in UTC, for whatever labels: others are not in these changes.
  private func isSilenced(_ alert: TypedAlert, at time: Int64) -> Bool {
    program.maintenances.contains { maintenance in
      guard maintenance.alerts.contains(where: { Self.id(program.alerts[$0]) == Self.id(alert) }) else { return false }
      guard case .weekly(let weekly) = maintenance.schedule, weekly.days == 0x7F, weekly.zone.name == "UTC", maintenance.matchers.isEmpty
      else {
        Issue.record("the reference knows no such maintenance window")
        return false
      }
      let day = 86_400 * second
      return (time - weekly.startSeconds * second) % day < weekly.lengthNanos
    }
  }

  // MARK: Severity

  private func step(_ alert: TypedAlert, _ notice: Notice, at time: Int64) -> Int {
    alert.escalations.filter { time - notice.firedAt >= $0.afterNanos }.count
  }

  private func severity(_ alert: TypedAlert, _ step: Int) -> String {
    step == 0 ? alert.severity : alert.escalations[step - 1].severity
  }

  private func record(_ time: Int64, _ alert: TypedAlert, _ state: String, _ step: Int, _ member: Member) -> Told {
    Told(time: time, rule: alert.name, state: state, severity: severity(alert, step), labels: member.labels)
  }
}

extension PromisedTelling.Told {
  /// What a rule has written.
  init(_ record: WrittenRecord) throws {
    func texts(_ value: Any?) -> [String] { (value as? [String: Any] ?? [:]).map { "\($0)=\($1)" }.sorted() }
    let object = try #require(try JSONSerialization.jsonObject(with: Data(record.line.utf8)) as? [String: Any])
    self.init(time: record.time, rule: record.rule, state: record.state, severity: record.severity, labels: record.labels)
    for alert in object["alerts"] as? [[String: Any]] ?? [] {
      func text(_ name: String) -> String { alert[name] as? String ?? "" }
      alerts.append("\(text("rule")) \(text("severity")) \(text("state")) \(texts(alert["labels"]).joined(separator: " "))")
    }
    alerts.sort()
  }
}
