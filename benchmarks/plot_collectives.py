#!/usr/bin/env python3
"""Draws the CSV of collectives as SVG: how many times as fast as raw MPI, over size, one panel per verb.

    benchmarks/plot_collectives.py results.csv benchmarks/collectives.svg "title"
"""
import csv, math, statistics, sys
from collections import defaultdict

if len(sys.argv) < 3:
    sys.exit(__doc__)
source, target, title = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
times = defaultdict(list)
verbs = []
for row in csv.DictReader(open(source)):
    times[row["verb"], row["peer"], int(row["bytes"])].append(float(row["usec"]))
    if row["verb"] not in verbs and row["verb"] != "barrier":
        verbs.append(row["verb"])
times = {key: statistics.median(values) for key, values in times.items()}
lines = {"threads": ("#1b6ca8", "thread ranks"), "MPI": ("#d1773b", "MPI ranks")}

columns, width, height, left, top = 4, 250, 190, 46, 70
rows = -(-len(verbs) // columns)
sizes = sorted({key[2] for key in times if key[2] > 0})
ratios = {}
for verb, peer, size in times:
    raw = times.get((verb, "raw MPI", size))
    if peer in lines and size > 0 and raw and times[verb, peer, size] > 0:
        ratios[verb, peer, size] = raw / times[verb, peer, size]
if not ratios:
    sys.exit(f"{source} has no verb of both raw MPI and the library: make it with mpiexec")
low, high = math.log2(sizes[0]), math.log2(max(sizes[-1], 2 * sizes[0]))
most = max(16, 2 ** math.ceil(math.log2(max(ratios.values()))))
least = min(0.5, 2 ** math.floor(math.log2(min(ratios.values()))))


def label(size):
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if size >= unit:
            return f"{size // unit}{name}"
    return str(size)


out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * width + 30}" height="{rows * height + top + 10}" '
       'font-family="Helvetica, Arial, sans-serif" font-size="11" fill="#333">',
       '<rect width="100%" height="100%" fill="white"/>',
       f'<text x="20" y="26" font-size="16" font-weight="bold">{title}</text>']
for i, (colour, name) in enumerate(lines.values()):
    out.append(f'<rect x="{20 + 130 * i}" y="40" width="22" height="4" fill="{colour}"/>'
               f'<text x="{48 + 130 * i}" y="46">{name}</text>')
out.append(f'<text x="{290}" y="46">times as fast as the same call of raw MPI; bytes per call</text>')
for index, verb in enumerate(verbs):
    x0, y0 = 20 + index % columns * width, top + index // columns * height
    w, h = width - left - 8, height - 56

    def x(size):
        return x0 + left - 16 + (math.log2(size) - low) / (high - low) * w

    def y(ratio):
        return y0 + 18 + (math.log2(most) - math.log2(ratio)) / (math.log2(most) - math.log2(least)) * h

    out.append(f'<text x="{x0 + left - 16}" y="{y0 + 10}" font-weight="bold">{verb}</text>')
    ratio = least
    while ratio <= most:
        out.append(f'<line x1="{x0 + left - 16}" x2="{x0 + left - 16 + w}" y1="{y(ratio):.1f}" y2="{y(ratio):.1f}" '
                   f'stroke="{"#555" if ratio == 1 else "#ddd"}" stroke-width="1"/>')
        if math.log2(ratio) % 2 == 0:
            out.append(f'<text x="{x0 + left - 20}" y="{y(ratio) + 4:.1f}" text-anchor="end">{ratio:g}</text>')
        ratio *= 2
    for size in sizes[::3]:
        out.append(f'<text x="{x(size):.1f}" y="{y0 + h + 34}" text-anchor="middle">{label(size)}</text>')
    for peer, (colour, _) in lines.items():
        points = [(x(s), y(ratios[verb, peer, s])) for s in sizes if (verb, peer, s) in ratios]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in points]
out.append("</svg>")
open(target, "w").write("\n".join(out) + "\n")
