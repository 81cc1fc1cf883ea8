import CColumns
import Connectors
import Glibc
import Runtime

/// What is worth an audit line.
enum AuditAction: String, Sendable, CaseIterable {
  case start, stop, reload, restore
}

/// How it went, with the reason or the particulars in words.
enum AuditOutcome: Sendable {
  case done(String = "")
  /// Nothing was changed: rules that do not compile, a checkpoint that does not fit.
  case refused(String)
  /// It broke on the way.
  case failed(String)

  fileprivate var name: String {
    switch self {
    case .done: "done"
    case .refused: "refused"
    case .failed: "failed"
    }
  }

  fileprivate var detail: String {
    switch self {
    case .done(let text), .refused(let text), .failed(let text): text
    }
  }
}

/// One JSON line for each start, stop, reload and restore: who, what, which rules, and how it went.
///
/// Lines go to standard error, or are appended to a file that its owner alone may read; each in one write, so that
/// several daemons may share a file. A line that cannot be written is noted on standard error and stops nothing.
final class AuditLog: Sendable {
  /// Names of rules in one line; of longer lists the first, and how many there are.
  static let rulesMax = 1_000

  private let write: @Sendable ([UInt8]) throws -> Void
  private let note: @Sendable (String) -> Void
  private let clock: @Sendable () -> Int64
  private let user: (uid: UInt32, name: String)

  /// `write` takes a line with its end; `note` what is wrong with that.
  init(
    clock: @escaping @Sendable () -> Int64 = wallClockNanos, note: @escaping @Sendable (String) -> Void,
    write: @escaping @Sendable ([UInt8]) throws -> Void
  ) {
    self.write = write
    self.note = note
    self.clock = clock
    user = Self.processUser()
  }

  /// Appends to a file, made with mode 0600. Throws an environment failure when it cannot be opened.
  convenience init(path: String) throws(CommandFailure) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else {
      throw .environment("--audit-log: cannot open \(path): \(errorText(errno))")
    }
    let file = AuditFile(descriptor: descriptor, path: path)
    self.init(note: { text in
      let line = Array("rulesd: \(text)\n".utf8)
      _ = line.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }) { try file.append($0) }
  }

  /// Writes a line. `peer` is who asked over HTTP; without, the process itself did, or whoever signalled it.
  func record(
    _ action: AuditAction, by peer: HTTPPeer? = nil, revision: String, rules: [String], _ outcome: AuditOutcome
  ) {
    var line: [UInt8] = []
    func member(_ name: String, _ value: String) {
      line.append(contentsOf: ",\"\(name)\":".utf8)
      line.append(jsonString: value)
    }
    line.append(json: "{\"type\":\"audit\",\"time\":")
    line.append(jsonTime: clock())
    member("action", action.rawValue)
    line.append(contentsOf: ",\"who\":{\"uid\":\(user.uid)".utf8)
    member("user", user.name)
    if let peer {
      member("peer", peer.address)
      if let name = peer.tokenName { member("token", name) }
      if let subject = peer.certificateSubject { member("certificate", subject) }
    }
    line.append(json: "}")
    member("revision", revision)
    line.append(contentsOf: ",\"rule_count\":\(rules.count),\"rules\":[".utf8)
    for (index, rule) in rules.prefix(Self.rulesMax).enumerated() {
      if index > 0 { line.append(UInt8(ascii: ",")) }
      line.append(jsonString: rule)
    }
    line.append(json: "]")
    member("outcome", outcome.name)
    if !outcome.detail.isEmpty { member("detail", outcome.detail) }
    line.append(json: "}\n")
    do { try write(line) } catch { note("the audit line for \(action.rawValue) was not written: \(error)") }
  }

  private static func processUser() -> (uid: UInt32, name: String) {
    let uid = geteuid()
    var entry = passwd()
    var found: UnsafeMutablePointer<passwd>?
    var buffer = [CChar](repeating: 0, count: 16_384)
    let name = buffer.withUnsafeMutableBufferPointer { buffer -> String? in
      guard let base = buffer.baseAddress, getpwuid_r(uid, &entry, base, buffer.count, &found) == 0, found != nil
      else { return nil }
      return entry.pw_name.map { String(cString: $0) }
    }
    return (uid, name ?? "")
  }
}

/// Owns the file's descriptor.
private final class AuditFile: Sendable {
  private let descriptor: Int32
  private let path: String
  init(descriptor: Int32, path: String) {
    self.descriptor = descriptor
    self.path = path
  }
  deinit { close(descriptor) }

  func append(_ line: [UInt8]) throws {
    try writeAll(line, to: descriptor, called: path)
    // An audit line that a power cut takes away was never one; there are few of them.
    if fsync(descriptor) != 0, errno != EINVAL, errno != EROFS {
      throw CommandFailure.environment("cannot sync \(path): \(errorText(errno))")
    }
  }
}
