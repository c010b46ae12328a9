"""Every task through the command, on tiny random pipelines in folders: right files, and sparse attention called."""

import json

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rainfusion_core.metrics import psnr
from rainfusion_core.shapes import world
from rainfusion_core.shapes.drawing import draw
from rf_cli import media
from rf_cli.app import app
from rf_cli.montage import pixels_of
from tests import image_pipelines, ltx_pipelines, pipelines

SMALL = ["--size", "96x64", "--steps", "3", "--dense-steps", "0", "--kernel", "torch-blocks"]


def image_to_video():
    """As Wan 2.2: the picture enters through its latents alone."""
    from diffusers import WanImageToVideoPipeline

    torch.manual_seed(0)
    return WanImageToVideoPipeline(
        *pipelines.wan_parts(), transformer=pipelines.wan_transformer(in_channels=36)
    )


def first_last_frame():
    """As Wan 2.1 FLF2V: an encoder reads both pictures too."""
    from diffusers import WanImageToVideoPipeline

    torch.manual_seed(0)
    transformer = pipelines.wan_transformer(
        in_channels=36, image_dim=8, added_kv_proj_dim=32, pos_embed_seq_len=10
    )
    return WanImageToVideoPipeline(
        *pipelines.wan_parts(), *pipelines.image_parts(), transformer=transformer
    )


def kontext():
    """It scales its reference to a megapixel, so a token has to be 16x16 pixels as in FLUX.1."""
    return image_pipelines.flux("FluxKontextPipeline", vae_blocks=4)


MODELS = {
    "wan": pipelines.wan,
    "i2v": image_to_video,
    "flf": first_last_frame,
    "vace": pipelines.vace,
    "flux": image_pipelines.flux,
    "kontext": kontext,
    "ltx2": ltx_pipelines.ltx2,
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


@pytest.fixture
def last_picture(tmp_path):
    path = tmp_path / "end.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)).save(path)
    return str(path)


def rf(*args, prompt="a red circle"):
    result = CliRunner().invoke(app, ["generate", prompt, *map(str, args), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def write_noise(path, *, seed):
    frames = np.random.default_rng(seed).random((9, 64, 96, 3), np.float32)
    media.write_video(path, frames, fps=8, settings={})


def test_a_video_starts_from_a_picture(model, picture, last_picture, tmp_path):
    out = tmp_path / "out.mp4"
    other = tmp_path / "other.mp4"
    args = ["-m", model("i2v"), *SMALL, "--frames", "9"]
    record = rf(*args, "--image", picture, "-o", out)
    rf(*args, "--image", last_picture, "-o", other)
    frames = media.read_video(out)[0]
    assert frames.shape == (9, 64, 96, 3)
    assert abs(frames - media.read_video(other)[0]).max() > 0.01
    assert record["settings"]["pipeline"] == "WanImageToVideoPipeline"
    assert record["settings"]["given"]["image"].startswith("start.png ")
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] == 3 * 2 * 3


def test_the_embedded_model_begins_with_the_picture(tmp_path):
    """Its weights are trained, so the first frame has to be the picture, and a scene's own rather than another's."""
    pictures, frames = [], {}
    for number in range(2):
        prompt, _, scene = world.held_out(number)
        pictures.append(draw(scene, 17, 64, 64)[:, 0].permute(1, 2, 0).numpy() / 2 + 0.5)
        start, out = tmp_path / f"{number}.png", tmp_path / f"{number}.mp4"
        media.write_image(start, pixels_of(pictures[number]))
        args = ["--size", "64x64", "--frames", "17", "--steps", "6", "--image", start, "-o", out]
        record = rf(*args, prompt=prompt)
        frames[number] = media.read_video(out)[0]
        assert record["settings"]["pipeline"] == "WanImageToVideoPipeline"
    for number, picture in enumerate(pictures):
        own, other = (psnr(frames[i][:1], picture[None]) for i in (number, 1 - number))
        assert own > 20 and own > other + 6


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


def test_a_video_leads_from_the_first_picture_to_the_last(model, picture, last_picture, tmp_path):
    out, other = tmp_path / "out.mp4", tmp_path / "other.mp4"
    args = ["-m", model("flf"), *SMALL, "--frames", "9", "--image", picture]
    record = rf(*args, "--last-image", last_picture, "-o", out)
    assert record["settings"]["pipeline"] == "WanImageToVideoPipeline"
    assert record["settings"]["given"]["last_image"].startswith("end.png ")
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] == 3 * 2 * 3
    rf(*args, "--last-image", picture, "-o", other)
    frames, others = media.read_video(out)[0], media.read_video(other)[0]
    assert frames.shape == (9, 64, 96, 3) and abs(frames - others).max() > 0.01


def test_vace_is_given_a_video_to_change(model, tmp_path):
    start, changed, out, other = (tmp_path / f"{name}.mp4" for name in ("start", "b", "c", "d"))
    args = ["-m", model("vace"), *SMALL, "--frames", "9"]
    write_noise(start, seed=0)
    write_noise(changed, seed=1)
    record = rf(*args, "-o", out, "--video", start)
    rf(*args, "-o", other, "--video", changed)
    frames = media.read_video(out)[0]
    assert frames.shape == (9, 64, 96, 3)
    assert abs(frames - media.read_video(other)[0]).max() > 0.01
    assert record["settings"]["pipeline"] == "WanVACEPipeline"
    assert record["settings"]["given"]["video"].startswith("start.mp4 ")
    # three layers, and two blocks that read the video
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] == 3 * 2 * (3 + 2)


def test_an_image_is_edited(model, picture, last_picture, tmp_path):
    out, other = tmp_path / "out.png", tmp_path / "other.png"
    args = ["-m", model("kontext"), *SMALL]
    record = rf(*args, "-o", out, "--image", picture)
    rf(*args, "-o", other, "--image", last_picture)
    pixels, others = (np.asarray(Image.open(path)).astype(int) for path in (out, other))
    assert pixels.shape == (64, 96, 3) and abs(pixels - others).max() > 2
    assert record["settings"]["pipeline"] == "FluxKontextPipeline"
    assert record["settings"]["given"]["image"].startswith("start.png ")
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] == 3 * 4


def test_a_video_has_the_sound_that_its_model_makes(model, tmp_path):
    out = tmp_path / "out.mp4"
    args = ["-m", model("ltx2"), *SMALL, "--size", "96x32", "--frames", "9", "-o", out]
    record = rf(*args)
    sound = record["sound"]
    assert (sound["rate"], sound["channels"]) == (24_000, 2) and sound["seconds"] > 0
    assert next(imageio_ffmpeg.read_frames(str(out)))["audio_codec"] == "aac"
    assert record["sparsity"]["sparse_calls"] == record["sparsity"]["calls"] > 0
