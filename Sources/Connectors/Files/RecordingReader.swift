import CColumns
import CDecode
import Glibc
import Runtime

public struct RecordingOptions: Sendable {
  /// A longer line is rejected. The read buffer grows to this size and no further.
  public var lineBytesMax = 1 << 20
  /// Size that the read buffer starts with. It bounds a batch: with a thousand rules half of this costs 5 % more (each takes
  /// a batch for fewer rows of its own), and with one rule twice of this costs 2 % more.
  public var bufferBytes = 1 << 19
  public init() {}
}

/// Lines of a file in one buffer that is used again and again: whole lines in front, the start of the next
/// behind.
///
/// `lines` is what the decoder reads. Bytes stay where they are until the next `refill`.
final class LineBuffer {
  let input: ByteInput
  private let lineBytesMax: Int
  private var memory: UnsafeMutablePointer<UInt8>
  private var capacity: Int
  private var filled = 0
  private var isAtEnd = false
  private var isBegun = false
  /// Serves what was read before the failure; thrown when that is used up.
  private var failure: SourceFailure?
  var lines = rd_lines()
  /// A line that was longer than allowed, passed over by the last refill.
  private(set) var oversized: OversizedLine?

  struct OversizedLine {
    var head: [UInt8]
    var length: Int
  }

  init(input: ByteInput, options: RecordingOptions) {
    self.input = input
    // A line that is just not too long, its line end, and room to read on.
    lineBytesMax = max(1, min(options.lineBytesMax, 1 << 30))
    capacity = max(4_096, options.bufferBytes)
    memory = Self.allocate(capacity)
    lines.data = UnsafePointer(memory)
    lines.line_bytes_max = lineBytesMax
  }

  deinit { memory.deallocate() }

  private static func allocate(_ capacity: Int) -> UnsafeMutablePointer<UInt8> {
    // One byte for a line end that the file lacks, and what the decoder may read behind it.
    let bytes = capacity + 1 + Int(RD_PADDING)
    let memory = UnsafeMutablePointer<UInt8>.allocate(capacity: bytes)
    memory.initialize(repeating: 0, count: bytes)
    return memory
  }

  var hasLines: Bool { lines.position < lines.length }
  var isUsedUp: Bool { !hasLines && isAtEnd && oversized == nil }

  /// Whether reading more now makes a fuller batch. What a pipe has brought is served before we wait for
  /// more.
  var wantsRefill: Bool {
    guard !isAtEnd && oversized == nil else { return false }
    return !hasLines || (input.isRegularFile && lines.length - lines.position < capacity / 2)
  }

  /// Moves what is left to the front and reads on until there is a whole line, or the end. Throws the failure
  /// that ended the file when nothing is left to serve.
  func refill() throws(SourceFailure) {
    compact()
    while !isAtEnd && oversized == nil {
      if filled == capacity {
        if hasLines { break }
        if capacity < lineBytesMax + 2 {
          grow()
        } else {
          passOverLine()
          break
        }
      }
      let got = readMore()
      if got == 0 { break }
      if let newline = lastNewline(from: filled - got) {
        lines.length = newline + 1
        if !input.isRegularFile { break }
      }
    }
    if isAtEnd && failure == nil && filled > lines.length {
      // The last line has no line end.
      memory[filled] = 0x0a
      filled += 1
      lines.length = filled
    }
    if !isBegun {
      isBegun = true
      // A byte order mark belongs to no record.
      if lines.length >= 3 && memory[0] == 0xef && memory[1] == 0xbb && memory[2] == 0xbf {
        lines.position = 3
        lines.checked = 3
      }
    }
    if !hasLines && oversized == nil, let failure { throw failure }
  }

  func takeOversized() -> OversizedLine? {
    defer { oversized = nil }
    return oversized
  }

  private func lastNewline(from start: Int) -> Int? {
    var index = filled - 1
    while index >= start {
      if memory[index] == 0x0a { return index }
      index -= 1
    }
    return nil
  }

  private func compact() {
    let start = lines.position
    guard start > 0 else { return }
    memory.update(from: memory + start, count: filled - start)
    filled -= start
    lines.length -= start
    lines.checked = lines.checked > start ? lines.checked - start : 0
    lines.position = 0
  }

  private func grow() {
    let larger = min(capacity * 2, lineBytesMax + 2)
    let fresh = Self.allocate(larger)
    fresh.update(from: memory, count: filled)
    memory.deallocate()
    memory = fresh
    capacity = larger
    lines.data = UnsafePointer(memory)
  }

  private func readMore() -> Int {
    do throws(SourceFailure) {
      let got = try input.read(into: memory + filled, count: capacity - filled)
      filled += got
      if got == 0 { isAtEnd = true }
      return got
    } catch {
      failure = error
      isAtEnd = true
      return 0
    }
  }

  /// The buffer holds the start of one line that is too long: keeps its head, reads on to its end and holds
  /// nothing.
  private func passOverLine() {
    let head = Array(UnsafeBufferPointer(start: memory, count: min(filled, RejectedRecord.payloadBytesMax)))
    var length = filled
    filled = 0
    while true {
      let got = readMore()
      if got == 0 { break }
      if let newline = memchr(memory, 0x0a, got) {
        let lineBytes = UnsafeRawPointer(newline) - UnsafeRawPointer(memory)
        length += lineBytes
        let rest = got - lineBytes - 1
        memory.update(from: memory + lineBytes + 1, count: rest)
        filled = rest
        break
      }
      length += got
      filled = 0
    }
    lines.length = 0
    lines.position = 0
    lines.checked = 0
    if let newline = lastNewline(from: 0) { lines.length = newline + 1 }
    oversized = OversizedLine(head: head, length: length)
  }
}

/// Reads one partition of a recording: a file of bare payloads, or one partition of a file of envelopes.
///
/// Decodes straight from the read buffer into the batch's columns, some 4,000 lines a call. Uses about one
/// buffer of memory whatever the file's size.
public final class RecordingReader: PartitionReader {
  public let identity: PartitionIdentity
  private let buffer: LineBuffer
  private let decoder: JSONRecordDecoder
  private let topicBytes: UnsafeMutablePointer<UInt8>
  private let allowsOtherPartitions: Bool
  private var hasEnded = false

  /// Size of the file on disk; `nil` for standard input.
  public var bytesTotal: Int? { buffer.input.bytesTotal }
  /// How much of it has been read, for a progress line.
  public var bytesConsumed: Int { buffer.input.bytesConsumed }

  enum Layout {
    case bare
    /// `takesStrays`: this reader reports the lines that belong to nobody.
    case envelope(takesStrays: Bool, allowsOtherPartitions: Bool)
  }

  init(identity: PartitionIdentity, buffer: LineBuffer, layout: Layout, schema: SourceSchema)
    throws(SourceFailure)
  {
    self.identity = identity
    self.buffer = buffer
    decoder = try JSONRecordDecoder(schema: schema)
    let topic = Array(identity.topic.utf8)
    topicBytes = .allocate(capacity: max(topic.count, 1))
    for (index, byte) in topic.enumerated() { (topicBytes + index).initialize(to: byte) }
    switch layout {
    case .bare:
      buffer.lines.format = UInt8(RD_LINES_BARE.rawValue)
      allowsOtherPartitions = true
    case .envelope(let takesStrays, let allowsOthers):
      buffer.lines.format = UInt8(RD_LINES_ENVELOPE.rawValue)
      buffer.lines.takes_strays = takesStrays ? 1 : 0
      buffer.lines.partition = identity.partition
      buffer.lines.topic = rd_string(
        data: UnsafePointer(topicBytes), length: UInt32(topic.count), hash: 0)
      allowsOtherPartitions = allowsOthers
    }
  }

  deinit { topicBytes.deallocate() }

  private var isEnvelope: Bool { buffer.lines.format == UInt8(RD_LINES_ENVELOPE.rawValue) }

  public func read(into batch: RecordBatch) throws -> ReadOutcome {
    batch.clear()
    if hasEnded { return .end }
    while true {
      if buffer.wantsRefill { try buffer.refill() }
      if buffer.hasLines {
        let start = buffer.lines.position
        decoder.decode(&buffer.lines, into: batch)
        if !isEnvelope { batch.bytesRead += buffer.lines.position - start }
      } else if let line = buffer.takeOversized() {
        reject(line, into: batch)
      } else if buffer.isUsedUp {
        // A failure behind the last line is thrown by this refill.
        try buffer.refill()
        hasEnded = true
        return .end
      }
      if buffer.lines.others > 0 && !allowsOtherPartitions {
        throw SourceFailure(
          "\(buffer.input.path) holds several partitions, which can be told apart in a file only; save it first"
        )
      }
      if batch.rowCount > 0 || !batch.rejects.isEmpty {
        batch.nextOffset = isEnvelope ? buffer.lines.next_offset : buffer.lines.next_line
        if isEnvelope { countPayloadBytes(of: batch) }
        return .records
      }
    }
  }

  private func reject(_ line: LineBuffer.OversizedLine, into batch: RecordBatch) {
    let number = buffer.lines.next_line
    buffer.lines.next_line += 1
    if !isEnvelope { batch.bytesRead += line.length + 1 }
    if isEnvelope && buffer.lines.takes_strays == 0 { return }
    let limit = buffer.lines.line_bytes_max
    let size = limit % (1 << 20) == 0 ? "\(limit >> 20) MiB" : "\(limit) bytes"
    batch.rejects.append(
      RejectedRecord(
        rowsBefore: batch.rowCount, offset: isEnvelope ? buffer.lines.next_offset : number,
        recordTime: .min, reason: "line longer than \(size)", payload: line.head,
        payloadLength: line.length))
  }

  /// Each partition of a file of envelopes passes over all of its lines: what counts is what was in its own.
  private func countPayloadBytes(of batch: RecordBatch) {
    for row in 0..<batch.rowCount { batch.bytesRead += Int(batch.payloads[row].length) }
    for reject in batch.rejects { batch.bytesRead += reject.payloadLength }
  }
}
