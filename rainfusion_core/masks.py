"""Attention masks as key lengths: what a padding mask says, or why a mask cannot be used with kept blocks."""

import torch
from torch import Tensor

from rainfusion_core.layout import Text, TokenLayout


class KeyMask:
    """A mask of keys that stays one row a batch item where a processor would make it square.

    A stand-in for the tensor in the processor's own steps, which repeat the row for every query
    and hide the rows of padding: at 50 000 tokens these are 2.5 GB a call.
    """

    def __init__(self, keys: Tensor) -> None:
        """`keys`: (batch, tokens) bool, True attends."""
        self.keys = keys

    @property
    def row(self) -> Tensor:
        """(batch, 1, 1, tokens) bool"""
        return self.keys[:, None, None]

    def bool(self) -> "KeyMask":
        return self

    def view(self, *shape: int) -> "KeyMask":
        return self

    def repeat(self, *sizes: int) -> "KeyMask":
        return self

    def transpose(self, *axes: int) -> "KeyMask":
        return self

    def __and__(self, other: "KeyMask") -> "KeyMask":
        return self


def key_lengths_of(
    mask: Tensor | None, layout: TokenLayout | None, *, batch: int
) -> tuple[Tensor | None, str | None]:
    """Reduce a mask to the number of keys that are not padding, counted with the text last.

    Args:
        mask: bool (True attends) or additive float; (batch, tokens), (batch, 1, 1, tokens) or
            (batch, 1, tokens, tokens), batch broadcastable.
        layout: what the tokens are.

    Returns:
        (batch,) int64 or None for all keys, and why the mask is not understood, or None if it is.
        Looks at the values of the mask, so a GPU is waited for.
    """
    if mask is None or layout is None:
        return None, None
    valid, refusal = _key_validity(mask, layout)
    if refusal is not None:
        return None, refusal
    video, text = _split(valid, layout)
    lengths = video.shape[-1] + text.sum(-1)
    prefix = torch.arange(text.shape[-1], device=text.device) < text.sum(-1, keepdim=True)
    # one copy to the host instead of two
    whole_video, text_first = torch.stack([video.all(), (prefix == text).all()]).tolist()
    if not whole_video:
        return None, "the mask hides video tokens"
    if not text_first:
        return None, "the mask hides text before text that it shows"
    return lengths.expand(batch), None


def without_padding(
    k: Tensor, v: Tensor, mask: Tensor | None, lengths: Tensor | None, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values cut where the padding begins, if that is one place: flash takes no mask."""
    if lengths is None or not isinstance(layout.segments[-1], Text):
        return k, v, mask
    shortest, longest = torch.stack([lengths.min(), lengths.max()]).tolist()
    if shortest < longest:
        return k, v, mask
    return k[..., :longest, :], v[..., :longest, :], None


def _key_validity(mask: Tensor, layout: TokenLayout) -> tuple[Tensor, str | None]:
    """(batch, tokens) bool, taken from the row of a video query."""
    valid = mask if mask.dtype == torch.bool else mask > -1
    if valid.ndim == 4:
        if valid.shape[1] != 1:
            return valid, "the mask differs between heads"
        valid = valid[:, 0]
    elif valid.ndim == 2:
        valid = valid[:, None]
    if valid.ndim != 3 or valid.shape[-1] != layout.tokens:
        return valid, f"the mask has shape {tuple(mask.shape)}"
    if valid.shape[1] > 1:
        columns, _ = _split(valid.mT, layout)  # (batch, keys, video queries)
        if not bool((columns == columns[..., :1]).all()):
            return valid, "the mask differs between video tokens"
        return columns[..., 0], None
    return valid[:, 0], None


def _split(x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """The video part and the text part of the last axis."""
    parts = x.split([segment.tokens for segment in layout.segments], dim=-1)
    pairs = list(zip(parts, layout.segments, strict=True))
    text = [part for part, segment in pairs if isinstance(segment, Text)]
    video = [part for part, segment in pairs if not isinstance(segment, Text)]
    return torch.cat(video, -1), torch.cat(text, -1) if text else x[..., :0]
