"""Search the blocks exactly on few steps, and keep them until the next search; heads differ in density.

Source: AdaSpa, arXiv 2502.21079. Differs: a later search uses the sums of the exponentials that the
search before it found, as there, yet the first search is one pass too, not two; blocks are as large as
the settings say (64 there); search steps are shares of the run (there 10 and 30 of 50).
"""

import re

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.budget import chosen_per_row
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import LEAST, exact, keep
from rainfusion_core.selection.sampling import block_sums
from rainfusion_core.selectors.base import Call, Memory, Method

GOOD_RECALL = 0.8


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """What the last search chose; searches at the first call, and when a search step begins."""
    found = call.memory.found
    if "kept" not in found or search_is_due(call.memory, call.option("search")):
        scores_now = scores(q, k, order, call)
        spread = call.option("adaptive") and call.config.mass is None
        counts = head_counts(scores_now, order, call) if spread else None
        found["kept"] = keep(scores_now, order, call, counts=counts)
        found["searched"] = call.memory.step
    return found["kept"]


def search_is_due(memory: Memory, shares: str) -> bool:
    """Whether a step at one of these shares of the run was reached after the last search."""
    steps = [round(float(share) * memory.steps) for share in shares.split(",")]
    return any(memory.found["searched"] < step <= memory.step for step in steps)


def check(config: SparseConfig) -> None:
    shares = str(config.options["search"])
    if not re.fullmatch(r"\s*(0|0?\.\d+)\s*(,\s*(0|0?\.\d+)\s*)*", shares):
        raise ConfigError(
            f"method option search must list shares of the run, got {shares!r}",
            hint="as in 0.2,0.6",
        )


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Logarithm of the mass of every pair of blocks, from the normalisers of the last search."""
    normalisers = call.memory.found.get("normalisers")
    mass, call.memory.found["normalisers"] = _search(q, k, order, call, normalisers)
    return mass.clamp_(min=LEAST).log_()


def _search(
    q: Tensor, k: Tensor, order: TokenOrder, call: Call, normalisers: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mass of every pair, and the (batch, heads, tokens) log-sum-exp of every query."""
    batch, heads, tokens, _ = q.shape
    shared = heads // k.shape[1]
    mass = q.new_empty((batch, heads, order.blocks, order.blocks), dtype=torch.float32)
    exact_sums = normalisers is None
    sums = q.new_empty((batch, heads, tokens), dtype=torch.float32) if exact_sums else normalisers
    assert sums is not None
    places = torch.arange(tokens, device=q.device)
    for item in range(batch):
        padding = None if call.key_lengths is None else places >= call.key_lengths[item]
        for head in range(heads):
            keys = k[item, head // shared].float().mT
            for number, rows in enumerate(q[item, head].float().split(order.block_size)):
                logits = (rows @ keys).mul_(call.scale)
                if padding is not None:
                    logits.masked_fill_(padding, float("-inf"))
                here = sums[item, head].split(order.block_size)[number]
                if exact_sums:
                    here.copy_(logits.logsumexp(dim=-1))
                weights = (logits - here[:, None]).exp().mean(dim=0)
                mass[item, head, number] = block_sums(weights, order.block_size)
    return mass, sums


def head_counts(scores: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """(batch, heads, 1, 1) int: fewer blocks for heads whose best ones hold nearly all the mass.

    As many heads, those of least recall, get the more; so the mean density is what is asked for.
    """
    sparsity, budget = call.config.sparsity, call.config.budget

    def count(sparsity: float) -> int:
        return chosen_per_row(
            order.blocks, order.pinned_blocks, sparsity=max(0.0, sparsity), budget=budget
        )

    ranked = scores.softmax(dim=-1).sort(dim=-1, descending=True).values
    recall = ranked[..., : max(1, count(sparsity))].sum(dim=-1).mean(dim=-1)
    heads = recall.shape[-1]
    good = (recall > GOOD_RECALL).sum(dim=-1, keepdim=True).clamp(max=heads // 2)
    place = recall.argsort(dim=-1, descending=True).argsort(dim=-1)
    counts = torch.full_like(place, count(sparsity))
    counts = counts.where(place >= good, count((1 + sparsity) / 2))
    counts = counts.where(place < heads - good, count((3 * sparsity - 1) / 2))
    return counts[..., None, None]


METHOD = Method(
    select=select,
    scores=scores,
    order="raster",
    options={"search": "0.2,0.6", "adaptive": True},
    check=check,
)
