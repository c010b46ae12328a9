"""What sparsity brings on this machine, end to end: attention calls and whole renders, dense and sparse in turn.

    python benchmarks/end_to_end.py --size 256x256 --frames 49 --out benchmarks/results/end_to_end.json

Attention is timed on queries, keys and values of a real call of the model, against every exact dense kernel here.
Renders alternate, so that a machine whose speed drifts is fair to both.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rainfusion_core import SparseConfig
from rainfusion_core.attention import sparse_attention
from rainfusion_core.installation import install
from rainfusion_core.kernels.dense import DENSE_KERNELS, available_dense, choose_dense
from rainfusion_core.pipeline import load
from rainfusion_core.render import render
from rainfusion_core.timing import synchronize
from rf_cli import presets
from rf_cli.record import environment
from rf_cli.requests import clip_of, source_of

PROMPT = "a large red circle moving right over a blue background"


def captured(pipeline, clip, config):
    """(q, k, v, layout) of the middle layer in the first sparse step."""
    found = []
    with install(pipeline, config) as handle:
        session, attend = handle.session, handle.session.attend

        def spy(layer, q, k, v, mask, scale):
            out = attend(layer, q, k, v, mask, scale)
            if (
                not found
                and session._calls[-1].reason is None
                and layer >= len(session.layers) // 2
            ):
                found.append((q.clone(), k.clone(), v.clone(), session._layout(q.shape[-2])))
                pipeline._interrupt = True
            return out

        session.attend = spy
        pipeline(
            prompt=clip.prompt, width=clip.width, height=clip.height, num_frames=clip.frames,
            num_inference_steps=clip.steps, output_type="latent", **clip.extra,
        )  # fmt: skip
    if not found:
        raise SystemExit(
            f"error: no call of {clip.frames} frames of {clip.width}x{clip.height} is sparse at {config.sparsity:g}: "
            "ask for a larger clip (--size, --frames), more --steps or a higher --sparsity"
        )
    return found[0]


def attention_rows(q, k, v, layout, config, repeats):
    """Milliseconds of each arm, in turn; the sparse arm includes ordering, selection and restoring."""
    arms = {f"dense {n}": DENSE_KERNELS[n] for n in available_dense(q.device, q.dtype)}
    density = []

    def sparse(q, k, v):
        out, kept = sparse_attention(q, k, v, layout, config)
        density.append(kept)
        return out

    arms["sparse"] = sparse
    times = {name: [] for name in arms}
    for run in range(repeats + 1):
        for name, arm in arms.items():
            synchronize(q.device)
            begin = time.perf_counter()
            arm(q, k, v)
            synchronize(q.device)
            if run:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return times, 1 - density[-1].density


def spread(values):
    values = sorted(values)
    return {"median": median(values), "min": values[0], "max": values[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeats", type=int, default=3, help="timed renders of each arm")
    parser.add_argument("--calls", type=int, default=7, help="timed attention calls of each arm")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    preset = presets.resolve(arguments.model)
    clip = clip_of(
        preset, PROMPT, size=arguments.size, frames=arguments.frames, steps=arguments.steps,
        guidance=None, negative=None, seed=1,
    )  # fmt: skip
    size = clip.width, clip.height  # decides about the shift of the schedule
    source = source_of(preset, dtype=arguments.dtype, device="auto", size=size)
    pipeline = load(source)
    settings = preset.sparse.model_dump()
    configs = {
        "dense": SparseConfig(**{**settings, "sparsity": 0.0}),
        "sparse": SparseConfig(**{**settings, "sparsity": arguments.sparsity}),
    }
    q, k, v, layout = captured(pipeline, clip, configs["sparse"])
    times, achieved = attention_rows(q, k, v, layout, configs["sparse"], arguments.calls)
    sparse = median(times["sparse"])
    attention = {
        name: {**spread(each), "ratio_to_sparse": median(each) / sparse}
        for name, each in times.items()
    }
    print(
        json.dumps({"tokens": q.shape[-2], "call sparsity": achieved, "ms": attention}, indent=1),
        flush=True,
    )
    renders, frames = {name: [] for name in configs}, {}
    for _ in range(arguments.repeats):
        for name, config in configs.items():
            rendered = render(pipeline, clip, config, measure_speed=False)
            renders[name].append(rendered.report)
            frames[name] = rendered.frames
            print(name, f"{rendered.report.times.denoising:.1f} s denoising", flush=True)
    denoising = {name: spread([r.times.denoising for r in each]) for name, each in renders.items()}
    total = {name: spread([r.times.total for r in each]) for name, each in renders.items()}
    error = float(np.square(frames["dense"] - frames["sparse"]).mean())
    result = {
        "model": preset.name, "size": arguments.size, "frames": clip.frames, "steps": clip.steps,
        "tokens": q.shape[-2], "heads": q.shape[1], "head_dim": q.shape[-1], "dtype": source.dtype,
        "requested_sparsity": arguments.sparsity, "achieved_in_the_call": achieved,
        "achieved_in_the_run": renders["sparse"][-1].sparsity.achieved,
        "dense_kernel": choose_dense("auto", q, k, v), "attention_ms": attention,
        "denoising_s": denoising, "total_s": total,
        "denoising_speedup": denoising["dense"]["median"] / denoising["sparse"]["median"],
        "total_speedup": total["dense"]["median"] / total["sparse"]["median"],
        "psnr_to_dense_db": -10 * math.log10(max(error, 1e-12)),
        "environment": environment(source.device),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
