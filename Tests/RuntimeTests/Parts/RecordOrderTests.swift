import CColumns
import Testing

@testable import Runtime

/// Records leave by time, rule and key, whatever order they were written in.
@Suite struct RecordOrderTests {
  private struct Item: Hashable {
    var time: Int64
    var rule: Int
    var key: String
    var number: Int
  }

  private func written(_ items: [Item]) -> (writer: RecordWriter, origins: [RecordOrigin]) {
    let origins = (0..<4).map { RecordOrigin(.metric, rule: Int32($0), name: "rule \($0)") }
    let writer = RecordWriter()
    for item in items {
      writer.open(origins[item.rule], time: item.time) { $0.append(utf8: item.key) }
      writer.append {
        $0.append(json: ",\"n\":")
        $0.append(json: Int64(item.number))
      }
      writer.close(origins[item.rule], time: item.time)
    }
    return (writer, origins)
  }

  private func numbers(_ records: SortedRecords) -> [Int] {
    records.order.map { index in
      let entry = records.batch.entries[index]
      let text = String(decoding: records.batch.bytes[entry.start..<entry.start + entry.length], as: UTF8.self)
      let tail = text.components(after: "\"n\":")
      return Int(tail.prefix { $0.isNumber || $0 == "-" }) ?? -1
    }
  }

  /// Windows in order, rules that take turns, stretches that reach into each other, equal keys and none.
  @Test(arguments: 0..<60) func isTheSlowOrder(_ seed: Int) {
    var random = SeededRandom(UInt64(seed))
    var items: [Item] = []
    for _ in 0..<Int.random(in: 0...12, using: &random) {
      let time = Int64.random(in: 0..<4, using: &random)
      let rule = Int.random(in: 0..<4, using: &random)
      var keys = (0..<Int.random(in: 1...9, using: &random)).map { _ in
        Int.random(in: 0..<8, using: &random) == 0 ? "" : "key-\(Int.random(in: 0..<30, using: &random))"
      }
      if Int.random(in: 0..<4, using: &random) > 0 { keys.sort { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) } }
      for key in keys { items.append(Item(time: time, rule: rule, key: key, number: items.count)) }
    }
    let expected = items.sorted { a, b in
      if a.time != b.time { return a.time < b.time }
      if a.rule != b.rule { return a.rule < b.rule }
      if a.key != b.key { return Array(a.key.utf8).lexicographicallyPrecedes(Array(b.key.utf8)) }
      return a.number < b.number
    }
    #expect(numbers(written(items).writer.drain()) == expected.map(\.number))
    // What is drained at once, and the rest.
    let (writer, _) = written(items)
    #expect(numbers(writer.drain(through: 1)) == expected.filter { $0.time <= 1 }.map(\.number))
    #expect(numbers(writer.drain()) == expected.filter { $0.time > 1 }.map(\.number))
  }

  /// Every byte, at every place of a word and behind it.
  @Test func plainTextIsToldFromAllOther() {
    for length in 0...19 {
      for place in 0..<max(1, length) {
        for byte in UInt8.min...UInt8.max {
          var text = [UInt8](repeating: UInt8(ascii: "a"), count: length)
          if length > 0 { text[place] = byte }
          let isPlain = !text.contains { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }
          #expect((rd_is_plain(text, text.count) != 0) == isPlain, "byte \(byte) at \(place) of \(length)")
        }
      }
    }
  }

  @Test func integersPrintAsTheyAre() {
    var text = RecordText()
    let numbers: [Int64] = [0, -1, 9, 10, -10, .max, .min, 1_795_230_000_000]
    for number in numbers {
      text.removeAll()
      text.append(json: number)
      #expect(String(decoding: UnsafeBufferPointer(start: text.base, count: text.count), as: UTF8.self) == "\(number)")
    }
  }
}

extension String {
  fileprivate func components(after mark: String) -> Substring {
    guard let range = self.firstRange(of: mark) else { return "" }
    return self[range.upperBound...]
  }
}
