"""Bar charts and curves over model sizes as SVG text, for a report that needs nothing from outside. No torch here.

Colours are CSS variables of the page: c1 to c6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
_BAR_HEIGHT, _CURVE_WIDTH, _CURVE_HEIGHT = 260, 300, 200
_LEFT, _TOP, _BOTTOM = 40, 14, 34
_TOP_SCORE = 100.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A height between 0 and 100, and the ends of its interval if it has one; `height` None leaves its place empty."""

    height: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Scores by size, a score of ours beside them, and the size at which the curve has it (None where it has none)."""

    title: str
    points: Sequence[tuple[float, float]]
    own_size: float
    own_score: float
    equivalent: float | None
    label: str


def bar_chart(title: str, groups: Sequence[str], series: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Groups of bars beside each other, one of each series in each group; nothing without groups.

    >>> bar_chart("empty", [], [])
    ''
    """
    if not groups or not series:
        return ""
    top = _round_top([bar.high or bar.height or 0 for _, bars in series for bar in bars])
    parts = [_grid(top, WIDTH, _BAR_HEIGHT)]
    slot = (WIDTH - _LEFT) / len(groups)
    width = 0.8 * slot / len(series)
    for place, group in enumerate(groups):
        left = _LEFT + place * slot + 0.1 * slot
        for index, (name, bars) in enumerate(series):
            parts.append(_bar(bars[place], f"{name}, {group}", left + index * width, width, index + 1, top))
        parts.append(_text(left + 0.4 * slot, _BAR_HEIGHT - 14, group))
    keys = "".join(f'<span class="key c{n}">{escape(name)}</span>' for n, (name, _) in enumerate(series, start=1))
    return _figure(title, keys, WIDTH, _BAR_HEIGHT, "".join(parts))


def curve_chart(curve: Curve) -> str:
    """The curve over the logarithm of the size, with ours as a dot, and a line from there to the curve."""
    sizes = [size for size, _ in curve.points] + [curve.own_size]
    scores = [score for _, score in curve.points] + [curve.own_score]
    low, high = _span(scores)
    small, large = math.log(min(sizes) / 1.3), math.log(max(sizes) * 1.3)

    def x(size: float) -> float:
        return _LEFT + (math.log(size) - small) / (large - small) * (_CURVE_WIDTH - _LEFT - 10)

    def y(score: float) -> float:
        return _CURVE_HEIGHT - _BOTTOM - (score - low) / (high - low) * (_CURVE_HEIGHT - _TOP - _BOTTOM)

    parts = [_line(_LEFT, _CURVE_WIDTH - 10, y(value), f"{value:g}") for value in _ticks(low, high)]
    path = " ".join(f"{x(size):.1f},{y(score):.1f}" for size, score in curve.points)
    parts.append(f'<polyline class="line c2" points="{path}"/>')
    for size, score in curve.points:
        parts.append(_dot(x(size), y(score), 2, f"Llama 2 {size:g}B: {score:g}"))
        parts.append(_text(x(size), _CURVE_HEIGHT - 14, f"{size:g}B"))
    if curve.equivalent is not None:
        ends = f'x1="{x(curve.own_size):.1f}" x2="{x(curve.equivalent):.1f}"'
        parts.append(f'<line class="reach" {ends} y1="{y(curve.own_score):.1f}" y2="{y(curve.own_score):.1f}"/>')
    parts.append(_dot(x(curve.own_size), y(curve.own_score), 1, f"ours, {curve.own_size:.3g}B: {curve.own_score:.1f}"))
    return _figure(f"{curve.title}: {curve.label}", "", _CURVE_WIDTH, _CURVE_HEIGHT, "".join(parts))


def _figure(title: str, keys: str, width: int, height: int, inside: str) -> str:
    return (
        f'<figure style="max-width:{width}px"><figcaption>{escape(title)} {keys}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{inside}</svg></figure>'
    )


def _bar(bar: Bar, name: str, left: float, width: float, colour: int, top: float) -> str:
    if bar.height is None:
        return ""
    ground = _BAR_HEIGHT - _BOTTOM

    def y(score: float) -> float:
        return ground - score / top * (ground - _TOP)

    said = f"{name}: {bar.height:.1f}{f' ({bar.note})' if bar.note else ''}"
    drawn = (
        f'<rect class="c{colour}" x="{left:.1f}" y="{y(bar.height):.1f}" width="{width * 0.9:.1f}" '
        f'height="{ground - y(bar.height):.1f}"><title>{escape(said)}</title></rect>'
    )
    if bar.low is not None and bar.high is not None:
        middle = left + 0.45 * width
        drawn += (
            f'<line class="span" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y(bar.low):.1f}" y2="{y(bar.high):.1f}"/>'
        )
    return drawn


def _grid(top: float, width: int, height: int) -> str:
    ground = height - _BOTTOM
    return "".join(
        _line(_LEFT, width, ground - value / top * (ground - _TOP), f"{value:g}") for value in _ticks(0.0, top)
    )


def _line(left: float, right: float, y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def _dot(x: float, y: float, colour: int, said: str) -> str:
    return f'<circle class="c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(said)}</title></circle>'


def _round_top(heights: Sequence[float]) -> float:
    """The top of an axis that begins at 0, a multiple of ten.

    >>> _round_top([43.2, 60.1]), _round_top([0.0])
    (70.0, 10.0)
    """
    return min(_TOP_SCORE, 10.0 * (math.floor(max(heights, default=0) / 10) + 1))


def _span(scores: Sequence[float]) -> tuple[float, float]:
    room = 0.1 * (max(scores) - min(scores)) or 1.0
    return min(scores) - room, max(scores) + room


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers inside a span.

    >>> _ticks(28.0, 55.0)
    [30.0, 40.0, 50.0]
    """
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = min(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [n * step for n in range(first, last + 1)]
