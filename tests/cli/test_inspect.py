"""`rf inspect` on a small clip of shapes: its files, what they show, and what it refuses."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rf_cli import media
from rf_cli.app import app
from rf_cli.inspect_pictures import KEPT_COLOUR, QUERY_COLOUR, heat, over_frames, sparsity

PROMPT = "a large red circle moving right over a blue background"
SMALL = ["--size", "64x64", "--frames", "17", "--steps", "3", "--layers", "0,5", "--device", "cpu"]


def rf(*args):
    return CliRunner().invoke(app, ["inspect", *map(str, args)])


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect") / "out"
    result = rf(PROMPT, *SMALL, "-o", folder, "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_every_picture_is_there(looked):
    folder, record = looked
    kept = [f"kept-layer-{layer}-head-{head}.png" for layer in (0, 5) for head in range(3)]
    assert set(record["files"]) == {
        "types.png", "head-types.png", "sparsity.png", "maps-layer-0.png", "maps-layer-5.png", *kept,
        "steps.mp4", "record.json",
    }  # fmt: skip
    for name in record["files"]:
        assert (folder / name).is_file()


def test_the_video_walks_over_the_steps(looked):
    frames, _ = media.read_video(looked[0] / "steps.mp4")
    assert len(frames) == 3


def test_every_head_of_every_step_has_a_type_and_a_recall(looked):
    heads = looked[1]["heads"]
    assert len(heads) == 2 * 3 * 3
    assert all(head["kind"] in ("spatial", "temporal", "textural") for head in heads)
    assert all(0 < head[key] <= 1 for head in heads for key in ("recall", "top_fifth"))


def test_the_first_frame_is_said_to_be_no_sink_where_it_is_large(looked):
    # of 5 frames of 64 tokens, in blocks of 32: two of four blocks
    assert looked[1]["first_frame"] == {"sink": False, "blocks": 2, "row_blocks": 4}


def test_the_brightest_of_a_row_is_its_greatest_mass():
    values = np.array([[0.1, 0.9], [0.6, 0.4]], np.float32)
    pixels = heat(values).astype(int).sum(-1)
    assert pixels.shape[0] >= 288
    last = pixels.shape[0] - 1
    assert pixels[0, last] > pixels[0, 0] and pixels[last, 0] > pixels[last, last]


class _View:
    """What `over_frames` reads of a view: the left half is kept, one token is the query."""

    covering = np.zeros((2, 2, 4), np.uint8)
    covering[:, :, :2] = 1
    covering[1, 0, 0] = 2


def test_what_is_not_kept_is_dark_and_the_query_is_yellow():
    pixels = over_frames(_View, np.full((5, 16, 32, 3), 0.8, np.float32))
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    bright, dark = round(0.8 * 255), round(0.8 * 0.22 * 255)
    assert (bright,) * 3 in colours and (dark,) * 3 in colours
    yellow = tuple(np.rint(0.45 * 0.8 * 255 + 0.55 * np.array(QUERY_COLOUR)).astype(int))
    assert any(np.abs(np.array(colour) - yellow).max() <= 1 for colour in colours)


def test_skipped_layers_are_bright_and_steps_that_did_not_run_are_left_out():
    pixels = sparsity([{"layer": 0, "steps": [1.0, 0.0, None]}])
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    assert KEPT_COLOUR in colours


REFUSED = {
    "query": (["--query", "1,2"], "--query must be FRAME,ROW,COLUMN, got '1,2'"),
    "outside": (["--query", "5,0,0"], "--query must lie in the grid of 5 x 8 x 8 tokens, got 5,0,0"),
    "layer": (["--layers", "0,99"], "--layers names a layer outside 0 to 5, got '0,99'"),
    "layers": (["--layers", ","], "--layers must name some of the layers 0 to 5, got ','"),
    "dense-layers": (["--dense-layers", "6"], "dense_layers names layer 6, the model has layers 0 to 5"),
    "method": (["--method", "magic"], "no method is called 'magic'"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "problem"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_clear_line(tmp_path, args, problem):
    result = rf(PROMPT, *SMALL, "-o", tmp_path / "out", *args)
    assert result.exit_code == 2, result.output
    assert result.stderr.splitlines()[0].startswith(f"error: {problem}")
    assert not (tmp_path / "out").exists()
