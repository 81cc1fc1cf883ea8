import Connectors

/// Options of the HTTP face, beside `--listen`.
let httpFaceOptions: [OptionSpec] = [
  .option("http-token-file", "FILE", "ask for this bearer token, everywhere but on /healthz"),
  .option("http-tls-cert", "FILE", "speak HTTPS, with this certificate (PEM, with its chain)"),
  .option("http-tls-key", "FILE", "the key to it (PEM)"),
  .option(
    "http-client-ca", "FILE",
    "let in who shows a certificate from one of these (PEM), everywhere but on /healthz; "
      + "with a token as well, one of the two is enough"),
]

/// Who may use the HTTP face, as the command line says it. Notes what is unwise for an address that others reach.
func httpSecurity(
  _ arguments: ParsedArguments, host: String, _ environment: CommandEnvironment
) throws(CommandFailure) -> HTTPSecurity {
  var security = HTTPSecurity()
  func file(_ option: String) throws(CommandFailure) -> Secret? {
    guard let path = arguments.text(option) else { return nil }
    do { return try Secret(file: path) } catch { throw .environment("--\(option): \(error)") }
  }
  if let path = arguments.text("http-token-file") {
    do { security.token = try Secret(lineOf: path) } catch { throw .environment("--http-token-file: \(error)") }
    guard let token = security.token, token.bytes.count >= httpTokenBytesMin else {
      throw .environment(
        "--http-token-file: a token of fewer than \(httpTokenBytesMin) characters can be guessed",
        hint: "openssl rand -hex 32 makes a good one")
    }
    security.tokenName = String(path.split(separator: "/").last ?? "token")
  }
  security.certificate = try file("http-tls-cert")
  security.key = try file("http-tls-key")
  security.clientAuthorities = try file("http-client-ca")
  if (security.certificate == nil) != (security.key == nil) {
    throw .usage("--http-tls-cert and --http-tls-key go together")
  }
  if security.clientAuthorities != nil, !security.isEncrypted {
    throw .usage("--http-client-ca needs --http-tls-cert and --http-tls-key")
  }
  if !isLoopback(host) {
    if !security.isRestricted {
      environment.note(
        "warning: whoever reaches \(host) may ask everything; --http-token-file or --http-client-ca keep them out")
    } else if !security.isEncrypted {
      environment.note(
        "warning: without --http-tls-cert whoever listens on the wire to \(host) sees the token")
    }
  }
  return security
}

/// A shorter token can be found by trying.
private let httpTokenBytesMin = 16

func isLoopback(_ host: String) -> Bool { host.hasPrefix("127.") || host == "localhost" }
