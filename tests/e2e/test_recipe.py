"""The recipe of `shapes`: each of its losses is learned from, and a few seconds of it end in a folder that renders."""

import json
import os
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rainfusion_core import SparseConfig
from rainfusion_core.pipeline import ModelSource, load
from rainfusion_core.render import Clip, render
from rainfusion_core.shapes import world
from rf_cli import presets

SHAPES = presets.FOLDER / "shapes"
STEPS = 20


@pytest.fixture
def recipe(monkeypatch):
    """Imports a module of the recipe, and forgets it: their names are too common to stay."""
    monkeypatch.syspath_prepend(SHAPES)
    before = set(sys.modules)
    yield import_module
    for name in {path.stem for path in SHAPES.glob("*.py")} - before:
        sys.modules.pop(name, None)


def test_the_recipe_trains_on_the_positions_that_the_preset_renders_with(recipe):
    assert presets.load("shapes").model.trained_grid == recipe("parts").TRAINED_GRID


def learned(optimizer, loss_of):
    """Loss before and after a few steps on the same batch."""
    losses = []
    for _ in range(STEPS):
        torch.manual_seed(0)  # the same noise
        loss = loss_of()
        loss.backward()
        optimizer.step(1.0)
        losses.append(loss.item())
    return losses[0], losses[-1]


def test_the_vae_learns_a_batch(recipe):
    vae, training = recipe("parts").build_vae(), recipe("train_vae")
    x = training.windows(random.Random(0), 2, 1, 32)
    first, last = learned(
        recipe("optimiser").Optimizer(vae, 2e-3), lambda: training.vae_loss(vae, x)[0]
    )
    assert last < 0.7 * first


@pytest.mark.parametrize(("batch", "heads", "tokens"), [(1, 3, 640), (3, 3, 384), (1, 1, 128)])
@pytest.mark.parametrize(("name", "bound"), [("tile_attention", 0.01), ("matmul_attention", 0.03)])
def test_attention_for_training_has_the_gradients_of_softmax_attention(
    recipe, name, bound, batch, heads, tokens
):
    module = recipe(name)
    if name == "tile_attention" and module.library() is None:
        pytest.skip("a CPU without AMX, or no C compiler")
    numbers = [torch.randn(batch, tokens, heads, 64).bfloat16() for _ in "qkvg"]
    numbers[0] *= 3  # so that few keys have most of the attention

    def gradients(attend, dtype):
        q, k, v, d_out = (x.detach().to(dtype, copy=True).requires_grad_() for x in numbers)
        attend(q, k, v).backward(d_out)
        return [x.grad.double() for x in (q, k, v)]

    def exact(q, k, v):
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)

    found = gradients(getattr(module, name), torch.bfloat16)
    for own, true in zip(found, gradients(exact, torch.float64), strict=True):
        assert (own - true).norm() < bound * true.norm()


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_transformer_learns_a_batch(recipe):
    transformer, training = recipe("parts").build_transformer(), recipe("train_transformer")
    latents, covers = torch.randn(2, 16, 2, 4, 4), torch.rand(2, 1, 2, 4, 4)
    text = torch.randn(2, 32, recipe("parts").TEXT_WIDTH)
    first, last = learned(
        recipe("optimiser").Optimizer(transformer, training.PLANS["transformer"][1]),
        lambda: training.flow_loss(transformer, latents, latents, covers, text),
    )
    assert last < 0.8 * first


def test_the_transformer_of_image_to_video_begins_where_that_of_text_to_video_ends(recipe):
    parts = recipe("parts")
    transformer = parts.build_transformer().eval()
    latents, condition = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 20, 2, 4, 4)
    rest = {
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 32, parts.TEXT_WIDTH),
        "return_dict": False,
    }
    both = torch.cat([latents, condition], dim=1)
    with torch.no_grad():
        plain = transformer(hidden_states=latents, **rest)[0]
        given = parts.with_image(transformer)(hidden_states=both, **rest)[0]
    assert torch.allclose(plain, given, atol=1e-5)


def test_a_run_keeps_its_first_normalisation_when_its_cache_grows(recipe, tmp_path):
    run = recipe("run").Run(tmp_path, torch.device("cpu"), 1.0, 0, {})
    first, more = ({"latents": torch.randn(2, 16, 1, 4, 4) + shift} for shift in (0.0, 9.0))
    known = recipe("latents").statistics_of(run, first)
    again = recipe("latents").statistics_of(run, more)
    assert all(torch.equal(known[key], again[key]) for key in ("mean", "std"))
    assert known["mean"].abs().max() < 5


def test_a_clip_whose_caption_is_told_may_show_another_outline_and_no_other_does(recipe):
    latents = recipe("latents")
    found = {
        "latents": torch.zeros(8, 16, 1, 2, 2),
        "twins": torch.ones(4, 16, 1, 2, 2),
        "covers": torch.zeros(8, 1, 1, 2, 2),
        "captions": [[f"{number}", f"{number}"] for number in range(8)],
    }
    statistics = {"mean": torch.zeros(16), "std": torch.ones(16)}

    def embedding(texts):  # the number of the clip, and -1 for no caption
        return torch.tensor([float(text or -1) for text in texts]).view(-1, 1, 1)

    torch.manual_seed(0)
    batch = latents.sampler(found, statistics, embedding, torch.device("cpu"))(400)
    number, shown = batch.text.flatten(), batch.shown.flatten(1)
    assert (shown == shown[:, :1]).all() and (batch.latents == 0).all()
    contradicted = shown[:, 0] > 0
    assert shown[contradicted].min() >= latents.LEAST_SHOWN and shown.max() <= 1
    assert (number[contradicted] % 2 == 0).all() and (number[contradicted] >= 0).all()
    told = (number % 2 == 0) & (number >= 0)
    assert 0.65 < contradicted[told].float().mean() < 0.95


def test_a_contradicted_clip_is_neither_nearly_clean_nor_all_noise(recipe):
    training = recipe("train_transformer")
    torch.manual_seed(0)
    contradicted = torch.arange(2000) % 2 == 0
    levels = training.noise_levels(contradicted, 16)
    assert levels[contradicted].min() >= training.LEAST
    assert levels[contradicted].max() <= training.GREATEST
    assert (
        levels[~contradicted].min()
        < training.LEAST
        < training.GREATEST
        < levels[~contradicted].max()
    )


def test_where_another_outline_is_shown_the_flow_leads_to_the_one_that_was_asked_for(recipe):
    asked, shown = torch.randn(2, 16, 1, 2, 2), torch.randn(2, 16, 1, 2, 2)

    def oracle(hidden_states, timestep, **_):
        return ((hidden_states - asked) / (timestep / 1000).view(-1, 1, 1, 1, 1),)

    training = recipe("train_transformer")
    covers, text = torch.zeros(2, 1, 1, 2, 2), torch.zeros(2, 1, 1)
    for evidence in (asked, shown):
        assert training.flow_loss(oracle, asked, evidence, covers, text) < 1e-8
    assert training.flow_loss(oracle, shown, asked, covers, text) > 0.1


def test_the_same_noise_hides_less_of_a_large_clip_so_it_gets_more(recipe):
    levels = recipe("train_transformer").noise_levels
    found = []
    for width in (16, 32):
        torch.manual_seed(0)
        found.append(levels(torch.zeros(2000, dtype=torch.bool), width))
    small, large = found
    assert (large > small).all() and (large < 1).all()
    assert torch.allclose(large / (1 - large), 2 * small / (1 - small), rtol=1e-3)


def test_hard_scenes_are_preferred_and_the_others_still_there(recipe):
    latents, rng = recipe("latents"), random.Random(0)

    def share(draw, frames):
        return np.mean([latents.is_hard(draw(), frames) for _ in range(500)])

    for frames in (1, 33):
        preferred = share(lambda n=frames: latents.hard_scene(n, rng), frames)
        usual = share(lambda: world.random_scene(rng), frames)
        assert usual + 0.1 < preferred < 1


def test_a_twin_has_another_outline_or_another_motion_and_a_picture_another_outline(recipe):
    latents, rng = recipe("latents"), random.Random(0)
    for frames in (1, 33):
        scenes = [world.random_scene(rng) for _ in range(200)]
        twins = [latents.twin(scene, frames, rng) for scene in scenes]
        pairs = [(a.subjects[0], b.subjects[0]) for a, b in zip(scenes, twins, strict=True)]
        assert all((a.shape != b.shape) != (a.motion != b.motion) for a, b in pairs)
        moved = sum(a.motion != b.motion for a, b in pairs)
        assert moved == 0 if frames == 1 else 20 < moved < 80


def train(program, *arguments):
    path = os.pathsep.join(filter(None, [str(presets.FOLDER.parent), os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-W", "ignore", SHAPES / program, *arguments],
        check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train("train.py", "--minutes", "0.1", "--run", folder, "--out", folder / "pipeline")
    return folder


def test_training_on_changes_the_transformer_of_text_to_video_and_nothing_else(run, tmp_path):
    before, after = run / "pipeline", tmp_path / "pipeline"
    train("train_on.py", before, "--minutes", "0.02", "--run", tmp_path / "on", "--out", after)
    files = [path.relative_to(before) for path in before.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(p.relative_to(after) for p in after.rglob("*") if p.is_file())
    changed = [str(f) for f in files if (before / f).read_bytes() != (after / f).read_bytes()]
    assert [name for name in changed if name.endswith(".safetensors")] == [
        str(Path("transformer", "diffusion_pytorch_model.safetensors"))
    ]
    half, full = (
        load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
        for folder in (after, before)
    )
    assert half.keys() == full.keys()
    assert all(tensor.isfinite().all() for tensor in half.values())


def test_every_stage_is_logged_and_has_a_checkpoint(run):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    assert {row["stage"] for row in rows} >= {"text", "cache", "transformer"}
    assert all(
        (run / f"{stage}.pt").is_file()
        for stage in ("text", "vae", "transformer", "transformer-image")
    )


def test_what_it_writes_is_a_pipeline_that_renders(run):
    source = ModelSource(location=str(run / "pipeline"), dtype="float32", device="cpu")
    clip = Clip(
        prompt="a red circle", width=64, height=64, frames=5, steps=2, guidance=3.0, seed=0,
        extra={"max_sequence_length": 32},
    )  # fmt: skip
    frames = render(load(source), clip, SparseConfig(sparsity=0.0), measure_speed=False).frames
    assert frames.shape == (5, 64, 64, 3) and np.isfinite(frames).all() and frames.std() > 0
