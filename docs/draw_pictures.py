#!/usr/bin/env python3
"""Draws the pictures of the documentation: docs/draw_pictures.py [FOLDER] [--plan PROGRAM], by default docs/pictures.

Standard library only. What the pictures show is computed here: cuts by the rule of partition::balanced, timelines by
playing the schedule, curves by their formula. The speed-up of models is what examples/plan says, and is drawn only where
that program is given.
"""

import argparse
import pathlib
import re
import subprocess
from xml.sax.saxutils import escape

COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#e15759"]
INK, PALE, LINE = "#222222", "#f4f4f2", "#999999"


class Picture:
    """Shapes in drawing order; saved as one SVG on a white ground, readable on dark pages as well."""

    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.shapes = width, height, title, []

    def box(self, x, y, width, height, fill=PALE, stroke=LINE, radius=3):
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}" stroke="{stroke}"/>'
        )

    def text(self, x, y, words, size=13, anchor="middle", fill=INK, weight="normal", family="sans-serif"):
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-family="{family}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{escape(words)}</text>'
        )

    def code(self, x, y, words, size=13, **how):
        self.text(x, y, words, size, family="monospace", **how)

    def path(self, points, colour=INK, width=1.5, arrow=False, dash=""):
        line = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.shapes.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"{end}{dashed}/>'
        )

    def save(self, path):
        body = "\n".join(self.shapes)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img">\n<title>{escape(self.title)}</title>\n'
            '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{INK}"/></marker></defs>\n'
            f'<rect width="{self.width}" height="{self.height}" fill="white"/>\n{body}\n</svg>\n'
        )


def balanced(total, parts):
    """Bounds of partition::balanced: the remainder goes to the first ranks."""
    quotient, remainder = divmod(total, parts)
    bounds = [0]
    for rank in range(parts):
        bounds.append(bounds[-1] + quotient + (rank < remainder))
    return bounds


def layers():
    """The folders, each standing on those below it in the picture."""
    rows = [
        [("testing/", "doctest on ranks")],
        [("data/", "split, gather"), ("tensor/", "parallel layers"), ("pipeline/", "stages"), ("checkpoint/", "own shard")],
        [("launch/", "run_ranks, who am I, how do we meet")],
        [("self", ""), ("threads", ""), ("tcp", ""), ("mpi", "MPI"), ("nccl", "NCCL")],
        [("comm/", "verbs as call descriptors, communicator<Backend>, decorators, mesh")],
        [("core/", "views, dtypes, partition, errors"), ("cuda/", "CUDA memory, streams, kernels")],
    ]
    picture = Picture(760, 470, "Layers and folders of shardkit")
    picture.text(380, 28, "Your engine: its buffers, its kernels, its GEMM", 15, weight="bold")
    picture.path([(380, 38), (380, 58)], arrow=True)
    left, width, top, height, gap = 20, 720, 62, 54, 12
    for index, row in enumerate(rows):
        y = top + index * (height + gap)
        if index == 3:
            picture.code(left + 8, y + 32, "backends/", 13, anchor="start", weight="bold")
            x, room = left + 100, width - 100
        else:
            x, room = left, width
        each = (room - gap * (len(row) - 1)) / len(row)
        for number, (name, words) in enumerate(row):
            third = words in ("MPI", "NCCL") or name in ("cuda/", "checkpoint/", "testing/")
            picture.box(x, y, each, height, "#fff3e0" if third else "#e8f0f8")
            if words in ("", "MPI", "NCCL"):
                picture.code(x + each / 2, y + 32, name, 13, weight="bold")
            else:
                picture.code(x + each / 2, y + 22, name, 13, weight="bold")
                picture.text(x + each / 2, y + 41, words, 12)
            x += each + gap
    y = top + len(rows) * (height + gap) + 8
    picture.text(left, y, "A folder includes only folders below it, or to its left.", 12, anchor="start")
    picture.text(left + width, y, "orange: stands on a library of somebody else", 12, anchor="end")
    return picture


def matrix_cut():
    """A feed-forward block over three ranks: up by rows, down by columns."""
    ranks, inner = 3, 10
    bounds = balanced(inner, ranks)
    cell = 20
    picture = Picture(810, 390, "How the two matrices of a feed-forward block are cut over three ranks")
    picture.text(405, 24, "10 inner features over 3 ranks: 4, 3 and 3", 15, weight="bold")

    def grid(x, y, rows, columns, colour_of, caption, below):
        for r in range(rows):
            for c in range(columns):
                picture.box(x + c * cell, y + r * cell, cell, cell, colour_of(r, c), "white", 0)
        picture.code(x + columns * cell / 2, y - 26, caption, 13, weight="bold")
        picture.text(x + columns * cell / 2, y - 9, below, 12)

    def owner(i):
        return next(rank for rank in range(ranks) if i < bounds[rank + 1])

    whole = "#c8c8c8"
    middle = 190
    grid(30, middle - 30, 3, 6, lambda r, c: whole, "x", "[tokens, hidden]")
    grid(200, middle - 100, inner, 6, lambda r, c: COLOURS[owner(r)], "up", "[inner, hidden]: by rows")
    grid(350, middle - 30, 3, inner, lambda r, c: COLOURS[owner(c)], "features", "each rank its own")
    grid(580, middle - 60, 6, inner, lambda r, c: COLOURS[owner(c)], "down", "[hidden, inner]: by columns")
    y = 348
    picture.path([(30, y - 34), (780, y - 34)], LINE, 1)
    x = 30
    for rank in range(ranks):
        picture.box(x, y - 14, 16, 16, COLOURS[rank], "white", 0)
        picture.text(x + 24, y - 1, f"rank {rank}", 13, anchor="start")
        x += 90
    picture.box(x, y - 14, 16, 16, whole, "white", 0)
    picture.text(x + 24, y - 1, "on every rank", 13, anchor="start")
    picture.text(780, y - 1, "y = sum over the ranks: one all_reduce", 13, anchor="end")
    picture.text(405, y + 28, "No communication between the two: what a rank made is what it reads.", 13)
    return picture


def pad_and_trim():
    """Seven items over three ranks, padded to three each, answered and gathered."""
    items, ranks = 7, 3
    bounds = balanced(items, ranks)
    most = bounds[1]
    size, gap = 38, 4
    picture = Picture(760, 300, "split, pad_and_split and gather_trim of seven items over three ranks")

    def row(y, values, caption):
        picture.code(150, y + 25, caption, 13, anchor="end", weight="bold")
        for x, item, rank, padding in values:
            picture.box(x, y, size, size, "white" if padding else COLOURS[rank], COLOURS[rank])
            picture.text(x + size / 2, y + 25, str(item), 15, fill=INK if padding else "white", weight="bold")

    def owner(i):
        return next(rank for rank in range(ranks) if i < bounds[rank + 1])

    start, block = 180, most * (size + gap) + 40
    row(20, [(start + 66 + i * (size + gap), i, owner(i), False) for i in range(items)], "prompts")
    shares, padded = [], []
    for rank in range(ranks):
        for place in range(most):
            x = start + rank * block + place * (size + gap)
            item = bounds[rank] + place
            own = item < bounds[rank + 1]
            if own:
                shares.append((x, item, rank, False))
            padded.append((x, item if own else items - 1, rank, not own))
        picture.text(start + rank * block + (most * (size + gap) - gap) / 2, 96, f"rank {rank}", 13)
    row(104, shares, "split")
    row(164, padded, "pad_and_split")
    row(232, [(start + 66 + i * (size + gap), i, owner(i), False) for i in range(items)], "gather_trim")
    picture.text(start + 66 + items * (size + gap) + 14, 257, "on every rank", 13, anchor="start")
    return picture


def timeline():
    """Eight microbatches through four stages, forward only, played step by step; below it only three."""
    picture = Picture(760, 400, "Timeline of a pipeline of four stages")
    stages = 4

    def play(count):
        ready = [[0] * (stages + 1) for _ in range(count)]  # when microbatch m may begin on stage s
        free = [0] * stages
        slots = []
        for m in range(count):
            for s in range(stages):
                begin = max(ready[m][s], free[s])
                slots.append((s, begin, m))
                ready[m][s + 1] = free[s] = begin + 1
        return slots, max(free)

    y = 50
    cell = 58
    for count in (8, 3):
        slots, end = play(count)
        idle = 1 - count / end
        picture.text(20, y - 14, f"{count} microbatches: {100 * idle:.0f} % idle = (4 - 1) / ({count} + 4 - 1)", 14,
                     anchor="start", weight="bold")
        for s in range(stages):
            picture.text(74, y + s * 34 + 20, f"stage {s}", 13, anchor="end")
            picture.box(84, y + s * 34, end * cell, 30, PALE, LINE, 0)
        for s, begin, m in slots:
            picture.box(84 + begin * cell + 1, y + s * 34 + 1, cell - 2, 28, COLOURS[m % len(COLOURS)], "white", 2)
            picture.text(84 + (begin + 0.5) * cell, y + s * 34 + 20, str(m), 13, fill="white", weight="bold")
        y += stages * 34 + 54
    return picture


def bubble():
    """Idle share over microbatches for some numbers of stages."""
    picture = Picture(760, 360, "Idle share of a pipeline by number of microbatches")
    left, top, width, height, most = 70, 40, 560, 260, 32
    picture.text(left, 24, "Idle share of even stages: (p - 1) / (m + p - 1)", 15, anchor="start", weight="bold")
    for percent in range(0, 101, 20):
        y = top + height * (1 - percent / 100)
        picture.path([(left, y), (left + width, y)], "#dddddd", 1)
        picture.text(left - 8, y + 4, f"{percent} %", 12, anchor="end")
    for m in (1, 4, 8, 12, 16, 20, 24, 28, 32):
        x = left + width * (m - 1) / (most - 1)
        picture.path([(x, top + height), (x, top + height + 5)], LINE, 1)
        picture.text(x, top + height + 20, str(m), 12)
    picture.text(left + width / 2, top + height + 42, "microbatches m of a step", 13)
    for number, p in enumerate((16, 8, 4, 2)):
        points = []
        for m in range(1, most + 1):
            share = (p - 1) / (m + p - 1)
            points.append((left + width * (m - 1) / (most - 1), top + height * (1 - share)))
        picture.path(points, COLOURS[number], 2.5)
        nudge = {2: 4, 4: -3}.get(p, 0)  # the last two lines end close to each other
        picture.text(left + width + 10, points[-1][1] + 4 + nudge, f"p = {p} stages", 13, anchor="start", fill=COLOURS[number],
                     weight="bold")
    return picture


def wire():
    """Bytes that each rank sends for one all_reduce, as a share of the buffer, over ranks."""
    picture = Picture(760, 330, "What a rank sends for each verb")
    verbs = [
        ("all_reduce", lambda n: 2 * (n - 1) / n, "2 (n - 1) / n"),
        ("reduce_scatter, all_gather", lambda n: (n - 1) / n, "(n - 1) / n"),
        ("broadcast (chain), send", lambda n: 1, "1"),
    ]
    left, top, width, height = 70, 50, 420, 220
    picture.text(left, 26, "Bytes a rank sends, in sizes of the whole buffer, over n ranks", 15, anchor="start", weight="bold")
    for share in (0, 0.5, 1, 1.5, 2):
        y = top + height * (1 - share / 2)
        picture.path([(left, y), (left + width, y)], "#dddddd", 1)
        picture.text(left - 8, y + 4, f"{share:g}", 12, anchor="end")
    ranks = [2, 4, 8, 16, 32]
    for place, n in enumerate(ranks):
        x = left + width * place / (len(ranks) - 1)
        picture.text(x, top + height + 20, str(n), 12)
    for number, (name, share, formula) in enumerate(verbs):
        points = [(left + width * place / (len(ranks) - 1), top + height * (1 - share(n) / 2)) for place, n in enumerate(ranks)]
        picture.path(points, COLOURS[number], 2.5)
    places = {0: -4, 1: 22, 2: -12}
    for number, (name, share, formula) in enumerate(verbs):
        y = top + height * (1 - share(32) / 2) + places[number]
        picture.text(left + width + 12, y, name, 13, anchor="start", fill=COLOURS[number], weight="bold")
        picture.code(left + width + 12, y + 16, formula, 12, anchor="start")
    picture.text(left + width / 2, top + height + 42, "ranks n", 13)
    return picture


def speed_up(plan):
    """Speed-up of two models over ranks, as the program `plan` computes it."""
    most = 8
    models = pathlib.Path(__file__).parent.parent / "examples" / "plan" / "models"

    def ideal(model, *mesh):
        text = subprocess.run([plan, models / f"{model}.json", *map(str, mesh)], check=True, capture_output=True, text=True)
        token, step = re.search(r"ideal speed-up: ([0-9.]+) for one token, ([0-9.]+) for", text.stdout).groups()
        return float(token), float(step)

    def over_tensor(model):
        return [ideal(model, "--tensor", n)[0] for n in range(1, most + 1)]

    def over_pipeline(microbatches):
        return [ideal("llama-3-8b", "--pipeline", n, "--microbatches", microbatches)[1] for n in range(1, most + 1)]

    picture = Picture(860, 400, "Ideal speed-up over tensor ranks and over pipeline stages")
    top, width, height = 62, 250, 260

    def panel(left, heading, axis, curves):
        picture.text(left, 24, heading, 15, anchor="start", weight="bold")
        picture.text(left, 44, "ideal speed-up", 12, anchor="start")

        def place(n, gain):
            return left + width * (n - 1) / (most - 1), top + height * (1 - gain / most)

        for n in range(most + 1):
            y = place(1, n)[1]
            picture.path([(left, y), (left + width, y)], "#dddddd", 1)
            picture.text(left - 8, y + 4, str(n), 12, anchor="end")
            if n > 0:
                picture.text(place(n, 0)[0], top + height + 20, str(n), 12)
        picture.text(left + width / 2, top + height + 42, axis, 13)
        picture.path([place(1, 1), place(most, most)], LINE, 1.5, dash="5,4")
        for number, (gains, name, words) in enumerate(curves):
            picture.path([place(n + 1, gain) for n, gain in enumerate(gains)], COLOURS[number], 2.5)
            y = place(most, gains[-1])[1]
            picture.text(left + width + 10, y + 4, name, 13, anchor="start", fill=COLOURS[number], weight="bold")
            picture.text(left + width + 10, y + 20, words, 12, anchor="start")

    panel(50, "One token", "tensor ranks", [
        (over_tensor("llama-3-8b"), "Llama 3 8B", "32 heads, 8 key/value"),
        (over_tensor("smollm2-135m"), "SmolLM2-135M", "9 heads, 3 key/value"),
    ])
    panel(500, "Steps of Llama 3 8B", "pipeline stages", [
        (over_pipeline(64), "64", "microbatches"),
        (over_pipeline(16), "16", ""),
        (over_pipeline(4), "4", ""),
        (over_pipeline(1), "1", "or one token"),
    ])
    picture.text(430, 390, "dashed: as many times as fast as there are ranks", 12)
    return picture


def main():
    options = argparse.ArgumentParser(description="Draws the pictures of the documentation.")
    options.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).parent / "pictures")
    options.add_argument("--plan", help="the program of examples/plan, for speed_up.svg")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    pictures = [(draw.__name__, draw) for draw in (layers, matrix_cut, pad_and_trim, timeline, bubble, wire)]
    if given.plan:
        pictures.append(("speed_up", lambda: speed_up(given.plan)))
    for name, draw in pictures:
        draw().save(given.folder / f"{name}.svg")


if __name__ == "__main__":
    main()
