#!/usr/bin/env python3
"""Moves random series through `for` and `keep_firing`, in `rulesd dry-run` and in Prometheus (`promtool test rules`), and
compares every change of state.

Each series has an alert of its own with a random `for` and `keep_firing`. What Prometheus made of it is read out of
promtool: the series ALERTS (which state) and ALERTS_FOR_STATE (since when) at every minute. Half of the series know gaps as
stale markers, which is what a window without a row is; the other half know missing samples, which Prometheus fills for five
minutes and a hopping window of six minutes does as well. Exit code 0 when all agree, 1 when a state differs, 2 when
something could not be run.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

START = 1_795_230_000  # 2026-11-21T03:00:00Z
MINUTES = 60
# Nothing, multiples of the step of a minute, and lengths that lie between two of them.
LENGTHS = [0, 0, 1, 30, 59, 60, 61, 90, 119, 120, 150, 180, 240, 299, 300, 420]


class Series:
    """A value, `nan`, `stale` or `_` (missing) for each minute."""

    def __init__(self, number, rng):
        self.name = f"S{number}"
        self.looks_back = number % 2 == 1
        self.hold = rng.choice(LENGTHS)
        self.keep = rng.choice(LENGTHS)
        # Runs: states are what comes of values that stay for a while.
        likely = rng.choice([0.2, 0.5, 0.8])
        gaps = rng.choice([0, 0.1, 0.3])
        self.values = []
        while len(self.values) < MINUTES:
            if rng.random() < gaps:
                run = ["_" if self.looks_back else "stale"] * rng.choice([1, 1, 2, 5, 6, 7, 9])
            elif rng.random() < 0.1:
                run = [rng.choice(["nan", "1"])] * rng.choice([1, 2])  # 1 is the threshold, and not above it
            else:
                run = ["2" if rng.random() < likely else "0"] * rng.choice([1, 1, 2, 3, 4, 6])
            self.values += run
        # Prometheus has no evaluation before the first sample.
        self.values = self.values[:MINUTES]


def prometheus(series, directory):
    """By series, the state of each minute as promtool has it: None, or (state, since)."""
    rules = ["groups:", "- name: all", "  rules:"]
    for one in series:
        rules += [f"  - alert: {one.name}", f"    expr: v_{one.name} > 1", f"    for: {one.hold}s",
                  f"    keep_firing_for: {one.keep}s"]
    tests = ["rule_files: [rules.yml]", "evaluation_interval: 1m", "tests:", "- interval: 1m", "  input_series:"]
    for one in series:
        values = " ".join("NaN" if value == "nan" else value for value in one.values)
        tests += [f"  - series: v_{one.name}", f"    values: '{values}'"]
    tests.append("  promql_expr_test:")
    for minute in range(MINUTES):
        # Nothing is expected, so everything is reported.
        for expression in ("ALERTS", "ALERTS_FOR_STATE"):
            tests += [f"  - expr: {expression}", f"    eval_time: {minute}m"]
    with open(os.path.join(directory, "rules.yml"), "w", encoding="utf-8") as file:
        file.write("\n".join(rules) + "\n")
    with open(os.path.join(directory, "tests.yml"), "w", encoding="utf-8") as file:
        file.write("\n".join(tests) + "\n")
    done = subprocess.run(["promtool", "test", "rules", "tests.yml"], cwd=directory, capture_output=True, text=True)
    text = done.stdout + done.stderr
    states = {one.name: [None] * MINUTES for one in series}
    since = {one.name: [None] * MINUTES for one in series}
    seen = 0
    for block in text.split("expr: ")[1:]:
        place = re.match(r'"(ALERTS|ALERTS_FOR_STATE)", time: ([0-9hms]+),', block)
        if not place:
            raise SystemExit(f"promtool says what this test does not understand: {block[:200]}")
        minute = seconds(place.group(2)) // 60
        seen += 1
        for labels, value in re.findall(r'\{([^}]*)\} ([-+0-9.eE]+)', block):
            name = re.search(r'alertname="([^"]*)"', labels).group(1)
            if place.group(1) == "ALERTS":
                if states[name][minute] is not None:
                    raise SystemExit(f"{name} is in two states at minute {minute}")
                states[name][minute] = re.search(r'alertstate="([^"]*)"', labels).group(1)
            else:
                since[name][minute] = round(float(value))
    if not seen:
        raise SystemExit(f"promtool reported nothing:\n{text[:2000]}")
    return {name: [state and (state, begin) for state, begin in zip(states[name], since[name])] for name in states}


def seconds(text):
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)([hms])", text))


def changes(states):
    """The records that a life as this one makes: (minute, state, since in seconds)."""
    last = None
    found = []
    for minute, state in enumerate(states):
        if last and last[0] == "firing" and (state is None or state[0] == "pending"):
            found.append((minute, "resolved", last[1]))
        if state and (last is None or state[0] != last[0] or state[1] != last[1]):
            found.append((minute, state[0], state[1]))
        last = state
    return found


def rulesd(series, binary, directory, workers):
    source = "{ time ts  watermark 0s  fields { ts: timestamp(s), key: string, value: float? } }"
    lines = [f"source gauge {source}",
             "stream minutes = gauge | window tumbling 1m by key | aggregate now_ = last(value), n = count()",
             # The sample of the last minutes that is there, NaN included: Prometheus' look-back.
             "stream filled = gauge | derive shown = coalesce(value, -1.0) | window hopping 6m every 1m by key "
             "| aggregate now_ = last(shown)"]
    for one in series:
        stream = "filled" if one.looks_back else "minutes"
        lines.append(f'alert {one.name} {{ on {stream}  when key == "{one.name}" and now_ > 1  for {one.hold}s  '
                     f"keep_firing {one.keep}s }}")
    with open(os.path.join(directory, "case.rules"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    with open(os.path.join(directory, "gauge.jsonl"), "w", encoding="utf-8") as file:
        for minute in range(MINUTES + 1):
            # The window that ends at a minute is what is evaluated there. One key lasts longer than all.
            stamp = START + minute * 60 - 30
            file.write(json.dumps({"ts": stamp, "key": "clock", "value": 0}) + "\n")
            for one in series if minute < MINUTES else []:
                value = one.values[minute]
                if value not in ("stale", "_"):
                    number = None if value == "nan" else float(value)
                    file.write(json.dumps({"ts": stamp, "key": one.name, "value": number}) + "\n")
    command = [binary, "dry-run", "case.rules", "--input", "gauge=gauge.jsonl", "--output", "records.jsonl", "--quiet",
               "--workers", str(workers)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found = {one.name: [] for one in series}
    with open(os.path.join(directory, "records.jsonl"), encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            minute = (stamp_of(record["time"]) - START) // 60
            if minute < MINUTES:
                found[record["rule"]].append((minute, record["state"], stamp_of(record["since"]) - START))
    return found


def stamp_of(text):
    return int(time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="leave rules, series and records in this directory")
    arguments = parser.parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    binary = os.path.abspath(arguments.rulesd)
    rng = random.Random(arguments.seed)
    series = [Series(number, rng) for number in range(arguments.series)]
    with tempfile.TemporaryDirectory(prefix="rulesd-promtool-") as temporary:
        directory = arguments.keep or temporary
        os.makedirs(directory, exist_ok=True)
        try:
            expected = prometheus(series, directory)
        except FileNotFoundError:
            print("promtool is not on PATH: install Debian's package prometheus", file=sys.stderr)
            sys.exit(2)
        actual = rulesd(series, binary, directory, workers=2)
    wrong = 0
    count = 0
    for one in series:
        wanted = changes(expected[one.name])
        count += len(wanted)
        if wanted != actual[one.name]:
            wrong += 1
            if wrong <= 5:
                print(f"{one.name} for {one.hold}s keep {one.keep}s: {' '.join(one.values)}")
                print(f"  Prometheus {[item for item in wanted if item not in actual[one.name]]}")
                print(f"  rulesd     {[item for item in actual[one.name] if item not in wanted]}")
    if count < 3 * len(series):
        print(f"only {count} changes of state: that proves nothing")
        wrong += 1
    print(f"{'FAILED' if wrong else 'ok':8}{len(series)} series over {MINUTES} minutes, {count} changes of state, "
          f"{wrong} series differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
