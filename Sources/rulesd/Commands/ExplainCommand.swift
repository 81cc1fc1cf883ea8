import Planner

let explainPage = CommandPage(
  name: "explain",
  summary: "show the operator graph: what is shared, what is read, what state is kept",
  positionals: "PATH…", positionalCount: 1...CommandPage.unlimited,
  details: """
    A step that rules have in common is one node, and the rules that share it are named. Of a large plan the
    text shows the beginnings of long lists, and how much it left out; dot and json have everything.
    """,
  options: [
    .option("format", "NAME", "text, dot (Graphviz) or json; default text"),
    .flag("all", "the text leaves nothing out, however long it gets"),
  ],
  examples: [
    CommandExample("rulesd explain rules/search-quality", "the graph of a rule pack, a node a line"),
    CommandExample(
      "rulesd explain --format dot rules/search-quality | dot -Tsvg > graph.svg", "as a picture"),
  ])

let explainCommand = Command(explainPage) { arguments, environment in
  let format = try arguments.choice("format", among: ["text", "dot", "json"]) ?? "text"
  let program = try loadProgram(arguments.positionals, environment)
  let explanation = buildPlan(program).explanation
  switch format {
  case "dot": try environment.say(explanation.dot)
  case "json": try environment.say(explanation.json)
  default:
    let limits = arguments.flag("all") ? .none : explanation.readableLimits
    try environment.standardOutput.write(explanation.text(limits))
    // Who says nothing of partitions runs one daemon, and needs no answer.
    if program.declaresPartitioning { try environment.say("\n\(sharingText(program))") }
  }
  return .ok
}
