import Connectors

/// Options of every command that talks to brokers, behind `--kafka`.
let kafkaSecurityOptions: [OptionSpec] = [
  .flag("kafka-tls", "speak TLS with the brokers, trusting what the system trusts"),
  .option("kafka-tls-ca", "FILE", "speak TLS, trusting the certificates in this file"),
  .option("kafka-tls-cert", "FILE", "speak TLS, showing this client certificate"),
  .option("kafka-tls-key", "FILE", "the key to it"),
  .option("kafka-sasl-mechanism", "NAME", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; default SCRAM-SHA-512"),
  .option("kafka-sasl-user", "NAME", "who to log in as"),
  .option("kafka-sasl-password-file", "FILE", "a file whose only line is the password"),
  .option(
    "set", "NAME=VALUE", letter: "X", repeatable: true,
    "any librdkafka property; NAME=@FILE takes the value from a file, as secrets should be"),
]

/// The librdkafka properties that a command line asks for: those of the options first, then those of `-X`, which
/// override them. Notes what is unwise.
func kafkaProperties(
  _ arguments: ParsedArguments, _ environment: CommandEnvironment
) throws(CommandFailure) -> [KafkaProperty] {
  var properties: [KafkaProperty] = []
  func add(_ option: String, as name: String) -> Bool {
    guard let value = arguments.text(option) else { return false }
    properties.append(KafkaProperty(name, value))
    return true
  }
  var isEncrypted = arguments.flag("kafka-tls")
  if add("kafka-tls-ca", as: "ssl.ca.location") { isEncrypted = true }
  let hasCertificate = add("kafka-tls-cert", as: "ssl.certificate.location")
  let hasKey = add("kafka-tls-key", as: "ssl.key.location")
  guard hasCertificate == hasKey else {
    throw .usage("--kafka-tls-cert and --kafka-tls-key go together")
  }
  if hasCertificate { isEncrypted = true }
  let logsIn = try addLogin(arguments, &properties)
  switch (isEncrypted, logsIn) {
  case (true, true): properties.append(KafkaProperty("security.protocol", "sasl_ssl"))
  case (true, false): properties.append(KafkaProperty("security.protocol", "ssl"))
  case (false, true): properties.append(KafkaProperty("security.protocol", "sasl_plaintext"))
  case (false, false): break
  }
  for pair in try arguments.pairs("set") {
    properties.append(try property(pair.name, pair.value, environment))
  }
  let isPlain = properties.last { $0.name == "security.protocol" }?.value == "sasl_plaintext"
  if logsIn, isPlain {
    environment.note("warning: without --kafka-tls or --kafka-tls-ca whoever listens on the wire sees the login")
  }
  return properties
}

private func addLogin(
  _ arguments: ParsedArguments, _ properties: inout [KafkaProperty]
) throws(CommandFailure) -> Bool {
  let names = ["kafka-sasl-user", "kafka-sasl-password-file"]
  let given = names.filter { arguments.text($0) != nil }
  guard let user = arguments.text(names[0]), let path = arguments.text(names[1]) else {
    if let one = given.first {
      throw .usage("--\(one) needs --\(names.first { $0 != one } ?? "")")
    }
    if arguments.text("kafka-sasl-mechanism") != nil {
      throw .usage("--kafka-sasl-mechanism needs --kafka-sasl-user and --kafka-sasl-password-file")
    }
    return false
  }
  let mechanism =
    try arguments.choice("kafka-sasl-mechanism", among: ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    ?? "SCRAM-SHA-512"
  properties.append(KafkaProperty("sasl.mechanisms", mechanism))
  properties.append(KafkaProperty("sasl.username", user))
  properties.append(KafkaProperty("sasl.password", try secretLine(path), isSecret: true))
  return true
}

private func property(
  _ name: String, _ value: String, _ environment: CommandEnvironment
) throws(CommandFailure) -> KafkaProperty {
  guard value.hasPrefix("@") else {
    let property = KafkaProperty(name, value)
    if property.isSecret {
      environment.note(
        "warning: -X \(name): whoever may list this machine's processes can read the value; "
          + "write -X \(name)=@FILE")
    }
    return property
  }
  return KafkaProperty(name, try secretLine(String(value.dropFirst())), isSecret: true)
}

/// The text of a file that holds a secret; PEM keys may have several lines.
private func secretLine(_ path: String) throws(CommandFailure) -> String {
  do {
    let text = try Secret(file: path).bytes
    let bytes = text.starts(with: Array("-----BEGIN".utf8)) ? text : try Secret(lineOf: path).bytes
    guard let secret = String(validating: bytes, as: UTF8.self) else {
      throw CommandFailure.environment("\(path) does not hold text")
    }
    return secret
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw .environment("\(error)")
  }
}
