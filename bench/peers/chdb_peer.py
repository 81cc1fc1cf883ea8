"""One rule's work in ClickHouse's engine: the same as duckdb_peer.py. Prints seconds and groups."""

import json
import sys
import time

import chdb

directory, threads = sys.argv[1], int(sys.argv[2])
begin = time.perf_counter()
result = chdb.query(
    f"""SELECT service, region, intDiv(ts, 60000) AS minute, count() AS n, countIf(status >= 500), sum(latency_ms),
               quantile(0.99)(latency_ms)
        FROM file('{directory}/part-*.jsonl', JSONEachRow,
          'ts Int64, service String, region String, status Int32, latency_ms Float64')
        GROUP BY service, region, minute
        SETTINGS max_threads = {threads}""",
    "CSV",
)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "groups": result.bytes().count(b"\n"), "version": ".".join(chdb.chdb_version)}))
