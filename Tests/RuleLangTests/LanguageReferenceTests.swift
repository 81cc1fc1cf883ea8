import Foundation
import RuleLang
import Testing

/// What docs/language.md shows is compiled: blocks of `rules` as they stand, `rules fragment` behind the
/// sources below, and of `rules error` the diagnostics must be those of the `text` block that follows.
@Suite struct LanguageReferenceTests {
  /// Sources and a stream that fragments may use.
  private static let preamble = """
    source requests {
      time ts
      fields {
        ts: timestamp(ms), service: string, status: int, latency: duration(ms), trace_id: string?,
        relevance: float?, route: string, retries: int = 0, size: bytes
      }
    }
    source lag {
      time ts
      fields { ts: timestamp(s), group: string, topic: string, partition: int, lag: int }
    }
    source disks {
      time ts
      fields { ts: timestamp(s), host: string, mount: string, used: bytes, size: bytes }
    }
    source counters {
      time ts
      fields { ts: timestamp(ms), name: string, service: string, instance: string, value: float }
    }
    source samples { time ts fields { ts: timestamp(ms), metric: string, host: string, value: float } }
    source events {
      time ts
      fields {
        ts: timestamp(rfc3339), kind: string, topic: string?, dead_lettered: bool = false,
        cache_hit: bool?, pending: int?, cluster: string?, status: string?, ai_fallback: bool?
      }
    }
    stream per_service = requests
      | window tumbling 1m by service
      | aggregate n = count(), errors = count(where status >= 500), p99 = quantile(latency, 0.99)
      | derive error_ratio = errors / n
    """

  private static let page = testFolder.appendingPathComponent("../../docs/language.md")

  private struct Block {
    var info: String
    var line: Int
    var text: String
  }

  private static func blocks(of page: URL = page) throws -> [Block] {
    var blocks: [Block] = []
    var open: Block?
    let lines = try String(contentsOf: page, encoding: .utf8).components(separatedBy: "\n")
    for (index, line) in lines.enumerated() {
      if line.hasPrefix("```") {
        if let block = open {
          blocks.append(block)
          open = nil
        } else {
          open = Block(info: String(line.dropFirst(3)), line: index + 2, text: "")
        }
      } else {
        open?.text += line + "\n"
      }
    }
    #expect(open == nil, "a block is not closed")
    return blocks
  }

  @Test func everyBlockCompiles() throws {
    let blocks = try Self.blocks()
    var count = 0
    for (index, block) in blocks.enumerated() where block.info.hasPrefix("rules") {
      count += 1
      let words = block.info.split(separator: " ").dropFirst()
      #expect(words.allSatisfy { $0 == "fragment" || $0 == "error" }, "\(block.info)")
      var files = [SourceFile(path: "a.rules", text: block.text)]
      if words.contains("fragment") {
        files.append(SourceFile(path: "preamble.rules", text: Self.preamble))
      }
      let result = compileRules(files, catalog: productCatalog)
      let relevant = result.diagnostics.filter { $0.code != .unused }
      let printed = DiagnosticTextRenderer(files: files).render(relevant)
      if words.contains("error") {
        #expect(result.program == nil)
        let shown = blocks.dropFirst(index + 1).first
        #expect(shown?.info == "text")
        #expect(shown?.text.trimmed == printed.trimmed, "language.md:\(block.line)")
      } else {
        #expect(printed == "", "language.md:\(block.line)")
      }
    }
    #expect(count > 15)
  }

  /// Every program of the page on alerts stands for itself.
  @Test func everyBlockOfThePageOnAlertsCompiles() throws {
    let blocks = try Self.blocks(of: testFolder.appendingPathComponent("../../docs/alerts.md")).filter { $0.info == "rules" }
    #expect(blocks.count >= 4)
    for block in blocks {
      let file = SourceFile(path: "a.rules", text: block.text)
      let result = compileRules([file], catalog: productCatalog)
      #expect(DiagnosticTextRenderer(files: [file]).render(result.diagnostics) == "", "alerts.md:\(block.line)")
    }
  }

  /// Pages whose rules have no output to compare.
  @Test(arguments: ["anomalies", "changed", "forecast", "absent"]) func everyRuleOfAPageCompiles(_ name: String) throws {
    let page = Self.page.deletingLastPathComponent().appendingPathComponent("\(name).md")
    let blocks = try Self.blocks(of: page).filter { $0.info.hasPrefix("rules") }
    #expect(!blocks.isEmpty)
    for block in blocks {
      var files = [SourceFile(path: "a.rules", text: block.text)]
      if block.info == "rules fragment" { files.append(SourceFile(path: "preamble.rules", text: Self.preamble)) }
      let problems = compileRules(files, catalog: productCatalog).diagnostics.filter { $0.code != .unused }
      #expect(DiagnosticTextRenderer(files: files).render(problems) == "", "\(name).md:\(block.line)")
    }
  }

  /// What a detector's spec shows is a stage over the fragments' streams.
  @Test(arguments: productCatalog.detectors.map(\.name)) func everyExampleOfADetectorCompiles(_ name: String) throws {
    let spec = try #require(productCatalog.detector(name))
    let compiles = ["per_service", "disks"].contains { input in
      let files = [
        SourceFile(path: "a.rules", text: "anomaly a = \(input) | \(spec.example)"),
        SourceFile(path: "preamble.rules", text: Self.preamble),
      ]
      return compileRules(files, catalog: productCatalog).program != nil
    }
    #expect(compiles, "\(spec.example)")
  }

  /// The table is printed from the codes; `RULESD_REWRITE_CASES=1 swift test` writes it.
  @Test func diagnosticsAreThoseOfTheCompiler() throws {
    var table = "\n| code | what | meaning |\n|---|---|---|\n"
    for code in DiagnosticCode.allCases {
      let cells = [code.rawValue, code.title, code.explanation]
        .map { $0.replacingOccurrences(of: "|", with: "\\|") }
      table += "| \(cells.joined(separator: " | ")) |\n"
    }
    let text = try String(contentsOf: Self.page, encoding: .utf8)
    let begin = try #require(text.range(of: "<!-- diagnostics:begin -->\n"))
    let end = try #require(text.range(of: "<!-- diagnostics:end -->"))
    let expected = text[..<begin.upperBound] + table + "\n" + text[end.lowerBound...]
    if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
      try expected.write(to: Self.page, atomically: true, encoding: .utf8)
    } else {
      #expect(text == expected)
    }
  }

  @Test func functionMarkersAreThere() throws {
    let text = try String(contentsOf: Self.page, encoding: .utf8)
    #expect(text.contains("<!-- functions:begin -->") && text.contains("<!-- functions:end -->"))
  }
}

extension String {
  fileprivate var trimmed: String { trimmingCharacters(in: .whitespacesAndNewlines) }
}
