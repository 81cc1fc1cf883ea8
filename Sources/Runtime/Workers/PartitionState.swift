/// A partition at work: its reader, its watermark, its counters. Owned by one worker.
final class PartitionState {
  let ordinal: Int
  let reader: any PartitionReader
  let source: Int
  /// No row in time lies before it. `beforeAllTime` until the first good row.
  var watermark = beforeAllTime
  /// The next multiple of the source's step: below it a new watermark changes nothing downstream.
  var nextStep = beforeAllTime
  var hasEnded = false
  /// Monotonic time at the last record.
  var lastRecordNanos: Int64
  /// Do not ask the reader again before this (monotonic).
  var retryNanos: Int64 = 0
  var wasReadable = true
  /// One behind the last offset read; -1 before the first.
  var position: Int64
  /// The first offset that was read without any state of the partition; -1 for none.
  var firstOffset: Int64 = -1
  private var isRestored = false
  /// Late rows and dead letters before this offset were written before a restart.
  var suppressBefore: Int64 = -1
  /// Before this offset they all have been written, now or then: while old rows are read again, by the engine
  /// before.
  var readThrough: Int64 { max(position, suppressBefore) }
  var index = OffsetIndex()
  var raises: WatermarkRaises
  let exceptions = RecordWriter()
  var counters = PartitionCounters()

  init(ordinal: Int, start: PartitionStart, resume: ResumePoint?, now: Int64) {
    self.ordinal = ordinal
    reader = start.reader
    source = start.reader.identity.source
    lastRecordNanos = now
    position = start.committedOffset ?? -1
    raises = WatermarkRaises(resumed: resume?.raises ?? [])
    if let resume {
      watermark = resume.watermark
      suppressBefore = resume.readThrough
    }
  }

  /// Notes where the partition was read first, for a checkpoint that does not know it.
  func noteRead(first offset: Int64) {
    if !isRestored, firstOffset < 0 { firstOffset = offset }
  }

  func encode(into writer: StateWriter) {
    writer.append(UInt16(1))
    writer.append(position)
    writer.append(watermark)
    writer.append(suppressBefore)
    raises.encode(into: writer)
    index.encode(into: writer)
  }

  /// The watermark in what `encode` wrote; nil when that cannot be read, which `restore` says.
  static func watermark(stored bytes: [UInt8]) -> Int64? {
    var reader = StateReader(bytes)
    guard (try? reader.expect(version: 1, of: "a partition")) != nil,
      (try? reader.integer(Int64.self)) != nil
    else { return nil }
    return try? reader.integer(Int64.self)
  }

  /// After `init` with what was committed since: late rows that the clock made late since then are late again.
  func restore(from reader: inout StateReader) throws {
    try reader.expect(version: 1, of: "a partition")
    position = try reader.integer()
    watermark = try reader.integer()
    suppressBefore = max(suppressBefore, try reader.integer())
    try raises.restore(from: &reader, position: position)
    try index.restore(from: &reader)
    isRestored = position >= 0
  }
}

/// Counters of a partition, since the engine started.
public struct PartitionCounters: Sendable {
  public var rows = 0
  public var bytes = 0
  public var late = 0
  public var deadLetters = 0
  public var watermark = beforeAllTime
  public var isIdle = false
  public init() {}
}
