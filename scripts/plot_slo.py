#!/usr/bin/env python3
"""Draws what an SLO did, from the records of a dry run, as SVG on standard output: `plot_slo.py RECORDS --slo NAME --key VALUE`.

Reads the metrics whose names end in `_budget_left` and `_burn_1h` (as rules/slo has them) of the label value, and the SLO's alerts.
"""
import argparse
import datetime
import json

WIDTH, HEIGHT, LEFT, PANEL, GAP = 760, 420, 70, 120, 30


def read(path, slo, key):
    burn, budget, alerts = [], [], {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if key not in record.get("labels", {}).values():
                continue
            when = datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00")).timestamp()
            if record["type"] == "metric" and record["rule"].endswith("_burn_1h"):
                burn.append((when, record["values"]["value"]))
            elif record["type"] == "metric" and record["rule"].endswith("_budget_left"):
                budget.append((when, 100 * record["values"]["value"]))
            elif record["type"] == "slo" and record["rule"] == slo:
                alerts.setdefault(record["severity"], []).append((when, record["state"]))
    if not burn or not budget:
        raise SystemExit("plot_slo: no metrics named …_burn_1h and …_budget_left for that key")
    return burn, budget, alerts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    parser.add_argument("--slo", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--until", type=float, help="minutes to show")
    arguments = parser.parse_args()
    burn, budget, alerts = read(arguments.records, arguments.slo, arguments.key)
    first, last = burn[0][0], burn[-1][0]
    if arguments.until:
        last = min(last, first + arguments.until * 60)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica,Arial,sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']

    def x(when):
        return LEFT + (when - first) / max(1, last - first) * (WIDTH - LEFT - 20)

    def text(left, top, words, anchor="start", color="#333"):
        out.append(f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" fill="{color}">{words}</text>')

    def panel(top, title, points, color, lines, unit):
        points = [(when, value) for when, value in points if when <= last]
        low = min([value for _, value in points] + [value for value, _ in lines] + [0])
        high = max([value for _, value in points] + [value for value, _ in lines] + [0])
        high, low = high + (high - low) * 0.05, low - (high - low) * 0.02

        def y(value):
            return top + PANEL - (value - low) / max(1e-9, high - low) * PANEL

        text(LEFT, top - 6, title)
        out.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - 20}" height="{PANEL}" fill="none" stroke="#bbb"/>')
        for value, words in lines:
            out.append(
                f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#999" stroke-dasharray="4 3"/>')
            text(LEFT - 6, y(value) + 4, words, "end", "#777")
        text(LEFT - 6, top + 10, f"{max(value for _, value in points):.0f}{unit}", "end", "#777")
        path = " ".join(f"{x(when):.1f},{y(value):.1f}" for when, value in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')

    top = 40
    text(LEFT, 18, f"{arguments.slo}: {arguments.key}")
    panel(top, "burn rate over 1 h", burn, "#c0392b", [(14.4, "14.4"), (6, "6"), (0, "0")], "")
    top += PANEL + GAP + 10
    panel(top, "error budget left", budget, "#2471a3", [(0, "0 %")], " %")
    top += PANEL + GAP
    for severity, color in (("page", "#c0392b"), ("ticket", "#e67e22")):
        text(LEFT - 6, top + 12, severity, "end")
        begin = None
        for when, state in alerts.get(severity, []) + [(last, "resolved")]:
            if state == "firing":
                begin = when
            elif begin is not None and begin < last:
                end = min(when, last)
                out.append(f'<rect x="{x(begin):.1f}" y="{top}" width="{max(1, x(end) - x(begin)):.1f}" height="16" fill="{color}"/>')
                begin = None
        top += 24
    steps = 6
    for number in range(steps + 1):
        when = first + (last - first) * number / steps
        clock = datetime.datetime.fromtimestamp(when, datetime.timezone.utc).strftime("%H:%M")
        text(x(when), top + 14, clock, "middle", "#777")
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    main()
