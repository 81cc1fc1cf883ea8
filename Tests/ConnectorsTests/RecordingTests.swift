import CZlib
import CZstd
import Catalog
import Foundation
import Runtime
import Testing

@testable import Connectors

/// A folder that goes away with the test.
final class Scratch {
  let folder: URL
  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(at: folder) }
  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: path(name)))
    return path(name)
  }
  func file(_ name: String, _ text: String) throws -> String { try file(name, Array(text.utf8)) }
}

func gzip(_ bytes: [UInt8]) -> [UInt8] {
  var stream = z_stream()
  deflateInit2_(
    &stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
  var input = bytes
  var output = [UInt8](repeating: 0, count: bytes.count + 1_000)
  let room = output.count
  let left = input.withUnsafeMutableBufferPointer { source in
    output.withUnsafeMutableBufferPointer { target -> Int in
      stream.next_in = source.baseAddress
      stream.avail_in = UInt32(source.count)
      stream.next_out = target.baseAddress
      stream.avail_out = UInt32(room)
      deflate(&stream, Z_FINISH)
      return Int(stream.avail_out)
    }
  }
  deflateEnd(&stream)
  return Array(output[..<(room - left)])
}

func zstd(_ bytes: [UInt8]) -> [UInt8] {
  var output = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
  let written = ZSTD_compress(&output, output.count, bytes, bytes.count, 3)
  return Array(output[..<written])
}

func readAll(_ reader: any PartitionReader, _ schema: SourceSchema, batchRows: Int = RecordBatch.rowsMax)
  throws -> [Verdict]
{
  let batch = RecordBatch(schema: schema, capacity: batchRows)
  var result: [Verdict] = []
  while try reader.read(into: batch) == .records {
    result += verdicts(batch)
    #expect(batch.rowCount <= batchRows)
  }
  #expect(try reader.read(into: batch) == .end)
  return result
}

private let events = schema([field("x", .int), field("s", .string, absence: .null)])

private func readAll(
  _ path: String, batchRows: Int = RecordBatch.rowsMax, options: RecordingOptions = .init()
)
  throws -> [Verdict]
{
  let readers = try openRecording(path: path, schema: events, firstPartition: 0, options: options)
  #expect(readers.count == 1)
  return try readAll(readers[0], events, batchRows: batchRows)
}

private func row(_ offset: Int64, _ x: Int64, _ s: String? = nil) -> Verdict {
  .row(offset: offset, [.int(x), s.map { .string($0) } ?? .null])
}

@Suite struct RecordingTests {
  static let small = "{\"x\":1}\n\n{\"x\":2,\"s\":\"a\\tb\"}\r\nnot json\n{\"x\":3}"
  static let smallVerdicts: [Verdict] = [
    row(0, 1), row(2, 2, "a\tb"), .reject(offset: 3, reason: "expected a JSON object, found not json"),
    row(4, 3),
  ]

  @Test(arguments: [1, 2, 7, 4_096])
  func packings(batchRows: Int) throws {
    let scratch = try Scratch()
    let bytes = Array(Self.small.utf8)
    let half = bytes.count / 2
    let packed: [(String, [UInt8])] = [
      ("plain", bytes), ("named.gz", bytes), ("one.gz", gzip(bytes)), ("one.zst", zstd(bytes)),
      ("two.gz", gzip(Array(bytes[..<half])) + gzip(Array(bytes[half...]))),
      ("two.zst", zstd(Array(bytes[..<half])) + zstd(Array(bytes[half...]))),
      ("padded.gz", gzip(bytes) + [UInt8](repeating: 0, count: 512)),
    ]
    for (name, content) in packed {
      #expect(try readAll(scratch.file(name, content), batchRows: batchRows) == Self.smallVerdicts, "\(name)")
    }
  }

  @Test func identitiesAndOffsets() throws {
    let scratch = try Scratch()
    let path = try scratch.file("a.json", Self.small)
    let reader = try openRecording(path: path, schema: events, firstPartition: 3)[0]
    #expect(reader.identity == PartitionIdentity(source: 0, topic: "a.json", partition: 3))
    let batch = RecordBatch(schema: events)
    #expect(try reader.read(into: batch) == .records)
    #expect(batch.nextOffset == 5)
    #expect(batch.bytesRead >= Self.small.utf8.count)
    #expect(batch.rejects[0].payload == Array("not json".utf8))
    #expect(
      String(
        decoding: UnsafeBufferPointer(start: batch.payloads[1].data, count: Int(batch.payloads[1].length)),
        as: UTF8.self) == "{\"x\":2,\"s\":\"a\\tb\"}")
    let recording = try #require(reader as? RecordingReader)
    #expect(recording.bytesTotal == Self.small.utf8.count)
    #expect(recording.bytesConsumed == Self.small.utf8.count)
  }

  @Test func emptyAndMissing() throws {
    let scratch = try Scratch()
    #expect(try readAll(scratch.file("empty", "")) == [])
    #expect(try readAll(scratch.file("blank", "\n\r\n\n")) == [])
    #expect(try readAll(scratch.file("empty.gz", gzip([]))) == [])
    #expect(throws: SourceFailure.self) { try readAll(scratch.path("missing")) }
    #expect(throws: SourceFailure.self) { try readAll(scratch.folder.path) }
  }

  @Test(arguments: ["gz", "zst"])
  func cutShort(packing: String) throws {
    let scratch = try Scratch()
    var random = Seeded(5)
    let lines = (0..<40_000).map { "{\"x\":\($0),\"s\":\"\(random.next())\"}\n" }.joined()
    let packed = packing == "gz" ? gzip(Array(lines.utf8)) : zstd(Array(lines.utf8))
    let path = try scratch.file("cut.\(packing)", Array(packed[..<(packed.count / 2)]))
    let reader = try openRecording(path: path, schema: events, firstPartition: 0)[0]
    let batch = RecordBatch(schema: events)
    var rows = 0
    var message = ""
    do {
      while try reader.read(into: batch) == .records {
        #expect(batch.rejects.isEmpty)
        rows += batch.rowCount
      }
    } catch { message = "\(error)" }
    #expect(rows > 500 && rows < 40_000)
    #expect(message.contains("cut short"))
  }

  @Test func damagedPackings() throws {
    let scratch = try Scratch()
    var bytes = gzip(Array(String(repeating: Self.small + "\n", count: 200).utf8))
    bytes[bytes.count / 2] ^= 0x55
    bytes[bytes.count / 2 + 1] ^= 0x55
    #expect(throws: SourceFailure.self) { try readAll(scratch.file("bad.gz", bytes)) }
    #expect(throws: SourceFailure.self) {
      try readAll(scratch.file("tail.gz", gzip(Array(Self.small.utf8)) + Array("garbage".utf8)))
    }
    #expect(throws: SourceFailure.self) { try readAll(scratch.file("head.gz", [0x1f, 0x8b, 0, 0, 0])) }
  }

  @Test(arguments: [4_096, 1 << 16, 16 << 20])
  func aLineOfTenMegabytes(bufferBytes: Int) throws {
    let scratch = try Scratch()
    let long = "{\"x\":1,\"s\":\"" + String(repeating: "a", count: 10_000_000) + "\"}"
    let fits = "{\"x\":1,\"s\":\"" + String(repeating: "b", count: (1 << 20) - 14) + "\"}"
    #expect(fits.utf8.count == 1 << 20)
    let path = try scratch.file("long", "{\"x\":7}\n\(long)\n\(fits)\n\(fits) \n{\"x\":8}\n\(long)")
    var options = RecordingOptions()
    options.bufferBytes = bufferBytes
    let result = try readAll(path, options: options)
    #expect(result.count == 6)
    #expect(result[0] == row(0, 7))
    #expect(result[1] == .reject(offset: 1, reason: "line longer than 1 MiB"))
    #expect(result[2] == row(2, 1, String(repeating: "b", count: (1 << 20) - 14)))
    #expect(result[3] == .reject(offset: 3, reason: "line longer than 1 MiB"))
    #expect(result[4] == row(4, 8))
    #expect(result[5] == .reject(offset: 5, reason: "line longer than 1 MiB"))
  }

  @Test func oversizedLinesKeepTheirHead() throws {
    let scratch = try Scratch()
    let path = try scratch.file("long", String(repeating: "z", count: 3_000_000) + "\n")
    let reader = try openRecording(path: path, schema: events, firstPartition: 0)[0]
    let batch = RecordBatch(schema: events)
    #expect(try reader.read(into: batch) == .records)
    #expect(batch.rejects.first?.payload.count == RejectedRecord.payloadBytesMax)
    #expect(batch.rejects.first?.payloadLength == 3_000_000)
  }

  @Test func anyBufferGivesTheSame() throws {
    let scratch = try Scratch()
    var random = Seeded(11)
    var lines = ""
    for number in 0..<3_000 {
      switch Int.random(in: 0..<10, using: &random) {
      case 0: lines += "\n"
      case 1: lines += "{\"x\":\n"
      case 2: lines += "{\"s\":\"\\u00e4\",\"x\":\(number)}\r\n"
      case 3:
        lines +=
          "{\"x\":\(number),\"s\":\"\(String(repeating: "ü", count: Int.random(in: 0...9_000, using: &random)))\"}\n"
      default: lines += "{\"x\":\(number),\"s\":\"v\"}\n"
      }
    }
    let path = try scratch.file("mixed", lines)
    let expected = try readAll(path)
    #expect(expected.count > 2_500)
    for (buffer, rows) in [(4_096, 4_096), (10_000, 100), (1 << 20, 1), (50_000, 4_096)] {
      var options = RecordingOptions()
      options.bufferBytes = buffer
      #expect(try readAll(path, batchRows: rows, options: options) == expected)
    }
  }

  /// Lines are decoded by a walk that finds their ends itself; payloads have theirs given. Both must see the
  /// same.
  @Test(arguments: [UInt64](1...4))
  func linesAndPayloadsAgree(seed: UInt64) throws {
    let scratch = try Scratch()
    var random = Seeded(seed)
    let lines = (0..<3_000).map { _ in
      let text = DecoderPropertyTests.document(&random)
      let bytes = Bool.random(using: &random) ? Array(text.utf8) : DecoderPropertyTests.mutate(text, &random)
      return bytes.filter { $0 != 0x0a && $0 != 0x0d }
    }.filter { !$0.isEmpty }
    let schema = schema(DecoderPropertyTests.fields)
    let ends: [[UInt8]] = [[0x0a], [0x0d, 0x0a]]
    let path = try scratch.file("lines", lines.flatMap { $0 + ends[Int.random(in: 0...1, using: &random)] })
    let reader = try openRecording(path: path, schema: schema, firstPartition: 0)[0]
    let read = try readAll(reader, schema)
    let decoded = try decodePayloads(lines, schema: schema)
    for (a, b) in zip(read, decoded) where a != b {
      Issue.record("line \(a)\npayload \(b)")
      return
    }
    #expect(read.count == decoded.count)
  }

  @Test func byteOrderMark() throws {
    let scratch = try Scratch()
    let mark: [UInt8] = [0xef, 0xbb, 0xbf]
    #expect(try readAll(scratch.file("mark", mark + Array(Self.small.utf8))) == Self.smallVerdicts)
    let reader = try openRecording(
      path: scratch.file("dump", mark + Array(Self.envelope(0, 1, #""{\"x\":3}""#).utf8)), schema: events,
      firstPartition: 0)[0]
    #expect(try readAll(reader, events) == [row(1, 3)])
  }

  @Test func binaryGarbage() throws {
    let scratch = try Scratch()
    var random = Seeded(3)
    let bytes = (0..<300_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    let result = try readAll(scratch.file("random", [0x41] + bytes))
    #expect(result.count > 500)
    for case .row in result { Issue.record("a row out of noise") }
  }

  // MARK: Envelopes

  static func envelope(_ partition: Int, _ offset: Int, _ payload: String, topic: String = "t") -> String {
    "{\"topic\":\"\(topic)\",\"partition\":\(partition),\"offset\":\(offset),\"tstype\":\"create\","
      + "\"ts\":\(1_700_000_000_000 + offset),\"broker\":0,\"key\":null,\"payload\":\(payload)}"
  }

  @Test func envelopes() throws {
    let scratch = try Scratch()
    let lines = [
      Self.envelope(1, 10, #""{\"x\":1,\"s\":\"a\\nb\"}""#),
      Self.envelope(0, 5, #""{\"x\":2}""#),
      Self.envelope(1, 11, "null"),
      Self.envelope(0, 6, #"{"x":3,"s":"object"}"#),
      "{\"topic\":\"t\"}",
      "{\"topic\":\"t\",\"partition\":1,\"offset\":12,\"pay",
      "{\"partition\":1,\"topic\":\"t\",\"payload\":\"{\\\"x\\\":5}\",\"offset\":13}",
      Self.envelope(1, 14, #""{\"x\":4}""#),
      Self.envelope(0, 7, #""oops""#),
      Self.envelope(0, 8, "5"),
      Self.envelope(0, 9, #""{\"x\":9}""#, topic: "u"),
    ]
    let path = try scratch.file("dump", lines.joined(separator: "\n"))
    let readers = try openRecording(path: path, schema: events, firstPartition: 0)
    #expect(
      readers.map(\.identity) == [
        .init(source: 0, topic: "t", partition: 0), .init(source: 0, topic: "t", partition: 1),
        .init(source: 0, topic: "u", partition: 0),
      ])
    for rows in [1, 4_096] {
      let again = try openRecording(path: path, schema: events, firstPartition: 0)
      #expect(
        try readAll(again[0], events, batchRows: rows) == [
          row(5, 2), row(6, 3, "object"),
          .reject(
            offset: 7, reason: "not a record of `kcat -J`: topic, partition, offset or payload is missing"),
          .reject(offset: 7, reason: "expected a JSON object, found oops"),
          .reject(offset: 8, reason: "expected a JSON object, found 5"),
        ])
      #expect(
        try readAll(again[1], events, batchRows: rows) == [
          row(10, 1, "a\nb"), .reject(offset: 11, reason: "no payload"),
          .reject(
            offset: 12, reason: "not a record of `kcat -J`: topic, partition, offset or payload is missing"),
          row(13, 5), row(14, 4),
        ])
    }
    let batch = RecordBatch(schema: events)
    #expect(try readers[1].read(into: batch) == .records)
    #expect(batch.recordTimes[0] == 1_700_000_000_010_000_000)
    #expect(batch.nextOffset == 15)
  }

  @Test func severalFiles() throws {
    let scratch = try Scratch()
    let a = try scratch.file("a", "{\"x\":1}\n")
    let b = try scratch.file("b", "{\"x\":2}\n")
    let c = try scratch.file("c", Self.envelope(0, 1, #""{\"x\":3}""#))
    let d = try scratch.file("d", Self.envelope(0, 2, #""{\"x\":3}""#))
    let readers = try openRecordings(paths: [a, b, c], schema: events)
    #expect(readers.map(\.identity.partition) == [0, 1, 0])
    #expect(throws: SourceFailure.self) { try openRecordings(paths: [c, d], schema: events) }
  }
}
