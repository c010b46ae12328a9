"""`rf ablate`: which blocks matter, which of them each method finds, and what each idea of the core brings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rainfusion_core.config import SparseConfig
from rf_cli import ablate_plan, ablate_run, compare_folder, console, options, presets, requests
from rf_cli import arms as arms_of_options
from rf_cli.command_line import command_line
from rf_cli.progress import live
from rf_cli.requests import clip_of, network_if, source_of, sparse_config

if TYPE_CHECKING:
    from rainfusion_core.pipeline import ModelSource

Quick = Annotated[bool, typer.Option("--quick", help="Fewer clips, layers and densities.")]
Renders = Annotated[
    bool, typer.Option("--renders", help="Also render clips with every method, end to end.")
]
RenderClips = Annotated[
    int | None,
    typer.Option(
        help="Clips of every render; else all at 20 %, few at other densities and for the sink."
    ),
]
Method = Annotated[
    list[str] | None, typer.Option(help="Of the league; may be repeated. All, if not given.")
]
Prompts = Annotated[Path | None, typer.Option(help="File with a prompt a line; # is a comment.")]
Clips = Annotated[int | None, typer.Option(help="Prompts, where the model brings its own.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds of each prompt, as in 0,1.")]
Sizes = Annotated[
    list[str] | None, typer.Option("--size", help="Width x height in pixels; may be repeated.")
]
Layers = Annotated[str | None, typer.Option(help="Captured layers, as in 0,3 or 0-5.")]
Lpips = Annotated[bool, typer.Option("--lpips", help="LPIPS of renders; needs the extra metrics.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for all files.")]
Resume = Annotated[bool, typer.Option("--resume", help="Keep what is finished, do the rest.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier ablation.")]


def ablate(
    context: typer.Context,
    model: options.Model = "shapes",
    quick: Quick = False,
    renders: Renders = False,
    render_clips: RenderClips = None,
    method: Method = None,
    prompts: Prompts = None,
    clips: Clips = None,
    seeds: Seeds = None,
    size: Sizes = None,
    frames: options.Frames = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    layers: Layers = None,
    lpips: Lpips = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    output: Output = Path("rf-ablate"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure on real attention calls how much each method keeps, and how wrong it is."""
    preset = presets.resolve(model)
    scale = _scale(quick, clips=clips, seeds=seeds, steps=steps, render_clips=render_clips)
    texts = arms_of_options.read_prompts(prompts) if prompts else None
    worded = ablate_plan.prompts_and_names(preset, texts, scale.prompts)
    sizes = size or ablate_plan.default_sizes(preset)
    every = {
        each: [
            clip_of(preset, prompt, size=each, frames=frames, steps=scale.steps,
                    guidance=guidance, negative=None, seed=seed)
            for seed in scale.seeds for prompt, _ in worded
        ]
        for each in sizes
    }  # fmt: skip
    base = sparse_config(preset, dense_steps=None, dense_layers=None)
    usual = SparseConfig()  # where every method begins; smaller blocks are asked about too
    base = replace(base, block_size=usual.block_size, correction=usual.correction)
    entries = ablate_plan.entries(scale, base, method)
    first = every[sizes[0]][0]
    source = source_of(preset, dtype=dtype, device=device, size=(first.width, first.height))
    requests.check(preset, source, first, [entry.variant.config for entry in entries])
    plan = ablate_plan.Plan(
        clips=every,
        named=[names for _ in scale.seeds for _, names in worded],
        layers=_layers(layers, scale, preset),
        steps=ablate_plan.captured_steps(scale, first.steps),
        entries=entries,
        scale=scale,
    )
    perceptual = network_if(lpips)
    compare_folder.prepare(output, overwrite=overwrite, resume=resume)
    if overwrite:
        ablate_run.clear(output)
    record = _measure(
        preset, source, plan, output, renders=renders, perceptual=perceptual, quiet=quiet or json,
        command=command_line(context),
    )  # fmt: skip
    if json:
        console.out.print_json(data=record)
    elif not quiet:
        _show(record, output)


def _scale(
    quick: bool,
    *,
    clips: int | None,
    seeds: str | None,
    steps: int | None,
    render_clips: int | None,
) -> ablate_plan.Scale:
    from dataclasses import replace

    scale = ablate_plan.QUICK if quick else ablate_plan.FULL
    if clips is not None:
        options.at_least_one("--clips", clips)
    given: dict[str, Any] = {"prompts": clips, "steps": steps}
    if render_clips is not None:
        count = options.at_least_one("--render-clips", render_clips)
        names = ("render_clips", "other_render_clips", "sink_render_clips")
        given |= dict.fromkeys(names, count)
    given["seeds"] = tuple(arms_of_options.read_seeds(seeds)) if seeds else None
    return replace(scale, **{key: value for key, value in given.items() if value is not None})


def _layers(text: str | None, scale: ablate_plan.Scale, preset: presets.Preset) -> list[int]:
    if text is not None:
        return requests.layers_of(preset, text)
    return ablate_plan.captured_layers(scale, requests.architecture_of(preset).layers)


def _measure(
    preset: presets.Preset,
    source: "ModelSource",
    plan: ablate_plan.Plan,
    output: Path,
    *,
    renders: bool,
    perceptual: Any,
    quiet: bool,
    command: str,
) -> dict[str, Any]:
    import torch

    from rainfusion_core.pipeline import load
    from rainfusion_core.timing import peak_memory_bytes
    from rf_cli import ablate_pages, ablate_record
    from rf_cli.record import environment

    versions = environment(source.device)
    facts = {
        "model": preset.name, "location": preset.model.location, "revision": source.revision,
        "weights": compare_folder.fingerprint(source.folder), "dtype": source.dtype,
        "flow_shift": source.flow_shift, "trained_grid": list(source.trained_grid or ()),
    }  # fmt: skip
    ablation = ablate_run.Ablation(
        output, plan, load=lambda: load(source), facts=facts, perceptual=perceptual
    )  # fmt: skip
    device = torch.device(source.device)
    with live(quiet=quiet, memory_bytes=lambda: peak_memory_bytes(device)) as report:
        try:
            ablation.measure(report)
            if renders:
                ablation.render(report)
        except KeyboardInterrupt:
            console.note(f"{len(ablation.cells)} finished cells stay in {output}; --resume goes on")
            raise
    record = ablate_record.record(ablation, command=command, environment=versions)
    ablate_pages.write(record, output)
    return record


def _show(record: dict[str, Any], output: Path) -> None:
    from rf_cli import ablate_sections, sections

    sections.show(ablate_sections.brief(record), console.out)
    counts = record["counts"]
    console.out.print(
        f"measured {counts['measured']} cells, reused {counts['reused']}, captured "
        f"{counts['captured']} clips; wrote {output / ablate_sections.PAGE}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
