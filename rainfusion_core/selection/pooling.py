"""One token for each block: the mean, or another one that stands for it."""

import torch
from torch import Tensor

from rainfusion_core.errors import UnknownName

# blocks, over all heads, that are averaged at a time: copies of them stay in the cache
PIECE = 32


def block_means(x: Tensor, block_size: int, lengths: Tensor | None = None) -> Tensor:
    """Mean of each block in float32, over its real tokens only, without a float32 copy of `x`.

    Source: RainFusion2.0, arXiv 2512.24086, eq. 5 and 6. Differs: float32 instead of the dtype of
    `x`, and padding is left out.

    Args:
        x: (batch, heads, tokens, head_dim), in any strides.
        lengths: (batch,) int; tokens from here on are padding. None: all are real.

    Returns:
        (batch, heads, blocks, head_dim) float32; undefined for a block that is all padding.
    """
    blocks = x.shape[-2] // block_size
    whole, short = x.tensor_split([blocks * block_size], dim=-2)
    means = _whole_block_means(whole.unflatten(-2, (blocks, block_size)))
    if short.shape[-2]:
        tail = short.mean(dim=-2, keepdim=True, dtype=torch.float32)
        means = torch.cat([means, tail], dim=-2)
    return means if lengths is None else _without_padding(means, x, block_size, lengths)


def ordered_block_means(
    x: Tensor, places: Tensor, block_size: int, lengths: Tensor | None = None
) -> Tensor:
    """`block_means` of tokens in another order, of which only some are copied at a time.

    Args:
        x: (batch, heads, tokens, head_dim), in any strides.
        places: (ordered,) int64: where each token of the order lies in `x`.
        lengths: (batch,) int; tokens of the order from here on are padding.
    """
    batch, heads, _, head_dim = x.shape
    tokens = len(places)
    # few blocks at a time, also of a short sequence: an eighth of it at most
    step = max(1, min(PIECE // (batch * heads), tokens // (8 * block_size)))
    # of one size and used again: what is made and freed piece by piece the system does not get back
    room = x.new_empty(batch, heads, min(step * block_size, tokens), head_dim)
    wide = room if x.dtype == torch.float32 else room.float()
    means = wide.new_empty(batch, heads, -(-tokens // block_size), head_dim)
    pieces = zip(places.split(step * block_size), means.split(step, dim=-2), strict=True)
    for piece, mean in pieces:
        here = torch.index_select(x, -2, piece, out=room[..., : len(piece), :])
        mean.copy_(block_means(wide[..., : len(piece), :].copy_(here), block_size))
    return means if lengths is None else _without_padding(means, x, block_size, lengths, places)


REPRESENTATIVES = ("mean", "max", "first", "last", "random")


def representatives(
    x: Tensor, block_size: int, kind: str, lengths: Tensor | None = None, seed: int = 0
) -> Tensor:
    """One token for each block in float32: the mean or maximum of its real tokens, or one of them.

    Args:
        x: (batch, heads, tokens, head_dim).
        kind: one of `REPRESENTATIVES`; "max" is taken channel by channel.
        lengths: (batch,) int; tokens from here on are padding. None: all are real.
        seed: of the one that "random" takes, the same one for all heads.

    Returns:
        (batch, heads, blocks, head_dim) float32; undefined for a block that is all padding.

    Raises:
        UnknownName: there is no such kind.
    """
    if kind not in REPRESENTATIVES:
        raise UnknownName("representative", kind, REPRESENTATIVES)
    if kind == "mean":
        return block_means(x, block_size, lengths)
    batch, _, tokens, head_dim = x.shape
    starts = torch.arange(0, tokens, block_size, device=x.device)
    ends = torch.full((batch, 1), tokens, device=x.device)
    ends = ends if lengths is None else lengths.to(x.device)[:, None]
    if kind == "max":
        places = torch.arange(tokens, device=x.device)
        real = x.masked_fill((places >= ends)[:, None, :, None], float("-inf"))
        missing = len(starts) * block_size - tokens
        real = torch.nn.functional.pad(real, (0, 0, 0, missing), value=float("-inf"))
        return real.unflatten(-2, (-1, block_size)).amax(dim=-2).float()
    sizes = (ends - starts).clamp(1, block_size)
    offsets = {"first": torch.zeros_like(sizes), "last": sizes - 1}
    if kind == "random":
        generator = torch.Generator(x.device).manual_seed(seed)
        share = torch.rand(len(starts), generator=generator, device=x.device)
        offsets["random"] = (share * sizes).long()
    at = (starts + offsets[kind])[:, None, :, None]
    return x.gather(-2, at.expand(-1, x.shape[1], -1, head_dim)).float()


def _whole_block_means(x: Tensor) -> Tensor:
    """Means over the tokens of (batch, heads, blocks, block_size, head_dim), in float32."""
    if x.device.type != "cpu" or x.dtype == torch.float32:
        return x.mean(dim=-2, dtype=torch.float32)
    # a CPU casts its operand before it adds: pieces that stay in the cache make this 7 times faster
    pieces = x.split(max(1, 16 // x.shape[:2].numel()), dim=-3)
    return torch.cat([piece.mean(dim=-2, dtype=torch.float32) for piece in pieces], dim=-2)


def _without_padding(
    means: Tensor, x: Tensor, block_size: int, lengths: Tensor, order: Tensor | None = None
) -> Tensor:
    """Pool the one block of each batch item in which the padding begins once more."""
    batch, heads, tokens, head_dim = x.shape
    border = (lengths.long() // block_size).clamp(max=means.shape[-2] - 1)
    places = border[:, None] * block_size + torch.arange(block_size, device=x.device)
    real = (places < lengths[:, None]).view(batch, 1, block_size, 1)
    places = places.clamp(max=tokens - 1)
    places = (places if order is None else order[places]).view(batch, 1, block_size, 1)
    block = x.gather(-2, places.expand(-1, heads, -1, head_dim)).float()
    # where, not times zero: padding may hold NaN
    total = torch.where(real, block, 0.0).sum(dim=-2, keepdim=True)
    mean = total / real.sum(dim=-2, keepdim=True).clamp(min=1)
    return means.scatter(-2, border.view(batch, 1, 1, 1).expand_as(mean), mean)
