/// The life cycle of one alert (one label set), as Prometheus has it: see docs/language.md, "Alerts".
///
/// A value type that is told the outcome of each evaluation and answers what to report; times in nanoseconds.
struct AlertState {
  enum Phase {
    /// True since `since`, not yet for long enough.
    case pending(since: Int64)
    /// `falseSince` is the first evaluation since which it has not been true, while `keep_firing` holds it.
    case firing(since: Int64, falseSince: Int64?)
  }

  enum Report { case pending, firing, resolved }

  private(set) var phase: Phase
  var isPending: Bool {
    if case .pending = phase { true } else { false }
  }

  /// The first evaluation of the episode: what the state depends on.
  var since: Int64 {
    switch phase {
    case .pending(let since), .firing(let since, _): since
    }
  }

  /// An alert whose expression is true for the first time.
  static func begin(at time: Int64, forNanos: Int64) -> (AlertState, Report) {
    forNanos <= 0
      ? (AlertState(phase: .firing(since: time, falseSince: nil)), .firing)
      : (AlertState(phase: .pending(since: time)), .pending)
  }

  /// An evaluation at which the expression is true.
  mutating func isTrue(at time: Int64, forNanos: Int64) -> Report? {
    switch phase {
    case .pending(let since):
      guard time - since >= forNanos else { return nil }
      phase = .firing(since: since, falseSince: nil)
      return .firing
    case .firing(let since, _):
      phase = .firing(since: since, falseSince: nil)
      return nil
    }
  }

  /// An evaluation at which it is not, or at which there is no row. `isOver` drops the alert; a pending one goes without a report.
  mutating func isNotTrue(at time: Int64, keepFiringNanos: Int64) -> (isOver: Bool, report: Report?) {
    switch phase {
    case .pending: return (true, nil)
    case .firing(let since, let falseSince):
      let start = falseSince ?? time
      if time - start >= keepFiringNanos { return (true, .resolved) }
      phase = .firing(since: since, falseSince: start)
      return (false, nil)
    }
  }
}
