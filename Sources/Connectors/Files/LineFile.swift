import Glibc
import Runtime

/// The lines of a file or of standard input, plain, gzip or zstd, one after another. For files that a person could
/// read; recordings have a faster reader.
public final class LineFile {
  /// Longer lines are passed over, and counted.
  public static let lineBytesMax = 4 << 20
  private let input: ByteInput
  private var buffer: [UInt8] = []
  private var position = 0
  private var isAtEnd = false
  /// Lines that were too long.
  public private(set) var oversizedCount = 0

  /// `-` is standard input. Throws `SourceFailure`.
  public init(path: String) throws { input = try ByteInput(path: path) }

  /// The next line that is not empty, without its end; nil behind the last. Throws `SourceFailure` where the file
  /// breaks off.
  public func next() throws -> [UInt8]? {
    var isPassedOver = false
    while true {
      if let end = buffer[position...].firstIndex(of: 0x0a) {
        var line = buffer[position..<end]
        position = end + 1
        if isPassedOver {
          isPassedOver = false
          oversizedCount += 1
          continue
        }
        if line.last == 0x0d { line = line.dropLast() }
        if line.count > Self.lineBytesMax {
          oversizedCount += 1
        } else if !line.isEmpty {
          return Array(line)
        }
        continue
      }
      if isAtEnd {
        let line = Array(buffer[position...])
        position = buffer.count
        if isPassedOver || line.count > Self.lineBytesMax {
          oversizedCount += 1
          return nil
        }
        return line.isEmpty ? nil : line
      }
      if buffer.count - position > Self.lineBytesMax {
        isPassedOver = true
        position = buffer.count
      }
      try refill()
    }
  }

  private func refill() throws {
    buffer.removeFirst(position)
    position = 0
    let start = buffer.count
    buffer.append(contentsOf: repeatElement(0, count: 1 << 16))
    let got = try buffer.withUnsafeMutableBufferPointer { buffer -> Int in
      guard let base = buffer.baseAddress else { return 0 }
      return try input.read(into: base + start, count: 1 << 16)
    }
    buffer.removeLast((1 << 16) - got)
    isAtEnd = got == 0
  }
}
