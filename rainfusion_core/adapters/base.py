"""The contract of a model adapter."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from rainfusion_core.layout import LatentGrid, Text, TokenLayout


@dataclass(frozen=True)
class MadeUp:
    """What the arguments of a forward pass are made up from, to measure its speed.

    Attributes:
        config: of the transformer.
        latents: frames, rows and columns before patchify.
        text: tokens of a prompt, all of them valid.
        noise: (shape) -> normal numbers in the dtype and on the device of the transformer.
    """

    config: Any
    latents: tuple[int, int, int]
    text: int
    noise: Callable[..., Tensor]

    def arguments(self, hidden_states: Sequence[int], text_dim: int, **others: Any) -> dict:
        """The arguments that all classes have: latents of this shape, a timestep and a text."""
        return {
            "hidden_states": self.noise(*hidden_states),
            "timestep": self.noise(1).fill_(500),
            "encoder_hidden_states": self.noise(1, self.text, text_dim),
            **others,
        }

    def ones(self, *shape: int) -> Tensor:
        """Int64, as masks of text are."""
        return torch.ones(shape, dtype=torch.int64, device=self.noise(1).device)


@dataclass(frozen=True, kw_only=True)
class ModelAdapter:
    """Facts about one transformer class; no code of the model is copied.

    Attributes:
        self_attention: pattern that the full module names of self-attention layers match.
        grids: (transformer config, forward arguments by name) -> latent grids of this call, in
            the order in which they stand in the sequence; none if the arguments do not tell.
        text: where text tokens stand in the sequence that reaches the attention call.
        inputs: made-up arguments of one forward pass, of one guidance branch.
        functions: what its processors find in torch.nn.functional instead, by name.
    """

    self_attention: re.Pattern[str]
    grids: Callable[[Any, Mapping[str, Any]], tuple[LatentGrid, ...]]
    text: Literal["none", "first", "last"]
    inputs: Callable[[MadeUp], dict[str, Any]]
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
