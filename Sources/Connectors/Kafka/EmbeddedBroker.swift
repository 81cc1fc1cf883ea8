import CRdkafka

/// librdkafka's mock cluster: Kafka brokers inside this process, for the demo and for tests. Everything is
/// kept in memory.
///
/// Close consumers and producers before it goes. What it does not do as real brokers do: it shows aborted
/// records, and it loses the metadata of offsets that were committed in a transaction.
public final class EmbeddedBroker {
  private let client: KafkaClient
  private let cluster: OpaquePointer
  private let brokerCount: Int32
  /// `host:port`, separated by commas.
  public let bootstrapServers: String

  /// What a consumer of these brokers should be given. They wait three seconds for the first member of a
  /// group, and when one has left, nearly the session's time-out for the others: 45 s by default.
  public static let consumerProperties: [KafkaProperty] = [
    .init("session.timeout.ms", "6000"), .init("heartbeat.interval.ms", "500"),
  ]

  /// Starts `brokers` brokers on free ports of 127.0.0.1.
  public init(brokers: Int = 1) throws {
    precondition(brokers > 0 && brokers <= 100)
    client = try KafkaClient(
      RD_KAFKA_PRODUCER, defaults: [.init("client.id", "embedded-broker")], properties: [])
    brokerCount = Int32(brokers)
    guard let cluster = rd_kafka_mock_cluster_new(client.handle, Int32(brokers)),
      let servers = rd_kafka_mock_cluster_bootstraps(cluster)
    else { throw KafkaFailure("the embedded broker does not start", isRetriable: false) }
    self.cluster = cluster
    bootstrapServers = String(cString: servers)
  }

  deinit { rd_kafka_mock_cluster_destroy(cluster) }

  /// Throws when the topic exists.
  public func createTopic(_ name: String, partitions: Int) throws {
    let status = rd_kafka_mock_topic_create(
      cluster, name, Int32(clamping: partitions), min(brokerCount, 3))
    if status != RD_KAFKA_RESP_ERR_NO_ERROR {
      throw KafkaFailure("topic \(name) was not created: \(kafkaText(status))", isRetriable: false)
    }
  }

  /// Cuts all connections of a broker (1, 2 …) and takes none. What it holds stays.
  public func setBrokerDown(_ broker: Int) { rd_kafka_mock_broker_set_down(cluster, Int32(clamping: broker)) }
  public func setBrokerUp(_ broker: Int) { rd_kafka_mock_broker_set_up(cluster, Int32(clamping: broker)) }

  /// Answers everything that much later.
  public func setRoundTrip(millis: Int, broker: Int) {
    rd_kafka_mock_broker_set_rtt(cluster, Int32(clamping: broker), Int32(clamping: millis))
  }

  /// Gives a partition another leader; clients learn of it by the refusal of the old one.
  public func setLeader(topic: String, partition: Int, broker: Int) throws {
    let status = rd_kafka_mock_partition_set_leader(
      cluster, topic, Int32(clamping: partition), Int32(clamping: broker))
    if status != RD_KAFKA_RESP_ERR_NO_ERROR {
      throw KafkaFailure("\(topic)[\(partition)] was not moved: \(kafkaText(status))", isRetriable: false)
    }
  }

  /// The next requests of a kind are answered with these error codes of the Kafka protocol, one each. Kinds
  /// are the protocol's API keys: 0 produce, 1 fetch, 2 list offsets, 8 offset commit, 9 offset fetch, 12 heartbeat,
  /// 22 producer id, 24 partitions of a transaction, 25 its groups, 26 its end, 28 its offsets.
  public func pushErrors(apiKey: Int16, codes: [Int32]) {
    let errors = codes.map { rd_kafka_resp_err_t($0) }
    rd_kafka_mock_push_request_errors_array(cluster, apiKey, errors.count, errors)
  }
}
