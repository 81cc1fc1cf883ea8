import Connectors
import Foundation
import Planner
import Runtime
import Testing

@testable import rulesd

/// What a local server answers to one request.
private func localAnswer(_ port: UInt16, _ head: String) -> String {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  defer { close(descriptor) }
  var name = sockaddr_in()
  name.sin_family = sa_family_t(AF_INET)
  name.sin_port = port.bigEndian
  inet_pton(AF_INET, "127.0.0.1", &name.sin_addr)
  let isConnected = withUnsafePointer(to: &name) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
    }
  }
  guard isConnected else { return "refused" }
  let request = Array((head + "Connection: close\r\n\r\n").utf8)
  _ = send(descriptor, request, request.count, Int32(MSG_NOSIGNAL))
  var answer: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4_096)
  while true {
    let count = recv(descriptor, &buffer, buffer.count, 0)
    guard count > 0 else { return String(decoding: answer, as: UTF8.self) }
    answer += buffer[..<count]
  }
}

/// Secrets stay secret, and what is done to the daemon leaves a line.
@Suite struct SecurityTests {
  private static let canary = "cAnArY-7f3a9b12c4d5e6f7"
  private static let rules = """
    source requests { kafka "events"  time ts  fields { ts: timestamp(ms), service: string } }
    stream minutes = requests | window tumbling 1m by service | aggregate n = count()
    metric rows = minutes.n
    alert Many { on minutes  when n > 100 }
    """

  private struct Stage {
    let directory: TemporaryDirectory
    let rules: String
    let secret: String
    init() throws {
      directory = try TemporaryDirectory()
      rules = directory.path("a.rules")
      secret = directory.path("secret")
      try SecurityTests.rules.write(toFile: rules, atomically: true, encoding: .utf8)
      try (SecurityTests.canary + "\n").write(toFile: secret, atomically: true, encoding: .utf8)
    }
  }

  /// Every way to give a secret, wrong ones included: no output of ours repeats it.
  @Test(arguments: [
    ["-X", "sasl.password=CANARY", "-X", "nonsense=1"],
    ["-X", "sasl.password=@FILE", "-X", "nonsense=1"],
    ["-X", "enable.idempotence=@FILE"],
    ["-X", "security.protocol=@FILE"],
    ["-X", "ssl.key.password=@FILE", "-X", "security.protocol=ssl", "--kafka-tls-ca", "FILE"],
    ["-X", "ssl.key.pem=CANARY", "-X", "security.protocol=ssl"],
    ["-X", "ssl.key.pem=@FILE", "-X", "security.protocol=ssl"],
    ["-X", "sasl.password=CANARY", "-X", "sasl.mechanisms=CANARY", "-X", "security.protocol=sasl_plaintext"],
    ["-X", "sasl.password=@FILE", "-X", "sasl.username=u", "-X", "security.protocol=nonsense"],
    ["--kafka-sasl-user", "u", "--kafka-sasl-password-file", "FILE", "--kafka-sasl-mechanism", "NONE"],
    ["--kafka-sasl-user", "u", "--kafka-sasl-password-file", "FILE", "--kafka-tls-ca", "/nowhere"],
    ["--http-token-file", "FILE", "--http-tls-cert", "FILE", "--http-tls-key", "FILE"],
    ["--http-token-file", "FILE", "--http-client-ca", "FILE"],
    ["--http-token-file", "FILE", "--listen", "999.0.0.1:0"],
  ])
  func noErrorRepeatsASecret(_ options: [String]) throws {
    let stage = try Stage()
    let given = options.map {
      $0.replacingOccurrences(of: "CANARY", with: Self.canary).replacingOccurrences(of: "FILE", with: stage.secret)
    }
    let listen = options.contains("--listen") ? [] : ["--listen", "127.0.0.1:0"]
    let result = runCaptured(["run", stage.rules, "--kafka", "127.0.0.1:1"] + listen + given)
    #expect(result.exit == .usage)
    #expect(!result.errors.isEmpty && !result.output.contains(Self.canary))
    #expect(!result.errors.contains(Self.canary), "\(result.errors)")
    let isLiteral = options.contains { $0.hasPrefix("sasl.password=CANARY") || $0.hasPrefix("ssl.key.pem=CANARY") }
    #expect(result.errors.contains("whoever may list this machine's processes") == isLiteral)
  }

  /// Secrets in use: nothing that a running daemon says or serves holds them.
  @Test func aRunningDaemonKeepsItsSecrets() throws {
    let stage = try Stage()
    let broker = try EmbeddedBroker()
    for topic in ["events", "rulesd.metrics", "rulesd.alerts"] { try broker.createTopic(topic, partitions: 1) }
    let writer = try KafkaWriter(brokers: broker.bootstrapServers)
    for second in 0..<200 {
      try writer.write(
        topic: "events", key: [],
        payload: Array("{\"ts\":\(1_795_230_000_000 + second * 1_000),\"service\":\"a\"}".utf8), timestampMillis: 0)
    }
    try writer.flush()
    // A password that this broker does not ask for is carried all the same.
    var options = ["-X", "sasl.password=@\(stage.secret)", "-X", "ssl.key.password=@\(stage.secret)", "-X", "debug=conf"]
    for property in EmbeddedBroker.consumerProperties { options += ["-X", "\(property.name)=\(property.value)"] }
    let result = runCaptured(
      [
        "run", stage.rules, "--kafka", broker.bootstrapServers, "--until-end", "--listen", "127.0.0.1:0",
        "--http-token-file", stage.secret, "--sink", stage.directory.path("out.jsonl"), "--audit-log",
        stage.directory.path("audit.jsonl"),
      ] + options)
    #expect(result.exit == .ok, "\(result.errors)")
    let written = try ["out.jsonl", "audit.jsonl"].map {
      try String(contentsOfFile: stage.directory.path($0), encoding: .utf8)
    }
    #expect(written.allSatisfy { !$0.isEmpty })
    for text in written + [result.output, result.errors, "\(HTTPSecurity())"] { #expect(!text.contains(Self.canary)) }
    var security = HTTPSecurity()
    security.token = try Secret(lineOf: stage.secret)
    var dumped = ""
    dump(security, to: &dumped)
    dump(RunSetup(brokers: "", group: "", workers: 1, httpSecurity: security), to: &dumped)
    #expect(!dumped.contains(Self.canary) && !"\(security)".contains(Self.canary))
  }

  /// Every path of the HTTP face of a daemon whose brokers cannot be reached, and so has something to complain about.
  @Test func noAnswerHoldsASecret() throws {
    let stage = try Stage()
    let program = try #require(try loadRules([stage.rules]).program)
    let errors = CapturedOutput()
    let process = CommandEnvironment.process()
    let environment = CommandEnvironment(
      standardOutput: errors, standardError: errors, monotonicNanos: process.monotonicNanos, sleep: process.sleep,
      epochNanos: process.epochNanos)
    var setup = RunSetup(
      brokers: "127.0.0.1:1", group: "g",
      properties: [
        KafkaProperty("security.protocol", "sasl_plaintext"), KafkaProperty("sasl.mechanisms", "PLAIN"),
        KafkaProperty("sasl.username", "u"), KafkaProperty("sasl.password", Self.canary, isSecret: true),
      ], workers: 1)
    setup.httpSecurity.token = Secret(Array(Self.canary.utf8))
    setup.httpSecurity.tokenName = "token"
    var answers: [String: String] = [:]
    var turns = 0
    try runDaemon(
      setup, graph: buildPlan(program).lower(), sink: try JSONLinesSink(path: stage.directory.path("out")),
      listen: ("127.0.0.1", 0), environment
    ) {
      turns += 1
      let port = errors.text.components(separatedBy: "listening on http://127.0.0.1:").dropFirst().first
        .flatMap { UInt16($0.prefix { $0.isNumber }) }
      guard let port else { return turns > 1_000 }
      for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/nowhere", "/\(Self.canary)x"] {
        for header in ["", "Authorization: Bearer \(Self.canary)\r\n", "Authorization: Bearer wrong\r\n"] {
          answers["\(path) \(header)"] = localAnswer(port, "GET \(path) HTTP/1.1\r\nHost: x\r\n\(header)")
        }
      }
      // Until the brokers have been missed.
      return turns > 1_000 || answers.contains { $0.key.hasPrefix("/readyz Auth") && $0.value.contains("broker") }
    }
    #expect(answers.count == 21 && answers.values.contains { $0.contains("HTTP/1.1 401") })
    #expect(answers.contains { $0.key.hasPrefix("/readyz") && $0.value.contains("HTTP/1.1 503") })
    #expect(answers.contains { $0.key.hasPrefix("/metrics") && $0.value.contains("rulesd_uptime_seconds") })
    for (request, answer) in answers { #expect(!answer.contains(Self.canary), "\(request)\n\(answer)") }
    #expect(!errors.text.contains(Self.canary))
  }

  @Test func explainCheckAndHelpKnowNoSecrets() throws {
    let stage = try Stage()
    for command in [["explain", stage.rules], ["check", stage.rules], ["run", "--help"], ["replay", "--help"]] {
      let result = runCaptured(command)
      #expect(!result.output.contains(Self.canary) && !result.errors.contains(Self.canary))
    }
  }

  @Test(arguments: [
    (["--listen", "0.0.0.0:0"], "whoever reaches 0.0.0.0 may ask everything"),
    (["--listen", "0.0.0.0:0", "--http-token-file", "FILE"], "sees the token"),
    (["--listen", "127.0.0.1:0"], nil), (["--listen", "127.1.2.3:0"], nil), (["--listen", "0"], nil),
    (["--kafka-sasl-user", "u", "--kafka-sasl-password-file", "FILE"], "sees the login"),
    (["--kafka-sasl-user", "u", "--kafka-sasl-password-file", "FILE", "-X", "security.protocol=sasl_ssl"], nil),
  ] as [([String], String?)])
  func unwiseSettingsAreNoted(_ options: [String], _ warning: String?) throws {
    let stage = try Stage()
    let given = options.map { $0 == "FILE" ? stage.secret : $0 }
    // A property that does not exist ends the run before it begins.
    let result = runCaptured(["run", stage.rules, "--kafka", "127.0.0.1:1", "-X", "nonsense=1"]
      + (options.contains("--listen") ? [] : ["--listen", "127.0.0.1:0"]) + given + ["--sink", "-"])
    #expect(result.exit == .usage)
    if let warning {
      #expect(result.errors.contains("warning: ") && result.errors.contains(warning), "\(result.errors)")
    } else {
      #expect(!result.errors.contains("warning: "), "\(result.errors)")
    }
  }

  @Test(arguments: [
    (["--kafka-tls-cert", "FILE"], "go together"), (["--kafka-sasl-user", "u"], "needs --kafka-sasl-password-file"),
    (["--kafka-sasl-password-file", "FILE"], "needs --kafka-sasl-user"),
    (["--kafka-sasl-mechanism", "PLAIN"], "needs --kafka-sasl-user"), (["--http-tls-cert", "FILE"], "go together"),
    (["--http-client-ca", "FILE"], "needs --http-tls-cert"), (["--http-token-file", "SHORT"], "can be guessed"),
    (["--http-token-file", "/nowhere"], "cannot read /nowhere"), (["-X", "sasl.password=@/nowhere"], "cannot read"),
    (["--memory-limit", "much"], "is not a size"), (["--key-limit", "0"], "is not a whole number"),
    (["--audit-log", "/nowhere/at/all"], "cannot open /nowhere/at/all"),
  ])
  func mistakesAreNamed(_ options: [String], _ message: String) throws {
    let stage = try Stage()
    try "123456789012345".write(toFile: stage.directory.path("short"), atomically: true, encoding: .utf8)
    let given = options.map {
      $0 == "FILE" ? stage.secret : $0 == "SHORT" ? stage.directory.path("short") : $0
    }
    let result = runCaptured(["run", stage.rules, "--kafka", "127.0.0.1:1", "--listen", "127.0.0.1:0"] + given)
    #expect(result.exit == .usage && result.errors.contains(message), "\(result.errors)")
  }

  /// Paths in a rule file are texts to it: topics and members, never files.
  @Test func rulesReachNoFiles() throws {
    let stage = try Stage()
    try FileManager.default.createDirectory(
      atPath: stage.directory.path("rules"), withIntermediateDirectories: true)
    let hostile = """
      source a {
        kafka "etc.passwd"  dead_letter kafka "etc.passwd"
        time ts
        fields { ts: timestamp(ms), service: string from "/etc/passwd" = "none" }
      }
      stream minutes = a where matches(service, "/etc/passwd") | window tumbling 1m by service | aggregate n = count()
      alert Many { on minutes  when n > 1  annotations { summary: "file:///etc/passwd {n}" } }
      """
    try hostile.write(toFile: stage.directory.path("rules/a.rules"), atomically: true, encoding: .utf8)
    let before = try Data(contentsOf: URL(fileURLWithPath: "/etc/passwd"))
    let user = String(decoding: before.prefix { $0 != 0x0a }, as: UTF8.self)
    try "{\"ts\":1795230000000,\"service\":\"/etc/passwd\"}\nbad\n".write(
      toFile: stage.directory.path("in.jsonl"), atomically: true, encoding: .utf8)
    for command in [
      ["explain", stage.directory.path("rules")], ["check", stage.directory.path("rules")],
      [
        "dry-run", stage.directory.path("rules"), "--input", "a=\(stage.directory.path("in.jsonl"))", "--output",
        stage.directory.path("out.jsonl"),
      ],
    ] {
      let result = runCaptured(command)
      #expect(result.exit == .ok, "\(result.errors)")
      #expect(!result.output.contains(user) && !result.errors.contains(user))
    }
    let written = try String(contentsOfFile: stage.directory.path("out.jsonl"), encoding: .utf8)
    #expect(!user.isEmpty && !written.isEmpty && !written.contains(user))
    #expect(try Data(contentsOf: URL(fileURLWithPath: "/etc/passwd")) == before)
    // A topic is no path.
    for topic in ["../../etc/passwd", "/etc/passwd", "..", "file:///etc/passwd"] {
      let source = hostile.replacingOccurrences(of: "kafka \"etc.passwd\"", with: "kafka \"\(topic)\"")
      try source.write(toFile: stage.directory.path("rules/a.rules"), atomically: true, encoding: .utf8)
      let result = runCaptured(["check", stage.directory.path("rules")])
      #expect(result.exit == .refused && result.output.contains("is no Kafka topic"), "\(topic): \(result.output)")
    }
    // No statement of the language takes another file in.
    for statement in ["include \"/etc/passwd\"", "import \"/etc/passwd\"", "let x = file(\"/etc/passwd\")"] {
      try (hostile + "\n" + statement).write(
        toFile: stage.directory.path("rules/a.rules"), atomically: true, encoding: .utf8)
      #expect(runCaptured(["check", stage.directory.path("rules")]).exit == .refused)
    }
  }

  // MARK: Audit

  @Test func auditLinesSayWhoAndWhat() throws {
    final class Lines: @unchecked Sendable { var all: [[UInt8]] = [] }
    let lines = Lines()
    let audit = AuditLog(clock: { 1_795_230_000_000_000_000 }, note: { _ in }) { lines.all.append($0) }
    audit.record(.start, revision: "r1", rules: ["a", "b\"c"], .done())
    audit.record(
      .reload, by: HTTPPeer(address: "10.0.0.7", tokenName: "ci", certificateSubject: "CN=ci"), revision: "r2", rules: [],
      .refused("1 error\nin a.rules"))
    audit.record(.restore, revision: "r3", rules: (0..<2_000).map { "r\($0)" }, .failed("no"))
    #expect(lines.all.allSatisfy { $0.last == 0x0a && $0.dropLast().allSatisfy { $0 != 0x0a } })
    let read = try lines.all.map { try #require(JSONValue($0)) }
    #expect(read[0]["type"] == .string("audit") && read[0]["action"] == .string("start"))
    #expect(read[0]["time"] == .string("2026-11-21T03:00:00.000Z"))
    #expect(read[0]["who"]?["uid"] == .number(Double(geteuid())) && read[0]["who"]?["peer"] == nil)
    #expect(read[0]["rules"] == .array([.string("a"), .string("b\"c")]) && read[0]["outcome"] == .string("done"))
    #expect(read[1]["who"]?["peer"] == .string("10.0.0.7") && read[1]["who"]?["token"] == .string("ci"))
    #expect(read[1]["who"]?["certificate"] == .string("CN=ci") && read[1]["revision"] == .string("r2"))
    #expect(read[1]["outcome"] == .string("refused") && read[1]["detail"] == .string("1 error\nin a.rules"))
    guard case .array(let rules)? = read[2]["rules"] else { throw SourceFailure("no rules") }
    #expect(rules.count == AuditLog.rulesMax && read[2]["rule_count"] == .number(2_000))
  }

  @Test func auditFilesAreAppendedToAndPrivate() throws {
    let stage = try Stage()
    let path = stage.directory.path("audit.jsonl")
    for _ in 0..<2 { try AuditLog(path: path).record(.start, revision: "r", rules: [], .done()) }
    #expect(try stage.directory.lines("audit.jsonl").count == 2)
    var status = stat()
    #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
    // A link that somebody left there is not followed.
    symlink("/dev/null", stage.directory.path("link"))
    #expect(throws: CommandFailure.self) { try AuditLog(path: stage.directory.path("link")) }
  }

  @Test func startAndStopAreAudited() throws {
    let stage = try Stage()
    let broker = try EmbeddedBroker()
    try broker.createTopic("events", partitions: 1)
    var options = ["--until-end", "--listen", "127.0.0.1:0", "--sink", stage.directory.path("out")]
    for property in EmbeddedBroker.consumerProperties { options += ["-X", "\(property.name)=\(property.value)"] }
    let result = runCaptured(["run", stage.rules, "--kafka", broker.bootstrapServers] + options)
    #expect(result.exit == .ok, "\(result.errors)")
    let lines = result.errors.split(separator: "\n").compactMap { JSONValue(Array($0.utf8)) }
    #expect(lines.map { $0["action"] } == [.string("start"), .string("stop")])
    #expect(lines.allSatisfy { $0["rules"] == .array([.string("rows"), .string("Many")]) })
    #expect(lines[0]["revision"] == lines[1]["revision"] && lines[0]["revision"]?.text?.count == 16)
  }

  @Test func revisionsFollowTheBytes() {
    func revision(_ files: [(String, String)]) -> String {
      ruleRevision(files.map { RuleFileBytes(path: $0.0, name: String($0.0.split(separator: "/").last ?? ""), bytes: Array($0.1.utf8)) })
    }
    #expect(revision([("a", "x"), ("b", "y")]) == revision([("/c/a", "x"), ("/c/b", "y")]))
    let different = [
      revision([("a", "x"), ("b", "y")]), revision([("a", "y"), ("b", "x")]), revision([("a", "xy"), ("b", "")]),
      revision([("a", "xy")]), revision([]), revision([("a", "x "), ("b", "y")]),
    ]
    #expect(Set(different).count == different.count)
  }
}
