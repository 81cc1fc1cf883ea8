import Connectors
import Operators
import RuleLang

/// Rule files, read and compiled.
struct LoadedRules {
  /// What could be read as text, for printing diagnostics with their source lines.
  var files: [SourceFile]
  var fileCount: Int
  /// See `ruleRevision`.
  var revision: String
  /// Nil when there is an error among the diagnostics.
  var program: TypedProgram?
  var diagnostics: [Diagnostic]

  var errorCount: Int { diagnostics.count { $0.severity == .error } }
  var warningCount: Int { diagnostics.count { $0.severity == .warning } }

  /// The diagnostics as people read them; empty when there are none.
  func text(useColor: Bool) -> String {
    DiagnosticTextRenderer(files: files, useColor: useColor).render(diagnostics)
  }
}

/// Reads and compiles the rule files that paths name, all as one program. Throws only for files that cannot
/// be read.
func loadRules(_ paths: [String]) throws(CommandFailure) -> LoadedRules {
  let read = try readRuleFiles(paths)
  var files: [SourceFile] = []
  var unreadable: [Diagnostic] = []
  for file in read {
    do {
      files.append(try SourceFile(path: file.path, bytes: file.bytes))
    } catch {
      unreadable.append(error)
    }
  }
  let result = compileRules(files, catalog: makeCatalog(formats: connectorFormats))
  return LoadedRules(
    files: files, fileCount: read.count, revision: ruleRevision(read), program: unreadable.isEmpty ? result.program : nil,
    diagnostics: unreadable + result.diagnostics)
}

/// For commands that cannot work without a program: prints the diagnostics on standard error and, when there
/// is an error among them, throws.
func loadProgram(
  _ paths: [String], _ environment: CommandEnvironment
) throws(CommandFailure) -> TypedProgram {
  try loadCheckedRules(paths, environment).program
}

/// The same, with what else is known of the files.
func loadCheckedRules(
  _ paths: [String], _ environment: CommandEnvironment
) throws(CommandFailure) -> (loaded: LoadedRules, program: TypedProgram) {
  let rules = try loadRules(paths)
  if !rules.diagnostics.isEmpty {
    environment.note(rules.text(useColor: environment.standardError.isTerminal))
  }
  guard let program = rules.program else {
    throw CommandFailure(
      exitCode: .refused, message: "the rules have \(counted(rules.errorCount, "error"))", hint: nil)
  }
  return (rules, program)
}

/// `1 error`, `2 errors`, `no errors`.
func counted(_ count: Int, _ noun: String) -> String {
  count == 0 ? "no \(noun)s" : count == 1 ? "1 \(noun)" : "\(grouped(count)) \(noun)s"
}
