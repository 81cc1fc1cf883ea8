import Catalog

/// What became of rule files.
public struct CompileResult: Sendable {
  /// `nil` when there is any error.
  public var program: TypedProgram?
  /// Errors and warnings by file and place.
  public var diagnostics: [Diagnostic]

  public var hasErrors: Bool { diagnostics.contains { $0.severity == .error } }
}

/// Compiles files into one program: names are known across all of them, whatever their order.
///
/// Reports all errors that can be found in one run. Never throws or traps, whatever the text. Cost:
/// linear in the text.
public func compileRules(_ files: [SourceFile], catalog: Catalog) -> CompileResult {
  var texts: [SourceText] = []
  var unreadable: [Diagnostic] = []
  for file in files {
    let bytes = Array(file.text.utf8)
    if let problem = SourceFile.problem(path: file.path, bytes: bytes) {
      unreadable.append(problem)
    } else {
      texts.append(SourceText(path: file.path, bytes: bytes))
    }
  }
  let reporter = Reporter(texts: texts)
  var syntax = ProgramSyntax()
  for index in texts.indices {
    var parser = Parser(file: index, reporter: reporter, detectors: catalog.detectors)
    parser.parseFile(into: &syntax)
  }
  var checker = Checker(syntax: syntax, catalog: catalog, reporter: reporter)
  let program = checker.run()
  let isGood = unreadable.isEmpty && !reporter.hasErrors
  return CompileResult(
    program: isGood ? program : nil, diagnostics: unreadable + reporter.finish())
}
