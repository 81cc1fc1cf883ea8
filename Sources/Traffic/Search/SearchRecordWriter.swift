import Glibc

/// Writes the search service's records as JSON: requests with their logs and spans, and gauges.
struct SearchRecordWriter: Sendable {
  private let startNanos: Int64
  private let wantsEvents: Bool
  private let wantsLogs: Bool
  private let wantsSpans: Bool
  private let wantsLag: Bool
  private let wantsDisk: Bool
  private let profiles: [ServiceProfile]
  /// For each service, region and route the members between `request_id` and `status`, ready to be copied.
  private let origins: [[[UInt8]]]
  /// For what only logs and spans hold.
  private var details: TrafficRandom

  init(options: SearchTrafficOptions, profiles: [ServiceProfile]) {
    let topics = options.topics
    startNanos = options.startNanos
    wantsEvents = topics.contains(.events)
    wantsLogs = topics.contains(.logs)
    wantsSpans = topics.contains(.spans)
    wantsLag = topics.contains(.lag)
    wantsDisk = topics.contains(.disk)
    self.profiles = profiles
    details = TrafficRandom(seed: options.seed ^ 0xbb67_ae85_84ca_a73b)
    origins = profiles.map { profile in
      ServiceProfile.regions.flatMap { region in
        profile.routes.map { route in
          let members =
            #"","service":"\#(profile.name)","region":"\#(region)","route":"\#(route)","method":"GET""#
          return Array(members.utf8)
        }
      }
    }
  }

  /// One request as its service's access log tells it when it ends.
  struct Request {
    var service: Int
    var region: Int
    var route: Int
    var status: Int
    var latencyMicros: Int
    var traceHigh: UInt64
    var traceLow: UInt64
    var endNanos: Int64
    var isError: Bool { status >= 500 }
  }

  mutating func writeRequest(
    of service: ServiceState, atNanos arrivalNanos: Int64, random: inout TrafficRandom,
    into batch: inout TrafficBatch
  ) {
    let profile = service.profile
    var request = Request(
      service: service.index,
      // The smaller of two draws: the first region and route get most of the traffic.
      region: min(random.below(ServiceProfile.regions.count), random.below(ServiceProfile.regions.count)),
      route: min(random.below(profile.routes.count), random.below(profile.routes.count)),
      status: 200, latencyMicros: 0, traceHigh: random.next(), traceLow: random.next(),
      endNanos: max(startNanos, arrivalNanos &- Self.delayNanos(&random)))
    if random.chance(service.errorRatio) {
      request.status = [500, 500, 503, 503, 504][random.below(5)]
    } else if random.chance(0.015) {
      request.status = [400, 404, 404, 429][random.below(4)]
    }
    let (first, second) = random.normalPair()
    var millis = profile.medianMillis * exp(profile.sigma * first)
    if request.status == 504 {
      millis = 1_200 + 10 * abs(first)  // the gateway's deadline
    } else if random.chance(service.slowShare) {
      millis = 2_600 * exp(0.3 * first)
    }
    request.latencyMicros = Int(min(millis, 9_000) * 1_000)

    let requestId = random.next()
    let results = random.below(49)
    let user = min(random.below(60_000), random.below(60_000))
    if wantsEvents {
      let start = batch.bytes.count
      batch.bytes.append(text: #"{"ts":"#)
      batch.bytes.append(decimal: Int(request.endNanos / 1_000_000))
      batch.bytes.append(text: #","request_id":"req-"#)
      batch.bytes.append(hex: requestId)
      batch.bytes.append(
        contentsOf: origins[service.index][request.region * profile.routes.count + request.route])
      batch.bytes.append(text: #","status":"#)
      batch.bytes.append(decimal: request.status)
      batch.bytes.append(text: #","latency_ms":"#)
      batch.bytes.append(thousandths: request.latencyMicros)
      if let mean = service.relevanceMean, request.status < 400 {
        batch.bytes.append(text: #","relevance":"#)
        batch.bytes.append(thousandths: Int(min(max(mean + 0.13 * second, 0), 1) * 1_000))
        batch.bytes.append(text: #","results":"#)
        batch.bytes.append(decimal: results)
      }
      batch.bytes.append(text: #","trace_id":""#)
      batch.bytes.append(hex: request.traceHigh)
      batch.bytes.append(hex: request.traceLow)
      batch.bytes.append(text: #"","user":"u"#)
      batch.bytes.append(decimal: user)
      batch.bytes.append(text: #""}"#)
      batch.close(.events, from: start, arrival: arrivalNanos, event: request.endNanos) {
        $0.append(hex: request.traceHigh)
        $0.append(hex: request.traceLow)
      }
    }
    // Nothing that `random` gives depends on what follows.
    let isSlow = request.latencyMicros > 1_500_000
    let rootSpan = details.next()
    let isChatty = details.chance(0.05)
    let isSampled = details.chance(0.1)
    if request.isError || isSlow || isChatty {
      writeLog(of: request, span: rootSpan, isSlow: isSlow, arrivalNanos, &batch)
    }
    if request.isError || isSlow || isSampled {
      writeSpans(of: request, root: rootSpan, arrivalNanos, &batch)
    }
  }

  /// How long a record is on its way: some hundredths of a second, every fiftieth up to two seconds.
  private static func delayNanos(_ random: inout TrafficRandom) -> Int64 {
    let millis = random.below(50) == 0 ? random.below(2_000) : 2 + random.below(40)
    return Int64(millis) * 1_000_000
  }

  private mutating func writeLog(
    of request: Request, span: UInt64, isSlow: Bool, _ arrivalNanos: Int64,
    _ batch: inout TrafficBatch
  ) {
    // The same draws for every log line, wanted or not: the spans come from the same generator.
    let template = details.below(3)
    let number = details.below(64)
    guard wantsLogs else { return }
    let millis = request.latencyMicros / 1_000
    let start = batch.bytes.count
    batch.bytes.append(text: #"{"time":""#)
    batch.bytes.append(rfc3339: request.endNanos)
    batch.bytes.append(text: #"","severity":""#)
    batch.bytes.append(text: request.isError ? "ERROR" : isSlow ? "WARN" : "INFO")
    batch.bytes.append(text: #"","service":""#)
    batch.bytes.append(text: profiles[request.service].name)
    batch.bytes.append(text: #"","traceId":""#)
    batch.bytes.append(hex: request.traceHigh)
    batch.bytes.append(hex: request.traceLow)
    batch.bytes.append(text: #"","spanId":""#)
    batch.bytes.append(hex: span)
    batch.bytes.append(text: #"","route":""#)
    batch.bytes.append(text: profiles[request.service].routes[request.route])
    batch.bytes.append(text: #"","msg":""#)
    if request.isError {
      switch template {
      case 0: batch.bytes.append(text: "upstream request timed out after \(millis) ms, shard=\(number)")
      case 1: batch.bytes.append(text: "rejected execution on search queue: active=64 queued=\(number)")
      default:
        batch.bytes.append(
          text: "connection pool exhausted: active=\(64 + number) idle=0 waiting=\(number)")
      }
    } else if isSlow {
      batch.bytes.append(text: "slow query took \(millis) ms on shard \(number)")
    } else {
      switch template {
      case 0: batch.bytes.append(text: "query served in \(millis) ms with \(number) hits")
      case 1: batch.bytes.append(text: "facet cache miss for segment \(number)")
      default: batch.bytes.append(text: "request finished status=\(request.status)")
      }
    }
    batch.bytes.append(text: #""}"#)
    batch.close(.logs, from: start, arrival: arrivalNanos, event: request.endNanos) {
      $0.append(hex: request.traceHigh)
      $0.append(hex: request.traceLow)
    }
  }

  private mutating func writeSpans(
    of request: Request, root: UInt64, _ arrivalNanos: Int64, _ batch: inout TrafficBatch
  ) {
    let children = 1 + details.below(3)
    let startMicros = Int(request.endNanos / 1_000) - request.latencyMicros
    var childStart = startMicros
    writeSpan(
      of: request, id: root, parent: nil, service: request.service, start: startMicros,
      duration: request.latencyMicros, arrivalNanos, &batch)
    for child in 1...children {
      let id = details.next()
      let offset = 1 + details.below(max(profiles.count, 2) - 1)
      let share = (request.latencyMicros - (childStart - startMicros)) / 2
      let duration = child == children ? share : share / 2
      writeSpan(
        of: request, id: id, parent: root, service: (request.service + offset) % profiles.count,
        start: childStart, duration: duration, arrivalNanos, &batch)
      childStart += duration
    }
  }

  private func writeSpan(
    of request: Request, id: UInt64, parent: UInt64?, service: Int, start startMicros: Int,
    duration: Int, _ arrivalNanos: Int64, _ batch: inout TrafficBatch
  ) {
    guard wantsSpans else { return }
    let start = batch.bytes.count
    batch.bytes.append(text: #"{"trace_id":""#)
    batch.bytes.append(hex: request.traceHigh)
    batch.bytes.append(hex: request.traceLow)
    batch.bytes.append(text: #"","span_id":""#)
    batch.bytes.append(hex: id)
    if let parent {
      batch.bytes.append(text: #"","parent_id":""#)
      batch.bytes.append(hex: parent)
    }
    batch.bytes.append(text: #"","service":""#)
    batch.bytes.append(text: profiles[service].name)
    batch.bytes.append(text: #"","name":"GET "#)
    batch.bytes.append(text: profiles[service].routes[0])
    batch.bytes.append(text: #"","start_us":"#)
    batch.bytes.append(decimal: startMicros)
    batch.bytes.append(text: #","duration_us":"#)
    batch.bytes.append(decimal: duration)
    batch.bytes.append(text: #","status":""#)
    batch.bytes.append(text: request.isError && parent == nil ? "error" : "ok")
    batch.bytes.append(text: #""}"#)
    batch.close(
      .spans, from: start, arrival: arrivalNanos, event: Int64(startMicros) &* 1_000
    ) {
      $0.append(hex: request.traceHigh)
      $0.append(hex: request.traceLow)
    }
  }

  func writeLag(
    of group: ConsumerGroup, _ lag: Int, atNanos: Int64, into batch: inout TrafficBatch
  ) {
    guard wantsLag else { return }
    let start = batch.bytes.count
    batch.bytes.append(text: #"{"ts":"#)
    batch.bytes.append(decimal: Int(atNanos / 1_000_000))
    batch.bytes.append(text: #","group":""#)
    batch.bytes.append(text: group.group)
    batch.bytes.append(text: #"","topic":""#)
    batch.bytes.append(text: group.topic)
    batch.bytes.append(text: #"","lag":"#)
    batch.bytes.append(decimal: lag)
    batch.bytes.append(text: "}")
    batch.close(.lag, from: start, arrival: atNanos, event: atNanos) { $0.append(text: group.group) }
  }

  func writeDisk(_ disk: Disk, used: Int, atNanos: Int64, into batch: inout TrafficBatch) {
    guard wantsDisk else { return }
    let start = batch.bytes.count
    batch.bytes.append(text: #"{"ts":"#)
    batch.bytes.append(decimal: Int(atNanos / 1_000_000))
    batch.bytes.append(text: #","host":""#)
    batch.bytes.append(text: disk.host)
    batch.bytes.append(text: #"","mount":""#)
    batch.bytes.append(text: disk.mount)
    batch.bytes.append(text: #"","used_bytes":"#)
    batch.bytes.append(decimal: used)
    batch.bytes.append(text: #","total_bytes":"#)
    batch.bytes.append(decimal: Int(disk.totalBytes))
    batch.bytes.append(text: "}")
    batch.close(.disk, from: start, arrival: atNanos, event: atNanos) { $0.append(text: disk.host) }
  }
}
