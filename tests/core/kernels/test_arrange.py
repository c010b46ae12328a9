import pytest
import torch

from rainfusion_core.selection.pooling import block_means
from tests.shapes import DEVICE, FULL_SIZE, SHAPES, Shape

arrange = pytest.importorskip("rainfusion_core.kernels.arrange")
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-6}


def take(x: torch.Tensor, gather: torch.Tensor) -> torch.Tensor:
    return x.gather(2, gather.expand(x.shape[:3])[..., None].expand_as(x))


def orders(shape: Shape) -> list[torch.Tensor]:
    """One for all heads, and one for each."""
    in_each_head = torch.rand(shape.batch, shape.heads, shape.tokens, device=DEVICE).argsort(-1)
    return [torch.randperm(shape.tokens, device=DEVICE), in_each_head]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, *FULL_SIZE])
def test_copies_and_means_are_those_of_torch(shape: Shape, dtype: torch.dtype):
    q = shape.qkv(dtype)[0]
    lying = q.transpose(1, 2).contiguous().transpose(1, 2)
    for gather in orders(shape):
        expected = take(q, gather)
        means = block_means(expected, shape.block_size)
        out, ours = arrange.arranged_with_means(lying, gather, shape.block_size)
        assert torch.equal(out, expected)
        torch.testing.assert_close(ours, means, atol=TOLERANCES[dtype], rtol=1e-5)
        assert torch.equal(arrange.arranged(lying, gather), expected)
        assert torch.equal(arrange.arranged_means(lying, gather, shape.block_size), ours)


@pytest.mark.parametrize("shape", SHAPES)
def test_means_leave_padding_out_whatever_it_holds(shape: Shape):
    q, lengths = shape.qkv()[0], shape.lengths()
    gather = orders(shape)[0]
    arranged = take(q, gather)
    expected = block_means(arranged, shape.block_size, lengths)
    for item, length in enumerate(lengths.tolist()):
        q[item, :, gather[length:]] = float("nan")
    ours = arrange.arranged_means(q, gather, shape.block_size, lengths)
    for item, length in enumerate(lengths.tolist()):
        blocks = -(-length // shape.block_size)
        torch.testing.assert_close(ours[item, :, :blocks], expected[item, :, :blocks])
