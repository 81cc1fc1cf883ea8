#!/usr/bin/env python3
"""Log-pattern clustering against drain3, on the same lines, in turns: `python bench/patterns.py --rulesd PATH [FILE…]`.

Lines come from the files, or else are made: 200 patterns of a seed, with numbers, addresses, ids and names in them. rulesd's
time is the whole process, one worker, JSON included; drain3's is `add_log_message` alone, on its default settings.
Then rulesd reads lines of 10,000 patterns, a million and ten millions of them: it must not grow slower.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

RULES = """
source logs { time ts  watermark 0s  fields { ts: timestamp(ms), message: string } }
stream counts = logs | cluster message | window tumbling 10m by template_id | aggregate n = count()
metric lines_by_pattern = counts.n
"""


def made_lines(count, templates=200):
    dice = random.Random(7)
    words = [
        "".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(3, 9))) for _ in range(2 * templates)]
    values = [
        lambda: str(dice.randint(0, 99999)),
        lambda: ".".join(str(dice.randint(1, 254)) for _ in range(4)) + ":" + str(dice.randint(1024, 65535)),
        lambda: "%08x-%04x-%04x-%04x-%012x" % tuple(dice.getrandbits(b) for b in (32, 16, 16, 16, 48)),
        lambda: "blk_" + str(dice.getrandbits(60)),
        lambda: f"{dice.randint(1, 900)} ms",
        lambda: "/var/lib/" + dice.choice(words) + "/" + str(dice.randint(0, 99)),
    ]
    patterns = []
    for _ in range(templates):
        patterns.append([dice.choice(words) if dice.random() < 0.7 else dice.choice(values) for _ in range(dice.randint(4, 16))])
    return [
        " ".join(part if isinstance(part, str) else part() for part in dice.choice(patterns)) for _ in range(count)]


def write_records(path, lines, times):
    """The lines so many times over, a millisecond apart."""
    bodies = [json.dumps(line, ensure_ascii=False) for line in lines]
    with open(path, "w", encoding="utf-8") as file:
        for turn in range(times):
            start = 1_700_000_000_000 + turn * len(lines)
            file.writelines('{"ts":%d,"message":%s}\n' % (start + n, body) for n, body in enumerate(bodies))


def dry_run(rulesd, rules, records, count):
    """Lines a second."""
    start = time.monotonic()
    subprocess.run(
        [rulesd, "dry-run", rules, "--input", f"logs={records}", "--workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return count / (time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--lines", type=int, default=1_000_000, help="for rulesd; drain3 reads the first tenth")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        from drain3 import TemplateMiner
        from drain3.template_miner_config import TemplateMinerConfig
    except ImportError:
        raise SystemExit("bench: drain3 is missing: pip install drain3")

    lines = []
    for path in arguments.files:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines += [line.rstrip("\n") for line in file]
    lines = lines or made_lines(100_000)
    lines = (lines * (arguments.lines // len(lines) + 1))[: arguments.lines]
    share = lines[: max(1, len(lines) // 10)]
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        rules, records = os.path.join(scratch, "bench.rules"), os.path.join(scratch, "logs.jsonl")
        with open(rules, "w", encoding="utf-8") as file:
            file.write(RULES)
        write_records(records, lines, 1)
        for _ in range(arguments.rounds):
            ours.append(dry_run(arguments.rulesd, rules, records, len(lines)))
            miner = TemplateMiner(config=TemplateMinerConfig())
            start = time.monotonic()
            for line in share:
                miner.add_log_message(line)
            theirs.append(len(share) / (time.monotonic() - start))
        many = made_lines(1_000_000, templates=10_000)
        rates = []
        for times in (1, 10):
            write_records(records, many, times)
            rates.append(dry_run(arguments.rulesd, rules, records, times * len(many)))
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"rulesd, 1 worker: {ours:,.0f} lines/s; drain3: {theirs:,.0f} lines/s; {ours / theirs:.1f} times")
    print(
        f"10,000 patterns: 1 M lines at {rates[0]:,.0f} lines/s, 10 M at {rates[1]:,.0f} lines/s; "
        f"{rates[1] / rates[0]:.2f} of the rate")


if __name__ == "__main__":
    main()
