/// When a maintenance window is open, in event time.
public enum MaintenanceSchedule: Sendable, Hashable {
  /// From a moment until before another, nanoseconds since the epoch.
  case once(from: Int64, until: Int64)
  /// On some days of the week at a time of the clocks there, for a length of time that passes as it does for everybody:
  /// where clocks are put forward within it, it ends later by them.
  case weekly(Weekly)

  public struct Weekly: Sendable, Hashable {
    /// Bit 0 for Monday, bit 6 for Sunday.
    public var days: UInt8
    /// Seconds behind midnight, below a day.
    public var startSeconds: Int64
    public var lengthNanos: Int64
    public var zone: TimeZoneRules
    public init(days: UInt8, startSeconds: Int64, lengthNanos: Int64, zone: TimeZoneRules) {
      self.days = days
      self.startSeconds = startSeconds
      self.lengthNanos = lengthNanos
      self.zone = zone
    }
  }

  public static let dayNames = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

  /// Whether it is open at a time, its begin included and its end not.
  public func isOpen(at nanos: Int64) -> Bool {
    switch self {
    case .once(let from, let until): nanos >= from && nanos < until
    case .weekly(let weekly): weekly.isOpen(at: nanos)
    }
  }
}

extension MaintenanceSchedule.Weekly {
  private static let secondNanos: Int64 = 1_000_000_000

  func isOpen(at nanos: Int64) -> Bool {
    let daySeconds: Int64 = 86_400
    let seconds = nanos / Self.secondNanos
    let today = (seconds + zone.offset(atUTC: seconds)) / daySeconds
    // It may have begun on an earlier day, and clocks may have been put by hours since.
    let daysBack = lengthNanos / Self.secondNanos / daySeconds + 1
    for day in max(0, today - daysBack)...max(0, today) where days >> UInt8((day + 3) % 7) & 1 == 1 {
      let begin = zone.utc(local: day * daySeconds + startSeconds) * Self.secondNanos
      if nanos >= begin, nanos - begin < lengthNanos { return true }
    }
    return false
  }

  /// `every saturday, sunday 02:00 for 2h zone "Europe/Berlin"`, without the length.
  public var whenText: String {
    let names = MaintenanceSchedule.dayNames.enumerated().filter { days >> UInt8($0.offset) & 1 == 1 }.map(\.element)
    let text = days == 0x7F ? "day" : days == 0x1F ? "weekday" : names.joined(separator: ", ")
    func padded(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "every \(text) \(padded(startSeconds / 3_600)):\(padded(startSeconds / 60 % 60))"
  }
}

/// `label == "text"`, `label != "text"`, `label in ("a", "b")` or `label not in (…)`, over the text of an alert's label. A
/// label that an alert does not have is the empty text, as in Alertmanager.
public struct LabelMatcher: Sendable, Hashable {
  public var label: String
  public var values: [String]
  public var isNegated: Bool
  public init(label: String, values: [String], isNegated: Bool) {
    self.label = label
    self.values = values
    self.isNegated = isNegated
  }
}
