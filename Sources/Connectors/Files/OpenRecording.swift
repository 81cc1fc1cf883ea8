import CColumns
import CDecode
import Glibc
import Runtime

/// Opens a recording and returns a reader for each partition in it.
///
/// `path` is a file of JSON lines, plain, gzip or zstd, or `-` for standard input. The first line that is not
/// empty tells whether lines are bare payloads or the envelopes of `kcat -J`.
/// - Bare: one partition, `firstPartition`, whose topic is the file's name and whose offsets are line numbers
///   from 0.
/// - Envelopes: the topics, partitions, offsets and times that were recorded. A file with several partitions
///   is first read once to find them; then each reader has its own handle on the file and passes over the
///   other partitions' lines. That costs a pass a partition, and in return needs no queue that a lopsided
///   file could fill. A stream that cannot be read twice must hold one partition only.
///
/// Throws `SourceFailure` when the file cannot be opened or is damaged at its start.
public func openRecording(
  path: String, schema: SourceSchema, firstPartition: Int32, options: RecordingOptions = .init()
) throws -> [any PartitionReader] {
  let buffer = LineBuffer(input: try ByteInput(path: path), options: options)
  guard let first = try firstLine(of: buffer), isEnvelope(first) else {
    let name = path == "-" ? "stdin" : String(path.split(separator: "/").last ?? "")
    let identity = PartitionIdentity(source: schema.index, topic: name, partition: firstPartition)
    return [try RecordingReader(identity: identity, buffer: buffer, layout: .bare, schema: schema)]
  }
  if !buffer.input.isRegularFile {
    guard let only = try partitions(in: [first]).first else { return [] }
    let identity = PartitionIdentity(source: schema.index, topic: only.topic, partition: only.partition)
    return [
      try RecordingReader(
        identity: identity, buffer: buffer,
        layout: .envelope(takesStrays: true, allowsOtherPartitions: false), schema: schema)
    ]
  }
  var handleOptions = options
  var readers: [any PartitionReader] = []
  let found = try partitions(ofFile: path, options: options)
  // Many partitions share the memory that one would have.
  if found.count > 4 { handleOptions.bufferBytes = min(options.bufferBytes, 256 * 1024) }
  for (index, partition) in found.enumerated() {
    let identity = PartitionIdentity(
      source: schema.index, topic: partition.topic, partition: partition.partition)
    readers.append(
      try RecordingReader(
        identity: identity,
        buffer: LineBuffer(input: try ByteInput(path: path), options: handleOptions),
        layout: .envelope(takesStrays: index == 0, allowsOtherPartitions: true), schema: schema))
  }
  return readers
}

/// Opens several recordings as the partitions of one source: bare files are partitions 0, 1, 2 … in the order
/// given. Throws when two files hold the same partition of a topic (`cat` would make one recording of them).
public func openRecordings(
  paths: [String], schema: SourceSchema, options: RecordingOptions = .init()
) throws -> [any PartitionReader] {
  var readers: [any PartitionReader] = []
  var origins: [PartitionIdentity: String] = [:]
  for (index, path) in paths.enumerated() {
    let opened = try openRecording(
      path: path, schema: schema, firstPartition: Int32(index), options: options)
    for reader in opened {
      if let other = origins.updateValue(path, forKey: reader.identity) {
        throw SourceFailure(
          "\(other) and \(path) both hold partition \(reader.identity.partition) of "
            + "\(reader.identity.topic); join them into one file")
      }
      readers.append(reader)
    }
  }
  return readers
}

/// Most partitions that a file of envelopes may hold: each takes a file handle and a buffer.
private let partitionsMax = 256

private struct RecordedPartition {
  var topic: String
  var partition: Int32
}

/// The first line that is not empty, without being read; `nil` when there is none, or it is too long to be an
/// envelope.
private func firstLine(of buffer: LineBuffer) throws -> UnsafeBufferPointer<UInt8>? {
  try buffer.refill()
  let lines = buffer.lines
  guard let data = lines.data, buffer.hasLines else { return nil }
  var start = lines.position
  while start < lines.length, data[start] == 0x0a || data[start] == 0x0d { start += 1 }
  guard start < lines.length, let end = memchr(data + start, 0x0a, lines.length - start) else { return nil }
  return UnsafeBufferPointer(
    start: data + start, count: UnsafeRawPointer(end) - UnsafeRawPointer(data + start))
}

private func isEnvelope(_ line: UnsafeBufferPointer<UInt8>) -> Bool {
  rd_is_envelope(line.baseAddress, line.count) != 0
}

private func partitions(in lines: [UnsafeBufferPointer<UInt8>]) throws -> [RecordedPartition] {
  var text: [UInt8] = lines.flatMap { Array($0) + [0x0a] }
  let length = text.count
  text.append(contentsOf: repeatElement(0, count: Int(RD_PADDING)))
  return try text.withUnsafeBufferPointer { text in
    var lines = rd_lines()
    lines.data = text.baseAddress
    lines.length = length
    lines.line_bytes_max = length
    return try survey { rd_survey_lines($0, &lines) }
  }
}

private func partitions(ofFile path: String, options: RecordingOptions) throws -> [RecordedPartition] {
  let buffer = LineBuffer(input: try ByteInput(path: path), options: options)
  return try survey { survey in
    while true {
      do {
        try buffer.refill()
      } catch {
        // A damaged file is read as far as it goes; the readers will say where it breaks.
        return 1
      }
      _ = buffer.takeOversized()
      if buffer.hasLines {
        if rd_survey_lines(survey, &buffer.lines) == 0 { return 0 }
      } else if buffer.isUsedUp {
        return 1
      }
    }
  }
}

private func survey(_ feed: (OpaquePointer) throws -> Int32) throws -> [RecordedPartition] {
  guard let survey = rd_survey_create() else { throw SourceFailure("out of memory") }
  defer { rd_survey_destroy(survey) }
  let count = try feed(survey) == 0 ? partitionsMax + 1 : rd_survey_count(survey)
  guard count <= partitionsMax else {
    throw SourceFailure("the recording holds more than \(partitionsMax) partitions; split it")
  }
  return (0..<count).map { index in
    var topic = rd_string()
    var partition: Int32 = 0
    rd_survey_partition(survey, index, &topic, &partition)
    let bytes = UnsafeBufferPointer(start: topic.data, count: Int(topic.length))
    return RecordedPartition(topic: String(decoding: bytes, as: UTF8.self), partition: partition)
  }
}
