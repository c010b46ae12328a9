"""Every task through the command, on tiny random pipelines in folders: right files, and sparse attention called."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rf_cli import media
from rf_cli.app import app
from tests import image_pipelines, pipelines

SMALL = ["--size", "96x64", "--steps", "3", "--dense-steps", "0", "--kernel", "torch-blocks"]


def image_to_video():
    """As Wan 2.2: the picture enters through its latents alone."""
    from diffusers import WanImageToVideoPipeline

    torch.manual_seed(0)
    return WanImageToVideoPipeline(
        *pipelines.wan_parts(), transformer=pipelines.wan_transformer(in_channels=36)
    )


MODELS = {
    "wan": pipelines.wan,
    "i2v": image_to_video,
    "flux": image_pipelines.flux,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folders = {}

    def saved(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            MODELS[name]().save_pretrained(folders[name])
        return str(folders[name])

    return saved


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "start.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)).save(path)
    return str(path)


def rf(*args):
    result = CliRunner().invoke(app, ["generate", "a red circle", *map(str, args), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_video_starts_from_a_picture(model, picture, tmp_path):
    out = tmp_path / "out.mp4"
    args = ["-m", model("i2v"), *SMALL, "--frames", "9", "-o", out]
    record = rf(*args, "--image", picture)
    assert media.read_video(out)[0].shape == (9, 64, 96, 3)
    assert record["settings"]["pipeline"] == "WanImageToVideoPipeline"
    assert record["settings"]["given"]["image"].startswith("start.png ")
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] == 3 * 2 * 3


def test_a_video_is_made_from_a_video(model, tmp_path):
    out, again = tmp_path / "out.mp4", tmp_path / "again.mp4"
    args = ["-m", model("wan"), *SMALL, "--frames", "9"]
    rf(*args, "-o", out)
    record = rf(*args, "-o", again, "--video", out, "--strength", "0.7")
    assert media.read_video(again)[0].shape == (9, 64, 96, 3)
    assert record["settings"]["pipeline"] == "WanVideoToVideoPipeline"
    # of three steps, a strength of 0.7 leaves two
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] == 2 * 2 * 3


def test_an_image_is_made_of_a_text(model, tmp_path):
    out = tmp_path / "out.png"
    record = rf("-m", model("flux"), *SMALL, "-o", out, "--cache", "taylor:2")
    with Image.open(out) as image:
        assert image.size == (96, 64)
        assert json.loads(image.text["comment"])["prompt"] == "a red circle"
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] > 0
