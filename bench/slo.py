#!/usr/bin/env python3
"""Burn alerts against Prometheus, on the same counts, in turns: `python bench/slo.py --rulesd PATH`.

Each key has a record a minute (events and failures), for a day. rulesd keeps an `slo` with the SRE workbook's windows and 30 days over
them; its time is the whole process, one worker, JSON included. Prometheus has the counters as blocks and evaluates the workbook's two
alerting expressions at each minute by one range query each; its time is the queries alone, without scraping, blocks or recording rules.
Bytes a key are the peak memory of rulesd with the slo less that with the sums alone, over keys; of Prometheus the bytes of its blocks.
"""
import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

START = 1_790_812_800
RULES = """
source counts { time ts watermark 0s fields { ts: timestamp(s), key: string, n: int, failed: int } }
stream minutes = counts | window tumbling 1m by key | aggregate total = sum(n), bad = sum(failed)
slo availability { on minutes  bad bad  total total  objective 99.9% over 30d }
"""
# The same windows without an SLO, and hardly any record.
SUMS_ALONE = RULES[:RULES.index("slo ")] + "alert Never { on minutes  when total < 0 and bad > 0 }\n"
CONDITIONS = [[("14.4", "1h", "5m"), ("6", "6h", "30m")], [("3", "1d", "2h"), ("1", "3d", "6h")]]


def make(directory, keys, minutes):
    dice = random.Random(5)
    records = os.path.join(directory, f"records-{keys}.jsonl")
    series = [[0, 0, []] for _ in range(keys)]
    with open(records, "w", encoding="utf-8") as file:
        for minute in range(minutes):
            for key in range(keys):
                n = dice.randrange(200, 800)
                failed = dice.randrange(0, 60) if (minute + 37 * key) % 720 < 20 else int(dice.random() < 0.3)
                file.write(f'{{"ts":{START + minute * 60 + 30},"key":"service-{key:05}","n":{n},"failed":{failed}}}\n')
                entry = series[key]
                entry[0] += n
                entry[1] += failed
                entry[2].append((entry[0], entry[1]))
    return records, series


# The kernel counts the memory of whoever starts a process as the process's own: a small interpreter starts it.
MEASURE = """
import os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(status, time.perf_counter() - begin, usage.ru_maxrss * 1024)
"""


def rulesd(binary, rules, records, directory):
    command = [binary, "dry-run", rules, "--input", f"counts={records}", "--workers", "1", "--quiet", "--output",
               os.path.join(directory, "out.jsonl")]
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True)
    status, seconds, memory = done.stdout.split()
    if status != "0":
        sys.exit("bench: rulesd failed")
    return float(seconds), int(memory)


def expressions():
    def ratio(window):
        return f"(sum by (key) (rate(errors_total[{window}])) / sum by (key) (rate(requests_total[{window}])))"
    return [" or ".join(
        f"({ratio(long)} > ({rate} * 0.001) and {ratio(short)} > ({rate} * 0.001))" for rate, long, short in conditions)
        for conditions in CONDITIONS]


class Prometheus:
    def __init__(self, directory, series):
        self.directory = directory
        path = os.path.join(directory, "counters.om")
        with open(path, "w", encoding="utf-8") as file:
            for metric, column in (("requests", 0), ("errors", 1)):
                file.write(f"# TYPE {metric} counter\n")
                for key, entry in enumerate(series):
                    name = f'{metric}_total{{key="service-{key:05}"}}'
                    file.write(f"{name} 0 {START}\n")
                    file.writelines(
                        f"{name} {sample[column]} {START + 60 * minute}\n" for minute, sample in enumerate(entry[2], 1))
            file.write("# EOF\n")
        self.tsdb = os.path.join(directory, "tsdb")
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=1000h", "-q", path, self.tsdb],
            check=True, stdout=subprocess.DEVNULL)
        self.bytes = sum(
            os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(self.tsdb) for name in names)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        config = os.path.join(directory, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("global: {}\n")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.tsdb}",
             "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}",
             "--query.max-samples=2000000000", "--query.timeout=30m", "--query.max-concurrency=1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "GOMAXPROCS": "1"})
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.05)
        sys.exit("bench: prometheus does not start")

    def run(self, minutes):
        begin = time.perf_counter()
        firing = 0
        for expression in expressions():
            query = urllib.parse.urlencode(
                {"query": expression, "start": START + 60, "end": START + minutes * 60, "step": 60})
            with urllib.request.urlopen(f"{self.url}/api/v1/query_range", query.encode()) as answer:
                result = json.load(answer)["data"]["result"]
            firing += sum(len(entry["values"]) for entry in result)
        return time.perf_counter() - begin, firing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--minutes", type=int, default=1_440)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        sys.exit("bench: no prometheus on PATH: apt-get install prometheus")
    keys, minutes = arguments.keys, arguments.minutes
    with tempfile.TemporaryDirectory() as directory:
        rules = os.path.join(directory, "slo.rules")
        with open(rules, "w", encoding="utf-8") as file:
            file.write(RULES)
        records, series = make(directory, keys, minutes)
        sums_alone = os.path.join(directory, "sums.rules")
        with open(sums_alone, "w", encoding="utf-8") as file:
            file.write(SUMS_ALONE)
        server = Prometheus(directory, series)
        try:
            ours, theirs, memory = [], [], []
            firing = 0
            for _ in range(arguments.rounds):
                seconds, peak = rulesd(arguments.rulesd, rules, records, directory)
                _, least = rulesd(arguments.rulesd, sums_alone, records, directory)
                ours.append(seconds)
                memory.append((peak - least) / keys)
                seconds, firing = server.run(minutes)
                theirs.append(seconds)
        finally:
            server.process.terminate()
            server.process.wait()
        events = keys * minutes
        mine, peer = statistics.median(ours), statistics.median(theirs)
        print(
            f"slo, {keys:,} keys, {minutes:,} evaluations of 4 burn conditions: rulesd, 1 worker: {events / mine:,.0f} keys·minutes/s, "
            f"{statistics.median(memory):,.0f} bytes of memory a key; Prometheus, 1 core: {events / peer:,.0f} keys·minutes/s, "
            f"{server.bytes / keys:,.0f} bytes of blocks a key ({firing} firing minutes); {peer / mine:.1f} times")


if __name__ == "__main__":
    main()
