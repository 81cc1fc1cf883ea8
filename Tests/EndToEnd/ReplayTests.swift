import Connectors
import Foundation
import Runtime
import Testing

@testable import rulesd

/// Dead letters and back: what they hold, and what `rulesd replay` makes of them.
@Suite(.serialized) struct ReplayTests {
  private static func rules(topic: String = "events", latency: String) -> String {
    """
    source requests {
      kafka "\(topic)"  format json
      time ts  watermark 10s
      fields { ts: timestamp(ms), service: string, latency: \(latency) from latency_ms }
    }
    stream minutes = requests | window tumbling 1m by service | aggregate n = count(), worst = max(latency)
    metric rows = minutes.n
    metric worst_latency = minutes.worst
    """
  }
  /// The first rules call a record without latency bad; the mended ones do not.
  private static let strict = "duration(ms)"
  private static let mended = "duration(ms)?"
  private static let start: Int64 = 1_795_230_000_000

  private static func payload(_ index: Int) -> String {
    let latency = index % 3 == 0 ? "" : ",\"latency_ms\":\(index)"
    return "{\"ts\":\(start + Int64(index) * 1_000),\"service\":\"s\(index % 2)\"\(latency)}"
  }
  private static func isBad(_ index: Int) -> Bool { index % 3 == 0 }

  private final class Stage {
    let directory: TemporaryDirectory
    let broker: EmbeddedBroker
    var brokers: String { broker.bootstrapServers }

    init(count: Int = 30) throws {
      directory = try TemporaryDirectory()
      broker = try EmbeddedBroker()
      for topic in ["events", "rulesd.dead_letters", "rulesd.late", "elsewhere"] {
        try broker.createTopic(topic, partitions: 2)
      }
      let writer = try KafkaWriter(brokers: broker.bootstrapServers)
      for index in 0..<count {
        try writer.write(
          topic: "events", key: Array("key \(index)".utf8), payload: Array(ReplayTests.payload(index).utf8),
          timestampMillis: ReplayTests.start + Int64(index), partition: Int32(index % 2))
      }
      try writer.flush()
    }

    func write(_ name: String, _ text: String) throws -> String {
      try text.write(toFile: directory.path(name), atomically: true, encoding: .utf8)
      return directory.path(name)
    }

    /// Runs rules over the topics to their ends; dead letters and late rows go to Kafka, all records to a file.
    func run(_ name: String, _ rules: String, group: String) throws -> [String] {
      let path = try write("\(name).rules", rules)
      var arguments = [
        "run", path, "--kafka", brokers, "--until-end", "--group", group, "--listen", "127.0.0.1:0", "--workers", "2",
        "--sink", directory.path("\(name).jsonl"), "--sink", "kafka",
      ]
      for property in EmbeddedBroker.consumerProperties { arguments += ["-X", "\(property.name)=\(property.value)"] }
      let result = runCaptured(arguments)
      #expect(result.exit == .ok, "\(result.errors)")
      return try directory.lines("\(name).jsonl").map(String.init)
    }

    func dryRun(_ name: String, _ rules: String, _ recording: String) throws -> [String] {
      let path = try write("\(name).rules", rules)
      let result = runCaptured([
        "dry-run", path, "--quiet", "--output", directory.path("\(name).jsonl"), "--input", "requests=\(recording)",
      ])
      #expect(result.exit == .ok, "\(result.errors)")
      return try directory.lines("\(name).jsonl").map(String.init)
    }

    func messages(_ topic: String) throws -> [KafkaMessage] {
      let reader = try KafkaTopicReader(brokers: brokers, topic: topic)
      var found: [KafkaMessage] = []
      while let message = try reader.next() { found.append(message) }
      return found.sorted { ($0.partition, $0.offset) < ($1.partition, $1.offset) }
    }

    func replay(_ arguments: [String]) -> (exit: ExitCode, output: String, errors: String) {
      let result = runCaptured(["replay", "--kafka", brokers] + arguments)
      return (result.exit, result.output, result.errors)
    }
  }

  private func metrics(_ lines: [String]) -> [String] { lines.filter { $0.contains("\"type\":\"metric\"") } }
  private func deadLetters(_ lines: [String]) -> [JSONValue] {
    lines.filter { $0.contains("\"type\":\"dead_letter\"") }.compactMap { JSONValue(Array($0.utf8)) }
  }

  @Test func badRecordsComeBackAfterTheFix() throws {
    let stage = try Stage()
    let first = try stage.run("first", Self.rules(latency: Self.strict), group: "one")
    let dead = deadLetters(first)
    #expect(dead.count == 10)
    for letter in dead {
      let offset = try #require(letter["labels"]?["offset"]?.text.flatMap { Int($0) })
      let partition = try #require(letter["labels"]?["partition"]?.text.flatMap { Int($0) })
      let index = offset * 2 + partition
      #expect(Self.isBad(index) && letter["rule"] == .string("requests"))
      #expect(letter["labels"]?["topic"] == .string("events"))
      #expect(letter["values"]?["payload"] == .string(Self.payload(index)))
      #expect(letter["values"]?["bytes"] == .number(Double(Self.payload(index).utf8.count)))
      #expect(letter["values"]?["key"] == .string("key \(index)"))
      #expect(letter["values"]?["replays"] == nil)
      #expect(letter["values"]?["reason"]?.text?.contains("latency") == true)
    }

    // Counting writes nothing.
    let counted = stage.replay(["--from", "rulesd.dead_letters", "--dry-run"])
    #expect(counted.exit == .ok && counted.output.contains("would replay         10  events  field"), "\(counted)")
    #expect(try stage.messages("events").count == 30)

    // To another topic: what the mended rules make of it is what they make of these records, had they been good.
    #expect(stage.replay(["--from", "rulesd.dead_letters", "--to", "elsewhere"]).exit == .ok)
    let bad = (0..<30).filter(Self.isBad).map(Self.payload).joined(separator: "\n")
    let expected = try stage.dryRun(
      "dry", Self.rules(latency: Self.mended), try stage.write("bad.jsonl", bad))
    let elsewhere = try stage.run(
      "elsewhere", Self.rules(topic: "elsewhere", latency: Self.mended), group: "two")
    #expect(metrics(expected).count == 2)
    #expect(metrics(elsewhere) == metrics(expected))

    // To a recording: the same.
    let recording = stage.directory.path("again.jsonl")
    #expect(stage.replay(["--from", "rulesd.dead_letters", "--to-file", recording]).exit == .ok)
    #expect(
      try metrics(stage.dryRun("again", Self.rules(latency: Self.mended), recording)) == metrics(expected))

    // Back to where they came from: the same partition, key and bytes.
    let back = stage.replay(["--from", "rulesd.dead_letters"])
    #expect(back.exit == .ok && back.output.contains("replayed         10  events"), "\(back)")
    let events = try stage.messages("events")
    #expect(events.count == 40)
    let again = events.filter { $0.offset >= 15 }
    for index in (0..<30).filter(Self.isBad) {
      let copies = again.filter { $0.payload == Array(Self.payload(index).utf8) }
      #expect(copies.count == 1 && copies.first?.partition == Int32(index % 2))
      #expect(copies.first?.key == Array("key \(index)".utf8))
    }
  }

  /// What fails again says how often it came back, and is left alone in the end.
  @Test func loopsEnd() throws {
    let stage = try Stage(count: 6)
    var counts: [Int] = []
    for round in 0..<4 {
      // Each group reads the topic from its beginning: the first copies, and all that came back.
      let dead = deadLetters(
        try stage.run("round\(round)", Self.rules(latency: Self.strict), group: "g\(round)"))
      counts.append(dead.count)
      let replays = dead.map { letter -> Int in
        if case .number(let count)? = letter["values"]?["replays"] { return Int(count) }
        return 0
      }
      #expect(replays.max() == round)
      // Replay those that have come back most often alone, out of a file.
      let newest = try stage.directory.lines("round\(round).jsonl").filter {
        round == 0 ? $0.contains("dead_letter") : $0.contains("\"replays\":\(round),")
      }
      #expect(newest.count == 2)
      let file = try stage.write("newest\(round).jsonl", newest.joined(separator: "\n"))
      let result = stage.replay([file])
      #expect(result.exit == (round < 3 ? .ok : .refused), "\(result)")
      if round == 3 { #expect(result.output.contains("left alone          2  events  replayed 3 times already")) }
      #expect(stage.replay([file, "--max-replays", "\(round + 1)", "-n"]).exit == .ok)
      if round > 0 { #expect(stage.replay([file, "--max-replays", "\(round)", "-n"]).exit == .refused) }
    }
    #expect(counts == [2, 4, 6, 8])
  }

  /// The records that a dry run makes of a recording are those of the topic that it was made from.
  @Test func aRecordingGivesTheSameDeadLetters() throws {
    let stage = try Stage()
    _ = stage.replay([])
    let live = try stage.run("live", Self.rules(latency: Self.strict), group: "one")
    let envelopes = try stage.messages("events").map { message -> String in
      var line: [UInt8] = []
      line.append(contentsOf: "{\"topic\":\"events\",\"partition\":\(message.partition),\"offset\":\(message.offset),".utf8)
      let index = Int(message.offset) * 2 + Int(message.partition)
      line.append(contentsOf: "\"tstype\":\"create\",\"ts\":\(Self.start + Int64(index)),\"headers\":[],\"key\":".utf8)
      line.append(jsonString: message.key ?? [])
      line.append(contentsOf: ",\"payload\":".utf8)
      line.append(jsonString: message.payload ?? [])
      line.append(contentsOf: "}".utf8)
      return String(decoding: line, as: UTF8.self)
    }
    let recording = try stage.write("events.jsonl", envelopes.joined(separator: "\n"))
    #expect(try stage.dryRun("dry", Self.rules(latency: Self.strict), recording) == live)
  }

  private static let letters = [
    #"{"type":"dead_letter","rule":"requests","time":"2026-11-21T03:00:00.000Z","labels":{"topic":"t","partition":"3","offset":"7"},"values":{"reason":"field `a`: is missing","bytes":2,"payload":"{}"},"id":"1"}"#,
    #"{"type":"dead_letter","rule":"orders","time":"2026-11-21T03:01:00.000Z","labels":{"topic":"t","partition":"0","offset":"8"},"values":{"reason":"not valid UTF-8","bytes":3,"key_base64":"//4=","payload_base64":"e//9"},"id":"2"}"#,
    #"{"type":"late","rule":"requests","time":"2026-11-21T02:00:00.000Z","labels":{"topic":"u","partition":"0","offset":"9"},"values":{"reason":"late","watermark":"2026-11-21T03:00:00.000Z","key":"k","replays":2,"payload":"{\"x\":\"é\"}"},"id":"3"}"#,
    #"{"type":"dead_letter","rule":"requests","time":null,"labels":{"topic":"t","partition":"0","offset":"9"},"values":{"reason":"line longer than 1 MiB","bytes":2000000,"payload":"{","truncated":true},"id":"4"}"#,
    #"{"type":"dead_letter","rule":"requests","time":null,"labels":{"topic":"t","partition":"0","offset":"10"},"values":{"reason":"no payload","bytes":0,"payload":""},"id":"5"}"#,
    #"{"type":"metric","rule":"rows","time":"2026-11-21T03:00:00.000Z","labels":{},"values":{"value":1},"id":"6"}"#,
    #"{"type":"dead_letter","rule":"requests","labels":{}}"#,
    "nonsense",
  ]

  @Test(arguments: [
    ([], 3, 2, 1, 2, ExitCode.refused),
    (["--reason", "missing"], 1, 0, 5, 2, .refused),
    (["--reason", "missing", "--reason", "UTF-8"], 2, 0, 4, 2, .refused),
    (["--rule", "orders"], 1, 0, 5, 2, .refused),
    (["--rule", "nobody"], 0, 0, 6, 2, .refused),
    (["--since", "2026-11-21T03:00:00Z"], 2, 0, 4, 2, .refused),
    (["--since", "2026-11-21T03:00:00.001Z"], 1, 0, 5, 2, .refused),
    (["--until", "2026-11-21T03:00:00Z"], 1, 0, 5, 2, .refused),
    (["--until", "2026-11-21T03:01:00Z", "--since", "2026-11-21T02:00:00Z"], 2, 0, 4, 2, .refused),
    (["--limit", "2"], 2, 0, 0, 0, .ok), (["--limit", "0"], 0, 0, 0, 0, .ok),
    (["--max-replays", "2"], 2, 3, 1, 2, .refused),
  ] as [([String], Int, Int, Int, Int, ExitCode)])
  func filters(
    _ options: [String], _ replayed: Int, _ refused: Int, _ passedOver: Int, _ unreadable: Int, _ exit: ExitCode
  ) throws {
    let directory = try TemporaryDirectory()
    try Self.letters.joined(separator: "\n").write(
      toFile: directory.path("dead.jsonl"), atomically: true, encoding: .utf8)
    let result = runCaptured(["replay", directory.path("dead.jsonl"), "--dry-run"] + options)
    #expect(result.exit == exit)
    let name = replayed == 0 ? "no records" : replayed == 1 ? "1 record" : "\(replayed) records"
    #expect(
      result.errors.contains(
        "\(name) to replay, \(refused) left alone, \(passedOver) not asked for, \(unreadable) unreadable"),
      "\(result.errors)")
  }

  /// Bytes and keys that are no text, and letters inside of `kcat -J`.
  @Test func bytesComeBackAsTheyWere() throws {
    let wrapped = Self.letters.prefix(3).map { letter -> String in
      var line = Array(#"{"topic":"rulesd.dead_letters","partition":0,"offset":1,"key":"x","payload":"#.utf8)
      line.append(jsonString: letter)
      return String(decoding: line + Array("}".utf8), as: UTF8.self)
    }
    for lines in [Array(Self.letters.prefix(3)), wrapped] {
      let letters = lines.compactMap { DeadLetter.read(Array($0.utf8)).letter }
      #expect(letters.map(\.payload) == [Array("{}".utf8), [0x7b, 0xff, 0xfd], Array(#"{"x":"é"}"#.utf8)])
      #expect(letters.map(\.key) == [[], [0xff, 0xfe], Array("k".utf8)])
      #expect(letters.map(\.replays) == [0, 0, 2])
      #expect(letters.map(\.partition) == [3, 0, 0] && letters.map(\.offset) == [7, 8, 9])
    }
  }

  @Test(arguments: [
    ("", []), ("QQ==", [65]), ("QUI=", [65, 66]), ("QUJD", [65, 66, 67]), ("/+8=", [255, 239]), ("Q", nil),
    ("QQ=", nil), ("Q===", nil), ("QU=D", nil), ("====", nil), ("QQ =", nil), ("QUJ\n", nil),
  ] as [(String, [UInt8]?)])
  func base64(_ text: String, _ bytes: [UInt8]?) { #expect(base64Bytes(text) == bytes) }

  @Test func everyByteComesBackFromBase64() {
    for count in 0..<70 {
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ count) }
      #expect(base64Bytes(Data(bytes).base64EncodedString()) == bytes)
    }
  }

  @Test(arguments: [
    [], ["a.jsonl", "--from", "t"], ["--from", "t"], ["/nowhere/x.jsonl", "-n"],
    ["--from", "t", "--kafka", "127.0.0.1:1", "--since", "yesterday"],
  ])
  func mistakes(_ arguments: [String]) {
    let result = runCaptured(["replay"] + arguments)
    #expect(result.exit == .usage && result.errors.hasPrefix("rulesd: "))
  }

  @Test func anUnknownTopicIsSaid() throws {
    let broker = try EmbeddedBroker()
    try broker.createTopic("known", partitions: 1)
    #expect(throws: KafkaFailure.self) {
      // The embedded broker makes topics that are asked for; a name that is none it cannot make.
      _ = try KafkaTopicReader(brokers: broker.bootstrapServers, topic: String(repeating: "x", count: 600) + "/ä")
    }
    #expect(try KafkaTopicReader(brokers: broker.bootstrapServers, topic: "known").next() == nil)
  }

  /// The clock of the environment paces; nothing sleeps for real.
  @Test func rateIsKept() throws {
    var now: Int64 = 5_000
    var slept: [Int64] = []
    let environment = CommandEnvironment(
      standardOutput: CapturedOutput(), standardError: CapturedOutput(), monotonicNanos: { now },
      sleep: {
        slept.append($0)
        now += max(0, $0)
      }, epochNanos: { 0 })
    final class Sink: ReplayTarget {
      func write(_ letter: DeadLetter, payload: [UInt8]) -> String? { nil }
      func finish() {}
    }
    var replay = Replay(environment: environment)
    replay.rate = 4
    replay.target = Sink()
    for _ in 0..<9 { try replay.take(Array(Self.letters[0].utf8)) }
    #expect(slept.isEmpty)
    try replay.finish()
    #expect(now == 5_000 + 2_000_000_000)
    #expect(slept.count == 9 && slept.allSatisfy { $0 <= 250_000_000 })
  }
}
