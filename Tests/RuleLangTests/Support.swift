import Catalog
import Foundation
import Operators
import RuleLang

let testFolder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()

/// Files of a folder beside the tests, by name.
func files(in folder: String, ending: String) throws -> [URL] {
  try FileManager.default
    .contentsOfDirectory(
      at: testFolder.appendingPathComponent(folder), includingPropertiesForKeys: nil
    )
    .filter { $0.pathExtension == ending }
    .sorted { $0.lastPathComponent < $1.lastPathComponent }
}

/// What the product's rules are checked against.
let productCatalog = makeCatalog(formats: [FormatSpec(name: "json", summary: "JSON objects")])

func compile(_ text: String, path: String = "a.rules") -> CompileResult {
  compileRules([SourceFile(path: path, text: text)], catalog: testCatalog)
}

func rendered(
  _ text: String, path: String = "a.rules", catalog: Catalog = testCatalog
) -> String {
  let file = SourceFile(path: path, text: text)
  return DiagnosticTextRenderer(files: [file]).render(
    compileRules([file], catalog: catalog).diagnostics)
}
