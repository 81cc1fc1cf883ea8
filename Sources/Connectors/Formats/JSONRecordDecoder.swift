import CColumns
import CDecode
import Catalog
import Runtime

let jsonFormat = FormatSpec(
  name: "json",
  summary:
    "One JSON object a record. Members that no rule needs are skipped; of a repeated member the first counts."
)

/// Turns JSON payloads into the columns of a batch: the Swift end of `CDecode`.
///
/// Only the schema's fields are looked for, and a record is parsed no further than the last of them (how much
/// of the rest is checked: `CDecode.h`). Rows' strings point into the input, or into an arena that lives
/// until the next call. Owned by one reader, hence by one thread at a time.
public final class JSONRecordDecoder {
  private let handle: OpaquePointer
  private let fieldCount: Int
  private let columns: UnsafeMutablePointer<rd_column>

  /// Throws when a field's path is empty or deeper than 32 members.
  public init(schema: SourceSchema) throws(SourceFailure) {
    var texts = StringStore()
    var specs: [rd_field_spec] = []
    var pathRanges: [Range<Int>] = []
    var paths: [rd_string] = []
    for field in schema.fields {
      pathRanges.append(paths.count..<paths.count + field.path.count)
      paths.append(contentsOf: field.path.map { texts.keep($0) })
      specs.append(Self.spec(of: field, texts: &texts))
    }
    let created: OpaquePointer? = paths.withUnsafeBufferPointer { paths in
      for (index, range) in pathRanges.enumerated() where !range.isEmpty {
        specs[index].path = paths.baseAddress.map { $0 + range.lowerBound }
      }
      return rd_decoder_create(specs, UInt32(specs.count))
    }
    texts.free()
    guard let created else {
      throw SourceFailure(
        "source `\(schema.name)`: a field's path must have between 1 and 32 members")
    }
    handle = created
    fieldCount = schema.fields.count
    columns = .allocate(capacity: max(fieldCount, 1))
    columns.initialize(repeating: rd_column(), count: max(fieldCount, 1))
  }

  deinit {
    rd_decoder_destroy(handle)
    columns.deallocate()
  }

  private static func spec(of field: DecodedField, texts: inout StringStore) -> rd_field_spec {
    var spec = rd_field_spec()
    spec.path_count = UInt32(field.path.count)
    spec.wants_hash = field.wantsHash ? 1 : 0
    spec.scale = 1
    switch field.type {
    case .bool: spec.type = UInt8(RD_FIELD_BOOL.rawValue)
    case .int: spec.type = UInt8(RD_FIELD_INT.rawValue)
    case .string: spec.type = UInt8(RD_FIELD_STRING.rawValue)
    case .timestamp:
      spec.type = UInt8((field.unit == .rfc3339 ? RD_FIELD_TIME_TEXT : RD_FIELD_TIME_NUMBER).rawValue)
    case .float, .duration, .bytes, .ratio: spec.type = UInt8(RD_FIELD_FLOAT.rawValue)
    }
    if case .scaled(let scale) = field.unit { spec.scale = scale }
    switch field.absence {
    case .null: spec.absence = UInt8(RD_ABSENT_NULL.rawValue)
    case .reject: spec.absence = UInt8(RD_ABSENT_REJECT.rawValue)
    case .defaultValue(let value):
      spec.absence = UInt8(RD_ABSENT_DEFAULT.rawValue)
      switch value {
      case .null: spec.absence = UInt8(RD_ABSENT_NULL.rawValue)
      case .bool(let flag): spec.default_int = flag ? 1 : 0
      case .int(let number):
        spec.default_int = number
        spec.default_double = Double(number)
      case .timestamp(let nanos): spec.default_int = nanos
      case .float(let number), .duration(let number), .bytes(let number), .ratio(let number):
        spec.default_double = number
      case .string(let text): spec.default_string = texts.keep(text)
      }
    }
    return spec
  }

  /// Sends every record to simdjson: for tests, which compare the two paths, and for measurements.
  public func forceSimdjson(_ forced: Bool) { rd_decoder_force_simdjson(handle, forced ? 1 : 0) }
  /// Records decided by the scanner, and by simdjson, so far.
  public var pathCounts: (scanned: UInt64, parsed: UInt64) {
    (rd_decoder_scanned(handle), rd_decoder_parsed(handle))
  }

  /// Decodes lines behind the batch's rows until it is full or the lines are at their end.
  func decode(_ lines: inout rd_lines, into batch: RecordBatch) {
    withRows(of: batch) { rd_decode_lines(handle, &lines, &$0) }
  }

  /// Decodes messages that lie one behind the other in `arena`, as `rd_decode_records` wants them.
  func decode(
    _ records: UnsafeBufferPointer<rd_record>, arena: UnsafePointer<UInt8>, arenaLength: Int,
    into batch: RecordBatch
  ) {
    precondition(records.count <= batch.capacity - batch.rowCount)
    withRows(of: batch) {
      rd_decode_records(handle, arena, arenaLength, records.baseAddress, records.count, &$0)
    }
  }

  private func withRows(of batch: RecordBatch, _ decode: (inout rd_rows) -> Void) {
    precondition(batch.columns.count == fieldCount, "a batch of another schema")
    for (index, column) in batch.columns.enumerated() {
      columns[index] = rd_column(
        values: column.raw, validity: column.validity, has_nulls: column.hasNulls ? 1 : 0)
    }
    var rows = rd_rows(
      columns: columns, offsets: batch.offsets, record_times: batch.recordTimes,
      payloads: batch.payloads, capacity: UInt32(batch.capacity), row_count: UInt32(batch.rowCount))
    decode(&rows)
    batch.rowCount = Int(rows.row_count)
    for (index, column) in batch.columns.enumerated() {
      column.hasNulls = columns[index].has_nulls != 0
    }
    for index in 0..<rd_decoder_reject_count(handle) {
      batch.rejects.append(RejectedRecord(rd_decoder_reject(handle, index)))
    }
  }
}

extension RejectedRecord {
  init(_ reject: rd_reject) {
    let reason = UnsafeRawBufferPointer(start: reject.reason, count: reject.reason_length)
    let kept = min(reject.payload_length, RejectedRecord.payloadBytesMax)
    self.init(
      rowsBefore: Int(reject.rows_before), offset: reject.offset, recordTime: reject.record_time,
      reason: String(decoding: reason, as: UTF8.self),
      payload: Array(UnsafeBufferPointer(start: reject.payload, count: kept)),
      payloadLength: reject.payload_length)
  }
}

/// Copies of strings at addresses that hold still while C reads them.
struct StringStore {
  private var blocks: [UnsafeMutablePointer<UInt8>] = []

  init() {}

  mutating func keep(_ text: String) -> rd_string {
    let bytes = Array(text.utf8)
    let block = UnsafeMutablePointer<UInt8>.allocate(capacity: max(bytes.count, 1))
    block.initialize(repeating: 0, count: max(bytes.count, 1))
    for (index, byte) in bytes.enumerated() { block[index] = byte }
    blocks.append(block)
    return rd_string(data: UnsafePointer(block), length: UInt32(bytes.count), hash: 0)
  }

  mutating func free() {
    for block in blocks { block.deallocate() }
    blocks = []
  }
}
