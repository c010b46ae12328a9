"""`rf profile`: where the time of a model goes on this machine, and what sparsity will bring."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName
from rf_cli import console, options, presets, profile_record, profile_sections, saving, sections
from rf_cli.progress import live
from rf_cli.requests import architecture_of, clip_of, source_of, sparse_config

if TYPE_CHECKING:
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.profile import StepProfile, Workload
    from rainfusion_core.profiling.breakeven import BreakEven
    from rainfusion_core.render import Clip

PROMPT = "a large red circle moving right over a blue background"
SUFFIXES = {".json": "json", ".csv": "csv", ".md": "md", ".txt": "table"}
WEIGHTS = ("random", "real")

Sparsities = Annotated[
    str, typer.Option("--sparsity", "-s", help="Sparsities to profile, as in 0.5,0.8,0.9.")
]
Weights = Annotated[str, typer.Option(help="random, or real if the weights are on this machine.")]
Layers = Annotated[
    int | None, typer.Option(help="Layers to run; by default 2, or all of a small model.")
]
Format = Annotated[str, typer.Option(help="table, json, csv or md, on stdout.")]
Save = Annotated[Path | None, typer.Option(help="Also write it: .json, .csv, .md or .txt.")]
Chart = Annotated[Path | None, typer.Option(help="Draw the parts as bars, into a .png.")]
Stages = Annotated[bool, typer.Option("--stages", help="Also time text encoding and decoding.")]
Measure = Annotated[bool, typer.Option("--measure", help="Also render for real, and compare.")]
All = Annotated[
    bool, typer.Option("--all", help="One line a preset, by formula; needs no weights.")
]


@dataclass(frozen=True)
class _Job:
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


def profile(
    model: options.Model = "shapes",
    size: options.Size = None,
    frames: options.Frames = None,
    sparsity: Sparsities = "0.5,0.8,0.9",
    weights: Weights = "random",
    layers: Layers = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    dense_steps: options.DenseSteps = None,
    correction: options.Correction = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    format: Format = "table",
    save: Save = None,
    chart: Chart = None,
    stages: Stages = False,
    measure: Measure = False,
    all: All = False,
) -> None:
    """Measure where a model's time goes on this machine, and predict what sparsity brings.

    Builds the full-size transformer with random weights, so nothing is downloaded.
    """
    _check_outputs(format, save, chart)
    if all:
        if chart is not None:
            raise ConfigError("--chart draws one model, --all has no parts to draw")
        record = _all_presets()
    else:
        job = _job(
            presets.resolve(model), size=size, frames=frames, sparsity=sparsity, weights=weights,
            layers=layers, steps=steps, guidance=guidance, dense_steps=dense_steps,
            correction=correction, dtype=dtype, device=device,
        )  # fmt: skip
        record = _profiled(job, stages=stages, measure=measure)
    _put_out(record, format, save, chart)


def _check_outputs(form: str, save: Path | None, chart: Path | None) -> None:
    if form not in sections.FORMATS:
        raise UnknownName("format", form, sections.FORMATS)
    if save is not None:
        saving.check_target("--save", save, list(SUFFIXES))
    if chart is not None:
        saving.check_target("--chart", chart, [".png"])


def _put_out(record: dict[str, Any], form: str, save: Path | None, chart: Path | None) -> None:
    found = profile_sections.sections(record)
    if form == "table":
        sections.show(found, console.out)
    else:
        typer.echo(sections.text(record, found, form), nl=False)
    if (others := console.of_others([record.get("others")])) is not None:
        console.warn(others)
    if save is not None:
        saving.write(save, sections.text(record, found, SUFFIXES[save.suffix.lower()]).encode())
        console.note(f"wrote {save}")
    if chart is not None and "arms" in record:
        from rf_cli.profile_chart import chart as draw

        saving.write(chart, draw(record))
        console.note(f"wrote {chart}")


def _all_presets() -> dict[str, Any]:
    from rainfusion_core.profiling.prediction import FLOPS_FORMULA

    found = presets.all_presets()
    lines = [profile_record.summary(preset, architecture_of(preset)) for preset in found]
    return {"models": lines, "formula": FLOPS_FORMULA}


def read_sparsities(text: str) -> list[float]:
    """Sparsities in ascending order, each once."""
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise ConfigError(
            f"--sparsity must list numbers, got {text!r}", hint="as in --sparsity 0.5,0.8"
        ) from None
    if 0 in values:
        raise ConfigError(
            "--sparsity lists 0, which is dense", hint="the dense pass is always measured"
        )
    return values


def _job(
    preset: presets.Preset,
    *,
    sparsity: str,
    weights: str,
    layers: int | None,
    dense_steps: str | None,
    correction: str | None,
    dtype: str,
    device: str,
    **given: Any,
) -> _Job:
    if weights not in WEIGHTS:
        raise UnknownName("kind of weights", weights, WEIGHTS)
    base = sparse_config(preset, dense_steps=dense_steps, dense_layers=None, correction=correction)
    configs = [replace(base, sparsity=each) for each in read_sparsities(sparsity)]
    clip = clip_of(preset, PROMPT, negative=None, seed=0, **given)
    source = source_of(preset, dtype=dtype, device=device, size=(clip.width, clip.height))
    return _Job(preset, clip, source, configs, weights, layers)


def workload_of(job: _Job) -> "Workload":
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


def _profiled(job: _Job, *, stages: bool, measure: bool) -> dict[str, Any]:
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


def _stages(job: _Job, work: "Workload", progress: Any) -> dict[str, float]:
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
    job: _Job, work: "Workload", found: "StepProfile", even: list["BreakEven"]
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
        "arms": profile_record.arms(found),
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
