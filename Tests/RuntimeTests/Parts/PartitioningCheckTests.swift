import Catalog
import Testing

@testable import Runtime

@Suite struct PartitioningCheckTests {
  private static let schema = SourceSchema(
    name: "requests", index: 0, topic: "events", format: "json",
    fields: [
      DecodedField(
        name: "ts", path: ["ts"], type: .int, unit: .native, absence: .reject, wantsHash: false),
      DecodedField(
        name: "id", path: ["id"], type: .int, unit: .native, absence: .null, wantsHash: false),
    ], timeField: 0, boundNanos: 0, idleNanos: 0, maxAheadNanos: 0)

  private struct Nothing: RowTaskDefinition {
    func makeTask(_ context: TaskContext) -> RowTask { RowTask() }
  }

  private func node(_ partitionedBy: [Int]) -> SourceNode {
    var node = SourceNode(
      schema: Self.schema, computedSlots: [], prepare: nil, requirements: [], root: Nothing(), stepNanos: 0, rule: 0)
    node.partitionedBy = partitionedBy
    return node
  }

  private struct NoSampler: Error {}

  private func sampler(_ check: PartitioningCheck) throws -> PartitioningSampler {
    guard let made = PartitioningSampler(node([1]), check) else { throw NoSampler() }
    return made
  }

  /// Rows with these ids in batches of a partition; nil is a null.
  private func look(
    _ sampler: inout PartitioningSampler, _ ids: [Int64?], partition: Int32, batchRows: Int = 4_096
  ) {
    let records = RecordBatch(schema: Self.schema)
    let rows = (0..<Int32(4_096)).map { $0 }
    var start = 0
    while start < ids.count {
      let part = ids[start..<min(start + batchRows, ids.count)]
      for (row, id) in part.enumerated() {
        records.columns[1].ints[row] = id ?? 77
        records.columns[1].validity[row] = id == nil ? 0 : 1
      }
      records.columns[1].hasNulls = part.contains(nil)
      records.rowCount = part.count
      let batch = Batch(over: records, computed: [])
      batch.rowCount = part.count
      rows.withUnsafeBufferPointer {
        sampler.look(at: batch, $0.baseAddress!, count: part.count, partition: partition)
      }
      start += batchRows
    }
  }

  @Test func aKeyInTwoPartitionsIsReportedOnce() throws {
    let check = PartitioningCheck()
    // Each worker has a sampler, and all have one watch; so have the engines that come later.
    var first = try sampler(check)
    var second = try sampler(check)
    look(&first, [1, 2, 3, 1, nil], partition: 0)
    look(&second, [4, 5], partition: 2)
    #expect(check.takeReports().isEmpty && check.brokenKeys.isEmpty)
    look(&second, [5, 2, 2, nil], partition: 2)
    look(&first, [2, 77], partition: 0)
    #expect(
      check.takeReports() == [
        BrokenPartitioning(source: "requests", topic: "events", key: "id 2", partitions: [0, 2]),
        BrokenPartitioning(source: "requests", topic: "events", key: "id null", partitions: [0, 2]),
      ])
    #expect(check.takeReports().isEmpty)
    #expect(check.brokenKeys == ["requests": 2])
  }

  @Test func manyBrokenKeysAreCountedAndFewTold() throws {
    let check = PartitioningCheck()
    var one = try sampler(check)
    for partition in [Int32(0), 1] { look(&one, (0..<200).map { Int64($0) }, partition: partition, batchRows: 50) }
    #expect(check.takeReports().count == PartitioningCheck.reportsMax)
    #expect(check.brokenKeys == ["requests": 200])
  }

  /// However many keys there are it remembers few; and a topic that is split at random is still noticed.
  @Test func memoryIsBounded() throws {
    let check = PartitioningCheck()
    var one = try sampler(check)
    look(&one, (0..<300_000).map { Int64($0) }, partition: 0, batchRows: 64)
    let watch = try #require(check.watch(node([1])))
    #expect(watch.keyCount <= PartitioningWatch.keysMax && watch.keyCount > PartitioningWatch.keysMax / 4)
    #expect(check.brokenKeys.isEmpty)
    look(&one, (0..<300_000).map { Int64($0) }, partition: 1, batchRows: 64)
    #expect(check.brokenKeys["requests", default: 0] == watch.keyCount)
  }

  /// Of large batches some rows are looked at, and others each time.
  @Test func whatComesAgainIsSeenInLargeBatches() throws {
    let check = PartitioningCheck()
    var one = try sampler(check)
    let ids = (0..<4_096).map { Int64($0 % 20) }
    for partition in [Int32(0), 1] { for _ in 0..<4 { look(&one, ids, partition: partition) } }
    #expect(check.brokenKeys == ["requests": 20])
  }

  @Test func whoSaysNothingIsNotWatched() {
    if PartitioningSampler(node([]), PartitioningCheck()) != nil { Issue.record("watched without `partitioned by`") }
    if PartitioningSampler(node([1]), nil) != nil { Issue.record("watched by nobody") }
  }
}
