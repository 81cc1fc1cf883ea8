"""Runs joins through `rulesd dry-run` and through DuckDB over the same random rows, and compares every pair.

Rows are out of order, late, with null and with frequent keys. Nothing here is taken from the engine: lateness, pairs and times are
SQL. Exit code 0 when all agree, 1 when something differs, 2 when something could not be run.
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
BOUND = 5_000  # the watermark bound of every source, ms
CASES = [
    # name, kind, keys of the join, within ms, direction, rows a side, distinct keys
    ("inner", "join", ("k",), 3_000, "", 20_000, 500),
    ("inner after, two keys", "join", ("k", "g"), 5_000, "after", 20_000, 100),
    ("inner, a hot key", "join", ("k",), 200, "", 20_000, 3),
    ("left", "left join", ("k",), 2_000, "", 20_000, 800),
    ("left before", "left join", ("k", "g"), 10_000, "before", 20_000, 300),
    ("unless", "unless", ("k",), 5_000, "", 20_000, 3_000),
    ("unless after", "unless", ("k",), 30_000, "after", 20_000, 5_000),
    ("at one time", "left join", ("k",), 0, "", 20_000, 2),
]
PARTITIONS = 3


def make_rows(name, rows, keys, rng, directory):
    paths = []
    for partition in range(PARTITIONS):
        path = os.path.join(directory, f"{name}-{partition}.jsonl")
        paths.append(path)
        now = START
        with open(path, "w", encoding="utf-8") as file:
            for place in range(rows // PARTITIONS):
                now += rng.randrange(0, 60)
                draw = rng.random()
                ts = now - (rng.randrange(5_001, 60_000) if draw < 0.02 else rng.randrange(0, 5_000) if draw < 0.4 else 0)
                row = {"_p": partition, "_o": place, "ts": ts, "v": partition * 1_000_000 + place}
                if rng.random() > 0.03:
                    row["k"] = f"key {rng.randrange(keys)}" if rng.random() < 0.9 else "key 0"
                row["g"] = None if rng.random() < 0.03 else rng.randrange(3)
                file.write(json.dumps(row) + "\n")
    return paths


def rules(kind, keys, within, direction):
    fields = "{ ts: timestamp(ms), k: string?, g: int?, v: int }"
    other = "" if kind == "unless" else ", other = r.v"
    by = "mine" if kind == "unless" else "mine, other"
    return f"""source l {{ time ts watermark {BOUND}ms fields {fields} }}
source r {{ time ts watermark {BOUND}ms fields {fields} }}
stream joined = l | {kind} r on {', '.join(keys)} within {within}ms {direction} | derive mine = v{other}
stream rows = joined | window tumbling 1ms by {by} | aggregate n = count()
metric pairs = rows.n
"""


def expected(db, kind, keys, within, direction, paths):
    low, high = (0 if direction == "after" else -within), (0 if direction == "before" else within)
    for name in ("l", "r"):
        # Late is decided row by row, by the largest time that the row's own partition showed before it.
        db.execute(
            f"""CREATE OR REPLACE TABLE {name} AS SELECT * FROM (
                  SELECT *, coalesce(ts < max(ts) OVER (PARTITION BY _p ORDER BY _o
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - {BOUND}, false) AS late
                  FROM read_json({paths[name]}, format = 'newline_delimited', columns = {{_p: 'INTEGER', _o: 'BIGINT',
                    ts: 'BIGINT', k: 'VARCHAR', g: 'BIGINT', v: 'BIGINT'}})) WHERE NOT late""")
    on = " AND ".join([f"l.{key} = r.{key}" for key in keys] + [f"r.ts BETWEEN l.ts + {low} AND l.ts + {high}"])
    begin = time.monotonic()
    if kind == "unless":
        query = f"SELECT l.ts + {high} AS t, l.v AS mine, NULL::BIGINT AS other FROM l ANTI JOIN r ON {on}"
    else:
        outer = "LEFT" if kind == "left join" else "INNER"
        query = f"""SELECT CASE WHEN r.v IS NULL THEN l.ts + {high} ELSE greatest(l.ts, r.ts) END AS t,
                      l.v AS mine, r.v AS other FROM l {outer} JOIN r ON {on}"""
    db.execute(f"CREATE OR REPLACE TABLE expected AS {query}")
    return time.monotonic() - begin


def run(number, case, seed, rulesd, directory):
    name, kind, keys, within, direction, rows, distinct = case
    rng = random.Random(seed * 100 + number)
    paths = {side: make_rows(side, rows, distinct, rng, directory) for side in ("l", "r")}
    rule_path = os.path.join(directory, "join.rules")
    with open(rule_path, "w", encoding="utf-8") as file:
        file.write(rules(kind, keys, within, direction))
    out_path = os.path.join(directory, "records.jsonl")
    command = [rulesd, "dry-run", rule_path, "--output", out_path, "--quiet", "--workers", str(1 + number % 3)]
    for side in paths:
        for path in paths[side]:
            command += ["--input", f"{side}={path}"]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if done.returncode != 0:
        print(f"FAILED  {name}: {' '.join(command)}\n{done.stderr}")
        return 2
    db = duckdb.connect()
    sql_seconds = expected(db, kind, keys, within, direction, paths)
    db.execute(
        f"""CREATE TABLE actual AS SELECT epoch_ms("window"."start") AS t, CAST(json_extract_string(labels, '$.mine') AS BIGINT) AS mine,
              CAST(json_extract_string(labels, '$.other') AS BIGINT) AS other, "values"."value" AS n
            FROM read_json('{out_path}', format = 'newline_delimited', columns = {{type: 'VARCHAR',
              "window": 'STRUCT("start" TIMESTAMP)', labels: 'JSON', "values": 'STRUCT("value" BIGINT)'}})
            WHERE type = 'metric'""")
    grouped = "SELECT t, mine, other, count(*) AS n FROM expected GROUP BY ALL"
    missing = db.execute(f"SELECT count(*) FROM ({grouped} EXCEPT ALL SELECT * FROM actual)").fetchone()[0]
    extra = db.execute(f"SELECT count(*) FROM (SELECT * FROM actual EXCEPT ALL ({grouped}))").fetchone()[0]
    total = db.execute("SELECT count(*) FROM expected").fetchone()[0]
    isGood = missing == 0 and extra == 0 and total > 0
    print(f"{'ok' if isGood else 'FAILED':8}{name}: {rows} rows a side, {total} rows out, {missing} missing, {extra} too many; "
          f"{seconds:.1f} s, DuckDB's join {sql_seconds:.2f} s")
    return 0 if isGood else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    worst = 0
    for number, case in enumerate(CASES):
        with tempfile.TemporaryDirectory(prefix="rulesd-joins-") as directory:
            worst = max(worst, run(number, case, arguments.seed, arguments.rulesd, directory))
    sys.exit(worst)


if __name__ == "__main__":
    main()
