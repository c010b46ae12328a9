"""The order, the storing and the measuring of a comparison; the renders themselves are stand-ins."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rainfusion_core import SparseConfig, compare
from rainfusion_core.compare import Arm
from rainfusion_core.errors import ConfigError, RainfusionError
from rainfusion_core.render import Clip, Rendered
from rainfusion_core.report import RenderReport, SparsityReport, StageTimes

CLIP = Clip(prompt="x", width=16, height=16, frames=3, steps=4, guidance=1.0, seed=0)
ARMS = [
    Arm("dense", SparseConfig(sparsity=0)),
    Arm("half", SparseConfig(sparsity=0.5, dense_steps=4)),
    Arm("most", SparseConfig(sparsity=0.9)),
]


class Memory(dict):
    def load(self, run):
        return self.get((run.arm.name, run.clip_index, run.repeat))

    def save(self, run, rendered):
        self[run.arm.name, run.clip_index, run.repeat] = rendered


@pytest.fixture
def renders(monkeypatch):
    """Every render that was asked for; the error of its frames grows with the sparsity."""
    seen = []

    def render(pipeline, clip, config, *, progress, measure_speed):
        seen.append((clip, config))
        frames = np.full((3, 16, 16, 3), 0.5 + config.sparsity / 10, np.float32)
        times = StageTimes(0.1, (0.5,) * clip.steps, 1.0, 0.2, 2.3)
        report = RenderReport(times, SparsityReport(config.sparsity, (), "", ""), 1)
        return Rendered(frames, report, np.ones((1, 2)) + config.sparsity)

    monkeypatch.setattr(compare, "render", render)
    return seen


def run(store=None, clips=(CLIP,), **options):
    return list(
        compare.compare(object, ARMS, clips, Memory() if store is None else store, **options)
    )


def test_dense_equals_itself_and_more_sparsity_is_further_away(renders):
    dense, half, most = (arm.metrics for arm in run()[0].arms)
    assert dense.psnr == math.inf and dense.latent_cosine == pytest.approx(1)
    assert half.psnr == pytest.approx(-20 * math.log10(0.05), abs=1e-3)
    assert most.psnr < half.psnr


def test_arms_take_turns_after_a_short_warm_up_without_dense_steps(renders):
    run(repeats=2)
    warm, timed = renders[:3], renders[3:]
    assert all(clip.steps == 2 and config.dense_steps == 0 for clip, config in warm)
    assert [config.sparsity for _, config in timed] == [0, 0.5, 0.9] * 2
    assert all(clip == CLIP for clip, _ in timed)


def test_every_repeat_is_reported(renders):
    assert [len(arm.reports) for arm in run(repeats=3)[0].arms] == [3, 3, 3]


def test_stored_runs_are_reused_and_the_model_is_not_loaded(renders):
    store = Memory()
    first = run(store)
    count = len(renders)

    def load():
        raise AssertionError("loaded")

    (again,) = compare.compare(load, ARMS, [CLIP], store)
    assert len(renders) == count and [arm.reused for arm in again.arms] == [1, 1, 1]
    assert [arm.metrics for arm in again.arms] == [arm.metrics for arm in first[0].arms]


def test_an_interruption_leaves_what_was_finished(renders):
    store = Memory()

    def interrupt(run):
        if run is not None and run.arm.name == "most":
            raise KeyboardInterrupt
        return lambda stage, step, steps: None

    with pytest.raises(KeyboardInterrupt):
        run(store, progress=interrupt)
    assert list(store) == [("dense", 0, 0), ("half", 0, 0)]
    assert [arm.reused for arm in run(store)[0].arms] == [1, 1, 0]


def test_clips_are_finished_one_after_the_other(renders):
    clips = [CLIP, replace(CLIP, seed=1)]
    assert [result.clip.seed for result in run(clips=clips)] == [0, 1]
    assert [clip.seed for clip, _ in renders[3:]] == [0, 0, 0, 1, 1, 1]


def test_two_arms_that_are_the_same_are_refused():
    with pytest.raises(ConfigError, match="two arms are the same: half and again"):
        compare.check_arms([*ARMS, Arm("again", ARMS[1].config)])


def test_the_noise_floor_is_dense_through_another_exact_kernel():
    arm = compare.noise_floor(SparseConfig(sparsity=0, dense_kernel="sdpa"), "cpu", torch.float32)
    assert (arm.name, arm.config.sparsity, arm.config.dense_kernel) == ("noise floor", 0, "blocks")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")]
)
def test_too_little_memory_is_one_line(monkeypatch, error):
    def render(*args, **kwargs):
        raise error

    monkeypatch.setattr(compare, "render", render)
    with pytest.raises(RainfusionError) as caught:
        run()
    assert str(caught.value) == "3 frames of 16x16 do not fit into the memory"


def test_other_errors_of_a_render_stay_what_they_are(monkeypatch):
    def render(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(compare, "render", render)
    with pytest.raises(RuntimeError, match="a bug"):
        run()
