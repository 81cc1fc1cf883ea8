import CColumns
import CDecode
import Catalog
import Runtime

@testable import Connectors

func field(
  _ name: String, _ type: ValueType, unit: FieldUnit = .native,
  absence: DecodedField.Absence = .reject, path: [String]? = nil, wantsHash: Bool = false
) -> DecodedField {
  DecodedField(
    name: name, path: path ?? [name], type: type, unit: unit, absence: absence, wantsHash: wantsHash)
}

func schema(_ fields: [DecodedField], topic: String? = nil) -> SourceSchema {
  SourceSchema(
    name: "events", index: 0, topic: topic, format: "json", fields: fields, timeField: 0,
    boundNanos: 0, idleNanos: 0, maxAheadNanos: 0)
}

/// A cell as a test compares it. Doubles by their bits, so that -0.0 and 0.0 differ.
enum Cell: Equatable, CustomStringConvertible {
  case null
  case bool(Bool)
  case int(Int64)
  case double(UInt64)
  case string(String)

  static func number(_ value: Double) -> Cell { .double(value.bitPattern) }
  var description: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .int(let value): "\(value)"
    case .double(let bits): "\(Double(bitPattern: bits))"
    case .string(let value): "\"\(value)\""
    }
  }
}

/// What became of one record.
enum Verdict: Equatable {
  case row(offset: Int64, [Cell])
  case reject(offset: Int64, reason: String)
}

func text(_ string: rd_string) -> String {
  String(decoding: UnsafeBufferPointer(start: string.data, count: Int(string.length)), as: UTF8.self)
}

func cell(_ column: Column, _ row: Int) -> Cell {
  if column.hasNulls && column.validity[row] == 0 { return .null }
  switch column.type {
  case .bool: return .bool(column.bools[row] != 0)
  case .int64: return .int(column.ints[row])
  case .float64: return .number(column.doubles[row])
  case .string: return .string(text(column.strings[row]))
  }
}

/// Rows and rejects of a batch in the order in which they came.
func verdicts(_ batch: RecordBatch) -> [Verdict] {
  var result: [Verdict] = []
  var rejects = batch.rejects[...]
  for row in 0...batch.rowCount {
    while let reject = rejects.first, reject.rowsBefore == row {
      result.append(.reject(offset: reject.offset, reason: reject.reason))
      rejects = rejects.dropFirst()
    }
    if row < batch.rowCount {
      result.append(.row(offset: batch.offsets[row], batch.columns.map { cell($0, row) }))
    }
  }
  return result
}

/// Payloads as Kafka hands them over: one behind the other in a padded arena. Any number; batches are cut as
/// needed.
func decodePayloads(
  _ payloads: [[UInt8]?], schema: SourceSchema, forceSimdjson: Bool = false,
  decoder given: JSONRecordDecoder? = nil, batchRows: Int = RecordBatch.rowsMax
) throws -> [Verdict] {
  let decoder = try given ?? JSONRecordDecoder(schema: schema)
  decoder.forceSimdjson(forceSimdjson)
  let batch = RecordBatch(schema: schema, capacity: batchRows)
  var result: [Verdict] = []
  for start in stride(from: 0, to: payloads.count, by: batchRows) {
    let part = payloads[start..<min(start + batchRows, payloads.count)]
    var arena: [UInt8] = []
    var places: [(Int, Int)?] = []
    for payload in part {
      guard let payload else {
        places.append(nil)
        continue
      }
      places.append((arena.count, payload.count))
      arena += payload + [0x0a]
    }
    let length = arena.count
    arena += [UInt8](repeating: 0, count: Int(RD_PADDING))
    batch.clear()
    arena.withUnsafeBufferPointer { bytes in
      let records = places.enumerated().map { index, place in
        rd_record(
          data: place.map { bytes.baseAddress! + $0.0 }, length: place?.1 ?? 0,
          offset: Int64(start + index), record_time: .min)
      }
      records.withUnsafeBufferPointer {
        decoder.decode($0, arena: bytes.baseAddress!, arenaLength: length, into: batch)
      }
      result += verdicts(batch)
    }
  }
  return result
}

func decode(_ json: String, _ fields: [DecodedField]) throws -> Verdict {
  try decodePayloads([Array(json.utf8)], schema: schema(fields))[0]
}

/// A generator whose every run is the same (SplitMix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
