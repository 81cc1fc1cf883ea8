#!/usr/bin/env python3
"""Scores log-pattern clustering and anomaly detection against data that people have labelled, through `rulesd dry-run`.

    quality.py --rulesd PATH DATA

DATA/loghub holds X.csv or X.csv.gz with the columns Content and EventId, a row a line, as the samples of Loghub
(https://github.com/logpai/loghub) do. Every file is clustered by the same rule, with the language's defaults.

GA   grouping accuracy (Zhu et al., ICSE 2019): the share of lines whose group is exactly their true group.
FGA  the same by groups (Jiang et al., ISSTA 2024): harmonic mean of the shares of found and of true groups that are
     exact.

DATA/nab holds CATEGORY/NAME.csv with the columns timestamp and value, and labels.json with the windows of each file, as
the Numenta Anomaly Benchmark (https://github.com/numenta/NAB) does. All files are series of one source under one rule. What
counts as a detection is a record with `"state":"firing"`.

NAB  the benchmark's score, standard profile (Lavin and Ahmad, ICMLA 2015): 0 for no detections, 100 for perfect ones.

Either folder may be missing.
"""
import argparse
import csv
import gzip
import json
import math
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


NAB_SOURCE = "source samples { time ts  watermark 0s  fields { ts: timestamp(rfc3339), series: string, value: float } }\n"
NAB_RULES = {
    "the language's defaults": "samples | zscore value by series",
    "one plain score": "samples | zscore value by series baseline all floor 0 cap 1000 smoothing none normalise none threshold 6.5",
    "the best rule known": """samples | zscore value by series
        smoothing 16 rows threshold 4.25 cooldown 120 rows members {
          level: baseline half_life 3000 rows, hour: season hour_of_day baseline half_life 200 rows,
          jump: input difference season hour_of_day baseline half_life 200 rows
        }""",
}


def nab_files(folder):
    """Name, time of each row (those of one second told apart by milliseconds), value of each row, windows."""
    with open(os.path.join(folder, "labels.json"), encoding="utf-8") as file:
        labels = json.load(file)
    for name, windows in sorted(labels.items()):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        times, values, stamps = [], [], []
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                stamp = row["timestamp"][:19]
                again = again + 1 if stamps and stamps[-1] == stamp else 0
                stamps.append(stamp)
                times.append(f"{stamp.replace(' ', 'T')}.{again:03d}Z")
                values.append(float(row["value"]))
        first = {stamp: index for index, stamp in reversed(list(enumerate(stamps)))}
        yield name, times, values, [(first[a[:19]], first[b[:19]]) for a, b in windows]


def nab_detections(rulesd, files, rule, scratch):
    """By file, the rows at which an anomaly began."""
    rules = os.path.join(scratch, "nab.rules")
    with open(rules, "w", encoding="utf-8") as file:
        file.write(f"{NAB_SOURCE}anomaly odd = {rule}\n")
    inputs = []
    for number, (name, times, values, _) in enumerate(files):
        path = os.path.join(scratch, f"nab-{number}.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            for time, value in zip(times, values):
                file.write(json.dumps({"ts": time, "series": name, "value": value}) + "\n")
        inputs += ["--input", f"samples={path}"]
    run = subprocess.run(
        [rulesd, "dry-run", rules, *inputs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"rulesd dry-run failed:\n{run.stderr}")
    rows = {name: {time: row for row, time in enumerate(times)} for name, times, _, _ in files}
    found = {name: [] for name in rows}
    for line in run.stdout.splitlines():
        record = json.loads(line)
        if record["type"] == "anomaly" and record["state"] == "firing":
            name = record["labels"]["series"]
            found[name].append(rows[name][record["time"]])
    return found


def nab_worth(rows, windows, detections):
    """What the detections of a file are worth, a false positive costing up to 0.11; and that of none."""
    def curve(y):
        return -1.0 if y > 3 else 2 / (1 + math.exp(5 * y)) - 1

    probation = min(int(0.15 * rows), 750)
    counted = [(left, right) for left, right in windows if right >= probation]
    hit, total = set(), -float(len(counted))
    for row in detections:
        if row < probation:
            continue
        inside = next((w for w in counted if w[0] <= row <= w[1]), None)
        if inside is not None:
            if inside not in hit:
                hit.add(inside)
                total += 1 + curve(-(inside[1] - row + 1) / (inside[1] - inside[0] + 1)) / curve(-1.0)
            continue
        before = [w for w in windows if w[1] < row]
        if before:
            left, right = before[-1]
            total += 0.11 * curve((row - right) / (right - left))
        else:
            total -= 0.11
    return total, -float(len(counted)), len(hit), len(counted)


def nab(rulesd, folder, scratch):
    files = list(nab_files(folder))
    for title, rule in NAB_RULES.items():
        detections = nab_detections(rulesd, files, rule, scratch)
        total = null = 0.0
        hits = windows = false = perfect = 0
        for name, times, _, labelled in files:
            worth, nothing, hit, counted = nab_worth(len(times), labelled, detections[name])
            total, null, hits, windows = total + worth, null + nothing, hits + hit, windows + counted
            perfect += len(labelled)
        score = 100 * (total - null) / (perfect - null) if perfect else 0.0
        raised = sum(len(rows) for rows in detections.values())
        print(
            f"NAB {score:6.2f}  {title}: {hits} of {windows} windows found, {raised} anomalies in {len(files)} files")


def loghub(rulesd, folder, scratch):
    scores = []
    for name, lines, truth in samples(folder):
        result = score(truth, cluster(rulesd, lines, scratch))
        scores.append(result)
        print(
            f"{name:<14} GA {result['GA']:.4f}  FGA {result['FGA']:.4f}  lines {len(lines)}  "
            f"groups true {result['true']} found {result['found']} exact {result['exact']}")
    for key in ("GA", "FGA"):
        if scores:
            print(f"average {key} {sum(s[key] for s in scores) / len(scores):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--rulesd", required=True)
    arguments = parser.parse_args()
    parts = {"loghub": loghub, "nab": nab}
    present = {name: os.path.join(arguments.data, name) for name in parts}
    present = {name: folder for name, folder in present.items() if os.path.isdir(folder)}
    if not present:
        sys.exit(f"neither loghub nor nab in {arguments.data}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in present.items():
            parts[name](arguments.rulesd, folder, scratch)


if __name__ == "__main__":
    main()
