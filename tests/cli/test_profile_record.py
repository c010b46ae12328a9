import pytest

from rainfusion_core.config import SparseConfig
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.profile import Arm, StepProfile
from rainfusion_core.profiling.parts import DENSE, KERNEL, PERMUTE, REST, PartTimes
from rainfusion_core.profiling.prediction import Render
from rf_cli import presets, profile_record
from rf_cli.requests import architecture_of

LAYOUT = TokenLayout((LatentGrid(17, 16, 16),))


def arm(sparsity, density, **attention):
    parts = PartTimes({**attention, REST: 0.5}, {REST: 1.0})
    return Arm(sparsity, "kernel", density, parts.total, parts, (parts.total,))


# two of four layers: a pass has 2 s of rest, dense attention of 8 s becomes 2 s
PROFILE = StepProfile(
    (arm(0, 1.0, **{DENSE: 4.0}), arm(0.8, 0.2, **{KERNEL: 0.8, PERMUTE: 0.2})),
    4, 2, None, LAYOUT,
)  # fmt: skip
CONFIG = SparseConfig(sparsity=0.8, dense_steps=2)


def test_predictions_by_hand():
    every, scheduled = profile_record.predictions(PROFILE, [CONFIG], 10, 2)
    assert every["dense_s"] == scheduled["dense_s"] == pytest.approx(20 * 10)
    assert every["denoising_s"] == pytest.approx(20 * 4) and every["speedup"] == pytest.approx(2.5)
    assert scheduled["denoising_s"] == pytest.approx(4 * 10 + 16 * 4)
    assert every["attention_speedup"] == pytest.approx(4)


def test_a_config_without_dense_steps_is_predicted_once():
    rows = profile_record.predictions(PROFILE, [SparseConfig(sparsity=0.8)], 10, 2)
    assert len(rows) == 1


def test_sparsity_needed_grows_with_the_target():
    render = Render(steps=10, passes=2, sparse_share=1.0)
    least = profile_record.needed(PROFILE, SparseConfig(), render)
    assert 0 < least["1.5"] < least["2"] < 1


def test_arms_hold_the_estimate_for_all_layers():
    dense, sparse = profile_record.arms(PROFILE, [CONFIG])
    assert dense["sum_of_parts_s"] == 5.5 and dense["estimate_all_layers_s"] == 10
    assert (dense["method"], sparse["method"]) == (None, CONFIG.method)
    # 34 blocks of 128, frames of 2: they would be 2 of 7 + 2
    assert dense["first_frame"] is None
    assert sparse["first_frame"] == {"sink": True, "blocks": 2, "row_blocks": 9}
    assert sparse["parts_s"] == {KERNEL: 0.8, PERMUTE: 0.2, REST: 1.5}


def test_memory_of_a_size_is_weights_and_activations():
    wan = presets.load("wan2.1-1.3b")
    row = profile_record.sizes(wan, architecture_of(wan), itemsize=2)[0]
    assert (row["size"], row["tokens"]) == ("832x480", 32760)
    assert row["weights_gib"] == pytest.approx(2.64, abs=0.01)
    # 3 x 1536 + 2 x 8960 values of two bytes, and 2 x 1536 of four
    assert row["activations_gib"] == pytest.approx(32760 * (2 * 22528 + 12288) / 2**30)


def test_the_density_by_formula_pins_the_first_frame_only_where_it_is_a_small_share():
    layout = TokenLayout((LatentGrid(10, 4, 8),))
    found = {
        sparsity: profile_record._expected_density(
            layout, SparseConfig(sparsity=sparsity, block_size=16)
        )
        for sparsity in (0.5, 0.8)
    }
    # 2 of 20 rows are dense; the others keep 2 blocks and, of 10 chosen at random, 9 more; or 4 of 20
    assert found == {0.5: pytest.approx((2 * 20 + 18 * 11) / 400), 0.8: pytest.approx(0.2)}
