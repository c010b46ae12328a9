import math
import re
from xml.etree import ElementTree

from rf_cli import charts

COLOURS = {"a": "#111111", "b <c>": "#222222"}


def parsed(svg):
    return ElementTree.fromstring(svg)


def points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in text.split()]
        for text in re.findall(r'points="([^"]*)"', svg)
    ]


def test_every_series_is_a_line_with_a_point_for_each_frame():
    svg = charts.lines({"a": [20, 30, 25], "b <c>": [10, 11, 12]}, label="PSNR", colours=COLOURS)
    assert [len(line) for line in points(svg)] == [3, 3]
    assert [node.get("stroke") for node in parsed(svg).iter("polyline")] == list(COLOURS.values())


def test_larger_values_are_higher_and_infinite_ones_at_the_upper_edge():
    ((low, high, infinite),) = points(
        charts.lines({"a": [10, 20, math.inf]}, label="", colours=COLOURS)
    )
    assert low[1] > high[1] > infinite[1] == charts.TOP


def test_a_chart_without_finite_values_is_drawn():
    assert parsed(charts.lines({"a": [math.inf] * 2}, label="", colours=COLOURS)) is not None


def test_every_layer_and_step_is_a_cell_shaded_by_its_sparsity():
    layers = [
        {"transformer": "transformer", "layer": 0, "steps": [0.0, 0.75]},
        {"transformer": "transformer", "layer": 1, "steps": [None, 0.5]},
    ]
    cells = list(parsed(charts.layer_step_map(layers, label="x", colour="#123456")).iter("rect"))
    dense, most, unrun, half = (cell.get("fill-opacity") for cell in cells)
    assert (dense, unrun) == ("0.000", None) and 0.5 < float(half) < float(most) < 1
    assert cells[2].get("class") == "unrun"
    assert cells[1].find("title").text == "transformer layer 0, step 1: 75.0% skipped"
