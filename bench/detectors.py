#!/usr/bin/env python3
"""Detectors over 100,000 series against DuckDB's window functions, in turns: `python bench/detectors.py --rulesd PATH`.

rulesd: `rulesd bench --detectors`, rows of one-minute windows through one detector on one core, decoding and windows not included.
DuckDB, one thread: the same number of rows from a table in memory, mean and deviation of the 60 rows before each row of its
series, and the distance from them: what `zscore value baseline 60 windows` does. Prints medians and the ratio.
"""
import argparse
import statistics
import subprocess
import time

QUERY = """
SELECT count(*), sum(score) FROM (
  SELECT abs(value - avg(value) OVER w) / greatest(stddev_pop(value) OVER w, 1e-9) AS score
  FROM samples WINDOW w AS (PARTITION BY key ORDER BY minute ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        import duckdb
    except ImportError:
        raise SystemExit("bench: duckdb is missing: pip install duckdb")
    database = duckdb.connect()
    database.execute("SET threads = 1")
    database.execute(
        f"CREATE TABLE samples AS SELECT 'k' || k AS key, m AS minute, hash(k * 977 + m) % 10000 / 100.0 AS value "
        f"FROM range({arguments.windows}) w(m), range({arguments.keys}) s(k)")
    rows = arguments.keys * arguments.windows
    rates = {}
    for _ in range(arguments.rounds):
        output = subprocess.run(
            [arguments.rulesd, "bench", "--detectors", "--keys", str(arguments.keys), "--windows", str(arguments.windows)],
            stdout=subprocess.PIPE, check=True, text=True).stdout
        for line in output.splitlines():
            name, rate = line.split()
            rates.setdefault(name, []).append(float(rate))
        started = time.monotonic()
        database.execute(QUERY).fetchall()
        rates.setdefault("duckdb_rolling_60", []).append(rows / (time.monotonic() - started) / 1e6)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{arguments.keys} series, {rows} rows, M rows/s a core (median of {arguments.rounds}):")
    for name, rate in medians.items():
        print(f"  {name:<24} {rate:6.2f}")
    print(f"  rolling z-score against DuckDB: {medians['zscore_rolling_60'] / medians['duckdb_rolling_60']:.1f} x")


if __name__ == "__main__":
    main()
