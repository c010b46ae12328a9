import pytest
import torch

from rainfusion_core.config import SparseConfig
from rainfusion_core.layout import LatentGrid
from rainfusion_core.profiling.breakeven import BreakEven, break_even, crossing
from rainfusion_core.report import AttentionSpeed


def point(tokens, speedup):
    return AttentionSpeed(tokens, 2, 16, "float32", 1.0, speedup, "", "", 3)


def test_the_crossing_is_on_a_line_between_logarithms():
    assert crossing([point(100, 0.5), point(400, 2.0)]) == pytest.approx(200)
    assert crossing([point(100, 0.25), point(1000, 1.0)]) == pytest.approx(1000)


def test_the_last_crossing_counts():
    noisy = [point(100, 1.1), point(200, 0.5), point(800, 2.0), point(1600, 3.0)]
    assert crossing(noisy) == pytest.approx(400)


def test_there_is_no_crossing_outside_of_what_was_measured():
    assert crossing([point(100, 2.0), point(400, 3.0)]) is None
    assert crossing([point(100, 2.0), point(400, 0.9)]) is None


@pytest.mark.parametrize(
    ("tokens", "faster", "text"),
    [
        (3210.4, True, "about 3210 tokens"),
        (None, True, "below 100 tokens"),
        (None, False, "above 400 tokens"),
    ],
)
def test_the_text_says_where(tokens, faster, text):
    assert BreakEven(0.8, tokens, faster, (point(100, 1), point(400, 1))).text == text


def test_smaller_grids_are_measured_and_the_known_call_is_last():
    found = break_even(
        LatentGrid(3, 16, 16),
        SparseConfig(sparsity=0.9, block_size=16),
        point(768, 2.0),
        device=torch.device("cpu"),
        ladder=(100, 300, 768, 5000),
    )
    assert [each.tokens for each in found.points] == [108, 300, 768]
    assert found.sparse_is_faster and found.sparsity == 0.9
