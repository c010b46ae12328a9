"""Block-sparse attention on a CPU with AVX-512, compiled from `c_blocks.c` where a C compiler is.

An installed package carries the source alone. The first call builds a library for each dtype, in a
second, into the user's cache, and later runs load it; without a compiler `torch_blocks` serves.
"""

import ctypes
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import e, log2
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.errors import KernelUnavailable
from rainfusion_core.kernels.cpu_blocks import multiplies_tiles
from rainfusion_core.kernels.places import Places, head_by_head
from rainfusion_core.kernels.threads import THREADING_PAYS, in_threads
from rainfusion_core.kernels.torch_blocks import kept_tokens
from rainfusion_core.selection import pooling

SOURCE = Path(__file__).with_suffix(".c")
COMPILERS = ("gcc", "clang", "cc")
FLAGS = ("-O3", "-shared", "-fPIC", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma")
FLAGS_OF = {
    torch.float32: (),
    torch.bfloat16: ("-DBF16", "-mavx512bf16"),
    torch.float16: ("-DF16",),
}
FLAGS_OF_TILES = ("-DAMX", "-mamx-tile", "-mamx-bf16")
PACKED_TOKENS = 1024  # a multiple of TILE
PART_TOKENS = 256  # queries that a thread takes at a time: few, so that all end together
ATTEND, PACK, AVERAGE = range(3)  # what the C code is told to do
AVERAGING_PAYS = 2**19  # numbers to be averaged; starting threads for less costs more
TILE = 16  # keys, and columns, that the C code takes at a time
TWINS = 2  # of these make what a CPU with AMX multiplies


class _Job(ctypes.Structure):
    """What the items of a call have in common, as in the C code."""

    _fields_ = [
        ("table", ctypes.c_void_p),
        ("items", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in ("next", "failed")],
        *[(name, ctypes.c_int64) for name in ("q_stride", "k_stride", "v_stride", "out_stride")],
        *[(name, ctypes.c_int64) for name in ("width", "queries", "key_blocks", "mean_tiles")],
        ("block", ctypes.c_int),
        ("dim", ctypes.c_int),
        ("scale", ctypes.c_float),
    ]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    lse: Tensor | None = None,
    rows: Tensor | None = None,
    key_rows: Tensor | None = None,
) -> Tensor:
    """A `Kernel` that gathers its queries and keys.

    Memory on top of the arguments and the output: copies of k and v in the order that the products
    want, and in each thread one query block. Bfloat16 that the CPU does not multiply is converted to
    float32, head by head.

    Raises:
        KernelUnavailable: the library cannot be built, or the sizes are no multiples of 16.
    """
    places = (rows, key_rows)
    return _attention(q, k, v, kept, scale, key_lengths, lse, places, corrected=False)


def corrected_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    lse: Tensor | None = None,
    rows: Tensor | None = None,
    key_rows: Tensor | None = None,
) -> Tensor:
    """Same contract as `kernels.reference.corrected_attention`, in the pass of `attention`."""
    places = (rows, key_rows)
    return _attention(q, k, v, kept, scale, key_lengths, lse, places, corrected=True)


@torch.no_grad()
def ordered_block_means(
    x: Tensor, places: Tensor, block_size: int, lengths: Tensor | None = None
) -> Tensor:
    """`pooling.ordered_block_means`, from where the tokens lie: none is copied."""
    batch, tokens, head_dim = len(x), len(places), x.shape[-1]
    if computed_in(x.dtype) != x.dtype or head_dim % TILE:
        return pooling.ordered_block_means(x, places, block_size, lengths)
    ends = [tokens] * batch if lengths is None else lengths.clamp(max=tokens).tolist()
    job = _Job(key_blocks=-(-tokens // block_size), block=block_size, dim=head_dim)
    threads = torch.get_num_threads() if x.numel() >= AVERAGING_PAYS else 1
    return _means((load(x.dtype), job, threads), x, places.contiguous(), ends)


def _means(
    work: tuple[Any, _Job, int], x: Tensor, places: Tensor | None, ends: list[int]
) -> Tensor:
    """(batch, heads, blocks, head_dim) float32: mean of the tokens of each block before `ends`."""
    (library, job, threads), x = work, _rows(x)
    means = torch.empty(*x.shape[:2], job.key_blocks, x.shape[-1])
    job.q_stride = x.stride(-2)
    _run(library, job, threads, AVERAGE, table=[
        (*head, first, last)
        for at in _heads(x)
        for head in [(_at(x, at), _at(means, at), _place(places, at), ends[at[0]])]
        for first, last in _runs(job.key_blocks, max(PACKED_TOKENS // job.block, 1))
    ])  # fmt: skip
    return means


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    scale: float | None,
    key_lengths: Tensor | None,
    lse: Tensor | None,
    places: Places,
    *,
    corrected: bool,
) -> Tensor:
    (heads, queries, head_dim), (key_heads, keys), size = q.shape[1:], k.shape[1:3], kept.block_size
    if head_dim % TILE or size % TILE:
        raise KernelUnavailable(
            f"c-blocks takes multiples of {TILE}, got head_dim {head_dim} and block_size {size}"
        )
    wanted, dtype = q.dtype, computed_in(q.dtype)
    if dtype != wanted and key_heads > 1:
        kernel = corrected_attention if corrected else attention
        settings = {"scale": scale, "key_lengths": key_lengths}
        return head_by_head(kernel, q, k, v, kept, lse, places, **settings)
    library = load_tiles() if by_tiles(dtype, head_dim, size) else load(dtype)
    with torch.no_grad():
        tokens, index = kept_tokens(kept, keys, key_lengths), kept.index.contiguous()
        at_q, at_k = (None if x is None else x.contiguous() for x in places)
        ends = [keys] * len(k) if key_lengths is None else key_lengths.clamp(max=keys).tolist()
        job = _Job(
            width=index.shape[-1], queries=queries, key_blocks=kept.key_blocks, block=size, dim=head_dim,
            scale=(head_dim**-0.5 if scale is None else scale) * log2(e),
        )  # fmt: skip
        pays = int(tokens.sum()) * size * head_dim >= THREADING_PAYS
        threads, sizes = torch.get_num_threads() if pays else 1, _sizes(ends, kept)
        job.mean_tiles = _mean_tiles(kept) if corrected else 0
        packed = _packed((library, job, threads), k.to(dtype), v.to(dtype), at_k, ends)
        q = _rows(q.to(dtype))
        out, shared = torch.empty_like(q), heads // key_heads
        job.q_stride, job.out_stride = q.stride(-2), out.stride(-2)
        _run(library, job, threads, ATTEND, table=[
            (*head, first, last)
            for x in _heads(q)
            for y in [(x[0], x[1] // shared)]
            for head in [(
                _at(q, x), _at(packed[0], y), _at(packed[1], y), _at(out, x),
                0 if lse is None else _at(lse, x), _at(index, x), _at(tokens, x),
                _at(sizes, x[:1]), _place(at_q, x),
            )]
            for first, last in _runs(tokens.shape[-1], max(PART_TOKENS // size, 1))
        ])  # fmt: skip
    return out.to(wanted)


def _packed(
    work: tuple[Any, _Job, int], k: Tensor, v: Tensor, places: Tensor | None, ends: list[int]
) -> list[Tensor]:
    """Keys and values in the order that the products want; behind them the means, if they are wanted,
    as if each block were one token."""
    job = work[1]
    padded, more = job.key_blocks * job.block, job.mean_tiles * TILE
    packed = [x.new_empty(*x.shape[:2], padded + more, job.dim) for x in (k, v)]
    _pack(work, (k, v), [x[:, :, :padded] for x in packed], places, ends)
    if more:
        means = [_means(work, x, places, ends).to(x.dtype) for x in (k, v)]
        _pack(work, means, [x[:, :, padded:] for x in packed], None, [job.key_blocks] * len(k))
    return packed


def _pack(
    work: tuple[Any, _Job, int],
    kv: Sequence[Tensor],
    packed: Sequence[Tensor],
    places: Tensor | None,
    ends: list[int],
) -> None:
    """Write keys and values into `packed` in the order that the products want, zeros behind `ends`."""
    (library, job, threads), (k, v) = work, map(_rows, kv)
    job.k_stride, job.v_stride = k.stride(-2), v.stride(-2)
    _run(library, job, threads, PACK, table=[
        (*head, first, last)
        for x in _heads(k)
        for head in [(
            _at(k, x), _at(v, x), _at(packed[0], x), _at(packed[1], x), _place(places, x), ends[x[0]]
        )]
        for first, last in _runs(packed[0].shape[-2], PACKED_TOKENS)
    ])  # fmt: skip


def _sizes(ends: list[int], kept: KeptBlocks) -> Tensor:
    """(batch, key_blocks to whole tiles) float32: log2 of the real tokens of each key block."""
    starts = torch.arange(_mean_tiles(kept) * TILE) * kept.block_size
    real = (torch.tensor(ends)[:, None] - starts).clamp(0, kept.block_size)
    return real.float().log2()


def _mean_tiles(kept: KeptBlocks) -> int:
    """Tiles that hold a mean of each key block."""
    return -(-kept.key_blocks // (TWINS * TILE)) * TWINS


def _run(library: Any, job: _Job, threads: int, task: int, *, table: list[tuple]) -> None:
    """Have the items done by `threads` threads, each of which takes the next one when it is free."""
    rows, state = torch.tensor(table, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    job.table, job.items = rows.data_ptr(), len(table)
    job.next, job.failed = state.data_ptr(), state[1:].data_ptr()
    spread = torch_parallel()
    if threads == 1 or spread is not None:
        library.run(ctypes.byref(job), task, spread if threads > 1 else None, threads)
    else:
        with in_threads(threads) as run:
            run(lambda _: library.run(ctypes.byref(job), task, None, 1), range(threads))
    if state[1]:
        raise MemoryError("no memory for one query block")


def _at(x: Tensor, place: tuple[int, ...]) -> int:
    """Address of the numbers of x[place]."""
    steps = sum(at * stride for at, stride in zip(place, x.stride(), strict=False))
    return x.data_ptr() + steps * x.element_size()


@lru_cache
def torch_parallel() -> int | None:
    """Address of GOMP_parallel in the OpenMP library that torch has loaded; None if there is none."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    paths = dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if "omp" in line)
    for path in sorted(paths, key=lambda path: "torch" not in path):
        if re.search(r"/lib(g|i)?omp\d?[-.]", path):
            function = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
            return None if function is None else ctypes.cast(function, ctypes.c_void_p).value
    return None


def unavailable(dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this CPU, or this machine's compiler, cannot serve such calls; None if it can."""
    if dtype not in FLAGS_OF:
        return f"it does not compute in {dtype}"
    if head_dim % TILE:
        return f"it needs a head_dim that is a multiple of {TILE}, got {head_dim}"
    if not getattr(torch.cpu, "_is_avx512_supported", lambda: False)():
        return "it needs a CPU with AVX-512"
    try:
        load(computed_in(dtype))
    except KernelUnavailable as error:
        return str(error)
    return None


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype whose library takes a call in `dtype` on this CPU."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.float32 if dtype == torch.bfloat16 and not native else dtype


def by_tiles(dtype: torch.dtype, head_dim: int, block_size: int) -> bool:
    """Whether such calls are multiplied by tiles here (Intel AMX)."""
    fits = head_dim % (TWINS * TILE) == 0 == block_size % (TWINS * TILE)
    return dtype == torch.bfloat16 and fits and load_tiles() is not None


@lru_cache
def load_tiles() -> ctypes.CDLL | None:
    """The library that multiplies bfloat16 by tiles (Intel AMX); None if the CPU or the compiler cannot."""
    # the system grants the registers to those who ask: Linux since 5.16
    if not (multiplies_tiles() and getattr(torch.cpu, "_init_amx", lambda: False)()):
        return None
    try:
        return _load(FLAGS + FLAGS_OF[torch.bfloat16] + FLAGS_OF_TILES)
    except KernelUnavailable:  # gcc before 11; the library without tiles serves
        return None


@lru_cache
def load(dtype: torch.dtype) -> ctypes.CDLL:
    """The library for one dtype, built if this source was never built here before."""
    return _load(FLAGS + FLAGS_OF[dtype])


def _load(flags: tuple[str, ...]) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise KernelUnavailable("it needs a C compiler", hint="install gcc or clang")
    key = hashlib.sha256(repr((SOURCE.read_bytes(), compiler, flags)).encode()).hexdigest()[:16]
    built = _cache() / f"c_blocks-{key}.so"
    if not built.is_file():
        _build(compiler, flags, built)
    library = ctypes.CDLL(str(built))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.run.argtypes = (pointer, number, pointer, number)
    return library


def _build(compiler: str, flags: tuple[str, ...], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder, target.name)
        done = subprocess.run(
            [compiler, *flags, "-o", str(fresh), str(SOURCE), "-lm"], capture_output=True, text=True
        )
        if done.returncode:
            first = next(iter(done.stderr.splitlines()), "no message")
            raise KernelUnavailable(f"{Path(compiler).name} cannot build it: {first}")
        os.replace(fresh, target)


@lru_cache
def _cache() -> Path:
    """The user's cache, or where that cannot be written a folder of this process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rainfusion"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    return folder if usable else Path(tempfile.mkdtemp(prefix="rainfusion-"))


def _rows(x: Tensor) -> Tensor:
    """`x` with the numbers of a token side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _place(rows: Tensor | None, head: tuple[int, int]) -> int:
    """Address of the places of a head's tokens; 0 if they lie in order."""
    if rows is None:
        return 0
    return rows.data_ptr() if rows.ndim == 1 else _at(rows, head)


def _heads(x: Tensor) -> Iterator[tuple[int, int]]:
    """(batch item, head) of all heads."""
    return itertools.product(range(x.shape[0]), range(x.shape[1]))


def _runs(blocks: int, step: int) -> list[tuple[int, int]]:
    """(first, one behind the last) of so many blocks at a time."""
    return [(first, min(first + step, blocks)) for first in range(0, blocks, step)]
