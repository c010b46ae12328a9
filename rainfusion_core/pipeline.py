"""From a model's source to a loaded diffusers pipeline: a local folder, the hub's cache, or the hub itself."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rainfusion_core.errors import ConfigError, KernelUnavailable, ModelUnavailable
from rainfusion_core.loading import options as load_options
from rainfusion_core.loading import positions, quantization, schedulers
from rainfusion_core.loading.options import Classes, LoadOptions
from rainfusion_core.loading.quiet import quiet
from rainfusion_core.loading.random_weights import transformer_class

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


TRANSFORMER = "transformer"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a pipeline comes from and how it is loaded.

    Attributes:
        location: a folder in diffusers' layout, or a repository on the hub.
        revision: commit of the repository; None means its main branch.
        dtype: name in `DTYPES` of all components that `component_dtypes` does not name.
        component_dtypes: component name -> name in `DTYPES`.
        device: "cpu", "cuda", "cuda:1", "mps".
        variant: of the weight files, as in "bf16"; None means those without one.
        scheduler: class of diffusers that replaces the repository's, and what differs from the
            settings of that one.
        flow_shift: of the scheduler; None keeps the repository's.
        trained_grid: (frames, height, width) in tokens that the transformer was trained on; positions
            of larger ones are interpolated. None takes every grid as it is.
        classes: what the pipeline is made of, as far as it is known without its index file;
            its `pipeline` is the class that is loaded.
        transformer: folder of the transformer in the location; another than "transformer" where one
            pipeline holds several, each for a task.
        options: what else is done to it.
        fetch: the command that a hint names where the weights are missing.
    """

    location: str
    revision: str | None = None
    dtype: str = "float32"
    component_dtypes: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    variant: str | None = None
    scheduler: tuple[str, Mapping[str, Any]] | None = None
    flow_shift: float | None = None
    trained_grid: positions.Grid | None = None
    classes: Classes | None = None
    transformer: str = TRANSFORMER
    options: LoadOptions = field(default_factory=LoadOptions)
    fetch: str = ""

    @property
    def folder(self) -> Path | None:
        path = Path(self.location).expanduser()
        return path if path.is_dir() else None


def choose_device(name: str) -> str:
    """The device called `name`, or for "auto" the best one here."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next((device for device, here in available.items() if here), "cpu")
    kind, _, number = name.partition(":")
    if kind not in {"cpu", *available}:
        raise ConfigError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    if kind != "cpu" and not available[kind]:
        usable = [device for device, here in available.items() if here] + ["cpu"]
        raise KernelUnavailable(
            f"this machine has no {kind} device that torch can use",
            hint=f"available here: {', '.join(usable)}",
        )
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise KernelUnavailable(
            f"there is no device {name}",
            hint=f"this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    return name


def choose_dtype(name: str, preferred: str, device: str) -> str:
    """The dtype called `name`; for "auto" the preferred one, where the device multiplies it natively."""
    if name == "auto":
        return preferred if device != "cpu" or _multiplies_bfloat16() else "float32"
    if name not in DTYPES:
        raise ConfigError(f"dtype must be auto, {', '.join(DTYPES)}, got {name!r}")
    return name


def _multiplies_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def is_available(source: ModelSource) -> bool:
    """Whether the weights are on this machine. Never touches the network."""
    return source.folder is not None or _cached(source) is not None


def _cached(source: ModelSource) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        source.location, "model_index.json", revision=source.revision or "main"
    )
    return path if isinstance(path, str) else None


def check(source: ModelSource) -> None:
    """Refuse options that the model or the machine cannot do. Reads no weights.

    Raises:
        ConfigError: the model cannot do it, or a package or a file is missing.
    """
    if source.options != LoadOptions():
        load_options.check(source.options, classes_of(source), source.device)
    if source.transformer != TRANSFORMER and source.options.quantize != "none":
        raise ConfigError(
            f"--quantize: the weights of this task, {source.transformer}, are loaded as they are",
            hint="leave --quantize out",
        )


def classes_of(source: ModelSource) -> Classes:
    """The classes that the index of the pipeline names, or what the source says without an index."""
    path = str(source.folder / "model_index.json") if source.folder else _cached(source)
    said = source.classes
    if path is None or not Path(path).is_file():
        return said or Classes(pipeline="")
    index = json.loads(Path(path).read_text("utf-8"))
    names = {key: value[1] for key, value in index.items() if _is_component(value)}
    config = Path(path).parent / "scheduler" / "scheduler_config.json"
    return Classes(
        pipeline=said.pipeline if said else index.get("_class_name", ""),
        transformer=names.get("transformer", ""),
        vae=names.get("vae", ""),
        scheduler=names.get("scheduler", ""),
        scheduler_config=json.loads(config.read_text("utf-8")) if config.is_file() else {},
        components=frozenset(names),
    )


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def load(source: ModelSource) -> Any:
    """Load a pipeline, prepared as its options say, onto its device. safetensors only, no remote code.

    Raises:
        ModelUnavailable: the weights are neither here nor reachable, or the folder is no pipeline.
        ConfigError: see `check`.
    """
    import diffusers

    quiet()
    if source.folder and not (source.folder / "model_index.json").is_file():
        raise ModelUnavailable(
            f"{source.location} is not a diffusers pipeline: it has no model_index.json",
            hint="pass the folder that save_pretrained() of a pipeline wrote",
        )
    check(source)
    classes = classes_of(source)
    dtypes = {name: DTYPES[dtype] for name, dtype in source.component_dtypes.items()}
    # the class itself: DiffusionPipeline drops components that it is given, without a word
    chosen = getattr(diffusers, classes.pipeline, diffusers.DiffusionPipeline)
    try:
        given = quantization.arguments(
            source.options.quantize, classes, source.location, DTYPES[source.dtype]
        )
        if source.transformer != TRANSFORMER:
            given = {"transformer": transformer_of(source, classes.transformer)}
        pipeline = chosen.from_pretrained(
            str(source.folder or source.location),
            revision=None if source.folder else source.revision,
            variant=source.variant,
            dtype={"default": DTYPES[source.dtype], **dtypes},
            use_safetensors=True,
            local_files_only=source.folder is not None or None,
            **given,
        )
    except (OSError, ValueError) as error:
        raise _unavailable(source, error) from error
    pipeline.set_progress_bar_config(disable=True)
    if source.scheduler is not None:
        name, config = source.scheduler
        settings = {**pipeline.scheduler.config, **config}
        pipeline.scheduler = getattr(diffusers, name).from_config(settings)
    if source.flow_shift is not None:
        schedulers.set_shift(pipeline, source.flow_shift)
    if source.trained_grid is not None:
        for name in ("transformer", "transformer_2"):
            if getattr(pipeline, name, None) is not None:
                positions.interpolate(getattr(pipeline, name), source.trained_grid)
    return load_options.prepare(pipeline, source.options, source.device)


def transformer_of(source: ModelSource, class_name: str, **options: Any) -> Any:
    """The transformer alone, on the CPU.

    Args:
        options: of diffusers' `from_pretrained`, on top of what the source says.
    """
    return transformer_class(class_name).from_pretrained(
        str(source.folder or source.location),
        subfolder=source.transformer,
        revision=None if source.folder else source.revision,
        dtype=DTYPES[source.dtype],
        use_safetensors=True,
        variant=source.variant,
        **options,
    )


def _unavailable(source: ModelSource, error: Exception) -> ModelUnavailable:
    """One line for what huggingface_hub says in many."""
    if source.folder is not None:
        return ModelUnavailable(f"{source.location} cannot be loaded: {_first_line(error)}")
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    where = "HF_HUB_OFFLINE is set" if offline else "the hub did not deliver them"
    return ModelUnavailable(
        f"the weights of {source.location} are not in the cache and {where}",
        hint=f"fetch them with: {source.fetch or 'hf download ' + source.location}; "
        "--model shapes needs no download",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
