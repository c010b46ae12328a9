"""A bar chart of the parts of a forward pass, drawn with Pillow: one bar an arm."""

import io
from collections.abc import Mapping
from typing import Any

from rf_cli.profile_sections import arm_name

WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 1100, 44, 22, 150, 140, 70
COLOURS = {
    "attention: dense": "#c44e52",
    "attention: permute": "#f2b6a0",
    "attention: select": "#e8915b",
    "attention: kernel": "#d65f3c",
    "attention: restore": "#f7d9c8",
    "projections and MLP": "#4c72b0",
    "cross-attention": "#55a868",
    "norms": "#8172b3",
    "rest": "#999999",
}


def chart(record: Mapping[str, Any]) -> bytes:
    """The PNG of the arms of a profile, to one scale."""
    from PIL import Image, ImageDraw, ImageFont

    arms, work = record["arms"], record["workload"]
    parts = [part for part in COLOURS if any(part in arm["parts_s"] for arm in arms)]
    legend = TOP + len(arms) * (BAR + GAP) + 10
    height = legend + 30 * ((len(parts) + 2) // 3) + 20
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    title = f"{work['model']} {work['size']} x {work['frames']} frames, {work['tokens']} tokens"
    draw.text((20, 14), title, fill="black", font=font)
    passes = (
        f"ms of a forward pass, {work['layers_run']} of {work['layers']} layers, {work['device']}"
    )
    draw.text((20, 42), passes, fill="#555555", font=small)
    scale = (WIDTH - LEFT - RIGHT) / max(arm["sum_of_parts_s"] for arm in arms)
    for number, arm in enumerate(arms):
        top = TOP + number * (BAR + GAP)
        draw.text((20, top + 12), arm_name(arm), fill="black", font=small)
        left = float(LEFT)
        for part in parts:
            right = left + scale * arm["parts_s"].get(part, 0.0)
            if right - left >= 1:
                draw.rectangle((left, top, right, top + BAR), fill=COLOURS[part])
            left = right
        total = f"{1e3 * arm['sum_of_parts_s']:.1f} ms"
        draw.text((left + 10, top + 12), total, fill="black", font=small)
    for number, part in enumerate(parts):
        x, y = 20 + number % 3 * 350, legend + number // 3 * 30
        draw.rectangle((x, y, x + 18, y + 18), fill=COLOURS[part])
        draw.text((x + 26, y), part, fill="black", font=small)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
