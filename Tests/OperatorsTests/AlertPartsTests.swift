import Catalog
import Runtime
import Testing

@testable import Operators

@Suite struct AlertPartsTests {
  private func labels(_ pairs: [(String, String)]) -> AlertLabels {
    AlertLabels(pairs.map { (Array($0.0.utf8), Array($0.1.utf8)) })
  }

  /// What Alertmanager's API shows for the same labels.
  @Test func fingerprintsAreAlertmanagers() {
    func hex(_ labels: AlertLabels, _ alert: String) -> String { String(labels.fingerprint(alert: alert), radix: 16) }
    let first = labels([("team", "search"), ("service", "ranker"), ("tier", "tier1-ranker")])
    #expect(hex(first, "Slow") == "1e6285b71c0af49b")
    #expect(first == labels([("tier", "tier1-ranker"), ("team", "search"), ("service", "ranker")]))
    #expect(hex(first, "Slower") != hex(first, "Slow"))
    // Where one ends and the next begins counts.
    #expect(hex(labels([("a", "bc")]), "A") != hex(labels([("ab", "c")]), "A"))
    #expect(hex(labels([]), "A") != hex(labels([("a", "")]), "A"))
  }

  @Test func keysTellValuesApart() {
    let by = ["a", "b"]
    let sets = [
      labels([("a", "x"), ("b", "y")]), labels([("a", "x\u{1F}y")]), labels([("a", "x"), ("b", "")]), labels([("a", "x")]),
      labels([("a", ""), ("b", "x")]), labels([("b", "x")]), labels([("a", "x\u{1D}_y")]), labels([("a", "\u{1E}")]), labels([]),
    ]
    #expect(Set(sets.map { $0.key(by) }).count == sets.count)
    #expect(sets[0].key(["b"]) == labels([("b", "y"), ("c", "z")]).key(["b"]))
  }

  @Test func matchersReadLabels() {
    let set = labels([("service", "search"), ("env", "prod")])
    func matches(_ label: String, _ values: [String], _ isNegated: Bool = false) -> Bool {
      set.matches(LabelMatcher(label: label, values: values, isNegated: isNegated))
    }
    #expect(matches("service", ["search"]) && !matches("service", ["ads"]) && matches("env", ["stage", "prod"]))
    #expect(!matches("env", ["stage", "prod"], true) && matches("env", ["stage"], true))
    // A label that is not there is the empty text.
    #expect(matches("region", [""]) && !matches("region", [""], true) && matches("region", ["eu"], true))
  }

  @Test func labelsAreStoredAndReadBack() throws {
    for set in [labels([]), labels([("a", "")]), labels([("b", "Zürich\u{0}"), ("a", "x")])] {
      let writer = StateWriter()
      set.encode(into: writer)
      var reader = StateReader(writer.bytes)
      #expect(try AlertLabels(from: &reader) == set)
      for cut in 0..<writer.bytes.count {
        var cutReader = StateReader(Array(writer.bytes.prefix(cut)))
        #expect(throws: StateCorruption.self) { try AlertLabels(from: &cutReader) }
      }
    }
    #expect(AlertLabels(json: Array(#""labels":{"a":"x","b":"\"q\""}"#.utf8)) == labels([("a", "x"), ("b", "\"q\"")]))
  }

  /// What an alert is told of when, without an engine: (minute, silent) to what is said.
  @Test func noticesAreSaidOnceUnlessThereIsReason() {
    let minute: Int64 = 60_000_000_000
    let policy = NotificationPolicy(
      severity: "ticket", escalations: [("critical", 4 * minute), ("page", 8 * minute)], repeatNanos: 3 * minute)
    func said(_ silent: Range<Int>, until end: Int = 13) -> [String] {
      var notice = AlertNotice(firedAt: 0)
      return (0..<end).compactMap { at in
        switch notice.evaluate(at: Int64(at) * minute, policy, isSuppressed: silent.contains(at)) {
        case nil: nil
        case .firing?: "\(at) firing \(policy.severity(notice.step))"
        case .again(let count)?: "\(at) again \(count)"
        case .escalated(let from)?: "\(at) \(policy.severity(from)) to \(policy.severity(notice.step))"
        case .suppressed?: "\(at) silent"
        }
      }
    }
    #expect(said(20..<20) == ["0 firing ticket", "3 again 1", "4 ticket to critical", "7 again 2", "8 critical to page", "11 again 3"])
    // Silent from the start: its severity is that of the moment at which it is told of.
    #expect(said(0..<9) == ["0 silent", "9 firing page", "12 again 1"])
    // Told of before: what fell due is said when the silence is over, once.
    #expect(said(2..<10) == ["0 firing ticket", "10 ticket to page"])
    #expect(said(2..<4) == ["0 firing ticket", "4 ticket to critical", "7 again 1", "8 critical to page", "11 again 2"])
  }

  /// What is turned away does not depend on workers: it is counted by key group.
  @Test func theLimitIsCountedByKeyGroup() {
    var limit = AlertLimit(2_560)
    let hash: UInt64 = 7 << 32
    var admitted = 0
    for _ in 0..<200 where limit.admit(hash) { admitted += 1 }
    #expect(admitted == 84 && limit.rowsTurnedAway == 116)
    let other = limit.admit(8 << 32)
    #expect(other)
    limit.ended(hash)
    let again = limit.admit(hash)
    #expect(again)
  }
}
