"""Measures what a profile asks for, and makes the record of it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rf_cli import presets, profile_record, profile_sections
from rf_cli.progress import live
from rf_cli.requests import architecture_of

if TYPE_CHECKING:
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.profile import StepProfile, Workload
    from rainfusion_core.profiling.breakeven import BreakEven
    from rainfusion_core.render import Clip


@dataclass(frozen=True)
class Job:
    """Everything that one profile needs, checked."""

    preset: presets.Preset
    clip: "Clip"
    source: "ModelSource"
    configs: list[SparseConfig]
    weights: str
    layers: int | None

    @property
    def passes(self) -> int:
        """Forward passes a step: classifier-free guidance runs a second one."""
        return self.preset.sampling.passes(self.clip.guidance)


def workload_of(job: Job) -> "Workload":
    import torch

    from rainfusion_core.pipeline import DTYPES
    from rainfusion_core.profile import Workload

    architecture, clip = architecture_of(job.preset), job.clip
    grid = job.preset.video.grid(clip.width, clip.height, clip.frames)
    patch = architecture.patch
    latent_frames, height, width = (size * side for size, side in zip(grid, patch, strict=True))
    return Workload(
        architecture=architecture,
        latents=(latent_frames, height, width),
        tokens=job.preset.video.tokens(clip.width, clip.height, clip.frames),
        text_tokens=job.preset.transformer.text_tokens,
        layers=job.layers,
        dtype=DTYPES[job.source.dtype],
        device=torch.device(job.source.device),
    )


def run(job: Job, *, stages: bool, measure: bool) -> dict[str, Any]:
    """The record of a profile.

    Args:
        stages: also time text encoding and decoding.
        measure: also render for real.

    Raises:
        ConfigError: the memory is too small for one layer, or weights are missing.
    """
    from rainfusion_core.interference import Interference
    from rainfusion_core.loading.real_weights import load_transformer
    from rainfusion_core.pipeline import is_available
    from rainfusion_core.profile import layers_that_fit, profile
    from rainfusion_core.timing import peak_memory_bytes

    if measure and not is_available(job.source):
        raise ConfigError(
            f"--measure needs the weights of {job.source.location}, which are not on this machine",
            hint=f"fetch them with: {job.source.fetch}; or leave --measure out",
        )
    work = workload_of(job)
    interference, transformer, cut = Interference(), None, None
    with live(quiet=False, memory_bytes=lambda: peak_memory_bytes(work.device)) as progress:
        if job.weights == "real":
            layers, cut = layers_that_fit(work)
            transformer = load_transformer(job.source, work.architecture.class_name, layers)
        found = profile(work, job.configs, transformer=transformer, progress=progress)
        transformer, found = None, replace(found, cut=found.cut or cut)
        even = _break_even(found, work, job.configs, progress)
        record = _record(job, work, found, even)
        if stages:
            record["stages"] = _stages(job, work, progress)
        if measure:
            from rf_cli.profile_measure import measure as measured

            guesses = [_of_schedule(record["predictions"], config) for config in job.configs]
            record["measured"] = measured(job.source, job.clip, job.configs, guesses, progress)
    return {**record, "others": interference.share()}


def _break_even(
    found: "StepProfile", work: "Workload", configs: list[SparseConfig], progress: Any
) -> list["BreakEven"]:
    from rainfusion_core.profiling.breakeven import break_even

    model, results = work.architecture, []
    shape = {"heads": model.heads, "head_dim": model.head_dim}
    dtype = str(work.dtype).removeprefix("torch.")
    for number, (arm, config) in enumerate(zip(found.arms[1:], configs, strict=True)):
        progress("break-even", number, len(configs))
        known = found.call(arm, dtype=dtype, **shape)
        results.append(break_even(found.layout.grids[0], config, known, device=work.device))
    return results


def _stages(job: Job, work: "Workload", progress: Any) -> dict[str, float]:
    """Seconds of text encoding, of every prompt, and of decoding."""
    from rainfusion_core.pipeline import DTYPES
    from rainfusion_core.profiling.stages import decode_seconds, encode_seconds

    encoder, vae = (architecture_of(job.preset, name) for name in ("text_encoder", "vae"))
    text_dtype, vae_dtype = (
        DTYPES[job.source.component_dtypes.get(name, job.source.dtype)]
        for name in ("text_encoder", "vae")
    )
    progress("text encoding", 0, 1)
    prompt = encode_seconds(encoder, tokens=work.text_tokens, device=work.device, dtype=text_dtype)
    progress("decoding", 0, 1)
    decoding = decode_seconds(vae, work.latents, device=work.device, dtype=vae_dtype)
    return {"text encoding": job.passes * prompt, "decoding": decoding}


def _of_schedule(predictions: list[dict[str, Any]], config: SparseConfig) -> dict[str, Any]:
    """The prediction for exactly this sparsity and these dense steps."""
    wanted = (config.sparsity, config.dense_steps, config.dense_last_steps)
    keys = ("sparsity", "dense_steps", "dense_last_steps")
    return next(row for row in predictions if tuple(row[key] for key in keys) == wanted)


def _record(
    job: Job, work: "Workload", found: "StepProfile", even: list["BreakEven"]
) -> dict[str, Any]:
    from rainfusion_core.profiling.prediction import FORMULA, Render, sparse_share
    from rf_cli.record import environment

    clip, config = job.clip, job.configs[0]
    share = sparse_share(replace(config, sparsity=0.5), steps=clip.steps, layers=found.layers)
    return {
        "workload": {
            "model": job.preset.name,
            "size": f"{clip.width}x{clip.height}",
            "frames": clip.frames,
            "tokens": work.tokens,
            "steps": clip.steps,
            "passes": job.passes,
            "layers": found.layers,
            "layers_run": found.layers_run,
            "cut": found.cut,
            "weights": job.weights,
            "dtype": job.source.dtype,
            "device": job.source.device,
        },
        "environment": environment(job.source.device),
        "note": profile_sections.RANDOM_WEIGHTS if job.weights == "random" else None,
        "arms": profile_record.arms(found, job.configs),
        "predictions": profile_record.predictions(found, job.configs, clip.steps, job.passes),
        "formula": FORMULA,
        "sparsity_needed": profile_record.needed(
            found, config, Render(clip.steps, job.passes, share)
        ),
        "break_even": profile_record.break_even(even),
        "sizes": profile_record.sizes(job.preset, work.architecture, work.dtype.itemsize),
        "stages": None,
        "measured": None,
    }
