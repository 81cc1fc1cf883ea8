import Testing

@testable import Runtime

/// Records of lanes at any speed leave in one order, and none is lost.
@Suite struct OutputMergerTests {
  private static let origins = (0..<3).map { RecordOrigin(.metric, rule: Int32($0), name: "r\($0)") }

  private func records(_ writer: RecordWriter, _ items: [(time: Int64, rule: Int, key: String)]) {
    for item in items {
      writer.open(Self.origins[item.rule], time: item.time) { $0.append(utf8: item.key) }
      writer.close(Self.origins[item.rule], time: item.time)
    }
  }

  /// Two sources with two shards each, three partitions.
  private func merger(_ sink: MemorySink, _ order: OutputOrder) -> OutputMerger {
    OutputMerger(
      sink: sink, order: order, sources: 2, shards: 2, partitionSources: [0, 0, 1],
      partitionOrder: [1, 0, 2], ruleCount: 3)
  }

  @Test(arguments: 1...30)
  func totalOrderHoldsAndNothingIsLost(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed))
    // What each lane will say, in order of time. A partition's records are its source's, with keys of its
    // own.
    let prefixes = ["0", "1", "2", "3", "p1", "p0", "p2"]
    var lanes: [[(time: Int64, rule: Int, key: String)]] = []
    for lane in 0..<7 {
      var items = (0..<Int.random(in: 0...60, using: &random)).map { index in
        (
          time: Int64.random(in: 0..<30, using: &random),
          rule: lane < 4 ? Int.random(in: 0..<3, using: &random) : 1, key: "\(prefixes[lane])-\(index)"
        )
      }
      items.sort { $0.time < $1.time }
      lanes.append(items)
    }
    func run(_ random: inout SeededRandom) throws -> [String] {
      let sink = MemorySink()
      let merger = merger(sink, .total)
      var next = [Int](repeating: 0, count: 7)
      var bound = [Int64](repeating: 0, count: 7)
      var open = Set(0..<7)
      while let lane = open.randomElement(using: &random) {
        bound[lane] += Int64.random(in: 0...8, using: &random)
        let isLast = bound[lane] > 30
        var chosen: [(time: Int64, rule: Int, key: String)] = []
        while next[lane] < lanes[lane].count, lanes[lane][next[lane]].time < bound[lane] {
          chosen.append(lanes[lane][next[lane]])
          next[lane] += 1
        }
        let writer = RecordWriter()
        records(writer, chosen.shuffled(using: &random))
        try merger.publish(
          chosen.isEmpty ? nil : writer.drain(), lane: lane, bound: isLast ? afterAllTime : bound[lane])
        if isLast { open.remove(lane) }
      }
      #expect(merger.counts.byRule.reduce(0, +) == lanes.reduce(0) { $0 + $1.count })
      return sink.lines
    }
    let first = try run(&random)
    #expect(first.count == lanes.reduce(0) { $0 + $1.count })
    #expect(Set(first.map(recordID)).count == first.count)
    for _ in 0..<3 { #expect(try run(&random) == first) }
    // The same by sorting everything.
    let writer = RecordWriter()
    records(writer, Array(lanes.joined()))
    let sorted = writer.drain()
    let expected = sorted.order.map { place in
      let entry = sorted.batch.entries[place]
      return String(decoding: sorted.batch.bytes[entry.start..<entry.start + entry.length], as: UTF8.self)
    }
    #expect(first == expected)
  }

  @Test func garbageAlonePassesAsSoonAsNobodyIsBefore() throws {
    let sink = MemorySink()
    let merger = merger(sink, .total)
    func garbage(_ partition: Int) throws {
      let writer = RecordWriter()
      writer.open(Self.origins[0], time: nil) { $0.append(UInt8(partition)) }
      writer.close(Self.origins[0], time: 0, orderTime: beforeAllTime)
      try merger.publish(writer.drain(), lane: merger.partitionLane(partition), bound: beforeAllTime)
    }
    // In the order 1, 0, 2.
    try garbage(0)
    #expect(sink.lines.count == 0)
    try garbage(1)
    #expect(sink.lines.count == 1)
    try merger.publish(nil, lane: merger.partitionLane(1), bound: 5)
    #expect(sink.lines.count == 2)
    try garbage(0)
    #expect(sink.lines.count == 3)
    try garbage(2)
    #expect(sink.lines.count == 3)
    try merger.publish(nil, lane: merger.partitionLane(0), bound: afterAllTime)
    #expect(sink.lines.count == 4)
  }

  @Test func lateRowsStreamWhereTimeStandsStill() throws {
    let sink = MemorySink()
    let merger = merger(sink, .total)
    for source in 0..<2 {
      for shard in 0..<2 {
        try merger.publish(nil, lane: merger.shardLane(source: source, shard: shard), bound: 60)
      }
    }
    for partition in [0, 2] {
      try merger.publish(nil, lane: merger.partitionLane(partition), bound: afterAllTime)
    }
    for number in 1...5 {
      let writer = RecordWriter()
      records(writer, [(time: 30, rule: 0, key: "\(number)")])
      try merger.publish(writer.drain(), lane: merger.partitionLane(1), bound: 30)
      #expect(sink.lines.count == number)
    }
  }

  @Test func sourcesDoNotWaitForEachOther() throws {
    let sink = MemorySink()
    let merger = merger(sink, .bySource)
    let writer = RecordWriter()
    records(writer, [(time: 10, rule: 0, key: "a")])
    try merger.publish(writer.drain(), lane: merger.shardLane(source: 0, shard: 0), bound: 11)
    #expect(sink.lines.isEmpty)
    #expect(try merger.flush() == [beforeAllTime, beforeAllTime])
    try merger.publish(nil, lane: merger.shardLane(source: 0, shard: 1), bound: 20)
    #expect(sink.lines.count == 1)
    #expect(try merger.flush() == [10, beforeAllTime])
  }

  /// An id is the event's: the same for the same kind, rule, key and time, another for any other.
  @Test func idsTellEventsApart() {
    let writer = RecordWriter()
    var items: [(time: Int64, rule: Int, key: String)] = []
    for time in [Int64(0), 1, 60_000_000_000, Int64.max / 2] {
      for rule in 0..<3 {
        for key in ["", "a", "b", "ab", "a\u{1F}", "\u{1F}a"] { items.append((time, rule, key)) }
      }
    }
    records(writer, items + items)
    let ids = writer.drain().batch
    let texts = ids.entries.map {
      recordID(String(decoding: ids.bytes[$0.start..<$0.start + $0.length], as: UTF8.self))
    }
    #expect(Set(texts).count == items.count)
    #expect(Array(texts.prefix(items.count)) == Array(texts.suffix(items.count)))
    let other = RecordWriter()
    let origin = RecordOrigin(.alert, rule: 0, name: "r0")
    other.open(origin, time: 0) { _ in }
    other.close(origin, time: 0)
    let batch = other.drain().batch
    #expect(!texts.contains(recordID(String(decoding: batch.bytes, as: UTF8.self))))
  }
}
