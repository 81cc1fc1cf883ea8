let runPage = CommandPage(
  name: "run",
  summary: "the daemon: rules over Kafka topics, with metrics and health over HTTP",
  positionals: "RULES…", positionalCount: 1...CommandPage.unlimited,
  details: """
    Serves /metrics, /healthz and /readyz. SIGTERM and SIGINT drain, flush, commit and end it with exit
    code 0.
    """,
  options: [
    .option("kafka", "BROKERS", "host:port, several with commas"),
    .option("group", "NAME", "the consumer group; default rulesd"),
    .option(
      "from", "PLACE", "earliest or latest: where a partition without a commit begins; default earliest"),
    .flag("until-end", "stop at the ends that the topics have now"),
    .option(
      "sink", "NAME", repeatable: true,
      "where records go: kafka, - for standard output, or a file's path; default kafka"),
    .option(
      "topic", "TYPE=NAME", repeatable: true,
      "the topic of a record type, such as alert=pages; default rulesd.metrics, rulesd.alerts, …"),
    .option("listen", "HOST:PORT", "the HTTP face; default 127.0.0.1:9464, port 0 takes a free one"),
    .option("commit-every", "TIME", "how often offsets are committed; default 5s"),
    .option("workers", "N", "threads; default one per core"),
    .option(
      "set", "NAME=VALUE", letter: "X", repeatable: true, "a librdkafka property, such as for TLS"),
  ],
  examples: [
    CommandExample("rulesd run rules/search-quality --kafka localhost:9092", "against a broker"),
    CommandExample(
      "rulesd run rules/search-quality --kafka k1:9093 -X security.protocol=ssl --sink out.jsonl",
      "over TLS, with the records in a file"),
  ])
