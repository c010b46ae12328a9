"""`rf profile`: where the time of a model goes on this machine, and what sparsity will bring."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName
from rf_cli import (
    console,
    options,
    presets,
    profile_record,
    profile_run,
    profile_sections,
    saving,
    sections,
)
from rf_cli.requests import architecture_of, check_layers, clip_of, source_of, sparse_config

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


def profile(
    model: options.Model = "shapes",
    size: options.Size = None,
    frames: options.Frames = None,
    sparsity: Sparsities = "0.5,0.8,0.9",
    method: options.Method = None,
    method_option: options.MethodOption = None,
    order: options.Order = None,
    sink: options.Sink = None,
    weights: Weights = "random",
    layers: Layers = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    dense_steps: options.DenseSteps = None,
    dense_layers: options.DenseLayers = None,
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
        _put_out(_all_presets(), format, save, chart)
        return
    if weights not in WEIGHTS:
        raise UnknownName("kind of weights", weights, WEIGHTS)
    preset = presets.resolve(model)
    base = sparse_config(
        preset, method=method, method_option=method_option, order=order, sink=sink,
        dense_steps=dense_steps, dense_layers=dense_layers, correction=correction,
    )  # fmt: skip
    clip = clip_of(
        preset, PROMPT, size=size, frames=frames, steps=steps, guidance=guidance, negative=None, seed=0
    )  # fmt: skip
    configs = _configs(base, read_sparsities(sparsity))
    check_layers(preset, clip, base)
    source = source_of(preset, dtype=dtype, device=device, size=(clip.width, clip.height))
    job = profile_run.Job(preset, clip, source, configs, weights, layers)
    _put_out(profile_run.run(job, stages=stages, measure=measure), format, save, chart)


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


def _configs(base: SparseConfig, sparsities: Iterable[float]) -> list[SparseConfig]:
    """A config a sparsity, in which nothing is left to the method, so that the record can tell it."""
    from rainfusion_core.installation import check_names
    from rainfusion_core.selectors import SELECTORS

    check_names(base)
    complete = SELECTORS[base.method].complete(base)
    return [replace(complete, sparsity=each) for each in sparsities]
