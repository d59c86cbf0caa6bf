"""Curves, bars and schemes as SVG, in the page's own colours."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40

# A longer line shows no points.
DOTTED = 60

Points = Sequence[tuple[float, float]]


def curves(series: Mapping[str, Points], across: str, up: str) -> str:
    """Draw a line for each series of points, with what the axes are called, and a legend."""
    points = [point for line in series.values() for point in line]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    place = scale(min(xs), max(xs), min(0.0, *ys), max(ys))
    parts = axes(min(xs), max(xs), min(0.0, *ys), max(ys), across, up)
    for number, (name, line) in enumerate(series.items()):
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        parts.append(f'<polyline class="s{number}" points="{path}"/>')
        for x, y in [place(*point) for point in line] if len(line) <= DOTTED else ():
            parts.append(f'<circle class="s{number}" r="2.5" cx="{x:.1f}" cy="{y:.1f}"/>')
        if len(series) > 1:
            x, y = WIDTH - RIGHT - 90, HEIGHT - BOTTOM - 10 - 16 * number
            parts.append(f'<line class="s{number}" x1="{x}" x2="{x + 20}" y1="{y - 4}" y2="{y - 4}"/>')
            parts.append(f'<text x="{x + 26}" y="{y}">{escape(name)}</text>')
    return svg(parts, WIDTH, HEIGHT, f"{up} over {across}")


def scale(left: float, right: float, low: float, high: float):
    """Give the function that places a point."""
    wide, tall = max(right - left, 1e-30), max(high - low, 1e-30)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / wide, (y - low) / tall
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    return place


def axes(left: float, right: float, low: float, high: float, across: str, up: str) -> list[str]:
    """Two lines, the numbers at their ends, and what they are."""
    floor = HEIGHT - BOTTOM
    return [
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>',
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{floor}"/>',
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{LEFT}" y="{floor + 14}">{left:.3g}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{floor + 14}" text-anchor="end">{right:.3g}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>',
        f'<text transform="rotate(-90 14 {(TOP + floor) / 2})" x="14" y="{(TOP + floor) / 2}"'
        f' text-anchor="middle">{escape(up)}</text>',
    ]


def wheels(turns: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Draw a wheel for each pair of channels, with a hand for each position, the first one bold.

    Parameters
    ----------
    turns : sequence of sequence of float
        For each wheel, the angle of each hand in radians.
    names : sequence of str
    """
    size, radius = 116, 44
    parts = []
    for number, (angles, name) in enumerate(zip(turns, names, strict=True)):
        x, y = number * size + size / 2, 56
        parts.append(f'<circle class="axis" cx="{x}" cy="{y}" r="{radius}"/>')
        for hand, angle in enumerate(angles):
            end = x + radius * math.cos(angle), y - radius * math.sin(angle)
            parts.append(f'<line class="s{min(hand, 3)}" x1="{x}" y1="{y}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>')
        parts.append(f'<text x="{x}" y="{y + radius + 18}" text-anchor="middle">{escape(name)}</text>')
    return svg(parts, size * len(turns), 124, "wheels, a hand a position")


def groups(num_heads: int, num_kv_heads: int) -> str:
    """Draw which query heads share which keys and values."""
    step, width = 44, 44 * num_heads
    share = num_heads // num_kv_heads
    parts = []
    for head in range(num_heads):
        x, kv = step * (head + 0.5), step * share * (head // share + 0.5)
        parts.append(f'<line class="s{head // share % 4}" x1="{x}" y1="40" x2="{kv}" y2="84"/>')
        parts.append(f'<circle class="s{head // share % 4}" cx="{x}" cy="26" r="14"/>')
        parts.append(f'<text class="on" x="{x}" y="30" text-anchor="middle">q{head}</text>')
    for head in range(num_kv_heads):
        x = step * share * (head + 0.5)
        parts.append(f'<rect class="s{head % 4}" x="{x - 20}" y="84" width="40" height="28" rx="4"/>')
        parts.append(f'<text class="on" x="{x}" y="102" text-anchor="middle">k{head} v{head}</text>')
    return svg(parts, width, 120, "query heads above, the keys and values that they share below")


def svg(parts: Sequence[str], width: float, height: float, name: str) -> str:
    """Wrap parts into a picture that grows with the page."""
    label = escape(name)
    return (f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}" style="max-width:{width}px">'
            f'{"".join(parts)}</svg>')
