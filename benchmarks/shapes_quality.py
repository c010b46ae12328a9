"""How well `shapes` does what prompts say, judged from decoded frames, dense and sparse.

    python benchmarks/shapes_quality.py --pairs 32 --sparsity 0 --sparsity 0.8

Prompts name combinations of shape, colour and background that training never saw; each has a seed of its own. The
judge's own ceiling, its agreement on clips that were drawn instead of rendered, stands beside every share.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


from rainfusion_core import SparseConfig  # noqa: E402
from rainfusion_core.pipeline import load  # noqa: E402
from rainfusion_core.render import render  # noqa: E402
from rainfusion_core.shapes import drawing, judge, world  # noqa: E402
from rf_cli import presets  # noqa: E402
from rf_cli.record import environment  # noqa: E402
from rf_cli.requests import clip_of, source_of  # noqa: E402


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


Hits = dict[str, list[bool]]


def add(hits: Hits, named: world.Named, frames: torch.Tensor) -> dict[str, bool]:
    found = judge.agreement(named, frames)
    for name, right in found.items():
        hits.setdefault(name, []).append(right)
    return found


def shares(hits: Hits) -> dict[str, dict]:
    return {
        name: {
            "share": sum(each) / len(each),
            "interval": wilson(sum(each), len(each)),
            "count": len(each),
        }
        for name, each in hits.items()
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(float(np.square(a - b).mean()) + 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--subjects", type=int, default=1, help="shapes a clip: 1 or 2")
    parser.add_argument("--size")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--sparsity", type=float, action="append", help="repeatable; 0 is dense")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    preset = presets.resolve(arguments.model)
    pipeline = load(source_of(preset, dtype="auto", device="auto"))
    sparsities = arguments.sparsity or [0.0, 0.8]
    hits: dict[float, Hits] = {s: {} for s in sparsities}
    drawn: Hits = {}
    fidelity: dict[float, list[float]] = {s: [] for s in sparsities}
    begin = time.monotonic()
    for number in range(arguments.first, arguments.first + arguments.pairs):
        prompt, named, scene = world.held_out(number, arguments.subjects)
        clip = clip_of(
            preset, prompt, size=arguments.size, frames=arguments.frames, steps=arguments.steps,
            guidance=arguments.guidance, negative=None, seed=number,
        )  # fmt: skip
        truth = drawing.draw(scene, clip.frames, clip.height, clip.width)
        add(drawn, named, (truth.permute(1, 2, 3, 0) + 1) / 2)
        dense = None
        for sparsity in sparsities:
            config = SparseConfig(**{**preset.sparse.model_dump(), "sparsity": sparsity})
            frames = render(pipeline, clip, config, measure_speed=False).frames
            dense = frames if dense is None else dense
            found = add(hits[sparsity], named, torch.from_numpy(frames))
            fidelity[sparsity].append(psnr(frames, dense))
            wrong = [name for name, right in found.items() if not right]
            print(f"{number} s={sparsity:g} {prompt!r} wrong: {wrong}", flush=True)
    result = {
        "model": preset.name,
        "pairs": arguments.pairs,
        "clip": {
            key: getattr(clip, key) for key in ("width", "height", "frames", "steps", "guidance")
        },
        "minutes": (time.monotonic() - begin) / 60,
        "environment": environment("cpu" if not torch.cuda.is_available() else "cuda"),
        "agreement": {f"{sparsity:g}": shares(hits[sparsity]) for sparsity in sparsities},
        "judge_on_drawn_clips": shares(drawn),
        "psnr_to_first_arm": {f"{s:g}": fidelity[s] for s in sparsities[1:]},
        "psnr_to_first_arm_median": {f"{s:g}": median(fidelity[s]) for s in sparsities[1:]},
    }
    print(json.dumps(result["agreement"], indent=1), result["psnr_to_first_arm_median"])
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
