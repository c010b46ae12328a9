"""Pictures of what the core does in a call: maps of blocks, kept tokens over the frames, types of heads, sparsity."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rf_cli.montage import BACKGROUND, TEXT, Panel, grid, pixels_of

if TYPE_CHECKING:
    from rainfusion_core.study.inspection import HeadView

MAP_SIZE = 288  # pixels of a square map, before its label
CELL, LEFT, TOP = 34, 170, 44
SHOWN_FRAMES = 5
QUERY_COLOUR, KEPT_COLOUR = (255, 214, 64), (64, 160, 255)
KINDS = {"spatial": (47, 127, 209), "temporal": (217, 102, 43), "textural": (42, 157, 110)}


def maps(views: Sequence["HeadView"]) -> Any:
    """(height, width, 3) uint8: a row a head: attention in the model's order, block masses, kept blocks."""
    return grid([_map_row(view) for view in views], 1)


def walk(by_step: Sequence[Sequence["HeadView"]]) -> Any:
    """(steps, height, width, 3) uint8: `maps` of one layer, step after step."""
    return np.stack([maps(views) for views in by_step])


def _map_row(view: "HeadView") -> list[Panel]:
    name = f"step {view.step}, layer {view.layer}, head {view.head}: {view.kind}"
    return [
        Panel(name, heat(view.fine)),
        Panel("true mass of blocks", heat(view.mass)),
        Panel(f"kept {view.density:.0%}, recall {view.recall:.0%}", _kept(view)),
    ]


def heat(values: Any) -> Any:
    """A square map, brighter for more; the root of each value over the greatest of its row."""
    shown = np.sqrt(values / np.maximum(values.max(-1, keepdims=True), 1e-30))
    low, high = np.array(BACKGROUND) / 255, np.array((1.0, 0.93, 0.75))
    middle = np.array((0.80, 0.30, 0.20))
    part = shown[..., None]
    colours = np.where(
        part < 0.5, low + (middle - low) * part * 2, middle + (high - middle) * (part * 2 - 1)
    )
    return _square(pixels_of(colours))


def _kept(view: "HeadView") -> Any:
    """Kept blocks in their mass, others in the background."""
    colours = np.where(view.kept[..., None], np.array(KEPT_COLOUR), np.array(BACKGROUND))
    return _square(colours.astype(np.uint8))


def _square(pixels: Any) -> Any:
    # neither a block lost nor one blurred into its neighbour
    size = max(MAP_SIZE, len(pixels))
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST))


def over_frames(view: "HeadView", frames: Any) -> Any:
    """(height, width, 3) uint8: frames in which what is not kept is dark, and the query block yellow.

    Args:
        frames: (frames, height, width, 3) float in [0, 1], of the finished video.
    """
    latent = len(view.covering)
    shown = np.unique(np.linspace(0, latent - 1, min(latent, SHOWN_FRAMES)).round().astype(int))
    panels = []
    for number in shown:
        # the first latent frame is one frame, each other one several: their middle is taken
        every = (len(frames) - 1) / max(latent - 1, 1)
        at = round(max(0.0, (number - 0.5) * every)) if number else 0
        panels.append(Panel(f"frame {at}", _shaded(frames[at], view.covering[number])))
    return grid([panels], max(1, -(-224 // frames.shape[2])))


def _shaded(frame: Any, covering: Any) -> Any:
    height, width = frame.shape[:2]
    mask = Image.fromarray(covering).resize((width, height), Image.Resampling.NEAREST)
    kind = np.asarray(mask)[..., None]
    yellow = np.array(QUERY_COLOUR) / 255
    shaded = np.where(kind == 0, frame * 0.22, frame)
    return pixels_of(np.where(kind == 2, 0.45 * frame + 0.55 * yellow, shaded))


def head_types(views: Sequence["HeadView"]) -> Any:
    """(height, width, 3) uint8: a row a layer and head, a column a step, a colour a type."""
    rows = sorted({(view.layer, view.head) for view in views})
    cells = {((v.layer, v.head), v.step): KINDS.get(v.kind, TEXT) for v in views}
    names = [f"layer {layer}, head {head}" for layer, head in rows]
    return _table("Head types", names, rows, cells, KINDS)


def sparsity(layers: Sequence[Mapping[str, Any]]) -> Any:
    """(height, width, 3) uint8: a row a layer, a column a step, the brighter the more was skipped.

    Args:
        layers: `per_layer_and_step` of a record's arm.
    """
    names = [f"layer {row['layer']}" for row in layers]
    cells = {
        (number, step): _blend(value)
        for number, row in enumerate(layers)
        for step, value in enumerate(row["steps"])
        if value is not None
    }
    legend = {f"{share:.0%} skipped": _blend(share) for share in (0.0, 0.5, 1.0)}
    return _table("Achieved sparsity", names, range(len(layers)), cells, legend)


def _blend(share: float) -> tuple[int, int, int]:
    low, high = np.array((52, 56, 62)), np.array(KEPT_COLOUR)
    return tuple(int(value) for value in low + (high - low) * share)  # type: ignore[return-value]


def _table(
    title: str,
    names: Sequence[str],
    rows: Sequence[Any],
    cells: Mapping[tuple[Any, int], tuple[int, int, int]],
    legend: Mapping[str, tuple[int, int, int]],
) -> Any:
    steps = sorted({step for _, step in cells})
    width = max(LEFT + CELL * len(steps) + 20, 560)
    height = TOP + CELL * len(rows) + 90
    image = Image.new("RGB", (width + width % 2, height + height % 2), BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15)
    draw.text((12, 12), title, TEXT, font=ImageFont.load_default(18))
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = TOP + number * CELL
        draw.text((12, top + CELL // 2), name, TEXT, font=font, anchor="lm")
        for column, step in enumerate(steps):
            if (colour := cells.get((row, step))) is not None:
                left = LEFT + column * CELL
                draw.rectangle((left, top, left + CELL - 3, top + CELL - 3), fill=colour)
    bottom = TOP + CELL * len(rows)
    for column, step in enumerate(steps):
        place = (LEFT + column * CELL + CELL // 2, bottom + 12)
        draw.text(place, str(step), TEXT, font=font, anchor="mm")
    draw.text((12, bottom + 12), "step", TEXT, font=font, anchor="lm")
    for number, (name, colour) in enumerate(legend.items()):
        left = 12 + number * 160
        draw.rectangle((left, bottom + 40, left + 18, bottom + 58), fill=colour)
        draw.text((left + 26, bottom + 49), name, TEXT, font=font, anchor="lm")
    return np.asarray(image)
