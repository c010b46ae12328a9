"""From the options about loading to what the core is told of it."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rainfusion_core.errors import ConfigError
from rf_cli.presets import Preset

if TYPE_CHECKING:
    from rainfusion_core.loading.lora import Lora
    from rainfusion_core.loading.options import Classes, LoadOptions


def read(preset: Preset, given: Mapping[str, Any]) -> "LoadOptions":
    """The options of a command by name, with the LoRA weights of the preset below the user's."""
    from rainfusion_core.loading.lora import Lora
    from rainfusion_core.loading.options import LoadOptions

    own = [
        Lora(each.location, each.scale, each.component, each.file, each.revision)
        for each in preset.loras
    ]
    names = {field.name for field in fields(LoadOptions)} & set(given)
    settings = {name: given[name] for name in names}
    settings["vae_tiling"] = preset.model.vae_tiling or bool(given.get("vae_tiling"))
    loras = (*own, *map(read_lora, given.get("lora") or []))
    return LoadOptions(**settings, loras=loras)


def read_lora(text: str) -> "Lora":
    """LoRA weights from [COMPONENT=]PATH[:SCALE]."""
    from rainfusion_core.loading.lora import Lora

    match = re.fullmatch(r"(?:(transformer(?:_2)?)=)?(.+?)(?::([^:/\\]*))?", text.strip())
    if not match:
        raise ConfigError("--lora is empty", hint="as in --lora style.safetensors:0.8")
    component, path, number = match.groups()
    if number is None:
        return Lora(path, component=component or "")
    try:
        return Lora(path, float(number), component or "")
    except ValueError:
        raise ConfigError(
            f"--lora: the scale must be a number, got {number!r}",
            hint=f"as in --lora {path}:0.8",
        ) from None


def classes_of(preset: Preset, task: str) -> "Classes":
    """What the preset says about the pipeline of a task."""
    from rainfusion_core.loading.options import Classes

    parts = ("vae", "text_encoder", "scheduler")
    described = {"transformer"} | {name for name in parts if getattr(preset, name) is not None}
    described |= {"transformer_2"} if preset.transformer.count > 1 else set()
    return Classes(
        pipeline=preset.pipeline_for(task),
        transformer=preset.transformer.class_name,
        vae=preset.vae.class_name if preset.vae else "",
        scheduler=preset.scheduler.class_name if preset.scheduler else "",
        scheduler_config=preset.scheduler.config if preset.scheduler else {},
        components=frozenset(described),
    )


def settings(options: "LoadOptions") -> dict[str, Any]:
    """The options as JSON values, for the record."""
    loras = [{**vars(each)} for each in options.loras]
    return {**vars(options), "loras": loras}
