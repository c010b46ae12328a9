"""What the benchmark asks of other people's kernels, which are not here: stand-ins keep to their documentation."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import kernels_peers
from rainfusion_core.kernels import reference
from tests.shapes import Shape

SHAPE = Shape(1, 3, 3, 150, 16, 32)


class Wrapper:
    """FlashInfer's VariableBlockSparseAttentionWrapper."""

    def __init__(self, float_workspace_buffer):
        assert float_workspace_buffer.dtype == torch.uint8

    def plan(
        self, block_mask_map, block_row_sz, block_col_sz, num_qo_heads, num_kv_heads, head_dim,
        *, q_data_type="float16",
    ):  # fmt: skip
        assert block_mask_map.dtype == torch.bool and block_row_sz.dtype == torch.int32
        assert block_row_sz.shape == block_mask_map.shape[:2]
        assert block_col_sz.shape == (num_kv_heads, block_mask_map.shape[2])
        self.dtype, self.head_dim = q_data_type, head_dim
        self.masks = [
            mask.repeat_interleave(rows, dim=0).repeat_interleave(columns, dim=1)
            for mask, rows, columns in zip(block_mask_map, block_row_sz, block_col_sz, strict=True)
        ]

    def run(self, q, k, v):
        """All (heads, tokens, head_dim)."""
        assert q.dtype == self.dtype and q.shape[-1] == self.head_dim
        mask = torch.stack(self.masks)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask).nan_to_num(0.0)


def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
    """Of (batch, tokens, heads, head_dim)."""
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


@pytest.fixture
def stands_in(monkeypatch: pytest.MonkeyPatch):
    """A function that puts something into the place of a module."""
    monkeypatch.setattr(kernels_peers, "_absent", lambda module, q: None)
    return lambda name, **parts: monkeypatch.setitem(sys.modules, name, SimpleNamespace(**parts))


def test_flashinfer_gets_the_blocks_that_our_kernels_get(stands_in):
    stands_in("flashinfer", VariableBlockSparseAttentionWrapper=Wrapper)
    q, k, v = SHAPE.qkv()
    kept = SHAPE.kept(0.4)
    arm = kernels_peers.PEERS["flashinfer"](q, k, v, kept, 0.6)
    torch.testing.assert_close(arm(), reference.attention(q, k, v, kept))


@pytest.mark.parametrize("module", ["flash_attn", "flash_attn_interface"])
@pytest.mark.parametrize("with_lse", [False, True], ids=["output", "output-and-lse"])
def test_flash_attention_gives_dense_attention(stands_in, module, with_lse):
    def function(*arguments):
        out = flash_attn_func(*arguments)
        return (out, None) if with_lse else out

    stands_in(module, flash_attn_func=function)
    q, k, v = SHAPE.qkv()
    kept = SHAPE.kept(1.0)
    arm = kernels_peers.flash_attn(module)(q, k, v, kept, 0.0)
    torch.testing.assert_close(arm(), reference.attention(q, k, v, kept))


def test_what_is_not_installed_says_so():
    q = SHAPE.qkv()[0]
    assert kernels_peers._absent("no_such_module", q) == "no_such_module is not installed"
    assert kernels_peers._absent("torch", q.cpu()) == "torch needs a GPU"
