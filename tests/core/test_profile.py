from dataclasses import replace

import pytest
import torch

from rainfusion_core import profile as profiling
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid
from rainfusion_core.profile import Architecture, Arm, StepProfile, Workload, build, profile
from rainfusion_core.profiling.parts import KERNEL, PARTS, RESTORE, PartTimes
from tests import pipelines

CONFIG = dict(pipelines.wan_transformer(layers=3).config)
TINY = Architecture(
    class_name="WanTransformer3DModel",
    config={key: value for key, value in CONFIG.items() if not key.startswith("_")},
)
WORK = Workload(
    architecture=TINY, latents=(5, 16, 24), tokens=480, text_tokens=16,
    dtype=torch.float32, device=torch.device("cpu"),
)  # fmt: skip
SPARSE = [SparseConfig(sparsity=each, block_size=16) for each in (0.5, 0.9)]


@pytest.fixture(scope="module")
def profiled():
    return profile(WORK, SPARSE)


def test_parts_of_every_arm_sum_to_its_measured_pass(profiled):
    # a busy machine may stop the process between the two clocks, so only the best arm is held to 5 %
    shares = [arm.parts.total / arm.seconds for arm in profiled.arms]
    assert all(0.5 < share <= 1 for share in shares)
    assert max(shares) > 0.95


def test_the_first_arm_is_dense_and_the_others_are_as_asked(profiled):
    assert [arm.sparsity for arm in profiled.arms] == [0, 0.5, 0.9]
    dense, half, most = profiled.arms
    assert dense.density == 1 > half.density > most.density > 0
    assert KERNEL in half.parts.layers and KERNEL not in dense.parts.layers
    measured = set(half.parts.layers) | set(dense.parts.layers)
    assert measured == set(PARTS) - {RESTORE}  # kernels for CPUs write in the model's order


def test_a_small_model_runs_all_its_layers_and_its_grid_is_found(profiled):
    assert (profiled.layers, profiled.layers_run, profiled.cut) == (3, 3, None)
    assert profiled.layout.grids == (LatentGrid(5, 8, 12),)
    assert all(len(arm.seconds_of_all) in range(1, 6) for arm in profiled.arms)


def test_fewer_layers_are_extrapolated_to_all():
    dense = Arm(0, "sdpa", 1.0, 1.0, PartTimes({"attention: dense": 0.4}, {"rest": 0.1}), (1.0,))
    found = StepProfile((dense,), 30, 2, None, None)
    assert found.attention_seconds(dense) == pytest.approx(6.0)
    assert found.rest_seconds() == pytest.approx(0.1)
    call = replace(found, layout=pipelines_layout()).call(dense, heads=2, head_dim=8, dtype="x")
    assert call.dense_ms == pytest.approx(200.0) and call.speedup == 1


def pipelines_layout():
    from rainfusion_core.layout import TokenLayout

    return TokenLayout((LatentGrid(5, 8, 12),))


def test_a_given_transformer_is_left_as_it_was():
    model = pipelines.wan_transformer(layers=1)
    processor = model.blocks[0].attn1.processor
    profile(replace(WORK, layers=1), SPARSE[:1], transformer=model, seconds=0)
    assert model.blocks[0].attn1.processor is processor
    assert not model._forward_hooks and not model.blocks[0]._forward_hooks


def test_no_round_is_begun_that_would_end_too_late():
    found = profile(replace(WORK, layers=1), SPARSE[:1], seconds=0)
    assert [len(arm.seconds_of_all) for arm in found.arms] == [1, 1]


def test_only_the_layers_to_run_are_built():
    assert len(build(replace(WORK, layers=2)).blocks) == 2


def test_what_does_not_fit_is_cut_and_said(monkeypatch):
    one = 4 * (profiling.parameter_count(TINY.class_name, TINY.with_layers(1).config))
    rest = profiling.activation_bytes(480, 32, 64, 4)
    monkeypatch.setattr(profiling, "free_bytes", lambda device: int((one + rest) / 0.9) + 100)
    assert profiling.layers_that_fit(WORK) == (
        1, "1 of the 3 layers fit into the memory of cpu",
    )  # fmt: skip


def test_memory_too_small_for_one_layer_is_an_error(monkeypatch):
    monkeypatch.setattr(profiling, "free_bytes", lambda device: 1000)
    with pytest.raises(ConfigError, match="memory is too small for 480 tokens on cpu: one layer"):
        profile(WORK, SPARSE)


@pytest.mark.parametrize("layers", [0, 4])
def test_layers_that_the_model_does_not_have_are_refused(layers):
    with pytest.raises(ConfigError, match=r"layers must be in \[1, 3\]"):
        profiling.layers_that_fit(replace(WORK, layers=layers))


def test_progress_counts_every_pass():
    seen = []
    profile(
        replace(WORK, layers=1), SPARSE[:1], seconds=0, progress=lambda *event: seen.append(event)
    )
    assert [step for _, step, _ in seen] == [0, 1, 2, 3]


def test_defaults_of_the_class_fill_what_the_architecture_leaves_out():
    wan = Architecture(class_name="WanTransformer3DModel", config={"num_layers": 30})
    assert (wan.layers, wan.heads, wan.head_dim) == (30, 40, 128)


@pytest.mark.parametrize(
    ("class_name", "config", "sample", "kinds"),
    [
        ("WanTransformer3DModel", {"num_layers": 30}, 2, {"num_layers": 2}),
        (
            "HunyuanVideoTransformer3DModel",
            {"num_layers": 20, "num_single_layers": 40},
            3,
            {"num_layers": 1, "num_single_layers": 2},
        ),
        (
            "WanVACETransformer3DModel",
            {"num_layers": 40, "vace_layers": [0, 5, 10, 15, 20, 25, 30, 35]},
            6,
            {"num_layers": 5, "vace_layers": 1},
        ),
        (
            "Kandinsky5Transformer3DModel",
            {"num_visual_blocks": 32, "axes_dims": (16, 24, 24), "model_dim": 1792},
            2,
            {"num_visual_blocks": 2},
        ),
    ],
)
def test_a_sample_has_each_kind_of_layer_in_proportion(class_name, config, sample, kinds):
    model = Architecture(class_name=class_name, config=config)
    assert model.sample == sample
    assert model.with_layers(sample).kinds == kinds
    assert model.with_layers(model.layers).kinds == model.kinds


def test_heads_and_patches_are_read_from_each_familys_settings():
    kandinsky = Architecture(
        class_name="Kandinsky5Transformer3DModel",
        config={"axes_dims": (16, 24, 24), "model_dim": 1792, "patch_size": (1, 2, 2)},
    )
    assert (kandinsky.heads, kandinsky.head_dim, kandinsky.patch) == (28, 64, (1, 2, 2))
    joins_frames = {"patch_size": 2, "patch_size_t": 2}
    cog = Architecture(class_name="CogVideoXTransformer3DModel", config=joins_frames)
    assert cog.patch == (2, 2, 2)
    assert Architecture(class_name="QwenImageTransformer2DModel", config={}).patch == (1, 1, 1)
