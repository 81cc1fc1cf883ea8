import Planner

let planPage = CommandPage(
  name: "plan",
  summary: "what a deploy would change: rules added, changed, removed; state kept or lost",
  positionals: "OLD NEW", positionalCount: 2...2,
  details: """
    OLD and NEW are rule files or directories, as for check. Says of each rule whether it changes, and of
    everything that keeps state whether it goes on, and why not. Exit code 0 when no state is lost, 3 when
    a rule that is in both loses some, 1 when either does not compile. What a rule had that NEW does not
    have any more is dropped, which is no loss.
    """,
  options: [
    .option("format", "NAME", "text or json; default text")
  ],
  examples: [
    CommandExample("rulesd plan deployed/rules rules", "before a deploy, in the pull request's checks"),
    CommandExample("rulesd plan --format json old.rules new.rules", "for a program"),
  ])

let planCommand = Command(planPage) { arguments, environment in
  let format = try arguments.choice("format", among: ["text", "json"]) ?? "text"
  let sides = try arguments.positionals.map { path in (path: path, rules: try loadRules([path])) }
  for side in sides where !side.rules.diagnostics.isEmpty {
    environment.note(side.rules.text(useColor: environment.standardError.isTerminal))
  }
  guard let old = sides[0].rules.program, let new = sides[1].rules.program else {
    for side in sides where side.rules.program == nil {
      environment.note("\(side.path) has \(counted(side.rules.errorCount, "error"))")
    }
    throw CommandFailure(exitCode: .refused, message: "there is nothing to compare", hint: nil)
  }
  let change = RuleSetChange(from: old, to: new)
  if format == "json" {
    try environment.say(change.json)
  } else {
    try environment.standardOutput.write(change.text)
  }
  return change.losesState ? .losesState : .ok
}
