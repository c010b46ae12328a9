"""From options and preset to what the core is asked for: given wins over preset, preset over defaults."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rf_cli import inputs, load_options, options, presets, room, tasks, vocabulary

if TYPE_CHECKING:
    from rainfusion_core.metrics import Perceptual
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.profile import Architecture
    from rainfusion_core.render import Clip


def sparse_config(preset: presets.Preset, **given: Any) -> SparseConfig:
    """What is given wins over the preset, and the preset over the defaults."""
    settings: dict[str, Any] = {**preset.sparse.model_dump()}
    if (text := given.pop("dense_steps")) is not None:
        first, last = options.read_dense_steps(text)
        settings |= {"dense_steps": first, "dense_last_steps": last}
    if (text := given.pop("dense_layers")) is not None:
        settings["dense_layers"] = options.read_dense_layers(text)
    if (text := given.pop("sink", None)) is not None:
        settings["sink"] = options.read_sink(text)
    if (texts := given.pop("method_option", None)) is not None:
        settings["options"] = options.read_method_options(texts)
    settings |= {key: value for key, value in given.items() if value is not None}
    return SparseConfig(**settings)


def clip_of(
    preset: presets.Preset,
    prompt: str,
    *,
    size: str | None,
    seed: int,
    task: tasks.Task | None = None,
    **given: Any,
) -> "Clip":
    """The clip that is asked for, with the preset's values for what is not given, checked."""
    from rainfusion_core.render import Clip

    task = task or tasks.default(preset)
    if not prompt.strip():
        raise ConfigError("the prompt is empty", hint='say what the video shows: rf generate "..."')
    video, sampling = preset.video, preset.sampling
    width, height = options.read_size(size) if size else inputs.size_of(preset, task)
    values: dict[str, Any] = {
        "prompt": prompt,
        "frames": video.frames,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "negative": sampling.negative,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    for key, option in (("prompt", "the prompt"), ("negative", "--negative")):
        values[key] = values[key] and vocabulary.readable(preset, values[key], option)
    options.at_least_one("--steps", values["steps"])
    if values["guidance"] < 0:
        raise ConfigError(f"--guidance must be at least 0, got {values['guidance']:g}")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"--seed must be in [0, 2**63), got {seed}")
    video.check(preset.name, width, height, values["frames"])
    files = inputs.read(task, (width, height), values["frames"])
    return Clip(
        width=width, height=height, seed=seed, extra=preset.call,
        inputs=files.arguments, given=files.given, **values,
    )  # fmt: skip


def source_of(
    preset: presets.Preset,
    *,
    dtype: str,
    device: str,
    size: tuple[int, int] | None = None,
    task: tasks.Task | None = None,
    given: Mapping[str, Any] | None = None,
) -> "ModelSource":
    """Where the model comes from and how it is loaded.

    Args:
        size: in pixels; decides about the shift of the schedule.
        task: None is the preset's default.
        given: options of a command by name, of which those about loading count.
    """
    from rainfusion_core.pipeline import ModelSource, choose_device, choose_dtype

    model, video, device = preset.model, preset.video, choose_device(device)
    task = task or tasks.default(preset)
    own: dict[str, str] = dict(model.transformers.items())
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
        trained_grid=model.trained_grid,
        classes=load_options.classes_of(preset, task.name),
        transformer=own.get(task.name, "transformer"),
        options=load_options.read(preset, given or {}),
        fetch=f"rf models pull {preset.name}" if known else f"hf download {preset.location}",
    )


def architecture_of(preset: presets.Preset, name: str = "transformer") -> "Architecture":
    """A component: as the model's own files say where they are or no preset does, else the preset."""
    from rainfusion_core.profile import Architecture

    folder = Path(preset.location).expanduser()
    path = folder / name / "config.json"
    if preset.name == preset.location and not folder.is_dir():
        path = presets.hub_file(preset.location, f"{name}/config.json")
    if not path.is_file():
        told = getattr(preset, name)
        if told is None:
            raise ConfigError(f"the preset {preset.name} does not describe its {name}")
        return Architecture(class_name=told.class_name, config=told.config)
    found = json.loads(path.read_text("utf-8"))
    class_name = found.get("_class_name") or found["architectures"][0]
    config = {key: value for key, value in found.items() if not key.startswith("_")}
    return Architecture(class_name=class_name, config=config)


def layers_of(preset: presets.Preset, text: str) -> list[int]:
    """The layers that `--layers` lists, ascending, each once.

    Raises:
        ConfigError: it lists none, or one that the model's transformer does not have.
    """
    layers, found = (
        architecture_of(preset).layers,
        sorted(set(options.read_layers(text, "--layers"))),
    )
    if not found or not all(0 <= layer < layers for layer in found):
        wrong = "names a layer outside" if found else "must name some of the layers"
        raise ConfigError(f"--layers {wrong} 0 to {layers - 1}, got {text!r}")
    return found


def check(
    preset: presets.Preset, source: "ModelSource", clip: "Clip", configs: Iterable[SparseConfig]
) -> None:
    """Refuse names and layers that are unknown, and what model or machine cannot do, without weights.

    Raises:
        RainfusionError: one of `configs`, the options of `source`, or `clip` is not possible.
    """
    from rainfusion_core.installation import check_names
    from rainfusion_core.pipeline import check as check_source

    for config in configs:
        check_names(config)
        check_layers(preset, clip, config)
    check_source(source)
    room.check(preset, source, clip)


def check_layers(preset: presets.Preset, clip: "Clip", config: SparseConfig) -> None:
    """Refuse dense layers that the model does not have."""
    from rainfusion_core.schedule import plan

    if config.dense_layers:
        plan(config, steps=clip.steps, layers=architecture_of(preset).layers)


def network_if(wanted: bool) -> "Perceptual | None":
    """The network of LPIPS, or a clear line about what it needs, before anything is rendered."""
    if not wanted:
        return None
    from rainfusion_core.metrics import lpips_network

    return lpips_network()


def settings_of(
    preset: presets.Preset, source: "ModelSource", clip: "Clip", config: SparseConfig, *, fps: int
) -> dict[str, Any]:
    """Everything that decides about the frames, as the record tells it."""
    from rainfusion_core.selectors import SELECTORS

    settings = {
        "model": preset.name,
        "location": source.location,
        "revision": source.revision,
        "dtype": source.dtype,
        "component_dtypes": dict(source.component_dtypes),
        "flow_shift": source.flow_shift,
        "trained_grid": source.trained_grid,
        "pipeline": source.classes.pipeline if source.classes else None,
        **load_options.settings(source.options),
        **clip.settings(),
        "fps": fps,
        **vars(SELECTORS[config.method].complete(config)),
    }
    return dict(json.loads(json.dumps(settings)))
