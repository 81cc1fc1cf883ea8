"""Runs rulesd and its peers on the same data in turns and prints a table of medians. Start it by bench/run.sh."""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "out")


def run(command, stdout=subprocess.DEVNULL, said=None):
    """Runs a command to its end; returns its wall time, its peak memory in bytes and, if asked for, its output.

    `said` is what must stand in its standard error.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE)
    output = process.stdout.read() if stdout == subprocess.PIPE else b""
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} ended with {process.returncode}:\n{errors.decode()}")
    if said and said not in errors.decode():
        sys.exit(f"bench: {' '.join(command)} did not say `{said}` but:\n{errors.decode()}")
    return seconds, usage.ru_maxrss * 1024, output


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.rulesd = os.path.abspath(arguments.rulesd)
        self.lines = []

    def generate(self, name, rows):
        directory = os.path.join(OUT, name)
        run([self.rulesd, "bench", "--generate", directory, "--rows", str(rows)])
        return directory

    def dry_run(self, directory, rules, workers):
        command = [self.rulesd, "dry-run", f"{directory}/{rules}.rules", "--quiet", "--workers", str(workers),
                   "--output", os.path.join(OUT, "records.jsonl")]
        for partition in range(4):
            command += ["--input", f"events={directory}/part-{partition}.jsonl"]
        seconds, memory, _ = run(command)
        return seconds, memory

    def peer(self, name, directory, threads):
        python = self.arguments.flink if name == "flink" else sys.executable
        _, memory, output = run(
            [python, os.path.join(HERE, "peers", f"{name}_peer.py"), directory, str(threads)], subprocess.PIPE)
        answer = json.loads(output.splitlines()[-1])
        return answer["seconds"], memory, answer

    def windows(self):
        """How many windows and keys rulesd wrote in its last run: the peers must have found as many groups."""
        with open(os.path.join(OUT, "records.jsonl"), "rb") as file:
            return sum(1 for line in file if b'"rule":"requests"' in line)

    def say(self, *columns):
        line = "| " + " | ".join(columns) + " |"
        self.lines.append(line)
        print(line, flush=True)

    def table(self):
        rows, rounds = self.arguments.rows, self.arguments.rounds
        data = self.generate("data", rows)
        print(f"{rounds} rounds of {rows:,} rows\n", flush=True)
        times = {}

        def note(name, seconds):
            times.setdefault(name, []).append(seconds)

        memory = {}
        peers = ["duckdb", "chdb"]
        versions = {}
        # In turns, so that a busy neighbour slows all of them.
        for _ in range(rounds):
            for workers in (1, 2):
                seconds, peak = self.dry_run(data, "one", workers)
                note(f"rulesd, one rule, {workers} worker{'s' * (workers - 1)}", seconds)
                memory[f"one rule, {workers} worker{'s' * (workers - 1)}, {rows:,} rows"] = peak
            found = self.windows()
            for peer in peers:
                seconds, _, answer = self.peer(peer, data, 1)
                note(f"{peer}, 1 thread", seconds)
                versions[peer] = answer["version"]
                if answer["groups"] != found:
                    sys.exit(f"bench: {peer} found {answer['groups']} groups, rulesd {found}")
            for rules in ("hundred", "thousand"):
                seconds, peak = self.dry_run(data, rules, 1)
                note(f"rulesd, {rules} rules, 1 worker", seconds)
                memory[f"{rules} rules, 1 worker, {rows:,} rows"] = peak
            note("check", run([self.rulesd, "check", f"{data}/thousand.rules"])[0])
        if self.arguments.flink:
            seconds, _, answer = self.peer("flink", data, 1)
            note("flink, parallelism 1", seconds)
            versions["flink"] = answer["version"]

        median = {name: statistics.median(values) for name, values in times.items()}
        one = median["rulesd, one rule, 1 worker"]
        self.say("what", "M events/s", "against one rule on one worker")
        self.say("---", "---:", "---:")
        for name, seconds in median.items():
            if name != "check":
                self.say(name, f"{rows / seconds / 1e6:.2f}", f"{one / seconds:.2f}")
        self.lines.append("")
        print()
        bigger = self.generate("data4", rows * 4)
        memory[f"one rule, 1 worker, {rows * 4:,} rows"] = self.dry_run(bigger, "one", 1)[1]
        self.say("what", "measured", "aim")
        self.say("---", "---:", "---:")
        self.say("one worker against DuckDB's one thread", f"{median['duckdb, 1 thread'] / one:.1f} x", "at least 4")
        self.say("two workers against one", f"{one / median['rulesd, one rule, 2 workers']:.2f} x", "at least 1.7")
        self.say("100 rules, share of one rule's rate",
                 f"{100 * one / median['rulesd, hundred rules, 1 worker']:.0f} %", "at least 40 %")
        self.say("1,000 rules, share of one rule's rate",
                 f"{100 * one / median['rulesd, thousand rules, 1 worker']:.0f} %", "at least 10 %")
        self.say("check of 1,000 rules", f"{1000 * median['check']:.0f} ms", "under 500 ms")
        for name, peak in memory.items():
            self.say(f"peak memory, {name}", f"{peak / 1e6:.0f} MB", "under 200 MB" if "one rule" in name else "")
        self.kafka(data)
        return versions

    def kafka(self, data):
        """rulesd and kcat read the same topic from the same brokers, in turns."""
        count = self.arguments.rows
        ours, theirs = self.read_topic(data, count)
        # Joining a group is a wait, not work: on a topic with next to nothing in it there is only that.
        join, _ = self.read_topic(data, 64)
        where = "real brokers" if self.arguments.brokers else "embedded broker"
        self.say(f"Kafka ({where}), {count:,} records: rulesd run, once it has joined its group, against kcat",
                 f"{count / (ours - join) / 1e6:.2f} and {count / theirs / 1e6:.2f} M/s, "
                 f"{theirs / (ours - join):.2f} x", "at least 1")
        self.say("Kafka: until rulesd has joined its group", f"{join:.2f} s", "")

    def read_topic(self, data, count):
        """Median seconds in which rulesd and kcat read a topic of so many records."""
        # The embedded broker keeps 5 MB a partition: many partitions hold the events without losing the first.
        command = [self.rulesd, "bench", "--serve", "--rows", str(count), "--partitions", "64"]
        if self.arguments.brokers:
            command += ["--kafka", self.arguments.brokers]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            answer = server.stdout.readline().split()
            if len(answer) != 2:
                sys.exit("bench: no broker to read from")
            brokers, topic = answer
            rules = os.path.join(OUT, "kafka.rules")
            with open(f"{data}/one.rules") as source, open(rules, "w") as target:
                target.write(source.read().replace('"bench.events"', f'"{topic}"'))
            ours, theirs = [], []
            for attempt in range(self.arguments.rounds):
                group = f"bench-{os.getpid()}-{count}-{attempt}"
                ours.append(run([self.rulesd, "run", rules, "--kafka", brokers, "--group", group,
                                 "--until-end", "--listen", "127.0.0.1:0",
                                 "--sink", os.path.join(OUT, "kafka.jsonl")],
                                said=f"read {count:,} records")[0])
                theirs.append(run(["kcat", "-C", "-e", "-q", "-b", brokers, "-t", topic])[0])
        finally:
            server.stdin.close()
            server.wait()
        return statistics.median(ours), statistics.median(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--brokers")
    parser.add_argument("--flink")
    parser.add_argument("--record", action="store_true", help="write the table into bench/README.md")
    arguments = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    bench = Bench(arguments)
    versions = bench.table()
    cpu = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
    footer = (f"{datetime.date.today()}, {os.cpu_count()} cores of {cpu}, {platform.platform()}; "
              + ", ".join(f"{name} {version}" for name, version in versions.items())
              + f"; medians of {arguments.rounds} rounds of {arguments.rows:,} rows")
    print(f"\n{footer}")
    if arguments.record:
        record("\n".join(bench.lines) + f"\n\n{footer}\n")


def record(table):
    """Puts the table in the place of the last one on the benchmark's page."""
    path = os.path.join(HERE, "README.md")
    with open(path) as file:
        text = file.read()
    begin, end = "<!-- table:begin -->\n", "<!-- table:end -->\n"
    head, tail = text[:text.index(begin) + len(begin)], text[text.index(end):]
    with open(path, "w") as file:
        file.write(head + table + tail)


if __name__ == "__main__":
    main()
