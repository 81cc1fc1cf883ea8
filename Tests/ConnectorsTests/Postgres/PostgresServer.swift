import Foundation
import Glibc
import Testing

/// A PostgreSQL server of a test's own, on a free port of 127.0.0.1 and in a directory that goes with it.
final class PostgresServer {
  static let password = "s3cret-horse"
  private let directory: String
  private let programs: String
  let port: Int
  private var process: Process?

  /// With the password in a file, as libpq wants it.
  var uri: String { "postgresql://rulesd@127.0.0.1:\(port)/postgres?passfile=\(directory)/passfile" }
  var uriWithoutPassword: String { "postgresql://rulesd@127.0.0.1:\(port)/postgres?passfile=/dev/null" }

  init() throws {
    let versions = (try? FileManager.default.contentsOfDirectory(atPath: "/usr/lib/postgresql")) ?? []
    let newest = try #require(versions.compactMap(Int.init).max(), "no PostgreSQL: run scripts/deps.sh")
    programs = "/usr/lib/postgresql/\(newest)/bin"
    directory = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-pg-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    port = try Self.freePort()
    try Self.password.write(toFile: "\(directory)/password", atomically: true, encoding: .utf8)
    try "127.0.0.1:\(port):*:rulesd:\(Self.password)\n".write(
      toFile: "\(directory)/passfile", atomically: true, encoding: .utf8)
    chmod("\(directory)/passfile", 0o600)
    // The server refuses to run as root.
    if getuid() == 0 {
      let user = try #require(getpwnam("postgres")).pointee
      chown(directory, user.pw_uid, user.pw_gid)
      chown("\(directory)/password", user.pw_uid, user.pw_gid)
    }
    let initdb = try start(
      "initdb", "-D", "\(directory)/data", "-U", "rulesd", "-A", "scram-sha-256", "--pwfile", "\(directory)/password",
      "--no-sync", "-E", "UTF8", "--locale=C")
    initdb.waitUntilExit()
    try #require(initdb.terminationStatus == 0, "initdb failed")
    try launch()
  }

  deinit {
    kill()
    try? FileManager.default.removeItem(atPath: directory)
  }

  private static func freePort() throws -> Int {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    return try withUnsafeMutablePointer(to: &address) {
      try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        try #require(bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0)
      }
      return Int(UInt16(bigEndian: $0.pointee.sin_port))
    }
  }

  private func start(_ program: String, _ arguments: String...) throws -> Process {
    let process = Process()
    var words = ["\(programs)/\(program)"] + arguments
    if getuid() == 0 { words = ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] + words }
    process.executableURL = URL(fileURLWithPath: words[0])
    process.arguments = Array(words.dropFirst())
    process.currentDirectoryURL = URL(fileURLWithPath: directory)
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    return process
  }

  /// Starts the server and waits until it takes connections.
  func launch() throws {
    let deadline = Date().addingTimeInterval(60)
    while Date() < deadline {
      if process?.isRunning != true {
        // After a kill the old one's memory may be in use a moment longer; then it ends at once.
        process = try start(
          "postgres", "-D", "\(directory)/data", "-p", "\(port)", "-k", directory, "-c", "listen_addresses=127.0.0.1",
          "-c", "fsync=off", "-c", "max_connections=10", "-c", "shared_buffers=4MB")
      }
      let probe = try start("pg_isready", "-h", "127.0.0.1", "-p", "\(port)", "-U", "rulesd", "-q")
      probe.waitUntilExit()
      if probe.terminationStatus == 0 { return }
      usleep(50_000)
    }
    Issue.record("the server does not start")
  }

  private var processes: [pid_t] {
    guard let main = process?.processIdentifier else { return [] }
    let children = (try? String(contentsOfFile: "/proc/\(main)/task/\(main)/children", encoding: .utf8)) ?? ""
    return [main] + children.split(separator: " ").compactMap { pid_t($0) }
  }

  /// At once, as a power cut would.
  func kill() {
    for process in processes { Glibc.kill(process, SIGKILL) }
    process?.waitUntilExit()
    process = nil
  }

  /// Connections stay, and nothing answers.
  func freeze() { for process in processes { Glibc.kill(process, SIGSTOP) } }
  func thaw() { for process in processes { Glibc.kill(process, SIGCONT) } }
}
