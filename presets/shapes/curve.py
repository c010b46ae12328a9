"""Draws a training log as pictures.

    python presets/shapes/curve.py presets/shapes/training.jsonl -o presets/shapes

Writes training-vae.png (PSNR of windows), training.png and training-image.png (flow matching loss of every shape of
clip, of the transformers of text-to-video and image-to-video).
"""

import argparse
import json
from pathlib import Path

from rf_cli.plots import Point, plot

AVERAGED = 4  # reports a point


def series(rows: list[dict], prefix: str) -> dict[str, list[Point]]:
    """Points (minutes of work in the stage, mean of a few reports) for every key that begins with `prefix`."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key in (key for key in row if key.startswith(prefix)):
            found.setdefault(key.removeprefix("loss-"), []).append((row["seconds"] / 60, row[key]))
    return {name: [mean(part) for part in parts(values)] for name, values in found.items()}


def parts(values: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    return [values[at : at + AVERAGED] for at in range(0, len(values), AVERAGED)]


def mean(values: list[tuple[float, float]]) -> Point:
    return Point(*(sum(column) / len(values) for column in zip(*values, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path())
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.log.read_text("utf-8").splitlines()]

    def of(stage: str) -> list[dict]:
        return [row for row in rows if row["stage"] == stage]

    minutes = "minutes of work"
    psnr = plot(series(of("vae"), "psnr"), title="VAE", x=minutes, y="PSNR of a batch, dB")
    given.out.joinpath("training-vae.png").write_bytes(psnr)
    for stage, name in (("transformer", "training"), ("transformer-image", "training-image")):
        title = f"{stage.capitalize()}, by frames x height"
        loss = plot(series(of(stage), "loss-"), title=title, x=minutes, y="flow matching loss")
        given.out.joinpath(f"{name}.png").write_bytes(loss)


if __name__ == "__main__":
    main()
