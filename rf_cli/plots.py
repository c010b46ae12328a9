"""Plots as PNG, drawn with Pillow: lines or points with 95 % bars, and a legend beside them."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH, HEIGHT = 1180, 640
LEFT, RIGHT, TOP, BOTTOM = 90, 330, 60, 76
INK, DIM, RULE = "#1c1e21", "#62666d", "#dfe1e4"
COLOURS = (
    "#2f7fd1", "#d9662b", "#2a9d6e", "#a05bc7", "#c2453f", "#8a7a1d", "#4a9aa8", "#7a6a5a",
    "#e0559a", "#5c6fd6",
)  # fmt: skip
MARKS = ("circle", "square", "diamond", "cross")
RADIUS = 6


class Point(NamedTuple):
    """One measured value; `low` and `high` are its interval, or None."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def plot(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x: str,
    y: str,
    joined: bool = True,
    log_x: bool = False,
) -> bytes:
    """The PNG of all series to one scale.

    Args:
        series: points by name; empty ones are left out.
        x, y: what the axes say.
        joined: draw lines through the points of a series.
        log_x: a logarithmic axis; every x is above 0.
    """
    from PIL import Image, ImageDraw, ImageFont

    series = {name: list(points) for name, points in series.items() if points}
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    fonts = ImageFont.load_default(20), ImageFont.load_default(15)
    draw.text((20, 16), title, fill=INK, font=fonts[0])
    if not series:
        draw.text((LEFT, HEIGHT // 2), "nothing was measured", fill=DIM, font=fonts[1])
    else:
        axes = _Axes(series, log_x)
        _draw_axes(draw, axes, x, y, fonts[1])
        for number, (name, points) in enumerate(series.items()):
            _draw_series(draw, axes, points, number, joined)
            _draw_legend(draw, number, name, fonts[1])
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


class _Axes:
    """From values to pixels."""

    def __init__(self, series: Mapping[str, Sequence[Point]], log_x: bool) -> None:
        points = [point for each in series.values() for point in each]
        self.log_x = log_x
        self.x_range = _range([self._at(point.x) for point in points])
        if log_x:  # at least a decade, so that there are numbers to read
            low, high = self.x_range
            missing = max(0.0, 1 - (high - low)) / 2
            self.x_range = low - missing, high + missing
        ends = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
        self.y_range = _range(ends)

    def _at(self, x: float) -> float:
        return math.log10(x) if self.log_x else x

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (self._at(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def x_ticks(self) -> list[float]:
        low, high = self.x_range
        if not self.log_x:
            return _ticks(low, high)
        powers = range(math.floor(low) - 1, math.ceil(high) + 1)
        each = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        return [value for value in each if low <= math.log10(value) <= high]

    def y_ticks(self) -> list[float]:
        return _ticks(*self.y_range)


def _range(values: Sequence[float]) -> tuple[float, float]:
    margin = (max(values) - min(values)) * 0.08 or 0.05 * abs(max(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two others, four to ten of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= next(f for f in (5, 2, 1) if (high - low) / (step * f) >= 4 or f == 1)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _draw_axes(draw: Any, axes: _Axes, x: str, y: str, font: Any) -> None:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in axes.y_ticks():
        draw.line((LEFT, axes.y(value), right, axes.y(value)), fill=RULE)
        draw.text((LEFT - 8, axes.y(value)), f"{value:.3g}", fill=DIM, font=font, anchor="rm")
    for value in axes.x_ticks():
        draw.line((axes.x(value), bottom, axes.x(value), bottom + 5), fill=DIM)
        draw.text((axes.x(value), bottom + 9), f"{value:.3g}", fill=DIM, font=font, anchor="ma")
    draw.line((LEFT, bottom, right, bottom), fill=DIM)
    draw.text(((LEFT + right) / 2, HEIGHT - 30), x, fill=INK, font=font, anchor="ma")
    draw.text((20, TOP - 16), y, fill=INK, font=font)


def _draw_series(
    draw: Any, axes: _Axes, points: Sequence[Point], number: int, joined: bool
) -> None:
    colour = COLOURS[number % len(COLOURS)]
    places = [(axes.x(point.x), axes.y(point.y)) for point in points]
    if joined and len(places) > 1:
        draw.line(places, fill=colour, width=2)
    for point, (left, top) in zip(points, places, strict=True):
        if point.low is not None and point.high is not None:
            draw.line((left, axes.y(point.low), left, axes.y(point.high)), fill=colour, width=2)
        _mark(draw, left, top, number)


def _mark(draw: Any, x: float, y: float, number: int) -> None:
    """A mark and a colour together tell forty series apart."""
    colour, kind = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
    box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    elif kind == "diamond":
        r = RADIUS + 2
        draw.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=colour)
    else:
        draw.line((box[0], box[1], box[2], box[3]), fill=colour, width=3)
        draw.line((box[0], box[3], box[2], box[1]), fill=colour, width=3)


def _draw_legend(draw: Any, number: int, name: str, font: Any) -> None:
    x, y = WIDTH - RIGHT + 30, TOP + 8 + number * 24
    _mark(draw, x, y, number)
    draw.text((x + 16, y), name, fill=INK, font=font, anchor="lm")
