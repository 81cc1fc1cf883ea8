import CColumns
import Foundation
import Synchronization

@testable import Runtime

/// A seeded generator (SplitMix64), so that a failing history can be run again.
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// A record of the sources that these tests read: fields `ts`, `key`, `value` (may be null), `counter`,
/// `seq`.
struct TestRecord: Sendable {
  var time: Int64
  var key: String
  var value: Double?
  var counter = 0.0
  var seq: Int64 = 0
  /// Not a row but a record that cannot be decoded.
  var isGarbage = false
  var recordTime = Int64.min
  /// Bytes of its payload, for tests of what dead letters hold.
  var payload: [UInt8] = Array("{}".utf8)

  static func garbage(_ payload: [UInt8] = Array("garbage".utf8)) -> TestRecord {
    TestRecord(time: 0, key: "", isGarbage: true, payload: payload)
  }
}

/// A partition's log, shared by the readers that come and go, and what the test lets them see.
final class MemoryLog: Sendable {
  struct State {
    /// How many records may be read.
    var visible: Int
    /// What a reader says that has read them all.
    var atEnd: ReadOutcome
    /// Thrown by a read at this offset.
    var failsAt: Int?
    /// One behind the last record read by anybody.
    var position = 0
    /// Reads that found nothing.
    var emptyReads = 0
  }
  let identity: PartitionIdentity
  let records: [TestRecord]
  let state: Mutex<State>

  init(
    _ identity: PartitionIdentity, _ records: [TestRecord], visible: Int? = nil, atEnd: ReadOutcome = .end
  ) {
    self.identity = identity
    self.records = records
    state = Mutex(State(visible: visible ?? records.count, atEnd: atEnd))
  }

  func show(_ visible: Int, atEnd: ReadOutcome) {
    state.withLock {
      $0.visible = min(visible, records.count)
      $0.atEnd = atEnd
    }
  }

  var visible: Int { state.withLock { $0.visible } }
  var position: Int { state.withLock { $0.position } }
  var emptyReads: Int { state.withLock { $0.emptyReads } }

  /// A reader from an offset, as a source would hand it to an engine.
  func start(at point: CommitPoint? = nil, chunks: SeededRandom? = nil) -> PartitionStart {
    PartitionStart(
      reader: MemoryReader(self, at: Int(point?.offset ?? 0), chunks: chunks),
      committedOffset: point?.offset, metadata: point?.metadata ?? "")
  }
}

final class MemoryReader: PartitionReader {
  let log: MemoryLog
  private var next: Int
  private var chunks: SeededRandom?
  /// Texts that columns and payloads point to, alive as long as the reader.
  private var texts: [[UInt8]: UnsafeMutablePointer<UInt8>] = [:]

  /// With `chunks`, a read gives a random number of records.
  init(_ log: MemoryLog, at offset: Int, chunks: SeededRandom?) {
    self.log = log
    next = offset
    self.chunks = chunks
  }

  deinit { for text in texts.values { text.deallocate() } }

  var identity: PartitionIdentity { log.identity }

  private func string(_ bytes: [UInt8]) -> rd_string {
    if texts[bytes] == nil {
      let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, bytes.count))
      for (index, byte) in bytes.enumerated() { copy[index] = byte }
      texts[bytes] = copy
    }
    return rd_string(data: texts[bytes], length: UInt32(bytes.count), hash: 0)
  }

  func read(into batch: RecordBatch) throws -> ReadOutcome {
    batch.clear()
    let (visible, atEnd, failsAt) = log.state.withLock { ($0.visible, $0.atEnd, $0.failsAt) }
    if let failsAt, next >= failsAt { throw SourceFailure("the reader fails at \(failsAt)") }
    guard next < visible else {
      log.state.withLock { $0.emptyReads += 1 }
      return atEnd
    }
    var limit = batch.capacity
    if chunks != nil { limit = Int.random(in: 1...min(limit, 40), using: &chunks!) }
    while next < visible, batch.rowCount + batch.rejects.count < limit {
      let record = log.records[next]
      if record.isGarbage {
        batch.rejects.append(
          RejectedRecord(
            rowsBefore: batch.rowCount, offset: Int64(next), recordTime: record.recordTime,
            reason: "no record", payload: record.payload, payloadLength: record.payload.count))
      } else {
        fill(batch, batch.rowCount, record)
        batch.rowCount += 1
      }
      batch.bytesRead += record.payload.count
      next += 1
    }
    batch.nextOffset = Int64(next)
    log.state.withLock { $0.position = max($0.position, next) }
    return .records
  }

  private func fill(_ batch: RecordBatch, _ row: Int, _ record: TestRecord) {
    batch.offsets[row] = Int64(next)
    batch.recordTimes[row] = record.recordTime
    batch.payloads[row] = string(record.payload)
    for (index, field) in batch.schema.fields.enumerated() {
      let column = batch.columns[index]
      column.validity[row] = 1
      switch field.name {
      case "ts": column.ints[row] = record.time
      case "seq": column.ints[row] = record.seq
      case "counter": column.doubles[row] = record.counter
      case "key": column.strings[row] = string(Array(record.key.utf8))
      case "value":
        column.doubles[row] = record.value ?? 0
        column.validity[row] = record.value == nil ? 0 : 1
        if record.value == nil { column.hasNulls = true }
      default: preconditionFailure("a field that the test's source does not have: \(field.name)")
      }
    }
  }
}

/// Keeps what an engine writes; safe to look at while it runs.
final class MemorySink: RecordSink, Sendable {
  struct State {
    var lines: [String] = []
    var writes = 0
    var flushes = 0
  }
  let state = Mutex(State())
  /// Thrown by the write with this number.
  let failsAtWrite: Int?
  let delayMillis: Int

  init(failsAtWrite: Int? = nil, delayMillis: Int = 0) {
    self.failsAtWrite = failsAtWrite
    self.delayMillis = delayMillis
  }

  func write(_ batch: OutputBatch) throws {
    if delayMillis > 0 { sleepMillis(delayMillis) }
    try state.withLock { state in
      if state.writes == failsAtWrite { throw SourceFailure("the sink is full") }
      state.writes += 1
      for entry in batch.entries {
        state.lines.append(
          String(decoding: batch.bytes[entry.start..<entry.start + entry.length], as: UTF8.self))
      }
    }
  }

  func flush() { state.withLock { $0.flushes += 1 } }
  var problem: String? { nil }
  func close() {}
  var lines: [String] { state.withLock { $0.lines } }
}

/// The `id` of an output record.
func recordID(_ line: String) -> String { String(line.suffix(34).prefix(32)) }
