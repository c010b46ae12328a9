"""LoRA weights, laid over a transformer and, where it can be, fused into it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rainfusion_core.errors import ConfigError, ModelUnavailable


@dataclass(frozen=True)
class Lora:
    """Where the weights are, and how strongly they count.

    Attributes:
        location: a safetensors file, a folder that holds one, or a repository on the hub.
        component: "transformer" or "transformer_2"; "" means each transformer that there is.
    """

    location: str
    scale: float = 1.0
    component: str = ""
    file: str | None = None
    revision: str | None = None

    @property
    def path(self) -> Path | None:
        """The file, or None for a repository on the hub."""
        found = Path(self.location).expanduser()
        if found.is_dir():
            files = sorted(found.glob(self.file or "*.safetensors"))
            return files[0] if len(files) == 1 else found
        return found if found.is_file() else None


def check(lora: Lora, classes: Any) -> None:
    """Refuse, before the model's weights are read, what cannot be laid over it."""
    import diffusers

    if not hasattr(getattr(diffusers, classes.pipeline, None), "load_lora_weights"):
        raise ConfigError(f"--lora: {classes.pipeline} takes no LoRA")
    if find_spec("peft") is None:
        raise ConfigError("--lora needs the package peft", hint="pip install 'rainfusion[lora]'")
    if lora.component and lora.component not in classes.components:
        raise ConfigError(f"--lora: {classes.pipeline} has no {lora.component} here")
    if lora.path is None:
        _check_repository(lora.location)
    else:
        _check_file(lora.path)


def _check_repository(location: str) -> None:
    if location.startswith((".", "/", "~")) or len(Path(location).parts) != 2:
        raise ConfigError(
            f"--lora {location}: there is no such file",
            hint="a .safetensors file, a folder that holds one, or OWNER/NAME on the hub",
        )


def _check_file(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise ConfigError(f"--lora {path}: the folder must hold exactly one .safetensors file")
    try:
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
    except SafetensorError as error:
        raise ConfigError(f"--lora {path} is not a safetensors file") from error
    if not any("lora" in name.lower() for name in names):
        raise ConfigError(f"--lora {path} holds no LoRA weights, its first is {names[0]}")


def apply(pipeline: Any, loras: Sequence[Lora], *, fuse: bool) -> None:
    """Load all of them. Fused weights cost nothing afterwards; quantised ones cannot be fused.

    Raises:
        ConfigError: weights that do not fit the model.
    """
    if not loras:
        return
    scales: dict[str, float] = {}
    components: dict[str, list[str]] = {}
    for index, lora in enumerate(loras):
        for component in _components(pipeline, lora):
            name = f"lora_{index}_{component}"
            _load(pipeline, lora, name, component)
            scales[name] = lora.scale
            components.setdefault(component, []).append(name)
    for component, names in components.items():
        owner = getattr(pipeline, component)
        owner.set_adapters(names, [scales[name] for name in names])
        if fuse:
            owner.fuse_lora(adapter_names=names)
            owner.unload_lora()


def _components(pipeline: Any, lora: Lora) -> list[str]:
    found = [
        name
        for name, component in sorted(pipeline.components.items())
        if name in ("transformer", "transformer_2") and component is not None
    ]
    return [lora.component] if lora.component else found


def _load(pipeline: Any, lora: Lora, name: str, component: str) -> None:
    second = {"load_into_transformer_2": True} if component == "transformer_2" else {}
    if lora.path is None:
        source = {"pretrained_model_name_or_path_or_dict": lora.location, "revision": lora.revision}
        source |= {} if lora.file is None else {"weight_name": lora.file}
    else:
        source = {"pretrained_model_name_or_path_or_dict": str(lora.path)}
    try:
        with warnings.catch_warnings():
            # peft warns of a second adapter, which is what was asked for
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            pipeline.load_lora_weights(**source, **second, adapter_name=name, use_safetensors=True)
    except OSError as error:
        raise ModelUnavailable(
            f"--lora {lora.location} can be read neither here nor on the hub",
            hint="hf download fetches a repository",
        ) from error
    except (ValueError, RuntimeError, KeyError) as error:
        raise _unfit(lora, str(error).strip().partition("\n")[0]) from error
    if name not in getattr(getattr(pipeline, component), "peft_config", {}):
        raise _unfit(lora, "none of its weights belongs to this model")


def _unfit(lora: Lora, why: str) -> ConfigError:
    return ConfigError(f"--lora {lora.location} does not fit: {why}")
