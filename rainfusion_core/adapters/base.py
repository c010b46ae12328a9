"""The contract of a model adapter."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rainfusion_core.layout import LatentGrid, Text, TokenLayout


@dataclass(frozen=True, kw_only=True)
class ModelAdapter:
    """Facts about one transformer class; no code of the model is copied.

    Attributes:
        self_attention: pattern that the full module names of self-attention layers match.
        grids: (transformer config, forward arguments by name) -> latent grids of this call, in
            the order in which they stand in the sequence; none if the arguments do not tell.
        text: where text tokens stand in the sequence that reaches the attention call.
        functions: what its processors find in torch.nn.functional instead, by name.
    """

    self_attention: re.Pattern[str]
    grids: Callable[[Any, Mapping[str, Any]], tuple[LatentGrid, ...]]
    text: Literal["none", "first", "last"]
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def layout(self, grids: tuple[LatentGrid, ...], tokens: int) -> TokenLayout | None:
        """The layout of a call with `tokens` tokens, or None if the grids do not explain them."""
        text = tokens - sum(grid.tokens for grid in grids)
        if not grids or text < 0 or (text and self.text == "none"):
            return None
        segments = (Text(text),) if text else ()
        return TokenLayout((*segments, *grids) if self.text == "first" else (*grids, *segments))


def patchified(sizes: Sequence[int], patch: Sequence[int]) -> tuple[LatentGrid, ...]:
    """The one grid of latents with these (frames, height, width) and tokens of this patch."""
    frames, height, width = (size // each for size, each in zip(sizes, patch, strict=True))
    return (LatentGrid(frames, height, width),)
