"""The record of a comparison: every setting and measurement, as plain JSON values.

Infinite values are the string "Infinity", which `float` and JavaScript's `Number` both read.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rainfusion_core.report import CallRow, sparsity_of
from rainfusion_core.study.intervals import mean_interval, spread
from rf_cli.record import first_frame

if TYPE_CHECKING:
    from rainfusion_core.compare import ArmResult, ClipResult
    from rainfusion_core.metrics import ClipMetrics
    from rainfusion_core.report import RenderReport

METRICS = ("psnr", "ssim", "lpips", "flicker", "reference_flicker", "latent_cosine")
STAGES = ("total", "denoising", "attention", "text_encoding", "decoding")


def plain(value: Any) -> Any:
    """The same value without tuples and infinities."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and math.isinf(value):
        return "Infinity"
    return value


def clip_entry(
    result: "ClipResult", arm: "ArmResult", *, video: str, frames: str
) -> dict[str, Any]:
    """One arm of one clip."""
    return {
        "clip": result.index,
        "video": video,
        "frames": frames,
        "metrics": asdict(arm.metrics),
        "reused_runs": arm.reused,
        "runs": [_times(report) for report in arm.reports],
    }


def video_entry(name: str, path: str, metrics: "ClipMetrics") -> dict[str, Any]:
    """One of two existing videos, as an arm."""
    clip = {"clip": 0, "video": path, "metrics": asdict(metrics)}
    return {"name": name, **_metrics([clip]), "clips": [clip]}


def _times(report: "RenderReport") -> dict[str, Any]:
    stages = {stage: getattr(report.times, stage) for stage in STAGES}
    return {**stages, "steps": list(report.times.steps), "others": report.others}


def arm_entry(
    results: Sequence["ArmResult"], clips: list[dict[str, Any]], dense: list[dict[str, Any]]
) -> dict[str, Any]:
    """One arm over all clips.

    Args:
        results, clips: of this arm, one a clip.
        dense: `clips` of the dense arm.
    """
    arm = results[0].arm
    reports = [result.reports[0] for result in results]
    rows = [row for report in reports for row in report.sparsity.rows]
    last = reports[-1].sparsity
    return {
        "name": arm.name,
        "config": vars(arm.config),
        "kernel": last.kernel or None,
        "dense_kernel": last.dense_kernel or None,
        "sparsity": {
            "requested": last.requested,
            "achieved": sparsity_of(rows),
            "calls": len(rows),
            "sparse_calls": sum(row.reason is None for row in rows),
            "first_frame": first_frame(last),
            "left_dense": _left_dense(rows),
            "absent_calls": sum(report.sparsity.absent for report in reports),
            "absent_calls_by_reason": dict(
                sum((Counter(r.sparsity.absent_by_reason) for r in reports), Counter())
            ),
            "per_layer_and_step": layers_and_steps(rows),
        },
        "timing_s": {
            stage: asdict(spread(run[stage] for clip in clips for run in clip["runs"]))
            for stage in STAGES
        },
        "speedup": {stage: _speedup(stage, clips, dense) for stage in STAGES[:3]},
        "peak_memory_bytes": max(r.peak_memory_bytes for each in results for r in each.reports),
        **_metrics(clips),
        "clips": clips,
    }


def _metrics(clips: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found = {name: mean_interval(clip["metrics"][name] for clip in clips) for name in METRICS}
    return {"metrics": {name: value and asdict(value) for name, value in found.items()}}


def _speedup(
    stage: str, clips: Iterable[Mapping[str, Any]], dense: Iterable[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Dense over this arm, paired by clip; of each clip the median over the repeats."""
    pairs = [
        [median(run[stage] for run in clip["runs"]) for clip in pair]
        for pair in zip(dense, clips, strict=True)
    ]
    mean = mean_interval(full / fast if fast else None for full, fast in pairs)
    return asdict(mean) if mean else None


def _left_dense(rows: Iterable[CallRow]) -> list[dict[str, Any]]:
    """Which steps and layers ran dense, by reason."""
    groups: dict[str, list[CallRow]] = {}
    for row in rows:
        if row.reason is not None:
            groups.setdefault(row.reason, []).append(row)
    return [
        {
            "reason": reason,
            "calls": len(members),
            "steps": sorted({row.step for row in members}),
            "layers": sorted({row.layer for row in members}),
        }
        for reason, members in groups.items()
    ]


def layers_and_steps(rows: Sequence[CallRow]) -> list[dict[str, Any]]:
    """For every layer the achieved sparsity in each step; None where the layer did not run."""
    steps = range(max((row.step for row in rows), default=-1) + 1)
    cells: dict[tuple[str, int, int], list[CallRow]] = {}
    for row in rows:
        cells.setdefault((row.transformer, row.layer, row.step), []).append(row)
    layers = sorted({(transformer, layer) for transformer, layer, _ in cells})
    return [
        {
            "transformer": transformer,
            "layer": layer,
            "steps": [
                sparsity_of(cells[where])
                if (where := (transformer, layer, step)) in cells
                else None
                for step in steps
            ],
        }
        for transformer, layer in layers
    ]
