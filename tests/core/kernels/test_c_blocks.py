"""The C kernel, where this machine can build it: against the reference, and what it says where not."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.errors import KernelUnavailable
from rainfusion_core.kernels import c_blocks, reference
from rainfusion_core.selection.pooling import block_means
from tests import shapes
from tests.shapes import FULL_SIZE, SHAPES, Shape

REASON = c_blocks.unavailable(torch.bfloat16, 64)
BUILT = pytest.mark.skipif(REASON is not None, reason=str(REASON))
FITTING = [case for case in SHAPES if not case.values[0].head_dim % c_blocks.TILE]
BOUNDS = {torch.float32: 1e-6, torch.float16: 4e-4, torch.bfloat16: 4e-3}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS, ids=str)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "DEVICE", "cpu")


def assert_matches(q, k, v, kept, **options) -> None:
    """Relative error at the dtype's level, against float32 on the same numbers."""
    exact = reference.attention(q.float(), k.float(), v.float(), kept, **options)
    ours = c_blocks.attention(q, k, v, kept, **options)
    assert ours.dtype == q.dtype
    assert (ours - exact).norm() <= BOUNDS[q.dtype] * exact.norm()


@BUILT
@DTYPES
@pytest.mark.parametrize("density", [0.3, 1.0], ids="density{}".format)
@pytest.mark.parametrize("shape", [*FITTING, *FULL_SIZE])
def test_matches_reference(shape: Shape, density: float, dtype: torch.dtype):
    assert_matches(*shape.qkv(dtype), shape.kept(density))


@BUILT
@DTYPES
@pytest.mark.parametrize("shape", FITTING)
def test_padding_is_left_out_even_if_it_is_not_a_number(shape: Shape, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    kept, lengths = shape.kept(0.5), shape.lengths()
    exact = reference.attention(q, k, v, kept, scale=0.4, key_lengths=lengths)
    for item, length in enumerate(lengths.tolist()):
        k[item, :, length:], v[item, :, length:] = float("nan"), float("nan")
    ours = c_blocks.attention(q, k, v, kept, scale=0.4, key_lengths=lengths)
    torch.testing.assert_close(ours, exact, atol=2 * BOUNDS[dtype], rtol=4 * BOUNDS[dtype])


@BUILT
@DTYPES
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tokens", [16, 9, 75, 2900])
def test_means_of_blocks_are_those_of_pooling(tokens: int, padded: bool, dtype: torch.dtype):
    x = torch.randn(2, tokens, 3, 64, dtype=dtype).transpose(1, 2)
    places = torch.randperm(tokens)
    lengths = torch.tensor([tokens // 3, tokens]) if padded else None
    expected = block_means(x[:, :, places], 16, lengths)
    if lengths is not None:
        x[0, :, places[lengths[0] :]] = float("nan")
        expected[0, :, -(-tokens // 3 // 16) :] = 0  # what has no tokens
    means = c_blocks.ordered_block_means(x, places, 16, lengths)
    torch.testing.assert_close(means, expected)


@BUILT
@settings(max_examples=25)
@given(
    sizes=st.tuples(*[st.integers(1, n) for n in (2, 2, 2, 900, 8)]),
    density=st.floats(0, 1),
    block_size=st.sampled_from([16, 64, 128, 256]),
    dtype=st.sampled_from(list(BOUNDS)),
)
def test_any_size_matches_reference(sizes, density, block_size, dtype):
    batch, kv_heads, shared, tokens, tiles = sizes
    shape = Shape(batch, kv_heads * shared, kv_heads, tokens, 16 * tiles, block_size)
    assert_matches(*shape.qkv(dtype), shape.kept(density))


@BUILT
@DTYPES
def test_more_queries_than_keys_and_tensors_that_are_views(dtype: torch.dtype):
    wide, narrow = Shape(1, 2, 2, 90, 32, 16), Shape(1, 2, 2, 40, 32, 16)
    (q, _, _), (_, k, v) = wide.qkv(dtype), narrow.qkv(dtype)
    q, k = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k))
    v = v.mT.contiguous().mT
    kept = wide.kept(0.7)
    assert_matches(q, k, v, KeptBlocks(kept.index[..., :3] % 3, kept.count.clamp(max=1), 3, 16))


@BUILT
@DTYPES
@pytest.mark.parametrize("size", [10, 1000], ids="logits-times{}".format)
def test_peaked_attention_is_as_exact_as_flat(dtype: torch.dtype, size: int):
    q, k, v = Shape(1, 2, 1, 330, 64, 64).qkv(dtype)
    bound = 1e-4 if dtype == torch.float32 else BOUNDS[dtype]
    kept = Shape(1, 2, 1, 330, 64, 64).kept(0.5)
    exact = reference.attention((q * size).float(), k.float(), v.float(), kept)
    ours = c_blocks.attention(q * size, k, v, kept)
    assert (ours - exact).norm() <= bound * exact.norm()


@BUILT
@DTYPES
def test_threads_compute_the_same(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    shape = Shape(2, 4, 2, 330, 64, 64)
    q, k, v = shape.qkv(dtype)
    kept = shape.kept(0.5)
    alone = c_blocks.attention(q, k, v, kept)
    monkeypatch.setattr(c_blocks, "THREADING_PAYS", 0)
    monkeypatch.setattr(c_blocks, "PART_TOKENS", 64)
    assert torch.equal(c_blocks.attention(q, k, v, kept), alone)


@BUILT
def test_values_that_are_not_numbers_stay_where_they_are():
    shape = Shape(1, 2, 1, 330, 64, 64)
    q, k, v = shape.qkv()
    q[0, 0, 70] = float("nan")
    bad = c_blocks.attention(q, k, v, shape.kept(1.0)).isnan().any(-1)
    assert bad[0, 0].nonzero().tolist() == [[70]]
    assert not bad[0, 1].any()


@BUILT
def test_sizes_that_it_cannot_take_are_refused():
    shape = Shape(1, 1, 1, 40, 24, 16)
    with pytest.raises(KernelUnavailable, match="multiples of 16, got head_dim 24"):
        c_blocks.attention(*shape.qkv(), shape.kept(0.5))
    assert c_blocks.unavailable(torch.float32, 24) == (
        "it needs a head_dim that is a multiple of 16, got 24"
    )
    assert c_blocks.unavailable(torch.float64, 64) == "it does not compute in torch.float64"


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Nothing is built yet, and what will be goes into a folder of the test."""
    monkeypatch.setattr(c_blocks, "_cache", lambda: tmp_path)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    c_blocks.load.cache_clear()
    yield tmp_path
    c_blocks.load.cache_clear()


def test_without_a_compiler_the_reason_says_so(monkeypatch: pytest.MonkeyPatch, empty_cache):
    monkeypatch.setattr(c_blocks, "COMPILERS", ("no-such-compiler",))
    assert c_blocks.unavailable(torch.float32, 64) == "it needs a C compiler"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_a_build_that_fails_leaves_nothing_and_gives_the_compilers_words(
    monkeypatch: pytest.MonkeyPatch, empty_cache
):
    monkeypatch.setattr(c_blocks, "FLAGS", ("--no-such-flag",))
    reason = c_blocks.unavailable(torch.float32, 64)
    assert reason is not None and reason.startswith("gcc cannot build it: ")
    assert "no-such-flag" in reason
    assert list(empty_cache.iterdir()) == []


@BUILT
def test_a_library_is_built_once(monkeypatch: pytest.MonkeyPatch, empty_cache):
    c_blocks.load(torch.float32)
    (built,) = empty_cache.iterdir()
    stamp = built.stat().st_mtime_ns
    c_blocks.load.cache_clear()
    c_blocks.load(torch.float32)
    assert built.stat().st_mtime_ns == stamp


TILES = pytest.mark.skipif(c_blocks.load_tiles() is None, reason="no tiles of bfloat16 (AMX)")


@TILES
@pytest.mark.parametrize("shape", [*FITTING, *FULL_SIZE])
def test_bfloat16_without_tiles_matches_too(monkeypatch: pytest.MonkeyPatch, shape: Shape):
    monkeypatch.setattr(c_blocks, "load_tiles", lambda: None)
    assert_matches(*shape.qkv(torch.bfloat16), shape.kept(0.5))


@TILES
def test_torch_finds_its_tiles_as_it_left_them():
    """Both set up the same registers of the same threads."""
    shape = Shape(1, 4, 4, 700, 64, 64)
    q, k, v = shape.qkv(torch.bfloat16)
    before = q @ k.mT
    c_blocks.attention(q, k, v, shape.kept(0.5))
    assert torch.equal(q @ k.mT, before)


@TILES
def test_a_compiler_that_knows_no_tiles_builds_the_library_without(
    monkeypatch: pytest.MonkeyPatch, empty_cache
):
    monkeypatch.setattr(c_blocks, "FLAGS_OF_TILES", ("--no-such-flag",))
    c_blocks.load_tiles.cache_clear()
    assert c_blocks.load_tiles() is None
    shape = Shape(1, 2, 2, 90, 64, 64)
    assert_matches(*shape.qkv(torch.bfloat16), shape.kept(0.5))
    c_blocks.load_tiles.cache_clear()


def test_a_cpu_without_avx512_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: False)
    assert c_blocks.unavailable(torch.float32, 64) == "it needs a CPU with AVX-512"


@BUILT
@DTYPES
def test_without_the_openmp_of_torch_threads_of_its_own_do_the_work(monkeypatch, dtype):
    shape = Shape(1, 4, 2, 330, 64, 64)
    q, k, v = shape.qkv(dtype)
    kept = shape.kept(0.5)
    monkeypatch.setattr(c_blocks, "THREADING_PAYS", 0)
    shared = c_blocks.corrected_attention(q, k, v, kept)
    monkeypatch.setattr(c_blocks, "torch_parallel", lambda: None)
    assert torch.equal(c_blocks.corrected_attention(q, k, v, kept), shared)
