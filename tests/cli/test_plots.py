import io

import pytest
from PIL import Image

from rf_cli.plots import HEIGHT, WIDTH, Point, _Axes, _ticks, plot

SERIES = {"a": [Point(0.1, 0.5, 0.4, 0.6), Point(0.2, 0.7)], "b": [Point(0.1, 0.3)], "none": []}


def drawn(series, **options):
    content = plot(series, title="t", x="x", y="y", **options)
    return Image.open(io.BytesIO(content)).convert("RGB")


def colours(image):
    return {colour for _, colour in image.getcolors(1 << 20)}


@pytest.mark.parametrize("options", [{}, {"joined": False}, {"log_x": True}])
def test_every_series_has_its_colour_in_the_picture(options):
    image = drawn(SERIES, **options)
    assert image.size == (WIDTH, HEIGHT)
    assert {(0x2F, 0x7F, 0xD1), (0xD9, 0x66, 0x2B)} <= colours(image)
    assert (0x2A, 0x9D, 0x6E) not in colours(image)  # the empty series takes no colour


def test_points_lie_where_the_axes_say():
    axes = _Axes(SERIES | {"none": [Point(0.1, 0.5)]}, log_x=False)
    assert axes.x(0.1) < axes.x(0.2) and axes.y(0.7) < axes.y(0.5) < axes.y(0.3)
    image = drawn({"a": [Point(0.0, 0.0), Point(1.0, 1.0)]}, joined=False)
    axes = _Axes({"a": [Point(0.0, 0.0), Point(1.0, 1.0)]}, log_x=False)
    for value in (0.0, 1.0):
        assert image.getpixel((round(axes.x(value)), round(axes.y(value)))) == (0x2F, 0x7F, 0xD1)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.21, 0.23), (3.0, 970.0), (-1.0, 1.0)])
def test_ticks_are_round_and_inside(low, high):
    ticks = _ticks(low, high)
    assert 3 <= len(ticks) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_nothing_measured_is_still_a_picture():
    assert drawn({}).size == (WIDTH, HEIGHT)
