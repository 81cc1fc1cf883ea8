#!/usr/bin/env python3
"""Draws what `cluster`, `join` and `trace` do: three of the pictures in docs/images.

    plot_operators.py --rulesd PATH DATA OUT

DATA/loghub is laid out as scripts/quality.py says: patterns.svg is its sample Hadoop. There is no public recording of logs, spans and
requests that belong together, so joins.svg and traces.svg are traffic of `rulesd simulate`, the same in every run. All of it
goes through `rulesd dry-run`.
"""
import argparse
import collections
import csv
import datetime
import gzip
import json
import os
import subprocess
import tempfile

SAMPLE = "Hadoop"
PATTERNS = """source logs { time ts  watermark 0s  fields { ts: timestamp(ms), message: string } }
stream patterns = logs | cluster message
pattern line = patterns
"""
REQUESTS = """source requests { time ts  watermark 5s  fields { ts: timestamp(ms), service: string, status: int, trace_id: string } }
"""
SPANS = """source spans { time start  watermark 5s
  fields { start: timestamp(us) from start_us, trace_id: string, span_id: string, parent_id: string?, service: string
    name: string, status: string, duration: duration(us) from duration_us } }
"""
JOINS = REQUESTS + SPANS + """stream failed = requests where status >= 500
stream causes = spans where service == "ranker" and status == "error"
stream explained = failed | join causes on trace_id within 30s | window tumbling 1m | aggregate n = count()
stream others = failed | unless causes on trace_id within 30s | window tumbling 1m | aggregate n = count()
stream minutes = failed | window tumbling 1m | aggregate n = count()
metric failed = minutes.n
metric explained = explained.n
metric others = others.n
"""
TRACES = SPANS + """stream traces = spans | trace by trace_id gap 10s {
  span span_id  parent parent_id  service service  start start  duration duration  name name
}
stream why = traces | window tumbling 30s by slowest_service | aggregate worst = max(duration)
metric worst = why.worst
"""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 260, 52, 12, 28, 24
COLOURS = ["#1f4e8c", "#c26a00", "#2ca02c", "#7b4ea3", "#777777", "#17a2b8"]


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def dry_run(rulesd, rules, inputs, scratch):
    path = os.path.join(scratch, "plot.rules")
    with open(path, "w", encoding="utf-8") as file:
        file.write(rules)
    arguments = [argument for name, records in inputs.items() for argument in ("--input", f"{name}={records}")]
    output = subprocess.run(
        [rulesd, "dry-run", path, "--quiet", *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout
    # Not late rows: the recording of spans has some, as life has.
    return [record for record in map(json.loads, output.splitlines()) if record["type"] != "late"]


def simulate(rulesd, scratch, *options):
    subprocess.run([rulesd, "simulate", "--seed", "7", "--out", scratch, *options], check=True, stderr=subprocess.DEVNULL)


def head():
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']


def grid(high, y, text):
    parts = []
    for step in range(5):
        value = high * step / 4
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{text(value)}</text>')
    return parts


def patterns(rulesd, data, scratch):
    """A mark for each line, at the height of its pattern."""
    with gzip.open(os.path.join(data, "loghub", f"{SAMPLE}.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    records = os.path.join(scratch, "logs.jsonl")
    with open(records, "w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write(json.dumps({"ts": 1_700_000_000_000 + number, "message": row["Content"]}) + "\n")
    found = [record["labels"]["template_id"] for record in dry_run(rulesd, PATTERNS, {"logs": records}, scratch)]
    truth = [row["EventId"] for row in rows]
    assert len(found) == len(truth)
    groups, events = collections.defaultdict(set), collections.defaultdict(set)
    for line, (pattern, event) in enumerate(zip(found, truth)):
        groups[pattern].add(line)
        events[event].add(line)
    exact = {pattern for pattern, lines in groups.items() if events[truth[min(lines)]] == lines}
    order = {pattern: number for number, pattern in enumerate(dict.fromkeys(found))}

    def x(line):
        return LEFT + line / len(found) * (WIDTH - LEFT - RIGHT)

    def y(number):
        return HEIGHT - BOTTOM - number / len(order) * (HEIGHT - TOP - BOTTOM)

    marks = {"#1f4e8c": [], "#c26a00": [], "#d62728": []}
    before, firsts = None, set()
    for line, pattern in enumerate(found):
        colour = "#1f4e8c" if pattern in exact else "#c26a00"
        if pattern not in firsts:
            firsts.add(pattern)
            marks["#d62728"].append(f"M{x(line):.1f} {y(order[pattern]):.1f}v-5")
        # Lines of one pattern behind each other are one mark.
        if pattern == before:
            start, length = marks[colour][-1]
            marks[colour][-1] = (start, length + 1)
        else:
            marks[colour].append((line, 1))
        before = pattern
    heights = {line: order[pattern] for line, pattern in enumerate(found)}
    parts = head() + grid(len(order), y, lambda value: f"{value:.0f}")
    for colour in ("#1f4e8c", "#c26a00"):
        path = "".join(f"M{x(line):.1f} {y(heights[line]):.1f}h{max(1.2, x(length) - x(0)):.1f}" for line, length in marks[colour])
        parts.append(f'<path d="{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
    parts.append(f'<path d="{"".join(marks["#d62728"])}" stroke="#d62728" fill="none"/>')
    for line in range(0, len(found), 250):
        parts.append(f'<text x="{x(line):.1f}" y="{HEIGHT - 8}">line {line}</text>')
    parts.append(f'<text x="{LEFT}" y="16" fill="#1f4e8c">a line, at the height of its pattern ({len(order)} in all)</text>')
    parts.append(f'<text x="{LEFT + 300}" y="16" fill="#d62728">its first line: `is_new`</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="16" text-anchor="end" fill="#c26a00">a pattern that is not exactly one event of the labels</text>')
    return parts


def over_time(lines, label, incident, title):
    """`lines`: by name, points of (time, value); minutes from the first on. `incident`: what is grey, in minutes."""
    begin = min(points[0][0] for points in lines.values())
    end = max(points[-1][0] for points in lines.values())
    high = max(value for points in lines.values() for _, value in points) * 1.05

    def x(time):
        return LEFT + (time - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - value / high * (HEIGHT - TOP - BOTTOM)

    start = begin // 3600 * 3600
    parts = head()
    left, right = x(start + incident[0] * 60), x(start + incident[1] * 60)
    parts.append(f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}" fill="#e8e8e8"/>')
    parts += grid(high, y, label)
    for minute in range(0, int((end - start) // 60) + 1, 5):
        if begin <= start + minute * 60 < end - 60:
            parts.append(f'<text x="{x(start + minute * 60):.1f}" y="{HEIGHT - 8}">{minute} min</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="16" text-anchor="end" fill="#555">{title}</text>')
    place = LEFT
    for (name, points), colour in zip(lines.items(), COLOURS):
        path = "M" + "L".join(f"{x(time):.1f} {y(value):.1f}" for time, value in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{place}" y="16" fill="{colour}">{name}</text>')
        place += 24 + 6 * len(name)
    return parts


def joins(rulesd, data, scratch):
    simulate(
        rulesd, scratch, "--scenario", "error_spike", "--duration", "25m", "--rate", "100",
        "--topic", "search.events", "--topic", "search.spans")
    records = dry_run(
        rulesd, JOINS,
        {"requests": os.path.join(scratch, "search.events.jsonl"), "spans": os.path.join(scratch, "search.spans.jsonl")}, scratch)
    names = {"failed": "failed requests, each minute", "explained": "a failed span of ranker in the trace: join … within 30s",
             "others": "none: unless … within 30s"}
    counts = {(record["rule"], seconds(record["time"])): record["values"]["value"] for record in records}
    times = sorted({time for _, time in counts})
    # A minute without rows has no record.
    lines = {text: [(time, counts.get((rule, time), 0)) for time in times] for rule, text in names.items()}
    return over_time(lines, lambda value: f"{value:.0f}", (10, 16), "grey: ranker fails")


def traces(rulesd, data, scratch):
    simulate(
        rulesd, scratch, "--scenario", "slow_queries", "--duration", "30m", "--rate", "100", "--topic", "search.spans")
    lines = collections.defaultdict(list)
    for record in dry_run(rulesd, TRACES, {"spans": os.path.join(scratch, "search.spans.jsonl")}, scratch):
        lines[record["labels"]["slowest_service"]].append((seconds(record["time"]), record["values"]["value"]))
    order = sorted(lines, key=lambda name: -max(value for _, value in lines[name]))
    return over_time({name: lines[name] for name in order}, lambda value: f"{value:.1f} s", (10, 21), "longest trace of each 30 s; grey: index-reader is slow")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--rulesd", required=True)
    arguments = parser.parse_args()
    for name, draw in (("patterns", patterns), ("joins", joins), ("traces", traces)):
        with tempfile.TemporaryDirectory() as scratch:
            parts = draw(arguments.rulesd, arguments.data, scratch)
        with open(os.path.join(arguments.out, f"{name}.svg"), "w", encoding="utf-8") as file:
            file.write("\n".join(parts + ["</svg>\n"]))


if __name__ == "__main__":
    main()
