#!/usr/bin/env python3
"""Daemons are killed with SIGKILL at random moments, again and again, while records arrive; in the end their output must be
that of a dry run. `--seed` makes the same moments again, as far as a machine does.
"""

import argparse
import collections
import concurrent.futures
import shutil
import sys
import time

from trial import Daemon, Failed, Skipped, Trial, add_options, say

# Of ten rounds: killed from the very start on (joining, restoring), or after it has begun to work.
EARLY_SHARE = 0.2


def one_round(trial, number, rounds, tally, losing):
    chance = trial.random
    if losing and trial.checkpoints and number % 10 == 9:
        # A disk that is lost: the state is rebuilt by reading again.
        shutil.rmtree(trial.checkpoints)
        tally["lost disks"] += 1
    daemon = Daemon(trial, f"round-{number}")
    if chance.random() < EARLY_SHARE:
        trial.feed((number + 1) / rounds)
        time.sleep(chance.uniform(0, 1.5))
    else:
        # Half of the round's records are there when it starts, half arrive while it works.
        trial.feed((number + 0.5) / rounds)
        daemon.wait_ready()
        trial.feed((number + 1) / rounds)
        time.sleep(chance.expovariate(1 / 0.35))
    sums = daemon.metrics()
    daemon.must_live()
    daemon.kill()
    tally["starting" if not sums["rulesd_engine_starts_total"] else "working"] += 1
    tally["records"] += sums["rulesd_events_out_total"]
    tally["had written"] += sums["rulesd_events_out_total"] > 0
    tally["had committed"] += sums["rulesd_commits_total"] > 0


def one_lane(options, lane, rounds):
    """Rounds on brokers, topics and a group of their own. Answers the tally and a summary."""
    tally = dict.fromkeys(["starting", "working", "records", "had written", "had committed", "lost disks"], 0)
    # Every other group keeps its disk, and so may have rules that learn.
    losing = lane % 2 == 0
    with Trial(options, f"kill-{lane}", learning=not losing) as trial:
        for number in range(rounds):
            one_round(trial, number, rounds, tally, losing)
        trial.feed(1)
        trial.drain()
        return tally, trial.verify()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--lanes", type=int, default=4,
        help="the rounds are spread over this many groups at once: most of a round is waiting for the group")
    options = parser.parse_args()
    began = time.monotonic()
    lanes = min(options.lanes, options.rounds)
    shares = [options.rounds // lanes + (lane < options.rounds % lanes) for lane in range(lanes)]
    say(f"kill: {options.rounds} rounds in {lanes} groups on {options.brokers or 'the mock cluster'}, "
        f"seed {options.seed}")
    failures, total = 0, collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
        running = [pool.submit(one_lane, options, lane, share) for lane, share in enumerate(shares)]
        for lane, done in enumerate(running):
            try:
                tally, summary = done.result()
                total.update(tally)
                say(f"kill: group {lane}: {summary}")
            except (Failed, Skipped) as reason:
                failures += 1
                say(f"kill: group {lane}: FAILED: {reason}")
    say(f"kill: killed {total['starting']} times while starting, {total['working']} times at work; "
        f"{total['had written']} had written, {total['had committed']} had committed, "
        f"{total['lost disks']} lost their checkpoints; {time.monotonic() - began:.0f} s")
    if not failures and options.rounds >= 10 and total["had written"] < options.rounds / 4:
        failures += 1
        say("kill: FAILED: the kills hit daemons that had done nothing, which proves nothing")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
