#!/usr/bin/env python3
"""Log-pattern clustering against drain3, on the same lines, in turns: `python bench/patterns.py --rulesd PATH [FILE…]`.

Lines come from the files, or else are made: 200 patterns of a seed, with numbers, addresses, ids and names in them. rulesd's
time is the whole process, one worker, JSON included; drain3's is `add_log_message` alone, on its default settings.
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


def made_lines(count):
    dice = random.Random(7)
    words = ["".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(3, 9))) for _ in range(400)]
    values = [
        lambda: str(dice.randint(0, 99999)),
        lambda: ".".join(str(dice.randint(1, 254)) for _ in range(4)) + ":" + str(dice.randint(1024, 65535)),
        lambda: "%08x-%04x-%04x-%04x-%012x" % tuple(dice.getrandbits(b) for b in (32, 16, 16, 16, 48)),
        lambda: "blk_" + str(dice.getrandbits(60)),
        lambda: f"{dice.randint(1, 900)} ms",
        lambda: "/var/lib/" + dice.choice(words) + "/" + str(dice.randint(0, 99)),
    ]
    patterns = []
    for _ in range(200):
        patterns.append([dice.choice(words) if dice.random() < 0.7 else dice.choice(values) for _ in range(dice.randint(4, 16))])
    return [
        " ".join(part if isinstance(part, str) else part() for part in dice.choice(patterns)) for _ in range(count)]


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
        with open(records, "w", encoding="utf-8") as file:
            for number, line in enumerate(lines):
                file.write(json.dumps({"ts": 1_700_000_000_000 + number, "message": line}, ensure_ascii=False) + "\n")
        for _ in range(arguments.rounds):
            start = time.monotonic()
            subprocess.run(
                [arguments.rulesd, "dry-run", rules, "--input", f"logs={records}", "--workers", "1"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            ours.append(len(lines) / (time.monotonic() - start))
            miner = TemplateMiner(config=TemplateMinerConfig())
            start = time.monotonic()
            for line in share:
                miner.add_log_message(line)
            theirs.append(len(share) / (time.monotonic() - start))
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"rulesd, 1 worker: {ours:,.0f} lines/s; drain3: {theirs:,.0f} lines/s; {ours / theirs:.1f} times")


if __name__ == "__main__":
    main()
