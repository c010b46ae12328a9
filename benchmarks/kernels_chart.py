"""Effective speed of every kernel as bars, a group for each call; drawn with Pillow."""

import io
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont

WIDTH, BAR, LEFT, RIGHT = 1100, 20, 330, 130
COLOURS = {"dense": "#999999", "sparse": "#d65f3c", "peer": "#4c72b0"}


def kind_of(arm: str) -> str:
    if arm.startswith("dense "):
        return "dense"
    return "peer" if arm.startswith("flex") or arm.startswith("flash") else "sparse"


def chart(rows: list[dict], environment: dict) -> bytes:
    """PNG: speed over torch's own attention in the same run, with the 20-80 % range as a line."""
    rows = [row for row in rows if row["arm"] != "front end"]
    groups = [
        (key, list(members))
        for key, members in groupby(
            rows, lambda r: (r["shape"], r["dtype"], r["sparsity"], r["mask"])
        )
    ]
    height = 80 + sum(34 + BAR * len(members) for _, members in groups)
    image = Image.new("RGB", (WIDTH, height), "white")
    draw, big, small = ImageDraw.Draw(image), ImageFont.load_default(18), ImageFont.load_default(13)
    title = f"speed over torch SDPA: {environment['device_name']}, {environment['threads']} threads"
    draw.text((16, 12), f"{title}, torch {environment['torch']}", fill="black", font=big)
    scale = (WIDTH - LEFT - RIGHT) / max(row["speedup_over_sdpa"] for row in rows)
    y = 50
    for (shape, dtype, sparsity, mask), members in groups:
        text = f"{shape}, {dtype}, {members[0]['tokens']} tokens, {sparsity:.0%} skipped, {mask}"
        draw.text((16, y + 8), text, fill="black", font=small)
        y += 30
        for row in members:
            end = LEFT + scale * row["speedup_over_sdpa"]
            draw.text((40, y), row["arm"], fill="#333333", font=small)
            draw.rectangle((LEFT, y + 2, end, y + BAR - 4), fill=COLOURS[kind_of(row["arm"])])
            ends = [
                LEFT + scale * row["speedup_over_sdpa"] * row["ms"] / row[key]
                for key in ("ms_p80", "ms_p20")
            ]
            draw.line((ends[0], y + BAR // 2 - 1, ends[1], y + BAR // 2 - 1), fill="black")
            label = f"{row['speedup_over_sdpa']:.2f}x  {row['ms']:.1f} ms"
            draw.text((max(end, ends[1]) + 8, y), label, fill="#333333", font=small)
            y += BAR
        y += 4
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
