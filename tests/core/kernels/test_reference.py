import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as dense

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels.reference import attention, token_mask
from tests.shapes import SHAPES, Shape


@pytest.mark.parametrize("shape", SHAPES)
def test_keeping_every_block_is_dense_attention(shape: Shape):
    q, k, v = shape.qkv()
    expected = dense(q, k, v, enable_gqa=True)
    torch.testing.assert_close(attention(q, k, v, shape.kept(1.0)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_dropped_blocks_leave_the_softmax(shape: Shape):
    q, k, v = shape.qkv()
    kept = shape.kept(0.5)
    mask = token_mask(kept, shape.tokens, shape.tokens)
    expected = dense(q, k, v, attn_mask=mask, enable_gqa=True).nan_to_num(0.0)
    torch.testing.assert_close(attention(q, k, v, kept), expected)


def test_rows_may_keep_different_numbers_of_blocks():
    index = torch.tensor([[[[0, 0], [0, 1], [2, 2]]]], dtype=torch.int32)
    count = torch.tensor([[[1, 2, 0]]], dtype=torch.int32)
    mask = token_mask(KeptBlocks(index, count, key_blocks=3, block_size=2), queries=6, keys=5)
    assert mask[0, 0, ::2].int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_a_row_without_blocks_is_zero():
    shape = Shape(1, 2, 2, 64, 16, 16)
    assert attention(*shape.qkv(), shape.kept(0.5))[..., :16, :].eq(0).all()


def test_padding_does_not_reach_the_output():
    shape = Shape(2, 2, 2, 50, 16, 16)
    q, k, v = shape.qkv()
    lengths = shape.lengths()
    clean = attention(q, k, v, shape.kept(1.0), key_lengths=lengths)
    for item, length in enumerate(lengths.tolist()):
        k[item, :, length:], v[item, :, length:] = 1e4, 1e4
    assert torch.equal(attention(q, k, v, shape.kept(1.0), key_lengths=lengths), clean)


def test_scale_multiplies_the_logits():
    shape = Shape(1, 1, 1, 40, 16, 16)
    q, k, v = shape.qkv()
    expected = attention(q * 3, k, v, shape.kept(1.0), scale=1.0)
    torch.testing.assert_close(attention(q, k, v, shape.kept(1.0), scale=3.0), expected)
