import Foundation
import Glibc
import Testing

@testable import Connectors

/// Certificates made by the system's openssl, once for all tests: an authority, a server's and a client's from it, and
/// a client's from nobody.
private struct Certificates {
  let directory: URL
  static let made: Certificates? = try? Certificates()

  init() throws {
    directory = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-tls-\(getpid())")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    try run(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-subj", "/CN=authority", "-keyout", path("ca.key"), "-out", path("ca.pem")])
    try run(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-subj", "/CN=stranger", "-keyout", path("stranger.key"), "-out", path("stranger.pem")])
    for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
      try Data("extendedKeyUsage=\(usage)\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n".utf8)
        .write(to: directory.appendingPathComponent("\(name).ext"))
      try run(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
        "/O=search/CN=\(name)", "-keyout", path("\(name).key"), "-out", path("\(name).csr")])
      try run(["x509", "-req", "-in", path("\(name).csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
        "-CAcreateserial", "-days", "2", "-extfile", path("\(name).ext"), "-out", path("\(name).pem")])
    }
  }

  func path(_ name: String) -> String { directory.appendingPathComponent(name).path }
  func secret(_ name: String) throws -> Secret { try Secret(file: path(name)) }

  private func run(_ arguments: [String]) throws {
    let result = try output(of: "/usr/bin/openssl", arguments)
    try #require(result.status == 0, "openssl \(arguments.joined(separator: " ")): \(result.text)")
  }
}

private func output(of program: String, _ arguments: [String], input: String = "") throws -> (status: Int32, text: String) {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: program)
  process.arguments = arguments
  let out = Pipe()
  let into = Pipe()
  process.standardOutput = out
  process.standardError = out
  process.standardInput = into
  try process.run()
  into.fileHandleForWriting.write(Data(input.utf8))
  try into.fileHandleForWriting.close()
  let text = out.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  return (process.terminationStatus, String(decoding: text, as: UTF8.self))
}

/// One request over TLS, through `openssl s_client`.
private func askTLS(_ port: UInt16, _ path: String, _ more: [String] = [], headers: String = "") throws -> String {
  let certificates = try #require(Certificates.made)
  return try output(
    of: "/usr/bin/openssl",
    ["s_client", "-quiet", "-verify_return_error", "-CAfile", certificates.path("ca.pem"), "-connect",
      "127.0.0.1:\(port)"] + more,
    input: "GET \(path) HTTP/1.1\r\nHost: localhost\r\n\(headers)Connection: close\r\n\r\n").text
}

@Suite struct HTTPSecurityTests {
  private static let token = "0123456789abcdef-canary"
  private static let close = "Host: x\r\nConnection: close\r\n\r\n"

  private func serve(
    _ limits: HTTPLimits = .init(), _ prepare: (inout HTTPSecurity) throws -> Void = { _ in }
  ) throws -> HTTPServer {
    var security = HTTPSecurity()
    try prepare(&security)
    return try HTTPServer(bind: "127.0.0.1", port: 0, limits: limits, security: security) { request in
      let peer = request.peer
      let who = "\(peer.address) \(peer.tokenName ?? "-") \(peer.certificateSubject ?? "-")"
      return .text("\(request.method) \(request.path) \(request.body.count) \(who)\n")
    }
  }

  @Test(arguments: [
    ("GET /metrics", "", 401), ("GET /healthz", "", 200), ("HEAD /metrics", "", 401), ("POST /-/reload", "", 401),
    ("GET /metrics", "Authorization: Bearer \(token)\r\n", 200),
    ("GET /metrics", "authorization: bearer   \(token)\r\n", 200),
    ("POST /-/reload", "Authorization: Bearer \(token)\r\n", 200),
    ("GET /metrics", "Authorization: Bearer \(token)x\r\n", 401),
    ("GET /metrics", "Authorization: Bearer \(token.dropLast())\r\n", 401),
    ("GET /metrics", "Authorization: Bearer \(token)\(token)\r\n", 401),
    ("GET /metrics", "Authorization: Bearer \r\n", 401), ("GET /metrics", "Authorization: Bearer\r\n", 401),
    ("GET /metrics", "Authorization: Basic \(token)\r\n", 401), ("GET /healthz/", "", 401),
    ("GET /%68ealthz", "", 200), ("GET //healthz", "", 401), ("GET /metrics?token=\(token)", "", 401),
  ])
  func tokensOpenAllButHealth(_ request: String, _ headers: String, _ status: Int) throws {
    let server = try serve {
      $0.token = Secret(Array(Self.token.utf8))
      $0.tokenName = "ci"
    }
    defer { server.stop() }
    let answer = httpExchange(server.port, "\(request) HTTP/1.1\r\n\(headers)\(Self.close)")
    #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
    #expect(answer.contains("WWW-Authenticate: Bearer\r\n") == (status == 401))
    #expect(!answer.contains(Self.token))
    if !headers.isEmpty, status == 200, request.hasPrefix("GET") { #expect(answer.hasSuffix("127.0.0.1 ci -\n")) }
  }

  @Test func bodiesAreBounded() throws {
    var limits = HTTPLimits()
    limits.bodyBytesMax = 1_000
    let server = try serve(limits)
    defer { server.stop() }
    func post(_ length: Int) -> String {
      httpExchange(
        server.port,
        "POST /x HTTP/1.1\r\nContent-Length: \(length)\r\n\(Self.close)" + String(repeating: "b", count: length))
    }
    #expect(post(0).contains("POST /x 0 "))
    #expect(post(999).contains("POST /x 999 "))
    #expect(post(1_000).contains("POST /x 1000 "))
    #expect(post(1_001).hasPrefix("HTTP/1.1 413 "))
    for length in ["-1", "1e3", "99999999999999999999"] {
      let answer = httpExchange(server.port, "POST /x HTTP/1.1\r\nContent-Length: \(length)\r\n\(Self.close)")
      #expect(!answer.contains("POST /x"), "\(length): \(answer)")
    }
    func chunked(_ length: Int) -> String {
      let chunk = String(length, radix: 16) + "\r\n" + String(repeating: "b", count: length) + "\r\n0\r\n\r\n"
      return httpExchange(server.port, "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\(Self.close)\(chunk)")
    }
    #expect(chunked(1_000).contains("POST /x 1000 "))
    #expect(!chunked(1_001).contains("200 OK"))
    // A body behind a GET is read, bounded and dropped.
    let get = httpExchange(server.port, "GET /x HTTP/1.1\r\nContent-Length: 5\r\n\(Self.close)hello")
    #expect(get.contains("GET /x 0 "))
  }

  @Test func connectionsAreBounded() throws {
    var limits = HTTPLimits()
    limits.connectionsMax = 3
    limits.idleSeconds = 30
    let server = try serve(limits)
    defer { server.stop() }
    let request = "GET /x HTTP/1.1\r\n\(Self.close)"
    var held: [Int32] = []
    defer { for descriptor in held { Glibc.close(descriptor) } }
    for _ in 0..<2 { held.append(openConnection(server.port)) }
    // One below the limit there is room for one more.
    #expect(httpExchange(server.port, request).contains("GET /x"))
    held.append(openConnection(server.port))
    usleep(200_000)
    // Connections beyond the limit are not served until one of the others ends.
    let late = openConnection(server.port)
    defer { Glibc.close(late) }
    sendText(late, request)
    #expect(!hasAnswer(late, millis: 500))
    Glibc.close(held.removeLast())
    let served = hasAnswer(late, millis: 10_000) || httpExchange(server.port, request).contains("GET /x")
    #expect(served)
  }

  @Test func silentConnectionsAreClosed() throws {
    var limits = HTTPLimits()
    limits.idleSeconds = 1
    let server = try serve(limits)
    defer { server.stop() }
    let descriptor = openConnection(server.port)
    defer { Glibc.close(descriptor) }
    sendText(descriptor, "GET /x HT")
    var byte: UInt8 = 0
    // Ends: by an answer that says so (408) or by nothing at all.
    while recv(descriptor, &byte, 1, 0) > 0 {}
  }

  @Test(.enabled(if: Certificates.made != nil, "needs openssl"))
  func speaksTLSAndKnowsClients() throws {
    let certificates = try #require(Certificates.made)
    let server = try serve {
      $0.certificate = try certificates.secret("server.pem")
      $0.key = try certificates.secret("server.key")
      $0.clientAuthorities = try certificates.secret("ca.pem")
    }
    defer { server.stop() }
    func client(_ name: String) -> [String] {
      ["-cert", certificates.path("\(name).pem"), "-key", certificates.path("\(name).key")]
    }
    #expect(try askTLS(server.port, "/healthz").contains("GET /healthz"))
    #expect(try askTLS(server.port, "/metrics").contains("401 Unauthorized"))
    let known = try askTLS(server.port, "/metrics", client("client"))
    #expect(known.contains("200 OK") && known.contains("CN=client") && known.contains("O=search"), "\(known)")
    // Signed by nobody we trust; and ours, but made for servers.
    for name in ["stranger", "server"] {
      let answer = try askTLS(server.port, "/metrics", client(name))
      #expect(answer.contains("401 Unauthorized"), "\(name): \(answer)")
    }
    #expect(!(try askTLS(server.port, "/healthz", ["-no_tls1_3", "-no_tls1_2"]).contains("200 OK")))
    #expect(!httpExchange(server.port, "GET /healthz HTTP/1.1\r\n\(Self.close)").contains("200 OK"))
  }

  @Test(.enabled(if: Certificates.made != nil, "needs openssl"))
  func aTokenOrACertificateIsEnough() throws {
    let certificates = try #require(Certificates.made)
    let server = try serve {
      $0.certificate = try certificates.secret("server.pem")
      $0.key = try certificates.secret("server.key")
      $0.clientAuthorities = try certificates.secret("ca.pem")
      $0.token = Secret(Array(Self.token.utf8))
      $0.tokenName = "ci"
    }
    defer { server.stop() }
    #expect(try askTLS(server.port, "/x").contains("401 Unauthorized"))
    #expect(try askTLS(server.port, "/x", headers: "Authorization: Bearer \(Self.token)\r\n").contains(" ci -"))
    let client = ["-cert", certificates.path("client.pem"), "-key", certificates.path("client.key")]
    #expect(try askTLS(server.port, "/x", client).contains("GET /x 0 127.0.0.1 - "))
  }

  @Test(.enabled(if: Certificates.made != nil, "needs openssl"))
  func keysThatDoNotFitAreRefused() throws {
    let certificates = try #require(Certificates.made)
    for (certificate, key, authority) in [
      ("server.pem", "client.key", nil), ("server.key", "server.key", nil), ("server.pem", "server.pem", nil),
      ("server.pem", nil, nil), (nil, "server.key", nil), (nil, nil, "ca.pem"), ("server.pem", "server.key", "ca.key"),
    ] as [(String?, String?, String?)] {
      let failure = #expect(throws: HTTPFailure.self) {
        try serve {
          $0.certificate = try certificate.map(certificates.secret)
          $0.key = try key.map(certificates.secret)
          $0.clientAuthorities = try authority.map(certificates.secret)
        }.stop()
      }
      #expect(failure?.description.contains("PRIVATE KEY") == false)
    }
  }
}

@Suite struct SecretTests {
  private func file(_ bytes: [UInt8], _ body: (String) throws -> Void) throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-secret-\(UInt64.random(in: 0...(.max)))")
    try Data(bytes).write(to: url)
    defer { try? FileManager.default.removeItem(at: url) }
    try body(url.path)
  }

  @Test(arguments: [
    ("canary", "canary"), ("canary\n", "canary"), (" \tcan ary\r\n", "can ary"), ("", nil), ("\n \n", nil),
    ("one\ntwo\n", nil), ("a\0b", nil),
  ] as [(String, String?)])
  func lines(_ content: String, _ expected: String?) throws {
    try file(Array(content.utf8)) { path in
      let secret = try? Secret(lineOf: path)
      #expect(secret?.bytes == expected.map { Array($0.utf8) })
      if expected == nil {
        let failure = #expect(throws: SecretFailure.self) { try Secret(lineOf: path) }
        #expect(failure?.description.contains(path) == true && failure?.description.contains("one\n") == false)
      }
    }
  }

  @Test func filesAreBounded() throws {
    for (count, isTaken) in [
      (Secret.fileBytesMax - 1, true), (Secret.fileBytesMax, true), (Secret.fileBytesMax + 1, false),
    ] {
      try file([UInt8](repeating: 0x61, count: count)) { path in
        #expect(((try? Secret(file: path)) != nil) == isTaken, "\(count)")
      }
    }
    #expect(throws: SecretFailure.self) { try Secret(file: "/nowhere/at/all") }
    #expect(throws: SecretFailure.self) { try Secret(file: "/") }
  }

  @Test func neverShows() {
    let secret = Secret(Array("canary".utf8))
    var dumped = ""
    dump(secret, to: &dumped)
    for text in ["\(secret)", String(reflecting: secret), dumped, "\([secret])", "\(Optional(secret) as Any)"] {
      #expect(!text.contains("canary") && !text.contains("99"), "\(text)")
    }
  }

  @Test func comparesWhole() {
    let secret = Secret(Array("canary".utf8))
    #expect(secret.matches(Array("canary".utf8)))
    for guess in ["", "canar", "canaryc", "canarycanary", "Canary", "canarz"] {
      #expect(!secret.matches(Array(guess.utf8)), "\(guess)")
    }
    #expect(!Secret([]).matches([UInt8]()))
  }

  @Test func redacts() {
    let redact = Redactor(["pass", "password", ""].map { Array($0.utf8) })
    #expect(redact("no value \"password\" or pass here") == "no value \"(secret)\" or (secret) here")
    #expect(redact("pas") == "pas")
    #expect(Redactor([])("pass") == "pass")
  }

  @Test(arguments: [
    ("sasl.password", true), ("ssl.key.password", true), ("ssl.keystore.password", true), ("ssl.key.pem", true),
    ("sasl.oauthbearer.client.secret", true), ("sasl.oauthbearer.config", true), ("ssl.key.location", false),
    ("sasl.username", false), ("bootstrap.servers", false),
  ])
  func propertiesThatHoldSecrets(_ name: String, _ isSecret: Bool) {
    let property = KafkaProperty(name, "canary")
    #expect(property.isSecret == isSecret)
    #expect("\(property)".contains("canary") != isSecret)
  }
}
