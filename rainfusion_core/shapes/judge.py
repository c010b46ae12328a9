"""Says from decoded frames what a clip of `shapes` shows: colour, shape, background, motion and size."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rainfusion_core.shapes import world

FAR = 0.2  # RGB distance from the background beyond which a pixel belongs to the shape
STILL = 0.15  # a centroid that travels less, in frame widths or heights, does not move


def judge(frames: Tensor) -> dict[str, str | None]:
    """What is seen, in the words of `world`; None where no shape stands out.

    Args:
        frames: (frames, height, width, 3) float in [0, 1].
    """
    frames = torch.as_tensor(frames).float()
    background = _background(frames)
    masks = _foreground(frames, background)  # (frames, height, width) bool
    seen: dict[str, str | None] = {"background": background}
    areas = masks.float().mean((1, 2))
    if (areas > 0.004).float().mean() < 0.8:
        return seen | dict.fromkeys(["colour", "motion", "shape", "size"])
    middle = int(areas.median(dim=0).indices)
    return seen | {
        "colour": _nearest(_inner_colour(frames, masks), world.COLOURS),
        "motion": _motion(masks, areas),
        "shape": _shape(masks[middle]),
        "size": _size(masks),
    }


def _nearest(rgb: Tensor, palette: Mapping[str, tuple[float, ...]]) -> str:
    return min(palette, key=lambda name: float((rgb - torch.tensor(palette[name])).norm()))


def _background(frames: Tensor) -> str:
    """The colour of the frame's border, a tenth of it wide, over all frames."""
    height, width = frames.shape[1:3]
    edge = torch.ones(height, width, dtype=torch.bool)
    y, x = max(1, height // 10), max(1, width // 10)
    edge[y:-y, x:-x] = False
    return _nearest(frames[:, edge].flatten(0, 1).median(dim=0).values, world.BACKGROUNDS)


def _foreground(frames: Tensor, background: str) -> Tensor:
    """Pixels far from every shade of the background's colour."""
    colour = torch.tensor(world.BACKGROUNDS[background])
    shade = (frames @ colour / colour.square().sum()).clamp(0.75, 1.25)
    return (frames - shade[..., None] * colour).norm(dim=-1) > FAR


def _inner_colour(frames: Tensor, masks: Tensor) -> Tensor:
    """Median colour of the shape without its blended rim."""
    rim = torch.nn.functional.max_pool2d(1 - masks[:, None].float(), 3, 1, 1)[:, 0] > 0
    inner = masks & ~rim
    return frames[inner if inner.any() else masks].median(dim=0).values


def _motion(masks: Tensor, areas: Tensor) -> str:
    """By the straight line through the centroids; by the area where they stay."""
    count, height, width = masks.shape
    weights = masks.float()
    total = weights.sum((1, 2)).clamp(min=1)
    ys = (weights.sum(2) @ torch.arange(height).float()) / total / height
    xs = (weights.sum(1) @ torch.arange(width).float()) / total / width
    time = torch.linspace(-0.5, 0.5, count)
    dx, dy = (float((time * track).sum() / time.square().sum()) for track in (xs, ys))
    if max(abs(dx), abs(dy)) > STILL:
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"
    third = max(1, count // 3)
    growth = float(areas[-third:].mean() / areas[:third].mean().clamp(min=1e-6))
    return "growing" if growth > 1.3 else "shrinking" if growth < 1 / 1.3 else "still"


def _shape(mask: Tensor) -> str:
    """The shape that, drawn with the same area around the same centroid, overlaps best."""
    height, width = mask.shape
    weight = mask.float() / mask.sum()
    ys, xs = torch.arange(height).float()[:, None], torch.arange(width).float()[None]
    y, x = float((weight * ys).sum()), float((weight * xs).sum())
    return max(world.SHAPES, key=lambda name: _overlap(name, mask, xs - x, ys - y))


def _overlap(shape: str, mask: Tensor, xs: Tensor, ys: Tensor) -> float:
    """Intersection over union with the best of a few sizes and heights (centroids differ)."""
    best, radius = 0.0, math.sqrt(float(mask.sum()) / math.pi)
    for scale in (0.9, 1.0, 1.1, 1.25, 1.4, 1.6):
        for shift in (-0.2, 0.0, 0.2):
            r = radius * scale
            drawn = world.signed_distance(shape, xs / r, ys / r + shift) < 0
            union = (drawn | mask).sum()
            best = max(best, float((drawn & mask).sum() / union))
    return best


def _size(masks: Tensor) -> str:
    """By the width of the shape in the middle of the clip, in frame sides."""
    middle = masks[len(masks) // 2]
    extent = max(int(middle.any(0).sum()), int(middle.any(1).sum())) / min(middle.shape)
    radii = world.SIZES
    return "large" if extent > radii["small"] + radii["large"] else "small"


def agreement(named: Mapping[str, str | None], frames: Tensor) -> float:
    """Share of the attributes that a prompt names, and that can be judged, which the clip shows.

    Args:
        named: as `world.caption` returns them.
        frames: (frames, height, width, 3) float in [0, 1].
    """
    seen = judge(frames)
    asked = {name: value for name, value in named.items() if value is not None and name in seen}
    return sum(seen[name] == value for name, value in asked.items()) / len(asked)
