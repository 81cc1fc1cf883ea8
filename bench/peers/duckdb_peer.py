"""One rule's work in DuckDB: groups, 1-minute windows, count, count-where, sum, approximate p99. Prints seconds and groups."""

import glob
import json
import sys
import time

import duckdb

directory, threads = sys.argv[1], int(sys.argv[2])
db = duckdb.connect(config={"threads": threads})
files = sorted(glob.glob(f"{directory}/part-*.jsonl"))
begin = time.perf_counter()
rows = db.execute(
    """SELECT service, region, ts // 60000 AS minute, count(*), count(*) FILTER (status >= 500), sum(latency_ms),
              approx_quantile(latency_ms, 0.99)
       FROM read_json($files, format = 'newline_delimited',
         columns = {ts: 'BIGINT', service: 'VARCHAR', region: 'VARCHAR', status: 'INTEGER', latency_ms: 'DOUBLE'})
       GROUP BY ALL""",
    {"files": files},
).fetchall()
print(json.dumps({"seconds": time.perf_counter() - begin, "groups": len(rows), "version": duckdb.__version__}))
