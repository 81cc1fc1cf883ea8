import Planner
import RuleLang

let checkPage = CommandPage(
  name: "check",
  summary: "say what is wrong with rule files, all of it in one run",
  positionals: "PATH…", positionalCount: 1...CommandPage.unlimited,
  details: """
    A PATH is a rule file, or a directory whose .rules files are read with those below it; all of them
    form one program. Exit code 1 when there is an error.
    """,
  options: [
    .option("format", "NAME", "text, json (a diagnostic a line) or github (annotations); default text"),
    .flag("strict", "warnings refuse as well"),
  ],
  examples: [
    CommandExample("rulesd check rules/search-quality", "check a rule pack"),
    CommandExample("rulesd check --format github --strict rules", "in a pull request's checks"),
  ])

/// Whether several daemons can share the rules' work, and if not, why.
func sharingText(_ program: TypedProgram) -> String {
  "can be shared by several daemons: \(program.separability.text)"
}

let checkCommand = Command(checkPage) { arguments, environment in
  let format = try arguments.choice("format", among: ["text", "json", "github"]) ?? "text"
  let rules = try loadRules(arguments.positionals)
  switch format {
  case "json":
    for diagnostic in rules.diagnostics { try environment.say(diagnostic.json) }
  case "github":
    for diagnostic in rules.diagnostics { try environment.say(diagnostic.github) }
  default:
    try environment.standardOutput.write(rules.text(useColor: environment.standardOutput.isTerminal))
  }
  environment.note(
    "\(counted(rules.fileCount, "file")): \(counted(rules.errorCount, "error")), "
      + counted(rules.warningCount, "warning"))
  if let program = rules.program { environment.note(sharingText(program)) }
  let isRefused = rules.errorCount > 0 || arguments.flag("strict") && rules.warningCount > 0
  return isRefused ? .refused : .ok
}
