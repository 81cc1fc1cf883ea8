import Glibc

/// Where a command's text goes.
protocol TextOutput: AnyObject {
  /// Whether a person is watching: colours and progress are for terminals alone.
  var isTerminal: Bool { get }
  /// Throws when it cannot be delivered.
  func write(_ text: String) throws
}

/// All that a command has of the process around it, so that a test can be that process.
struct CommandEnvironment {
  let standardOutput: any TextOutput
  let standardError: any TextOutput
  /// Nanoseconds on a clock that only runs forward.
  let monotonicNanos: () -> Int64
  let sleep: (_ nanos: Int64) -> Void
  /// Nanoseconds since the epoch, by the wall clock.
  let epochNanos: () -> Int64

  /// Of the process itself.
  static func process() -> CommandEnvironment {
    CommandEnvironment(
      standardOutput: DescriptorOutput(descriptor: STDOUT_FILENO),
      standardError: DescriptorOutput(descriptor: STDERR_FILENO),
      monotonicNanos: {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
      },
      sleep: { nanos in
        guard nanos > 0 else { return }
        var wait = timespec(tv_sec: Int(nanos / 1_000_000_000), tv_nsec: Int(nanos % 1_000_000_000))
        nanosleep(&wait, nil)
      },
      epochNanos: {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
      })
  }

  /// Writes finished lines to standard error, from any thread.
  var errorWriter: @Sendable ([UInt8]) throws -> Void {
    let output = SharedText(standardError)
    return { try output.write($0) }
  }

  func say(_ text: String) throws {
    try standardOutput.write(text + "\n")
  }

  /// What is not the command's result. A standard error that is gone stops nothing.
  func note(_ text: String) {
    try? standardError.write(text + "\n")
  }
}

/// An output that several threads write to.
private final class SharedText: @unchecked Sendable {
  // @unchecked: a descriptor's output has no state, and tests write from one thread.
  private let output: any TextOutput
  init(_ output: any TextOutput) { self.output = output }
  func write(_ line: [UInt8]) throws { try output.write(String(decoding: line, as: UTF8.self)) }
}

/// Writes to a file descriptor, unbuffered.
final class DescriptorOutput: TextOutput {
  private let descriptor: Int32
  let isTerminal: Bool

  init(descriptor: Int32) {
    self.descriptor = descriptor
    isTerminal = isatty(descriptor) == 1
  }

  func write(_ text: String) throws {
    try writeAll(ContiguousArray(text.utf8), to: descriptor, called: "the output")
  }
}

/// Writes everything, however many calls it takes. Throws an environment failure that names `name` and the
/// reason.
func writeAll(_ bytes: some Collection<UInt8>, to descriptor: Int32, called name: String) throws {
  var done = 0
  let count = bytes.count
  while done < count {
    let written =
      bytes.dropFirst(done).withContiguousStorageIfAvailable {
        Glibc.write(descriptor, $0.baseAddress, $0.count)
      } ?? 0
    if written < 0 {
      if errno == EINTR { continue }
      if errno == EPIPE { throw CommandFailure.readerGone }
      throw CommandFailure.environment("cannot write to \(name): \(errorText(errno))")
    }
    done += written
  }
}

/// What the system calls an error number.
func errorText(_ number: Int32) -> String {
  String(cString: strerror(number))
}
