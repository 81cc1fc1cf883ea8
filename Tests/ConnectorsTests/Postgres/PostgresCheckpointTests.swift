import Foundation
import Testing

@testable import Connectors
@testable import Runtime

private struct Noise: StateCapture {
  var keyCount: Int
  var bytes: [UInt8]
  func encode(into writer: StateWriter) { bytes.withUnsafeBytes { writer.append(raw: $0) } }
}

private func noise(_ count: Int, _ random: inout SplitMix) -> [UInt8] {
  (0..<(count + 7) / 8).flatMap { _ in withUnsafeBytes(of: random.next()) { Array($0) } }.dropLast((8 - count % 8) % 8)
}

private func sections(_ sizes: [Int], seed: UInt64) -> [StateSection] {
  var random = SplitMix(state: seed)
  return sizes.enumerated().map { index, size in
    StateSection(
      operatorID: "o\(index)",
      scope: index % 2 == 0 ? .keys(0..<128) : .partition(source: "s é", topic: "t", partition: Int32(index)),
      capture: Noise(keyCount: size, bytes: noise(size, &random)))
  }
}

private func manifest(_ number: UInt64, isSavepoint: Bool = false) -> CheckpointManifest {
  CheckpointManifest(
    name: checkpointName(number: number, suffix: 0xAB), number: number, createdNanos: 1_795_230_000_123_456_789,
    group: "g", revision: "r", workers: 2, isSavepoint: isSavepoint,
    partitions: [StoredPartition(source: "s", topic: "t", partition: 0, offset: .max, watermark: .min)])
}

/// Hands on `before` bytes, does `happens`, and goes on.
private func interrupted(before: Int, after: Int, _ happens: @escaping () -> Void) -> SectionContent {
  SectionContent(operatorID: "o", scope: .keys(0..<256), keys: 1) { take in
    let piece = [UInt8](repeating: 7, count: 1 << 20)
    for _ in 0..<before { try piece.withUnsafeBytes(take) }
    happens()
    for _ in 0..<after { try piece.withUnsafeBytes(take) }
    return (before + after) << 20
  }
}

private func expectStored(_ store: any CheckpointArchive, _ manifest: CheckpointManifest, _ parts: [StateSection]) throws {
  let written = try store.write(manifest, parts)
  #expect(try store.manifest(named: manifest.name) == written)
  for (stored, section) in zip(written.sections, parts) {
    let same = try store.read(stored, of: written) == (section.capture as? Noise)?.bytes
    #expect(same)
  }
  #expect(try store.problems(of: written) == [])
}

@Suite(.serialized) struct PostgresCheckpointTests {
  /// Also through the parts' ends, and from another connection.
  @Test func roundTripsAndPrunes() throws {
    let server = try PostgresServer()
    let store = try PostgresCheckpointStore(uri: server.uri, group: "gröup '; --")
    // Looking makes no tables.
    #expect(try store.list() == [])
    #expect(try store.manifest(named: manifest(1).name) == nil)
    try store.prune(keep: 1, alive: [])
    try expectStored(store, manifest(1), [])
    try expectStored(store, manifest(2, isSavepoint: true), sections([0, 1, 500], seed: 1))
    try expectStored(store, manifest(10), sections([1 << 20, 3_000_000, 0, 7, 2_000_001, 90], seed: 2))
    for number in 11...14 { try expectStored(store, manifest(UInt64(number)), sections([100], seed: UInt64(number))) }
    #expect(throws: CheckpointFailure.self) { try store.write(manifest(14), []) }

    let other = try PostgresCheckpointStore(uri: server.uri, group: "gröup '; --")
    #expect(try other.list().map(\.number) == [1, 2, 10, 11, 12, 13, 14])
    #expect(try other.list() == store.list())
    for found in try other.list() { #expect(try other.problems(of: found) == []) }
    let stranger = try PostgresCheckpointStore(uri: server.uri, group: "another")
    #expect(try stranger.list() == [])
    try stranger.prune(keep: 0, alive: [])

    try store.prune(keep: 2, alive: [manifest(10).name])
    #expect(try other.list().map(\.number) == [2, 10, 13, 14])
    for found in try other.list() { #expect(try other.problems(of: found) == []) }
    try store.prune(keep: 0, alive: [])
    #expect(try other.list().map(\.number) == [2])
  }

  @Test func damageIsSeen() throws {
    let server = try PostgresServer()
    let store = try PostgresCheckpointStore(uri: server.uri, group: "g")
    let written = try store.write(manifest(1), sections([100, 2_500_000], seed: 3))
    let connection = try PostgresConnection(server.uri, limits: PostgresLimits())
    func expectDamaged(_ statement: String) throws {
      _ = try connection.execute("CREATE TABLE kept AS TABLE rulesd_checkpoint_part")
      _ = try connection.execute(statement)
      let fresh = try PostgresCheckpointStore(uri: server.uri, group: "g")
      #expect(try !fresh.problems(of: written).isEmpty, "\(statement)")
      #expect(throws: CheckpointFailure.self, "\(statement)") {
        for section in written.sections { _ = try fresh.read(section, of: written) }
      }
      _ = try connection.execute("DELETE FROM rulesd_checkpoint_part")
      _ = try connection.execute("INSERT INTO rulesd_checkpoint_part SELECT * FROM kept")
      _ = try connection.execute("DROP TABLE kept")
      #expect(try fresh.problems(of: written) == [])
    }
    try expectDamaged("UPDATE rulesd_checkpoint_part SET data = set_byte(data, 50, 1 + get_byte(data, 50) % 255) WHERE part = 0")
    try expectDamaged("UPDATE rulesd_checkpoint_part SET data = set_byte(data, 9, 1 + get_byte(data, 9) % 255) WHERE part = 2")
    try expectDamaged("DELETE FROM rulesd_checkpoint_part WHERE part = 1")
    try expectDamaged("DELETE FROM rulesd_checkpoint_part WHERE part = 2")
    try expectDamaged("UPDATE rulesd_checkpoint_part SET data = substring(data FROM 2)")
    _ = try connection.execute("UPDATE rulesd_checkpoint SET manifest = set_byte(manifest, 30, 1)")
    #expect(try store.list() == [])
    #expect(try store.survey().map { $0.problem != nil } == [true])
    #expect(throws: CheckpointFailure.self) { try store.manifest(named: written.name) }

    _ = try connection.execute("UPDATE rulesd_checkpoint_schema SET version = 2")
    let failure = #expect(throws: CheckpointFailure.self) { try store.write(manifest(2), []) }
    #expect(failure?.description.contains("the tables have version 2; this program knows 1") == true)
  }

  /// Killed, or silent, in the middle of a write: a failure, nothing that looks like a checkpoint, and when the server
  /// is back everything goes on.
  @Test func aServerThatDies() throws {
    let server = try PostgresServer()
    var limits = PostgresLimits()
    limits.connectNanos = 500_000_000
    limits.statementNanos = 1_500_000_000
    let store = try PostgresCheckpointStore(uri: server.uri, group: "g", limits: limits)
    try expectStored(store, manifest(1), sections([5_000], seed: 4))

    for (number, before) in zip(UInt64(2)..., [0, 3, 6]) {
      #expect(throws: CheckpointFailure.self) {
        try store.store(manifest(number), [interrupted(before: before, after: 6 - before) { server.kill() }])
      }
      let away = #expect(throws: CheckpointFailure.self) { try store.write(manifest(number), []) }
      #expect(away?.description.contains("Connection refused") == true, "\(String(describing: away))")
      #expect(throws: CheckpointFailure.self) { try store.list() }
      #expect(throws: CheckpointFailure.self) { try store.prune(keep: 1, alive: []) }
      try server.launch()
      #expect(try store.list().map(\.number) == [1])
      // The same name again.
    }
    try expectStored(store, manifest(2), sections([5_000], seed: 5))

    let silent = #expect(throws: CheckpointFailure.self) {
      try store.store(manifest(3), [interrupted(before: 2, after: 4) { server.freeze() }])
    }
    #expect(silent?.description.contains("a statement took more than 1500 ms") == true, "\(String(describing: silent))")
    let deaf = #expect(throws: CheckpointFailure.self) { try store.list() }
    #expect(deaf?.description.contains("no connection after 500 ms") == true, "\(String(describing: deaf))")
    server.thaw()
    #expect(try store.list().map(\.number) == [1, 2])
    try expectStored(store, manifest(3), sections([5_000], seed: 6))

    // Somebody's lock is no reason to hang either.
    let locker = try PostgresConnection(server.uri, limits: PostgresLimits())
    _ = try locker.execute("BEGIN")
    _ = try locker.execute("LOCK TABLE rulesd_checkpoint")
    #expect(throws: CheckpointFailure.self) { try store.write(manifest(4), []) }
    _ = try locker.execute("ROLLBACK")
    try expectStored(store, manifest(4), [])
    // A database that takes no writes: a standby, or one that an administrator has closed.
    _ = try locker.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    let fresh = try PostgresCheckpointStore(uri: server.uri, group: "g", limits: limits)
    let closed = #expect(throws: CheckpointFailure.self) { try fresh.write(manifest(5), []) }
    #expect(closed?.description.contains("read-only transaction") == true, "\(String(describing: closed))")
    #expect(try fresh.list().map(\.number) == [1, 2, 3, 4])
  }

  @Test func daemonsThatStartTogetherMakeTheTablesOnce() async throws {
    let server = try PostgresServer()
    let uri = server.uri
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 1...4 {
        group.addTask {
          let store = try PostgresCheckpointStore(uri: uri, group: "g\(number)")
          try expectStored(store, manifest(UInt64(number)), sections([1_000], seed: 1))
        }
      }
      try await group.waitForAll()
    }
  }

  @Test func passwordsStayWhereTheyBelong() throws {
    let server = try PostgresServer()
    let refused = try PostgresCheckpointStore(uri: server.uriWithoutPassword, group: "g")
    let failure = #expect(throws: CheckpointFailure.self) { try refused.list() }
    #expect(failure?.description.contains("no password supplied") == true, "\(String(describing: failure))")
    #expect(failure?.description.contains("passfile") == false)
    for uri in [
      "postgresql://rulesd:\(PostgresServer.password)@127.0.0.1:1/db",
      "postgresql://127.0.0.1/db?password=\(PostgresServer.password)",
      "postgresql://127.0.0.1/db?sslpassword=\(PostgresServer.password)",
      "postgresql://rulesd:\(PostgresServer.password)@127.0.0.1:1/db?nonsense=1",
      "postgresql://rulesd:\(PostgresServer.password)@[::1/db", "mysql://rulesd:\(PostgresServer.password)@host/db",
    ] {
      let failure = #expect(throws: CheckpointFailure.self) { try openCheckpointStore(uri, group: "g") }
      #expect(failure?.description.contains(PostgresServer.password) == false)
    }
  }

  @Test(arguments: [
    ("/var/lib/rulesd", "/var/lib/rulesd"), ("state", "state"), ("file:/var/x", "/var/x"), ("file:///var/x", "/var/x"),
    ("file:state", "state"), ("postgresql://u@db:5433/x?sslmode=require", "postgresql://u@db:5433/x"),
    ("postgres:///x", "postgresql:///x"),
  ])
  func locations(_ location: String, _ place: String) throws {
    #expect(try openCheckpointStore(location, group: "g").place == place)
  }

  @Test(arguments: ["", "file:", "file://host/x", "s3://bucket", "//x"])
  func otherLocations(_ location: String) {
    #expect(throws: CheckpointFailure.self) { try openCheckpointStore(location, group: "g") }
  }
}
