import Catalog
import Runtime

/// Behind alerts that depend on one another: decides which of them are inhibited, and puts them into groups.
///
/// One shard owns it, and hears of changes of state alone; it stands one level behind the last windows of the source, so that
/// when the watermark has passed an evaluation there, the state of every alert at that time is known. Alerts of several sources
/// meet in a flow of the router's own, whose watermark is the least of theirs: that is known there too, and who lags is waited for.
/// What it says is told in event time: at the evaluations of each alert, and of a group when its waits are over.
public struct AlertRouter: ExchangeDefinition {
  /// The owner of all that it keeps.
  static let ownerHash: UInt64 = 0

  /// An alert that others depend on, or that depends on others.
  public struct Member: Sendable, Hashable {
    public var name: String
    public var rule: Int32
    /// The alert's own; its state here is of no use without that.
    public var operatorID: String
    public var conditionText: String
    public var policy: NotificationPolicy
    public var maintenances: [Maintenance]
    public var writes: AlertRoute.Writes
    /// How long it must be true to fire.
    public var forNanos: Int64
    /// How often it is evaluated.
    public var hopNanos: Int64
    public var windowNanos: Int64
    /// How far before an evaluation rows count.
    public var reachNanos: Int64
    /// Index among the router's groups.
    public var group: Int?
    /// See `Alert.isBurn`.
    public var isBurn: Bool

    public init(
      name: String, rule: Int32, operatorID: String, conditionText: String, policy: NotificationPolicy,
      maintenances: [Maintenance], writes: AlertRoute.Writes, forNanos: Int64, hopNanos: Int64, windowNanos: Int64, reachNanos: Int64,
      group: Int?, isBurn: Bool
    ) {
      self.name = name
      self.rule = rule
      self.operatorID = operatorID
      self.conditionText = conditionText
      self.policy = policy
      self.maintenances = maintenances
      self.writes = writes
      self.forNanos = forNanos
      self.hopNanos = hopNanos
      self.windowNanos = windowNanos
      self.reachNanos = reachNanos
      self.group = group
      self.isBurn = isBurn
    }
  }

  /// Alerts that are told of together, as Alertmanager groups them: `group_by`, `group_wait`, `group_interval`,
  /// `repeat_interval`.
  public struct Group: Sendable, Hashable {
    public var name: String
    /// See `StatefulTask.operatorID`: a group that is made by other labels is another one.
    public var operatorID: String
    public var rule: Int32
    public var by: [String]
    public var waitNanos: Int64
    public var intervalNanos: Int64
    /// 0: never said again.
    public var repeatNanos: Int64
    /// Most alerts that a record lists.
    public var listedMax: Int

    public init(
      name: String, operatorID: String, rule: Int32, by: [String], waitNanos: Int64, intervalNanos: Int64,
      repeatNanos: Int64, listedMax: Int
    ) {
      self.name = name
      self.operatorID = operatorID
      self.rule = rule
      self.by = by
      self.waitNanos = waitNanos
      self.intervalNanos = intervalNanos
      self.repeatNanos = repeatNanos
      self.listedMax = listedMax
    }
  }

  /// While one of `sources` fires, `targets` with the same values of `equal` are silent. Indexes among the members.
  public struct Inhibition: Sendable, Hashable {
    public var targets: [Int]
    public var sources: [Int]
    public var equal: [String]
    public init(targets: [Int], sources: [Int], equal: [String]) {
      self.targets = targets
      self.sources = sources
      self.equal = equal
    }
  }

  /// Index among the graph's exchanges.
  public var exchange: Int
  /// See `StatefulTask.operatorID`.
  public var operatorID: String
  public var members: [Member]
  public var groups: [Group]
  public var inhibitions: [Inhibition]
  /// Severities, the worst first: a group is as bad as the worst of its alerts.
  public var severities: [String]
  /// Whether its members have event times of their own.
  public var isMeeting: Bool

  public init(
    exchange: Int, operatorID: String, members: [Member], groups: [Group], inhibitions: [Inhibition],
    severities: [String], isMeeting: Bool = false
  ) {
    self.exchange = exchange
    self.operatorID = operatorID
    self.members = members
    self.groups = groups
    self.inhibitions = inhibitions
    self.severities = severities
    self.isMeeting = isMeeting
  }

  public func makePartial(_ context: TaskContext) -> PartialTask { PartialTask() }
  public func makeKeyed(_ context: TaskContext) -> KeyedTask { AlertRouterTask(self, context) }
}

/// A firing alert as the router keeps it.
struct RoutedAlert: Sendable {
  var since: Int64
  /// What the router has told of it.
  var notice: AlertNotice
  var labelSet: AlertLabels
  var fingerprint: UInt64
  /// Of its member's maintenance windows, those that it is subject to.
  var maintenances: [Int32] = []
  var labels: [UInt8]
  var evidence: [UInt8]
  /// Since when rows are needed to know again who has inhibited it, whose state may be older than its own.
  var neededSince = afterAllTime

  var bytes: Int { 240 + labels.count + evidence.count + labelSet.byteCount }

  init(_ event: AlertEvent, name: String, _ maintenances: OpenMaintenances) {
    since = event.since
    notice = event.kind == .announcement ? event.notice : AlertNotice(firedAt: event.notice.firedAt)
    labelSet = event.labelSet
    fingerprint = labelSet.fingerprint(alert: name)
    self.maintenances = maintenances.matching(labelSet)
    labels = event.labels
    evidence = event.evidence
  }
}

/// Which alert: of which member, with which keys.
struct RoutedKey: Hashable, Sendable {
  var member: Int
  var key: [UInt8]
  static func precedes(_ a: RoutedKey, _ b: RoutedKey) -> Bool {
    a.member != b.member ? a.member < b.member : a.key.lexicographicallyPrecedes(b.key)
  }
}

/// Alerts with the same values of a group's labels.
struct AlertGroupState: Sendable {
  /// Since when the first of its alerts was true, and since when rows are needed to know all this again.
  var since: Int64
  var neededSince: Int64
  var nextFlush: Int64
  /// The alerts that fire, and those that are over since the last time it was looked at, as they were.
  var alerts: [RoutedKey: RoutedAlert?] = [:]
  var labels: AlertLabels
  /// What was told last; nil while nothing was.
  var notifiedAt: Int64?
  var notified: Set<RoutedKey> = []
  /// Rank among the severities.
  var severity = 0
  var repeats: Int32 = 0
}
