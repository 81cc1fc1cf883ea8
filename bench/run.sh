#!/usr/bin/env bash
# Measures rulesd and its peers in one run, in turns, and prints a table; bench/README.md has the method.
#   ROUNDS=5  ROWS=1000000  FLINK=1  BROKERS=host:port (instead of the embedded broker)  RECORD=1 (into the page)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/venv.sh .venv-bench duckdb chdb drain3
if [ -n "${FLINK:-}" ]; then
  # In an environment of its own: it pins old versions of what the others need new.
  command -v java >/dev/null || { echo "bench: FLINK=1 needs a Java runtime (default-jre-headless)" >&2; exit 2; }
  scripts/venv.sh .venv-flink apache-flink
fi
.venv-bench/bin/python bench/patterns.py --rulesd .build/release/rulesd
.venv-bench/bin/python bench/alerts.py --rulesd .build/release/rulesd
.venv-bench/bin/python bench/joins.py --rulesd .build/release/rulesd --rounds "${ROUNDS:-5}"
.venv-bench/bin/python bench/slo.py --rulesd .build/release/rulesd
.venv-bench/bin/python bench/detectors.py --rulesd .build/release/rulesd
.build/release/rulesd bench --checkpoints bench/out/checkpoints
exec .venv-bench/bin/python bench/measure.py --rulesd .build/release/rulesd --rounds "${ROUNDS:-5}" \
  --rows "${ROWS:-1000000}" ${FLINK:+--flink .venv-flink/bin/python} ${BROKERS:+--brokers "$BROKERS"} \
  ${RECORD:+--record}
