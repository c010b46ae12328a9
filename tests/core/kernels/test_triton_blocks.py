"""Runs in Triton's interpreter without a GPU; its bfloat16 product is wrong there, so bfloat16 needs one."""

import pytest
import torch

from rainfusion_core.kernels import reference
from tests.core.kernels.rows import check_rows
from tests.shapes import DEVICE, FULL_SIZE, SHAPES, Shape

triton_blocks = pytest.importorskip("rainfusion_core.kernels.triton_blocks")
TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3}
if DEVICE == "cuda":
    TOLERANCES[torch.bfloat16] = 2e-2


def assert_matches_reference(shape: Shape, density: float, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    kept, bound = shape.kept(density), TOLERANCES[dtype]
    expected = reference.attention(q, k, v, kept)
    torch.testing.assert_close(
        triton_blocks.attention(q, k, v, kept), expected, atol=bound, rtol=bound
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("density", [0.2, 1.0], ids="density{}".format)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference(shape: Shape, density: float, dtype: torch.dtype):
    assert_matches_reference(shape, density, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", FULL_SIZE)
def test_matches_reference_at_the_size_of_models(shape: Shape, dtype: torch.dtype):
    assert_matches_reference(shape, 0.5, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference_with_padding(shape: Shape):
    q, k, v = shape.qkv()
    kept, lengths = shape.kept(0.5), shape.lengths()
    expected = reference.attention(q, k, v, kept, key_lengths=lengths, scale=0.4)
    ours = triton_blocks.attention(q, k, v, kept, key_lengths=lengths, scale=0.4)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)


def test_large_logits_do_not_overflow():
    shape = Shape(1, 1, 1, 64, 16, 16)
    q, k, v = shape.qkv()
    kept = shape.kept(0.5)
    expected = reference.attention(q * 100, k, v, kept)
    torch.testing.assert_close(triton_blocks.attention(q * 100, k, v, kept), expected)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES[3:5])
def test_takes_queries_from_where_they_lie_and_puts_the_output_there(shape: Shape, dtype):
    check_rows(triton_blocks.attention, shape, dtype, TOLERANCES[dtype])


@pytest.mark.skipif(DEVICE == "cuda", reason="the interpreter alone takes any architecture")
@pytest.mark.parametrize("shape", FULL_SIZE[1:])
def test_the_way_of_blackwell_matches_reference(monkeypatch, shape: Shape):
    monkeypatch.setattr(triton_blocks, "architecture_of", lambda device: "sm_100")
    assert triton_blocks.launch_options(shape.head_dim, 128, torch.float16, "sm_100")["DESCRIPTORS"]
    check_rows(triton_blocks.attention, shape, torch.float16, 4e-3)


def test_rows_may_keep_no_key_at_all():
    shape = Shape(2, 1, 1, 40, 16, 16)
    q, k, v = shape.qkv()
    lengths = torch.tensor([0, 40], device=DEVICE)
    out = triton_blocks.attention(q, k, v, shape.kept(1.0), key_lengths=lengths)
    assert out[0].eq(0).all() and out[1].ne(0).any()
