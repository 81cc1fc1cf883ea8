/// The events that `make bench` measures on: ten fields, about 250 bytes, `partitions` files over the same
/// stretch of event time.
///
/// The values are skewed as a service's are: tenants and services have a large head and a long tail. Every
/// partition has a generator of its own, so that one can be made without the others and all are repeatable.
public struct BenchEvents: Sendable {
  public static let tenantCount = 400
  public static let serviceCount = 60
  public static let regions = ["eu-west-1", "eu-central-1", "us-east-1", "ap-south-1"]
  public static let routes = [
    "/v1/search", "/v1/search/facets", "/v1/similar", "/v1/suggest", "/v1/spell", "/v1/products/{id}",
    "/v1/products/{id}/stock", "/v1/collections", "/v1/collections/{id}", "/v1/cart", "/v1/cart/items",
    "/v1/checkout", "/v1/checkout/confirm", "/v1/orders", "/v1/orders/{id}", "/v1/users/{id}",
    "/v1/sessions", "/v1/reviews", "/v1/images/{id}", "/internal/reindex",
  ]

  /// 2026-11-21T03:00:00Z.
  public static let startNanos: Int64 = 1_795_230_000_000_000_000
  /// The stretch of event time that the rows of every partition are spread over.
  public static let spanNanos: Int64 = 20 * 60 * 1_000_000_000

  public static func tenant(_ index: Int) -> String { name("tenant-", index, digits: 4) }
  public static func service(_ index: Int) -> String { name("service-", index, digits: 3) }

  private static func name(_ prefix: String, _ index: Int, digits: Int) -> String {
    var bytes: [UInt8] = []
    bytes.append(text: prefix)
    bytes.append(digits: index, count: digits)
    return String(decoding: bytes, as: UTF8.self)
  }

  private let rows: Int
  private var row = 0
  private var random: TrafficRandom
  /// `","service":"service-007","region":"eu-west-1"` for each service and region, `"tenant-0137"` for each
  /// tenant.
  private let origins: [[UInt8]]
  private let tenants: [[UInt8]]
  private let routes: [[UInt8]]

  /// `rows` is this partition's number of rows.
  public init(seed: UInt64, partition: Int, rows: Int) {
    self.rows = rows
    random = TrafficRandom(seed: seed &* 1_000_003 &+ UInt64(truncatingIfNeeded: partition))
    origins = (0..<Self.serviceCount).flatMap { service in
      Self.regions.map { Array(#"","service":"\#(Self.service(service))","region":"\#($0)""#.utf8) }
    }
    tenants = (0..<Self.tenantCount).map { Array(Self.tenant($0).utf8) }
    routes = Self.routes.map { Array($0.utf8) }
  }

  /// Appends up to `count` lines, each with its line end; false when the partition has no more.
  public mutating func append(lines count: Int, to bytes: inout [UInt8]) -> Bool {
    let end = min(rows, row + count)
    while row < end {
      line(&bytes)
      row += 1
    }
    return row < rows
  }

  private mutating func line(_ bytes: inout [UInt8]) {
    let progress = Int64(Double(row) / Double(rows) * Double(Self.spanNanos))
    // Up to half a second back, every hundredth up to four: in order to the watermark's taste, not to the
    // eye.
    let back = random.below(100) == 0 ? random.below(4_000) : random.below(500)
    let millis = Int((Self.startNanos + progress) / 1_000_000) - back
    bytes.append(text: #"{"ts":"#)
    bytes.append(decimal: max(millis, Int(Self.startNanos / 1_000_000)))
    bytes.append(text: #","request_id":"req-"#)
    bytes.append(hex: random.next())
    bytes.append(text: #"","tenant":""#)
    bytes.append(contentsOf: tenants[skewed(Self.tenantCount)])
    let service = skewed(Self.serviceCount)
    bytes.append(contentsOf: origins[service * Self.regions.count + random.below(Self.regions.count)])
    bytes.append(text: #","route":""#)
    bytes.append(contentsOf: routes[skewed(Self.routes.count)])
    bytes.append(text: #"","status":"#)
    let fate = random.below(1_000)
    bytes.append(decimal: fate < 12 ? 503 : fate < 20 ? 500 : fate < 45 ? 404 : 200)
    bytes.append(text: #","latency_ms":"#)
    // A heavy tail without a logarithm: the reciprocal of a uniform value has p50 2 and p99 100 times the
    // least.
    let micros = (4_000 + 260 * service) * 1_000 / (1 + random.below(1_000))
    bytes.append(thousandths: min(micros * 4 + random.below(1_000), 30_000_000))
    bytes.append(text: #","bytes":"#)
    bytes.append(decimal: 200 + random.below(60_000))
    bytes.append(text: #","trace_id":""#)
    bytes.append(hex: random.next())
    bytes.append(hex: random.next())
    bytes.append(text: "\"}\n")
  }

  /// The smaller of two draws: twice the mean density at 0, none at the end.
  private mutating func skewed(_ count: Int) -> Int {
    min(random.below(count), random.below(count))
  }
}
