"""Runs windowed aggregates through `rulesd dry-run` and through DuckDB, and compares every value.

Nothing here is taken from the engine: lateness, windows and aggregates are SQL over the same random rows. Exit code 0
when all agree, 1 when a value differs, 2 when something could not be run.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import duckdb

START = 1_795_230_000_000  # 2026-11-21T03:00:00Z, ms
BOUND = 5_000  # the watermark bound of every case, ms


class Case:
    """Random rows, and the window over them that both engines compute."""

    def __init__(self, name, rows, keys, size, hop, aggregates, by=("k", "region"), minutes=12, distinct=50,
                 where=None, null_keys=True):
        self.name = name
        self.rows = rows
        self.keys = keys
        self.size = size  # seconds
        self.hop = hop  # seconds; equal to size for a tumbling window
        self.aggregates = aggregates
        self.by = by
        self.minutes = minutes
        self.distinct = distinct
        self.where = where  # the same condition in rules and in SQL
        self.null_keys = null_keys


# name: (what the rule says, what the SQL says, how exact)
AGGREGATES = {
    "n": ("count()", "count(*)", "exact"),
    "errors": ("count(where status >= 500)", "count(*) FILTER (status >= 500)", "exact"),
    "total": ("sum(value)", "coalesce(fsum(value), 0)", "close"),
    "fine_total": ("sum(value where status < 500)", "coalesce(fsum(value) FILTER (status < 500), 0)", "close"),
    "size_total": ("sum(size)", "coalesce(sum(size), 0)", "exact"),
    "mean": ("avg(value)", "favg(value)", "close"),
    "size_mean": ("avg(size)", "avg(size)", "close"),
    "least": ("min(value)", "min(value)", "exact"),
    "most": ("max(value)", "max(value)", "exact"),
    "size_most": ("max(size)", "max(size)", "exact"),
    "spread": ("stddev(value)", "stddev_samp(value)", "close"),
    "slowest": ("max(latency)", "max(latency_ms) / 1000", "close"),  # ms and s differ in the last bit
    "p50": ("quantile(value, 0.5)", "quantile_disc(value, 0.5)", "quantile"),
    "p99": ("quantile(value, 0.99)", "quantile_disc(value, 0.99)", "quantile"),
    "latency_p95": ("quantile(latency, 0.95)", "quantile_disc(latency_ms, 0.95) / 1000", "quantile"),
    "users": ("distinct(user)", "count(DISTINCT \"user\")", "distinct"),
}
ALL = list(AGGREGATES)

CASES = [
    Case("tumbling, late rows and nulls", 60_000, 40, 60, 60, ALL),
    Case("tumbling 10 s, no key", 30_000, 5, 10, 10, ALL, by=(), minutes=6),
    Case("tumbling, filtered", 40_000, 30, 60, 60, ALL, by=("region",), where="status < 404"),
    Case("hopping 5m every 1m", 40_000, 12, 300, 60, ALL, minutes=15),
    Case("hopping 90s every 30s by one key", 30_000, 20, 90, 30, ALL, by=("k",)),
    Case("many distinct values", 60_000, 2, 300, 300, ["n", "users", "p50", "spread"], by=("region",),
         minutes=10, distinct=20_000, null_keys=False),
    Case("100k keys", 300_000, 100_000, 600, 600, ["n", "errors", "total", "least", "most", "p99"], by=("k",),
         minutes=20),
]
PARTITIONS = 4


def make_rows(case, seed, directory):
    """Writes four files of JSON lines. `_p` and `_o` (partition and place) and `_bad` are for the SQL alone."""
    rng = random.Random(seed)
    regions = ["eu-west-1", "us-east-1", "ap-south-1", "Zürich \"A\"", ""]
    paths = []
    for partition in range(PARTITIONS):
        path = os.path.join(directory, f"part-{partition}.jsonl")
        paths.append(path)
        count = case.rows // PARTITIONS
        # Partitions run at different paces, and one stops early.
        minutes = case.minutes * (0.5 if partition == 3 else 1)
        with open(path, "w", encoding="utf-8") as file:
            for place in range(count):
                now = START + int(place / count * minutes * 60_000)
                draw = rng.random()
                if draw < 0.01:  # beyond the bound most of the time
                    ts = now - rng.randrange(4_000, 90_000)
                elif draw < 0.2:
                    ts = now - rng.randrange(0, 5_000)
                else:
                    ts = now - rng.randrange(0, 300)
                row = {
                    "_p": partition, "_o": place, "_bad": False, "ts": ts,
                    "k": f"key-{rng.randrange(case.keys)}", "region": rng.choice(regions),
                    "status": rng.choice([200, 200, 200, 200, 201, 404, 500, 503]),
                    "latency_ms": round(rng.lognormvariate(4, 1.2), 3),
                    "value": rng.choice([rng.gauss(0, 50), rng.lognormvariate(2, 2), rng.randrange(-5, 6), 0]),
                    "size": rng.randrange(-1_000, 1_000_000_000),
                    "user": f"u{rng.randrange(case.distinct)}",
                }
                if case.null_keys and rng.random() < 0.02:
                    row["k"] = None
                for name in ("value", "size", "latency_ms", "user", "region"):
                    if (name != "region" or case.null_keys) and rng.random() < 0.05:
                        if rng.random() < 0.5:
                            row[name] = None
                        else:
                            del row[name]
                if rng.random() < 0.002:  # dead letters: of no account, to the watermark neither
                    row["_bad"] = True
                    row["ts"] = now + 40_000
                    row["status"] = rng.choice(["fast", None, 5.5, True])
                members = list(row.items())
                if rng.random() < 0.1:
                    rng.shuffle(members)
                file.write(json.dumps(dict(members), ensure_ascii=rng.random() < 0.5) + "\n")
    return paths


def rules(case):
    window = f"tumbling {case.size}s" if case.hop == case.size else f"hopping {case.size}s every {case.hop}s"
    by = f" by {', '.join(case.by)}" if case.by else ""
    aggregates = ",\n      ".join(f"{name} = {AGGREGATES[name][0]}" for name in case.aggregates)
    where = f"  | where {case.where}\n" if case.where else ""
    metrics = "\n".join(f"metric {name} = windows.{name}" for name in case.aggregates)
    return f"""source events {{
  kafka "events"  format json
  time ts  watermark {BOUND}ms
  fields {{
    ts: timestamp(ms), k: string?, region: string?, status: int, latency: duration(ms)? from latency_ms,
    value: float?, size: int?, user: string?
  }}
}}
stream windows = events
{where}  | window {window}{by}
  | aggregate
      {aggregates}
{metrics}
"""


def expected(case, paths, db):
    """The table `expected(metric, start, keys…, value)`, and the numbers of late and of bad rows."""
    columns = """{_p: 'INTEGER', _o: 'BIGINT', _bad: 'BOOLEAN', ts: 'BIGINT', k: 'VARCHAR', region: 'VARCHAR',
        status: 'VARCHAR', latency_ms: 'DOUBLE', value: 'DOUBLE', size: 'BIGINT', user: 'VARCHAR'}"""
    db.execute(
        f"""CREATE TABLE rows AS
            SELECT * REPLACE (CASE WHEN _bad THEN NULL ELSE CAST(status AS BIGINT) END AS status)
            FROM read_json({paths}, format = 'newline_delimited', columns = {columns})""")
    # Late is decided row by row, by the largest time that the row's own partition showed before it.
    db.execute(
        f"""CREATE TABLE judged AS SELECT *, coalesce(ts < max(ts) OVER (
              PARTITION BY _p ORDER BY _o ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - {BOUND}, false) AS late
            FROM rows WHERE NOT _bad""")
    size, hop = case.size * 1_000, case.hop * 1_000
    keys = "".join(f"{key}, " for key in case.by)
    where = f"AND {case.where}" if case.where else ""
    aggregates = ", ".join(f"{AGGREGATES[name][1]} AS {name}" for name in case.aggregates)
    db.execute(
        f"""CREATE TABLE windows AS
            SELECT start, {keys}{aggregates}
            FROM (SELECT *, unnest(range(ts - ts % {hop} - {size} + {hop}, ts + 1, {hop})) AS start
                  FROM judged WHERE NOT late {where})
            GROUP BY {keys}start""")
    for name in case.aggregates:
        db.execute(
            f"""{'INSERT INTO' if name != case.aggregates[0] else 'CREATE TABLE'} expected
                {'AS' if name == case.aggregates[0] else ''}
                SELECT '{name}' AS metric, start, {keys}CAST({name} AS DOUBLE) AS value FROM windows""")
    late = db.execute("SELECT count(*) FROM judged WHERE late").fetchone()[0]
    bad = db.execute("SELECT count(*) FROM rows WHERE _bad").fetchone()[0]
    return late, bad


def actual(case, path, db):
    """The table `actual(metric, start, keys…, value)` from the records in a file."""
    keys = "".join(f"json_extract_string(labels, '$.{key}') AS {key}, " for key in case.by)
    db.execute(
        f"""CREATE TABLE records AS SELECT * FROM read_json('{path}', format = 'newline_delimited',
              maximum_object_size = 4000000,
              columns = {{type: 'VARCHAR', rule: 'VARCHAR', time: 'VARCHAR',
                "window": 'STRUCT("start" TIMESTAMP, "end" TIMESTAMP)', labels: 'JSON',
                "values": 'STRUCT("value" DOUBLE)', id: 'VARCHAR'}})""")
    db.execute(
        f"""CREATE TABLE actual AS SELECT rule AS metric, epoch_ms("window"."start") AS start, {keys}
              "values"."value" AS value,
              epoch_ms("window"."end") - epoch_ms("window"."start") AS length
            FROM records WHERE type = 'metric'""")


TOLERANCE = {
    # Equality of NULLs is checked apart; a and e are actual and expected.
    "exact": "a = e",
    "close": "abs(a - e) <= 1e-9 * greatest(abs(e), {scale})",
    "quantile": "abs(a - e) <= 0.01 * abs(e) * (1 + 1e-9)",
    # Three percent, and at least one: there is no less for a small whole number.
    "distinct": "abs(a - e) <= greatest(ceil(0.03 * e), 1)",
}


def compare(case, db):
    """What differs, as lines; empty when all agree."""
    problems = []
    keys = list(case.by)
    joined = " AND ".join(
        ["a.metric = e.metric", "a.start = e.start"] + [f"a.{key} IS NOT DISTINCT FROM e.{key}" for key in keys])
    shown = ", ".join(f"coalesce(a.{key}, e.{key})" for key in keys) or "''"
    wrong_length = db.execute(
        f"SELECT count(*) FROM actual WHERE length <> {case.size * 1_000}").fetchone()[0]
    if wrong_length:
        problems.append(f"{wrong_length} windows are not {case.size} s long")
    repeated = db.execute(
        f"""SELECT count(*) FROM (SELECT 1 FROM actual
            GROUP BY metric, start{''.join(', ' + key for key in keys)} HAVING count(*) > 1)""").fetchone()[0]
    if repeated:
        problems.append(f"{repeated} windows were written more than once")
    for name in case.aggregates:
        # A mean of values that cancel out is as exact as the values were, not as their sum is.
        scale = "1e-3" if AGGREGATES[name][2] == "close" else "0"
        agrees = TOLERANCE[AGGREGATES[name][2]].format(scale=scale)
        total, differing = db.execute(
            f"""SELECT count(*), count(*) FILTER (NOT ok) FROM (
                  SELECT CASE WHEN a IS NULL OR e IS NULL THEN a IS NULL AND e IS NULL ELSE {agrees} END AS ok
                  FROM (SELECT a.value AS a, e.value AS e FROM expected e FULL JOIN actual a ON {joined}
                        WHERE coalesce(e.metric, a.metric) = '{name}'))""").fetchone()
        if total == 0:
            problems.append(f"{name}: nothing to compare")
        if differing:
            problems.append(f"{name}: {differing} of {total} values differ")
            for line in db.execute(
                f"""SELECT a, e, start, labels FROM (
                      SELECT a.value AS a, e.value AS e, coalesce(a.start, e.start) AS start, [{shown}] AS labels
                      FROM expected e FULL JOIN actual a ON {joined}
                      WHERE coalesce(e.metric, a.metric) = '{name}')
                    WHERE NOT CASE WHEN a IS NULL OR e IS NULL THEN a IS NULL AND e IS NULL ELSE {agrees} END
                    ORDER BY start, labels LIMIT 5""").fetchall():
                problems.append(f"    rulesd {line[0]}, DuckDB {line[1]}, window {line[2]}, keys {line[3]}")
    return problems


def run(case, number, seed, rulesd, keep):
    directory = os.path.join(keep, f"case-{number}")
    os.makedirs(directory, exist_ok=True)
    paths = make_rows(case, seed + number, directory)
    rule_path = os.path.join(directory, "case.rules")
    with open(rule_path, "w", encoding="utf-8") as file:
        file.write(rules(case))
    out_path = os.path.join(directory, "records.jsonl")
    command = [rulesd, "dry-run", rule_path, "--output", out_path, "--quiet", "--workers", str(1 + number % 2)]
    for path in paths:
        command += ["--input", f"events={path}"]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if done.returncode != 0:
        print(f"FAILED  {case.name}: {' '.join(command)}\n{done.stderr}")
        return 2
    db = duckdb.connect()
    late, bad = expected(case, paths, db)
    actual(case, out_path, db)
    problems = compare(case, db)
    for kind, count in (("late", late), ("dead_letter", bad)):
        found = db.execute(f"SELECT count(*) FROM records WHERE type = '{kind}'").fetchone()[0]
        if found != count:
            problems.append(f"{kind}: {found} records, {count} expected")
    values = db.execute("SELECT count(*) FROM expected").fetchone()[0]
    print(f"{'FAILED' if problems else 'ok':8}{case.name}: {case.rows} rows, {late} late, {bad} bad, "
          f"{values} values, {seconds:.1f} s")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="leave rows, rules and records in this directory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rulesd-duckdb-") as temporary:
        worst = 0
        for number, case in enumerate(CASES):
            worst = max(worst, run(case, number, arguments.seed, arguments.rulesd, arguments.keep or temporary))
    sys.exit(worst)


if __name__ == "__main__":
    main()
