let explainPage = CommandPage(
  name: "explain",
  summary: "show the operator graph: what is shared, what is read, what state is kept",
  positionals: "PATH…", positionalCount: 1...CommandPage.unlimited,
  details: "",
  options: [
    .option("format", "NAME", "text, dot (Graphviz) or json; default text")
  ],
  examples: [
    CommandExample("rulesd explain rules/search-quality", "the graph of a rule pack, a node a line"),
    CommandExample(
      "rulesd explain --format dot rules/search-quality | dot -Tsvg > graph.svg", "as a picture"),
  ])
