import Runtime

/// Checkpoints in a PostgreSQL database, for daemons that have no disk of their own. Several groups and daemons may
/// share it.
///
/// A checkpoint is written in one transaction, its manifest last: it is there as a whole or not at all. Its sections
/// lie one behind the other in one row of bytes, cut into parts. Tables are made by the first `write`.
public final class PostgresCheckpointStore: CheckpointArchive {
  /// What this program writes and reads, in `rulesd_checkpoint_schema`.
  private static let schemaVersion: Int64 = 1
  /// One statement each: large enough to be few, small enough for the time-out on a slow line.
  private static let partBytes = 1 << 20
  private static let fileName = "parts"
  /// Of the lock that keeps two daemons from making the tables at once; any number that others do not use.
  private static let schemaLock: Int64 = 0x7275_6C65_7364

  private let location: PostgresLocation
  private let group: String
  private let limits: PostgresLimits
  private var connection: PostgresConnection?
  /// Names whose commit nobody knows the end of: they are not to be seen.
  private var abandoned: Set<String> = []
  /// Small sections share a part, and are read one after the other.
  private var lastPart: (name: String, part: Int, bytes: [UInt8])?

  public var place: String { location.shown }

  /// `uri` is libpq's `postgresql://…`; a password comes from where libpq looks for one (PGPASSFILE, ~/.pgpass,
  /// PGPASSWORD), and is refused in the URI. Nothing is connected before the first call.
  public init(uri: String, group: String, limits: PostgresLimits = PostgresLimits()) throws(CheckpointFailure) {
    location = try PostgresLocation(uri)
    guard !group.isEmpty, group.utf8.count <= 1_000 else {
      throw CheckpointFailure("the group's name is empty or longer than 1,000 bytes")
    }
    self.group = group
    self.limits = limits
  }

  /// Runs `body` with a connection, made when there is none. After any failure the next call makes a new one: the
  /// server may have gone, become read-only, or hold half a transaction.
  private func connected<T>(_ what: String, _ body: (PostgresConnection) throws -> T) throws -> T {
    do {
      let connection = try connection ?? PostgresConnection(location.uri, limits: limits)
      self.connection = connection
      return try body(connection)
    } catch {
      connection = nil
      throw CheckpointFailure(
        "\(what) (\(location.shown)): \(error)", mayPass: CheckpointFailure.mayPass(error))
    }
  }

  /// False when there are no tables yet; throws when they are of another version.
  private func hasSchema(_ connection: PostgresConnection) throws -> Bool {
    let found = try connection.execute("SELECT to_regclass('rulesd_checkpoint_schema') IS NOT NULL")
    guard found.bool(0, 0) == true else { return false }
    let version = try connection.execute("SELECT version FROM rulesd_checkpoint_schema").int(0, 0)
    guard version == Self.schemaVersion else {
      throw CheckpointFailure(
        "the tables have version \(version.map(String.init) ?? "none"); this program knows \(Self.schemaVersion)")
    }
    return true
  }

  private func makeSchema(_ connection: PostgresConnection) throws {
    if try hasSchema(connection) { return }
    // Of the session, not of a transaction: only the next transaction is sure to see what another has made meanwhile.
    _ = try connection.execute("SELECT pg_advisory_lock($1)", [.int(Self.schemaLock)])
    if try !hasSchema(connection) {
      _ = try connection.execute("BEGIN")
      for statement in [
        """
        CREATE TABLE rulesd_checkpoint (
          group_name text NOT NULL, name text NOT NULL, number bigint NOT NULL, created timestamptz NOT NULL,
          savepoint boolean NOT NULL, bytes bigint NOT NULL, manifest bytea NOT NULL,
          PRIMARY KEY (group_name, name))
        """,
        """
        CREATE TABLE rulesd_checkpoint_part (
          group_name text NOT NULL, name text NOT NULL, part bigint NOT NULL, data bytea NOT NULL,
          PRIMARY KEY (group_name, name, part))
        """,
        // The bytes are zstd already.
        "ALTER TABLE rulesd_checkpoint_part ALTER COLUMN data SET STORAGE EXTERNAL",
        "CREATE TABLE rulesd_checkpoint_schema (version bigint NOT NULL)",
      ] { _ = try connection.execute(statement) }
      _ = try connection.execute(
        "INSERT INTO rulesd_checkpoint_schema (version) VALUES ($1)", [.int(Self.schemaVersion)])
      _ = try connection.execute("COMMIT")
    }
    _ = try connection.execute("SELECT pg_advisory_unlock($1)", [.int(Self.schemaLock)])
  }

  // MARK: Writing

  public func store(_ manifest: CheckpointManifest, _ contents: [SectionContent]) throws -> CheckpointManifest {
    let name = manifest.name
    return try connected("checkpoint \(name) is not stored") { connection in
      guard isCheckpointName(name) else { throw CheckpointFailure("this is no name for a checkpoint") }
      try makeSchema(connection)
      _ = try connection.execute("BEGIN")
      for name in abandoned { try remove(name, connection) }
      var written = manifest
      let parts = PartWriter(connection: connection, group: group, name: name, partBytes: Self.partBytes)
      written.sections = try contents.map { try parts.write($0, file: Self.fileName) }
      try parts.flush()
      _ = try connection.execute(
        """
        INSERT INTO rulesd_checkpoint (group_name, name, number, created, savepoint, bytes, manifest)
        VALUES ($1, $2, $3, to_timestamp($4::bigint / 1e9), $5, $6, $7)
        """,
        [
          .text(group), .text(name), .int(Int64(clamping: manifest.number)), .int(manifest.createdNanos),
          .bool(manifest.isSavepoint), .int(Int64(written.storedBytes)), .bytes(try written.encoded()),
        ])
      // Should the answer be lost, the checkpoint may be there or not; nobody was told that it is.
      let before = abandoned
      abandoned.insert(name)
      _ = try connection.execute("COMMIT")
      abandoned.subtract(before.union([name]))
      return written
    }
  }

  private func remove(_ name: String, _ connection: PostgresConnection) throws {
    for table in ["rulesd_checkpoint", "rulesd_checkpoint_part"] {
      _ = try connection.execute(
        "DELETE FROM \(table) WHERE group_name = $1 AND name = $2", [.text(group), .text(name)])
    }
  }

  // MARK: Looking

  public func survey() throws -> [SurveyedCheckpoint] {
    try connected("the checkpoints cannot be listed") { connection in
      lastPart = nil
      guard try hasSchema(connection) else { return [] }
      let rows = try connection.execute(
        """
        SELECT name, CASE WHEN octet_length(manifest) <= $2 THEN manifest END FROM rulesd_checkpoint
        WHERE group_name = $1 ORDER BY number, name
        """, [.text(group), .int(Int64(CheckpointManifest.encodedBytesMax))])
      var found: [SurveyedCheckpoint] = []
      for row in 0..<rows.rowCount {
        guard let name = rows.text(row, 0), !abandoned.contains(name) else { continue }
        do {
          found.append(SurveyedCheckpoint(name: name, manifest: try decode(rows.bytes(row, 1), name)))
        } catch {
          found.append(SurveyedCheckpoint(name: name, problem: "\(error)"))
        }
      }
      return found
    }
  }

  private func decode(_ bytes: [UInt8]?, _ name: String) throws -> CheckpointManifest {
    guard let bytes else { throw CheckpointFailure("the manifest is too long") }
    let manifest = try CheckpointManifest(encoded: bytes)
    guard manifest.name == name else { throw CheckpointFailure("the manifest is that of \(manifest.name)") }
    return manifest
  }

  public func manifest(named name: String) throws -> CheckpointManifest? {
    guard isCheckpointName(name), !abandoned.contains(name) else { return nil }
    return try connected("checkpoint \(name) cannot be read") { connection in
      lastPart = nil
      guard try hasSchema(connection) else { return nil }
      let rows = try connection.execute(
        """
        SELECT CASE WHEN octet_length(manifest) <= $3 THEN manifest END FROM rulesd_checkpoint
        WHERE group_name = $1 AND name = $2
        """, [.text(group), .text(name), .int(Int64(CheckpointManifest.encodedBytesMax))])
      return rows.rowCount == 0 ? nil : try decode(rows.bytes(0, 0), name)
    }
  }

  public func readStored(
    _ section: StoredSection, of manifest: CheckpointManifest, _ take: (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    guard section.file == Self.fileName, section.offset >= 0, section.storedBytes >= 0,
      section.storedBytes <= 1 << 53, section.offset <= 1 << 53
    else { throw CheckpointFailure("the manifest says where no section can be") }
    var position = section.offset
    let end = section.offset + section.storedBytes
    while position < end {
      let part = try part(position / Self.partBytes, of: manifest.name)
      let start = position % Self.partBytes
      let count = min(end - position, part.count - start)
      guard count > 0 else { return }
      try part.withUnsafeBytes { try take(UnsafeRawBufferPointer(rebasing: $0[start..<start + count])) }
      position += count
    }
  }

  /// Empty when there is none.
  private func part(_ part: Int, of name: String) throws -> [UInt8] {
    if let lastPart, lastPart.name == name, lastPart.part == part { return lastPart.bytes }
    let bytes = try connected("checkpoint \(name) cannot be read") { connection in
      try connection.execute(
        """
        SELECT substring(data FROM 1 FOR \(Self.partBytes)) FROM rulesd_checkpoint_part
        WHERE group_name = $1 AND name = $2 AND part = $3
        """, [.text(group), .text(name), .int(Int64(part))]
      ).bytes(0, 0) ?? []
    }
    lastPart = (name, part, bytes)
    return bytes
  }

  public func damage(around manifest: CheckpointManifest) throws -> [String] {
    lastPart = nil
    let expected = manifest.sections.reduce(0) { max($0, $1.offset + $1.storedBytes) }
    let (bytes, parts) = try connected("checkpoint \(manifest.name) cannot be read") { connection in
      let found = try connection.execute(
        """
        SELECT coalesce(sum(octet_length(data)), 0)::bigint, count(*) FROM rulesd_checkpoint_part
        WHERE group_name = $1 AND name = $2
        """, [.text(group), .text(manifest.name)])
      return (found.int(0, 0) ?? 0, found.int(0, 1) ?? 0)
    }
    let expectedParts = (expected + Self.partBytes - 1) / Self.partBytes
    if bytes == Int64(expected), parts == Int64(expectedParts) { return [] }
    return ["\(parts) parts with \(bytes) bytes instead of \(expectedParts) with \(expected)"]
  }

  // MARK: Removing

  public func prune(keep: Int, alive: Set<String>) throws {
    let complete = try list()
    try connected("old checkpoints are not removed") { connection in
      let names = prunable(complete, keep: keep, alive: alive).map(\.name) + abandoned
      guard !names.isEmpty else { return }
      _ = try connection.execute("BEGIN")
      for name in names { try remove(name, connection) }
      _ = try connection.execute("COMMIT")
      abandoned = []
    }
  }
}

/// Puts the sections of a checkpoint one behind the other into parts of equal length.
private final class PartWriter {
  private let connection: PostgresConnection
  private let group: String
  private let name: String
  private let partBytes: Int
  private var buffer: [UInt8] = []
  private var partCount: Int64 = 0
  private var total = 0

  init(connection: PostgresConnection, group: String, name: String, partBytes: Int) {
    self.connection = connection
    self.group = group
    self.name = name
    self.partBytes = partBytes
  }

  func write(_ content: SectionContent, file: String) throws -> StoredSection {
    try StoredSection(storing: content, file: file, offset: total) { piece in
      var rest = piece
      while !rest.isEmpty {
        let taken = min(rest.count, self.partBytes - self.buffer.count)
        self.buffer.append(contentsOf: rest.prefix(taken))
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(taken))
        self.total += taken
        if self.buffer.count == self.partBytes { try self.flush() }
      }
    }
  }

  func flush() throws {
    guard !buffer.isEmpty else { return }
    _ = try connection.execute(
      "INSERT INTO rulesd_checkpoint_part (group_name, name, part, data) VALUES ($1, $2, $3, $4)",
      [.text(group), .text(name), .int(partCount), .bytes(buffer)])
    partCount += 1
    buffer.removeAll(keepingCapacity: true)
  }
}
