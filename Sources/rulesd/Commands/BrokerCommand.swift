import Connectors

let brokerPage = CommandPage(
  name: "broker",
  summary: "an embedded Kafka broker in a process of its own, for trials of what breaks",
  positionals: "", positionalCount: 0...0,
  details: """
    Prints the brokers' addresses (ports of the loopback interface that were free), then takes lines from
    standard input and answers each with ok, or with error and the reason, until the input ends:

      topic NAME PARTITIONS           make a topic
      down [N], up [N]                cut off broker N (1, 2 …), or all, and let it come back
      slow MILLIS [N]                 answer that much later
      leader TOPIC PARTITION N        move a partition to broker N
      errors API CODE…                the next requests of a kind (0 produce, 1 fetch, 8 commit …) fail with
                                      these codes of the Kafka protocol, one each

    Everything is kept in memory: at most 5 MiB and 100,000 batches a partition, then the oldest go. It is
    librdkafka's mock cluster, which shows aborted records and loses the metadata of offsets in transactions;
    trials of exactly-once need a real broker.
    """,
  options: [
    .option("brokers", "N", "how many brokers; default 1"),
    .option("topic", "NAME:PARTITIONS", repeatable: true, "a topic to begin with"),
  ],
  examples: [
    CommandExample(
      "rulesd broker --brokers 3 --topic search.events:4", "three brokers and a topic, until Ctrl-D")
  ])

let brokerCommand = Command(brokerPage) { arguments, environment in
  let count = try arguments.integer("brokers", 1...100) ?? 1
  let trial: BrokerTrial
  do {
    trial = BrokerTrial(broker: try EmbeddedBroker(brokers: count), brokerCount: count)
    for text in arguments.all("topic") {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 2 else {
        throw CommandFailure.usage(
          "--topic: `\(text)` is not of the form NAME:PARTITIONS", hint: "write search.events:4")
      }
      try trial.obey(["topic"] + parts)
    }
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure.environment("\(error)")
  }
  try environment.say(trial.broker.bootstrapServers)
  while let line = readLine() {
    do {
      try trial.obey(line.split(separator: " "))
      try environment.say("ok")
    } catch let failure as CommandFailure {
      if failure.message.isEmpty { throw failure }
      try environment.say("error: \(failure.message)")
    } catch {
      try environment.say("error: \(error)")
    }
  }
  return .ok
}

/// The broker and what its user may ask of it.
struct BrokerTrial {
  let broker: EmbeddedBroker
  let brokerCount: Int
  /// Longer than any client waits for an answer.
  private static let slowMillisMax = 600_000

  /// Throws what the user should read; nothing has happened then.
  func obey(_ words: [Substring]) throws {
    switch (words.first, words.count) {
    case ("topic", 3):
      try broker.createTopic(String(words[1]), partitions: try number(words[2], 1...1_024))
    case ("down", 1...2): for one in try named(words.dropFirst()) { broker.setBrokerDown(one) }
    case ("up", 1...2): for one in try named(words.dropFirst()) { broker.setBrokerUp(one) }
    case ("slow", 2...3):
      let millis = try number(words[1], 0...Self.slowMillisMax)
      for one in try named(words.dropFirst(2)) { broker.setRoundTrip(millis: millis, broker: one) }
    case ("leader", 4):
      try broker.setLeader(
        topic: String(words[1]), partition: try number(words[2], 0...1_023),
        broker: try number(words[3], 1...brokerCount))
    case ("errors", 3...):
      let codes = try words.dropFirst(2).map { Int32(try number($0, -1...1_000)) }
      broker.pushErrors(apiKey: Int16(try number(words[1], 0...100)), codes: codes)
    default:
      throw CommandFailure.usage("`\(words.joined(separator: " "))` is not understood; rulesd broker --help")
    }
  }

  /// The broker that was named; all when none was.
  private func named(_ words: ArraySlice<Substring>) throws -> ClosedRange<Int> {
    guard let word = words.first else { return 1...brokerCount }
    let one = try number(word, 1...brokerCount)
    return one...one
  }

  private func number(_ word: Substring, _ range: ClosedRange<Int>) throws -> Int {
    guard let value = Int(word), range.contains(value) else {
      throw CommandFailure.usage(
        "`\(word)` is not a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }
}
