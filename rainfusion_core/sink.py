"""Whether the first frame is a sink: kept by every query, while its own queries keep everything.

Source: RainFusion2.0, arXiv 2512.24086, section 3, where it always is. Differs: `AUTO` leaves it
like any other frame where it would be `LARGE_SHARE` or more of what a query keeps. At equal density
the blocks that it displaces then hold more, as docs/evidence.md measures; below that share it costs
little, and the paper stands.
"""

from typing import NamedTuple

from rainfusion_core.budget import chosen_per_row
from rainfusion_core.config import AUTO, SparseConfig
from rainfusion_core.layout import TokenLayout

LARGE_SHARE = 1 / 4


class FirstFrame(NamedTuple):
    """What the first frame is to the calls of one layout.

    Attributes:
        sink: whether it is pinned.
        blocks: key blocks that it takes as a sink; 0 where nothing moves.
        row_blocks: key blocks that a query block keeps then, those of first frame and text among them.
    """

    sink: bool
    blocks: int
    row_blocks: int


def first_frame(layout: TokenLayout, config: SparseConfig) -> FirstFrame:
    """The rule, by counting blocks.

    Args:
        config: completed by its method. With a mass target, which decides only from call to call
            how much is kept, its sparsity says what is reckoned with.
    """
    number = longest_video(layout)
    if number is None:
        return FirstFrame(False, 0, 0)
    grid, size = layout.grids[number], config.block_size
    frame, total = -(-grid.height * grid.width // size), -(-layout.tokens // size)
    pinned = min(total, frame + -(-layout.text_tokens // size))
    chosen = chosen_per_row(total, pinned, sparsity=config.sparsity, budget=config.budget)
    row = min(total, pinned + chosen)
    sink = frame < LARGE_SHARE * row if config.sink == AUTO else bool(config.sink)
    return FirstFrame(sink, frame, row)


def longest_video(layout: TokenLayout) -> int | None:
    """Number of the grid whose first frame can be a sink, the first of several; images have none."""
    frames = [grid.frames for grid in layout.grids]
    # frames that condition a video may stand before it
    return frames.index(max(frames)) if max(frames, default=1) > 1 else None
