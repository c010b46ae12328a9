"""Whether the pooled correction brings sparse attention nearer to dense, on real calls of the embedded model.

    python benchmarks/correction.py --sparsities 0.7 0.8 0.9 --out benchmarks/results/correction.json

Queries, keys and values are those of dense renders; the error of a call is |sparse - dense| / |dense|.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).parents[1]))

from rainfusion_core import SparseConfig
from rainfusion_core.attention import sparse_attention
from rainfusion_core.blocks import dense_blocks
from rainfusion_core.kernels import reference
from rainfusion_core.pipeline import load
from rainfusion_core.study.capture import capture
from rf_cli import presets
from rf_cli.record import environment
from rf_cli.requests import clip_of, source_of

PROMPTS = (
    "a large red circle moving right over a blue background",
    "a small green square moving up over a yellow background",
    "a large blue triangle moving left over a white background",
)


def errors(call, config: SparseConfig) -> dict[str, float]:
    """Relative error to dense, without and with the correction."""
    q, k, v = (x.float() for x in (call.q, call.k, call.v))
    blocks = -(-q.shape[-2] // 128)
    everything = dense_blocks(*q.shape[:2], blocks, block_size=128)
    dense = reference.attention(q, k, v, everything, scale=call.scale)
    found = {}
    for correction in ("none", "pooled"):
        chosen = replace(config, correction=correction)
        out, _ = sparse_attention(q, k, v, call.layout, chosen, scale=call.scale)
        found[correction] = ((out - dense).norm() / dense.norm()).item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.7, 0.8, 0.9])
    parser.add_argument("--steps", nargs="*", type=int, default=[2, 7, 12])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    preset = presets.resolve("shapes")
    source = source_of(preset, dtype="auto", device="cpu")
    pipeline, found, by_layer = load(source), defaultdict(list), defaultdict(list)
    for seed, prompt in enumerate(PROMPTS):
        clip = clip_of(preset, prompt, size=None, frames=None, steps=None, guidance=None,
                       negative=None, seed=seed)  # fmt: skip
        for call in capture(pipeline, clip, steps=arguments.steps):
            for sparsity in arguments.sparsities:
                pair = errors(call, SparseConfig(sparsity=sparsity, kernel="reference"))
                found[sparsity].append(pair)
                by_layer[sparsity, call.layer].append(pair["pooled"] / pair["none"])
    rows = [
        {"sparsity": sparsity, "calls": len(pairs),
         "error_none": mean(p["none"] for p in pairs),
         "error_pooled": mean(p["pooled"] for p in pairs),
         "ratio_median": median(p["pooled"] / p["none"] for p in pairs),
         "calls_improved": sum(p["pooled"] < p["none"] for p in pairs),
         "ratio_by_layer": {layer: round(median(r), 3) for (s, layer), r in by_layer.items()
                            if s == sparsity}}
        for sparsity, pairs in found.items()
    ]  # fmt: skip
    print(json.dumps(rows, indent=1))
    if arguments.out:
        record = {"environment": environment("cpu"), "steps": arguments.steps, "rows": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
