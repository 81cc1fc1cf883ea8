/// What `SearchTraffic` makes.
public struct SearchTrafficOptions: Sendable {
  public var seed: UInt64 = 1
  public var scenario: TrafficScenario = .steady
  /// Nanoseconds since the epoch.
  public var startNanos: Int64
  /// How long the traffic lasts; nil for no end.
  public var durationNanos: Int64?
  /// Requests per second over all services; logs, spans and gauges come on top. Held between 0.001 and 10
  /// million.
  public var requestsPerSecond = 200.0
  /// Names among `SearchTraffic.serviceNames`; the others send nothing. Empty for all.
  public var services: [String] = []
  /// The topics wanted. What a topic holds does not depend on the others.
  public var topics: Set<TrafficTopic> = Set(TrafficTopic.allCases)

  public init(startNanos: Int64) {
    self.startNanos = startNanos
  }
}

/// Seeded, repeatable traffic of a search service: its requests, some of their logs and spans, and gauges of
/// lag and disk.
///
/// One seed and one set of options give the same bytes. Records come in the order of arrival; event times run
/// behind it by a few hundredths of a second, every fiftieth by up to two seconds, a span's by its duration
/// as well.
public struct SearchTraffic: Sendable {
  public static var serviceNames: [String] { ServiceProfile.all.map(\.name) }

  private static let secondNanos: Int64 = 1_000_000_000
  /// How often the exporters of lag and disk use report.
  private static let gaugeSeconds: Int64 = 15

  private let options: SearchTrafficOptions
  private let effects: [Effect]
  private let requestsPerSecond: Double
  /// The wanted services' shares of the requests, brought to a sum of 1.
  private let shares: [Double]
  private var services: [ServiceState]
  private var totalPerSecond = 0.0
  private var elapsedNanos: Int64 = 0
  private var secondEndNanos: Int64 = 0
  // One generator for each kind of record, so that leaving a topic out changes nothing in the others.
  private var requests: TrafficRandom
  private var gauges: TrafficRandom
  private var writer: SearchRecordWriter

  public init(options: SearchTrafficOptions) {
    self.options = options
    effects = options.scenario.effects
    requestsPerSecond = min(max(options.requestsPerSecond, 0.001), 10_000_000)
    let wanted = ServiceProfile.all.filter {
      options.services.isEmpty || options.services.contains($0.name)
    }
    let sum = wanted.reduce(0) { $0 + $1.share }
    shares = wanted.map { $0.share / sum }
    services = wanted.enumerated().map { ServiceState($1, index: $0) }
    requests = TrafficRandom(seed: options.seed)
    gauges = TrafficRandom(seed: options.seed ^ 0x6a09_e667_f3bc_c908)
    writer = SearchRecordWriter(options: options, profiles: wanted)
  }

  /// The event time that the traffic has reached, nanoseconds since the epoch.
  public var nowNanos: Int64 { options.startNanos &+ elapsedNanos }

  /// Replaces the batch by the next records, about `recordsMax` of them (a request's records stay together).
  /// False, with an empty batch, at the end.
  public mutating func fill(_ batch: inout TrafficBatch, recordsMax: Int = 1_024) -> Bool {
    batch.removeAll()
    let endNanos = options.durationNanos ?? .max
    while batch.entries.count < recordsMax, elapsedNanos < endNanos {
      // Rates are constant within a second; a Poisson process has no memory, so it may start anew with each.
      let waitNanos = requests.waiting(rate: totalPerSecond) * 1e9
      if Double(elapsedNanos) + waitNanos >= Double(secondEndNanos) {
        elapsedNanos = secondEndNanos
        if elapsedNanos < endNanos { startSecond(&batch) }
      } else {
        elapsedNanos &+= Int64(waitNanos)
        if elapsedNanos < endNanos {
          let service = pickService()
          writer.writeRequest(
            of: services[service], atNanos: nowNanos, random: &requests, into: &batch)
        }
      }
    }
    return !batch.entries.isEmpty
  }

  private mutating func pickService() -> Int {
    var rest = requests.unit() * totalPerSecond
    for index in services.indices {
      rest -= services[index].requestsPerSecond
      if rest < 0 { return index }
    }
    return services.count - 1
  }

  /// Sets every service to what the scenario makes of it in the coming second, and reports the gauges when it
  /// is time.
  private mutating func startSecond(_ batch: inout TrafficBatch) {
    let second = elapsedNanos / Self.secondNanos
    secondEndNanos &+= Self.secondNanos
    let cycleSeconds = Int64(TrafficScenario.cycleMinutes * 60)
    let minute = Double(second % cycleSeconds) / 60
    totalPerSecond = 0
    for index in services.indices {
      let profile = services[index].profile
      var state = ServiceState(profile, index: index)
      state.requestsPerSecond = requestsPerSecond * shares[index]
      state.errorRatio = profile.errorRatio
      for effect in effects where effect.progress(atMinute: minute) != nil {
        switch effect.kind {
        case .errors(profile.name, let ratio): state.errorRatio += ratio
        case .slow(profile.name, let share): state.slowShare += share
        case .load(profile.name, let factor): state.requestsPerSecond *= factor
        case .relevance(profile.name, let drop):
          state.relevanceMean = profile.relevanceMean.map { $0 - drop }
        case .errors, .slow, .load, .relevance, .lag, .disk: break
        }
      }
      services[index] = state
      totalPerSecond += state.requestsPerSecond
    }
    if second % Self.gaugeSeconds == 0 { reportGauges(atMinute: minute, &batch) }
  }

  private mutating func reportGauges(atMinute minute: Double, _ batch: inout TrafficBatch) {
    for group in ConsumerGroup.all {
      var lag = group.usualLag * (0.85 + 0.3 * gauges.unit())
      for effect in effects {
        if case .lag(group.group, let peak) = effect.kind,
          let progress = effect.progress(atMinute: minute)
        {
          // Falls behind for two thirds of the time, catches up in the last one.
          lag += peak * min(progress * 1.5, (1 - progress) * 3)
        }
      }
      writer.writeLag(of: group, Int(lag), atNanos: nowNanos, into: &batch)
    }
    for disk in Disk.all {
      var ratio = disk.usualRatio + 0.002 * gauges.unit()
      for effect in effects {
        if case .disk(disk.host, let peakRatio) = effect.kind,
          let progress = effect.progress(atMinute: minute)
        {
          ratio += (peakRatio - disk.usualRatio) * progress
        }
      }
      writer.writeDisk(disk, used: Int(disk.totalBytes * ratio), atNanos: nowNanos, into: &batch)
    }
  }
}
