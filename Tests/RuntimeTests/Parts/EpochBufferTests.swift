import Testing

@testable import Runtime

private func batch(_ number: Int, bytes: Int = 1) -> OutputBatch {
  var batch = OutputBatch()
  batch.entries = [
    .init(kind: .row, rule: Int32(number), topic: -1, start: 0, length: bytes, keyStart: 0, keyLength: 0)
  ]
  batch.bytes = Array(repeating: 0, count: bytes)
  return batch
}

private func numbers(_ batches: [OutputBatch]) -> [Int] { batches.flatMap { $0.entries.map { Int($0.rule) } } }

/// What sinks keep between barriers, against the stream of records and barriers as it was written down.
@Suite struct EpochBufferTests {
  /// Every transaction holds what lies between the last committed barrier and its own, in order.
  @Test(arguments: 0..<100)
  func transactionsAreCutAtBarriers(_ seed: UInt64) throws {
    var random = SeededRandom(seed)
    var buffer = TransactionBuffer(bytesMax: .max)
    var stream: [(number: Int, epoch: UInt64)] = []
    var open: [Int] = []
    var epoch: UInt64 = 1
    var committed: UInt64 = 0
    for number in 0..<200 {
      switch Int.random(in: 0..<6, using: &random) {
      case 0:
        buffer.addBarrier(epoch)
        epoch += 1
      case 1 where epoch > committed + 1:
        let chosen = UInt64.random(in: committed + 1..<epoch, using: &random)
        let more = buffer.extend(to: chosen)
        open += numbers(try #require(more))
        #expect(open == stream.filter { $0.epoch > committed && $0.epoch <= chosen }.map(\.number))
        committed = chosen
        open = numbers(buffer.committed())
      default:
        stream.append((number, epoch))
        if buffer.offer(batch(number)) == .writeNow { open.append(number) }
      }
      // What is open is the first epoch that is not committed, and the rest waits.
      #expect(open == stream.filter { $0.epoch == committed + 1 }.map(\.number))
      #expect(buffer.bytes == stream.filter { $0.epoch > committed + 1 }.count)
      #expect(buffer.barrier == (epoch > committed + 1 ? committed + 1 : nil))
    }
  }

  @Test func theBufferIsBounded() {
    var buffer = TransactionBuffer(bytesMax: 10)
    func offer(_ number: Int, bytes: Int) -> TransactionBuffer.Verdict { buffer.offer(batch(number, bytes: bytes)) }
    func extend(to epoch: UInt64) -> [Int]? { buffer.extend(to: epoch).map(numbers) }
    func committed() -> [Int] { numbers(buffer.committed()) }
    #expect(offer(1, bytes: 100) == .writeNow)
    #expect(extend(to: 9) == nil)
    buffer.addBarrier(1)
    #expect(offer(2, bytes: 9) == .waits)
    // One batch may go over it, however large, or it would never go.
    #expect(offer(3, bytes: 100) == .waits)
    #expect(offer(4, bytes: 1) == .isFull)
    buffer.addBarrier(2)
    #expect(extend(to: 0) == nil)
    #expect(extend(to: 1) == [])
    #expect(committed() == [2, 3] && buffer.bytes == 0 && buffer.barrier == 2)
    #expect(offer(4, bytes: 1) == .waits)
  }

  /// Acknowledgements in any order, against a list of what is missing.
  @Test(arguments: 0..<100)
  func acknowledgementsAreCountedByStretch(_ seed: UInt64) throws {
    var random = SeededRandom(seed)
    var counts = DeliveryCounts()
    var missing: [(tag: Int, epoch: UInt64)] = []
    var epoch: UInt64 = 1
    var asked: UInt64 = 0
    for _ in 0..<300 {
      switch Int.random(in: 0..<5, using: &random) {
      case 0:
        counts.addBarrier(epoch)
        epoch += 1
      case 1:
        let count = Int.random(in: 0...3, using: &random)
        let tag = counts.expect(count)
        for _ in 0..<count { missing.append((tag, epoch)) }
      case 2 where epoch > asked + 1:
        let chosen = UInt64.random(in: asked + 1..<epoch, using: &random)
        let expected = missing.filter { $0.epoch <= chosen }.count
        let waiting = try counts.waiting(before: chosen)
        #expect(waiting == expected)
        if expected == 0 { asked = chosen - 1 }
      default:
        guard !missing.isEmpty else { continue }
        counts.settle(1, tag: missing.remove(at: Int.random(in: 0..<missing.count, using: &random)).tag)
      }
    }
  }

  @Test func aLostRecordSpoilsItsEpochOnly() throws {
    var counts = DeliveryCounts()
    let first = counts.expect(2)
    counts.addBarrier(1)
    let second = counts.expect(1)
    counts.addBarrier(2)
    counts.settle(1, tag: second)
    counts.fail(1, tag: second, "too large")
    func waiting(_ epoch: UInt64) throws -> Int { try counts.waiting(before: epoch) }
    #expect(try waiting(1) == 2)
    counts.settle(2, tag: first)
    #expect(try waiting(1) == 0)
    #expect(throws: RecordsLost.self) { try waiting(2) }
    // Told once: the engine begins again.
    #expect(try waiting(2) == 0)
  }
}
