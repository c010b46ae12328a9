"""K-means of tokens, one head after the other, in as many rounds as asked for; nothing waits for the device."""

import torch
from torch import Tensor


def kmeans(x: Tensor, centroids: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Lloyd's rounds from given centroids; a cluster that runs empty keeps its centroid.

    Args:
        x: (batch, heads, tokens, head_dim).
        centroids: (batch, heads, clusters, head_dim) float32.

    Returns:
        The centroids, and (batch, heads, tokens) int64: the nearest one of each token.
    """
    points, middles = x.flatten(0, 1), centroids.flatten(0, 1)
    results = [
        _rounds(each.float(), middle, rounds) for each, middle in zip(points, middles, strict=True)
    ]
    found, labels = (
        torch.stack(each).unflatten(0, x.shape[:2]) for each in zip(*results, strict=True)
    )
    return found, labels


def random_tokens(x: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """(batch, heads, clusters, head_dim) float32: tokens drawn without replacement, as first centroids."""
    generator = torch.Generator(x.device).manual_seed(seed)
    drawn = torch.rand(x.shape[-2], generator=generator, device=x.device).argsort()[:clusters]
    return x.index_select(-2, drawn).float()


def _rounds(x: Tensor, centroids: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    labels = _nearest(x, centroids)
    for _ in range(rounds):
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        counts = torch.zeros_like(centroids[:, 0]).index_add_(0, labels, torch.ones_like(x[:, 0]))
        centroids = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centroids)
        labels = _nearest(x, centroids)
    return centroids, labels


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """(tokens,) int64: least Euclidean distance."""
    return (x @ centroids.T - centroids.square().sum(-1) / 2).argmax(dim=-1)
