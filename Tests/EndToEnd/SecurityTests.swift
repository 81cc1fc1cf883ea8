import Connectors
import Foundation
import Runtime
import Testing

@testable import rulesd

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
    ["-X", "sasl.password=CANARY", "-X", "sasl.mechanisms=CANARY"],
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
    let result = runCaptured(["run", stage.rules, "--kafka", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--until-end"] + given)
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
    let program = try #require(try loadRules([stage.rules]).program)
    _ = program
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

  /// A broker that wants a login and refuses ours; what it says may repeat what it was sent.
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
      source a { kafka "../../etc/passwd"  dead_letter "/etc/passwd"  time ts  fields { ts: timestamp(ms), service: string } }
      stream minutes = a where matches(service, "/etc/passwd") | window tumbling 1m by service | aggregate n = count()
      alert Many { on minutes  when n > 1  annotations { summary: "file:///etc/passwd {n}" } }
      """
    try hostile.write(toFile: stage.directory.path("rules/a.rules"), atomically: true, encoding: .utf8)
    let refused = runCaptured(["run", stage.directory.path("rules"), "--kafka", "127.0.0.1:1", "--listen", "127.0.0.1:0",
      "--until-end", "--sink", "-"])
    #expect(!refused.output.contains("root:") && !refused.errors.contains("root:"))
    #expect(runCaptured(["explain", stage.directory.path("rules")]).output.contains("root:") == false)
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
    #expect(lines[0]["revision"] == lines[1]["revision"] && lines[0]["revision"]?.text?.count == 32)
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
