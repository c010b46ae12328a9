"""What every kernel promises beyond its output, for all that run here."""

import pytest
import torch

from rainfusion_core.attention import KERNELS_THAT_REORDER, sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import KERNELS, available_kernels, reference, unavailable_reason
from rainfusion_core.kernels.correction import corrected
from rainfusion_core.kernels.torch_blocks import attention_by_count, kept_tokens
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests.shapes import DEVICE, FULL_SIZE, SHAPES, Shape

TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
# flex compiles for every shape, and on a CPU it has no log-sum-exp
NAMES = [n for n in available_kernels(torch.device(DEVICE), torch.float32, 64) if n != "flex"]
KERNEL = pytest.mark.parametrize("name", NAMES)


def skip_unless_able(name: str, shape: Shape, dtype: torch.dtype) -> None:
    call = (torch.device(DEVICE), dtype, shape.head_dim, shape.block_size)
    if name not in available_kernels(*call):
        pytest.skip(str(unavailable_reason(name, *call)))
    if name == "triton-blocks" and DEVICE == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies bfloat16 wrongly")


def lse_of(kernel, q, k, v, kept, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    lse = q.new_full(q.shape[:-1], float("nan"), dtype=torch.float32)
    return kernel(q, k, v, kept, lse=lse, **settings), lse


@KERNEL
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("density", [0.3, 1.0], ids="density{}".format)
@pytest.mark.parametrize("shape", [*SHAPES, FULL_SIZE[0]])
def test_lse_is_the_logarithm_of_the_denominator(name, shape: Shape, density: float, dtype):
    skip_unless_able(name, shape, dtype)
    q, k, v = shape.qkv(dtype)
    kept = shape.kept(density)
    settings = {"scale": 0.4, "key_lengths": shape.lengths()}
    mask = reference.token_mask(kept, shape.tokens, shape.tokens)
    mask &= (torch.arange(shape.tokens, device=DEVICE) < settings["key_lengths"][:, None])[
        :, None, None
    ]
    keys = k.float().repeat_interleave(shape.heads // shape.kv_heads, dim=1)
    logits = q.float() @ keys.mT * 0.4
    expected = logits.masked_fill(~mask, float("-inf")).logsumexp(-1)
    out, lse = lse_of(KERNELS[name], q, k, v, kept, **settings)
    torch.testing.assert_close(lse, expected, atol=TOLERANCES[dtype], rtol=1e-4)
    torch.testing.assert_close(out, KERNELS[name](q, k, v, kept, **settings))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_of_gpus_tells_lse_too(shape: Shape):
    q, k, v = shape.qkv()
    kept = shape.kept(0.5)
    lse = q.new_full(q.shape[:-1], float("nan"))
    attention_by_count(q, k, v, kept, kept_tokens(kept, shape.tokens, None), 0.4, lse)
    _, expected = lse_of(reference.attention, q, k, v, kept, scale=0.4)
    torch.testing.assert_close(lse, expected)


@KERNEL
def test_logits_of_any_size_have_their_lse(name):
    shape = Shape(1, 2, 1, 150, 64, 64)
    q, k, v = shape.qkv()
    q[..., 60:130, :] *= 100
    kept = shape.kept(0.6)
    _, lse = lse_of(KERNELS[name], q, k, v, kept)
    _, expected = lse_of(reference.attention, q, k, v, kept)
    torch.testing.assert_close(lse, expected)


@KERNEL
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_keys_that_are_all_padding_leave_zeros(name, dtype):
    shape = Shape(2, 2, 1, 150, 64, 64)
    skip_unless_able(name, shape, dtype)
    q, k, v = shape.qkv(dtype)
    lengths = torch.tensor([0, 150], device=q.device)
    out, lse = lse_of(KERNELS[name], q, k, v, shape.kept(1.0), key_lengths=lengths)
    assert out[0].eq(0).all() and lse[0].eq(float("-inf")).all()
    expected = reference.attention(q, k, v, shape.kept(1.0))
    torch.testing.assert_close(out[1], expected[1], atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@KERNEL
def test_text_of_no_length_changes_nothing(name):
    grid = LatentGrid(3, 5, 7)
    q, k, v = Shape(1, 2, 2, grid.tokens, 32, 16).qkv()
    config = SparseConfig(block_size=16, kernel=name, sparsity=0.6)
    out, kept = sparse_attention(q, k, v, TokenLayout((grid, Text(0))), config)
    expected, same = sparse_attention(q, k, v, TokenLayout((grid,)), config)
    assert torch.equal(out, expected) and torch.equal(kept.count, same.count)


def by_count(q, k, v, kept, *, key_lengths, lse, rows, key_rows):
    """`torch-blocks` as on devices that are no CPU."""
    tokens = kept_tokens(kept, k.shape[-2], key_lengths)
    return attention_by_count(q, k, v, kept, tokens, q.shape[-1] ** -0.5, lse, (rows, key_rows))


IN_PLACE = {name: KERNELS[name] for name in NAMES if name in KERNELS_THAT_REORDER}
WAYS = {
    **IN_PLACE,
    **{f"{name}, corrected": corrected(name, kernel) for name, kernel in IN_PLACE.items()},
    "by count": by_count,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("by_head", [False, True], ids=["one-order", "an-order-a-head"])
def test_tokens_may_lie_in_any_order(way: str, dtype: torch.dtype, by_head: bool):
    """Queries and keys each in an order of their own, and two heads of queries to one of keys."""
    shape = Shape(2, 4, 2, 75, 32, 16)
    # as models have them: heads between tokens and head_dim in memory
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in shape.qkv(dtype))
    kept, lengths = shape.kept(0.4), shape.lengths()
    sizes = [(2, heads) if by_head else () for heads in (4, 2)]
    rows, key_rows = (torch.rand(*size, 75, device=DEVICE).argsort(-1) for size in sizes)

    def ordered(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return x.gather(2, places.expand(2, x.shape[1], 75)[..., None].expand_as(x))

    name = "corrected_attention" if "corrected" in way else "attention"
    in_order = [ordered(q, rows), ordered(k, key_rows), ordered(v, key_rows)]
    lse, expected_lse = torch.empty(2, 2, 4, 75, device=DEVICE)
    expected = getattr(reference, name)(*in_order, kept, key_lengths=lengths, lse=expected_lse)
    ours = WAYS[way](q, k, v, kept, key_lengths=lengths, lse=lse, rows=rows, key_rows=key_rows)
    assert ours.dtype == dtype and ours.stride() == q.stride()
    bound = TOLERANCES[dtype]
    torch.testing.assert_close(ordered(ours, rows), expected, atol=bound, rtol=bound)
    found = ordered(lse[..., None], rows)[..., 0]
    torch.testing.assert_close(found, expected_lse, atol=bound, rtol=bound)
