#!/usr/bin/env python3
"""Evaluations of active alerts a second, in rulesd and in Prometheus (`promtool test rules`), over the same series.

Every label set is above its threshold all the time, so each evaluation meets an alert that is pending or firing. Whole
processes are timed, with 10,000 label sets (promtool's time grows faster than they do): rulesd decodes and aggregates a
record a label set and minute on one worker and writes the records; promtool parses its series and evaluates on as many
threads as it likes. In turns; medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

START = 1_795_230_000
# promtool loads at most 10,000 samples for a query, so the label sets are those of several rules there.
PER_RULE = 2_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rulesd = os.path.abspath(arguments.rulesd)
    rules = (arguments.keys + PER_RULE - 1) // PER_RULE
    with tempfile.TemporaryDirectory(prefix="rulesd-bench-") as directory:
        with open(os.path.join(directory, "case.rules"), "w", encoding="utf-8") as file:
            file.write(
                "source gauge { time ts  watermark 0s  fields { ts: timestamp(s), key: string, value: float } }\n"
                "stream minutes = gauge | window tumbling 1m by key | aggregate v = last(value)\n"
                "alert Above { on minutes  when v > 1  for 2m  annotations { summary: \"{key} is at {v}\" } }\n")
        with open(os.path.join(directory, "gauge.jsonl"), "w", encoding="utf-8") as file:
            for minute in range(arguments.minutes):
                stamp = START + minute * 60 + 30
                for key in range(arguments.keys):
                    file.write(f'{{"ts":{stamp},"key":"k{key}","value":2}}\n')
        with open(os.path.join(directory, "rules.yml"), "w", encoding="utf-8") as file:
            file.write("groups:\n- name: all\n  rules:\n")
            for rule in range(rules):
                file.write(f"  - alert: Above{rule}\n    expr: v{rule} > 1\n    for: 2m\n"
                           "    annotations: { summary: '{{ $labels.key }} is at {{ $value }}' }\n")
        with open(os.path.join(directory, "tests.yml"), "w", encoding="utf-8") as file:
            file.write("rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n")
            for key in range(arguments.keys):
                file.write(f"  - series: v{key // PER_RULE}{{key=\"k{key}\"}}\n    values: '2x{arguments.minutes - 1}'\n")
            file.write("  promql_expr_test:\n")
            for rule in range(rules):
                count = min(PER_RULE, arguments.keys - rule * PER_RULE)
                file.write(f"  - expr: count(ALERTS{{alertname=\"Above{rule}\",alertstate=\"firing\"}})\n"
                           f"    eval_time: {arguments.minutes - 1}m\n    exp_samples: [{{ value: {count} }}]\n")
        times = {"rulesd": [], "promtool": []}
        for _ in range(arguments.rounds):
            begin = time.monotonic()
            subprocess.run([rulesd, "dry-run", "case.rules", "--input", "gauge=gauge.jsonl", "--output", "out.jsonl", "--quiet",
                            "--workers", "1"], cwd=directory, check=True)
            times["rulesd"].append(time.monotonic() - begin)
            with open(os.path.join(directory, "out.jsonl"), encoding="utf-8") as file:
                fired = sum('"state":"firing"' in line for line in file)
            if fired != arguments.keys:
                sys.exit(f"{fired} alerts fired, not {arguments.keys}")
            begin = time.monotonic()
            done = subprocess.run(["promtool", "test", "rules", "tests.yml"], cwd=directory, capture_output=True, text=True)
            times["promtool"].append(time.monotonic() - begin)
            if done.returncode != 0:
                sys.exit(done.stdout[-1000:] + done.stderr[-1000:])
    evaluations = arguments.keys * arguments.minutes
    rates = {name: evaluations / statistics.median(values) for name, values in times.items()}
    print(f"alerts: {arguments.keys} active label sets, {arguments.minutes} evaluations each: "
          f"rulesd {rates['rulesd'] / 1e6:.2f} M/s, promtool {rates['promtool'] / 1e6:.2f} M/s, "
          f"{rates['rulesd'] / rates['promtool']:.1f} x")
    print(json.dumps({name: [round(value, 3) for value in values] for name, values in times.items()}))


if __name__ == "__main__":
    main()
