import CColumns
import Catalog
import Glibc

/// The payload of simulated records: values separated by commas, in the order of `columns`. Numbers are decimal and
/// in the unit of their column (times in nanoseconds), booleans 0 or 1; nothing between two commas is null. No value
/// holds a comma.
public struct SimulatedFormat: Sendable {
  /// Names of the source's fields.
  public var columns: [String]
  public init(columns: [String]) { self.columns = columns }

  /// A payload of these values, one for each column.
  public static func payload(_ values: [String]) -> [UInt8] { Array(values.joined(separator: ",").utf8) }
}

/// Reads committed records of one partition of a simulated log.
public final class SimulatedReader: PartitionReader {
  public let identity: PartitionIdentity
  private let log: SimulatedLog
  private let place: SimulatedPlace
  private let schema: SourceSchema
  /// By field, its column in a payload.
  private let columns: [Int?]
  private let columnCount: Int
  /// By field, the bytes of a default that is a string.
  private var defaults: [rd_string] = []
  private var next: Int64
  private let endOffset: Int64?
  private let rowsMax: Int
  private var arena: UnsafeMutablePointer<UInt8>
  private var capacity = 64 * 1024
  private var starts: [Int] = []
  /// No read comes any more, or it finds nothing.
  var isRevoked = false

  /// With `rowsMax` under a batch's size a read gives any number of rows up to that. With `endOffset` it ends there.
  public init(
    identity: PartitionIdentity, log: SimulatedLog, schema: SourceSchema, format: SimulatedFormat, from offset: Int64,
    endOffset: Int64? = nil, rowsMax: Int = RecordBatch.rowsMax
  ) {
    self.identity = identity
    self.log = log
    self.schema = schema
    place = SimulatedPlace(identity.topic, identity.partition)
    columns = schema.fields.map { field in format.columns.firstIndex(of: field.path.last ?? field.name) }
    columnCount = format.columns.count
    next = offset
    self.endOffset = endOffset
    self.rowsMax = rowsMax
    arena = .allocate(capacity: capacity)
    for field in schema.fields {
      var text = rd_string()
      if case .defaultValue(.string(let value)) = field.absence {
        let bytes = Array(value.utf8)
        let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, bytes.count))
        for (index, byte) in bytes.enumerated() { copy[index] = byte }
        text = rd_string(data: copy, length: UInt32(bytes.count), hash: 0)
      }
      defaults.append(text)
    }
  }

  deinit {
    arena.deallocate()
    for text in defaults { text.data?.deallocate() }
  }

  public func read(into batch: RecordBatch) throws -> ReadOutcome {
    batch.clear()
    if let endOffset, next >= endOffset { return .end }
    guard !isRevoked, !log.isDown, !log.random.happens(log.faults.requestLost) else { return .nothingYet }
    var limit = min(batch.capacity, rowsMax)
    if limit < batch.capacity { limit = 1 + log.random.upTo(limit - 1) }
    var records: [(offset: Int64, time: Int64, start: Int, length: Int)] = []
    var bytes: [UInt8] = []
    do {
      next = try log.scan(place, from: next, committed: true) { offset, entry in
        guard records.count < limit, offset < endOffset ?? .max else { return false }
        records.append((offset, entry.time, bytes.count, entry.value.count))
        bytes += entry.value
        // Ends the last number, for the parser.
        bytes.append(0)
        return true
      }
    } catch SimulatedLogError.offsetGone(let wanted, let earliest) {
      throw SourceFailure(
        "\(place.topic)[\(place.partition)]: offset \(wanted) is wanted, but the earliest that the topic still has is "
          + "\(earliest)")
    }
    guard !records.isEmpty else {
      if let endOffset, next >= endOffset { return .end }
      return .caughtUp
    }
    keep(bytes)
    for record in records { decode(record, into: batch) }
    batch.nextOffset = (records.last?.offset ?? -1) + 1
    batch.bytesRead = bytes.count - records.count
    return .records
  }

  private func keep(_ bytes: [UInt8]) {
    if bytes.count > capacity {
      arena.deallocate()
      capacity = max(bytes.count, capacity * 2)
      arena = .allocate(capacity: capacity)
    }
    bytes.withUnsafeBufferPointer { if let base = $0.baseAddress { arena.update(from: base, count: $0.count) } }
  }

  private func decode(
    _ record: (offset: Int64, time: Int64, start: Int, length: Int), into batch: RecordBatch
  ) {
    let row = batch.rowCount
    let end = record.start + record.length
    starts.removeAll(keepingCapacity: true)
    starts.append(record.start)
    for index in record.start..<end where arena[index] == 0x2c { starts.append(index + 1) }
    var problem = starts.count == columnCount ? nil : "expected \(columnCount) values, found \(starts.count)"
    if problem == nil {
      for field in schema.fields.indices {
        let range = columns[field].map { column in
          starts[column]..<(column + 1 < starts.count ? starts[column + 1] - 1 : end)
        }
        if !fill(batch.columns[field], row, field, range ?? end..<end) {
          problem = "field `\(schema.fields[field].name)` cannot be read"
          break
        }
      }
    }
    if let problem {
      let kept = min(record.length, RejectedRecord.payloadBytesMax)
      batch.rejects.append(
        RejectedRecord(
          rowsBefore: row, offset: record.offset, recordTime: record.time, reason: problem,
          payload: Array(UnsafeBufferPointer(start: arena + record.start, count: kept)),
          payloadLength: record.length))
      return
    }
    batch.offsets[row] = record.offset
    batch.recordTimes[row] = record.time
    batch.payloads[row] = rd_string(data: arena + record.start, length: UInt32(record.length), hash: 0)
    batch.rowCount += 1
  }

  /// False when the value is not of its column's type, or absent where it must not be.
  private func fill(_ column: Column, _ row: Int, _ field: Int, _ range: Range<Int>) -> Bool {
    column.validity[row] = 1
    if range.isEmpty { return fillAbsent(column, row, field) }
    let text = arena + range.lowerBound
    switch column.type {
    case .bool:
      guard range.count == 1, text[0] == 0x30 || text[0] == 0x31 else { return false }
      column.bools[row] = text[0] - 0x30
    case .int64:
      guard let value = Self.integer(text, range.count) else { return false }
      column.ints[row] = value
    case .float64:
      var end: UnsafeMutablePointer<CChar>?
      let value = text.withMemoryRebound(to: CChar.self, capacity: range.count + 1) { start -> Double? in
        let value = strtod(start, &end)
        return end == start + range.count && value.isFinite ? value : nil
      }
      guard let value else { return false }
      column.doubles[row] = value
    case .string:
      let length = UInt32(range.count)
      let hash = schema.fields[field].wantsHash ? rd_hash_bytes(text, length) : 0
      column.strings[row] = rd_string(data: text, length: length, hash: hash)
    }
    return true
  }

  private func fillAbsent(_ column: Column, _ row: Int, _ field: Int) -> Bool {
    switch schema.fields[field].absence {
    case .reject: return false
    case .null:
      column.validity[row] = 0
      column.hasNulls = true
      if column.type == .string { column.strings[row] = rd_string() }
    case .defaultValue(let value):
      switch value {
      case .bool(let flag): column.bools[row] = flag ? 1 : 0
      case .int(let number), .timestamp(let number): column.ints[row] = number
      case .float(let number), .duration(let number), .bytes(let number), .ratio(let number):
        column.doubles[row] = number
      case .string:
        let text = defaults[field]
        let hash = schema.fields[field].wantsHash ? rd_hash_bytes(text.data, text.length) : 0
        column.strings[row] = rd_string(data: text.data, length: text.length, hash: hash)
      case .null:
        column.validity[row] = 0
        column.hasNulls = true
      }
    }
    return true
  }

  private static func integer(_ text: UnsafePointer<UInt8>, _ count: Int) -> Int64? {
    let isNegative = text[0] == 0x2d
    guard count > (isNegative ? 1 : 0) else { return nil }
    var value: Int64 = 0
    for index in (isNegative ? 1 : 0)..<count {
      guard text[index] >= 0x30, text[index] <= 0x39 else { return nil }
      let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
      let digit = Int64(text[index] - 0x30)
      let (sum, over) = isNegative ? tens.subtractingReportingOverflow(digit) : tens.addingReportingOverflow(digit)
      if overflow || over { return nil }
      value = sum
    }
    return value
  }
}
