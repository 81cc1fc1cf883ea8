import CColumns
import Catalog

/// What a reader fills: up to `capacity` decoded rows of one source partition.
///
/// The rows' strings and payloads point into memory that the reader keeps alive until its next `read`. A worker runs a
/// batch to completion before it reads again, so nobody needs to count references.
public final class RecordBatch {
  /// Most rows in a batch; enough to spread the cost of a call, few enough to stay in the second-level cache.
  public static let rowsMax = 4_096

  public let capacity: Int
  public internal(set) var schema: SourceSchema
  /// One a field of the schema, in its order.
  public let columns: [Column]
  /// Offset in the partition (Kafka) or line number from 0 (recordings), by row. Ascending.
  public let offsets: UnsafeMutablePointer<Int64>
  /// The broker's timestamp in nanoseconds by row, `Int64.min` where there is none.
  public let recordTimes: UnsafeMutablePointer<Int64>
  /// The bytes as they arrived, by row: late rows and dead letters carry them.
  public let payloads: UnsafeMutablePointer<rd_string>
  public var rowCount = 0
  /// Records that could not become rows, in the order of their offsets.
  public var rejects: [RejectedRecord] = []
  /// Bytes read for this batch, for `/metrics`.
  public var bytesRead = 0
  /// Whom to ask what else came with a record of this batch; valid until the next read. Nil when there is no more to it.
  public var details: (any RecordDetailSource)?
  /// One behind the last offset that this batch accounts for, rows and rejects alike; -1 while nothing has been read.
  public var nextOffset: Int64 = -1

  public init(schema: SourceSchema, capacity: Int = RecordBatch.rowsMax) {
    precondition(capacity > 0 && capacity <= RecordBatch.rowsMax)
    self.schema = schema
    self.capacity = capacity
    columns = schema.fields.map { Column(type: $0.type.physical, capacity: capacity) }
    offsets = .allocate(capacity: capacity)
    offsets.initialize(repeating: 0, count: capacity)
    recordTimes = .allocate(capacity: capacity)
    recordTimes.initialize(repeating: .min, count: capacity)
    payloads = .allocate(capacity: capacity)
    payloads.initialize(repeating: rd_string(), count: capacity)
  }

  deinit {
    offsets.deallocate()
    recordTimes.deallocate()
    payloads.deallocate()
  }

  /// Empties the batch for the next read.
  public func clear() {
    rowCount = 0
    rejects.removeAll(keepingCapacity: true)
    bytesRead = 0
    details = nil
    for column in columns { column.hasNulls = false }
  }
}

/// What came with a record beside its payload: looked at only when it becomes a late row or a dead letter.
public struct RecordDetails: Sendable, Hashable {
  /// The record's key; nil when it had none.
  public var key: [UInt8]?
  /// How often `rulesd replay` has written it again: the header `rulesd-replays`, 0 without.
  public var replays: Int
  public init(key: [UInt8]? = nil, replays: Int = 0) {
    self.key = key
    self.replays = replays
  }
  /// The Kafka header that counts replays, in decimal digits.
  public static let replaysHeader = "rulesd-replays"
  /// A header of more digits was not written by us.
  public static let replaysMax = 999_999
  /// Longest key that a late row or a dead letter carries.
  public static let keyBytesMax = 4_096
}

/// A reader that still has the records of the batch at hand.
public protocol RecordDetailSource: AnyObject {
  /// What came with the record at an offset of the batch.
  func details(ofRecordAt offset: Int64) -> RecordDetails
}

/// A record that is no row: it becomes a dead letter.
public struct RejectedRecord: Sendable {
  /// How many rows of the same batch came before it.
  public var rowsBefore: Int
  public var offset: Int64
  public var recordTime: Int64
  /// For a person: "field `latency_ms`: expected a number, found \"fast\"".
  public var reason: String
  /// The original bytes, the first `payloadBytesMax` of them.
  public var payload: [UInt8]
  /// How long the original was.
  public var payloadLength: Int
  /// Longest payload that a late row or a dead letter carries whole: 384 KiB. Its text in JSON is at most twice as long, so
  /// that the record stays below the megabyte that brokers take unless they are told otherwise.
  public static let payloadBytesMax = 384 << 10

  public init(
    rowsBefore: Int, offset: Int64, recordTime: Int64, reason: String, payload: [UInt8],
    payloadLength: Int
  ) {
    self.rowsBefore = rowsBefore
    self.offset = offset
    self.recordTime = recordTime
    self.reason = reason
    self.payload = payload
    self.payloadLength = payloadLength
  }
}
