"""Keep the key blocks whose mean key best matches the mean query of the block.

Source: RainFusion2.0, arXiv 2512.24086, eq. 5 to 8, and its forced first frame and text.
Differs: means and scores are float32 and the top-k is exact, so neither equal scores nor underflow
keep extra blocks; blocks that only touch the first frame or the text are forced too; whether the
first frame is forced at all, `sink.py` says.
"""

import torch
from torch import Tensor

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import scored
from rainfusion_core.selection.pooling import REPRESENTATIVES, representatives
from rainfusion_core.selectors.base import Call, Method


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """(batch, heads, query_blocks, key_blocks) float32: mean query times mean key, scaled.

    The option `representative` takes another token than the mean, and `parts` one for each of as
    many parts of a block; the best pair of parts then scores for its blocks.
    """
    config = call.config.options
    kind, parts = str(config.get("representative", "mean")), int(config.get("parts", 1))
    size = order.block_size // parts
    queries = representatives(q, size, kind, seed=1)
    keys = representatives(k, size, kind, call.key_lengths)
    found = scores_of_means(queries, keys, call)
    return found if parts == 1 else _best_parts(found, parts, size, call.key_lengths)


def scores_of_means(q_means: Tensor, k_means: Tensor, call: Call) -> Tensor:
    """Both (batch, heads or key_heads, blocks, head_dim) float32."""
    k_means = k_means.repeat_interleave(q_means.shape[1] // k_means.shape[1], dim=1)
    # autocast would round the means to half precision
    with torch.autocast(q_means.device.type, enabled=False):
        return (q_means * call.scale) @ k_means.mT


def _best_parts(scores: Tensor, parts: int, size: int, key_lengths: Tensor | None) -> Tensor:
    """The greatest score among the parts of each pair of blocks."""
    if key_lengths is not None:
        starts = torch.arange(scores.shape[-1], device=scores.device) * size
        padding = (starts >= key_lengths.to(scores.device)[:, None])[:, None, None]
        scores = scores.masked_fill(padding, float("-inf"))
    missing = -scores.shape[-1] % parts
    scores = torch.nn.functional.pad(scores, (0, missing, 0, missing), value=float("-inf"))
    return scores.unflatten(-1, (-1, parts)).amax(-1).unflatten(-2, (-1, parts)).amax(-2)


def check(config: SparseConfig) -> None:
    kind, parts = str(config.options["representative"]), int(config.options["parts"])
    if kind not in REPRESENTATIVES:
        raise UnknownName("representative", kind, REPRESENTATIVES)
    if parts < 1 or config.block_size % parts:
        raise ConfigError(
            f"method option parts must divide the block size, got {parts} and {config.block_size}"
        )


METHOD = Method(
    select=scored(scores),
    scores=scores,
    scores_of_means=scores_of_means,
    order="compact",
    sink=True,
    options={"representative": "mean", "parts": 1},
    check=check,
)
