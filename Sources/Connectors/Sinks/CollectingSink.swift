import Runtime

/// Keeps records in memory, for tests; or only counts them, for measurements.
public final class CollectingSink: RecordSink {
  public struct Record: Sendable, Hashable {
    public var kind: RecordKind
    public var rule: Int32
    public var json: String
  }
  private let keeps: Bool
  public private(set) var records: [Record] = []
  public private(set) var recordCount = 0
  public private(set) var byteCount = 0
  public private(set) var flushCount = 0

  public init(keeps: Bool = true) { self.keeps = keeps }

  public func write(_ batch: OutputBatch) {
    recordCount += batch.entries.count
    for entry in batch.entries {
      byteCount += entry.length
      guard keeps else { continue }
      let json = String(decoding: batch.bytes[entry.start..<entry.start + entry.length], as: UTF8.self)
      records.append(Record(kind: entry.kind, rule: entry.rule, json: json))
    }
  }

  public func flush() { flushCount += 1 }
  public var problem: String? { nil }
  public func close() {}
}
