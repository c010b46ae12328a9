"""Without a GPU the kernel runs in a simulator; `test_offline_code` looks at the code made for Hopper."""

import random
from pathlib import Path

import pytest
import torch

from rainfusion_core.blocks import KeptBlocks, kept_from_mask
from rainfusion_core.kernels import reference, unavailable_reason
from tests.core.kernels.gluon_simulator import simulated
from tests.core.kernels.rows import check_rows
from tests.shapes import DEVICE, Shape, case

gluon_sm90 = pytest.importorskip("rainfusion_core.kernels.gluon_sm90")
SOURCE = Path(gluon_sm90.__file__)
TOLERANCES = {torch.float16: 4e-3, torch.bfloat16: 2e-2}
SHAPES = [
    (case("ragged", 1, 1, 1, 300, 128, 128), torch.bfloat16),
    (case("grouped-heads", 1, 2, 1, 200, 64, 128), torch.float16),
    (case("padded-head-dim", 1, 1, 1, 385, 96, 128), torch.bfloat16),
    (case("aligned", 1, 1, 1, 640, 64, 128), torch.float16),
]


@pytest.fixture(scope="module")
def kernel():
    """The module on Hopper, and its simulation where there is no GPU."""
    if DEVICE == "cpu":
        random.seed(0)
        return simulated(SOURCE)
    reason = unavailable_reason("gluon-sm90", torch.device(DEVICE), torch.float16, 64)
    if reason is not None:
        pytest.skip(reason)
    return gluon_sm90


def test_takes_queries_from_where_they_lie_and_puts_the_output_there(kernel):
    check_rows(kernel.attention, Shape(1, 2, 1, 300, 64, 128), torch.float16, 4e-3)


def assert_matches(ours: torch.Tensor, expected: torch.Tensor) -> None:
    bound = TOLERANCES[expected.dtype]
    torch.testing.assert_close(ours, expected, atol=bound, rtol=bound)


@pytest.mark.parametrize(
    ("shape", "dtype"), [pytest.param(*p.values, dtype, id=p.id) for p, dtype in SHAPES]
)
def test_matches_reference(kernel, shape: Shape, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    kept = shape.kept(0.5)
    assert_matches(kernel.attention(q, k, v, kept), reference.attention(q, k, v, kept))


def test_padding_and_lse(kernel):
    shape = Shape(2, 1, 1, 290, 64, 128)
    q, k, v = shape.qkv(torch.float16)
    kept = shape.kept(0.6)
    settings = {"scale": 0.4, "key_lengths": torch.tensor([140, 0], device=DEVICE)}
    ours, expected = (q.new_full(q.shape[:3], float("nan"), dtype=torch.float32) for _ in range(2))
    out = kernel.attention(q, k, v, kept, lse=ours, **settings)
    assert_matches(out, reference.attention(q, k, v, kept, lse=expected, **settings))
    torch.testing.assert_close(ours, expected, atol=4e-3, rtol=1e-3)


def test_a_long_row_goes_around_the_ring_of_tiles(kernel):
    shape = Shape(1, 1, 1, 1100, 64, 128)
    q, k, v = shape.qkv(torch.bfloat16)
    mask = torch.zeros(1, 1, shape.blocks, shape.blocks, dtype=torch.bool, device=DEVICE)
    mask[..., 3, :] = mask[..., 5, ::2] = mask[..., 8, 8] = True
    kept = kept_from_mask(mask, 128)
    assert_matches(kernel.attention(q, k, v, kept), reference.attention(q, k, v, kept))


def test_a_row_without_blocks_is_zero_whatever_its_list_holds(kernel):
    q, k, v = Shape(1, 1, 1, 128, 64, 128).qkv(torch.float16)
    index = torch.full((1, 1, 1, 1), 9, dtype=torch.int32, device=DEVICE)
    count = torch.zeros(1, 1, 1, dtype=torch.int32, device=DEVICE)
    k[:], v[:] = 6e4, 6e4
    out = kernel.attention(q * 1e3, k, v, KeptBlocks(index, count, 1, 128))
    assert out.eq(0).all()


@pytest.mark.skipif(DEVICE == "cuda", reason="mistakes would hang a GPU")
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("(k_empty.index(i), count=2)", "(k_empty.index(i), count=1)", "race|arrivals|deadlock"),
        ("mask=m_tile, other=0.0))\n    fence_async_shared()", "mask=m_tile, other=0.0))", "fence"),
        ("mbarrier.wait(v_full.index(before)", "mbarrier.wait(k_full.index(before)", "race|dead"),
        ("mbarrier.arrive(turn.index(0), count=1)", "pass", "deadlock"),
        ("acc = warpgroup_mma_wait(0, deps=(acc,))\n        mb", "mb", "Product"),
    ],
    ids=["a-tile-left-early", "no-fence", "values-not-waited-for", "no-first-turn", "no-wait"],
)
def test_the_simulator_sees_mistakes(old: str, new: str, problem: str):
    random.seed(0)
    shape = Shape(1, 1, 1, 1100, 64, 128)
    q, k, v = shape.qkv(torch.float16)
    broken = simulated(SOURCE, {old: new})
    with pytest.raises(AssertionError, match=problem):
        broken.attention(q, k, v, shape.kept(1.0))
