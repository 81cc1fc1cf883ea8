import Runtime

/// How a firing alert is told of: how bad it is, how that grows, and how often it is said again.
public struct NotificationPolicy: Sendable, Hashable {
  /// The severity at first, then that of each escalation.
  public var severities: [String]
  /// By escalation, how long the alert must have been firing; ascending.
  public var escalateAfterNanos: [Int64]
  /// 0: it is said once.
  public var repeatNanos: Int64

  public init(severity: String, escalations: [(severity: String, afterNanos: Int64)] = [], repeatNanos: Int64 = 0) {
    severities = [severity] + escalations.map(\.severity)
    escalateAfterNanos = escalations.map(\.afterNanos)
    self.repeatNanos = repeatNanos
  }

  /// How many escalations an alert has gone through that has been firing for so long.
  func step(firingForNanos nanos: Int64) -> Int { escalateAfterNanos.prefix { $0 <= nanos }.count }

  func severity(_ step: Int) -> String { severities[min(max(step, 0), severities.count - 1)] }
}

/// What has been said of a firing alert. A value type that is told of each evaluation and answers what to say; times in
/// nanoseconds.
struct AlertNotice: Hashable {
  enum Report: Hashable {
    case firing
    /// How many times it has been said again.
    case again(Int32)
    /// Its severity has grown from that of an earlier step.
    case escalated(from: Int)
    /// It fires and is not told of, because of an inhibition or a maintenance window.
    case suppressed
  }

  /// The first evaluation at which it fired.
  let firedAt: Int64
  /// When it was last told of; nil while it never has been.
  private(set) var notifiedAt: Int64?
  private(set) var repeats: Int32 = 0
  /// Escalations that have been told of.
  private(set) var step = 0
  private(set) var isSuppressed = false

  init(firedAt: Int64) { self.firedAt = firedAt }

  /// An evaluation at which the alert fires. What is kept back while it is suppressed is said when that ends.
  mutating func evaluate(at time: Int64, _ policy: NotificationPolicy, isSuppressed: Bool) -> Report? {
    if isSuppressed {
      defer { self.isSuppressed = true }
      // Once, and not for one that people know of already.
      return notifiedAt == nil && !self.isSuppressed ? .suppressed : nil
    }
    self.isSuppressed = false
    let reached = policy.step(firingForNanos: time - firedAt)
    let before = step
    step = reached
    guard let last = notifiedAt else {
      notifiedAt = time
      return .firing
    }
    if reached > before {
      notifiedAt = time
      return .escalated(from: before)
    }
    guard policy.repeatNanos > 0, time - last >= policy.repeatNanos else { return nil }
    notifiedAt = time
    repeats = repeats == .max ? .max : repeats + 1
    return .again(repeats)
  }

  func encode(into writer: StateWriter) {
    writer.append(firedAt)
    writer.append(notifiedAt != nil)
    writer.append(notifiedAt ?? 0)
    writer.append(repeats)
    writer.append(UInt32(step))
    writer.append(isSuppressed)
  }

  init(from reader: inout StateReader) throws(StateCorruption) {
    firedAt = try reader.time()
    let isNotified = try reader.bool()
    let last = try reader.integer(Int64.self)
    if isNotified {
      guard storedTimes.contains(last) else { throw StateCorruption("an alert of the state was told of at no time") }
      notifiedAt = last
    }
    repeats = try reader.integer(Int32.self)
    step = Int(try reader.integer(UInt32.self))
    isSuppressed = try reader.bool()
    guard repeats >= 0, step <= 1_000 else { throw StateCorruption("an alert of the state was told of in no possible way") }
  }

  /// Of an alert that an earlier version stored as firing: it had told of it when it began to fire.
  init(told time: Int64) {
    firedAt = time
    notifiedAt = time
  }
}
