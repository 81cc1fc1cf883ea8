import Catalog
import Runtime

/// `alert`: follows each label set of a windowed stream through pending, firing and resolved. A window's end is the
/// evaluation; a label set without a row in it is not true.
public struct Alert: RowTaskDefinition {
  public var name: String
  /// See `StatefulTask.operatorID`.
  public var operatorID = ""
  /// Rank among the graph's rules.
  public var rule: Int32
  /// Slot of the condition, a bool.
  public var condition: Int
  public var conditionText: String
  public var forNanos: Int64
  public var keepFiringNanos: Int64
  public var policy: NotificationPolicy
  /// The stream's keys: they tell one alert from another.
  public var keys: [NamedSlot]
  public var labels: [Template]
  public var annotations: [Template]
  /// The columns of the row that are shown as evidence.
  public var values: [NamedSlot]
  public var windowNanos: Int64
  /// Whether an SLO fires it: its records are of type `slo`, one a severity.
  public var isBurn = false
  /// Those that some alerts of this rule may be subject to.
  public var maintenances: [Maintenance] = []
  /// Where its changes of state go, when other alerts or a group depend on them.
  public var route: AlertRoute?
  /// Most alerts of the rule that are pending or firing; see `AlertLimit`.
  public var alertsMax = PaneAggregation.keyLimitDefault

  public init(
    name: String, rule: Int32, condition: Int, conditionText: String, forNanos: Int64,
    keepFiringNanos: Int64, severity: String, keys: [NamedSlot], labels: [Template],
    annotations: [Template], values: [NamedSlot], windowNanos: Int64
  ) {
    self.name = name
    self.rule = rule
    self.condition = condition
    self.conditionText = conditionText
    self.forNanos = forNanos
    self.keepFiringNanos = keepFiringNanos
    policy = NotificationPolicy(severity: severity)
    self.keys = keys
    self.labels = labels
    self.annotations = annotations
    self.values = values
    self.windowNanos = windowNanos
  }

  public func makeTask(_ context: TaskContext) -> RowTask { AlertTask(self, context) }
}

/// An alert's way to the router of its source; see `AlertRouter`.
public struct AlertRoute: Sendable, Hashable {
  /// Index among the graph's exchanges.
  public var exchange: Int
  /// Index among the router's alerts.
  public var alert: Int
  /// What the alert writes itself.
  public enum Writes: Sendable, Hashable {
    /// Everything; others want to know whether it fires.
    case everything
    /// That it is pending; the rest is the router's, which knows what inhibits it.
    case pending
    /// Nothing: a group tells of it.
    case nothing
  }
  public var writes: Writes
  public init(exchange: Int, alert: Int, writes: Writes) {
    self.exchange = exchange
    self.alert = alert
    self.writes = writes
  }
}

/// How many alerts of a rule may be pending or firing at once.
///
/// Counted by key group, each of which may hold twice its even share and 64, so that what is turned away does not depend on
/// how many workers there are. An alert beyond that does not begin, and its rows are counted.
struct AlertLimit {
  private let each: Int32
  private var counts = [Int32](repeating: 0, count: KeyGroup.count)
  private(set) var rowsTurnedAway = 0

  init(_ alertsMax: Int) { each = Int32(clamping: max(0, min(alertsMax, 1 << 30)) / KeyGroup.count * 2 + 64) }

  /// Whether another one of this hash may begin.
  mutating func admit(_ hash: UInt64) -> Bool {
    guard counts[KeyGroup.of(hash)] < each else {
      rowsTurnedAway += 1
      return false
    }
    counts[KeyGroup.of(hash)] += 1
    return true
  }

  /// One that was there before is not turned away.
  mutating func restored(_ hash: UInt64) { counts[KeyGroup.of(hash)] += 1 }
  mutating func ended(_ hash: UInt64) { counts[KeyGroup.of(hash)] -= 1 }
}

/// What is told of one alert, and how that is written.
struct AlertRecord {
  enum Kind {
    case pending, resolved
    case notice(AlertNotice.Report)
  }
  /// Who keeps a suppressed alert silent.
  enum Suppressor: Hashable {
    case maintenance(String)
    case inhibition(by: String)
  }

  var kind: Kind
  var severity: String
  /// That of the step which an escalation began from.
  var severityBefore = ""
  var since: Int64
  var fingerprint: UInt64
  var suppressor: Suppressor?

  init(_ kind: Kind, step: Int, _ policy: NotificationPolicy, since: Int64, fingerprint: UInt64, _ suppressor: Suppressor? = nil) {
    self.kind = kind
    severity = policy.severity(step)
    if case .notice(.escalated(let before)) = kind { severityBefore = policy.severity(before) }
    self.since = since
    self.fingerprint = fingerprint
    self.suppressor = suppressor
  }

  /// What tells the records of an SLO's severities apart, which have one name: behind the key.
  static func appendBurn(_ policy: NotificationPolicy, to key: inout some TextOutput & ~Copyable) {
    key.append(0x1F)
    key.append(utf8: policy.severity(0))
  }

  /// From `,"state"` to the annotations.
  func append(to bytes: inout some TextOutput & ~Copyable, condition: String, labels: [UInt8], evidence: [UInt8]) {
    switch kind {
    case .pending: bytes.append(json: ",\"state\":\"pending\"")
    case .resolved: bytes.append(json: ",\"state\":\"resolved\"")
    case .notice(.suppressed): bytes.append(json: ",\"state\":\"suppressed\"")
    case .notice: bytes.append(json: ",\"state\":\"firing\"")
    }
    bytes.append(json: ",\"severity\":")
    bytes.append(jsonString: severity)
    switch kind {
    case .notice(.again(let count)):
      bytes.append(json: ",\"repeat\":")
      bytes.append(json: Int64(count))
    case .notice(.escalated):
      bytes.append(json: ",\"escalated_from\":")
      bytes.append(jsonString: severityBefore)
    default: break
    }
    switch suppressor {
    case nil: break
    case .maintenance(let name)?:
      bytes.append(json: ",\"silenced_by\":")
      bytes.append(jsonString: name)
    case .inhibition(let name)?:
      bytes.append(json: ",\"inhibited_by\":")
      bytes.append(jsonString: name)
    }
    bytes.append(json: ",\"since\":")
    bytes.append(jsonTime: since)
    bytes.append(json: ",\"fingerprint\":\"")
    bytes.append(hex: fingerprint)
    bytes.append(json: "\",\"when\":")
    bytes.append(jsonString: condition)
    bytes.append(UInt8(ascii: ","))
    bytes.append(bytes: labels)
    bytes.append(UInt8(ascii: ","))
    bytes.append(bytes: evidence)
  }
}
