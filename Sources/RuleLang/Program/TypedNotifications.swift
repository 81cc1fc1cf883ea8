import Catalog

extension TypedAlert {
  /// The worst first.
  public static let severities = ["page", "critical", "ticket", "warning", "info"]
}

/// `escalate to severity after duration`.
public struct TypedEscalation: Sendable, Hashable {
  public var severity: String
  /// Since the first evaluation at which the alert fired.
  public var afterNanos: Int64
  public init(severity: String, afterNanos: Int64) {
    self.severity = severity
    self.afterNanos = afterNanos
  }
}

/// `group`: alerts that are told of together. See docs/alerts.md.
public struct TypedGroup: Sendable, Hashable {
  /// Its own, or that of the alert or slo in which it stands.
  public var name: String
  public var origin: SourceRange
  /// Indexes among the program's alerts.
  public var alerts: [Int]
  /// Labels that each of the alerts has; alerts with the same values of them are one group.
  public var by: [String]
  public var waitNanos: Int64
  public var intervalNanos: Int64
  /// 0: it is told of once.
  public var repeatNanos: Int64
  /// Most alerts that a record lists.
  public var listedMax: Int
  public init(
    name: String, origin: SourceRange, alerts: [Int], by: [String], waitNanos: Int64, intervalNanos: Int64,
    repeatNanos: Int64, listedMax: Int
  ) {
    self.name = name
    self.origin = origin
    self.alerts = alerts
    self.by = by
    self.waitNanos = waitNanos
    self.intervalNanos = intervalNanos
    self.repeatNanos = repeatNanos
    self.listedMax = listedMax
  }
}

/// `inhibit`: while a source fires, targets with the same values of some labels are silent.
public struct TypedInhibition: Sendable, Hashable {
  public var origin: SourceRange
  /// Indexes among the program's alerts.
  public var targets: [Int]
  public var sources: [Int]
  public var equal: [String]
  public init(origin: SourceRange, targets: [Int], sources: [Int], equal: [String]) {
    self.origin = origin
    self.targets = targets
    self.sources = sources
    self.equal = equal
  }
}

/// `maintenance`: alerts that match are silent while it is open.
public struct TypedMaintenance: Sendable, Hashable {
  public var name: String
  public var origin: SourceRange
  public var schedule: MaintenanceSchedule
  /// Indexes among the program's alerts: those that it names, or all.
  public var alerts: [Int]
  public var matchers: [LabelMatcher]
  public init(
    name: String, origin: SourceRange, schedule: MaintenanceSchedule, alerts: [Int], matchers: [LabelMatcher]
  ) {
    self.name = name
    self.origin = origin
    self.schedule = schedule
    self.alerts = alerts
    self.matchers = matchers
  }
}

extension MaintenanceSchedule {
  /// As a rule spells it.
  public var ruleText: String {
    switch self {
    case .once(let from, let until): "from \(Value.timestamp(from).ruleText) to \(Value.timestamp(until).ruleText)"
    case .weekly(let weekly):
      "\(weekly.whenText) for \(durationText(Double(weekly.lengthNanos))) zone \(Value.string(weekly.zone.name).ruleText)"
    }
  }
}

extension LabelMatcher {
  public var ruleText: String {
    let texts = values.map { Value.string($0).ruleText }
    if texts.count == 1 { return "\(label) \(isNegated ? "!=" : "==") \(texts[0])" }
    return "\(label) \(isNegated ? "not in" : "in") (\(texts.joined(separator: ", ")))"
  }
}
