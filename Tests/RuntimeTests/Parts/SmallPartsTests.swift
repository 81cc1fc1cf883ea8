import CColumns
import Catalog
import Foundation
import Testing

@testable import Runtime

@Suite struct TimestampTests {
  @Test(arguments: [
    (Int64(0), "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
    (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
    (1_795_230_000_250_999_999, "2026-11-21T03:00:00.250Z"),
    (7_258_118_400_000_000_000, "2200-01-01T00:00:00.000Z"),
    (Int64.min, "1677-09-21T00:12:43.145Z"), (Int64.max, "2262-04-11T23:47:16.854Z"),
  ])
  func prints(_ nanos: Int64, _ text: String) { #expect(formatTimestamp(nanos) == text) }

  @Test func equalsFoundation() {
    var random = SeededRandom(1)
    let format = ISO8601DateFormatter()
    for _ in 0..<3_000 {
      let seconds = Int64.random(in: -9_000_000_000...9_000_000_000, using: &random)
      let text = format.string(from: Date(timeIntervalSince1970: Double(seconds)))
      #expect(formatTimestamp(seconds * 1_000_000_000) == text.dropLast() + ".000Z")
    }
  }

  @Test func floors() {
    for a in Int64(-20)...20 {
      for step in Int64(1)...7 {
        let floor = floorToMultiple(a, of: step)
        #expect(floor % step == 0 && floor <= a && floor + step > a)
      }
    }
  }
}

@Suite struct JSONTextTests {
  private func read(_ bytes: [UInt8]) throws -> Any {
    try JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)
  }

  @Test func everyTextReadsBack() throws {
    var random = SeededRandom(2)
    for _ in 0..<2_000 {
      var text = ""
      for _ in 0..<Int.random(in: 0...12, using: &random) {
        let code = UInt32.random(in: 0...(Bool.random(using: &random) ? 0x7F : 0x1_FFFF), using: &random)
        if let scalar = Unicode.Scalar(code) { text.unicodeScalars.append(scalar) }
      }
      var bytes: [UInt8] = []
      bytes.append(jsonString: text)
      #expect(Array((try read(bytes) as? String ?? "?").utf8) == Array(text.utf8))
    }
  }

  @Test func everyNumberReadsBack() throws {
    var random = SeededRandom(3)
    let special = [
      0, -0.0, 1, -1, 9_007_199_254_740_992, -9_007_199_254_740_994, 1e21, 1e-7, Double.leastNonzeroMagnitude,
      .greatestFiniteMagnitude,
    ]
    for index in 0..<5_000 {
      let value = index < special.count ? special[index] : Double(bitPattern: random.next())
      var bytes: [UInt8] = []
      bytes.append(json: value)
      let text = String(decoding: bytes, as: UTF8.self)
      if value.isNaN {
        #expect(text == "null")
      } else if value.isInfinite {
        #expect(text == (value > 0 ? "\"+Inf\"" : "\"-Inf\""))
      } else {
        #expect(Double(text) == value)
        #expect(throws: Never.self) { try read(bytes) }
      }
    }
  }
}

@Suite struct GroupTableTests {
  /// The keys of random rows, null and empty ones too, get the ids that a dictionary gives in order of first
  /// sight, however many groups the table was told to expect.
  @Test(
    arguments: [[], [.string], [.int64], [.string, .string], [.float64, .bool, .string]] as [[PhysicalType]],
    [16, 17, 3_000])
  func equalsADictionary(_ types: [PhysicalType], expectedGroups: Int) {
    var random = SeededRandom(UInt64(types.count + 5))
    let table = GroupTable(keyTypes: types, expectedGroups: expectedGroups)
    let other = GroupTable(keyTypes: types)
    var known: [[String]: Int32] = [:]
    var texts: [UnsafeMutablePointer<UInt8>] = []
    defer { for text in texts { text.deallocate() } }
    for _ in 0..<30 {
      let batch = Batch(types: types, capacity: 200)
      var keys = [[String]](repeating: [], count: 200)
      for (slot, type) in types.enumerated() {
        let column = batch.columns[slot]
        column.hasNulls = Bool.random(using: &random)
        for row in 0..<200 {
          let number = Int.random(in: -20...20, using: &random)
          let isNull = column.hasNulls && number % 7 == 0
          column.validity[row] = isNull ? 0 : 1
          var key = "\(number)"
          switch type {
          case .string:
            if number == 3 { key = "" }
            let bytes = Array(key.utf8)
            let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, bytes.count))
            for (index, byte) in bytes.enumerated() { copy[index] = byte }
            texts.append(copy)
            let hash = Bool.random(using: &random) ? rd_hash_bytes(copy, UInt32(bytes.count)) : 0
            column.strings[row] = rd_string(data: copy, length: UInt32(bytes.count), hash: hash)
          case .int64: column.ints[row] = Int64(number)
          case .float64:
            column.doubles[row] = number == 0 && Bool.random(using: &random) ? -0.0 : Double(number) / 4
          case .bool:
            column.bools[row] = number > 0 ? 1 : 0
            key = "\(number > 0)"
          }
          keys[row].append(isNull ? "null" : "=" + key)
        }
      }
      batch.rowCount = 200
      var access = KeyColumns()
      access.bind(batch, slots: Array(types.indices))
      let rows = (0..<Int32(200)).filter { _ in Bool.random(using: &random) }
      var hashes = [UInt64](repeating: 0, count: 200)
      var groups = [Int32](repeating: -1, count: 200)
      access.hashRows(rows, count: rows.count, into: &hashes)
      table.assign(access, rows: rows, hashes: hashes, count: rows.count, groups: &groups)
      for (place, row) in rows.enumerated() {
        let expected = known[keys[Int(row)], default: Int32(known.count)]
        known[keys[Int(row)]] = expected
        #expect(groups[place] == expected)
      }
    }
    #expect(table.count == known.count)
    // Group by group into another table, in another order, found again, in one order.
    for group in (0..<table.count).reversed() {
      #expect(other.find(group: group, of: table) == nil)
      #expect(other.assign(group: group, of: table) == table.count - 1 - group)
      #expect(other.assign(group: group, of: table) == table.count - 1 - group)
      #expect(other.find(group: group, of: table) == table.count - 1 - group)
    }
    for a in 0..<min(40, table.count) {
      #expect(!table.isOrderedBefore(a, a))
      for b in 0..<a { #expect(table.isOrderedBefore(a, b) != table.isOrderedBefore(b, a)) }
    }
    // All of them, and some, by the same order.
    let all = (0..<Int32(table.count)).shuffled(using: &random)
    for groups in [table.ordered(), table.ordered(Array(all.prefix(20))), table.ordered(all)] {
      for (before, after) in zip(groups, groups.dropFirst()) {
        #expect(table.isOrderedBefore(Int(before), Int(after)))
      }
    }
    #expect(Set(table.ordered()) == Set(all))
    #expect(Set(table.ordered(Array(all.prefix(20)))) == Set(all.prefix(20)))
    #expect(table.ordered([]) == [])
  }
}

@Suite struct ResumePointTests {
  @Test func metadataReadsBack() {
    let point = ResumePoint(
      neededSince: .min, emittedThrough: .max, readThrough: -1, watermark: 1_795_230_000_000_000_000,
      raises: [WatermarkRaise(offset: 7, watermark: 9), WatermarkRaise(offset: .max, watermark: .min)])
    #expect(ResumePoint(metadata: point.metadata) == point)
    var long = point
    long.raises = (0..<1_000).map { WatermarkRaise(offset: .max - $0, watermark: .min + $0) }
    #expect(long.metadata.utf8.count <= 4_096)
    #expect(
      ResumePoint(metadata: long.metadata)?.raises == Array(long.raises.suffix(WatermarkRaises.countMax)))
  }

  @Test(arguments: [
    "", "rulesd1", "rulesd1 1 2 3", "rulesd1 1 2 3 x", "rulesd2 1 2 3 4", "rulesd1 1 2 3 4 5",
    "rulesd1 1 2 3 4 5:",
  ])
  func othersTextsAreNone(_ text: String) { #expect(ResumePoint(metadata: text) == nil) }

  /// From where the index says, every row since the time is there, and it decides the same about each.
  @Test(arguments: 1...20)
  func indexMissesNoRow(_ seed: Int) {
    var random = SeededRandom(UInt64(seed))
    let records = randomRecords(
      1_500, from: testEpoch, keys: 1, stepNanosMax: 7 * second, boundNanos: 40 * second, lateOneIn: 0,
      garbageOneIn: 0, random: &random)
    var index = OffsetIndex()
    var watermarks: [Int64] = []
    var watermark = beforeAllTime
    var forgotten = beforeAllTime
    for (offset, record) in records.enumerated() {
      watermarks.append(watermark)
      index.note(time: record.time, offset: Int64(offset), watermark: watermark)
      watermark = max(watermark, record.time - 40 * second)
      guard Int.random(in: 0..<40, using: &random) == 0 else { continue }
      let since = max(forgotten, watermark - Int64.random(in: 0...600, using: &random) * second)
      let first = records[...offset].firstIndex { $0.time >= since }
      if let back = index.resume(since: since) {
        #expect(Int(back.offset) <= first ?? .max)
        #expect(back.watermark == watermarks[Int(back.offset)])
        // No further back than a minute's worth of rows makes it.
        #expect(records[Int(back.offset)].time >= since - minute)
      } else {
        #expect(first == nil)
      }
      index.forget(before: since)
      forgotten = since
    }
  }
}

@Suite struct InboxTests {
  /// Many senders: each one's messages come in its order, all of them, and a full inbox is no wall.
  @Test func isFirstInFirstOutForEachSender() throws {
    let inbox = Inbox()
    let count = 2 * Inbox.messagesMax
    let threads = try (0..<3).map { sender in
      try WorkerThread {
        for number in 0..<count {
          inbox.send(.shardWatermark(flow: sender, level: 0, shard: 0, watermark: Int64(number)), from: 0)
        }
      }
    }
    var next = [Int64](repeating: 0, count: 3)
    while next.contains(where: { $0 < count }) {
      for envelope in inbox.take() {
        guard case .shardWatermark(let sender, _, _, let number) = envelope.message else { continue }
        #expect(number == next[sender])
        next[sender] += 1
      }
      inbox.wait(nanos: 1_000_000)
    }
    for thread in threads { thread.join() }
    #expect(inbox.count == 0)
  }
}

@Suite struct ProgressTests {
  @Test func nobodyRunsFarAhead() {
    let progress = Progress(sources: [0, 0, 0], leadNanos: 60)
    // Nobody knows yet where the others are.
    #expect(progress.mayRead(0, watermark: beforeAllTime))
    #expect(!progress.mayRead(0, watermark: 100))
    progress.update(1, watermark: 50, isReadable: true)
    progress.update(2, watermark: 45, isReadable: true)
    #expect(progress.mayRead(0, watermark: 105))
    #expect(!progress.mayRead(0, watermark: 106))
    // Who has nothing holds nobody back.
    progress.update(2, watermark: 45, isReadable: false)
    #expect(progress.mayRead(0, watermark: 110))
    #expect(!progress.mayRead(0, watermark: 111))
    progress.update(1, watermark: afterAllTime, isReadable: false)
    #expect(progress.mayRead(0, watermark: eventTimeNanos.upperBound))
  }
}
