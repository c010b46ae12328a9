"""The fused steps against the single ones, in Triton's interpreter, and what memory they take."""

import gc

import pytest
import torch

from rainfusion_core import attention as plain
from rainfusion_core import fused
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import KERNELS
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selectors import SELECTORS, Call
from tests.peak_memory import PeakMemory
from tests.selecting import call_of
from tests.shapes import DEVICE

pytest.importorskip("triton")
LAYOUTS = {
    "video-and-text": TokenLayout((LatentGrid(2, 6, 7), Text(12))),
    "text-first": TokenLayout((Text(21), LatentGrid(3, 5, 5))),
    "image": TokenLayout((LatentGrid(1, 9, 11),)),
}
LAYOUT = pytest.mark.parametrize(
    "layout", [pytest.param(x, id=name) for name, x in LAYOUTS.items()]
)
TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3}


def qkv(layout: TokenLayout, dtype=torch.float32, heads=2, key_heads=1, head_dim=32, batch=1):
    """As models have them: heads between tokens and head_dim in memory."""
    sizes = [(batch, layout.tokens, h, head_dim) for h in (heads, key_heads, key_heads)]
    return [torch.randn(size, device=DEVICE).to(dtype).transpose(1, 2) for size in sizes]


def both(q, k, v, layout: TokenLayout, lengths=None, **settings):
    """Output and kept blocks of the single steps, and of the fused ones."""
    config = SparseConfig(block_size=16, **settings)
    single = plain.sparse_attention(
        q, k, v, layout, SparseConfig(block_size=16, kernel="reference", **settings),
        key_lengths=lengths,
    )  # fmt: skip
    method = SELECTORS[config.method]
    call = Call(layout, method.complete(config), q.shape[-1] ** -0.5, lengths)
    order = method.ordered(q, k, call)
    return single, fused.attention(q, k, v, order, method, call, KERNELS["triton-blocks"])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@LAYOUT
def test_fused_steps_give_what_single_ones_give(layout: TokenLayout, dtype: torch.dtype):
    q, k, v = qkv(layout, dtype)
    (expected, single), (out, kept) = both(q, k, v, layout, sparsity=0.7)
    assert torch.equal(kept.count, single.count)
    bound = TOLERANCES[dtype]
    torch.testing.assert_close(out, expected, atol=bound, rtol=bound)
    assert out.stride() == q.stride()


@pytest.mark.parametrize("budget", ["paper", "total"])
def test_fused_steps_leave_padding_out(budget: str):
    layout = LAYOUTS["video-and-text"]
    q, k, v = qkv(layout, batch=2)
    lengths = torch.tensor([layout.tokens - 9, layout.tokens], device=DEVICE)
    (expected, single), (out, kept) = both(
        q, k, v, layout, lengths, sparsity=0.6, budget=budget, sink=False
    )
    assert torch.equal(kept.count, single.count)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)


def test_the_correction_can_be_fused_too():
    layout = LAYOUTS["text-first"]
    q, k, v = qkv(layout, batch=2)
    lengths = torch.tensor([layout.tokens - 25, layout.tokens], device=DEVICE)
    (expected, single), (out, kept) = both(
        q, k, v, layout, lengths, sparsity=0.8, sink=False, correction="pooled"
    )
    assert torch.equal(kept.count, single.count)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)


def test_a_mass_target_can_be_fused_too():
    layout = LAYOUTS["image"]
    (expected, single), (out, kept) = both(*qkv(layout), layout, mass=0.6)
    assert torch.equal(kept.count, single.count)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("method", "kernel", "device", "fuses"),
    [
        ("rainfusion2", "gluon-sm90", "cuda", True),
        ("rainfusion2", "triton-blocks", "cuda", True),
        ("rainfusion2", "torch-blocks", "cuda", False),
        ("rainfusion2", "triton-blocks", "cpu", False),
    ],
)
def test_fuses_where_the_kernel_gathers(method, kernel, device, fuses):
    call = call_of(LAYOUTS["image"], method)
    assert fused.can_fuse(SELECTORS[method], call, kernel, torch.device(device)) == fuses


@pytest.mark.parametrize("options", [{"representative": "last"}, {"parts": 4}], ids=str)
def test_other_representatives_than_the_mean_are_not_fused(options):
    call = call_of(LAYOUTS["image"], options=options)
    method, device = SELECTORS["rainfusion2"], torch.device("cuda")
    assert not fused.can_fuse(method, call, "triton-blocks", device)


@pytest.mark.parametrize("correction", ["none", "pooled"])
@pytest.mark.parametrize("key_heads", [1, 2])
def test_memory_stays_within_the_formula(key_heads: int, correction: str):
    layout = TokenLayout((LatentGrid(1, 9, 15),))
    q, k, v = qkv(layout, heads=2, key_heads=key_heads, batch=1)
    config = SparseConfig(block_size=16, correction=correction)
    call = Call(layout, SELECTORS["rainfusion2"].complete(config), 1.0)
    order = SELECTORS["rainfusion2"].ordered(q, k, call)
    gc.collect()
    with PeakMemory() as memory:
        fused.attention(q, k, v, order, SELECTORS["rainfusion2"], call, KERNELS["triton-blocks"])
    sizes = (1, 2, key_heads, layout.tokens, 32, 4)
    stated = fused.extra_bytes(*sizes, block_size=16, corrected=correction == "pooled")
    assert 0.6 * stated < memory.peak <= stated


SIZES = {
    "wan-1.3b-480p": (12, 12, 32_760, 128),
    "wan-14b-480p": (40, 40, 32_760, 128),
    "wan-14b-720p": (40, 40, 75_600, 128),
    "hunyuan-video-720p": (24, 24, 118_800 + 256, 128),
    "cogvideox-5b": (48, 48, 17_550 + 226, 64),
    "grouped-heads": (32, 8, 75_600, 128),
    "small": (3, 3, 150, 64),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_memory_on_top_is_less_than_queries_keys_values_and_output(sizes):
    heads, key_heads, tokens, head_dim = sizes
    whole = 2 * (heads + key_heads) * tokens * head_dim * 2
    assert fused.extra_bytes(1, *sizes, 2) <= whole
    assert fused.extra_bytes(1, *sizes, 2, corrected=True) <= whole


def test_the_longest_video_fits_into_24_gb():
    heads, _, tokens, head_dim = SIZES["hunyuan-video-720p"]
    arguments = 3 * heads * tokens * head_dim * 2
    assert arguments + fused.extra_bytes(1, *SIZES["hunyuan-video-720p"], 2) < 24e9 / 4
