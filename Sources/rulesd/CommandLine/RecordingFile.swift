import Glibc

/// A file that is written front to back through a buffer of its own.
final class RecordingFile {
  /// Large enough that the calls cost nothing beside the bytes.
  private static let bufferBytes = 1 << 18
  private let path: String
  private var descriptor: Int32
  private var buffer: [UInt8] = []
  private(set) var bytesWritten = 0

  /// Replaces what is at `path`. Throws an environment failure.
  init(path: String) throws(CommandFailure) {
    self.path = path
    descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    if descriptor < 0 {
      throw .environment("cannot create \(path): \(errorText(errno))")
    }
    buffer.reserveCapacity(Self.bufferBytes + 4_096)
  }

  deinit {
    if descriptor >= 0 { close(descriptor) }
  }

  /// Appends a record and its line end.
  func append(line: some Collection<UInt8>) throws {
    try edit {
      $0.append(contentsOf: line)
      $0.append(UInt8(ascii: "\n"))
    }
  }

  /// Lets `body` append to the buffer.
  func edit(_ body: (inout [UInt8]) -> Void) throws {
    body(&buffer)
    if buffer.count >= Self.bufferBytes { try flush() }
  }

  private func flush() throws {
    try writeAll(buffer, to: descriptor, called: path)
    bytesWritten += buffer.count
    buffer.removeAll(keepingCapacity: true)
  }

  /// Writes what is left and closes. A recording that was not finished may lack its last records.
  func finish() throws {
    try flush()
    let result = close(descriptor)
    descriptor = -1
    if result != 0 { throw CommandFailure.environment("cannot write to \(path): \(errorText(errno))") }
  }
}

/// Makes a directory and those above it; one that is there already is fine. Throws an environment failure.
func makeDirectories(_ path: String) throws(CommandFailure) {
  var built = path.hasPrefix("/") ? "/" : ""
  for part in path.split(separator: "/") {
    built += built.isEmpty || built.hasSuffix("/") ? "\(part)" : "/\(part)"
    if mkdir(built, 0o755) != 0, errno != EEXIST {
      throw .environment("cannot make \(built): \(errorText(errno))")
    }
  }
}
