"""The pooled correction against its definition, through every kernel that runs here."""

from dataclasses import replace

import pytest
import torch

from rainfusion_core.attention import sparse_attention
from rainfusion_core.blocks import dense_blocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import UnknownName
from rainfusion_core.kernels import KERNELS, available_kernels, reference
from rainfusion_core.kernels.correction import corrected
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests.shapes import DEVICE, FULL_SIZE, SHAPES, Shape

TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


def names(shape: Shape, dtype: torch.dtype) -> list[str]:
    able = available_kernels(torch.device(DEVICE), dtype, shape.head_dim, shape.block_size)
    interpreted = DEVICE == "cpu" and dtype == torch.bfloat16
    able = [n for n in able if n not in ("reference", "flex")]
    return [n for n in able if not (interpreted and n == "triton-blocks")]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, FULL_SIZE[0]])
def test_every_kernel_gives_what_the_definition_says(shape: Shape, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    kept, settings = shape.kept(0.3), {"scale": 0.4, "key_lengths": shape.lengths()}
    lse = q.new_full(q.shape[:-1], float("nan"), dtype=torch.float32)
    expected_lse, bound = lse.clone(), TOLERANCES[dtype]
    expected = reference.corrected_attention(q, k, v, kept, lse=expected_lse, **settings)
    for name in names(shape, dtype):
        ours = corrected(name, KERNELS[name])(q, k, v, kept, lse=lse, **settings)
        torch.testing.assert_close(ours, expected, atol=bound, rtol=bound, msg=name)
        torch.testing.assert_close(lse, expected_lse, atol=bound, rtol=bound, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_definition_is_attention_over_kept_tokens_and_means(shape: Shape):
    """Built the other way round: a mean is one key, listed as often as its block has tokens."""
    q, k, v = shape.qkv()
    kept, size = shape.kept(0.4), shape.block_size
    k, v = (x.repeat_interleave(shape.heads // shape.kv_heads, dim=1) for x in (k, v))
    mask = reference.token_mask(kept, shape.tokens, shape.tokens)
    logits = (q @ k.mT) * shape.head_dim**-0.5
    kept_terms = torch.where(mask, logits.exp(), 0.0)
    top, bottom = kept_terms @ v, kept_terms.sum(-1, keepdim=True)
    for start in range(0, shape.tokens, size):
        here = slice(start, start + size)
        mean = k[..., here, :].mean(-2, keepdim=True)
        term = ((q @ mean.mT) * shape.head_dim**-0.5).exp() * ~mask[..., start : start + 1]
        top = top + term * v[..., here, :].sum(-2, keepdim=True)
        bottom = bottom + term * k[..., here, :].shape[-2]
    ours = reference.corrected_attention(q, k, v, kept)
    torch.testing.assert_close(ours, top / bottom, atol=1e-5, rtol=1e-5)


def test_nothing_is_corrected_where_nothing_is_dropped():
    shape = Shape(1, 2, 2, 75, 16, 16)
    q, k, v = shape.qkv()
    kept = dense_blocks(1, 2, shape.blocks, block_size=16, device=q.device)
    expected = reference.attention(q, k, v, kept)
    torch.testing.assert_close(reference.corrected_attention(q, k, v, kept), expected)
    for name in names(shape, torch.float32):
        torch.testing.assert_close(corrected(name, KERNELS[name])(q, k, v, kept), expected)


def test_equal_keys_in_a_block_are_corrected_exactly():
    shape = Shape(1, 2, 2, 96, 16, 16)
    q, _, v = shape.qkv()
    k = torch.randn(1, 2, 6, 16, device=q.device).repeat_interleave(16, dim=-2)
    everything = dense_blocks(1, 2, 6, block_size=16, device=q.device)
    ours = reference.corrected_attention(q, k, v, shape.kept(0.4))
    torch.testing.assert_close(ours, reference.attention(q, k, v, everything))


@pytest.mark.parametrize("kernel", ["reference", "torch-blocks"])
def test_sparse_attention_corrects_on_request(kernel: str):
    layout = TokenLayout((LatentGrid(3, 4, 8),))
    q, k, v = Shape(1, 2, 2, 96, 16, 16).qkv()
    config = SparseConfig(sparsity=0.6, block_size=16, order="raster", sink=False, kernel=kernel)
    plain, kept = sparse_attention(q, k, v, layout, config)
    ours, same = sparse_attention(q, k, v, layout, replace(config, correction="pooled"))
    assert torch.equal(kept.index, same.index)
    expected = reference.corrected_attention(q, k, v, kept)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_an_unknown_correction_is_refused():
    with pytest.raises(UnknownName, match="no correction is called 'poled'"):
        SparseConfig(correction="poled")
