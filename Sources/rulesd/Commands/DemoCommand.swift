let demoPage = CommandPage(
  name: "demo",
  summary: "an incident through an embedded broker: what fires, on which evidence, when it resolves",
  positionals: "RULES", positionalCount: 1...1,
  details: """
    Simulates the traffic into a Kafka broker inside this process and runs the rules on it as `rulesd run`
    does; then dry-runs them over a recording of the same traffic and compares the alerts.
    """,
  options: [
    .option("seed", "N", "default 7"),
    .option("rate", "N", "requests per second of event time; default 60"),
    .option("duration", "TIME", "how much event time; default 32m"),
  ],
  examples: [
    CommandExample("rulesd demo rules/search-quality", "the incident that make demo shows")
  ])
