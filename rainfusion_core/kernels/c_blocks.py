"""Block-sparse attention on a CPU with AVX-512, compiled from `c_blocks.c` where a C compiler is.

An installed package carries the source alone. The first call builds a library for each dtype, in a
second, into the user's cache, and later runs load it; without a compiler `torch_blocks` serves.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from math import e, log2
from pathlib import Path

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.errors import KernelUnavailable
from rainfusion_core.kernels.correction import pooled_blocks
from rainfusion_core.kernels.cpu_blocks import THREADING_PAYS, in_threads
from rainfusion_core.kernels.torch_blocks import kept_tokens

SOURCE = Path(__file__).with_suffix(".c")
COMPILERS = ("gcc", "clang", "cc")
FLAGS = ("-O3", "-shared", "-fPIC", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma")
BFLOAT16_FLAGS = ("-DBF16", "-mavx512bf16")
PART_TOKENS = 256  # queries that a thread takes at a time: few, so that all end together
TILE = 16  # keys, and columns, that the C code takes at a time

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
PACK = (_POINTER, _LONG, _POINTER, _LONG, _POINTER, _POINTER, _LONG, _LONG, _INT, _POINTER)
ATTEND = (
    _POINTER, _LONG, *(_POINTER,) * 6, *(_LONG,) * 4, _INT, _INT, ctypes.c_float,
    *(_POINTER,) * 3, _LONG, _POINTER,
)  # fmt: skip


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
    """Same contract as `kernels.reference.attention`, forward only.

    Args:
        rows, key_rows: (queries,) and (keys,) int64, or (batch, heads, ...) where heads differ;
            queries and keys in the order of `kept`, by their places in q, k and v, which may then
            lie in any other order. So do the output and `lse`.

    Memory on top of the arguments and the output: copies of k and v in the order that the products
    want, and in each thread one query block. A dtype that the CPU does not multiply is converted to
    float32 first.

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


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    scale: float | None,
    key_lengths: Tensor | None,
    lse: Tensor | None,
    places: tuple[Tensor | None, Tensor | None],
    *,
    corrected: bool,
) -> Tensor:
    head_dim, keys = q.shape[-1], k.shape[-2]
    if head_dim % TILE or kept.block_size % TILE:
        raise KernelUnavailable(
            f"c-blocks takes multiples of {TILE}, got head_dim {head_dim} "
            f"and block_size {kept.block_size}"
        )
    dtype = computed_in(q.dtype)
    library = load(dtype)
    with torch.no_grad():
        wanted, (q, k, v) = q.dtype, [_rows(x.to(dtype)) for x in (q, k, v)]
        tokens = kept_tokens(kept, keys, key_lengths)
        out = torch.empty(q.shape, dtype=dtype)
        padded = kept.key_blocks * kept.block_size
        packed = torch.empty(2, *k.shape[:2], padded, head_dim, dtype=dtype)
        ends = [keys] * len(k) if key_lengths is None else key_lengths.clamp(max=keys).tolist()
        scale = (head_dim**-0.5 if scale is None else scale) * log2(e)
        shared, index = q.shape[1] // k.shape[1], kept.index.contiguous()
        blocks = -(-kept.key_blocks // TILE) * TILE
        means = torch.empty(2, *k.shape[:2], blocks if corrected else 0, head_dim, dtype=dtype)
        at_q, at_k = (None if x is None else x.contiguous() for x in places)
        sizes = k.new_full((len(k), blocks), -torch.inf, dtype=torch.float32)

        def pack(head: tuple[int, int]) -> None:
            library.pack(
                k[head].data_ptr(), k.stride(-2), v[head].data_ptr(), v.stride(-2),
                packed[0][head].data_ptr(), packed[1][head].data_ptr(), ends[head[0]], padded, head_dim,
                _place(at_k, head),
            )  # fmt: skip
            if corrected:
                b, h = head
                order = None if at_k is None else at_k if at_k.ndim == 1 else at_k[head]
                real = slice(ends[b]) if order is None else order[: ends[b]]
                pooled = pooled_blocks(k[b, h, real], v[b, h, real], kept.block_size)
                mean_k, mean_v = (x.to(dtype) for x in pooled[:2])
                sizes[b, : len(mean_k)] = pooled[2].log2()
                library.pack(
                    mean_k.data_ptr(), head_dim, mean_v.data_ptr(), head_dim,
                    means[0][head].data_ptr(), means[1][head].data_ptr(), len(mean_k), blocks, head_dim,
                    None,
                )  # fmt: skip

        def work(queue: Iterator[tuple[int, int, int, int]]) -> None:
            for b, h, first, last in queue:
                key_head = (b, h // shared)
                failed = library.attend(
                    q[b, h].data_ptr(), q.stride(-2), packed[0][key_head].data_ptr(),
                    packed[1][key_head].data_ptr(), out[b, h].data_ptr(),
                    None if lse is None else lse[b, h].data_ptr(), index[b, h].data_ptr(),
                    tokens[b, h].data_ptr(), index.shape[-1], first, last, q.shape[-2],
                    kept.block_size, head_dim, scale,
                    means[0][key_head].data_ptr() if corrected else None,
                    means[1][key_head].data_ptr() if corrected else None,
                    sizes[b].data_ptr(), kept.key_blocks,
                    _place(at_q, (b, h)),
                )  # fmt: skip
                if failed:
                    raise MemoryError("no memory for one query block")

        pays = int(tokens.sum()) * kept.block_size * head_dim >= THREADING_PAYS
        threads = torch.get_num_threads() if pays else 1
        with in_threads(threads) as run:
            run(pack, [(b, h) for b in range(len(k)) for h in range(k.shape[1])])
            # all threads take from one list, as each becomes free
            run(work, [iter(_parts(tokens, kept.block_size))] * threads)
    return out.to(wanted)


def unavailable(dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this CPU, or this machine's compiler, cannot serve such calls; None if it can."""
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
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
    """What a call in `dtype` is computed in on this CPU."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return dtype if dtype == torch.bfloat16 and native else torch.float32


@lru_cache
def load(dtype: torch.dtype) -> ctypes.CDLL:
    """The library for one dtype, built if this source was never built here before."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise KernelUnavailable("it needs a C compiler", hint="install gcc or clang")
    flags = FLAGS + (BFLOAT16_FLAGS if dtype == torch.bfloat16 else ())
    key = hashlib.sha256(repr((SOURCE.read_bytes(), compiler, flags)).encode()).hexdigest()[:16]
    built = _cache() / f"c_blocks-{key}.so"
    if not built.is_file():
        _build(compiler, flags, built)
    library = ctypes.CDLL(str(built))
    library.pack.argtypes, library.attend.argtypes = PACK, ATTEND
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


def _place(rows: Tensor | None, head: tuple[int, int]) -> int | None:
    """Address of the places of a head's tokens; None if they lie in order."""
    if rows is None:
        return None
    return rows.data_ptr() if rows.ndim == 1 else rows[head].data_ptr()


def _parts(tokens: Tensor, block_size: int) -> list[tuple[int, int, int, int]]:
    """(batch item, head, first query block, one behind the last), a few blocks each."""
    batch, heads, blocks = tokens.shape
    step = max(PART_TOKENS // block_size, 1)
    return [
        (b, h, first, min(first + step, blocks))
        for b in range(batch)
        for h in range(heads)
        for first in range(0, blocks, step)
    ]
