"""What the trials with real processes share: brokers, daemons, traffic, and the comparison with the dry run.

A trial writes a recording of simulated traffic into topics, bit by bit, while `rulesd run` processes come and go. What
they wrote in the end must be what `rulesd dry-run` writes for the same topics: it is given the input topics as kcat reads
them back, so that it does not matter how the records got there.
"""

import collections
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
EVENTS, LAG = "search.events", "ops.lag"
# The longest window is five minutes, and an alert keeps firing for two.
CLOSING_MINUTES = 20
WINDOWED = ["metric", "alert", "slo", "anomaly"]
OUTPUTS = [*WINDOWED, "late", "dead_letter"]


class Failed(Exception):
    """The product did something wrong."""


class Skipped(Exception):
    """The trial cannot be made here."""


def say(text):
    print(text, flush=True)


def wait_until(condition, seconds, what):
    """Asks until `condition` answers something true, and answers that. `what` is a text, or makes one when it is needed."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.03)


class EmbeddedBrokers:
    """`rulesd broker`: librdkafka's mock cluster in a process of its own. It outlives daemons that are killed."""

    is_real = False

    def __init__(self, rulesd, count=1):
        self.count = count
        self.process = subprocess.Popen(
            [rulesd, "broker", "--brokers", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.servers = self.process.stdout.readline().strip()

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(f"broker: {words}: {answer or 'it is gone'}")

    def make_topic(self, topic, partitions):
        self.tell("topic", topic, partitions)
        return partitions

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class RealBrokers:
    """Brokers that somebody else runs. They make topics by themselves, with as many partitions as they like."""

    is_real = True

    def __init__(self, servers):
        self.servers = servers

    def tell(self, *words):
        raise Skipped("needs brokers that can be told to fail")

    def make_topic(self, topic, partitions):
        def known():
            listing = kcat(self.servers, "-L", "-J", "-t", topic)
            for entry in json.loads(listing)["topics"]:
                if entry["topic"] == topic and entry.get("partitions"):
                    return len(entry["partitions"])
            return 0

        return wait_until(known, 30, f"topic {topic} is made by the brokers")

    def close(self):
        pass


def kcat(servers, *arguments, feed=None, seconds=120):
    result = subprocess.run(
        ["kcat", "-b", servers, *arguments], input=feed, capture_output=True, timeout=seconds, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"kcat {' '.join(arguments)}: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout


class Daemon:
    """A `rulesd run` process."""

    def __init__(self, trial, name, *options, wrapper=(), environment=None, instead=None):
        """`instead` has other values for options that the trial gives all its daemons."""
        self.trial, self.name = trial, name
        self.log = os.path.join(trial.directory, f"{name}.log")
        usual = list(trial.daemon_options)
        for option, value in (instead or {}).items():
            usual[usual.index(option) + 1] = value
        command = [*wrapper, trial.rulesd, "run", trial.rules, *usual, *options]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        self.port = None
        trial.daemons.append(self)

    @property
    def is_alive(self):
        return self.process.poll() is None

    def get(self, path):
        """The status and text of an answer; None when there is none."""
        if self.port is None:
            with open(self.log) as log:
                found = re.search(r"listening on http://[^:]+:(\d+)", log.read())
            if not found:
                return None
            self.port = int(found.group(1))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return None

    def metrics(self):
        """Each metric's sum over its labels; empty when there is no answer."""
        sums = collections.Counter()
        answer = self.get("/metrics")
        for line in answer[1].splitlines() if answer else []:
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                sums[name.split("{")[0]] += float(value)
        return sums

    def partition_count(self):
        """How many partitions it reads."""
        answer = self.get("/metrics")
        return answer[1].count("\nrulesd_consumer_lag_records{") if answer else 0

    def is_ready(self):
        answer = self.get("/readyz")
        return answer is not None and answer[0] == 200

    def must_live(self):
        if not self.is_alive:
            raise Failed(f"{self.name} ended by itself with {self.process.returncode}: {self.last_words()}")

    def last_words(self):
        with open(self.log) as log:
            return " / ".join(log.read().strip().splitlines()[-3:])

    def wait_ready(self, seconds=40):
        def ready():
            self.must_live()
            return self.is_ready()

        wait_until(ready, seconds, lambda: f"{self.name} is ready ({self.get('/readyz')})")

    def wait_read(self, seconds=60):
        """Until everything that is in the topics has been read and for a second nothing more was written."""
        seen = {"state": None, "since": 0.0}

        def at_rest():
            self.must_live()
            sums = self.metrics()
            state = (sums["rulesd_events_in_total"], sums["rulesd_events_out_total"])
            if state != seen["state"]:
                seen["state"], seen["since"] = state, time.monotonic()
            return (self.is_ready() and sums["rulesd_consumer_lag_records"] == 0 and state[0] > 0
                    and time.monotonic() - seen["since"] > 1)

        wait_until(at_rest, seconds, lambda: f"{self.name} has read everything ({self.get('/readyz')})")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def terminate(self, seconds=40):
        """SIGTERM: it must drain, commit and say 0."""
        self.must_live()
        self.signal(signal.SIGTERM)
        self.wait_end(seconds)

    def wait_end(self, seconds):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end within {seconds} s") from None
        if code != 0:
            raise Failed(f"{self.name} ended with {code}: {self.last_words()}")


class Traffic:
    """A recording of the incident, cut into partitions by key, with some rows that are late and some that are broken."""

    def __init__(self, trial, minutes, rate, seed, partitions):
        directory = os.path.join(trial.directory, "traffic")
        subprocess.run(
            [trial.rulesd, "simulate", "--scenario", "incident", "--seed", str(seed), "--duration", f"{minutes}m",
             "--rate", str(rate), "--topic", EVENTS, "--topic", LAG, "--out", directory],
            check=True, capture_output=True)
        self.lines = {}
        chance = random.Random(seed)
        rows = collections.defaultdict(list)
        with open(os.path.join(directory, EVENTS + ".jsonl"), "rb") as file:
            for line in file.read().splitlines():
                service = json.loads(line)["service"]
                own = rows[zlib.crc32(service.encode()) % partitions[EVENTS]]
                own.append(line)
                if chance.random() < 0.002 and len(own) > 400:
                    own.append(own[-400])  # most of a minute behind
                if chance.random() < 0.001:
                    own.append(chance.choice([b'{"ts":"soon"}', b'{"ts":', line.replace(b'"status":', b'"status":x')]))
        for partition, own in rows.items():
            self.lines[EVENTS, partition] = own
        with open(os.path.join(directory, LAG + ".jsonl"), "rb") as file:
            self.lines[LAG, 0] = file.read().splitlines()
        self.sent = collections.Counter()
        # Behind everything, in each partition: a row that closes all windows before it.
        last = {place: last_row(lines) for place, lines in self.lines.items()}
        millis = max(row["ts"] for row in last.values()) + CLOSING_MINUTES * 60_000
        self.closing = {place: json.dumps({**row, "ts": millis}).encode() for place, row in last.items()}
        self.end = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(millis / 1000 - CLOSING_MINUTES * 30))

    @property
    def count(self):
        return sum(map(len, self.lines.values()))

    def slice(self, share):
        """What is not sent yet of this share of each partition."""
        for place, lines in self.lines.items():
            end = round(len(lines) * share)
            new = lines[self.sent[place]:end]
            self.sent[place] = max(end, self.sent[place])
            if new:
                yield place, new


def last_row(lines):
    """The last one that is not broken."""
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row["ts"], int):
                return row
    raise RuntimeError("a partition without rows")


class Trial:
    """Brokers, rules, topics, a consumer group: everything that one trial has for itself."""

    def __init__(self, options, name, *, minutes=24, rate=12, partitions=3, brokers=1, across=True, learning=False, traffic=True):
        self.options, self.name = options, name
        self.rulesd = os.path.abspath(options.rulesd)
        self.directory = tempfile.mkdtemp(prefix=f"rulesd-{name}-")
        self.daemons, self.expected_lines = [], None
        self.known_options = known_options(self.rulesd)
        self.brokers = RealBrokers(options.brokers) if options.brokers else EmbeddedBrokers(self.rulesd, brokers)
        self.suffix = f".{name}-{os.getpid()}-{int(time.time())}"
        self.delivery = options.delivery or ("exactly-once" if options.brokers else "at-least-once")
        self.random = random.Random(f"{options.seed}-{name}")
        self.partitions = {
            topic: self.brokers.make_topic(topic + self.suffix, count)
            for topic, count in [(EVENTS, partitions), (LAG, 1)]}
        self.traffic = Traffic(self, minutes, rate, options.seed, self.partitions) if traffic else None
        self.across, self.learning = across, learning
        self.write_rules()
        self.checkpoints = None
        self.daemon_options = self.options_of_daemons()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for daemon in self.daemons:
            if daemon.is_alive:
                daemon.signal(signal.SIGCONT)
                daemon.kill()
        self.brokers.close()
        if kind is None or kind is Skipped:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            say(f"{self.name}: logs and records are in {self.directory}")

    def write_rules(self):
        self.rules = os.path.join(self.directory, "rules")
        os.mkdir(self.rules)
        for separated in [True, False]:
            with open(os.path.join(HERE, "keyed.rules")) as file:
                text = file.read().replace("@SUFFIX@", self.suffix)
            text = text.replace("@SEPARATED@", "  partitioned by service" if separated else "")
            text = text.replace("@LAG_SEPARATED@", "  partitioned by group, topic" if separated else "")
            with open(os.path.join(self.rules, "keyed.rules"), "w") as file:
                file.write(text)
            if subprocess.run([self.rulesd, "check", self.rules], capture_output=True, check=False).returncode == 0:
                self.is_separated = separated
                break
        else:
            raise RuntimeError("rulesd check refuses keyed.rules")
        if self.across:
            shutil.copy(os.path.join(HERE, "across.rules"), self.rules)
        if self.learning:
            shutil.copy(os.path.join(HERE, "learning.rules"), self.rules)

    def options_of_daemons(self):
        options = ["--kafka", self.brokers.servers, "--group", "trial" + self.suffix, "--listen", "127.0.0.1:0",
                   "--commit-every", "200ms", "--workers", "2"]
        for kind in OUTPUTS:
            options += ["--topic", f"{kind}={kind}{self.suffix}"]
        if self.brokers.is_real:
            # A member that is known by name comes back without waiting for the session that it was killed in.
            options += ["-X", f"group.instance.id=trial{self.suffix}", "-X", "session.timeout.ms=6000"]
        else:
            # The mock cluster waits 3 s for the first member of a group, during which a session must not end; for
            # others it waits a session less a second, once more when a member was killed.
            options += ["-X", "session.timeout.ms=3300", "-X", "heartbeat.interval.ms=300"]
        if "--delivery" in self.known_options:
            options += ["--delivery", self.delivery]
        elif self.delivery != "at-least-once":
            raise Skipped("this rulesd has no --delivery")
        if "--checkpoints" in self.known_options:
            self.checkpoints = self.options.checkpoints or os.path.join(self.directory, "checkpoints")
            os.makedirs(self.checkpoints, exist_ok=True)
            options += ["--checkpoints", self.checkpoints]
            if "--checkpoint-every" in self.known_options:
                options += ["--checkpoint-every", "700ms"]
        return options + self.options.daemon_options

    def member(self, name):
        """Options of one of several daemons that are there at once: real brokers know each by a name of its own."""
        return ["-X", f"group.instance.id=trial{self.suffix}.{name}"] if self.brokers.is_real else []

    # The traffic

    def feed(self, share):
        """Sends what is missing of the first `share` of each partition; waits until the brokers have it."""
        self.send(self.traffic.slice(share))

    def send(self, places):
        running = []
        for (topic, partition), lines in places:
            process = subprocess.Popen(
                ["kcat", "-P", "-b", self.brokers.servers, "-t", topic + self.suffix, "-p", str(partition), "-q",
                 "-X", "linger.ms=2", "-X", "acks=all"],
                stdin=subprocess.PIPE, stderr=subprocess.PIPE)
            process.stdin.write(b"\n".join(lines) + b"\n")
            process.stdin.close()
            running.append(process)
        for process in running:
            if process.wait(180) != 0:
                raise RuntimeError(f"kcat could not write: {process.stderr.read().decode(errors='replace')}")
            process.stderr.close()

    # What came out, and what should have

    def read_topic(self, topic):
        """A topic's records, those of one partition in its order; of finished transactions only."""
        text = kcat(
            self.brokers.servers, "-C", "-t", topic, "-o", "beginning", "-e", "-q",
            "-X", "isolation.level=read_committed", "-X", "enable.partition.eof=true", "-f", "%p %o %s\n")
        records, seen = [], set()
        for line in text.splitlines():
            partition, offset, record = line.split(b" ", 2)
            if partition not in seen and offset != b"0" and not self.brokers.is_real:
                raise RuntimeError(f"{topic}: the mock cluster has dropped records; send less")
            seen.add(partition)
            records.append(record.decode())
        return records

    def written(self):
        """All output records; those of one partition in its order."""
        return [record for kind in OUTPUTS for record in self.read_topic(kind + self.suffix)]

    def expected(self):
        """What a dry run writes for what is in the topics now."""
        inputs = []
        for source, topic in [("requests", EVENTS), ("consumer_lag", LAG)]:
            for partition in range(self.partitions[topic]):
                path = os.path.join(self.directory, f"{source}-{partition}.jsonl")
                with open(path, "wb") as file:
                    file.write(kcat(
                        self.brokers.servers, "-C", "-J", "-t", topic + self.suffix, "-p", str(partition), "-o",
                        "beginning", "-e", "-q"))
                with open(path, "rb") as file:
                    count = sum(1 for _ in file)
                if not self.brokers.is_real and count != self.traffic.sent[topic, partition]:
                    raise RuntimeError(f"{topic}: the mock cluster has {count} records; send less")
                inputs += ["--input", f"{source}={path}"]
        path = os.path.join(self.directory, "expected.jsonl")
        subprocess.run(
            [self.rulesd, "dry-run", self.rules, "--quiet", "--output", path, *inputs], check=True,
            capture_output=True)
        with open(path) as file:
            return file.read().splitlines()

    def drain(self, seconds=120):
        """A last daemon reads the rest, and rows that close all windows."""
        daemon = Daemon(self, "drain")
        daemon.wait_ready(60)
        self.send((place, [line]) for place, line in self.traffic.closing.items())
        self.traffic.sent.update(self.traffic.closing.keys())
        daemon.wait_read(seconds)
        daemon.terminate()

    def verify(self, is_ordered=True):
        """Nothing lost, nothing that is not in the dry run, nothing twice or, at least once, twice the same. Answers a
        summary."""
        expected, written = self.expected(), self.written()
        self.check_sense(expected)
        with open(os.path.join(self.directory, "written.jsonl"), "w") as file:
            file.writelines(record + "\n" for record in written)
        distinct = list(dict.fromkeys(written))
        problems = []
        # The rows that close the windows have windows of their own, which the end of a recording closes.
        due = {line for line in expected if json.loads(line)["type"] not in WINDOWED or self.is_closed(line)}
        for title, records in [
            ("lost", sorted(due - set(written))),
            # A second record with the id of another is of this kind too: equal ids must have equal bytes.
            ("not in the dry run", sorted(set(written) - set(expected))),
        ]:
            if records:
                problems += [f"{len(records)} {title}, such as"] + ["  " + record for record in records[:4]]
        doubles = len(written) - len(distinct)
        if doubles and self.delivery == "exactly-once":
            problems.append(f"{doubles} written twice")
        if is_ordered:
            problems += disorder(distinct)
        if problems:
            raise Failed("\n".join(problems))
        return f"{len(distinct)} records, those of the dry run; {doubles} twice, with equal bytes"

    def is_closed(self, line):
        return json.loads(line)["time"] < self.traffic.end

    def check_sense(self, expected):
        """A trial whose rules say little proves little."""
        parsed = [json.loads(line) for line in expected]
        kinds = collections.Counter(record["type"] for record in parsed)
        ids = {record["id"] for record in parsed}
        if len(ids) != len(expected):
            raise Failed("two different records of the dry run have one id")
        states = {record.get("state") for record in parsed}
        if min(kinds[kind] for kind in ("metric", "alert", "late", "dead_letter")) < 5 or not {"firing", "resolved"} <= states:
            raise RuntimeError(f"the traffic makes too little of something: {dict(kinds)}, {states}")
        for kind, wanted in [("slo", self.across or self.learning), ("anomaly", self.learning)]:
            if wanted and not kinds[kind]:
                raise RuntimeError(f"the traffic makes no record of type {kind}: {dict(kinds)}")


def disorder(records):
    """A series' records must come in the order of time: a resolved alert before its firing says the opposite."""
    last, problems = {}, []
    for line in records:
        record = json.loads(line)
        if record["type"] in WINDOWED:
            # An `slo` has several conditions of one name.
            series = (record["type"], record["rule"], record.get("when"), json.dumps(record["labels"], sort_keys=True))
            if record["time"] < last.get(series, ""):
                problems.append(f"out of order: {line}")
            last[series] = record["time"]
    return problems[:4]


def known_options(rulesd):
    text = subprocess.run([rulesd, "run", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z-]*", text))


def add_options(parser):
    parser.add_argument("--rulesd", default=".build/release/rulesd", help="the binary")
    parser.add_argument(
        "--brokers", default=os.environ.get("RULESD_TEST_BROKERS"),
        help="real brokers; default $RULESD_TEST_BROKERS, and without it the mock cluster")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--delivery", choices=["at-least-once", "exactly-once"],
        help="default exactly-once on real brokers; the mock cluster cannot")
    parser.add_argument("--checkpoints", help="where checkpoints go; default a temporary directory")
    parser.add_argument(
        "--daemon-option", dest="daemon_options", action="append", default=[],
        help="one more argument of rulesd run, such as --daemon-option=--batch-rows=64")


def finish(failures):
    sys.exit(1 if failures else 0)
