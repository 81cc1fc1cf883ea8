import Glibc
import Runtime
import Synchronization

/// Writes records as JSON lines to standard output or a file, in the order in which they come.
///
/// Lines are gathered in a buffer of 64 KiB and written when it is full and at each flush; a line is never
/// torn between two files' worth of output, but a reader of a pipe may see it in two parts. `complete` writes
/// everything that is there, which may be more than it has to.
public final class JSONLinesSink: RecordSink {
  private let descriptor: Int32
  private let name: String
  private let ownsDescriptor: Bool
  private let syncs: Bool
  private static let bufferBytes = 64 * 1024

  private struct State {
    var buffer: [UInt8] = []
    var isClosed = false
    var recordCount = 0
    var byteCount = 0
  }
  /// `complete` comes while another thread writes.
  private let state = Mutex(State())

  /// Records and bytes written so far.
  public var recordCount: Int { state.withLock { $0.recordCount } }
  public var byteCount: Int { state.withLock { $0.byteCount } }

  /// Standard output. A reader that goes away is a `SinkFailure` with `isClosedPipe`, not a signal: SIGPIPE
  /// is ignored from here on.
  public init() {
    signal(SIGPIPE, SIG_IGN)
    descriptor = STDOUT_FILENO
    name = "standard output"
    ownsDescriptor = false
    syncs = false
    state.withLock { $0.buffer.reserveCapacity(Self.bufferBytes) }
  }

  /// A file, made anew or, with `appends`, continued. With `syncs`, `flush` waits until the disk has it.
  public init(path: String, appends: Bool = false, syncs: Bool = false) throws {
    let flags = O_WRONLY | O_CREAT | O_CLOEXEC | (appends ? O_APPEND : O_TRUNC)
    descriptor = open(path, flags, 0o644)
    name = path
    ownsDescriptor = true
    self.syncs = syncs
    guard descriptor >= 0 else { throw SinkFailure("cannot write to \(path): \(errnoText())") }
    state.withLock { $0.buffer.reserveCapacity(Self.bufferBytes) }
  }

  deinit { close() }

  public func write(_ batch: OutputBatch) throws {
    try state.withLock { state in
      for entry in batch.entries {
        state.buffer.append(contentsOf: batch.bytes[entry.start..<entry.start + entry.length])
        state.buffer.append(0x0a)
        state.recordCount += 1
        if state.buffer.count >= Self.bufferBytes { try drain(&state) }
      }
    }
  }

  public func flush() throws {
    try state.withLock { try drain(&$0) }
    // Not under the lock: a disk may take its time, and lines go on meanwhile.
    if syncs && fdatasync(descriptor) != 0 && errno != EINVAL && errno != EROFS {
      throw SinkFailure("cannot write to \(name): \(errnoText())")
    }
  }

  public var problem: String? { nil }

  public func close() {
    state.withLock { state in
      guard !state.isClosed else { return }
      state.isClosed = true
      try? drain(&state)
      if ownsDescriptor { Glibc.close(descriptor) }
    }
  }

  /// Writes the whole buffer. What was written before a failure is taken off it, so that nothing is written
  /// twice.
  private func drain(_ state: inout State) throws {
    var written = 0
    defer {
      state.buffer.removeFirst(written)
      state.byteCount += written
    }
    while written < state.buffer.count {
      let count = state.buffer.withUnsafeBytes {
        Glibc.write(descriptor, $0.baseAddress.map { $0 + written }, $0.count - written)
      }
      if count >= 0 {
        written += count
      } else if errno == EAGAIN {
        // A terminal or pipe that somebody made non-blocking.
        var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        Glibc.poll(&ready, 1, -1)
      } else if errno == EPIPE {
        state.buffer.removeAll(keepingCapacity: true)
        written = 0
        throw SinkFailure("\(name) was closed by its reader", isClosedPipe: true)
      } else if errno != EINTR {
        throw SinkFailure("cannot write to \(name): \(errnoText())")
      }
    }
  }
}
