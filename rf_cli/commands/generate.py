"""`rf generate`: render what prompts say, write it with its records, and say what it cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rainfusion_core.errors import ConfigError
from rf_cli import arms, batch, console, media, options, presets, tables, tasks
from rf_cli.rendering import render_jobs
from rf_cli.requests import check, clip_of, settings_of, source_of, sparse_config

if TYPE_CHECKING:
    from rainfusion_core.config import SparseConfig
    from rainfusion_core.pipeline import ModelSource


def generate(
    context: typer.Context,
    prompt: options.PromptOrNone = None,
    model: options.Model = "shapes",
    sparsity: options.Sparsity = None,
    mass: options.Mass = None,
    method: options.Method = None,
    method_option: options.MethodOption = None,
    order: options.Order = None,
    sink: options.Sink = None,
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
    prompts: options.Prompts = None,
    seed: options.Seed = 0,
    seeds: options.Seeds = None,
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
    resume: options.Resume = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Render a video or an image of what PROMPT says, with sparse attention, and write it with a record."""
    preset = presets.resolve(model)
    task = tasks.choose(preset, image or [], last_image, video, strength)
    config = sparse_config(
        preset, sparsity=sparsity, mass=mass, method=method, method_option=method_option,
        order=order, sink=sink, dense_steps=dense_steps, dense_layers=dense_layers, correction=correction,
        kernel=kernel, strict=strict,
    )  # fmt: skip
    texts, numbers = _texts(prompt, prompts), _seeds(context, seed, seeds)
    clips = [
        clip_of(preset, text, task=task, size=size, frames=frames, steps=steps,
                guidance=guidance, negative=negative, seed=number)
        for text in texts for number in numbers
    ]  # fmt: skip
    fps = options.at_least_one("--fps", preset.video.fps if fps is None else fps)
    many = prompts is not None or seeds is not None or "{" in str(output)
    paths = _outputs(output, clips, task, many=many, seeds=len(numbers), prompts=prompts)
    media.check_suffix(paths[0], task.suffix)
    if not many and not resume:
        media.check_output(paths[0], overwrite=overwrite, suffix=task.suffix)
    source = source_of(
        preset, dtype=dtype, device=device, size=(clips[0].width, clips[0].height),
        task=task, given=context.params,
    )  # fmt: skip
    check(preset, source, clips[0], [config])
    jobs = [
        batch.Job(clip, path, settings_of(preset, source, clip, config, fps=fps))
        for clip, path in zip(clips, paths, strict=True)
    ]
    todo = batch.left_to_do(jobs, overwrite=overwrite, resume=resume)
    silent = quiet or json
    records = _render(source, todo, config, fps=fps, quiet=silent, each=many and not silent)
    finished = [str(job.output) for job in jobs if job not in todo]
    if json:
        console.out.print_json(
            data={"videos": records, "kept": finished} if many or not records else records[0]
        )
    elif not quiet:
        _show(records, finished, verbose=verbose)


def _texts(prompt: str | None, file: Path | None) -> list[str]:
    if (prompt is None) == (file is None):
        problem = (
            "there is no prompt" if prompt is None else "PROMPT and --prompts exclude each other"
        )
        raise ConfigError(problem, hint='rf generate "..." or rf generate --prompts FILE')
    return [prompt] if prompt is not None else arms.read_prompts(file or Path())


def _seeds(context: typer.Context, seed: int, seeds: str | None) -> list[int]:
    if seeds is None:
        return [seed]
    source = context.get_parameter_source("seed")
    if source is not None and source.name == "COMMANDLINE":
        raise ConfigError("--seed and --seeds exclude each other")
    return arms.read_seeds(seeds)


def _outputs(
    output: Path | None, clips: list[Any], task: tasks.Task, *, many: bool, seeds: int,
    prompts: Path | None,
) -> list[Path]:  # fmt: skip
    if many:
        stem = prompts.stem if prompts else clips[0].prompt.lower()
        folder = Path(f"rf-{'-'.join(arms.slug(stem).split('-')[:6])}")
        return batch.outputs(output or folder, clips, task.suffix, seeds=seeds)
    return [output or media.default_output(clips[0].prompt, clips[0].seed, task.suffix)]


def _render(
    source: "ModelSource",
    jobs: list[batch.Job],
    config: "SparseConfig",
    *,
    fps: int,
    quiet: bool,
    each: bool,
) -> list[dict[str, Any]]:
    """The records of all jobs, `each` noted when it is written."""
    records: list[dict[str, Any]] = []
    try:
        for record in render_jobs(source, jobs, config, fps=fps, quiet=quiet):
            records.append(record)
            if each:
                console.note(f"{len(records)}/{len(jobs)} wrote {record['video']}")
    except KeyboardInterrupt:
        if records:
            console.note(f"{len(records)} finished renders stay; --resume goes on from there")
        raise
    return records


def _show(records: list[dict[str, Any]], finished: list[str], *, verbose: bool) -> None:
    if len(records) == 1:
        _show_one(records[0], verbose=verbose)
    elif records:
        console.out.print(tables.renders(records))
    if records and (others := console.of_others([each["others"] for each in records])) is not None:
        console.warn(others)
    if any(tables.is_idle(record) for record in records):
        console.warn("the cache skipped nothing: give it more strength, see rf generate --help")
    if finished:
        console.out.print(f"kept {len(finished)} that were finished already", highlight=False)


def _show_one(record: dict[str, Any], *, verbose: bool) -> None:
    console.out.print(tables.timing(record))
    console.out.print(tables.sparsity(record))
    if (speedup := tables.speedup(record)) is not None:
        console.out.print(speedup)
    if verbose:
        console.out.print(tables.layers(record))
    sound = " with sound" if record["sound"] else ""
    console.out.print(f"wrote {record['video']}{sound}", highlight=False, soft_wrap=True)
