let dryRunPage = CommandPage(
  name: "dry-run",
  summary: "run rules over recordings: the records they would have written, and a summary",
  positionals: "RULES…", positionalCount: 1...CommandPage.unlimited,
  details: """
    A recording is JSON lines, plain, .gz or .zst: bare payloads, or what `kcat -J` writes. Several files
    for one source are its partitions. The output does not depend on workers or batches, and is that of
    `rulesd run` on the same rows.
    """,
  options: [
    .option("input", "SOURCE=FILE", repeatable: true, "a recording of a source; - is standard input"),
    .option("output", "FILE", "where the records go; default standard output"),
    .option(
      "only", "TYPE", repeatable: true,
      "only records of this type: metric, alert, dead_letter, late, …; default all"),
    .option("workers", "N", "threads; default one per core"),
    .option("batch-rows", "N", "rows in a batch, 1 to 4096; default 4096"),
    .flag("quiet", letter: "q", "no summary on standard error"),
  ],
  examples: [
    CommandExample(
      "rulesd dry-run rules/search-quality --only alert --input requests=traffic/search.events.jsonl",
      "what the rules would have paged on a recording that rulesd simulate made"),
    CommandExample(
      "kcat -C -b k1 -t search.events -e -q -J | rulesd dry-run rules/search-quality --input requests=-",
      "over a topic as it stands"),
  ])
