"""A small comparison that tests of record, tables and page share: two clips, dense and one sparse arm."""

import numpy as np

from rainfusion_core import SparseConfig
from rainfusion_core.compare import Arm, ArmResult
from rainfusion_core.metrics import clip_metrics
from rainfusion_core.render import Clip, Rendered
from rainfusion_core.report import CallRow, RenderReport, SparsityReport, StageTimes
from rf_cli import compare_record

CLIP = Clip(
    prompt="a {{red}} <circle>", width=32, height=32, frames=3, steps=2, guidance=1.0, seed=0
)
DENSE, SPARSE = SparseConfig(sparsity=0), SparseConfig(sparsity=0.5, dense_steps=1)
ARMS = [Arm("dense", DENSE), Arm("sparsity 0.5", SPARSE)]


def report(sparsity=0.5, seconds=2.0):
    reason = "dense step" if sparsity else "sparsity 0"
    rows = tuple(
        CallRow(step, "cond", "transformer", layer, None if step and sparsity else reason,
                5 if step and sparsity else 10, 10, 0.1)
        for step in (0, 1) for layer in (0, 1)
    )  # fmt: skip
    times = StageTimes(0.1, (seconds / 2, seconds / 2), seconds / 4, 0.2, seconds + 0.3)
    return RenderReport(times, SparsityReport(sparsity, rows, "torch-blocks", "sdpa"), 2**30)


def frames(error=0.0):
    return np.full((3, 32, 32, 3), 0.5 + error, np.float32)


def rendered(**changes):
    return Rendered(frames(), report(**changes), np.ones((1, 4), np.float32))


def record(errors=(0.1, 0.2)):
    """Dense takes 4 s and the sparse arm 2 s; its error is 0.1 in the first clip, 0.2 in the second."""
    results, entries = {}, {}
    for arm, seconds in zip(ARMS, (4.0, 2.0), strict=True):
        for index, error in enumerate(errors):
            wrong = error if arm.config.sparsity else 0.0
            metrics = clip_metrics(frames(), frames(wrong))
            made = ArmResult(arm, (report(arm.config.sparsity, seconds),), 0, metrics)
            results.setdefault(arm.name, []).append(made)
            entries.setdefault(arm.name, []).append({
                "clip": index, "video": "a.mp4", "frames": "runs/a.npz", "reused_runs": 0,
                "metrics": vars(metrics), "runs": [compare_record._times(made.reports[0])],
            })  # fmt: skip
    return compare_record.plain({
        "command": "rf compare x",
        "source": "metrics on lossless frames",
        "environment": {"device": "cpu", "device_name": "a processor"},
        "settings": {"model": "shapes", "steps": 2, "dtype": "float32"},
        "video": {"width": 32, "height": 32, "frames": 3, "fps": 8},
        "clips": len(errors),
        "prompts": [
            {"prompt": CLIP.prompt, "seed": seed, "side_by_side": "a.mp4", "strip": "a.png"}
            for seed, _ in enumerate(errors)
        ],
        "arms": [
            compare_record.arm_entry(results[arm.name], entries[arm.name], entries["dense"])
            for arm in ARMS
        ],
    })  # fmt: skip
