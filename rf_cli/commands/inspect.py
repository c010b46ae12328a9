"""`rf inspect`: pictures of what the core does in one render: which blocks matter, which it keeps, where they lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rainfusion_core.errors import ConfigError
from rf_cli import ablate_plan, compare_folder, console, media, options, presets, requests
from rf_cli.command_line import command_line
from rf_cli.compare_record import layers_and_steps
from rf_cli.progress import live
from rf_cli.requests import clip_of, source_of, sparse_config

if TYPE_CHECKING:
    from rainfusion_core.config import SparseConfig
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.render import Clip, Rendered
    from rainfusion_core.sink import FirstFrame
    from rainfusion_core.study.inspection import HeadView

FPS = 2  # steps a second of the walk
Layers = Annotated[str | None, typer.Option(help="Layers to look into, as in 0,3; default: three.")]
Query = Annotated[
    str | None, typer.Option(help="Token whose kept blocks are drawn, as FRAME,ROW,COLUMN.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for all files.")]


def inspect(
    context: typer.Context,
    prompt: options.Prompt,
    model: options.Model = "shapes",
    layers: Layers = None,
    query: Query = None,
    sparsity: options.Sparsity = None,
    method: options.Method = None,
    method_option: options.MethodOption = None,
    order: options.Order = None,
    sink: options.Sink = None,
    size: options.Size = None,
    frames: options.Frames = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    negative: options.Negative = None,
    seed: options.Seed = 0,
    dense_steps: options.DenseSteps = None,
    dense_layers: options.DenseLayers = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    output: Output = Path("rf-inspect"),
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw which blocks matter in a render, which are kept, and where they lie in the video."""
    preset = presets.resolve(model)
    config = sparse_config(
        preset, sparsity=sparsity, method=method, method_option=method_option, order=order,
        sink=sink, dense_steps=dense_steps, dense_layers=dense_layers,
    )  # fmt: skip
    clip = clip_of(
        preset, prompt, size=size, frames=frames, steps=steps, guidance=guidance,
        negative=negative, seed=seed,
    )  # fmt: skip
    grid = preset.video.grid(clip.width, clip.height, clip.frames)
    token = _token(query, grid)
    wanted = _layers(layers, preset)
    source = source_of(preset, dtype=dtype, device=device, size=(clip.width, clip.height))
    requests.check(preset, source, clip, [config])
    compare_folder.prepare(output, overwrite=overwrite, resume=False)
    views, rendered, frame = _look(source, clip, config, wanted, token, quiet=quiet or json)
    record = {
        "command": command_line(context),
        "query": list(token),
        "first_frame": frame._asdict(),
        **_write(views, rendered, output),
    }
    media.write_json(output / compare_folder.RECORD, record)
    if json:
        console.out.print_json(data=record)
    elif not quiet:
        _show(record, output)


def _token(text: str | None, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """The token that is asked for, or the one in the middle."""
    if text is None:
        frames, height, width = (size // 2 for size in grid)
        return frames, height, width
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(
            f"--query must be FRAME,ROW,COLUMN, got {text!r}", hint="as in --query 4,8,8"
        )
    frame, row, column = map(int, parts)
    if not all(at < size for at, size in zip((frame, row, column), grid, strict=True)):
        sizes = " x ".join(map(str, grid))
        raise ConfigError(f"--query must lie in the grid of {sizes} tokens, got {text}")
    return frame, row, column


def _layers(text: str | None, preset: presets.Preset) -> list[int]:
    if text is not None:
        return requests.layers_of(preset, text)
    return ablate_plan.spread(3, requests.architecture_of(preset).layers)


def _look(
    source: "ModelSource",
    clip: "Clip",
    config: "SparseConfig",
    layers: Sequence[int],
    token: tuple[int, int, int],
    *,
    quiet: bool,
) -> tuple[list["HeadView"], "Rendered", "FirstFrame"]:
    """Every head of the chosen layers, what was rendered, and whether the first frame is a sink."""
    import torch

    from rainfusion_core.pipeline import load
    from rainfusion_core.recording import Recorder
    from rainfusion_core.render import render
    from rainfusion_core.selectors import SELECTORS
    from rainfusion_core.sink import first_frame
    from rainfusion_core.study.inspection import views
    from rainfusion_core.timing import peak_memory_bytes

    device = torch.device(source.device)
    with live(quiet=quiet, memory_bytes=lambda: peak_memory_bytes(device)) as report:
        recorder = Recorder(layers=layers)
        rendered = render(
            load(source), clip, config, progress=report, measure_speed=False, recorder=recorder
        )
        if not recorder.calls:
            raise ConfigError(f"no call of layers {', '.join(map(str, layers))} was caught")
        found: list[HeadView] = []
        for number, call in enumerate(recorder.calls):
            report("looking", number, len(recorder.calls))
            found += views(call, config, token=token, steps=clip.steps)
    complete = SELECTORS[config.method].complete(config)
    return found, rendered, first_frame(recorder.calls[0].layout, complete)


def _write(views: Sequence["HeadView"], rendered: "Rendered", folder: Path) -> dict[str, Any]:
    """All pictures; returns their names and what they show."""
    from rf_cli import inspect_pictures as pictures

    layers = sorted({view.layer for view in views})
    steps = sorted({view.step for view in views})
    middle, last = layers[len(layers) // 2], steps[-1]
    first_of_kind = {view.kind: view for view in reversed(views) if view.step == last}
    images = {
        "types.png": pictures.maps([first_of_kind[kind] for kind in sorted(first_of_kind)]),
        "head-types.png": pictures.head_types(views),
        "sparsity.png": pictures.sparsity(layers_and_steps(rendered.report.sparsity.rows)),
    }
    for layer in layers:
        shown = [v for v in views if (v.layer, v.step) == (layer, last)]
        images[f"maps-layer-{layer}.png"] = pictures.maps(shown)
        for view in shown:
            name = f"kept-layer-{layer}-head-{view.head}.png"
            images[name] = pictures.over_frames(view, rendered.frames)
    for name, pixels in images.items():
        media.write_image(folder / name, pixels)
    walk = [[v for v in views if (v.layer, v.step) == (middle, step)] for step in steps]
    media.write_video(
        folder / "steps.mp4", pictures.walk(walk), fps=FPS, settings={"layer": middle}
    )
    facts = ("layer", "head", "step", "kind", "recall", "density", "top_fifth")
    return {
        "heads": [{key: getattr(view, key) for key in facts} for view in views],
        "files": [*images, "steps.mp4", compare_folder.RECORD],
    }


def _show(record: dict[str, Any], output: Path) -> None:
    from rf_cli import sections, tables

    last = max(row["step"] for row in record["heads"])
    rows = [
        (f"layer {row['layer']}, head {row['head']}", row["kind"], f"{row['density']:.1%}", f"{row['recall']:.1%}",
         f"{row['top_fifth']:.1%}")
        for row in record["heads"]
        if row["step"] == last
    ]  # fmt: skip
    columns = ("head", "type", "kept", "recall of softmax mass", "the best fifth of blocks holds")
    said, share = tables.first_frame(record["first_frame"])
    note = f"step {last}; steps.mp4 walks over all steps; first frame: {said}, {share}"
    sections.show([sections.Section("Heads", columns, rows, note)], console.out)
    console.out.print(
        f"wrote {output}: {', '.join(record['files'])}", highlight=False, soft_wrap=True
    )
