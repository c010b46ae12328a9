"""Says from decoded frames what a clip of `shapes` shows: backgrounds, and colour, form, motion and size of shapes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rainfusion_core.shapes import world
from rainfusion_core.shapes.drawing import distance

FAR = 0.2  # RGB distance from the background beyond which a pixel belongs to a shape
SHADES = (0.72, 1.28)  # a pattern makes a background's colour that much darker or lighter
FADING = 0.6  # a shape whose strength falls below that share of what it began with fades
WHOLE = 0.75  # a fading shape has its own colour while its strength is above that share; later it blends
STILL = 0.12  # a centroid that travels less, in frame widths or heights, does not move
BENT = 0.11  # a path that leaves its straight line by more is no straight line
SCALES = torch.tensor([0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5])
LARGER = (0.5, 0.6, 0.7, 0.8, 0.9)  # an outline is seen in frames of which so many show it smaller
SHIFTS = torch.tensor([-0.25, -0.1, 0.0, 0.1, 0.25])

Seen = dict[str, str | int | None]


@dataclass
class _Track:
    """One colour's pixels: mask (frames, height, width), and by frame where they are and how many."""

    mask: Tensor
    x: Tensor
    y: Tensor
    area: Tensor


def judge(frames: Tensor) -> Seen:
    """What is seen, in the words of `world` and with the keys of its captions, and the `count` of shapes.

    Args:
        frames: (frames, height, width, 3) float in [0, 1].
    """
    frames = torch.as_tensor(frames).float()
    grounds = _grounds(frames)
    far = _far(frames, grounds)
    seen: Seen = {"background": grounds[0], "second": grounds[1] if len(grounds) > 1 else None}
    colours = _colours(frames, far)
    nearest = _nearest(frames, world.COLOURS)
    for number, colour in enumerate(colours):
        mask = (far > FAR) & (nearest == list(world.COLOURS).index(colour))
        seen |= {f"{key}{number}": value for key, value in _shape_seen(mask, far).items()}
        seen[f"colour{number}"] = colour
    return seen | {"count": len(colours)}


def agreement(named: Mapping[str, str | None], frames: Tensor) -> dict[str, bool]:
    """Which of the named attributes are seen; attributes that the caption does not name are left out.

    Two shapes are compared in the order in which they agree best in colour.
    """
    seen, count = judge(frames), 1 + (named.get("shape1") is not None)
    turned = named["colour0"] != seen.get("colour0") and seen.get("colour1") is not None
    grounds = {named["background"], named["second"]} - {None}
    found = {"count": seen["count"] == count,
             "background": grounds == {seen["background"], seen["second"]} - {None}}  # fmt: skip
    for number in range(count):
        other = number if not turned else 1 - number
        for key in ("colour", "shape", "motion", "size"):
            if named.get(f"{key}{number}") is not None:
                same = named[f"{key}{number}"] == seen.get(f"{key}{other}")
                found[key] = found.get(key, True) and same
    return found


# --- background and colours -----------------------------------------------------------------------------------------


def _nearest(frames: Tensor, palette: Mapping[str, tuple[float, ...]]) -> Tensor:
    """Index of the nearest colour for every pixel."""
    return torch.stack(
        [(frames - torch.tensor(rgb)).norm(dim=-1) for rgb in palette.values()]
    ).argmin(0)


def _off_shade(frames: Tensor, name: str) -> Tensor:
    """Distance of every pixel to the nearest shade of a background colour."""
    colour = torch.tensor(world.BACKGROUNDS[name])
    shade = (frames @ colour / colour.square().sum()).clamp(*SHADES)
    return (frames - shade[..., None] * colour).norm(dim=-1)


def _grounds(frames: Tensor) -> list[str]:
    """The one or two colours of the frame's border, a tenth of it wide, over all frames."""
    height, width = frames.shape[1:3]
    edge = torch.ones(height, width, dtype=torch.bool)
    y, x = max(1, height // 10), max(1, width // 10)
    edge[y:-y, x:-x] = False
    border, names = frames[:, edge], list(world.BACKGROUNDS)
    off, nearest = torch.stack([_off_shade(border, name) for name in names]).min(0)
    shares = torch.bincount(nearest[off < FAR], minlength=len(names)) / nearest.numel()
    best = shares.argsort(descending=True)
    return [names[best[0]]] + [names[i] for i in best[1:2] if shares[i] > 0.2]


def _far(frames: Tensor, grounds: list[str]) -> Tensor:
    """RGB distance of every pixel from the background and from blends of its two colours."""
    off = torch.stack([_off_shade(frames, name) for name in grounds]).amin(0)
    if len(grounds) == 2:
        a, b = (torch.tensor(world.BACKGROUNDS[name]) for name in grounds)
        part = ((frames - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1)[..., None]
        off = torch.minimum(off, (frames - a - part * (b - a)).norm(dim=-1))
    return off


def _colours(frames: Tensor, far: Tensor) -> list[str]:
    """Colours of the shapes, the one with more pixels first; rims and what has faded are left out."""
    strength = _strength(far)
    if _fades(strength):
        whole = strength > WHOLE * strength.max()
        frames, far = frames[whole], far[whole]
    shape = far > FAR
    inner = -torch.nn.functional.max_pool2d(-shape[:, None].float(), 5, 1, 2)[:, 0] > 0
    inner = inner if inner.float().mean() > 0.002 else shape
    if inner.float().mean() < 0.002:
        return []
    names = list(world.COLOURS)
    counts = torch.bincount(_nearest(frames[inner], world.COLOURS), minlength=len(names))
    best = counts.argsort(descending=True)[:2]
    return [names[i] for i in best if counts[i] > 0.12 * counts.sum()]


def _strength(far: Tensor) -> Tensor:
    """(frames,) how far the farthest pixels are from the background."""
    return far.flatten(1).quantile(0.995, dim=1)


def _fades(strength: Tensor) -> bool:
    return bool(strength[-2:].mean() < FADING * strength[:2].mean())


# --- one shape ------------------------------------------------------------------------------------------------------


def _shape_seen(mask: Tensor, far: Tensor) -> dict[str, str | None]:
    track = _track(mask)
    there = track.area > 0.003
    if there.float().mean() < 0.3:
        return dict.fromkeys(["shape", "motion", "size"])
    motion = _motion(track, far)
    by_area = track.area.argsort().tolist()
    clearest = {by_area[int(share * len(by_area))] for share in LARGER}
    shape = _form(mask[frame] for frame in ([0] if motion == "spinning" else clearest))
    return {"shape": shape, "motion": motion, "size": _size(track, shape)}


def _track(mask: Tensor) -> _Track:
    weights = mask.float()
    total = weights.sum((1, 2)).clamp(min=1)
    height, width = mask.shape[1:]
    ys = (weights.sum(2) @ torch.arange(height).float()) / total / height
    xs = (weights.sum(1) @ torch.arange(width).float()) / total / width
    return _Track(mask, xs, ys, weights.mean((1, 2)))


def _line(values: Tensor, time: Tensor) -> tuple[float, float]:
    """(change along the straight line through the values, greatest minus least distance from it)."""
    slope = ((time - time.mean()) * (values - values.mean())).sum() / (
        time - time.mean()
    ).square().sum()
    rest = values - slope * time
    return float(slope), float(rest.max() - rest.min())


def _motion(track: _Track, far: Tensor) -> str:
    own = far * track.mask.any(0)  # where another shape is, its strength says nothing
    if _fades(_strength(own)):
        return "fading"
    there = track.area > 0.003
    time = torch.linspace(0, 1, len(track.area))[there]
    (dx, bend_x), (dy, bend_y) = (_line(values[there], time) for values in (track.x, track.y))
    if max(bend_x, bend_y) > BENT:
        return "orbiting" if bend_x > BENT / 2 or abs(dx) > STILL else "bouncing"
    if math.hypot(dx, dy) > STILL:
        return _direction(dx, dy)
    area = track.area[there]
    third = max(1, len(area) // 3)
    growth = float(area[-third:].mean() / area[:third].mean())
    if growth > 1.4 or growth < 1 / 1.4:
        return "growing" if growth > 1 else "shrinking"
    return "spinning" if _turns(track) else "still"


def _direction(dx: float, dy: float) -> str:
    size = math.hypot(dx, dy)

    def along(name: str) -> float:
        x, y = world.DIRECTIONS[name]
        return (x * dx + y * dy) / math.hypot(x, y) / size

    return max(world.DIRECTIONS, key=along)


def _turns(track: _Track) -> bool:
    """The mask, moved back to its first centroid, leaves its first form."""
    height, width = track.mask.shape[1:]
    first, least = track.mask[0], 1.0
    for mask, x, y in zip(track.mask, track.x, track.y, strict=True):
        moves = round(float(track.y[0] - y) * height), round(float(track.x[0] - x) * width)
        moved = mask.roll(moves, (0, 1))
        least = min(least, float((moved & first).sum() / (moved | first).sum().clamp(min=1)))
    return least < 0.85


def _form(masks: Iterable[Tensor]) -> str:
    """The shape that, drawn with about the same area around the same centroid, overlaps best, all frames together."""
    found = dict.fromkeys(world.SHAPES, 0.0)
    for mask in masks:
        height, width = mask.shape
        weight = mask.float() / mask.sum()
        ys, xs = torch.arange(height).float()[:, None], torch.arange(width).float()[None]
        y, x = ys - float((weight * ys).sum()), xs - float((weight * xs).sum())
        for name in found:
            found[name] += _overlap(name, mask, x, y)
    return max(found, key=lambda name: found[name])


def _overlap(shape: str, mask: Tensor, xs: Tensor, ys: Tensor) -> float:
    """Intersection over union with the best of a few sizes and heights (a heart's centroid is not its middle)."""
    radius = math.sqrt(float(mask.sum()) / unit_area(shape)) * SCALES.view(-1, 1, 1, 1)
    drawn = distance(shape, xs / radius, ys / radius + SHIFTS.view(1, -1, 1, 1)) < 0
    union = (drawn | mask).sum((-1, -2))
    return float(((drawn & mask).sum((-1, -2)) / union).max())


@cache
def unit_area(shape: str) -> float:
    """Area of a shape of radius 1."""
    axis = torch.linspace(-1.3, 1.3, 131)
    inside = distance(shape, axis[None], axis[:, None]) < 0
    return float(inside.float().mean()) * 2.6**2


def _size(track: _Track, shape: str) -> str:
    """By the area in the middle of the clip, in shorter sides; a growing shape has its own size there."""
    height, width = track.mask.shape[1:]
    middle = len(track.area) // 2
    area = (
        float(track.area[max(0, middle - 1) : middle + 2].median())
        * height
        * width
        / min(height, width) ** 2
    )
    radius = math.sqrt(max(area, 1e-6) / unit_area(shape))
    return min(world.SIZES, key=lambda name: abs(math.log(radius / world.SIZES[name])))
