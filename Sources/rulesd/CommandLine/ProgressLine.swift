/// One line on a terminal that says how far long work is, how fast, and how long it will take yet.
/// Silent when standard error is not a terminal.
struct ProgressLine {
  private static let intervalNanos: Int64 = 200_000_000
  private let environment: CommandEnvironment
  private let label: String
  private let startNanos: Int64
  private var nextNanos: Int64
  private var isShown = false

  /// `label` says what is counted: "records".
  init(_ label: String, _ environment: CommandEnvironment) {
    self.environment = environment
    self.label = label
    startNanos = environment.monotonicNanos()
    nextNanos = startNanos + Self.intervalNanos
  }

  /// `share` is the part of the work that is done, 0 to 1; nil when its end is not known. Cheap enough to
  /// call per batch.
  mutating func update(count: Int, share: Double?) {
    guard environment.standardError.isTerminal else { return }
    let now = environment.monotonicNanos()
    guard now >= nextNanos else { return }
    nextNanos = now + Self.intervalNanos
    let seconds = max(Double(now - startNanos) / 1e9, 1e-9)
    var text = "\(grouped(count)) \(label), \(grouped(Int(Double(count) / seconds)))/s"
    if let share, share > 0 {
      let left = seconds / share - seconds
      text = "\(Int(min(share, 1) * 100)) %  \(text), \(clock(left)) left"
    } else {
      text += ", \(clock(seconds))"
    }
    try? environment.standardError.write("\r\u{1B}[K\(text)")
    isShown = true
  }

  /// Clears the line; what follows starts on an empty one.
  mutating func finish() {
    guard isShown else { return }
    try? environment.standardError.write("\r\u{1B}[K")
    isShown = false
  }

  private func clock(_ seconds: Double) -> String {
    let whole = Int(min(max(seconds.rounded(), 0), 359_999))
    func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return whole >= 3_600
      ? "\(whole / 3_600):\(two(whole / 60 % 60)):\(two(whole % 60))" : "\(whole / 60):\(two(whole % 60))"
  }
}

/// 1234567 as `1,234,567`.
func grouped(_ number: Int) -> String {
  var digits = Array(String(number.magnitude))
  var index = digits.count - 3
  while index > 0 {
    digits.insert(",", at: index)
    index -= 3
  }
  return (number < 0 ? "-" : "") + String(digits)
}
