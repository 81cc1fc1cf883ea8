#!/usr/bin/env python3
"""What breaks around the daemon, one thing at a time: brokers that are away or slow, leaders that move, groups that
rebalance, disks that are full, clocks that jump, a daemon that was stopped and comes back. Each ends as the kill trial does:
the output must be that of a dry run.
"""

import argparse
import concurrent.futures
import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

from trial import EVENTS, HERE, LAG, OUTPUTS, Daemon, Failed, Skipped, Trial, add_options, say, wait_until

FAULTS = {}
COMPILER = shutil.which("clang") or shutil.which("cc")  # Swift brings the first
# Nothing here waits longer for anything; the outage and its recovery are the longest.
FAULT_SECONDS_MAX = 300
# With --short: shorter outages and fewer steps, for every day.
SHORT_OUTAGE, SHORT_SHARE = 8, 0.5


def fault(function):
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


def need_embedded(options):
    if options.brokers:
        raise Skipped("needs brokers that can be told to fail")


def shortened(options, steps):
    return round(steps * SHORT_SHARE) if options.short else steps


def need_option(trial, option):
    if option not in trial.known_options:
        raise Skipped(f"this rulesd has no {option}")


@fault
def broker_down(options):
    """All brokers are away for 30 s in the middle. Readiness says so; the daemon lives and goes on by itself."""
    need_embedded(options)
    with Trial(options, "broker-down") as trial:
        trial.feed(0.5)
        daemon = Daemon(trial, "daemon")
        daemon.wait_ready()
        trial.brokers.tell("down")
        began = time.monotonic()
        wait_until(lambda: daemon.get("/readyz")[0] == 503, 20, "readiness says that the brokers are away")
        reason = daemon.get("/readyz")[1].splitlines()[0]
        while time.monotonic() - began < options.outage:
            daemon.must_live()
            if daemon.is_ready():
                raise Failed("ready in the middle of the outage")
            time.sleep(0.2)
        trial.brokers.tell("up")
        daemon.wait_ready(60)
        trial.feed(1)
        daemon.wait_read()
        daemon.terminate()
        trial.drain()
        return f"{trial.verify()}; meanwhile {reason}"


@fault
def broker_slow(options):
    """Every answer takes half a second."""
    need_embedded(options)
    with Trial(options, "broker-slow") as trial:
        trial.feed(0.5)
        trial.brokers.tell("slow", 200 if options.short else 500)
        daemon = Daemon(trial, "daemon")
        daemon.wait_ready(90)
        trial.feed(1)
        daemon.wait_read(90)
        daemon.terminate(60)
        trial.drain()
        return trial.verify()


@fault
def leader_change(options):
    """Every partition of the inputs and outputs gets another leader, again and again, and sometimes a broker is away."""
    need_embedded(options)
    with Trial(options, "leader-change", brokers=3) as trial:
        daemon = Daemon(trial, "daemon")
        daemon.wait_ready()
        steps = shortened(options, 12)
        for step in range(steps):
            trial.feed((step + 1) / steps)
            for topic, count in [(EVENTS, trial.partitions[EVENTS]), (LAG, 1), *((kind, 4) for kind in OUTPUTS)]:
                for partition in range(count):
                    with contextlib.suppress(RuntimeError):  # an output topic that is not there yet
                        trial.brokers.tell("leader", topic + trial.suffix, partition, 1 + trial.random.randrange(3))
            if step % 4 == 3:
                away = 1 + trial.random.randrange(3)
                trial.brokers.tell("down", away)
                time.sleep(2)
                trial.brokers.tell("up", away)
            time.sleep(0.5)
        daemon.wait_read()
        daemon.terminate()
        trial.drain()
        return trial.verify()


@fault
def requests_refused(options):
    """Produce, fetch, commit and metadata requests fail now and then with errors that a retry mends."""
    need_embedded(options)
    with Trial(options, "requests-refused") as trial:
        daemon = Daemon(trial, "daemon")
        daemon.wait_ready()
        steps = shortened(options, 12)
        for step in range(steps):
            # 7 timed out, 14 the coordinator is loading, 5 no leader, 9 a replica is missing; API keys in the protocol guide.
            for api, codes in [(0, "7 7"), (1, "5 9"), (3, "5"), (8, "14 14 7")]:
                trial.brokers.tell("errors", api, *codes.split())
            trial.feed((step + 1) / steps)
            time.sleep(0.5)
        daemon.wait_read()
        daemon.terminate()
        trial.drain()
        return trial.verify()


def rebalance(options, name, daemons, across):
    """Daemons of one group come, leave politely and are killed while records arrive."""
    with Trial(options, name, across=across, partitions=4) as trial:
        need_groups(trial)
        living = []

        def add():
            daemon = Daemon(trial, f"daemon-{len(trial.daemons)}", *trial.member(len(trial.daemons)))
            living.append(daemon)
            return daemon

        add().wait_ready()
        steps = shortened(options, 6 * daemons)
        told = set()
        for step in range(steps):
            trial.feed((step + 1) / steps)
            if len(living) < daemons:
                add()
            else:
                gone = living.pop(trial.random.randrange(len(living)))
                if step % 2:
                    gone.kill()
                else:
                    gone.terminate()
            time.sleep(trial.random.uniform(2, 6))
            for daemon in living:
                daemon.must_live()
                answer = daemon.get("/readyz")
                told.update(line for line in (answer[1] if answer else "").splitlines() if "standing by" in line)
        for daemon in living:
            daemon.terminate()
        trial.drain()
        return trial.verify() + "".join(f"; said: {line}" for line in sorted(told))


@fault
def rebalance_sharing_two(options):
    """Two daemons share the partitions; the topic's partitioning separates all keys."""
    return rebalance(options, "sharing-2", 2, across=False)


@fault
def rebalance_sharing_three(options):
    return rebalance(options, "sharing-3", 3, across=False)


@fault
def rebalance_standing_by_two(options):
    """Keys are spread over the partitions: one daemon reads everything, the other takes over when it goes."""
    return rebalance(options, "standing-by-2", 2, across=True)


@fault
def rebalance_standing_by_three(options):
    return rebalance(options, "standing-by-3", 3, across=True)


def need_groups(trial):
    """A daemon that knows how to share and how to stand by knows `partitioned by`, which decides between them."""
    if not trial.is_separated:
        raise Skipped("this rulesd does not know `partitioned by`: one daemon a group")


@fault
def take_over(options):
    """A daemon is killed; the other one of the group has all partitions soon after."""
    with Trial(options, "take-over", across=False) as trial:
        need_groups(trial)
        first, second = (Daemon(trial, name, *trial.member(name)) for name in ["first", "second"])
        first.wait_ready()
        trial.feed(0.5)
        time.sleep(8)  # until the group has settled
        first.kill()
        began = time.monotonic()
        trial.feed(0.6)
        total = sum(trial.partitions.values())
        wait_until(lambda: second.partition_count() == total, 30, "the second daemon has all partitions")
        seconds = time.monotonic() - began
        second.wait_read(30)
        trial.feed(1)
        second.wait_read()
        second.terminate()
        trial.drain()
        # The mock cluster counts 3.3 s until a session has ended and then waits some more for its members.
        return f"{trial.verify()}; the second had all partitions {seconds:.1f} s after the kill"


@fault
def zombie(options):
    """A daemon is stopped for longer than its session; another takes its partitions; then the first wakes up."""
    with Trial(options, "zombie", across=False) as trial:
        need_groups(trial)
        first = Daemon(trial, "first", *trial.member("first"))
        first.wait_ready()
        feeding = threading.Thread(target=trial.feed, args=(0.4,))
        feeding.start()
        time.sleep(trial.random.uniform(0, 0.3))
        first.signal(signal.SIGSTOP)
        feeding.join()
        second = Daemon(trial, "second", *trial.member("second"))
        second.wait_ready(60)
        trial.feed(0.7)
        second.wait_read()
        first.signal(signal.SIGCONT)
        trial.feed(0.8)
        time.sleep(8)
        second.must_live()
        # It either takes part again or, where a transaction fences it off, ends and says why.
        fate = "it takes part again" if first.is_alive else f"it ended: {first.last_words()}"
        trial.feed(1)
        if first.is_alive:
            first.terminate()
        second.wait_read()
        second.terminate()
        trial.drain()
        return f"{trial.verify(is_ordered=False)}; {fate}"


@fault
def disk_full(options):
    """Checkpoints go to a small file system that fills up: they fail, visibly, and the engine goes on; then there is room
    again."""
    with Trial(options, "disk-full") as trial:
        need_option(trial, "--checkpoints")
        if os.geteuid() != 0:
            raise Skipped("needs root, to mount a small tmpfs")
        place = os.path.join(trial.directory, "small")
        os.mkdir(place)
        if subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False).returncode:
            raise Skipped("cannot mount a tmpfs here")
        try:
            daemon = Daemon(trial, "daemon", instead={"--checkpoints": os.path.join(place, "checkpoints")})
            daemon.wait_ready()
            trial.feed(0.3)
            daemon.wait_read()
            wait_until(lambda: daemon.metrics()["rulesd_checkpoints_total"] > 0, 30, "a first checkpoint")
            with contextlib.suppress(OSError), open(os.path.join(place, "filler"), "wb", buffering=0) as filler:
                while True:
                    filler.write(b"x" * 4096)
            trial.feed(0.6)
            wait_until(
                lambda: "checkpoint" in (daemon.get("/readyz") or (0, ""))[1], 60,
                "readiness says that checkpoints cannot be stored")
            reason = daemon.get("/readyz")[1].splitlines()[0]
            daemon.must_live()
            written = daemon.metrics()["rulesd_events_out_total"]
            trial.feed(0.8)
            wait_until(
                lambda: daemon.metrics()["rulesd_events_out_total"] > written, 30, "records come out with a full disk")
            os.remove(os.path.join(place, "filler"))
            daemon.wait_ready(60)
            trial.feed(1)
            daemon.wait_read()
            daemon.terminate()
            trial.drain()
            return f"{trial.verify()}; meanwhile {reason}"
        finally:
            for daemon in trial.daemons:
                if daemon.is_alive:
                    daemon.kill()
            subprocess.run(["umount", place], check=False)


@fault
def clock_jumps(options):
    """The wall clock jumps forward by hours and back by a day, while rows flow; time in rules is the rows' own."""
    with Trial(options, "clock-jumps") as trial:
        library, clock = os.path.join(trial.directory, "clock.so"), os.path.join(trial.directory, "clock")
        subprocess.run(
            [COMPILER, "-O1", "-fPIC", "-shared", "-o", library, os.path.join(HERE, "clock_shim.c")], check=True)

        with open(clock, "wb") as file:
            file.write(bytes(8))
        daemon = Daemon(trial, "daemon", environment={"LD_PRELOAD": library, "TRIAL_CLOCK": clock})
        daemon.wait_ready()
        # Every other one goes back: what waits for a moment of the wall clock then waits for hours.
        jumps = [3, -26, 0, 90 * 24, -1, -2, -3, 0, -1, 5, -5, 0]
        seen = []
        for step, hours in enumerate(jumps):
            with open(clock, "r+b") as file:
                file.write(struct.pack("=q", hours * 3_600_000_000_000))
            trial.feed((step + 1) / len(jumps))
            time.sleep(trial.random.uniform(0.5, 1.5))
            daemon.must_live()
            seen.append(daemon.metrics()["rulesd_uptime_seconds"])
        if max(seen) - min(seen) < 80 * 86_400:
            raise RuntimeError(f"the daemon's clock did not jump: {seen}")
        daemon.wait_read()
        daemon.terminate()
        trial.drain()
        return trial.verify()


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog="faults: " + ", ".join(FAULTS))
    add_options(parser)
    parser.add_argument("names", nargs="*", metavar="FAULT", help="default all")
    parser.add_argument("--outage", type=float, help="seconds that the brokers are away; default 30, or 8 with --short")
    parser.add_argument("--short", action="store_true", help="shorter outages, fewer steps")
    parser.add_argument(
        "--lanes", type=int, default=1,
        help="how many faults at a time, each with brokers of its own: most of each is waiting for groups")
    options = parser.parse_args()
    options.outage = options.outage or (SHORT_OUTAGE if options.short else 30)
    unknown = set(options.names) - set(FAULTS)
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    names = options.names or list(FAULTS)
    if options.lanes > 1 and len(names) > 1:
        sys.exit(1 if in_lanes(options, names) else 0)
    sys.exit(1 if sum(not one(name, options) for name in names) else 0)


def one(name, options):
    """Makes one trial; answers whether it went well."""
    began = time.monotonic()
    signal.alarm(FAULT_SECONDS_MAX)
    try:
        say(f"{name}: {FAULTS[name](options)} ({time.monotonic() - began:.0f} s)")
    except Skipped as reason:
        say(f"{name}: skipped: {reason}")
    except Failed as failure:
        say(f"{name}: FAILED: {failure}")
        return False
    finally:
        signal.alarm(0)
    return True


def in_lanes(options, names):
    """Each fault in a process of its own; answers how many failed."""
    own = [argument for argument in sys.argv[1:] if argument not in names]
    own += ["--lanes", "1"]  # the last one counts

    def run(name):
        result = subprocess.run([sys.executable, __file__, *own, name], capture_output=True, text=True, check=False)
        said = (result.stdout + result.stderr).rstrip()
        say(said or f"{name}: ended with {result.returncode} and said nothing")
        return result.returncode != 0

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
        failed = sum(pool.map(run, names))
    say(f"faults: {len(names)} faults, {failed} failed; {time.monotonic() - began:.0f} s")
    return failed


def too_long(number, frame):
    raise Failed(f"not done within {FAULT_SECONDS_MAX} s")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, too_long)
    main()
