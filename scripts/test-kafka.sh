#!/usr/bin/env bash
# test-kafka.sh BROKERS: the daemon against real brokers must write what a dry run writes.
# Uses topics and a consumer group of its own, named by the process id, and leaves them behind.
set -euo pipefail
cd "$(dirname "$0")/.."

brokers=$1
rulesd=.build/release/rulesd
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run=$$

# The rule pack on topics of this run.
mkdir "$work/rules"
for file in rules/search-quality/*.rules; do
  sed -E "s/kafka \"([a-z.]+)\"/kafka \"\1.$run\"/" "$file" >"$work/rules/$(basename "$file")"
done

options=(--scenario incident --seed 7 --duration 30m --rate 100 --partitions 1 --start 2026-11-21T03:00:00Z)
"$rulesd" simulate "${options[@]}" --out "$work/recording"
"$rulesd" simulate "${options[@]}" --kafka "$brokers" --topic-suffix ".$run" --speed max

inputs=()
for pair in requests=search.events consumer_lag=ops.lag disk_use=ops.disk; do
  inputs+=(--input "${pair%%=*}=$work/recording/${pair#*=}.jsonl")
done
"$rulesd" dry-run "$work/rules" "${inputs[@]}" --only metric --only alert --output "$work/dry-run.jsonl" --quiet
"$rulesd" run "$work/rules" --kafka "$brokers" --group "rulesd-test-$run" --until-end \
  --listen 127.0.0.1:0 --sink "$work/run.all.jsonl"
grep -E '"type":"(metric|alert)"' "$work/run.all.jsonl" >"$work/run.jsonl"

cmp "$work/dry-run.jsonl" "$work/run.jsonl"
echo "test-kafka: $(wc -l <"$work/run.jsonl") records, byte for byte those of the dry run"

# Transactions, fencing and takeover, which the mock cluster of the tests only pretends to know.
RULESD_TEST_BROKERS="$brokers" swift test --filter KafkaClusterTests
