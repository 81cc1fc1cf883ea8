import Foundation
import Testing

@testable import Operators
@testable import Runtime

@Suite struct LineScannerTests {
  @Test(
    arguments: [
      ("Failed password for root from 10.0.0.7 port 22 ssh2", "Failed password for root from <*> port <*>"),
      ("GET /v2/54fadb41/servers?limit=5&all=1 took 0.25 s", "GET <*> took <*>"),
      ("close, 3216 bytes (3.14 KB) sent, 0 bytes received, lifetime <1 sec", "close, <*> sent, <*> received, lifetime <*>"),
      ("at Fri Jun 17 07:07:00 2005 by cron", "at <*> by cron"),
      ("2017-05-16 05:54:58,530 started", "<*> started"),
      ("2017-05-16T05:54:58.530Z started", "<*> started"),
      ("logname= uid=0 user=root ws=WorkSource{10113 x} tag=\"View Lock\" end", "logname=<*> uid=<*> user=<*> ws=<*> tag=<*> end"),
      ("resolving () failed in jk2_init()", "resolving (<*>) failed in <*>()"),
      ("synchronized to LOCAL(0), stratum 10", "synchronized to <*>, stratum <*>"),
      ("deleted blk_1 blk_-2, blk_3 done", "deleted <*> done"),
      ("peer fe80::1:2 via 00:11:43:e3:ba:c3 up", "peer <*> via <*> up"),
      ("action android.intent.action.SCREEN_ON of com.example.app", "action android.intent.action.SCREEN_ON of <*>"),
      ("load C:\\Windows\\x.dll, mail bob@example.org", "load <*>, mail <*>"),
      ("see https://example.org/a?b=c.", "see <*>."),
      ("db.example.com:5432 and wx.sinaimg.cn:80 refused", "<*> and <*> refused"),
      ("wait state.................0", "wait state...<*>"),
      ("temperature -3.5, load 97% in 3 user-level threads", "temperature <*>, load <*> in <*> user-level threads"),
      ("Größe überschritten für Zeile 7", "Größe überschritten für Zeile <*>"),
      ("", ""), ("   ", ""), ("42", "<*>"), ("/", "<*>"), ("=", "="), ("a=", "a=<*>"),
    ])
  func templates(_ line: String, _ template: String) {
    #expect(PatternRun().add(line).text == template)
  }

  @Test(
    arguments: [
      ("from 10.0.0.7 to 10.0.0.8:80", ["ip:10.0.0.7", "ip:10.0.0.8:80"]),
      ("a 0x1F b deadbeef01 c 42 d -1.5 e 7%", ["hex:0x1F", "hex:deadbeef01", "number:42", "number:-1.5", "number:7%"]),
      ("b9000564-fe1a-409b-b8cc-1e88b294cd1d x", ["uuid:b9000564-fe1a-409b-b8cc-1e88b294cd1d"]),
      ("took 12ms of 5 minutes, 12:30:01", ["duration:12ms", "duration:5 minutes, 12:30:01"]),
      ("read 5.2 KB at 1024MB", ["size:5.2 KB", "size:1024MB"]),
      ("mail bob@example.org via mx.example.org", ["email:bob@example.org", "host:mx.example.org"]),
      ("k=v q='a b' e= p=/x/y", ["value:v", "quoted:'a b'", "empty:", "path:/x/y"]),
      ("ids 1, 2, 3 end", ["number:1, 2, 3"]),
    ])
  func namesOfValues(_ line: String, _ values: [String]) {
    #expect(PatternRun().values(line) == values)
  }

  @Test func usersMasksComeFirstInTheirOrder() {
    var options = PatternOptions()
    options.masks = [
      PatternMask(name: "order", pattern: "order [a-z]+"), PatternMask(name: "word", pattern: "\\b[a-z]+ly\\b|[a-z]+ ship"),
      PatternMask(name: "nothing", pattern: "x*"),
    ]
    let run = PatternRun(options)
    #expect(run.values("shipped order friendly kindly order b ship 7") == ["order:order friendly kindly order b", "number:7"])
    #expect(run.values("we friendly shipped order abc of 7") == ["word:friendly", "order:order abc", "number:7"])
    #expect(run.add("we friendly shipped order abc of 7").text == "we <*> shipped <*> of <*>")
  }

  @Test func aMaskThatRunsAwayIsGivenUp() {
    var options = PatternOptions()
    options.masks = [PatternMask(name: "slow", pattern: "^(a+)+$")]
    #expect(PatternRun(options).add(String(repeating: "a", count: 60) + "b").isNew)
  }

  @Test func invalidMasksAreNamed() {
    #expect(UserMasks.problem(with: "a(b") != nil)
    #expect(UserMasks.problem(with: "a(b)") == nil)
    #expect(UserMasks.problem(with: String(repeating: "a", count: 20_000)) != nil)
  }

  @Test func delimitersEndWords() {
    var options = PatternOptions()
    options.delimiters = "_/"
    #expect(PatternRun(options).add("task_17 in a/b").text == "task_<*> in a/b")
    #expect(PatternRun().add("see task_17 in a/b").text == "see <*> in a/b")
    #expect(PatternRun(options).add("open_file x").text != PatternRun().add("open-file x").text)
  }

  @Test func runsMayStayApart() {
    var options = PatternOptions()
    options.mergesRuns = false
    #expect(PatternRun(options).add("ids 1, 2 3").text == "ids <*>, <*> <*>")
  }

  @Test func longLinesAreBounded() {
    let run = PatternRun()
    let words = String(repeating: "ab: ", count: 5_000)
    let first = run.add(words + "x")
    #expect(first.text.hasSuffix("<*>"))
    #expect(run.scanner.count <= LineScanner.tokensMax + 4)
    #expect(run.add(words + "y 1 2 z").id == first.id)
    #expect(run.add(String(repeating: "=()[]{}", count: 3_000)).isNew)
    #expect(run.add([UInt8](repeating: UInt8(ascii: "x"), count: 100_000)).isNew)
  }

  /// Any bytes are read to their end and no further, and tokens lie in the line, in order.
  @Test(arguments: 0..<8) func anyBytes(_ seed: Int) {
    var random = SeededRandom(UInt64(seed) &+ 77)
    let run = PatternRun()
    let alphabet = Array("a1:/=.-<>()[]{}\"' \\,;@#x0fF+~%_&?\u{e9}Z".utf8)
    for _ in 0..<3_000 {
      let line = (0..<Int.random(in: 0...40, using: &random)).map { _ in
        Bool.random(using: &random) ? alphabet.randomElement(using: &random)! : UInt8.random(in: 0...255, using: &random)
      }
      let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, line.count))
      defer { copy.deallocate() }
      for (index, byte) in line.enumerated() { copy[index] = byte }
      run.scanner.scan(copy, line.count)
      var last = 0
      for index in 0..<run.scanner.count {
        let token = run.scanner[index]
        #expect(Int(token.start) >= last && token.end >= token.start && Int(token.end) <= line.count, "\(line)")
        last = Int(token.end)
      }
      let first = run.model.add(run.scanner)
      #expect(run.model.add(run.scanner).index == first.index)
    }
  }
}

@Suite struct PatternModelTests {
  @Test func wordsMakePatternsAndNamesDoNot() {
    let run = PatternRun()
    let opened = run.add("session opened for user cyrus by (uid=0)")
    #expect(opened.isNew && !opened.isChanged)
    let closed = run.add("session closed for user cyrus by (uid=0)")
    #expect(closed.isNew && closed.id != opened.id)
    let other = run.add("session opened for user news by (uid=9)")
    #expect(other.id == opened.id && other.isChanged && !other.isNew)
    #expect(other.text == "session opened for user <*> by (uid=<*>)")
    #expect(!run.add("session opened for user test by (uid=9)").isChanged)
  }

  @Test func idsAreThoseOfTheBirth() {
    let a = PatternRun()
    let b = PatternRun()
    _ = a.add("something else before")
    let first = a.add("session opened for user cyrus by (uid=0)")
    #expect(first.id == b.add("session opened for user cyrus by (uid=17)").id)
    #expect(a.add("session opened for user news by (uid=0)").id == first.id)
    // Written down: an id that changes from one version to the next is a new pattern to every rule.
    #expect(first.id == "29187df7d7bdad62")
  }

  @Test func manySiblingsBecomeOne() {
    var options = PatternOptions()
    options.siblings = 5
    let run = PatternRun(options)
    let words = ["chargen", "daytime", "echo", "ftp", "gssftp", "klogin", "kshell"]
    let seen = words.map { run.add("removing \($0)") }
    #expect(seen.prefix(5).allSatisfy { $0.isNew })
    #expect(seen[4].text == "removing <*>" && seen[5].id == seen[4].id && seen[6].id == seen[4].id)
    #expect(run.add("removing echo").id == seen[2].id)
    options.siblings = 0
    let never = PatternRun(options)
    #expect(Set(words.map { never.add("removing \($0)").id }).count == words.count)
  }

  @Test func theLongestUnmatchedIsEvicted() {
    var options = PatternOptions()
    options.limit = 3
    let run = PatternRun(options)
    let lines = ["alpha starts now", "beta starts now", "gamma starts now"]
    for line in lines { _ = run.add(line) }
    _ = run.add(lines[0])
    // Scored against beta and gamma, matched by neither.
    #expect(run.add("delta starts now").isNew)
    #expect(run.model.count == 3 && run.model.evicted == 1)
    #expect(!run.add(lines[0]).isNew && !run.add(lines[2]).isNew)
    #expect(run.add(lines[1]).isNew, "beta had gone")
  }

  /// Lines of few words, so that they meet: templates, similarities and ages come to matter.
  static func lines(_ random: inout SeededRandom, count: Int) -> [[UInt8]] {
    let words = ["open", "close", "file", "user", "io.netty", "read-only", "a_b", "x-y", "null", "GET", "for", "password", "NEW_ONE"]
    let marks = [":", "(", ")", "=", ",", "--", "[", "]"]
    let values = ["1", "0x1f", "10.0.0.1", "/a/b", "7 ms", "k=v"]
    return (0..<count).map { _ in
      let parts = (0..<Int.random(in: 1...7, using: &random)).map { _ in
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<6: words.randomElement(using: &random)!
        case 6: marks.randomElement(using: &random)!
        default: values.randomElement(using: &random)!
        }
      }
      return Array(parts.joined(separator: Bool.random(using: &random) ? " " : "  ").utf8)
    }
  }

  static func options(_ random: inout SeededRandom) -> PatternOptions {
    var options = PatternOptions()
    options.similarity = [0.4, 0.6, 0.75, 0.95, 1].randomElement(using: &random)!
    options.depth = Int.random(in: 0...3, using: &random)
    options.limit = [5, 20, 200].randomElement(using: &random)!
    options.siblings = [0, 2, 4, 10].randomElement(using: &random)!
    options.mergesRuns = Bool.random(using: &random)
    return options
  }

  @Test(arguments: 0..<40) func agreesWithTheReference(_ seed: Int) {
    var random = SeededRandom(UInt64(seed) &+ 1)
    let options = Self.options(&random)
    let run = PatternRun(options)
    var reference = ReferencePatterns(options)
    // An id for each of the reference's numbers, while the template lives.
    var ids: [Int: String] = [:]
    for line in Self.lines(&random, count: 600) {
      let seen = run.add(line)
      let expected = reference.add(ReferencePatterns.tokens(run.scanner, line))
      let text = String(decoding: line, as: UTF8.self)
      #expect(seen.isNew == expected.isNew && seen.isChanged == expected.isChanged, "\(text), \(options)")
      if expected.isNew { ids[expected.id] = seen.id }
      #expect(ids[expected.id] == seen.id, "\(text), \(options)")
      guard seen.isNew == expected.isNew, ids[expected.id] == seen.id else { return }
    }
    #expect(run.model.count == reference.templates.count)
  }

  @Test(arguments: 0..<20) func goesOnFromItsState(_ seed: Int) throws {
    var random = SeededRandom(UInt64(seed) &+ 100)
    let options = Self.options(&random)
    let whole = PatternRun(options)
    var cut = PatternRun(options)
    for (number, line) in Self.lines(&random, count: 400).enumerated() {
      #expect(whole.add(line) == cut.add(line))
      guard number % 57 == 0 else { continue }
      let writer = StateWriter()
      cut.model.encode(into: writer)
      let next = PatternRun(options)
      var reader = StateReader(writer.bytes)
      try next.model.restore(from: &reader)
      #expect(reader.isAtEnd)
      let again = StateWriter()
      next.model.encode(into: again)
      #expect(again.bytes == writer.bytes)
      #expect(next.model.bytes == cut.model.bytes && next.model.count == cut.model.count)
      cut = next
    }
  }

  static func isRefused(_ bytes: [UInt8], _ options: PatternOptions) -> Bool {
    var reader = StateReader(bytes)
    do throws(StateCorruption) { try PatternModel(options).restore(from: &reader) } catch { return true }
    return false
  }

  @Test func damagedStateIsRefusedOrReadWhole() throws {
    var random = SeededRandom(5)
    let run = PatternRun()
    for line in Self.lines(&random, count: 60) { _ = run.add(line) }
    let writer = StateWriter()
    run.model.encode(into: writer)
    let bytes = writer.bytes
    for length in stride(from: 0, to: bytes.count, by: 3) {
      #expect(Self.isRefused(Array(bytes.prefix(length)), PatternOptions()))
    }
    for _ in 0..<2_000 {
      var damaged = bytes
      damaged[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      var reader = StateReader(damaged)
      let next = PatternRun()
      // Checksums are the store's; what gets through must not crash.
      do { try next.model.restore(from: &reader) } catch { continue }
      for line in Self.lines(&random, count: 5) { _ = next.add(line) }
    }
    var other = PatternOptions()
    other.depth = 2
    #expect(Self.isRefused(bytes, other))
  }

  @Test func tenThousandTemplatesAreFoundAtOnce() {
    var options = PatternOptions()
    options.limit = 20_000
    let run = PatternRun(options)
    func word(_ number: Int) -> String {
      String(decoding: (0..<4).map { UInt8(97 + number >> ($0 * 4) & 15) }, as: UTF8.self)
    }
    var ids = Set<String>()
    for number in 0..<10_000 { ids.insert(run.add("job \(word(number)) of \(word(number ^ 0x5a5)) has run").id) }
    #expect(ids.count == 10_000 && run.model.count == 10_000)
    for number in stride(from: 0, to: 10_000, by: 7) {
      #expect(!run.add("job \(word(number)) of \(word(number ^ 0x5a5)) has run").isNew)
    }
  }
}

/// The samples of Loghub, other people's and not in this repository: RULESD_LOGHUB names a folder of them, `<name>.csv` with
/// the columns Content and EventId. A small one of our own, with the same columns, is always there.
@Suite struct PatternQualityTests {
  static let own = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Patterns")
  static let loghub = ProcessInfo.processInfo.environment["RULESD_LOGHUB"].map { URL(fileURLWithPath: $0) }

  struct Score {
    var ga: Double
    var fga: Double
  }

  /// GA (Zhu et al., ICSE 2019) and FGA (Jiang et al., ISSTA 2024).
  static func score(_ truth: [String], _ predicted: [String]) -> Score {
    var trueSize: [String: Int] = [:]
    var predictedSize: [String: Int] = [:]
    var both: [[String]: Int] = [:]
    for (event, id) in zip(truth, predicted) {
      trueSize[event, default: 0] += 1
      predictedSize[id, default: 0] += 1
      both[[event, id], default: 0] += 1
    }
    let exact = both.filter { $0.value == trueSize[$0.key[0]] && $0.value == predictedSize[$0.key[1]] }
    let ga = Double(exact.values.reduce(0, +)) / Double(truth.count)
    return Score(ga: ga, fga: 2 * Double(exact.count) / Double(trueSize.count + predictedSize.count))
  }

  static func rows(_ url: URL) throws -> [(content: String, event: String)] {
    var rows: [[String]] = [[""]]
    var isQuoted = false
    for character in try String(contentsOf: url, encoding: .utf8) {
      switch character {
      case "\"":
        // A doubled quote closes and opens; the character between is the quote.
        if !isQuoted, rows[rows.count - 1].last?.isEmpty == false { rows[rows.count - 1][rows[rows.count - 1].count - 1].append("\"") }
        isQuoted.toggle()
      case "," where !isQuoted: rows[rows.count - 1].append("")
      case "\n" where !isQuoted, "\r\n" where !isQuoted: rows.append([""])
      default: rows[rows.count - 1][rows[rows.count - 1].count - 1].append(character)
      }
    }
    let header = rows.removeFirst()
    guard let content = header.firstIndex(of: "Content"), let event = header.firstIndex(of: "EventId") else { return [] }
    return rows.filter { $0.count == header.count }.map { ($0[content], $0[event]) }
  }

  @Test func ownSample() throws {
    let rows = try Self.rows(Self.own.appendingPathComponent("shop.csv"))
    #expect(rows.count > 50)
    let run = PatternRun()
    let score = Self.score(rows.map(\.event), rows.map { run.add($0.content).id })
    #expect(score.ga == 1 && score.fga == 1)
    // Lines in another order are grouped the same way.
    let reversed = PatternRun()
    let backwards = Self.score(rows.reversed().map(\.event), rows.reversed().map { reversed.add($0.content).id })
    #expect(backwards.ga == 1)
  }

  @Test(.enabled(if: loghub != nil, "RULESD_LOGHUB names no folder"))
  func loghubSamples() throws {
    let folder = try #require(Self.loghub)
    let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == "csv" }
    #expect(!files.isEmpty)
    var scores: [Score] = []
    for file in files {
      let rows = try Self.rows(file)
      let run = PatternRun()
      scores.append(Self.score(rows.map(\.event), rows.map { run.add($0.content).id }))
    }
    let mean = Score(
      ga: scores.map(\.ga).reduce(0, +) / Double(scores.count), fga: scores.map(\.fga).reduce(0, +) / Double(scores.count))
    #expect(mean.ga >= 0.95 && mean.fga >= 0.91, "\(mean)")
  }
}
