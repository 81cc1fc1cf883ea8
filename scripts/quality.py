#!/usr/bin/env python3
"""Scores log-pattern clustering against samples whose lines people have labelled, through `rulesd dry-run`.

    quality.py --rulesd PATH DATA

DATA/loghub holds X.csv or X.csv.gz with the columns Content and EventId, a row a line, as the samples of Loghub
(https://github.com/logpai/loghub) do. Every file is clustered by the same rule, with the language's defaults.

GA   grouping accuracy (Zhu et al., ICSE 2019): the share of lines whose group is exactly their true group.
FGA  the same by groups (Jiang et al., ISSTA 2024): harmonic mean of the shares of found and of true groups that are
     exact.
"""
import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter

RULES = """
source logs { time ts  watermark 0s  fields { ts: timestamp(ms), message: string } }
stream patterns = logs | cluster message
pattern line = patterns
"""


def samples(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith((".csv", ".csv.gz")):
            opener = gzip.open if name.endswith(".gz") else open
            with opener(os.path.join(folder, name), "rt", encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            yield name[: name.index(".csv")], [r["Content"] for r in rows], [r["EventId"] for r in rows]


def cluster(rulesd, lines, scratch):
    """The template id of each line. Its time is its number in milliseconds, so records come in the order of lines."""
    rules, records = os.path.join(scratch, "quality.rules"), os.path.join(scratch, "logs.jsonl")
    with open(rules, "w", encoding="utf-8") as file:
        file.write(RULES)
    with open(records, "w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            file.write(json.dumps({"ts": 1_700_000_000_000 + number, "message": line}, ensure_ascii=False) + "\n")
    run = subprocess.run(
        [rulesd, "dry-run", rules, "--input", f"logs={records}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"rulesd dry-run failed:\n{run.stderr}")
    found = [json.loads(line) for line in run.stdout.splitlines()]
    ids = [record["labels"]["template_id"] for record in found if record["type"] == "pattern"]
    if len(ids) != len(lines):
        sys.exit(f"{len(lines)} lines, {len(ids)} patterns:\n{run.stderr}")
    return ids


def score(truth, found):
    true_size, found_size = Counter(truth), Counter(found)
    exact = [n for (t, f), n in Counter(zip(truth, found)).items() if n == true_size[t] == found_size[f]]
    return {
        "GA": sum(exact) / len(truth), "FGA": 2 * len(exact) / (len(true_size) + len(found_size)),
        "true": len(true_size), "found": len(found_size), "exact": len(exact)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--rulesd", required=True)
    arguments = parser.parse_args()
    folder = os.path.join(arguments.data, "loghub")
    if not os.path.isdir(folder):
        sys.exit(f"no folder {folder}")
    scores = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, lines, truth in samples(folder):
            result = score(truth, cluster(arguments.rulesd, lines, scratch))
            scores.append(result)
            print(
                f"{name:<14} GA {result['GA']:.4f}  FGA {result['FGA']:.4f}  lines {len(lines)}  "
                f"groups true {result['true']} found {result['found']} exact {result['exact']}")
    if not scores:
        sys.exit(f"no samples in {folder}")
    for key in ("GA", "FGA"):
        print(f"average {key} {sum(s[key] for s in scores) / len(scores):.4f}")


if __name__ == "__main__":
    main()
