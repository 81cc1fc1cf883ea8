import Glibc

/// A secret from a file or the environment: passed on where it is needed, and never printed. Every way to turn it
/// into text says `(secret)`.
public struct Secret: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// For those who need it: a client library, a comparison. Not for a message.
  public let bytes: [UInt8]

  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  public var description: String { "(secret)" }
  public var debugDescription: String { "(secret)" }
  public var customMirror: Mirror { Mirror(self, children: []) }

  /// Most bytes of a file that holds a secret: certificates with their chains are the longest.
  public static let fileBytesMax = 1 << 20

  /// The content of a file as it is: a key, a certificate. Throws `SecretFailure`, which names the path and never
  /// the content.
  public init(file path: String) throws(SecretFailure) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SecretFailure("cannot read \(path): \(errnoText())") }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 16_384)
    while true {
      let count = read(descriptor, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw SecretFailure("cannot read \(path): \(errnoText())") }
      if count == 0 { break }
      bytes += buffer[..<count]
      guard bytes.count <= Self.fileBytesMax else {
        throw SecretFailure("\(path) is longer than \(Self.fileBytesMax >> 20) MiB: that is no secret")
      }
    }
    self.bytes = bytes
  }

  /// One line of text: a password, a token. White space at its ends is the editor's, not the secret's. Throws
  /// `SecretFailure` when nothing is left, or when there is a line end or a zero byte inside.
  public init(lineOf path: String) throws(SecretFailure) {
    let whole = try Secret(file: path).bytes
    let isBlank = { (byte: UInt8) in byte == 0x20 || (0x09...0x0d).contains(byte) }
    let line = Array(whole.drop(while: isBlank).reversed().drop(while: isBlank).reversed())
    guard !line.isEmpty else { throw SecretFailure("\(path) is empty") }
    guard !line.contains(where: { $0 == 0x0a || $0 == 0x0d || $0 == 0 }) else {
      throw SecretFailure("\(path) must hold one line of text")
    }
    self.bytes = line
  }

  /// Whether another text is this secret. Takes as long for a near miss as for a wild guess.
  public func matches(_ guess: some Collection<UInt8>) -> Bool {
    guard !bytes.isEmpty else { return false }
    var difference = UInt(bitPattern: guess.count ^ bytes.count)
    var place = 0
    for byte in guess {
      difference |= UInt(byte ^ bytes[place])
      place = place + 1 == bytes.count ? 0 : place + 1
    }
    return difference == 0
  }
}

/// A secret that cannot be had. Names where it should come from.
public struct SecretFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  init(_ description: String) { self.description = description }
}

/// Takes secrets out of texts that others wrote: librdkafka repeats what it was given when it does not like it.
struct Redactor: Sendable {
  private let secrets: [[UInt8]]

  /// Longest first, so that one that holds another goes whole.
  init(_ secrets: some Sequence<[UInt8]>) {
    self.secrets = secrets.filter { !$0.isEmpty }.sorted { $0.count > $1.count }
  }

  func callAsFunction(_ text: String) -> String {
    guard !secrets.isEmpty else { return text }
    var bytes = Array(text.utf8)
    for secret in secrets where bytes.count >= secret.count {
      var kept: [UInt8] = []
      var index = 0
      while index < bytes.count {
        if bytes[index...].starts(with: secret) {
          kept += Array("(secret)".utf8)
          index += secret.count
        } else {
          kept.append(bytes[index])
          index += 1
        }
      }
      bytes = kept
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
