import Foundation
import RuleLang
import Testing

/// SplitMix64: the same numbers in every run.
private struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// Whatever the text, the compiler answers: with a program or with diagnostics that can be printed.
@Suite struct RobustnessTests {
  private static func answer(_ bytes: [UInt8]) {
    let file: SourceFile
    do throws(Diagnostic) {
      file = try SourceFile(path: "a.rules", bytes: bytes)
    } catch {
      #expect(error.severity == .error)
      _ = DiagnosticTextRenderer(files: []).render(error)
      return
    }
    let result = compileRules([file], catalog: testCatalog)
    #expect((result.program == nil) == result.hasErrors)
    let renderer = DiagnosticTextRenderer(files: [file], useColor: true)
    for diagnostic in result.diagnostics {
      let range = diagnostic.primary.range
      #expect(range.start >= 0 && range.start <= range.end && range.end <= bytes.count)
      #expect(range.line >= 1 && range.column >= 1)
      _ = renderer.render(diagnostic)
      _ = diagnostic.json
      _ = diagnostic.github
    }
    if let program = result.program {
      #expect(ProgramInvariants.problems(of: program).isEmpty)
      _ = program.dump
    }
  }

  private static func seeds() throws -> [[UInt8]] {
    let urls = try files(in: "Cases", ending: "case") + files(in: "Wanted", ending: "rules")
    return try urls.map { url in
      let text = try String(contentsOf: url, encoding: .utf8)
      return Array(text.components(separatedBy: "=== ")[0].utf8)
    }
  }

  @Test func truncatedPrograms() throws {
    for seed in try Self.seeds() {
      for length in stride(from: 0, to: seed.count, by: max(1, seed.count / 60)) {
        Self.answer(Array(seed[..<length]))
      }
    }
  }

  @Test(arguments: 0..<8) func mutatedPrograms(_ seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let programs = try Self.seeds()
    let scraps = [
      "{", "}", "(", ")", "\"", "\\", "|", "=", ",", ".", ":", "\n", "\r\n", "\t", "#", "//", "%", "t\"",
      " and ", " where ", " not ", " in (", " by ", "stream x = ", "window", "99999999999999999999",
      "1e", "1h30", "0x", "\u{0}", "é", "日本", "{{", "\\\"", "null", "-", "--", "a.b.c",
    ].map { Array($0.utf8) }
    for _ in 0..<400 {
      var bytes = programs[Int.random(in: 0..<programs.count, using: &random)]
      for _ in 0..<Int.random(in: 1...6, using: &random) where !bytes.isEmpty {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        let end = min(bytes.count, place + Int.random(in: 0...12, using: &random))
        switch Int.random(in: 0..<5, using: &random) {
        case 0: bytes.removeSubrange(place..<end)
        case 1: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 2: bytes.insert(contentsOf: bytes[place..<end], at: place)
        case 3:
          let other = programs[Int.random(in: 0..<programs.count, using: &random)]
          let from = Int.random(in: 0..<other.count, using: &random)
          bytes.insert(contentsOf: other[from..<min(other.count, from + 40)], at: place)
        default:
          bytes.insert(contentsOf: scraps[Int.random(in: 0..<scraps.count, using: &random)], at: place)
        }
      }
      Self.answer(bytes)
    }
  }

  @Test func randomBytes() {
    var random = SeededGenerator(state: 7)
    for length in [0, 1, 2, 3, 10, 100, 1_000, 20_000] {
      for _ in 0..<20 {
        Self.answer((0..<length).map { _ in UInt8.random(in: 0...255, using: &random) })
        // Printable, so that it gets past the check for UTF-8.
        Self.answer((0..<length).map { _ in UInt8.random(in: 9...126, using: &random) })
      }
    }
  }

  @Test(arguments: [
    "(", "not ", "- ", "f(", "a + ", "a and ", "a == ", "x in (", "if(a, ", "{", "{ {", "\"{", "| ", "a.",
    "stream a = ", "source a { fields { ", "alert a { labels { ", "1h",
  ])
  func longRepetitions(_ piece: String) {
    let head = "source r { time ts fields { ts: timestamp(ms), a: int } }\nstream s = r where "
    Self.answer(Array((head + String(repeating: piece, count: 20_000)).utf8))
    Self.answer(Array(String(repeating: piece + "\n", count: 5_000).utf8))
  }

  @Test func chainsOfDefinitions() {
    var text = "source r { time ts fields { ts: timestamp(ms), a: int } }\nlet c0 = 1\nstream s0 = r\n"
    for index in 1...5_000 {
      text += "let c\(index) = c\(index - 1)\nstream s\(index) = s\(index - 1)\n"
    }
    let result = compile(text)
    #expect(!result.hasErrors)
    #expect(result.program?.streams.count == 5_001)
  }

  @Test func diagnosticsAreBounded() {
    let result = compile(String(repeating: "§ x\n", count: 10_000))
    #expect(result.diagnostics.count == 501)
    #expect(result.diagnostics.last?.code == .tooManyDiagnostics)
    #expect(result.program == nil)
  }

  @Test(
    arguments: [
      ([0x61, 0xFF], DiagnosticCode.fileNotUTF8, 2), ([0xC3], .fileNotUTF8, 1),
      ([0x0A, 0xE2, 0x82], .fileNotUTF8, 1), ([0xED, 0xA0, 0x80], .fileNotUTF8, 1),
      ([0xC0, 0x80], .fileNotUTF8, 1), ([0xF4, 0x90, 0x80, 0x80], .fileNotUTF8, 1),
      ([0x61, 0x62, 0x00], .fileHasNUL, 3),
    ] as [([UInt8], DiagnosticCode, Int)])
  func filesThatAreNoText(_ bytes: [UInt8], _ code: DiagnosticCode, _ column: Int) {
    do throws(Diagnostic) {
      _ = try SourceFile(path: "x", bytes: bytes)
      Issue.record("accepted")
    } catch {
      #expect(error.code == code)
      #expect(error.primary.range.column == column)
    }
  }

  @Test func filesThatAreTooLong() throws {
    let bytes = [UInt8](repeating: 0x20, count: SourceFile.bytesMax + 1)
    do throws(Diagnostic) {
      _ = try SourceFile(path: "x", bytes: bytes)
      Issue.record("accepted")
    } catch {
      #expect(error.code == .fileTooLarge)
    }
    _ = try SourceFile(path: "x", bytes: Array(bytes.dropLast()))
    // As text it is caught by the compiler.
    let file = SourceFile(path: "x", text: String(decoding: bytes, as: UTF8.self))
    #expect(compileRules([file], catalog: testCatalog).diagnostics.map(\.code) == [.fileTooLarge])
  }

  @Test func byteOrderMarkIsNoText() throws {
    let file = try SourceFile(path: "x", bytes: [0xEF, 0xBB, 0xBF] + Array("lot x = 3".utf8))
    let result = compileRules([file], catalog: testCatalog)
    #expect(result.diagnostics.map(\.code) == [.unknownDeclaration])
    #expect(result.diagnostics.first?.primary.range.column == 1)
  }
}
