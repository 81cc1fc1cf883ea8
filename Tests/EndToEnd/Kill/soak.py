#!/usr/bin/env python3
"""One daemon under steady load for a while: its memory, threads and file descriptors must stay what they are, and its output
must be that of a dry run of the same traffic.

The load is paced so that the mock cluster, which keeps 5 MiB a partition, drops only what was read long ago: with four
partitions and 500 KB/s that is 40 s. Event time runs ten times as fast as life, so that windows close every six seconds and
alerts come and go.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from trial import EVENTS, LAG, Daemon, Failed, Trial, add_options, say

SAMPLE_SECONDS = 5
SPEED = 10
START = "2026-11-21T03:00:00Z"
# What a flat line may rise by over the second half: allocators settle, histograms get their last bin.
GROWTH_SHARE_MAX = 0.02
GROWTH_KIB_MIN = 2048


def sample(process):
    """Resident KiB, threads and file descriptors of a process, as Linux tells them."""
    with open(f"/proc/{process}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0]), int(fields["Threads"]), len(os.listdir(f"/proc/{process}/fd"))


def slope(points):
    """KiB a second of the line of least squares through (seconds, KiB)."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    return (sum((x - mean_x) * (y - mean_y) for x, y in points)
            / sum((x - mean_x) ** 2 for x, _ in points))


def simulate(trial, topic, rate, minutes, *destination):
    return [
        trial.rulesd, "simulate", "--scenario", "incident", "--seed", str(trial.options.seed), "--rate", str(rate),
        "--start", START, "--duration", f"{round(minutes * SPEED * 60)}s", "--topic", topic, "--partitions",
        str(trial.partitions[topic]), *destination]


def soak(trial, options):
    rate = options.rows_per_second / SPEED
    daemon = Daemon(trial, "daemon", instead={
        option: value for option, value in [("--commit-every", "1s"), ("--checkpoint-every", "10s")]
        if option in trial.known_options})
    daemon.wait_ready()
    feeds = [
        subprocess.Popen(
            simulate(
                trial, topic, rate, options.minutes, "--kafka", trial.brokers.servers, "--topic-suffix", trial.suffix,
                "--speed", str(SPEED)),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for topic in (EVENTS, LAG)]
    began, samples, lag_max = time.monotonic(), [], 0
    while any(feed.poll() is None for feed in feeds):
        daemon.must_live()
        samples.append((time.monotonic() - began, *sample(daemon.process.pid)))
        lag_max = max(lag_max, daemon.metrics()["rulesd_consumer_lag_records"])
        if sys.stdout.isatty():
            print(f"\r  {samples[-1][0]:.0f} s, {samples[-1][1] / 1024:.1f} MiB", end="", flush=True)
        time.sleep(SAMPLE_SECONDS)
    for feed in feeds:
        if feed.returncode != 0:
            raise RuntimeError(f"the traffic ended: {feed.stderr.read().decode(errors='replace')}")
    daemon.wait_read()
    sums = daemon.metrics()
    daemon.terminate()
    with open(os.path.join(trial.directory, "samples.tsv"), "w") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in samples)
    say(f"soak: {sums['rulesd_events_in_total']:.0f} rows in {samples[-1][0]:.0f} s, "
        f"{sums['rulesd_events_out_total']:.0f} records out, {sums['rulesd_commits_total']:.0f} commits, "
        f"{sums['rulesd_checkpoints_total']:.0f} checkpoints, at most {lag_max:.0f} records behind")
    return samples


def check_flat(samples):
    half = samples[len(samples) // 2:]
    if len(half) < 6:
        raise RuntimeError("too short to say anything")
    per_second = slope([(row[0], row[1]) for row in half])
    growth = per_second * (half[-1][0] - half[0][0])
    mean = sum(row[1] for row in half) / len(half)
    say(f"soak: second half: {mean / 1024:.1f} MiB resident, slope {per_second * 60:+.1f} KiB a minute "
        f"({growth / 1024:+.2f} MiB over {half[-1][0] - half[0][0]:.0f} s); threads {half[0][2]} to {half[-1][2]}, "
        f"file descriptors {half[0][3]} to {half[-1][3]}")
    if growth > max(GROWTH_KIB_MIN, GROWTH_SHARE_MAX * mean):
        raise Failed("memory grows")
    middle, last = half[:len(half) // 2], half[len(half) // 2:]
    for place, what in [(2, "threads"), (3, "file descriptors")]:
        if max(row[place] for row in last) > max(row[place] for row in middle) + 1:
            raise Failed(f"the number of {what} grows")


def check_output(trial, options):
    """A daemon that was stopped has its last windows open; a recording has an end, which closes them."""
    recording = os.path.join(trial.directory, "recording")
    inputs = []
    for source, topic in [("requests", EVENTS), ("consumer_lag", LAG)]:
        subprocess.run(
            simulate(trial, topic, options.rows_per_second / SPEED, options.minutes, "--out", recording), check=True,
            capture_output=True)
        count = trial.partitions[topic]
        for partition in range(count):
            name = f"{topic}-{partition}.jsonl" if count > 1 else f"{topic}.jsonl"
            inputs += ["--input", f"{source}={os.path.join(recording, name)}"]
    path = os.path.join(trial.directory, "expected.jsonl")
    subprocess.run(
        [trial.rulesd, "dry-run", trial.rules, "--quiet", "--output", path, *inputs], check=True, capture_output=True)
    with open(path) as file:
        expected = file.read().splitlines()
    end = max(json.loads(line)["time"] for line in expected)
    hour, minute = int(end[11:13]), int(end[14:16])
    # The longest window is five minutes; what ends in the recording's last six may be open.
    total = hour * 60 + minute - 6
    last = f"{end[:11]}{total // 60:02}:{total % 60:02}"

    def closed(lines):
        return {line for line in lines if json.loads(line)["time"] < last}

    written = trial.written()
    lost, foreign = closed(expected) - set(written), set(written) - set(expected)
    if lost or foreign or len(set(written)) != len(written):
        raise Failed(
            f"{len(lost)} records lost, {len(foreign)} that the dry run has not, "
            f"{len(written) - len(set(written))} twice, such as {sorted(lost | foreign)[:1]}")
    say(f"soak: {len(written)} records, those of the dry run, none twice")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rows-per-second", type=float, default=2000)
    options = parser.parse_args()
    if options.minutes > 120:
        parser.error("two hours are a day of event time: no more")
    try:
        with Trial(options, "soak", partitions=4, traffic=False) as trial:
            say(f"soak: {options.minutes:g} minutes at {options.rows_per_second:g} rows a second on "
                f"{options.brokers or 'the mock cluster'}, {trial.delivery}")
            samples = soak(trial, options)
            check_output(trial, options)
            check_flat(samples)
    except Failed as failure:
        say(f"soak: FAILED: {failure}")
        sys.exit(1)


if __name__ == "__main__":
    main()
