#!/usr/bin/env python3
"""Joins against DuckDB over the same files, in turns, and spans into traces: `python bench/joins.py --rulesd PATH`.

Both engines read JSON lines of logs and spans, join them on `trace_id` within 30 s with one thread, and count pairs by service and
minute; the counts must be equal. rulesd's time is the whole process, DuckDB's its query alone. Then rulesd puts spans of traces of
8 and of 50,000 spans together.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

import duckdb

START = 1_795_230_000_000  # 2026-11-21T03:00:00Z, ms
SERVICES = [f"service-{number:02}" for number in range(20)]

JOIN_RULES = """
source logs { time ts  watermark 1s  fields { ts: timestamp(ms), trace_id: string, level: string } }
source spans { time ts  watermark 1s  fields { ts: timestamp(ms), trace_id: string, service: string, duration: duration(ms) } }
stream pairs = logs | join spans on trace_id within 30s
stream minutes = pairs | window tumbling 1m by spans.service | aggregate n = count()
metric pairs = minutes.n
"""
TRACE_RULES = """
source spans {
  time ts  watermark 1s
  fields { ts: timestamp(ms), trace_id: string, span_id: string, parent_id: string?, service: string, duration: duration(ms), failed: bool }
}
stream traces = spans
  | trace by trace_id gap 5s { span span_id parent parent_id service service start ts duration duration error failed }
stream minutes = traces | window tumbling 1m by root_service, slowest_service | aggregate n = count(), spans = sum(spans), worst = max(duration)
metric traces = minutes.n
metric spans = minutes.spans
metric worst = minutes.worst
"""


def write_spans(path, traces, width, rng):
    """Spans of traces that come side by side, parents first; a span a millisecond."""
    with open(path, "w", encoding="utf-8") as file:
        row = 0
        for trace in range(traces):
            trace_id = f"{rng.getrandbits(128):032x}"
            for span in range(width):
                parent = None if span == 0 else f"{trace:08x}{rng.randrange(span):08x}"
                file.write(json.dumps({
                    "ts": START + row // 20, "trace_id": trace_id, "span_id": f"{trace:08x}{span:08x}", "parent_id": parent,
                    "service": rng.choice(SERVICES), "name": "GET /v1/orders/{id}", "duration": rng.randrange(1, 2_000),
                    "failed": rng.random() < 0.02}) + "\n")
                row += 1


def write_logs(path, spans, rows, rng):
    with open(spans, encoding="utf-8") as file:
        known = [(json.loads(line)["ts"], line.split('"trace_id": "')[1][:32]) for line in file]
    step = max(1, len(known) // rows)
    with open(path, "w", encoding="utf-8") as file:
        for ts, trace_id in known[::step]:
            if rng.random() < 0.2:
                trace_id = f"{rng.getrandbits(128):032x}"
            file.write(json.dumps({
                "ts": ts, "trace_id": trace_id, "level": rng.choice(["INFO", "ERROR"]), "message": "something was done or not"}) + "\n")


def dry_run(rulesd, rules, inputs, output):
    start = time.monotonic()
    command = [rulesd, "dry-run", rules, "--workers", "1", "--quiet", "--output", output]
    for name, path in inputs.items():
        command += ["--input", f"{name}={path}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def counted(output):
    counts = {}
    with open(output, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record["type"] == "metric":
                counts[(record["window"]["start"][:16], record["labels"]["service"])] = record["values"]["value"]
    return counts


def in_duckdb(logs, spans):
    db = duckdb.connect(config={"threads": 1})
    start = time.monotonic()
    rows = db.execute(
        f"""SELECT strftime(make_timestamp(greatest(l.ts, s.ts) // 60000 * 60000000), '%Y-%m-%dT%H:%M'), s.service, count(*)
            FROM read_json('{logs}', format = 'newline_delimited', columns = {{ts: 'BIGINT', trace_id: 'VARCHAR', level: 'VARCHAR'}}) l
            JOIN read_json('{spans}', format = 'newline_delimited', columns = {{ts: 'BIGINT', trace_id: 'VARCHAR', service: 'VARCHAR',
              duration: 'DOUBLE'}}) s
            ON l.trace_id = s.trace_id AND s.ts BETWEEN l.ts - 30000 AND l.ts + 30000 GROUP BY ALL""").fetchall()
    return time.monotonic() - start, {(minute, service): count for minute, service, count in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rng = random.Random(11)
    with tempfile.TemporaryDirectory() as scratch:
        def path(name):
            return os.path.join(scratch, name)
        for name, text in (("join.rules", JOIN_RULES), ("trace.rules", TRACE_RULES)):
            with open(path(name), "w", encoding="utf-8") as file:
                file.write(text)
        write_spans(path("spans.jsonl"), arguments.spans // 8, 8, rng)
        write_spans(path("large.jsonl"), max(1, arguments.spans // 50_000), 50_000, rng)
        write_logs(path("logs.jsonl"), path("spans.jsonl"), arguments.spans // 4, rng)
        ours, theirs, small, large = [], [], [], []
        for _ in range(arguments.rounds):
            ours.append(dry_run(arguments.rulesd, path("join.rules"),
                                {"logs": path("logs.jsonl"), "spans": path("spans.jsonl")}, path("out")))
            seconds, expected = in_duckdb(path("logs.jsonl"), path("spans.jsonl"))
            theirs.append(seconds)
            if counted(path("out")) != expected:
                raise SystemExit("bench: rulesd and DuckDB do not agree")
            small.append(dry_run(arguments.rulesd, path("trace.rules"), {"spans": path("spans.jsonl")}, path("out")))
            large.append(dry_run(arguments.rulesd, path("trace.rules"), {"spans": path("large.jsonl")}, path("out")))
    rows = arguments.spans + arguments.spans // 4
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print("| what | rows/s on one worker | against DuckDB |\n| --- | ---: | ---: |")
    print(f"| logs joined with spans within 30 s | {rows / ours:,.0f} | {theirs / ours:.2f} |")
    print(f"| the same in DuckDB, 1 thread | {rows / theirs:,.0f} | 1.00 |")
    print(f"| spans into traces of 8 | {arguments.spans / statistics.median(small):,.0f} | |")
    print(f"| spans into traces of 50,000 | {arguments.spans // 50_000 * 50_000 / statistics.median(large):,.0f} | |")


if __name__ == "__main__":
    main()
