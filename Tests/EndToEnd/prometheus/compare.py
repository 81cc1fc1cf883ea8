#!/usr/bin/env python3
"""Burn alerts of `slo` against the SRE workbook's PromQL rules, evaluated by Prometheus on the same counters.

200 random traffic histories (bursts, ramps, outages, slow burns, quiet stretches, counters that reset). rulesd reads them as
events, as counts, or as counters; Prometheus reads the counters, sampled at each whole minute, from blocks that promtool makes.
Its rules are those that Sloth generates: a recording rule a window, and an alert over them, one a severity; the alert's expression
is evaluated at each whole minute, with what the recording rules record in place of their names (promtool would backfill them at
seconds of its own choice, between the samples). For each history and
severity every minute must agree; a change may come one evaluation earlier or later. Exit code 0 when all agree, 1 when one does
not, 2 when something could not be run.
"""

import argparse
import fractions
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

START = 1_790_812_800  # 2026-10-01T00:00:00Z; counters stand at 0
STEP = 60
HOUR = 60  # in steps

# What burns when: (severity, [(rate, inclusive, windows in steps)]).
WORKBOOK_PAGE = ("page", [(14.4, False, (60, 5)), (6, False, (360, 30))])
WORKBOOK_TICKET = ("ticket", [(3, False, (1440, 120)), (1, False, (4320, 360))])
FREE_PAGE = ("page", [(14, True, (60,))])
FREE_TICKET = ("ticket", [(6, True, (360,))])

OBJECTIVES = ["99.9", "99", "99.5", "97"]


class Group:
    """Histories that one kind of rule reads. `burns` of None: the rules say nothing, and the workbook's table holds."""

    def __init__(self, name, kind, count, steps, volume, burns, says):
        self.name, self.kind, self.count, self.steps, self.volume = name, kind, count, steps, volume
        self.burns, self.says = burns, says


GROUPS = [
    Group("events, workbook", "events", 60, 10 * HOUR, (1, 12), [WORKBOOK_PAGE, ("ticket", [(2, False, (120, 10))])],
          "burn page when rate > 14.4 over 1h and 5m or rate > 6 over 6h and 30m\n"
          "  burn ticket when rate > 2 over 2h and 10m"),
    Group("counts, free choice", "counts", 40, 15 * HOUR, (20, 3000), [FREE_PAGE, FREE_TICKET],
          "burn page when rate >= 14 over 1h  burn ticket when rate >= 6 over 6h"),
    Group("counters that reset, workbook", "counters", 60, 15 * HOUR, (5, 2000), [WORKBOOK_PAGE],
          "burn page when rate > 14.4 over 1h and 5m\n  burn page when rate > 6 over 6h and 30m"),
    Group("counts, the default table", "counts", 40, 100 * HOUR, (20, 3000), [WORKBOOK_PAGE, WORKBOOK_TICKET], ""),
]


class History:
    """All and bad events of each minute, and what happened to make them so."""

    def __init__(self, key, group, objective, rng):
        self.key, self.group, self.objective = key, group, objective
        self.budget = fractions.Fraction(100) - fractions.Fraction(objective)
        self.budget /= 100
        steps = group.steps
        volume = rng.uniform(*group.volume)
        base = float(self.budget) * rng.choice([0, 0.2, 0.5, 0.9, 1.2, 2])
        level = [volume] * steps
        ratio = [base] * steps
        for _ in range(rng.randrange(1, 7)):
            begin = rng.randrange(steps)
            kind = rng.choice(["burst", "burst", "ramp", "outage", "slow", "quiet", "dead", "surge"])
            length = {"burst": rng.randrange(1, 15), "ramp": rng.randrange(20, 240), "outage": rng.randrange(2, 90),
                      "slow": rng.randrange(60, max(61, steps // 2)), "quiet": rng.randrange(10, 400),
                      "dead": rng.randrange(5, 480), "surge": rng.randrange(5, 120)}[kind]
            peak = rng.uniform(0.02, 1)
            for place in range(begin, min(steps, begin + length)):
                if kind == "burst":
                    ratio[place] = max(ratio[place], peak)
                elif kind == "ramp":
                    ratio[place] = max(ratio[place], peak * (place - begin) / length)
                elif kind == "outage":
                    ratio[place] = 1.0
                elif kind == "slow":
                    ratio[place] = max(ratio[place], min(1, float(self.budget) * 20 * peak))
                elif kind == "quiet":
                    level[place] = min(level[place], 0.2)
                elif kind == "dead":
                    level[place] = 0
                else:
                    level[place] *= 5
        self.total = [rounded(level[place] * rng.uniform(0.7, 1.3), rng) for place in range(steps)]
        self.bad = [drawn(self.total[place], ratio[place], rng) for place in range(steps)]
        # By minute, before which the counters start again.
        self.resets = {place for place in range(1, steps) if group.kind == "counters" and rng.random() < 0.003}

    def counters(self):
        """(time, all, bad), sampled at whole minutes."""
        total = bad = 0
        yield START, 0, 0
        for place in range(self.group.steps):
            if place in self.resets:
                total = bad = 0
            total += self.total[place]
            bad += self.bad[place]
            yield START + (place + 1) * STEP, total, bad

    def is_tie(self, step, burns):
        """Whether a ratio equals its threshold exactly, so that the last bit of a division decides in Prometheus."""
        for _, conditions in burns:
            for rate, _, windows in conditions:
                for window in windows:
                    total = sum(self.total[max(0, step - window):step])
                    bad = sum(self.bad[max(0, step - window):step])
                    if total and fractions.Fraction(bad, total) == fractions.Fraction(str(rate)) * self.budget:
                        return True
        return False


def rounded(value, rng):
    return int(value) + (rng.random() < value - int(value))


def drawn(count, ratio, rng):
    if ratio >= 1 or ratio <= 0:
        return count if ratio >= 1 else 0
    if count < 50:
        return sum(rng.random() < ratio for _ in range(count))
    return min(count, max(0, round(rng.gauss(count * ratio, (count * ratio * (1 - ratio)) ** 0.5))))


def slo_name(group, objective):
    return f"slo_{GROUPS.index(group)}_{objective.replace('.', '_')}"


def source_name(group):
    return f"{group.kind}_{GROUPS.index(group)}"


# rulesd

def rules(group):
    """The rules of a group: an SLO for each objective, over records of the histories that have it."""
    name = source_name(group)
    fields = {
        "events": "failed: bool",
        "counts": "total: int, bad: int",
        "counters": "total: float, bad: float",
    }[group.kind]
    text = f"source {name} {{ time ts watermark 0s fields {{ ts: timestamp(ms), key: string, tier: string, {fields} }} }}\n"
    if group.kind == "counts":
        text += f"stream minutes_{name} = {name} | window tumbling 1m by key, tier | aggregate n = sum(total), failed = sum(bad)\n"
    if group.kind == "counters":
        text += (f"stream minutes_{name} = {name} | window tumbling 1m by key, tier\n"
                 "  | aggregate n = increase(total), failed = increase(bad)\n")
    for objective in OBJECTIVES:
        on = {
            "events": f"on {name} where tier == \"{objective}\"  by key  bad failed",
            "counts": f"on minutes_{name} where tier == \"{objective}\"  bad failed  total n",
            "counters": f"on minutes_{name} where tier == \"{objective}\"  good n - failed  total n",
        }[group.kind]
        text += f"slo {slo_name(group, objective)} {{\n  {on}  objective {objective}% over 30d\n  {group.says}\n}}\n"
    return text


def records(group, histories, rng):
    rows = []
    for history in histories:
        common = {"key": history.key, "tier": history.objective}
        if group.kind == "counters":
            # Read by the window that ends at the whole minute at which Prometheus samples.
            for when, total, bad in history.counters():
                rows.append((when * 1000 - 1, {**common, "total": total, "bad": bad}))
            continue
        for step in range(group.steps):
            begin = (START + step * STEP) * 1000
            if group.kind == "counts":
                if history.total[step]:
                    rows.append((begin + 30_000, {**common, "total": history.total[step], "bad": history.bad[step]}))
                continue
            for number in range(history.total[step]):
                rows.append((begin + rng.randrange(60_000), {**common, "failed": number < history.bad[step]}))
    # So that the last minute is looked at.
    rows.append(((START + group.steps * STEP) * 1000, {"key": "end", "tier": "none", "total": 0, "bad": 0, "failed": False}))
    rows.sort(key=lambda row: row[0])
    return rows


def run_rulesd(rulesd, directory, groups, histories, rng):
    """Firing minutes by (slo, key, severity)."""
    rule_path = os.path.join(directory, "slo.rules")
    with open(rule_path, "w", encoding="utf-8") as file:
        file.write("\n".join(rules(group) for group in groups))
    command = [rulesd, "dry-run", rule_path, "--output", os.path.join(directory, "records.jsonl"), "--workers", "2"]
    count = 0
    for group in groups:
        path = os.path.join(directory, f"{source_name(group)}.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            for when, row in records(group, [h for h in histories if h.group is group], rng):
                file.write(json.dumps({"ts": when, **row}) + "\n")
                count += 1
        command += ["--input", f"{source_name(group)}={path}"]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{' '.join(command)}\n{done.stderr}")
        sys.exit(2)
    print(f"rulesd: {count} records in {time.monotonic() - begin:.1f} s")
    changes = {}
    with open(os.path.join(directory, "records.jsonl"), encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record["type"] != "slo":
                continue
            when = int(time.mktime(time.strptime(record["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone)
            key = (record["rule"], record["labels"]["key"], record["severity"])
            changes.setdefault(key, []).append((when, record["state"]))
    firing = {}
    for key, list_ in changes.items():
        steps = set()
        begin = None
        for when, state in list_:
            if state == "firing":
                assert begin is None, f"{key} fires twice"
                begin = when
            else:
                steps.update(range(begin, when, STEP))
                begin = None
        assert begin is None, f"{key} is never resolved"
        firing[key] = {(when - START) // STEP for when in steps}
    return firing, sum(len(list_) for list_ in changes.values())


# Prometheus

def window_text(steps):
    return f"{steps // 1440}d" if steps % 1440 == 0 else f"{steps // 60}h" if steps % 60 == 0 else f"{steps}m"


def sloth_rules(group, objective):
    """As Sloth generates them, with the key as a label: its `max … without (sloth_window)` keeps it."""
    name = slo_name(group, objective)
    labels = f'sloth_id="{name}", sloth_service="{name}", sloth_slo="requests"'
    windows = sorted({window for _, conditions in group.burns for _, _, list_ in conditions for window in list_})
    recording, alerts, recorded = [], [], {}
    for window in windows:
        text = window_text(window)
        expression = (
            f"(sum by (key) (rate(errors_total{{slo=\"{name}\"}}[{text}])))\n"
            f"      /\n"
            f"      (sum by (key) (rate(requests_total{{slo=\"{name}\"}}[{text}])))")
        recorded[f"slo:sli_error:ratio_rate{text}{{{labels}}}"] = f"({expression})"
        recording.append(
            f"  - record: slo:sli_error:ratio_rate{text}\n"
            f"    expr: |\n"
            f"      {expression}\n"
            f"    labels:\n"
            f"      sloth_id: {name}\n      sloth_service: {name}\n      sloth_slo: requests\n"
            f"      sloth_window: {text}\n")
    budget = f"{float((fractions.Fraction(100) - fractions.Fraction(objective)) / 100):g}"
    for severity, conditions in group.burns:
        alternatives = []
        for rate, inclusive, list_ in conditions:
            compare = ">=" if inclusive else ">"
            parts = [
                f"max(slo:sli_error:ratio_rate{window_text(window)}{{{labels}}} {compare} ({rate} * {budget})) by (key)"
                for window in sorted(list_)]
            alternatives.append("(\n    " + "\n    and\n    ".join(parts) + "\n)")
        alerts.append((severity, "\nor\n".join(alternatives)))
    text = f"- name: sloth-slo-sli-recordings-{name}\n  rules:\n" + "".join(recording)
    text += f"- name: sloth-slo-alerts-{name}\n  rules:\n"
    for severity, expression in alerts:
        body = "\n".join("      " + line for line in expression.splitlines())
        text += f"  - alert: {name}\n    expr: |\n{body}\n    labels:\n      sloth_severity: {severity}\n"
    evaluated = []
    for severity, expression in alerts:
        for series, recorded_expression in recorded.items():
            expression = expression.replace(series, recorded_expression)
        assert "slo:sli_error" not in expression, expression
        evaluated.append((name, severity, expression))
    return text, evaluated


class Prometheus:
    def __init__(self, directory):
        self.directory = directory
        self.process = None

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        config = os.path.join(self.directory, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("global: {}\n")
        self.log = open(os.path.join(self.directory, "prometheus.log"), "a", encoding="utf-8")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.directory}/tsdb",
             "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}",
             "--query.max-samples=500000000", "--query.timeout=10m"], stdout=self.log, stderr=self.log)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                    if answer.status == 200:
                        return self
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.__exit__()
        sys.exit("prometheus does not start; see " + self.log.name)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def firing(self, expression, steps):
        """Steps at which the expression has a value, by key."""
        query = urllib.parse.urlencode(
            {"query": expression, "start": START + STEP, "end": START + steps * STEP, "step": STEP})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range", query.encode()) as answer:
            result = json.load(answer)
        assert result["status"] == "success", result
        return {series["metric"]["key"]: {(int(when) - START) // STEP for when, _ in series["values"]}
                for series in result["data"]["result"]}


def run_promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"promtool {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        sys.exit(2)


def run_prometheus(directory, groups, histories):
    """Firing minutes by (slo, key, severity)."""
    counters = os.path.join(directory, "counters.om")
    with open(counters, "w", encoding="utf-8") as file:
        for metric, column in (("requests", 1), ("errors", 2)):
            file.write(f"# TYPE {metric} counter\n")
            for history in histories:
                series = f'{metric}_total{{slo="{slo_name(history.group, history.objective)}",key="{history.key}"}}'
                for sample in history.counters():
                    file.write(f"{series} {sample[column]} {sample[0]}\n")
        file.write("# EOF\n")
    tsdb = os.path.join(directory, "tsdb")
    begin = time.monotonic()
    run_promtool("tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=1000h", "-q", counters, tsdb)
    alerts = []
    for group in groups:
        path = os.path.join(directory, f"{source_name(group)}.yml")
        texts = [sloth_rules(group, objective) for objective in OBJECTIVES]
        with open(path, "w", encoding="utf-8") as file:
            file.write("groups:\n" + "".join(text for text, _ in texts))
        run_promtool("check", "rules", "--lint=none", path)
        alerts += [(group, *alert) for _, list_ in texts for alert in list_]
    firing = {}
    with Prometheus(directory) as server:
        for group, name, severity, expression in alerts:
            for key, steps in server.firing(expression, group.steps).items():
                firing[(name, key, severity)] = steps
    print(f"Prometheus: {time.monotonic() - begin:.1f} s")
    return firing


# Comparing

def edges(firing, steps):
    return [step for step in range(1, steps + 1) if (step in firing) != (step - 1 in firing)]


def compare(histories, ours, theirs):
    problems, exact, within, ties, changes, fired = [], 0, 0, 0, 0, 0
    for history in histories:
        group = history.group
        agrees = True
        for severity, conditions in group.burns:
            key = (slo_name(group, history.objective), history.key, severity)
            mine = {step for step in ours.get(key, set()) if step <= group.steps}
            peer = theirs.get(key, set())
            peer_edges = set(edges(peer, group.steps))
            changes += len(peer_edges)
            fired += 1 if peer else 0
            for step in sorted(mine ^ peer):
                if history.is_tie(step, [(severity, conditions)]):
                    ties += 1
                    continue
                agrees = False
                # The change that one of both is late with.
                if {step, step + 1} & peer_edges and {step, step + 1} & set(edges(mine, group.steps)):
                    within += 1
                    continue
                problems.append(
                    f"{group.name}, {history.key}, {history.objective}%, {severity}: minute {step} "
                    + ("fires in rulesd only" if step in mine else "fires in Prometheus only"))
        exact += agrees
    print(
        f"{len(histories)} histories, {fired} alerts that fired, {changes} changes: {exact} histories agree in every minute; "
        f"{within} minutes differ by one evaluation, {ties} at exact ties")
    return problems, exact, changes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rulesd", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="a folder to leave everything in")
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        print("compare: no prometheus on PATH: apt-get install prometheus")
        return 2
    rng = random.Random(arguments.seed)
    histories = []
    for group in GROUPS:
        for number in range(group.count):
            key = f"g{GROUPS.index(group)}-{number}"
            histories.append(History(key, group, OBJECTIVES[number % len(OBJECTIVES)], rng))
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.keep or scratch
        os.makedirs(directory, exist_ok=True)
        shutil.rmtree(os.path.join(directory, "tsdb"), ignore_errors=True)
        ours, records_ = run_rulesd(os.path.abspath(arguments.rulesd), directory, GROUPS, histories, rng)
        theirs = run_prometheus(directory, GROUPS, histories)
    problems, exact, changes = compare(histories, ours, theirs)
    # A comparison of nothing would find no difference.
    if changes < 400 or records_ < 400:
        problems.append(f"too little happens: {changes} changes in Prometheus, {records_} records of rulesd")
    for problem in problems[:40]:
        print(f"DIFFERS {problem}")
    if len(problems) > 40:
        print(f"… and {len(problems) - 40} more")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
