import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels import reference
from rainfusion_core.kernels.torch_blocks import attention, attention_by_count, kept_tokens
from tests.shapes import FULL_SIZE, SHAPES, Shape

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def assert_matches(ours: torch.Tensor, expected: torch.Tensor) -> None:
    bound = TOLERANCES[expected.dtype]
    torch.testing.assert_close(ours, expected, atol=bound, rtol=bound)


@DTYPES
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0], ids="density{}".format)
@pytest.mark.parametrize("shape", [*SHAPES, *FULL_SIZE])
def test_matches_reference(shape: Shape, density: float, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    kept = shape.kept(density)
    assert_matches(attention(q, k, v, kept), reference.attention(q, k, v, kept))


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference_with_padding(shape: Shape, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    settings = {"scale": 0.4, "key_lengths": shape.lengths()}
    kept = shape.kept(0.5)
    expected = reference.attention(q, k, v, kept, **settings)
    assert_matches(attention(q, k, v, kept, **settings), expected)


@pytest.mark.parametrize("density", [0.2, 1.0], ids="density{}".format)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_of_gpus_matches_reference(shape: Shape, density: float):
    q, k, v = shape.qkv()
    kept, lengths = shape.kept(density), shape.lengths()
    tokens = kept_tokens(kept, shape.tokens, lengths)
    expected = reference.attention(q, k, v, kept, scale=0.4, key_lengths=lengths)
    assert_matches(attention_by_count(q, k, v, kept, tokens, 0.4), expected)


@settings(max_examples=25)
@given(
    sizes=st.tuples(*[st.integers(1, n) for n in (2, 2, 2, 200, 40)]),
    density=st.floats(0, 1),
    block_size=st.sampled_from([16, 32, 64]),
)
def test_any_size_matches_reference(sizes, density, block_size):
    batch, kv_heads, shared, tokens, head_dim = sizes
    shape = Shape(batch, kv_heads * shared, kv_heads, tokens, head_dim, block_size)
    q, k, v = shape.qkv()
    kept = shape.kept(density)
    assert_matches(attention(q, k, v, kept), reference.attention(q, k, v, kept))


@DTYPES
def test_tensors_may_be_views(dtype: torch.dtype):
    shape = Shape(2, 2, 2, 75, 32, 16)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in shape.qkv(dtype))
    kept = shape.kept(0.5)
    assert_matches(attention(q, k, v, kept), reference.attention(q, k, v, kept))


def test_no_gradient_is_tracked():
    shape = Shape(1, 1, 1, 40, 16, 16)
    q, k, v = (x.requires_grad_() for x in shape.qkv())
    assert not attention(q, k, v, shape.kept(0.5)).requires_grad


def test_more_queries_than_keys():
    wide, narrow = Shape(1, 2, 2, 90, 16, 16), Shape(1, 2, 2, 40, 16, 16)
    (q, _, _), (_, k, v) = wide.qkv(), narrow.qkv()
    kept = wide.kept(0.7)
    kept = KeptBlocks(kept.index[..., :3] % 3, kept.count.clamp(max=1), 3, 16)
    assert_matches(attention(q, k, v, kept), reference.attention(q, k, v, kept))


@pytest.mark.parametrize("length", [None, 60, 40, 33, 32], ids="length{}".format)
def test_only_the_last_listed_block_can_be_cut(length: int | None):
    index = torch.tensor([[[[0, 2], [1, 2], [2, 2], [0, 0]]]], dtype=torch.int32)
    count = torch.tensor([[[2, 2, 1, 0]]], dtype=torch.int32)
    lengths = None if length is None else torch.tensor([length])
    rest = min(length or 47, 47) - 32
    tokens = kept_tokens(KeptBlocks(index, count, 3, 16), 47, lengths)
    assert tokens.tolist() == [[[16 + rest, 16 + rest, rest, 0]]]
