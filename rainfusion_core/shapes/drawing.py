"""Draws the scenes of `world` with signed distances, at any size and length."""

import math

import torch
from torch import Tensor

from rainfusion_core.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    HASTELESS,
    SIZES,
    Scene,
    Subject,
)

TRAVEL = {
    "slowly": 0.28,
    "quickly": 0.52,
}  # how far a moving shape goes, in frame widths or heights
TURNS = {"slowly": 0.5, "quickly": 1.0}  # of spinning and orbiting
HOPS = {"slowly": 1, "quickly": 2}
PAN = 0.6  # how far the camera turns, in shorter sides
FADED = 0.2  # opacity that is left at the end


def draw(scene: Scene, frames: int, height: int, width: int) -> Tensor:
    """(3, frames, height, width) float32 in [-1, 1]."""
    return draw_parts(scene, frames, height, width)[0]


def draw_parts(scene: Scene, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The clip, and where its shapes are: (1, frames, height, width) in [0, 1]."""
    short = min(height, width)
    ys = (torch.arange(height) + 0.5)[:, None] / short
    xs = (torch.arange(width) + 0.5)[None, :] / short
    time = torch.linspace(0, 1, frames)[:, None, None] if frames > 1 else torch.full((1, 1, 1), 0.5)
    run = {"left": 1.0, "right": -1.0}.get(scene.pan or "", 0.0) * PAN * (time - 0.5)
    picture = background(scene, xs - run, ys.expand(1, -1, -1), width / short, height / short)
    drawn = torch.zeros(1, frames, height, width)
    # the first subject is drawn last, unless it is behind the other
    order = scene.subjects if scene.relation == "behind" else scene.subjects[::-1]
    for subject in order:
        cover = _cover(subject, time, xs, ys, width / short, height / short, short)[None]
        colour = torch.tensor(COLOURS[subject.colour]).view(3, 1, 1, 1)
        picture = picture * (1 - cover) + colour * cover
        drawn = torch.maximum(drawn, cover)
    return picture.expand(3, frames, height, width) * 2 - 1, drawn


def _cover(
    subject: Subject, time: Tensor, xs: Tensor, ys: Tensor, width: float, height: float, short: int
) -> Tensor:
    """(frames, height, width): opacity of the shape, with one pixel of anti-aliasing."""
    x, y, radius, angle, opacity = path(subject, time)
    dx, dy = (xs - x * width) / radius, (ys - y * height) / radius
    turned = (
        dx * torch.cos(angle) + dy * torch.sin(angle),
        dy * torch.cos(angle) - dx * torch.sin(angle),
    )
    edge = distance(subject.shape, *turned) * radius * short
    return (0.5 - edge).clamp(0, 1) * opacity


def path(subject: Subject, time: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centre (frame widths and heights), radius (shorter sides), angle and opacity at `time` in [0, 1]."""
    motion, haste = subject.motion, subject.haste
    still = torch.zeros_like(time)
    right, down = DIRECTIONS.get(motion, (0.0, 0.0))
    away, turn = TRAVEL[haste] * (time - 0.5), 2 * math.pi * TURNS[haste] * time
    x, y = subject.place[0] + right * away, subject.place[1] + down * away
    radius, angle, opacity = SIZES[subject.size] + still, still, still + 1
    if motion == "orbiting":
        x, y = x - 0.2 * torch.cos(turn), y - 0.2 * torch.sin(turn)
    elif motion == "bouncing":
        hop = (math.pi * HOPS[haste] * time).sin().abs()
        y = y + 0.16 - 0.32 * hop
    elif motion == "spinning":
        angle = turn
    elif motion == "fading":
        opacity = 1 - (1 - FADED) * time
    elif motion in HASTELESS:
        growth = 1.0 if motion == "growing" else -1.0
        radius = radius * (1 + 0.45 * growth * (2 * time - 1))
    return x, y, radius, angle, opacity


def background(scene: Scene, xs: Tensor, ys: Tensor, width: float, height: float) -> Tensor:
    """(3, frames or 1, height, width) in [0, 1]: one colour with a soft pattern, or two colours."""
    turn, style, phase = 2 * math.pi, scene.style, scene.phase
    stripes = torch.sin(turn * (2.5 * (xs + ys) + phase))
    waves = torch.sin(turn * (2 * xs + phase)) * torch.sin(turn * 2 * ys)
    dots = torch.cos(turn * (3 * xs + phase)) * torch.cos(turn * 3 * ys)
    first = torch.tensor(BACKGROUNDS[scene.background]).view(3, 1, 1, 1)
    if scene.second is not None:
        share = {"striped": 4 * stripes, "checkered": 4 * waves}.get(
            style, 40 * (ys / height - 0.5)
        )
        share = (share * 0.5 + 0.5).clamp(0, 1) + 0 * xs
        second = torch.tensor(BACKGROUNDS[scene.second]).view(3, 1, 1, 1)
        return first * (1 - share) + second * share
    pattern = {
        "striped": 0.15 * stripes,
        "checkered": (4 * waves).clamp(-1, 1) * 0.13,
        "dotted": ((dots.abs() - 0.55) * 6).clamp(0, 1) * 0.24,
        "gradient": 0.5 * (0.5 - ys / height) + 0 * xs,
    }.get(style, 0 * (xs + ys))
    return (first * (1 + pattern)).clamp(0, 1)


def distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a shape of radius 1 around the origin, negative inside; y points down."""
    r = (x.square() + y.square()).sqrt()
    if shape == "circle":
        return r - 1
    if shape == "ring":
        return (r - 0.76).abs() - 0.24
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84
    if shape == "cross":
        upright = torch.maximum(x.abs() - 0.32, y.abs() - 1)
        return torch.minimum(upright, torch.maximum(x.abs() - 1, y.abs() - 0.32))
    if shape == "heart":
        return _heart(x, y)
    return _triangle(x, y, r) if shape == "triangle" else _star(x, y, r)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """A square on its corner with a circle on each of its upper edges."""
    half = 0.58
    y = y - 0.1
    u, w = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)
    box = torch.maximum(u.abs(), w.abs()) - half
    left = ((u + half).square() + w.square()).sqrt() - half
    right = (u.square() + (w + half).square()).sqrt() - half
    return torch.minimum(box, torch.minimum(left, right))


def _triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    sector = 2 * math.pi / 3
    folded = torch.atan2(x, -y) % sector - sector / 2  # from the middle of an edge; 0 points up
    return r * torch.cos(folded) - 0.6


def _star(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    half = math.pi / 5
    folded = (torch.atan2(x, -y).abs() + half) % (2 * half) - half
    px, py = r * torch.sin(folded.abs()), r * torch.cos(folded)
    # one edge runs from the tip to the notch at angle `half`, radius one half
    tip, notch = (0.0, 1.15), (0.5 * math.sin(half), 0.5 * math.cos(half))
    ex, ey = notch[0] - tip[0], notch[1] - tip[1]
    return (ex * (py - tip[1]) - ey * (px - tip[0])) / math.hypot(ex, ey)
