"""Line charts as SVG text, for a report that needs nothing from outside. Colours are CSS variables of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 30
_MOST_POINTS = 600
_SMOOTHED_SHARE = 0.02
"""Of the points, those that a smoothed one is about a mean of."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points in the order of x. style: "faint" for raw numbers behind a "line"; "dots" are joined by a line."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    style: Literal["line", "faint", "dots"] = "line"


def line_chart(title: str, series: Sequence[Series], *, is_log: bool = False) -> str:
    """A chart over steps; nothing for series without points. is_log: of y, for what spans powers of ten.

    >>> line_chart("empty", [])
    ''
    """
    usable = [_with_points(one, _usable(one.points, is_log)) for one in series]
    usable = [one for one in usable if one.points]
    if not usable:
        return ""
    frame = _Frame.around([point for one in usable for point in one.points], is_log=is_log)
    marks = "".join(_drawn(one, frame) for one in usable)
    return (
        f"<figure><figcaption>{escape(title)}{_legend(usable)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{_grid(frame)}{marks}</svg></figure>"
    )


def smoothed(points: Sequence[Point], share: float = _SMOOTHED_SHARE) -> list[Point]:
    """Running means that weigh the past less and less, unbiased at the beginning; the first is the first itself.

    >>> smoothed([(0, 1.0), (1, 1.0), (2, 1.0)])
    [(0, 1.0), (1, 1.0), (2, 1.0)]
    """
    keep = 1 - 1 / max(1.0, share * len(points))
    total, weight, means = 0.0, 0.0, []
    for x, y in points:
        total, weight = keep * total + y, keep * weight + 1
        means.append((x, total / weight))
    return means


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most about so many of the points: of each bucket the lowest and the highest, so that no peak is lost.

    >>> thinned([(0, 5), (1, 1), (2, 9), (3, 4)], most=2)
    [(1, 1), (2, 9)]
    """
    if len(points) <= most:
        return list(points)
    size = -(-len(points) * 2 // most)
    kept: list[Point] = []
    for begin in range(0, len(points), size):
        bucket = points[begin : begin + size]
        kept += sorted({min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])})
    return kept


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers inside the range, 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 9.3)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis.

    >>> short(12500), short(0.00031), short(2.5), short(3_000_000)
    ('12.5k', '3.1e-4', '2.5', '3M')
    """
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    if 0 < size < 1e-3:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Frame:
    """The ranges of both axes; y is its logarithm to base ten if `is_log`."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    is_log: bool

    @classmethod
    def around(cls, points: Sequence[Point], *, is_log: bool) -> "_Frame":
        xs, ys = [x for x, _ in points], [math.log10(y) if is_log else y for _, y in points]
        room = 0.04 * (max(ys) - min(ys)) or 0.05 * abs(max(ys)) or 1.0
        widest = max(xs) if max(xs) > min(xs) else min(xs) + 1
        return cls(min(xs), widest, min(ys) - room, max(ys) + room, is_log)

    def x(self, x: float) -> float:
        return _LEFT + (x - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, y: float) -> float:
        height = math.log10(y) if self.is_log else y
        return HEIGHT - _BOTTOM - (height - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM)

    def y_ticks(self) -> list[float]:
        if not self.is_log:
            return ticks(self.y_low, self.y_high)
        powers = range(math.floor(self.y_low), math.ceil(self.y_high) + 1)
        fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        inside = [value for value in fine if self.y_low <= math.log10(value) <= self.y_high]
        whole = [value for value in inside if f"{value:e}".startswith("1.0")]
        return whole if len(whole) > 2 else inside


def _usable(points: Sequence[Point], is_log: bool) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not is_log)]


def _with_points(series: Series, points: Sequence[Point]) -> Series:
    return Series(name=series.name, points=points, colour=series.colour, style=series.style)


def _drawn(series: Series, frame: _Frame) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in thinned(series.points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = f'<polyline class="{series.style} c{series.colour}" points="{path}"/>'
    if series.style == "dots":
        line += "".join(
            f'<circle class="c{series.colour}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
            f"<title>{escape(series.name)} at {short(x)}: {y:.5g}</title></circle>"
            for x, y in thinned(series.points)
        )
    return line


def _grid(frame: _Frame) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value in frame.y_ticks():
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(frame.x_low, frame.x_high, 6):
        x = frame.x(value)
        if x > right - 45:  # there the axis has its name
            continue
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 10}" text-anchor="end">step</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    return "".join(parts)


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    return "".join(f'<span class="key c{one.colour} {one.style}">{escape(one.name)}</span>' for one in series)
