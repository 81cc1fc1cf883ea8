/// Rule files over `BenchEvents`: one rule as the peers run it, or many as a thousand teams would write them.
public enum BenchRules {
  /// The source that all of them read; its fields are the ten of the events.
  public static let source = """
    source events {
      kafka "bench.events"  format json
      time ts  watermark 5s  idle 30s
      fields {
        ts: timestamp(ms), request_id: string, tenant: string, service: string, region: string,
        route: string, status: int, latency: duration(ms) from latency_ms, size: bytes from bytes,
        trace_id: string
      }
    }

    """

  /// One rule: 1-minute windows by service and region with count, count-where, sum and p99.
  public static let one =
    source + """
      stream by_service = events
        | window tumbling 1m by service, region
        | aggregate n = count(), errors = count(where status >= 500), total = sum(latency),
            p99 = quantile(latency, 0.99)
      metric requests = by_service.n
      metric errors = by_service.errors
      metric latency_sum_seconds = by_service.total
      metric latency_p99_seconds = by_service.p99

      """

  /// `count` rules, each a stream with one metric or one alert, all different, repeatable from the seed.
  ///
  /// Of every twenty, eleven look at one tenant, five at one service, two at one route of a service, one at a
  /// region's failures, and one at the whole stream.
  public static func many(_ count: Int, seed: UInt64 = 7) -> String {
    var random = TrafficRandom(seed: seed)
    var text = source
    for index in 0..<count {
      text += rule(index, &random)
    }
    return text
  }

  private static func rule(_ index: Int, _ random: inout TrafficRandom) -> String {
    func pick(_ choices: [String]) -> String { choices[random.below(choices.count)] }
    let filter: String
    var keys: [String]
    switch index % 20 {
    case 0...10:
      filter = "tenant == \"\(BenchEvents.tenant(random.below(BenchEvents.tenantCount)))\""
      keys = [["service"], ["service", "region"], ["route"], ["tenant"], ["region"]][random.below(5)]
    case 11...15:
      filter = "service == \"\(BenchEvents.service(random.below(BenchEvents.serviceCount)))\""
      keys = [["service"], ["service", "region"], ["route"], ["service", "route"]][random.below(4)]
    case 16, 17:
      filter = """
        service == "\(BenchEvents.service(random.below(BenchEvents.serviceCount)))" \
        and route == "\(pick(BenchEvents.routes))"
        """
      keys = [["service"], ["region"], ["service", "region"]][random.below(3)]
    case 18:
      filter = "region == \"\(pick(BenchEvents.regions))\" and status >= 500"
      keys = [["service"], ["tenant"], ["route"]][random.below(3)]
    default:
      filter = ""
      keys = [["service"], ["region"], ["route"], ["service", "region"]][random.below(4)]
    }
    let window = pick([
      "tumbling 1m", "tumbling 1m", "tumbling 30s", "tumbling 5m", "hopping 5m every 1m",
      "hopping 10m every 5m",
    ])
    let slow = [100, 200, 250, 400, 500, 750, 1_000, 2_000][random.below(8)]
    let columns: [(name: String, call: String)] = [
      ("errors", "count(where status >= 500)"),
      ("client_errors", "count(where status >= 400 and status < 500)"),
      ("slow", "count(where latency > \(slow)ms)"),
      ("total", "sum(latency)"),
      ("mean", "avg(latency)"),
      ("worst", "max(latency)"),
      ("p50", "quantile(latency, 0.5)"),
      ("p95", "quantile(latency, 0.95)"),
      ("p99", "quantile(latency, 0.99)"),
      ("sent", "sum(size)"),
    ]
    let first = random.below(columns.count)
    let second = (first + 1 + random.below(columns.count - 1)) % columns.count
    let value = columns[first]
    let name = "r\(index)"
    var text = "stream \(name) = events\n"
    if !filter.isEmpty { text += "  | where \(filter)\n" }
    text += "  | window \(window) by \(keys.joined(separator: ", "))\n"
    text += "  | aggregate n = count(), \(value.name) = \(value.call)"
    text += ", \(columns[second].name) = \(columns[second].call)\n"
    if random.chance(0.6) {
      text += "metric \(name)_\(value.name) = \(name).\(value.name)\n"
    } else {
      text += """
        alert Alert\(index) {
          on \(name)  when \(condition(value.name, slow, &random)) and n > \(5 + random.below(40))
          for \(pick(["0s", "1m", "2m", "5m"]))
          severity \(pick(["page", "ticket", "warning"]))
          labels { team: "team-\(index % 97)" }
          annotations { summary: "{\(keys[0])}: \(value.name) is {\(value.name)} of {n} requests" }
        }

        """
    }
    return text
  }

  private static func condition(
    _ column: String, _ slowMillis: Int, _ random: inout TrafficRandom
  ) -> String {
    switch column {
    case "errors", "client_errors", "slow": "\(column) / n > \(1 + random.below(20))%"
    case "total": "total / n > \(slowMillis)ms"
    case "sent": "sent > \(1 + random.below(64))MiB"
    default: "\(column) > \(slowMillis)ms"
    }
  }
}
