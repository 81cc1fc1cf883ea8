/// What goes wrong in the traffic, and when: minutes from the start, the same every `cycleMinutes`.
public enum TrafficScenario: String, Sendable, CaseIterable {
  case steady
  case errorSpike = "error_spike"
  case slowQueries = "slow_queries"
  case anomalySpike = "anomaly_spike"
  case incident

  /// One line for `--help`.
  public var summary: String {
    switch self {
    case .steady: "nothing happens"
    case .errorSpike: "8 % of ranker's requests fail from minute 10 to 16"
    case .slowQueries: "index-reader's p99 is over 2 s from minute 10 to 21; the indexer's lag passes 10,000"
    case .anomalySpike: "suggest gets four times its traffic from minute 10 to 15"
    case .incident: "slow queries, errors, lag and a filling disk from minute 6 to 22, then recovery"
    }
  }

  /// A scenario without an end starts over after this many minutes.
  public static let cycleMinutes = 60.0

  var effects: [Effect] {
    switch self {
    case .steady: []
    case .errorSpike: [Effect(.errors(service: "ranker", ratio: 0.08), from: 10, until: 16)]
    case .slowQueries:
      [
        Effect(.slow(service: "index-reader", share: 0.08), from: 10, until: 21),
        Effect(.lag(group: "search-indexer", peak: 32_000), from: 11, until: 25),
      ]
    case .anomalySpike: [Effect(.load(service: "suggest", factor: 4), from: 10, until: 15)]
    case .incident:
      [
        // The segment merges of a filling disk slow the index down; what waits on it fails; the indexer falls
        // behind.
        Effect(.disk(host: "es-data-2", peakRatio: 0.87), from: 4, until: 22),
        Effect(.slow(service: "index-reader", share: 0.08), from: 6, until: 17),
        Effect(.slow(service: "search-api", share: 0.04), from: 8, until: 17),
        Effect(.errors(service: "search-api", ratio: 0.05), from: 9, until: 16),
        Effect(.relevance(service: "ranker", drop: 0.25), from: 9, until: 17),
        Effect(.lag(group: "search-indexer", peak: 34_000), from: 7, until: 21),
      ]
    }
  }
}

/// One thing that is out of the ordinary for some minutes.
struct Effect: Sendable {
  enum Kind: Sendable {
    /// This share of a service's requests fails.
    case errors(service: String, ratio: Double)
    /// This share of a service's requests takes seconds.
    case slow(service: String, share: Double)
    /// A service gets this many times its requests.
    case load(service: String, factor: Double)
    /// A service's answers are less relevant by this much.
    case relevance(service: String, drop: Double)
    /// A consumer group's lag rises to its peak at two thirds of the time, then drains.
    case lag(group: String, peak: Double)
    /// A host's data disk fills up to its peak, and is cleaned up at the end.
    case disk(host: String, peakRatio: Double)
  }
  let kind: Kind
  let fromMinute: Double
  let untilMinute: Double

  init(_ kind: Kind, from fromMinute: Double, until untilMinute: Double) {
    self.kind = kind
    self.fromMinute = fromMinute
    self.untilMinute = untilMinute
  }

  /// How far through its time the effect is, 0 to 1; nil outside it.
  func progress(atMinute minute: Double) -> Double? {
    minute >= fromMinute && minute < untilMinute
      ? (minute - fromMinute) / (untilMinute - fromMinute) : nil
  }
}
