import pytest
import torch

from rainfusion_core import fused
from rainfusion_core.attention import sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.profiling.parts import DENSE, KERNEL, PERMUTE, RESTORE, SELECT, PartTimer
from rainfusion_core.profiling.phases import PhasedAttention

LAYOUT = TokenLayout((LatentGrid(3, 5, 7), Text(6)))
CONFIG = SparseConfig(sparsity=0.6, block_size=16)


def attention(config):
    return PhasedAttention(PartTimer(torch.device("cpu")), LAYOUT, config)


def qkv():
    return [torch.randn(1, 2, LAYOUT.tokens, 16) for _ in range(3)]


@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("order", ["compact", "raster"])
def test_phases_give_what_sparse_attention_gives(order, kernel):
    config = SparseConfig(sparsity=0.6, block_size=16, order=order, kernel=kernel)
    q, k, v = qkv()
    phased = attention(config)
    out = phased.attend(0, q, k, v, None, 0.25)
    whole, kept = sparse_attention(q, k, v, LAYOUT, config, scale=0.25)
    assert torch.equal(out, whole) and torch.equal(phased.kept.index, kept.index)


def test_each_phase_is_timed():
    phased = attention(SparseConfig(sparsity=0.6, block_size=16, kernel="reference"))
    phased.attend(0, *qkv(), None, 0.25)
    assert set(phased.timer.take().outside) == {PERMUTE, SELECT, KERNEL, RESTORE}


def test_kernels_that_take_tokens_from_where_they_lie_have_nothing_to_restore():
    phased = attention(CONFIG)
    phased.attend(0, *qkv(), None, 0.25)
    assert set(phased.timer.take().outside) == {PERMUTE, SELECT, KERNEL}
    assert phased.kernel in ("c-blocks", "torch-blocks")


def test_sparsity_zero_is_the_dense_kernel():
    phased = attention(SparseConfig(sparsity=0))
    q, k, v = qkv()
    out = phased.attend(0, q, k, v, None, 0.25)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.25)
    torch.testing.assert_close(out, dense)
    assert set(phased.timer.take().outside) == {DENSE}


def test_a_call_that_cannot_be_served_is_an_error():
    with pytest.raises(UnsupportedLayout, match="cannot be profiled: causal"):
        attention(CONFIG).left_dense(0, torch.zeros(1), "causal")


def test_phases_of_fused_steps_give_what_the_whole_gives(monkeypatch):
    """As on a GPU: the kernel gathers, so there is no phase of restoring."""
    pytest.importorskip("triton")
    monkeypatch.setattr(fused, "can_fuse", lambda method, call, kernel, device: True)
    config = SparseConfig(sparsity=0.6, block_size=16, kernel="triton-blocks")
    q, k, v = qkv()
    phased = attention(config)
    out = phased.attend(0, q, k, v, None, 0.25)
    assert set(phased.timer.take().outside) == {PERMUTE, SELECT, KERNEL}
    whole, kept = sparse_attention(q, k, v, LAYOUT, config, scale=0.25)
    assert torch.equal(out, whole) and torch.equal(phased.kept.index, kept.index)
