import pytest
import torch

from rainfusion_core.kernels import cpu_blocks, reference
from rainfusion_core.kernels.cpu_blocks import multiplies_bfloat16
from rainfusion_core.kernels.torch_blocks import attention
from tests import shapes
from tests.shapes import Shape

SHAPE = Shape(1, 2, 1, 330, 64, 64)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "DEVICE", "cpu")


def relative_error(ours: torch.Tensor, q, k, v, kept) -> float:
    exact = reference.attention(q.float(), k.float(), v.float(), kept)
    return ((ours - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 6e-3)])
@pytest.mark.parametrize("chunk", [64, 192])
def test_chunks_of_keys_add_up(monkeypatch, dtype, bound, chunk):
    monkeypatch.setattr(cpu_blocks, "CHUNK_TOKENS", chunk)
    q, k, v = SHAPE.qkv(dtype)
    kept = SHAPE.kept(0.8)
    assert relative_error(attention(q, k, v, kept), q, k, v, kept) < bound


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 6e-3)])
def test_threads_compute_the_same(monkeypatch, dtype, bound):
    monkeypatch.setattr(cpu_blocks, "THREADING_PAYS", 0)
    monkeypatch.setattr(cpu_blocks, "PART_TOKENS", 64)
    q, k, v = SHAPE.qkv(dtype)
    kept, rows = SHAPE.kept(0.5), torch.randperm(SHAPE.tokens)
    lying = torch.empty_like(q)
    lying[:, :, rows] = q
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert relative_error(attention(q, k, v, kept), q, k, v, kept) < bound
        gathered = attention(lying, k, v, kept, rows=rows)[:, :, rows]
        assert relative_error(gathered, q, k, v, kept) < bound
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [10, 100, 1000], ids="logits-times{}".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_too_large_for_a_fixed_shift_are_still_exact(dtype: torch.dtype, size: int):
    q, k, v = SHAPE.qkv(dtype)
    kept, q = SHAPE.kept(0.5), q * size
    bound = 1e-4 if dtype == torch.float32 else 6e-3
    assert relative_error(attention(q, k, v, kept), q, k, v, kept) < bound


@pytest.mark.skipif(not multiplies_bfloat16(), reason="the CPU does not multiply bfloat16")
@pytest.mark.parametrize("offset", [0.0, 3.0], ids=["centred", "keys-share-a-direction"])
def test_peaked_bfloat16_attention_is_as_exact_as_flat(offset: float):
    shape = Shape(1, 1, 1, 512, 64, 64)
    walk = torch.randn(512, 64).cumsum(0)
    walk = walk / walk.norm(dim=-1, keepdim=True) * 8
    q, k = (walk[None, None] * 1.5 + offset for _ in range(2))
    q, k, v = (x.to(torch.bfloat16) for x in (q, k, shape.qkv()[2]))
    kept = shape.kept(1.0)
    assert relative_error(attention(q, k, v, kept), q, k, v, kept) < 6e-3


def test_values_that_are_not_numbers_stay_where_they_are():
    q, k, v = SHAPE.qkv()
    q[0, 0, 70] = float("nan")
    bad = attention(q, k, v, SHAPE.kept(1.0)).isnan().any(-1)
    assert bad[0, 0].nonzero().tolist() == [[70]]
    assert not bad[0, 1].any()
