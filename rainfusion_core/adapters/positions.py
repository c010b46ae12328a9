"""Latent grids read from the positions of the tokens, where a model is given those and no sizes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from rainfusion_core.layout import LatentGrid

# a loop hands the same tensor to every forward pass, and reading it waits for the device
_read: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def grids_at(
    given: Tensor, view: Callable[[Tensor], Tensor], *, images: bool
) -> tuple[LatentGrid, ...]:
    """The grids that the tokens are, in the order of the sequence.

    Args:
        given: what the model is given. Read once, however often it is given.
        view: makes (tokens, 3) of it: frame or number of the image, row and column, in any unit.
        images: tokens with another first coordinate are another image, not another frame.

    Returns:
        No grid at all where some tokens are no grid in raster order.
    """
    if given not in _read:
        _read[given] = _grids(view(given.detach()).to("cpu", torch.float64), images)
    return _read[given]


def _grids(positions: Tensor, images: bool) -> tuple[LatentGrid, ...]:
    time, row, _ = positions.diff(dim=0).unbind(1)
    begins = (time != 0 if images else time < 0) | ((time == 0) & (row < 0))
    parts = positions.tensor_split((begins.nonzero().flatten() + 1).tolist())
    grids = [grid for part in parts if (grid := _grid(part)) is not None]
    return tuple(grids) if len(grids) == len(parts) else ()


def _grid(positions: Tensor) -> LatentGrid | None:
    axes = [axis.unique() for axis in positions.unbind(1)]
    if not torch.equal(torch.cartesian_prod(*axes), positions):
        return None
    return LatentGrid(*(len(axis) for axis in axes))
