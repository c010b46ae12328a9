import io

import pytest
from PIL import Image

from rf_cli.profile_chart import BAR, COLOURS, GAP, TOP, chart


def arm(sparsity, **parts):
    method = "svg2" if sparsity else None
    total = sum(parts.values())
    return {"sparsity": sparsity, "method": method, "parts_s": parts, "sum_of_parts_s": total}


RECORD = {
    "workload": {
        "model": "shapes", "size": "64x64", "frames": 5, "tokens": 128, "layers": 6,
        "layers_run": 2, "device": "cpu",
    },
    "arms": [arm(0, rest=1.0, norms=3.0), arm(0.8, rest=1.0, norms=1.0)],
}  # fmt: skip


def widths(image, row):
    """Pixels of each part's colour in the middle of a bar."""
    y = TOP + row * (BAR + GAP) + BAR // 2
    line = [image.getpixel((x, y)) for x in range(image.width)]
    hexes = ["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in line]
    return {part: hexes.count(COLOURS[part]) for part in ("rest", "norms")}


def test_bars_are_to_one_scale():
    image = Image.open(io.BytesIO(chart(RECORD)))
    dense, sparse = widths(image, 0), widths(image, 1)
    assert dense["rest"] > 100
    assert dense["norms"] == pytest.approx(3 * dense["rest"], rel=0.02)
    assert sparse["norms"] == pytest.approx(sparse["rest"], rel=0.02)
    assert sparse["rest"] == pytest.approx(dense["rest"], rel=0.02)
