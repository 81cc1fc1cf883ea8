import CPq
import Glibc
import Runtime

/// How long a database may take before it counts as dead.
public struct PostgresLimits: Sendable {
  /// To connect, all addresses of the host together (the look-up of the host's name is the system's, and not counted).
  public var connectNanos: Int64 = 10_000_000_000
  /// For a statement.
  public var statementNanos: Int64 = 30_000_000_000
  public init() {}
}

/// A parameter of a statement.
enum PostgresValue {
  case text(String)
  case bytes([UInt8])
  case int(Int64)
  case bool(Bool)

  /// The type's number in every PostgreSQL (`pg_type.dat`).
  var type: Oid {
    switch self {
    case .bool: 16
    case .bytes: 17
    case .int: 20
    case .text: 25
    }
  }

  /// As the binary protocol wants it.
  func append(to bytes: inout [UInt8]) {
    switch self {
    case .bool(let value): bytes.append(value ? 1 : 0)
    case .bytes(let value): bytes += value
    case .int(let value): withUnsafeBytes(of: value.bigEndian) { bytes += $0 }
    case .text(let value): bytes += Array(value.utf8)
    }
  }
}

/// One connection. Nothing here waits without an end: libpq's own calls that do are not used.
///
/// After a failure the connection is of no more use: what was under way in it is unknown.
final class PostgresConnection {
  private let handle: OpaquePointer
  private let limits: PostgresLimits

  /// `location` is a `postgresql://` URI, already checked by `PostgresLocation`.
  init(_ location: String, limits: PostgresLimits) throws(CheckpointFailure) {
    self.limits = limits
    let settings = [
      ("dbname", location), ("fallback_application_name", "rulesd"), ("client_encoding", "UTF8"),
    ]
    let started = withCStrings(settings.map(\.0)) { names in
      withCStrings(settings.map(\.1)) { values in PQconnectStartParams(names, values, 1) }
    }
    guard let started else { throw CheckpointFailure("out of memory for a connection") }
    handle = started
    try connect()
    // The server gives up as well: a statement that nobody waits for must not hold locks.
    let millis = PostgresValue.text(String(max(1, limits.statementNanos / 1_000_000)))
    _ = try execute(
      """
      SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false),
        set_config('idle_in_transaction_session_timeout', $1, false)
      """, [millis])
    // A checkpoint that was told to be stored must survive the server's crash.
    _ = try execute(
      """
      SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
      """)
  }

  deinit { PQfinish(handle) }

  private func connect() throws(CheckpointFailure) {
    let deadline = monotonic() + limits.connectNanos
    var status = PGRES_POLLING_WRITING
    while status != PGRES_POLLING_OK {
      if PQstatus(handle) == CONNECTION_BAD || status == PGRES_POLLING_FAILED { throw failure() }
      let events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT
      guard try wait(for: Int16(events), until: deadline) != 0 else {
        throw CheckpointFailure("it does not answer: no connection after \(seconds(limits.connectNanos))", mayPass: true)
      }
      status = PQconnectPoll(handle)
    }
    if PQsetnonblocking(handle, 1) != 0 { throw failure() }
  }

  /// Runs one statement with its parameters; throws what the server or libpq says.
  func execute(_ statement: String, _ parameters: [PostgresValue] = []) throws(CheckpointFailure) -> PostgresResult {
    let deadline = monotonic() + limits.statementNanos
    if send(statement, parameters) == 0 { throw failure() }
    while true {
      let left = PQflush(handle)
      if left < 0 { throw failure() }
      if left == 0 { break }
      // A server that has something to say may not read on before it has said it.
      try consume(Int16(POLLIN | POLLOUT), until: deadline)
    }
    var last: PostgresResult?
    var problem: String?
    while true {
      while PQisBusy(handle) == 1 { try consume(Int16(POLLIN), until: deadline) }
      guard let result = PQgetResult(handle) else { break }
      let owned = PostgresResult(handle: result)
      problem = problem ?? owned.problem
      last = owned
    }
    if let problem { throw CheckpointFailure(problem, mayPass: true) }
    guard let last else { throw failure() }
    return last
  }

  private func send(_ statement: String, _ parameters: [PostgresValue]) -> Int32 {
    var bytes: [UInt8] = []
    var ends: [Int] = []
    for parameter in parameters {
      parameter.append(to: &bytes)
      ends.append(bytes.count)
    }
    // An empty value is not a null: it needs an address.
    bytes.append(0)
    return bytes.withUnsafeBytes { raw in
      let base = raw.baseAddress?.assumingMemoryBound(to: CChar.self)
      let starts = [0] + ends.dropLast()
      let values = zip(starts, ends).map { start, _ in base.map { $0 + start } }
      let lengths = zip(starts, ends).map { Int32(clamping: $1 - $0) }
      return PQsendQueryParams(
        handle, statement, Int32(parameters.count), parameters.map(\.type), values, lengths,
        parameters.map { _ in 1 }, 1)
    }
  }

  /// Waits for the socket and takes in what came.
  private func consume(_ events: Int16, until deadline: Int64) throws(CheckpointFailure) {
    let ready = try wait(for: events, until: deadline)
    guard ready != 0 else {
      throw CheckpointFailure(
        "it does not answer: a statement took more than \(seconds(limits.statementNanos))", mayPass: true)
    }
    if ready & Int16(POLLIN | POLLHUP | POLLERR) != 0, PQconsumeInput(handle) == 0 { throw failure() }
  }

  /// What the socket is ready for; 0 when the deadline has passed.
  private func wait(for events: Int16, until deadline: Int64) throws(CheckpointFailure) -> Int16 {
    while true {
      let left = deadline - monotonic()
      var entry = pollfd(fd: PQsocket(handle), events: events, revents: 0)
      let count = poll(&entry, 1, Int32(clamping: max(0, (left + 999_999) / 1_000_000)))
      if count > 0 { return entry.revents }
      if count < 0, errno != EINTR { throw CheckpointFailure("poll: \(errnoText())", mayPass: true) }
      if left <= 0 { return 0 }
    }
  }

  private func failure() -> CheckpointFailure {
    CheckpointFailure(oneLine(PQerrorMessage(handle).map { String(cString: $0) } ?? ""), mayPass: true)
  }

  private func monotonic() -> Int64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
  }

  private func seconds(_ nanos: Int64) -> String {
    nanos % 1_000_000_000 == 0 ? "\(nanos / 1_000_000_000) s" : "\(nanos / 1_000_000) ms"
  }
}

/// What a statement gave; cells are read as the binary protocol sends them.
final class PostgresResult {
  private let handle: OpaquePointer

  fileprivate init(handle: OpaquePointer) { self.handle = handle }

  deinit { PQclear(handle) }

  /// Nil when the statement succeeded.
  fileprivate var problem: String? {
    switch PQresultStatus(handle) {
    case PGRES_COMMAND_OK, PGRES_TUPLES_OK: nil
    default: oneLine(PQresultErrorMessage(handle).map { String(cString: $0) } ?? "")
    }
  }

  var rowCount: Int { Int(PQntuples(handle)) }

  /// Lends a cell; nil for null, and for a cell that is not there.
  func withCell<T>(_ row: Int, _ column: Int, _ body: (UnsafeRawBufferPointer) throws -> T) rethrows -> T? {
    guard row < rowCount, column < PQnfields(handle), PQgetisnull(handle, Int32(row), Int32(column)) == 0,
      let value = PQgetvalue(handle, Int32(row), Int32(column))
    else { return nil }
    return try body(UnsafeRawBufferPointer(start: value, count: Int(PQgetlength(handle, Int32(row), Int32(column)))))
  }

  func bytes(_ row: Int, _ column: Int) -> [UInt8]? { withCell(row, column) { Array($0) } }

  func text(_ row: Int, _ column: Int) -> String? {
    withCell(row, column) { String(decoding: $0, as: UTF8.self) }
  }

  /// An integer of any width; nil also for other types.
  func int(_ row: Int, _ column: Int) -> Int64? {
    withCell(row, column) { cell -> Int64? in
      guard [2, 4, 8].contains(cell.count) else { return nil }
      let negative = cell[0] & 0x80 != 0
      return cell.reduce(negative ? -1 : 0) { $0 << 8 | Int64($1) }
    }.flatMap { $0 }
  }

  func bool(_ row: Int, _ column: Int) -> Bool? { withCell(row, column) { $0.first == 1 } }
}

/// Messages of libpq have several lines, and a hint or a detail in each.
private func oneLine(_ text: String) -> String {
  let lines = text.split(whereSeparator: \.isNewline).map { line in
    String(line.drop(while: \.isWhitespace))
  }
  return lines.isEmpty ? "the connection is gone" : lines.joined(separator: "; ")
}

/// Lends texts as the null-ended list that C wants.
private func withCStrings<T>(_ texts: [String], _ body: ([UnsafePointer<CChar>?]) -> T) -> T {
  let copies = texts.map { strdup($0) }
  defer { for copy in copies { free(copy) } }
  return body(copies.map { UnsafePointer($0) } + [nil])
}
