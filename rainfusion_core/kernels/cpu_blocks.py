"""Attention over kept blocks on a CPU: threads take query blocks, each a few large matrix products.

The softmax is not shifted by the row maximum, which is known only after the logits, but by a value
known before them. So its terms are final once computed, and chunks of keys just add up.

- float32: no shift; `exp2` of the product, valid while nothing over- or underflows.
- bfloat16 on a CPU that multiplies it: the keys of a head lie in a ball, so no logit of a query
  exceeds q·centre + |q|·radius. Shifted below -9 by that bound, exp(x) equals sigmoid(x) to 1e-4,
  and sigmoid is what oneDNN applies to the float32 sums inside a matrix product. Logits are thus
  never rounded to bfloat16, which would cost percents of the output where attention is peaked.
- any other dtype is computed in float32.

The sum of the terms tells where a shift was unfit; those query blocks go to torch's own attention.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import e, exp, log2
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels.places import Pair, Places, in_order, lying, take
from rainfusion_core.kernels.threads import THREADING_PAYS, in_threads

CHUNK_TOKENS = 4096
PART_TOKENS = 1024
SATURATION = 9.0
SMALLEST_TOTAL, LARGEST_TOTAL = exp(-60), exp(80)

Ball = tuple[Tensor, Tensor]
# of the keys in a chunk, for a query block; and what was added to the logits of each query, by block
Terms = tuple[Callable[[Tensor, int], Tensor], Sequence[Tensor] | None]


@dataclass(frozen=True)
class _Part:
    """Consecutive query blocks of one head, in the dtype that they are computed in.

    Attributes:
        q, out: (queries, head_dim).
        k, v: (keys, head_dim), the whole head.
        index: (query_blocks, width), kept key blocks.
        lengths: keys that each query block attends to.
        lse: (queries,), where the log-sum-exp goes; None if nobody wants it.
        ball: holds all keys; None for float32, which does without.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    index: Tensor
    lengths: list[int]
    lse: Tensor | None
    ball: Ball | None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    tokens: Tensor,
    scale: float,
    lse: Tensor | None = None,
    places: Places = (None, None),
) -> Tensor:
    """Block-sparse attention, in as many threads as torch uses.

    Memory on top of the arguments and the output: copies of k and v, only where they are not in
    order, not contiguous or not of the dtype that they are computed in; and in each thread the
    queries of a part, and keys, values and terms of one query block and at most `CHUNK_TOKENS` keys.

    Args:
        tokens: (batch, heads, query_blocks) int64, keys that each query block attends to.
        lse: as in `Kernel`.
    """
    batch, heads, kv_heads = q.shape[0], q.shape[1], k.shape[1]
    dtype, (rows, key_rows) = computed_in(q.dtype), places
    fused = dtype == torch.bfloat16
    keys, values = (in_order(x, key_rows, dtype) for x in (k, v))
    out = torch.empty_like(q)
    step = max(PART_TOKENS // kept.block_size, 1)
    balls: list[Ball] = []

    def attend(worker: _Worker, b: int, h: int, first: int) -> None:
        blocks = slice(first, first + step)
        here = slice(first * kept.block_size, (first + step) * kept.block_size)
        at = lying(rows, b, h, here)
        kv = b * kv_heads + h * kv_heads // heads
        part = _Part(
            q=take(q[b, h], at).to(dtype).contiguous(),
            k=keys[kv],
            v=values[kv],
            out=take(out[b, h], at),
            index=kept.index[b, h, blocks],
            lengths=tokens[b, h, blocks].tolist(),
            lse=None if lse is None else take(lse[b, h], at),
            ball=balls[kv] if fused else None,
        )
        worker.attend(part)
        if isinstance(at, Tensor):  # what was taken are copies
            out[b, h].index_copy_(0, at, part.out)
            if lse is not None and part.lse is not None:
                lse[b, h].index_copy_(0, at, part.lse)

    longest = int(tokens.max())

    def work(queue: Iterator[tuple[int, int, int]]) -> None:
        worker = _Worker(keys[0], longest, kept.block_size, scale)
        for item in queue:
            attend(worker, *item)

    products = int(tokens.sum()) * kept.block_size * q.shape[-1]
    threads = torch.get_num_threads() if products >= THREADING_PAYS else 1
    first_blocks = range(0, tokens.shape[-1], step)
    parts = [(b, h, first) for b in range(batch) for h in range(heads) for first in first_blocks]
    with in_threads(threads) as run:
        balls += run(_ball, keys) if fused else []
        # all threads take from one list, as each becomes free
        run(work, [iter(parts)] * threads)
    return out


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """What a call in `dtype` is computed in on this CPU."""
    return dtype if dtype == torch.bfloat16 and multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively and torch has the fused product for it."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    fused = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return bool(fused and native())


def multiplies_tiles() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (Intel AMX), as torch's attention and c-blocks do."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def _ball(k: Tensor) -> Ball:
    """Centre (head_dim,), in the dtype of `k`, and radius () of a ball that holds all keys."""
    centre, few = k[::16].mean(0), min(max(len(k) // 16, 64), 512)
    reach = [torch.linalg.vector_norm(x - centre.float(), dim=-1).max() for x in k.split(few)]
    return centre, torch.stack(reach).max()


class _Worker:
    """Computes parts in one thread, with buffers that serve every query block."""

    def __init__(self, k: Tensor, longest: int, block_size: int, scale: float) -> None:
        """`longest`: most keys that a query block attends to."""
        blocks = max(1, -(-min(longest, CHUNK_TOKENS) // block_size))
        self.block_size, self.scale, self.chunk = block_size, scale, blocks * block_size
        self.room = k.new_empty(2, blocks, block_size * k.shape[-1])
        self.weights = k.new_empty(self.chunk * block_size)
        self.cuts: dict[int, tuple[Pair, Pair]] = {}

    def attend(self, part: _Part) -> None:
        """Write `part.out`."""
        terms, shifts = self.exp2_terms(part.q) if part.ball is None else self.sigmoid_terms(part)
        q, out = part.q.split(self.block_size), part.out.split(self.block_size)
        lse = None if part.lse is None else part.lse.split(self.block_size)
        totals: dict[int, Tensor] = {}
        whole = [length == len(part.k) for length in part.lengths]
        sources, index = self.sources(part), part.index.unbind()
        for everything, run in groupby(range(len(q)), key=whole.__getitem__):
            blocks = list(run)
            if everything and part.ball is None:
                # torch's own float32 attention is hard to beat, given many queries at once
                here = slice(blocks[0] * self.block_size, (blocks[-1] + 1) * self.block_size)
                _dense(
                    part.q[here], part.k, part.v, self.scale, part.out[here], _of(part.lse, here)
                )
                continue
            for block in blocks:
                chunks = self.chunks(part, sources, index[block], part.lengths[block])
                totals[block] = total = _mix(chunks, terms, block, out[block])
                if lse is not None:
                    shift = 0.0 if shifts is None else shifts[block]
                    lse[block].copy_(
                        total.float().log() - shift if part.lengths[block] else -torch.inf
                    )
        if totals and not _fit(torch.cat(list(totals.values()))):
            for block in (block for block, total in totals.items() if not _fit(total)):
                at = self.places(part, block)
                _dense(q[block], part.k[at], part.v[at], self.scale, out[block], _of(lse, block))

    def exp2_terms(self, q: Tensor) -> Terms:
        """exp(logits) in float32, (keys, queries), through the base that is faster."""
        queries = [x.T for x in (q * (self.scale * log2(e))).split(self.block_size)]

        def terms(k: Tensor, block: int) -> Tensor:
            here = queries[block]
            out = self.weights[: len(k) * here.shape[1]].view(len(k), -1)
            return torch.mm(k, here, out=out).exp2_()

        return terms, None

    def sigmoid_terms(self, part: _Part) -> Terms:
        """exp(logits - bound - SATURATION) in bfloat16, (keys, queries); a bound for each query."""
        assert part.ball is not None
        centre, radius = part.ball
        q = part.q * self.scale
        length = torch.linalg.vector_norm(q, dim=-1, dtype=torch.float32)
        along = torch.mm(q, centre[:, None])[:, 0].float()
        # bfloat16 rounds q·centre by up to a 512th
        bound = along + along.abs() / 256 + length * radius
        shifts = (-SATURATION - bound).split(self.block_size)
        queries = q.split(self.block_size)
        product = torch.ops.mkldnn._linear_pointwise.default

        def terms(k: Tensor, block: int) -> Tensor:
            # kept until the next ones are there: freed first, their memory would be returned
            # to the system and asked for again, page by page
            self.weights = product(k, queries[block], shifts[block], "sigmoid", [], "")
            return self.weights

        return terms, shifts

    def sources(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Keys and values as one row a whole block."""
        whole = len(part.k) // self.block_size
        width = self.room.shape[-1]
        k, v = (x[: whole * self.block_size].view(whole, width) for x in (part.k, part.v))
        return k, v

    def chunks(
        self, part: _Part, sources: tuple[Tensor, Tensor], index: Tensor, length: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of `length` tokens in the listed blocks, at most `self.chunk` at a time."""
        if length == len(part.k):
            yield from zip(part.k.split(self.chunk), part.v.split(self.chunk), strict=True)
            return
        for first in range(0, length, self.chunk):
            size = min(self.chunk, length - first)
            full, rest = divmod(size, self.block_size)
            blocks, rows = self.rooms(size)
            listed = index.narrow(0, first // self.block_size, full + (rest > 0))
            if rest:
                start = int(listed[full]) * self.block_size
                for row, x in zip(rows, (part.k, part.v), strict=True):
                    row[size - rest :] = x[start : start + rest]
                listed = listed[:full]
            if full:
                torch.index_select(sources[0], 0, listed, out=blocks[0])
                torch.index_select(sources[1], 0, listed, out=blocks[1])
            yield rows

    def rooms(self, size: int) -> tuple[Pair, Pair]:
        """Buffers for keys and values of `size` tokens: as whole blocks, and as tokens."""
        # cutting tensors takes as long as adding up: every cut is made once
        if size not in self.cuts:
            k, v = self.room
            tokens, full = self.room.view(2, self.chunk, -1), size // self.block_size
            self.cuts[size] = (k[:full], v[:full]), (tokens[0, :size], tokens[1, :size])
        return self.cuts[size]

    def places(self, part: _Part, block: int) -> Tensor:
        """Places of all keys that the query block attends to."""
        first = part.index[block, :, None] * self.block_size
        places = first + torch.arange(self.block_size, dtype=first.dtype)
        return places.flatten()[: part.lengths[block]]


def _mix(
    chunks: Iterable[tuple[Tensor, Tensor]],
    terms: Callable[[Tensor, int], Tensor],
    block: int,
    out: Tensor,
) -> Tensor:
    """Write the mean of the values into `out`; return the sum of the terms, (queries,).

    A single chunk, the usual case, is never converted: its products and sums are rounded to the
    dtype of the terms, as the output is.
    """
    mixed, total = None, None
    for k, v in chunks:
        weights = terms(k, block)
        sums = weights.sum(0)
        product = torch.mm(weights.T, v)
        mixed = product if mixed is None else mixed.float().add_(product)
        total = sums if total is None else total.float().add_(sums)
    if mixed is None or total is None:
        out.zero_()
        return torch.ones(1)
    torch.div(mixed, total[:, None], out=out)
    return total


def _fit(totals: Tensor) -> bool:
    return bool(((totals >= SMALLEST_TOTAL) & (totals <= LARGEST_TOTAL)).all())


def _of(lse: Tensor | Sequence[Tensor] | None, place: Any) -> Tensor | None:
    return None if lse is None else lse[place]


def _dense(q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor, lse: Tensor | None) -> None:
    """Torch's own attention; unlike its public name, this one tells the log-sum-exp too."""
    q, k, v = (x[None, None] for x in (q, k, v))
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mixed, sums = attention(q, k, v, scale=scale)
    out.copy_(mixed[0, 0])
    if lse is not None:
        lse.copy_(sums[0, 0])
