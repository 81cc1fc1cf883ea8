#!/usr/bin/env python3
"""Draws what detectors do on real data: the pictures in docs/images.

    plot_detectors.py --rulesd PATH DATA OUT

DATA/nab is laid out as scripts/quality.py says. Each picture is one series through one rule, by `rulesd dry-run`.
"""
import argparse
import csv
import datetime
import json
import os
import subprocess
import tempfile

SOURCE = "source samples { time ts  watermark 0s  fields { ts: timestamp(rfc3339), value: float } }\n"
HOURS = "stream hours = samples | window tumbling 1h | aggregate mean = avg(value)\n"

# Name, file, first and last day drawn, rules, lines (metric, label, colour, shifted by hours), band (two metrics).
PICTURES = [
    ("zscore", "realKnownCause/nyc_taxi.csv", "2014-10-20", "2015-01-31",
     HOURS + """stream scored = hours | zscore mean season hour_of_week baseline half_life 12 windows min_samples 4
anomaly odd = scored
metric actual = scored.mean
metric lower = scored.lower
metric upper = scored.upper
""", [("actual", "passengers, each hour", "#1f4e8c", 0)], ("lower", "upper")),
    ("changed", "realAWSCloudwatch/ec2_cpu_utilization_ac20cd.csv", "2014-04-02", "2014-04-17",
     """stream quarters = samples | window tumbling 15m | aggregate mean = avg(value)
stream levels = quarters | changed mean
anomaly moved = levels
metric actual = levels.mean
metric before = levels.before
""", [("actual", "CPU, each quarter of an hour", "#1f4e8c", 0), ("before", "level as learnt", "#c26a00", 0)], None),
    ("forecast", "realKnownCause/nyc_taxi.csv", "2014-08-04", "2014-08-18",
     HOURS + """stream ahead = hours | forecast mean reaches 24000 within 4h confirm 1 rows method holt_winters season 168 beta 0.01
anomaly busy = ahead
metric actual = ahead.mean
metric forecast = ahead.forecast
""", [("actual", "passengers, each hour", "#1f4e8c", 0), ("forecast", "what was forecast for this hour 4 h before", "#c26a00", 4)], None),
    ("absent", "realTraffic/occupancy_t4013.csv", "2015-09-01", "2015-09-17",
     HOURS + """stream silent = hours | absent after 6h forget 7d
anomaly gone = silent
metric actual = hours.mean
""", [("actual", "occupancy, each hour with rows", "#1f4e8c", 0)], None),
]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 260, 52, 12, 28, 24


def run(rulesd, path, rules, scratch):
    rule_file, records = os.path.join(scratch, "plot.rules"), os.path.join(scratch, "samples.jsonl")
    with open(rule_file, "w", encoding="utf-8") as file:
        file.write(SOURCE + rules)
    with open(path, encoding="utf-8", newline="") as source, open(records, "w", encoding="utf-8") as file:
        for row in csv.DictReader(source):
            file.write(json.dumps({"ts": row["timestamp"].replace(" ", "T") + "Z", "value": float(row["value"])}) + "\n")
    output = subprocess.run(
        [rulesd, "dry-run", rule_file, "--quiet", "--input", f"samples={records}"], stdout=subprocess.PIPE, check=True,
        text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def draw(name, first, last, records, lines, band, labels):
    begin, end = seconds(first + "T00:00:00Z"), seconds(last + "T00:00:00Z") + 86_400
    series = {}
    for record in records:
        if record["type"] == "metric" and record["values"]["value"] is not None:
            series.setdefault(record["rule"], []).append((seconds(record["time"]), record["values"]["value"]))
    shifts = {metric: hours * 3600 for metric, _, _, hours in lines}
    series = {
        metric: [(t + shifts.get(metric, 0), v) for t, v in points if begin <= t + shifts.get(metric, 0) <= end]
        for metric, points in series.items()}
    values = [v for metric, _, _, _ in lines for _, v in series.get(metric, [])]
    low, high = min(values), max(values)
    low, high = min(low, 0 if low > 0 and low < high / 2 else low), high + (high - low) * 0.05

    def x(time):
        return LEFT + (time - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (min(max(value, low), high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(points):
        return "M" + "L".join(f"{x(t):.1f} {y(v):.1f}" for t, v in points)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for left, right in labels:
        left, right = max(seconds(left[:19].replace(" ", "T") + "Z"), begin), min(seconds(right[:19].replace(" ", "T") + "Z"), end)
        if left < right:
            parts.append(f'<rect x="{x(left):.1f}" y="{TOP}" width="{x(right) - x(left):.1f}" height="{HEIGHT - TOP - BOTTOM}" fill="#e8e8e8"/>')
    opened = None
    for record in records:
        if record["type"] != "anomaly":
            continue
        if record["state"] == "firing":
            opened = seconds(record["time"])
        elif opened is not None:
            left, right = max(opened, begin), min(seconds(record["time"]), end)
            opened = None
            if left < right:
                parts.append(f'<rect x="{x(left):.1f}" y="{TOP}" width="{max(1.0, x(right) - x(left)):.1f}" height="{HEIGHT - TOP - BOTTOM}" fill="#d62728" opacity="0.15"/>')
                parts.append(f'<path d="M{x(left):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d62728"/>')
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    day = begin
    while day < end - 43_200:
        label = datetime.datetime.fromtimestamp(day, datetime.timezone.utc).strftime("%d %b")
        parts.append(f'<text x="{x(day):.1f}" y="{HEIGHT - 8}">{label}</text>')
        day += max(86_400, (end - begin) // 8 // 86_400 * 86_400)
    if band:
        lower, upper = series[band[0]], series[band[1]]
        parts.append(f'<path d="{path(upper)}L{path(lower[::-1])[1:]}Z" fill="#2ca02c" opacity="0.2"/>')
    for number, (metric, label, colour, _) in enumerate(lines):
        # A gap is no line.
        run_, runs = [], []
        for point in series.get(metric, []):
            if run_ and point[0] - run_[-1][0] > 3 * 3600:
                runs.append(run_)
                run_ = []
            run_.append(point)
        for points in runs + [run_]:
            if points:
                parts.append(f'<path d="{path(points)}" fill="none" stroke="{colour}" stroke-width="1"/>')
        parts.append(f'<text x="{LEFT + 280 * number}" y="16" fill="{colour}">{label}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="16" text-anchor="end" fill="#d62728">anomalies, from firing to resolved{"; grey: labelled by people" if labels else ""}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--rulesd", required=True)
    arguments = parser.parse_args()
    folder = os.path.join(arguments.data, "nab")
    with open(os.path.join(folder, "labels.json"), encoding="utf-8") as file:
        labels = json.load(file)
    with tempfile.TemporaryDirectory() as scratch:
        for name, data, first, last, rules, lines, band in PICTURES:
            records = run(arguments.rulesd, os.path.join(folder, data), rules, scratch)
            shown = labels.get(data, []) if name == "zscore" else []
            with open(os.path.join(arguments.out, f"{name}.svg"), "w", encoding="utf-8") as file:
                file.write(draw(name, first, last, records, lines, band, shown))


if __name__ == "__main__":
    main()
