"""`rf compare`: the same clips dense and sparse, side by side, with times and honest metrics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rainfusion_core.errors import ConfigError
from rf_cli import arms as arms_of_options
from rf_cli import compare_folder, compare_run, console, load_options, options, presets, tasks
from rf_cli.command_line import command_line
from rf_cli.requests import check, clip_of, network_if, source_of, sparse_config

if TYPE_CHECKING:
    from rainfusion_core.compare import Arm
    from rainfusion_core.metrics import Perceptual
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.render import Clip

Prompt = Annotated[str | None, typer.Argument(help="What the video shows.")]
Sparsity = Annotated[
    list[float] | None, typer.Option("--sparsity", "-s", help="An arm each; may be repeated.")
]
Method = Annotated[list[str] | None, typer.Option(help="An arm each; may be repeated.")]
Variant = Annotated[
    list[str] | None,
    typer.Option(help="An arm as sparsity=0.8,dense_steps=0.1,order=raster; may be repeated."),
]
Prompts = Annotated[Path | None, typer.Option(help="File with a prompt a line; # is a comment.")]
Seeds = Annotated[str, typer.Option(help="Seeds of each prompt, as in 1,2,3.")]
Repeat = Annotated[int, typer.Option(help="Timed runs of every arm, taken in turn.")]
NoiseFloor = Annotated[
    bool, typer.Option("--noise-floor", help="Also dense through another exact kernel.")
]
Lpips = Annotated[bool, typer.Option("--lpips", help="Also LPIPS; needs the extra metrics.")]
Videos = Annotated[
    tuple[Path, Path] | None, typer.Option(help="Compare two existing videos or their records.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for all files.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier comparison.")]
Resume = Annotated[bool, typer.Option("--resume", help="Keep what is finished, do the rest.")]


def compare(
    context: typer.Context,
    prompt: Prompt = None,
    model: options.Model = "shapes",
    sparsity: Sparsity = None,
    mass: options.Mass = None,
    method: Method = None,
    method_option: options.MethodOption = None,
    variant: Variant = None,
    order: options.Order = None,
    sink: options.Sink = None,
    prompts: Prompts = None,
    seeds: Seeds = "0",
    repeat: Repeat = 1,
    noise_floor: NoiseFloor = False,
    lpips: Lpips = False,
    videos: Videos = None,
    size: options.Size = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    negative: options.Negative = None,
    image: options.Image = None,
    last_image: options.LastImage = None,
    video: options.Video = None,
    strength: options.Strength = None,
    dense_steps: options.DenseSteps = None,
    dense_layers: options.DenseLayers = None,
    correction: options.Correction = None,
    kernel: options.Kernel = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    lora: options.Lora = None,
    scheduler: options.Scheduler = None,
    compile: options.Compile = False,
    cache: options.Cache = "none",
    offload: options.Offload = "none",
    vae_tiling: options.VaeTiling = False,
    quantize: options.Quantize = "none",
    fp8_storage: options.Fp8Storage = False,
    output: Output = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render the same clip dense and sparse, and show the difference in pictures and numbers."""
    texts = _prompts(prompt, prompts, videos)
    folder = output or compare_folder.default_folder(texts[0] if texts else "videos")
    if videos:
        compare_folder.prepare(folder, overwrite=overwrite, resume=resume)
        facts = {**compare_run.compare_videos(videos, folder, perceptual=network_if(lpips)),
                 "source": compare_run.DECODED, "environment": _environment("cpu")}  # fmt: skip
    else:
        preset = presets.resolve(model)
        task = tasks.choose(preset, image or [], last_image, video, strength)
        clips = [
            clip_of(preset, text, task=task, size=size, frames=frames, steps=steps, guidance=guidance,
                    negative=negative, seed=seed)
            for text in texts for seed in arms_of_options.read_seeds(seeds)
        ]  # fmt: skip
        base = sparse_config(
            preset, mass=mass, method_option=method_option, order=order, sink=sink,
            dense_steps=dense_steps, dense_layers=dense_layers, correction=correction, kernel=kernel,
        )  # fmt: skip
        arms = arms_of_options.arms_of(
            base, sparsities=sparsity or [], methods=method or [], variants=variant or []
        )
        fps = options.at_least_one("--fps", preset.video.fps if fps is None else fps)
        options.at_least_one("--repeat", repeat)
        source = source_of(
            preset, dtype=dtype, device=device, size=(clips[0].width, clips[0].height),
            task=task, given=context.params,
        )  # fmt: skip
        arms += _floor(source, arms[0]) if noise_floor else []
        check(preset, source, clips[0], [arm.config for arm in arms])
        network = network_if(lpips)
        compare_folder.prepare(folder, overwrite=overwrite, resume=resume)
        facts = _render(
            preset, source, arms, clips, folder,
            fps=fps, repeats=repeat, perceptual=network, quiet=quiet or json,
        )  # fmt: skip
    record = compare_run.finish({"command": command_line(context), **facts}, folder)
    if json:
        console.out.print_json(data=record)
    elif not quiet:
        compare_run.show(record, folder)


def _prompts(prompt: str | None, file: Path | None, videos: Any) -> list[str]:
    given = [
        name
        for name, value in (("PROMPT", prompt), ("--prompts", file), ("--videos", videos))
        if value is not None
    ]
    if len(given) != 1:
        wrong = (
            f"{' and '.join(given)} exclude each other" if given else "there is nothing to compare"
        )
        raise ConfigError(wrong, hint="give one of PROMPT, --prompts FILE and --videos A B")
    if file is not None:
        return arms_of_options.read_prompts(file)
    return [] if prompt is None else [prompt]


def _floor(source: "ModelSource", dense: "Arm") -> list["Arm"]:
    from rainfusion_core.compare import noise_floor
    from rainfusion_core.pipeline import DTYPES

    return [noise_floor(dense.config, source.device, DTYPES[source.dtype])]


def _environment(device: str) -> dict[str, Any]:
    from rf_cli.record import environment

    return environment(device)


def _render(
    preset: presets.Preset,
    source: "ModelSource",
    arms: list["Arm"],
    clips: list["Clip"],
    path: Path,
    *,
    fps: int,
    repeats: int,
    perceptual: "Perceptual | None",
    quiet: bool,
) -> dict[str, Any]:
    environment = _environment(source.device)
    model = {
        "model": preset.name, "location": source.location, "revision": source.revision,
        "weights": compare_folder.fingerprint(source.folder), "dtype": source.dtype,
        "component_dtypes": dict(source.component_dtypes), "flow_shift": source.flow_shift,
        "trained_grid": source.trained_grid,
        **load_options.settings(source.options),
    }  # fmt: skip
    folder = compare_folder.CompareFolder(
        path, facts={**model, **environment}, names=[arm.name for arm in arms],
        clips=len(clips), fps=fps,
    )  # fmt: skip
    try:
        found = compare_run.render_arms(
            source, arms, clips, folder, repeats=repeats, perceptual=perceptual, quiet=quiet
        )
    except KeyboardInterrupt:
        if finished := len(folder.rendered) + len(folder.reused):
            console.note(f"{finished} finished renders stay in {path}; --resume goes on from there")
        raise
    shared = {k: v for k, v in clips[0].settings().items() if k not in ("prompt", "seed")}
    return {
        "source": compare_run.LOSSLESS,
        "settings": {**model, **shared, "fps": fps, "repeats": repeats},
        "environment": environment,
        "video": {key: shared[key] for key in ("width", "height", "frames")} | {"fps": fps},
        **found,
    }
