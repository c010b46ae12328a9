"""What an ablation says of one call, against attention computed the plain way."""

import pytest
import torch

from rainfusion_core.config import SparseConfig
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.recording import CapturedCall
from rainfusion_core.study.ablation import Examination, Variant, examine

VIDEO = TokenLayout((LatentGrid(5, 6, 7),))
PADDED = TokenLayout((Text(13), LatentGrid(4, 6, 7)))


def call(layout=VIDEO, lengths=None, heads=2):
    q, k, v = (torch.randn(1, heads, layout.tokens, 8) for _ in range(3))
    return CapturedCall(q * 3, k, v, layout, 8**-0.5, 1, "cond", "transformer", 0, lengths)


def config(**changes):
    return SparseConfig(**{"block_size": 16, "sink": False, "budget": "total", **changes})


def outcome(variant, captured=None):
    ((_, found),) = examine(call() if captured is None else captured, [variant])
    return found


def test_keeping_everything_recalls_everything_without_error():
    found = outcome(Variant("all", config(sparsity=0.0)))
    assert found.density == 1 and found.recall == pytest.approx(1) and found.error < 1e-5
    assert found.best_recall == pytest.approx(1) and found.unsupported is None


def test_recall_and_error_are_those_of_the_masked_softmax():
    captured = call(heads=1)
    found = outcome(Variant("half", config(sparsity=0.5, order="raster")), captured)
    weights = (captured.q @ captured.k.mT * captured.scale).softmax(-1)
    means = [
        torch.stack([b.mean(-2) for b in x.split(16, -2)], -2) for x in (captured.q, captured.k)
    ]
    scores = means[0] @ means[1].mT
    best = scores.topk(7, -1).indices  # half of 14 blocks
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
    tokens = mask.repeat_interleave(16, -1).repeat_interleave(16, -2)[..., :210, :210]
    assert found.recall == pytest.approx((weights * tokens).sum(-1).mean().item(), abs=1e-5)
    kept = (weights * tokens) / (weights * tokens).sum(-1, keepdim=True)
    dense = weights @ captured.v
    error = (kept @ captured.v - dense).norm() / dense.norm()
    assert found.error == pytest.approx(error.item(), rel=1e-3)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(
    "settings", [{}, {"mass": 0.9}, {"budget": "paper", "sink": True}], ids=str
)
def test_the_density_that_is_asked_for_is_reached_as_near_as_blocks_allow(settings, density):
    if settings.get("sink") and density < 0.5:
        pytest.skip("the first frame alone takes more")
    found = outcome(Variant("x", config(**settings), density))
    assert abs(found.density - density) <= 0.5 / 14 + 1e-6


def test_padding_is_neither_mass_nor_output():
    captured = call(PADDED, torch.tensor([PADDED.tokens - 9]))
    found = outcome(Variant("all", config(sparsity=0.0)), captured)
    assert found.recall == pytest.approx(1) and found.error < 1e-5


def test_a_layout_that_a_variant_cannot_take_is_said_and_not_counted():
    found = outcome(Variant("x", config(order="window")), call(TokenLayout((LatentGrid(4, 6, 7),))))
    assert "needs an even number of frames" in found.unsupported


def test_variants_come_one_by_one():
    variants = [Variant(str(s), config(sparsity=s)) for s in (0.3, 0.6)]
    seen = [(variant.name, found.density) for variant, found in examine(call(), variants)]
    assert [name for name, _ in seen] == ["0.3", "0.6"] and seen[0][1] > seen[1][1]


@pytest.mark.parametrize(("method", "times"), [("local", 2), ("rainfusion2", 1)])
def test_a_static_method_pays_what_a_later_call_does(monkeypatch, method, times):
    chosen, choose = [], Examination._choose
    monkeypatch.setattr(
        Examination, "_choose", lambda self, config: chosen.append(config) or choose(self, config)
    )
    Examination(call()).examine(Variant("x", config(method=method, sparsity=0.5)))
    assert len(chosen) == times and len({id(each) for each in chosen}) == 1
