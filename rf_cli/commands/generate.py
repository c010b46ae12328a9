"""`rf generate`: render one clip, write it with its record, and say what it cost."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rf_cli import console, load_options, media, options, presets, room, tables
from rf_cli.progress import live

if TYPE_CHECKING:
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.render import Clip


def generate(
    context: typer.Context,
    prompt: options.Prompt,
    model: options.Model = "shapes",
    sparsity: options.Sparsity = None,
    mass: options.Mass = None,
    method: options.Method = None,
    method_option: options.MethodOption = None,
    order: options.Order = None,
    size: options.Size = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    negative: options.Negative = None,
    seed: options.Seed = 0,
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
    strict: options.Strict = False,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Render a video of what PROMPT says, with sparse attention, and write MP4 and record."""
    preset = presets.resolve(model)
    config = sparse_config(
        preset, sparsity=sparsity, mass=mass, method=method, method_option=method_option,
        order=order, dense_steps=dense_steps, dense_layers=dense_layers, correction=correction,
        kernel=kernel, strict=strict,
    )  # fmt: skip
    clip = clip_of(
        preset, prompt, size=size, frames=frames, steps=steps, guidance=guidance,
        negative=negative, seed=seed,
    )  # fmt: skip
    fps = preset.video.fps if fps is None else fps
    if fps < 1:
        raise ConfigError(f"--fps must be at least 1, got {fps}")
    from rainfusion_core.installation import check_names
    from rainfusion_core.pipeline import check

    video = output or media.default_output(prompt, seed)
    media.check_output(video, overwrite=overwrite)
    source = source_of(
        preset, dtype=dtype, device=device, size=(clip.width, clip.height), given=context.params
    )
    check_names(config)  # before the weights load
    check(source)
    room.check(preset, source, clip)
    record = _render(preset, source, clip, config, fps=fps, video=video, quiet=quiet or json)
    if json:
        console.out.print_json(data=record)
    elif not quiet:
        _show(record, verbose=verbose)


def sparse_config(preset: presets.Preset, **given: Any) -> SparseConfig:
    """What is given wins over the preset, and the preset over the defaults."""
    settings: dict[str, Any] = {**preset.sparse.model_dump()}
    if (text := given.pop("dense_steps")) is not None:
        first, last = options.read_dense_steps(text)
        settings |= {"dense_steps": first, "dense_last_steps": last}
    if (text := given.pop("dense_layers")) is not None:
        settings["dense_layers"] = options.read_layers(text)
    if (texts := given.pop("method_option", None)) is not None:
        settings["options"] = options.read_method_options(texts)
    settings |= {key: value for key, value in given.items() if value is not None}
    return SparseConfig(**settings)


def clip_of(
    preset: presets.Preset, prompt: str, *, size: str | None, seed: int, **given: Any
) -> "Clip":
    """The clip that is asked for, with the preset's values for what is not given, checked."""
    from rainfusion_core.render import Clip

    if not prompt.strip():
        raise ConfigError("the prompt is empty", hint='say what the video shows: rf generate "..."')
    video, sampling = preset.video, preset.sampling
    width, height = options.read_size(size) if size else (video.width, video.height)
    values: dict[str, Any] = {
        "frames": video.frames,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "negative": sampling.negative,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    if values["steps"] < 1:
        raise ConfigError(f"--steps must be at least 1, got {values['steps']}")
    if values["guidance"] < 0:
        raise ConfigError(f"--guidance must be at least 0, got {values['guidance']:g}")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"--seed must be in [0, 2**63), got {seed}")
    video.check(preset.name, width, height, values["frames"])
    return Clip(prompt=prompt, width=width, height=height, seed=seed, extra=preset.call, **values)


def source_of(
    preset: presets.Preset,
    *,
    dtype: str,
    device: str,
    size: tuple[int, int] | None = None,
    task: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> "ModelSource":
    """Where the model comes from and how it is loaded.

    Args:
        size: in pixels; decides about the shift of the schedule.
        task: one of the preset's; None is its default.
        given: options of a command by name, of which those about loading count.
    """
    from rainfusion_core.pipeline import ModelSource, choose_device, choose_dtype

    model, video, device = preset.model, preset.video, choose_device(device)
    chosen = choose_dtype(dtype, model.dtype, device)
    scheduler, known = preset.scheduler, preset.name in presets.names()
    return ModelSource(
        location=preset.location,
        revision=model.revision,
        dtype=chosen,
        component_dtypes=model.component_dtypes,
        device=device,
        variant=model.variant,
        scheduler=(scheduler.class_name, scheduler.config) if scheduler else None,
        flow_shift=preset.sampling.flow_shift_at(*(size or (video.width, video.height))),
        classes=load_options.classes_of(preset, task or next(iter(preset.tasks))),
        options=load_options.read(preset, given or {}),
        fetch=f"rf models pull {preset.name}" if known else f"hf download {preset.location}",
    )


def _render(
    preset: presets.Preset,
    source: "ModelSource",
    clip: "Clip",
    config: SparseConfig,
    *,
    fps: int,
    video: Path,
    quiet: bool,
) -> dict[str, Any]:
    import torch

    from rainfusion_core.pipeline import load
    from rainfusion_core.render import render
    from rainfusion_core.selectors import SELECTORS
    from rainfusion_core.timing import peak_memory_bytes
    from rf_cli.record import record as record_of

    def memory() -> int:
        return peak_memory_bytes(torch.device(source.device))

    with live(quiet=quiet, memory_bytes=memory) as progress:
        begin = time.perf_counter()
        pipeline = load(source)
        load_s = time.perf_counter() - begin
        rendered = render(pipeline, clip, config, progress=progress)
    settings = {
        "model": preset.name,
        "location": source.location,
        "revision": source.revision,
        "dtype": source.dtype,
        "component_dtypes": dict(source.component_dtypes),
        "flow_shift": source.flow_shift,
        **load_options.settings(source.options),
        **{key: value for key, value in vars(clip).items() if key != "extra"},
        **clip.extra,
        "fps": fps,
        **vars(SELECTORS[config.method].complete(config)),
    }
    record = record_of(settings, rendered.report, video=video, load_s=load_s, device=source.device)
    media.write_video(video, rendered.frames, fps=fps, settings=settings)
    media.write_json(media.record_path(video), record)
    return record


def _show(record: dict[str, Any], *, verbose: bool) -> None:
    console.out.print(tables.timing(record))
    console.out.print(tables.sparsity(record))
    if (speedup := tables.speedup(record)) is not None:
        console.out.print(speedup)
    if (others := console.of_others([record["others"]])) is not None:
        console.warn(others)
    if verbose:
        console.out.print(tables.layers(record))
    console.out.print(f"wrote {record['video']}", highlight=False, soft_wrap=True)
