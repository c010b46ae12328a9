"""Charts of the report page as inline SVG: lines over the frames, and a map of layers and steps."""

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#2f7fd1", "#d9662b", "#2a9d6e", "#a05bc7", "#c2453f", "#8a7a1d", "#4a9aa8", "#7a6a5a")
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 30


def lines(series: Mapping[str, Sequence[float]], *, label: str, colours: Mapping[str, str]) -> str:
    """One line a series over the frames; infinite values are drawn at the upper edge.

    Args:
        series: values by name, all of one length.
        colours: by the same names.
    """
    width, height = 640, 240
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    margin = max((high - low) * 0.1, 0.01 * abs(high), 1e-6)
    low, high = low - margin, high + margin
    frames = max(map(len, series.values()), default=1)

    def x(index: int) -> float:
        return LEFT + index / max(frames - 1, 1) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - min(value, high)) / (high - low) * (height - TOP - BOTTOM)

    parts = []
    for value in (low + (high - low) * part / 4 for part in range(5)):
        parts.append(
            f'<line class="rule" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for index in sorted({round((frames - 1) * part / 4) for part in range(5)}):
        parts.append(
            f'<text x="{x(index):.1f}" y="{height - 12}" text-anchor="middle">{index}</text>'
        )
    for name, values in series.items():
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
        parts.append(
            f'<polyline points="{points}" stroke="{colours[name]}"><title>{escape(name)}</title></polyline>'
        )
    parts.append(
        f'<line class="playhead" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{height - BOTTOM}" '
        f'data-left="{LEFT}" data-right="{width - RIGHT}"/>'
    )
    return _svg(width, height, label, parts)


def layer_step_map(layers: Sequence[Mapping[str, object]], *, label: str, colour: str) -> str:
    """A cell for every layer (rows) and step (columns), the darker the sparser; grey did not run.

    Args:
        layers: `per_layer_and_step` of a record's arm.
    """
    steps = max((len(row["steps"]) for row in layers), default=0)  # type: ignore[arg-type]
    width = 640
    cell = (width - LEFT - RIGHT) / max(steps, 1)
    row_height = 22 if len(layers) <= 12 else 10
    height = TOP + row_height * len(layers) + BOTTOM
    every = max(1, -(-len(layers) // 12))
    parts = []
    for number, row in enumerate(layers):
        top = TOP + number * row_height
        name = f"{row['transformer']} layer {row['layer']}"
        if number % every == 0:
            parts.append(
                f'<text x="{LEFT - 6}" y="{top + row_height * 0.7:.1f}" text-anchor="end">{row["layer"]}</text>'
            )
        for step, value in enumerate(row["steps"]):  # type: ignore[arg-type, var-annotated]
            # a little sparsity must still be told from none
            opacity = 0.15 + 0.85 * value if value else 0.0
            shade = f'fill="{colour}" fill-opacity="{opacity:.3f}"'
            shade = 'class="unrun"' if value is None else shade
            said = "did not run" if value is None else f"{value:.1%} skipped"
            parts.append(
                f'<rect x="{LEFT + step * cell:.1f}" y="{top}" width="{max(cell - 1, 1):.1f}" '
                f'height="{row_height - 1}" {shade}><title>{escape(name)}, step {step}: {said}</title></rect>'
            )
    for step in sorted({round((steps - 1) * part / 4) for part in range(5)} if steps else ()):
        middle = LEFT + (step + 0.5) * cell
        parts.append(f'<text x="{middle:.1f}" y="{height - 12}" text-anchor="middle">{step}</text>')
    return _svg(width, height, label, parts)


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
