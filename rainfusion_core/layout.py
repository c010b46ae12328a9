"""What a sequence holds: text and latent grids, in the order in which the attention call sees them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentGrid:
    """Video or image tokens after patchify, in raster order (frame, then row, then column)."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        return self.frames * self.height * self.width


@dataclass(frozen=True)
class Text:
    """Text tokens, padding included."""

    tokens: int


Segment = LatentGrid | Text


@dataclass(frozen=True)
class TokenLayout:
    """The segments of one sequence, first to last. Hashable, so that orders can be cached by it."""

    segments: tuple[Segment, ...]

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def text_tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments if isinstance(segment, Text))

    @property
    def grids(self) -> tuple[LatentGrid, ...]:
        return tuple(segment for segment in self.segments if isinstance(segment, LatentGrid))
