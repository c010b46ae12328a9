"""How well `shapes` does what prompts say, judged from decoded frames, dense and sparse.

    python benchmarks/shapes_quality.py cells.jsonl --pairs 128 --sparsity 0 --sparsity 0.8 --out quality.json

Prompts name combinations of shape, colour and background that training never saw; each has a seed of its own. What is
rendered is kept in the first file and not rendered again; several processes may write to it, each from its own
`--first`. The judge's own ceiling, its agreement on clips that were drawn instead, stands beside every share.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist, quantiles
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


from rainfusion_core import SparseConfig  # noqa: E402
from rainfusion_core.errors import ConfigError  # noqa: E402
from rainfusion_core.metrics import psnr  # noqa: E402
from rainfusion_core.pipeline import load  # noqa: E402
from rainfusion_core.render import Clip, render  # noqa: E402
from rainfusion_core.shapes import drawing, judge, world  # noqa: E402
from rainfusion_core.study.intervals import bootstrap  # noqa: E402
from rf_cli import media, presets, tasks  # noqa: E402
from rf_cli.cells import Cells  # noqa: E402
from rf_cli.montage import pixels_of  # noqa: E402
from rf_cli.options import read_dense_layers  # noqa: E402
from rf_cli.record import environment  # noqa: E402
from rf_cli.requests import clip_of, source_of  # noqa: E402

DRAWN = "drawn"  # the arm whose clips are drawn


@dataclass(frozen=True)
class Pair:
    """One held-out prompt with its seed. `truth`: what the scene looks like, (frames, height, width, 3) in [0, 1]."""

    clip: Clip
    task: tasks.Task
    named: world.Named
    truth: torch.Tensor


def pairs_of(preset: presets.Preset, given: argparse.Namespace) -> Iterator[Pair]:
    asked = {key: getattr(given, key) for key in ("size", "frames", "steps", "guidance")}
    for number in range(given.first, given.first + given.pairs):
        prompt, named, scene = world.held_out(number, given.subjects)
        clip_for = partial(clip_of, preset, prompt, negative=None, seed=number, **asked)
        clip, task = clip_for(), tasks.default(preset)
        truth = drawing.draw(scene, clip.frames, clip.height, clip.width).permute(1, 2, 3, 0) / 2
        if given.image:
            with tempfile.TemporaryDirectory() as folder:
                first = Path(folder, "first.png")
                media.write_image(first, pixels_of(truth[0].numpy() + 0.5))
                task = tasks.choose(preset, [first], None, None)
                clip = clip_for(task=task)
        yield Pair(clip, task, named, truth + 0.5)


def measure(cells: Cells, given: argparse.Namespace, preset: presets.Preset) -> None:
    """Render and judge every pair in every arm that is not there yet."""
    pipeline = None
    for pair in pairs_of(preset, given):
        keys = {s: key_of(pair.clip, config_of(preset, given, s)) for s in {0.0, *given.sparsity}}
        missing = {s for s in given.sparsity if cells.get(keys[s]) is None}
        if not missing:
            continue
        size = pair.clip.width, pair.clip.height  # decides about the shift of the schedule
        pipeline = pipeline or load(
            source_of(preset, dtype="auto", device="auto", size=size, task=pair.task)
        )
        cells.put(key_of(pair.clip, DRAWN), {"found": judge.agreement(pair.named, pair.truth)})
        dense = None
        for sparsity in sorted({0.0, *missing}):
            config = config_of(preset, given, sparsity)
            frames = render(pipeline, pair.clip, config, measure_speed=False).frames
            dense = frames if dense is None else dense
            found = judge.agreement(pair.named, torch.from_numpy(frames))
            fidelity = psnr(dense, frames) if sparsity else None
            cells.put(keys[sparsity], {"found": found, "psnr": fidelity})
            wrong = [name for name, right in found.items() if not right]
            print(
                f"{pair.clip.seed} s={sparsity:g} {pair.clip.prompt!r} wrong: {wrong}", flush=True
            )


def config_of(preset: presets.Preset, given: argparse.Namespace, sparsity: float) -> SparseConfig:
    asked: dict[str, Any] = {"sparsity": sparsity}
    if sparsity:
        asked |= {"dense_steps": given.dense_steps, "dense_layers": given.dense_layers}
    return SparseConfig(**{**preset.sparse.model_dump(), **asked})


def key_of(clip: Clip, arm: SparseConfig | str) -> dict[str, Any]:
    # where the picture lay says nothing: it is always the first frame as drawn
    given = {"image": "first frame"} if clip.inputs else {}
    return {**clip.settings(), "given": given, "arm": arm if arm == DRAWN else vars(arm)}


# --- what they say together -----------------------------------------------------------------------------------------


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = NormalDist().inv_cdf(0.975), hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(cells: Cells, given: argparse.Namespace, preset: presets.Preset) -> dict[str, Any]:
    """Shares by arm and attribute, differences to dense, and PSNR, over the pairs that an arm was rendered for."""
    clips = [pair.clip for pair in pairs_of(preset, given)]

    def arm(which: float | str) -> list[dict | None]:
        known = which if which == DRAWN else config_of(preset, given, which)
        found = [cells.get(key_of(clip, known)) for clip in clips]
        if not any(found):
            raise ConfigError(f"{given.cells} holds none of these pairs for the arm {which}")
        return found

    sparse = {f"{s:g}": arm(s) for s in given.sparsity if s}
    dense, drawn = arm(0.0), arm(DRAWN)
    first = clips[0].settings()
    return {
        "model": preset.name,
        "pairs": given.pairs,
        "subjects": given.subjects,
        "image_to_video": given.image,
        "dense_steps": given.dense_steps,
        "dense_layers": given.dense_layers,
        "block_size": preset.sparse.block_size,
        "correction": preset.sparse.correction,
        "clip": {key: first[key] for key in ("width", "height", "frames", "steps", "guidance")},
        "environment": environment("cuda" if torch.cuda.is_available() else "cpu"),
        "agreement": {
            DRAWN: dict(shares(drawn)),
            "0": dict(shares(dense)),
            **{arm: dict(shares(found, dense)) for arm, found in sparse.items()},
        },
        "psnr_to_dense": {
            arm: quartiles([cell["psnr"] for cell in found if cell])
            for arm, found in sparse.items()
        },
    }


def quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4) if len(values) > 1 else values * 3


def shares(
    cells: list[dict | None], dense: list[dict | None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("colour", "background", "motion", "shape", "size", "count"):
        right = [cell["found"][name] for cell in cells if cell and name in cell["found"]]
        if not right:  # no prompt names it
            continue
        value = {"share": sum(right) / len(right), "count": len(right),
                 "interval": wilson(sum(right), len(right))}  # fmt: skip
        if dense is not None:
            both = [(a["found"], b["found"]) for a, b in zip(cells, dense, strict=True) if a and b]
            found = bootstrap([[a[name] - b[name]] for a, b in both if name in a])
            value["to_dense"] = {"mean": found.mean, "interval": (found.low, found.high)}
        yield name, value


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    arms = found["agreement"]
    titles = [DRAWN if a == DRAWN else "dense" if a == "0" else f"at {float(a):.0%}" for a in arms]
    lines = [["", *titles], ["---"] * (1 + len(titles))]
    for name in arms["0"]:
        lines.append([name, *(_cell(arm[name]) if name in arm else "" for arm in arms.values())])
    psnr = found["psnr_to_dense"]
    lines.append(["PSNR to dense, median (quartiles)",
                  *(_psnr(psnr[arm]) if arm in psnr else "" for arm in arms)])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: dict[str, Any]) -> str:
    low, high = (100 * end for end in value["interval"])
    text = f"{value['share']:.0%} of {value['count']} ({low:.0f} to {high:.0f})"
    if "to_dense" not in value:
        return text
    mean, (low, high) = value["to_dense"]["mean"], value["to_dense"]["interval"]
    if low is None:  # of a single pair
        return f"{text}; {100 * mean:+.1f}"
    return f"{text}; {100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _psnr(value: list[float]) -> str:
    low, middle, high = value
    return f"{middle:.1f} dB ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path, help="JSON lines of what was rendered, of one model")
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--subjects", type=int, default=1, help="shapes a clip: 1 or 2")
    parser.add_argument(
        "--image",
        action="store_true",
        help="image-to-video, from the first frame of the drawn clip",
    )
    parser.add_argument("--size")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--sparsity", type=float, action="append", help="repeatable; 0 is dense")
    parser.add_argument(
        "--dense-steps", type=float, help="of the sparse arms; default: the preset's"
    )
    parser.add_argument("--dense-layers", help="of the sparse arms, or none; default: the preset's")
    parser.add_argument(
        "--known", action="store_true", help="render nothing: a summary of what is in the file"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the summary")
    given = parser.parse_args()
    given.sparsity = given.sparsity or [0.0, 0.8]
    preset = presets.resolve(given.model)
    if given.dense_steps is None:
        given.dense_steps = preset.sparse.dense_steps
    layers = given.dense_layers
    given.dense_layers = preset.sparse.dense_layers if layers is None else read_dense_layers(layers)
    cells = Cells(given.cells)
    if not given.known:
        measure(cells, given, preset)
    try:
        found = summary(cells, given, preset)
    except ConfigError as error:
        parser.error(f"{error}; without --known they are rendered")
    print(table(found))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
