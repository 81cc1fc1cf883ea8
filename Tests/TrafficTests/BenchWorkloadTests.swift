import Foundation
import Testing

@testable import Traffic

@Suite struct BenchWorkloadTests {
  private func lines(partition: Int, rows: Int) -> [Substring] {
    var events = BenchEvents(seed: 1, partition: partition, rows: rows)
    var bytes: [UInt8] = []
    while events.append(lines: 1_000, to: &bytes) {}
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
  }

  @Test func rowsHaveTenFieldsAndAbout250Bytes() throws {
    let made = lines(partition: 0, rows: 5_000)
    #expect(made.count == 5_000)
    let mean = Double(made.reduce(0) { $0 + $1.utf8.count + 1 }) / 5_000
    #expect(mean > 235 && mean < 265, "\(mean)")
    for line in made {
      let row = try #require(
        try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
      #expect(row.count == 10)
    }
  }

  @Test func partitionsAreRepeatableAndDiffer() {
    #expect(lines(partition: 1, rows: 100) == lines(partition: 1, rows: 100))
    #expect(lines(partition: 1, rows: 100) != lines(partition: 2, rows: 100))
  }

  @Test func thousandRulesAreAllDifferent() {
    let text = BenchRules.many(1_000)
    let rules = text.components(separatedBy: "stream r").dropFirst()
    #expect(rules.count == 1_000)
    // Without its own name and team, hardly a rule is another's copy.
    let shapes = Set(
      rules.map { rule in
        rule.replacing(/r?\d+ = events|metric r\d+|= r\d+\.|on r\d+|Alert\d+|team-\d+/, with: "")
      })
    #expect(shapes.count > 950, "\(shapes.count)")
    #expect(BenchRules.many(1_000) == text)
  }
}
