#!/usr/bin/env python3
"""Draws docs/alerts.svg: the states of the alerts of rules/incidents over the simulated incident, minute by minute."""

import argparse
import json
import os
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WIDTH, LEFT, RIGHT, MINUTES = 960, 200, 20, 32
COLOURS = {"pending": "#f5d76e", "suppressed": "#b8b8b8", "ticket": "#f0a35e", "critical": "#e2703a", "page": "#c0392b"}


def run(rulesd, directory):
    subprocess.run([rulesd, "simulate", "--scenario", "incident", "--seed", "7", "--duration", f"{MINUTES}m", "--rate",
                    "100", "--out", directory], check=True, capture_output=True)
    output = os.path.join(directory, "records.jsonl")
    subprocess.run([rulesd, "dry-run", os.path.join(ROOT, "rules/search-quality/sources.rules"), os.path.join(ROOT, "rules/incidents"), "--quiet", "--output", output, "--input",
                    "requests=" + os.path.join(directory, "search.events.jsonl")], check=True)
    with open(output, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def minute(text):
    return int(text[14:16]) + int(text[17:19]) / 60 + 60 * (int(text[11:13]) - 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rulesd", default=os.path.join(ROOT, ".build/release/rulesd"))
    parser.add_argument("--out", default=os.path.join(ROOT, "docs/alerts.svg"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rulesd-plot-") as directory:
        records = run(os.path.abspath(arguments.rulesd), directory)

    def x(at):
        return LEFT + (WIDTH - LEFT - RIGHT) * at / MINUTES

    parts = []
    top, height = 40, 150
    lines = {"index-reader": "#2c3e50", "search-api": "#2980b9"}
    peak = 6.0
    for service, colour in lines.items():
        points = [(minute(r["time"]), r["values"]["value"]) for r in records
                  if r["type"] == "metric" and r["labels"].get("service") == service]
        path = " ".join(f"{x(m):.1f},{top + height - height * min(v, peak) / peak:.1f}" for m, v in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place = 58 if service == "index-reader" else 76
        parts.append(f'<text x="12" y="{place}" fill="{colour}">{service}, p99</text>')
    limit = top + height - height * 2 / peak
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{limit}" y2="{limit}" stroke="#c0392b" stroke-dasharray="4 4"/>')
    parts.append(f'<text x="12" y="{limit + 4}" fill="#c0392b">when p99 &gt; 2s</text>')
    rows = {}
    for record in records:
        if record["type"] == "alert":
            rows.setdefault((record["rule"], record["labels"].get("service", "")), []).append(record)
    y = top + height + 30
    for (rule, service), own in sorted(rows.items()):
        parts.append(f'<text x="12" y="{y + 14}">{rule}</text><text x="12" y="{y + 27}" fill="#777" font-size="10">{service}</text>')
        for record, following in zip(own, own[1:] + [None]):
            state = record["state"]
            if state == "resolved":
                parts.append(f'<text x="{x(minute(record["time"])) + 3:.1f}" y="{y + 15}" font-size="10" fill="#2e7d32">resolved</text>')
                continue
            end = minute(following["time"]) if following else MINUTES
            colour = COLOURS[record["severity"] if state == "firing" else state]
            start = x(minute(record["time"]))
            parts.append(f'<rect x="{start:.1f}" y="{y}" width="{x(end) - start:.1f}" height="20" fill="{colour}"/>')
            note = {"pending": "pending", "suppressed": "silent"}.get(state, record["severity"])
            if "repeat" in record:
                note = "again"
            if "alerts" in record:
                note += f' ({record["firing"]})'
            parts.append(f'<text x="{start + 3:.1f}" y="{y + 14}" font-size="10" fill="#fff">{note}</text>')
        y += 38
    for at in range(0, MINUTES + 1, 4):
        parts.append(f'<line x1="{x(at)}" x2="{x(at)}" y1="{top}" y2="{y}" stroke="#ddd"/>'
                     f'<text x="{x(at) - 14}" y="{y + 16}" fill="#777">03:{at:02}</text>')
    text = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 30}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="{WIDTH}" height="{y + 30}" fill="#fff"/>\n'
            f'<text x="12" y="24" font-size="14">The simulated incident and what rules/incidents says of it</text>\n'
            + "\n".join(sorted(parts, key=lambda part: not part.startswith("<line"))) + "\n</svg>\n")
    with open(arguments.out, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
