/// How a service of the simulated system behaves on a good day.
struct ServiceProfile: Sendable {
  let name: String
  /// Its share of all requests; the shares add up to 1.
  let share: Double
  let medianMillis: Double
  /// The deviation of the latency's logarithm: p99 is the median times e^(2.33 sigma).
  let sigma: Double
  let errorRatio: Double
  /// The mean relevance of its answers; nil for a service that ranks nothing.
  let relevanceMean: Double?
  let routes: [String]

  static let all: [ServiceProfile] = [
    ServiceProfile(
      name: "frontend", share: 0.22, medianMillis: 118, sigma: 0.48, errorRatio: 0.0015,
      relevanceMean: 0.74, routes: ["/", "/search", "/products/{id}", "/collections/{id}"]),
    ServiceProfile(
      name: "search-api", share: 0.26, medianMillis: 82, sigma: 0.5, errorRatio: 0.002,
      relevanceMean: 0.73, routes: ["/v1/search", "/v1/search/facets", "/v1/similar"]),
    ServiceProfile(
      name: "ranker", share: 0.16, medianMillis: 34, sigma: 0.45, errorRatio: 0.0015,
      relevanceMean: 0.76, routes: ["/rank", "/rerank"]),
    ServiceProfile(
      name: "suggest", share: 0.14, medianMillis: 11, sigma: 0.4, errorRatio: 0.001,
      relevanceMean: 0.66, routes: ["/v1/suggest", "/v1/spell"]),
    ServiceProfile(
      name: "query-parser", share: 0.12, medianMillis: 5.5, sigma: 0.4, errorRatio: 0.001,
      relevanceMean: nil, routes: ["/parse"]),
    ServiceProfile(
      name: "index-reader", share: 0.10, medianMillis: 26, sigma: 0.5, errorRatio: 0.002,
      relevanceMean: 0.70, routes: ["/shards/read", "/shards/scan"]),
  ]

  static let regions = ["eu-west-1", "eu-central-1", "us-east-1", "ap-south-1"]
}

/// What a service does at one moment: its profile with the scenario's effects put in.
struct ServiceState: Sendable {
  let profile: ServiceProfile
  /// Among the services that send anything.
  let index: Int
  var requestsPerSecond = 0.0
  var errorRatio = 0.0
  var slowShare = 0.0
  var relevanceMean: Double?

  init(_ profile: ServiceProfile, index: Int) {
    self.profile = profile
    self.index = index
    relevanceMean = profile.relevanceMean
  }
}

/// A consumer group that reads a topic, as the lag exporter sees it.
struct ConsumerGroup: Sendable {
  let group: String
  let topic: String
  let usualLag: Double

  static let all = [
    ConsumerGroup(group: "search-indexer", topic: "catalog.changes", usualLag: 900),
    ConsumerGroup(group: "search-metrics", topic: "search.events", usualLag: 240),
    ConsumerGroup(group: "click-attribution", topic: "search.clicks", usualLag: 1_400),
  ]
}

/// A disk, as the node exporter sees it.
struct Disk: Sendable {
  let host: String
  let mount: String
  let totalBytes: Double
  let usualRatio: Double

  static let all = [
    Disk(host: "es-data-1", mount: "/data", totalBytes: 2_000e9, usualRatio: 0.66),
    Disk(host: "es-data-2", mount: "/data", totalBytes: 2_000e9, usualRatio: 0.71),
    Disk(host: "es-data-3", mount: "/data", totalBytes: 2_000e9, usualRatio: 0.64),
    Disk(host: "warehouse-1", mount: "/var/lib/clickhouse", totalBytes: 8_000e9, usualRatio: 0.58),
  ]
}
