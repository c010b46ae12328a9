"""Renders for real, dense and sparse, to hold a prediction against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rainfusion_core.config import SparseConfig
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.render import Clip

WARM_UP_STEPS = 2


def measure(
    source: "ModelSource",
    clip: "Clip",
    configs: Sequence["SparseConfig"],
    predicted: Sequence[Mapping[str, Any]],
    progress: Callable[[str, int, int], None],
) -> list[dict[str, Any]]:
    """Two entries a config: denoising and the whole render, measured, beside the prediction.

    Args:
        predicted: of `profile_record.predictions`, for the schedule of each config.
    """
    from rainfusion_core.pipeline import load
    from rainfusion_core.render import render

    pipeline = load(source)

    def times(config: "SparseConfig", clip: "Clip") -> Any:
        return render(pipeline, clip, config, progress=progress, measure_speed=False).report.times

    times(replace(configs[0], dense_steps=1), replace(clip, steps=min(WARM_UP_STEPS, clip.steps)))
    dense = times(replace(configs[0], sparsity=0.0), clip)
    rows = []
    for config, guess in zip(configs, predicted, strict=True):
        sparse = times(config, clip)
        rows += comparison(config.sparsity, dense, sparse, guess)
    return rows


def comparison(
    sparsity: float, dense: Any, sparse: Any, guess: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Measured `StageTimes` of two renders beside the predicted denoising."""
    # the same work in both, so what they took on average
    other = (dense.total - dense.denoising + sparse.total - sparse.denoising) / 2
    whole = (guess["dense_s"] + other) / (guess["denoising_s"] + other)
    found = [
        ("denoising", dense.denoising, sparse.denoising, guess["speedup"]),
        ("whole render", dense.total, sparse.total, whole),
    ]
    return [
        {
            "sparsity": sparsity,
            "what": what,
            "dense_s": before,
            "sparse_s": after,
            "speedup": before / after,
            "predicted_speedup": predicted,
        }
        for what, before, after, predicted in found
    ]
