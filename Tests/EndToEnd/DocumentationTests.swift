import Foundation
import Testing

/// Pages name files, so that readers find them; a file that moves takes its name along.
@Suite struct DocumentationTests {
  private static let root = URL(fileURLWithPath: #filePath).appendingPathComponent("../../..").standardized

  private static let pages: [String] = {
    let folders = ["", "docs", "bench", "rules/search-quality", "rules/incidents", "rules/anomalies"]
    return folders.flatMap { folder in
      let names =
        (try? FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent(folder).path)) ?? []
      return names.filter { $0.hasSuffix(".md") }.sorted().map { folder.isEmpty ? $0 : "\(folder)/\($0)" }
    }
  }()

  @Test(arguments: pages) func everyPathOfAPageExists(_ page: String) throws {
    let url = Self.root.appendingPathComponent(page)
    let text = try String(contentsOf: url, encoding: .utf8)
    func exists(_ path: String, in folder: URL) -> Bool {
      FileManager.default.fileExists(atPath: folder.appendingPathComponent(path).standardized.path)
    }
    // `Sources/…` and the like in backticks, from the root.
    for match in text.matches(of: /`((?:Sources|Tests|docs|rules|scripts|bench)\/[^`\s*<>…]*)`/) {
      #expect(exists(String(match.1), in: Self.root), "\(page) names \(match.1)")
    }
    // Links, from the page.
    for match in text.matches(of: /\]\(([^)\s#]+)(?:#[^)]*)?\)/) where !match.1.contains("://") {
      #expect(exists(String(match.1), in: url.deletingLastPathComponent()), "\(page) links to \(match.1)")
    }
  }

  @Test func thereArePages() {
    #expect(Self.pages.contains("docs/architecture.md") && Self.pages.contains("README.md"))
  }
}
