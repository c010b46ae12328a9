"""Order queries and keys by k-means clusters, and score blocks through the clusters' centroids.

Source: Sparse VideoGen 2, arXiv 2505.18875, and its code. Differs: blocks have one size, so a block holds
several clusters or a part of one, and its mass is that of its tokens' clusters; there are as many clusters
as blocks unless options say otherwise (300 of queries and 1000 of keys there); clusters follow each other
along the direction in which their centroids vary most; rounds are not ended early, since that would wait
for the device. With a mass target (0.9 there) every row keeps a tenth of its blocks at least.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.order import TokenOrder, order_for
from rainfusion_core.selection.choice import LEAST, best, exact, keep
from rainfusion_core.selection.kmeans import kmeans, random_tokens
from rainfusion_core.selectors.base import OWN, Call, Method


class Clusters(NamedTuple):
    """Centroids (batch, heads, clusters, head_dim), and the cluster of each token in its order.

    Tokens that are not clustered, those of sink and text, have the number of clusters as theirs.
    """

    centroids: Tensor
    labels: Tensor


@exact
def arrange(q: Tensor, k: Tensor, call: Call) -> TokenOrder:
    """Clustered tokens by cluster, then the sink and the text as they are, for queries and keys."""
    base = order_for(call.layout, call.config, name="thw").on(q.device)
    free = base.tokens - call.layout.text_tokens - base.sink_tokens
    sides = {"query": q, "key": k}
    found = {name: _clustered(name, x, base, free, call) for name, x in sides.items()}
    gather, keys = (base.gather[places] for places, _ in found.values())
    return replace(
        base,
        name=OWN,
        gather=gather,
        restore=gather.argsort(dim=-1),
        keys=keys,
        found=tuple(clusters for _, clusters in found.values()),
        _copies={},
    )


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The best blocks by the mass of their clusters."""
    found = scores(q, k, order, call)
    floor = None
    if call.config.mass is not None and call.option("floor") > 0:
        least = math.ceil(call.option("floor") * order.blocks)
        floor = best(found, torch.full((1,), least, device=q.device))
    return keep(found, order, call, forced=floor)


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Logarithm of the mass of every pair of blocks, by the clusters that `arrange` found."""
    queries, keys = order.found
    size = order.block_size
    sizes = _counts(keys.labels, keys.centroids, keys.labels.shape[-1])[..., 0, :]
    logits = (queries.centroids * call.scale) @ keys.centroids.mT
    # of a key in each cluster: the mass of a cluster is shared equally by its tokens
    mass = (logits + sizes.clamp(min=LEAST).log()[..., None, :]).softmax(dim=-1)
    each = mass / sizes.clamp(min=1)[..., None, :]
    rows = _counts(queries.labels, queries.centroids, size)
    columns = _counts(keys.labels, keys.centroids, size)
    return (rows @ each @ columns.mT).clamp_(min=LEAST).log_()


def _clustered(
    name: str, x: Tensor, base: TokenOrder, free: int, call: Call
) -> tuple[Tensor, Clusters]:
    """Places in the base order, (batch, heads, tokens), cluster by cluster; and the clusters."""
    found, points = call.memory.found, base.permute(x)[..., :free, :]
    clusters = call.option(f"{name}_clusters") or math.ceil(free / base.block_size)
    rounds = call.option("rounds")
    if name not in found:
        found[name] = random_tokens(points, min(clusters, free))
        rounds = call.option("first_rounds")
    centroids, labels = kmeans(points, found[name], rounds)
    found[name] = centroids
    rank = _along_main_axis(centroids)
    by_rank = rank.gather(-1, labels)
    places = by_rank.argsort(dim=-1, stable=True)
    rest = torch.arange(free, base.tokens, device=x.device).expand(*places.shape[:2], -1)
    outside = torch.full_like(rest, centroids.shape[-2])
    return torch.cat([places, rest], dim=-1), Clusters(
        centroids, torch.cat([labels.gather(-1, places), outside], dim=-1)
    )


def _along_main_axis(centroids: Tensor) -> Tensor:
    """(batch, heads, clusters) int64: place of each cluster along the direction of most variance."""
    centred = centroids - centroids.mean(dim=-2, keepdim=True)
    axis = centred.square().sum(dim=-2, keepdim=True).mT
    for _ in range(8):
        axis = torch.nn.functional.normalize(centred.mT @ (centred @ axis), dim=-2)
    return (centred @ axis)[..., 0].argsort(dim=-1).argsort(dim=-1)


def _counts(labels: Tensor, centroids: Tensor, size: int) -> Tensor:
    """(batch, heads, blocks, clusters) float32: tokens of each cluster in each block of `size`."""
    batch, heads, tokens = labels.shape
    blocks, clusters = -(-tokens // size), centroids.shape[-2]
    block = torch.arange(tokens, device=labels.device) // size
    cells = block * (clusters + 1) + labels
    counts = torch.zeros(batch, heads, blocks * (clusters + 1), device=labels.device)
    counts.scatter_add_(-1, cells, torch.ones_like(cells, dtype=torch.float32))
    return counts.unflatten(-1, (blocks, clusters + 1))[..., :clusters]


METHOD = Method(
    select=select,
    scores=scores,
    arrange=arrange,
    order=OWN,
    options={
        "query_clusters": 0,
        "key_clusters": 0,
        "first_rounds": 50,
        "rounds": 2,
        "floor": 0.1,
    },
)
