import pytest

from rainfusion_core.errors import ConfigError
from rf_cli import options


@pytest.mark.parametrize("text", ["832x480", "832X480", "832*480", " 832 x 480 ", "832×480"])
def test_size_is_width_then_height(text):
    assert options.read_size(text) == (832, 480)


@pytest.mark.parametrize("text", ["832", "480p", "x480", "-8x8", "8x8x8", ""])
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        options.read_size(text)
    assert str(caught.value) == f"--size must be WIDTHxHEIGHT in pixels, got {text!r}"


@pytest.mark.parametrize(
    ("text", "steps"), [("4", (4, 0)), ("0.25", (0.25, 0)), ("4,2", (4, 2)), ("0,0.1", (0, 0.1))]
)
def test_dense_steps_are_leading_then_trailing(text, steps):
    assert options.read_dense_steps(text) == steps


@pytest.mark.parametrize(
    ("text", "sink"),
    [("auto", "auto"), ("Auto", "auto"), ("on", True), ("off", False), ("no", False)],
)
def test_a_sink_is_auto_on_or_off(text, sink):
    assert options.read_sink(text) == sink


@pytest.mark.parametrize("text", ["few", "1,2,3", "4;2", ""])
def test_other_dense_steps_are_refused(text):
    with pytest.raises(ConfigError, match="--dense-steps"):
        options.read_dense_steps(text)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("0", (0,)), ("0,1,-1", (0, 1, -1)), ("0-3,-1", (0, 1, 2, 3, -1)), ("", ())],
)
def test_layers_are_numbers_and_ranges(text, layers):
    assert options.read_layers(text) == layers


def test_no_layer_may_be_asked_to_stay_dense():
    assert options.read_dense_layers("none") == ()
    assert options.read_dense_layers("0,-1") == (0, -1)


def test_other_layers_are_refused():
    with pytest.raises(ConfigError, match="--dense-layers must list layer numbers, got 'all'"):
        options.read_layers("all")


def test_method_options_are_truth_numbers_or_words():
    texts = ["stride=8", "share = 0.5", "kind=mean", "recall=true", "steps=10,30"]
    assert options.read_method_options(texts) == {
        "stride": 8, "share": 0.5, "kind": "mean", "recall": True, "steps": "10,30",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["stride", "=8", "stride=", ""])
def test_other_method_options_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        options.read_method_options([text])
    assert str(caught.value) == f"--method-option must be name=value, got {text!r}"
