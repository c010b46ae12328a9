"""The world that `shapes` is trained on: captioned clips of one shape over a background, drawn with signed distances.

Everything is drawn from numbers, at any size and length: a `Scene` says what is seen, `draw` renders it, `caption`
words it. All lengths are fractions of the shorter side of the frame, and a motion always takes the whole clip.
"""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star")
SIZES = {"small": 0.15, "large": 0.25}  # radius
MOTIONS = {
    "right": "moving right",
    "left": "moving left",
    "up": "moving up",
    "down": "moving down",
    "growing": "growing",
    "shrinking": "shrinking",
}
DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
STYLES = ("gradient", "striped", "checkered")
COLOURS = {
    "red": (0.90, 0.12, 0.15),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (1.00, 0.92, 0.15),
    "green": (0.15, 0.75, 0.20),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.12, 0.22, 0.95),
    "purple": (0.60, 0.15, 0.85),
    "white": (0.97, 0.97, 0.97),
}
# backgrounds are muted versions of the colours, so that a shape stands out on any of them
BACKGROUNDS = {
    name: tuple(0.55 * channel + 0.12 for channel in rgb) for name, rgb in COLOURS.items()
}
TRAVEL = 0.5  # how far a moving shape goes, in frame widths or heights


@dataclass(frozen=True)
class Scene:
    """What one clip shows. `None` in a caption's place means that the caption does not say."""

    shape: str
    size: str
    colour: str
    motion: str
    background: str
    style: str
    place: tuple[float, float]  # where the path is centred, in frame widths and heights
    phase: float  # of the background's pattern, in [0, 1)


def random_scene(rng: random.Random, *, held_out: bool = False) -> Scene:
    """A scene to train on, or one whose shape, colour and background never meet in training."""
    while True:
        shape = rng.choice(SHAPES)
        colour, background = rng.sample(sorted(COLOURS), 2)
        if _is_held_out(shape, colour, background) == held_out:
            break
    motion = rng.choice([*DIRECTIONS, *DIRECTIONS, "growing", "shrinking"])
    horizontal, vertical = DIRECTIONS.get(motion, (0.0, 0.0))
    x = rng.uniform(0.47, 0.53) if horizontal else rng.uniform(0.32, 0.68)
    y = rng.uniform(0.47, 0.53) if vertical else rng.uniform(0.32, 0.68)
    return Scene(
        shape,
        rng.choice(sorted(SIZES)),
        colour,
        motion,
        background,
        rng.choice(STYLES),
        (x, y),
        rng.random(),
    )


def _is_held_out(shape: str, colour: str, background: str) -> bool:
    """One in eight of all combinations."""
    names = sorted(COLOURS)
    number = 5 * SHAPES.index(shape) + 3 * names.index(colour) + names.index(background)
    return number % 8 == 0


def caption(scene: Scene, rng: random.Random) -> tuple[str, dict[str, str | None]]:
    """One of many wordings of a scene, and which attributes it names (the others map to None)."""
    named: dict[str, str | None] = {
        "shape": scene.shape,
        "size": scene.size if rng.random() < 0.75 else None,
        "colour": scene.colour,
        "motion": scene.motion,
        "background": scene.background,
        "style": scene.style if scene.style != "gradient" and rng.random() < 0.75 else None,
    }
    if scene.style == "gradient":  # the plain case: no word for it
        named["style"] = "gradient" if rng.random() < 0.3 else None
    motion = MOTIONS[scene.motion]
    if scene.motion in DIRECTIONS:
        motion = rng.choice([motion, f"going {scene.motion}", f"moves {scene.motion}"])
    subject = " ".join(filter(None, [named["size"], scene.colour, scene.shape]))
    ground = " ".join(filter(None, [named["style"], scene.background, "background"]))
    article = rng.choice(["a ", "the ", ""])
    place = rng.choice(["over", "on", "in front of"])
    return f"{article}{subject} {motion} {place} a {ground}", named


def held_out_prompt(number: int) -> tuple[str, dict[str, str | None]]:
    """One of endlessly many prompts whose combination training never saw, and what it names."""
    rng = random.Random(f"held-out-{number}")
    scene = random_scene(rng, held_out=True)
    return caption(scene, rng)


def draw(scene: Scene, frames: int, height: int, width: int) -> Tensor:
    """(3, frames, height, width) float32 in [-1, 1]."""
    short = min(height, width)
    ys = (torch.arange(height) + 0.5)[:, None] / short
    xs = (torch.arange(width) + 0.5)[None, :] / short
    time = torch.linspace(0, 1, frames)[:, None, None] if frames > 1 else torch.full((1, 1, 1), 0.5)
    dx, dy = DIRECTIONS.get(scene.motion, (0.0, 0.0))
    centre_x = (scene.place[0] + TRAVEL * dx * (time - 0.5)) * width / short
    centre_y = (scene.place[1] + TRAVEL * dy * (time - 0.5)) * height / short
    growth = {"growing": 1.0, "shrinking": -1.0}.get(scene.motion, 0.0)
    radius = SIZES[scene.size] * (1 + 0.45 * growth * (2 * time - 1))
    distance = (
        signed_distance(scene.shape, (xs - centre_x) / radius, (ys - centre_y) / radius) * radius
    )
    cover = (0.5 - distance * short).clamp(0, 1)  # one pixel of anti-aliasing
    ground = _background(scene, xs, ys, height / short)[:, None]
    colour = torch.tensor(COLOURS[scene.colour]).view(3, 1, 1, 1)
    return (ground * (1 - cover) + colour * cover) * 2 - 1


def _background(scene: Scene, xs: Tensor, ys: Tensor, height: float) -> Tensor:
    """(3, height, width) in [0, 1]: the colour, made lighter and darker by a soft pattern."""
    turn = 2 * math.pi
    if scene.style == "striped":
        pattern = torch.sin(turn * (2.5 * (xs + ys) + scene.phase)) * 0.14
    elif scene.style == "checkered":
        waves = torch.sin(turn * (2 * xs + scene.phase)) * torch.sin(turn * 2 * ys)
        pattern = (waves * 4).clamp(-1, 1) * 0.13
    else:
        pattern = 0.2 * (0.5 - ys / height) + 0 * xs
    return (torch.tensor(BACKGROUNDS[scene.background]).view(3, 1, 1) * (1 + pattern)).clamp(0, 1)


def signed_distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a shape of radius 1 around the origin, negative inside; y points down."""
    if shape == "circle":
        return (x.square() + y.square()).sqrt() - 1
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84
    corners = 3 if shape == "triangle" else 5
    inner = 1.0 if shape == "triangle" else 0.5
    angle = torch.atan2(x, -y)  # 0 points up
    if shape == "triangle":
        sector = 2 * math.pi / corners
        folded = angle % sector - sector / 2  # from the middle of an edge
        return (x.square() + y.square()).sqrt() * torch.cos(folded) - 0.6
    half = math.pi / corners
    folded = (angle.abs() + half) % (2 * half) - half
    r = (x.square() + y.square()).sqrt()
    # one edge of the star runs from the tip (0, 1.1) to the notch at angle `half`, radius `inner`
    px, py = r * torch.sin(folded.abs()), r * torch.cos(folded)
    tip, notch = (0.0, 1.15), (inner * math.sin(half), inner * math.cos(half))
    ex, ey = notch[0] - tip[0], notch[1] - tip[1]
    return (ex * (py - tip[1]) - ey * (px - tip[0])) / math.hypot(ex, ey)


def words() -> list[str]:
    """Every word that a caption can hold."""
    fixed = [
        "a",
        "the",
        "over",
        "on",
        "in",
        "front",
        "of",
        "moving",
        "going",
        "moves",
        "background",
    ]
    return sorted({*fixed, *SHAPES, *SIZES, *COLOURS, *STYLES, *MOTIONS})
