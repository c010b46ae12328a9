"""Pictures that put arms beside each other: labelled panels, side-by-side frames, and a strip of frames."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

AMPLIFICATION = 5
GAP, PANEL_WIDTH = 4, 288  # pixels; smaller panels are enlarged by a whole number
STRIP_FRAMES = 6
BACKGROUND, TEXT = (24, 26, 30), (236, 238, 240)


class Panel(NamedTuple):
    """One picture with the text above it; pixels are (height, width, 3) uint8."""

    label: str
    pixels: Any


def pixels_of(frames: Any) -> Any:
    """uint8 from float in [0, 1]."""
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)


def difference(reference: Any, frames: Any) -> Any:
    """Absolute difference, amplified, as uint8."""
    return pixels_of(np.abs(np.subtract(reference, frames)) * AMPLIFICATION)


def side_by_side(names: Sequence[str], arms: Sequence[Any], notes: Sequence[str]) -> Any:
    """(frames, height, width, 3) uint8: a row for each arm but the first: reference | arm | difference.

    Args:
        names, arms: every arm's name and its (frames, height, width, 3) float in [0, 1].
        notes: a few words for each arm, written behind its name.
    """
    reference = arms[0]
    scale = _scale(reference.shape[2])
    result = []
    for index in range(len(reference)):
        rows = [
            [
                Panel(names[0], pixels_of(reference[index])),
                Panel(f"{name}  {note}".strip(), pixels_of(frames[index])),
                Panel(f"difference x{AMPLIFICATION}", difference(reference[index], frames[index])),
            ]
            for name, frames, note in zip(names[1:], arms[1:], notes[1:], strict=True)
        ]
        result.append(grid(rows, scale))
    return np.stack(result)


def strip(names: Sequence[str], arms: Sequence[Any]) -> Any:
    """(height, width, 3) uint8: a row of evenly spaced frames for each arm and each difference."""
    reference = arms[0]
    chosen = np.unique(np.linspace(0, len(reference) - 1, STRIP_FRAMES).round().astype(int))
    rows = []
    for number, (name, frames) in enumerate(zip(names, arms, strict=True)):
        rows.append([Panel(f"{name}, frame {i}", pixels_of(frames[i])) for i in chosen])
        if number:
            label = f"difference x{AMPLIFICATION}"
            rows.append([Panel(label, difference(reference[i], frames[i])) for i in chosen])
    return grid(rows, _scale(reference.shape[2]))


def grid(rows: Sequence[Sequence[Panel]], scale: int) -> Any:
    """Panels in rows, each enlarged `scale` times, with even height and width."""
    lines = []
    for row in rows:
        cells = [_cell(panel, scale) for panel in row]
        lines.append(np.concatenate(_spaced(cells, axis=1), axis=1))
    whole = np.concatenate(_spaced(lines, axis=0), axis=0)
    height, width = whole.shape[:2]
    return np.pad(whole, ((0, height % 2), (0, width % 2), (0, 0)))


def _spaced(parts: Sequence[Any], *, axis: int) -> list[Any]:
    shape = list(parts[0].shape)
    shape[axis] = GAP
    gap = np.broadcast_to(np.array(BACKGROUND, np.uint8), shape)
    return [each for part in parts for each in (part, gap)][:-1]


def _cell(panel: Panel, scale: int) -> Any:
    pixels = panel.pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return np.concatenate([_bar(panel.label, pixels.shape[1]), pixels])


def _scale(width: int) -> int:
    return max(1, -(-PANEL_WIDTH // width))


@lru_cache(maxsize=256)
def _bar(label: str, width: int) -> Any:
    """The label in a bar as wide as its panel; long labels get smaller letters."""
    size = max(14, width // 26)
    height = size + 10
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    while size > 7 and draw.textlength(label, font=font) > width - 12:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text((6, height // 2), label, TEXT, font=font, anchor="lm")
    return np.asarray(image)
