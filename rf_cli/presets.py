"""Finds, reads and checks presets: what a model is, and the settings it is used with."""

import json
import sys
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rainfusion_core.errors import ConfigError, ModelUnavailable, UnknownName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGED = Path(__file__).parent / "_presets"  # in a wheel (pyproject.toml, force-include)
FOLDER = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "presets"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Table):
    location: str
    revision: str | None = None
    pipeline: str
    dtype: str
    component_dtypes: dict[str, str] = Field(default_factory=dict)
    flow_shift: float | None = None


class Component(_Table):
    """A model without its weights: a class, and what differs from its defaults."""

    class_name: str
    config: dict[str, Any] = Field(default_factory=dict)


class Video(_Table):
    """Sizes in pixels. `token` is what one token covers: frames, rows and columns of pixels."""

    width: int
    height: int
    frames: int
    fps: int
    sizes: list[str]
    multiple: int
    token: tuple[int, int, int]
    max_side: int | None = None

    def grid(self, width: int, height: int, frames: int) -> tuple[int, int, int]:
        """Tokens of a clip as (frames, rows, columns); the first frame has a latent frame of its own."""
        time, rows, columns = self.token
        return (frames - 1) // time + 1, height // rows, width // columns

    def tokens(self, width: int, height: int, frames: int) -> int:
        """Video tokens of a clip."""
        return prod(self.grid(width, height, frames))

    def check(self, model: str, width: int, height: int, frames: int) -> None:
        """Refuse a size or length that the model cannot take, and name the nearest ones."""
        limit = self.max_side or max(width, height)
        if width % self.multiple or height % self.multiple or not 0 < max(width, height) <= limit:
            near = sorted(
                {(w, h) for w in self._near(width, limit) for h in self._near(height, limit)},
                key=lambda size: abs(size[0] - width) + abs(size[1] - height),
            )[:2]
            rule = f"multiples of {self.multiple}"
            rule += f" up to {self.max_side}" if self.max_side else ""
            raise ConfigError(
                f"--size {width}x{height} does not fit {model}: width and height must be {rule}",
                hint="the nearest are " + " and ".join(f"{w}x{h}" for w, h in near),
            )
        time = self.token[0]
        if frames < 1 or (frames - 1) % time:
            below = max(1, (frames - 1) // time * time + 1)
            raise ConfigError(
                f"--frames {frames} does not fit {model}: frames must be 1 more than a multiple "
                f"of {time}",
                hint=f"the nearest are {below} and {below + time}",
            )

    def _near(self, side: int, limit: int) -> set[int]:
        below = side // self.multiple * self.multiple
        limit = limit // self.multiple * self.multiple
        return {
            min(max(x, self.multiple), max(limit, self.multiple))
            for x in (below, below + self.multiple)
        }


class Sampling(_Table):
    steps: int
    guidance: float
    negative: str = ""


class Sparse(_Table):
    """Settings of `SparseConfig` that differ from its defaults."""

    sparsity: float
    dense_steps: float = 0
    dense_last_steps: float = 0
    dense_layers: tuple[int, ...] = ()


class Preset(_Table):
    name: str
    description: str
    aliases: list[str] = Field(default_factory=list)
    licence: str
    parameters: int
    model: Model
    transformer: Component
    vae: Component | None = None
    text_encoder: Component | None = None
    video: Video
    sampling: Sampling
    sparse: Sparse
    call: dict[str, Any] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError("must be at least 1")
        return value

    @property
    def location(self) -> str:
        """A folder inside the presets, or what `model.location` says."""
        inside = FOLDER / self.model.location
        return str(inside) if inside.is_dir() else self.model.location


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Preset:
    """Read a shipped preset by its name or an alias."""
    presets = {found: read(FOLDER / f"{found}.toml") for found in names()}
    aliases = {alias: preset for preset in presets.values() for alias in preset.aliases}
    known = {**aliases, **presets}
    if name not in known:
        raise UnknownName("model", name, known)
    return known[name]


def read(path: Path) -> Preset:
    """Read a preset file; every error names the key and what it may hold."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    try:
        return Preset(name=path.stem, **table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path.name}: {key}: {first['msg'].lower()}") from None


def resolve(model: str) -> Preset:
    """The preset of whatever `--model` names: a preset, a hub repository or a pipeline's folder."""
    folder = Path(model).expanduser()
    if not folder.is_dir() and "/" not in model and not model.startswith("."):
        return load(model)
    known = [load(name) for name in names()]
    for preset in known:
        if preset.model.location == model:
            return preset
    if folder.is_dir():
        index = folder / "model_index.json"
    elif len(folder.parts) == 2 and not model.startswith((".", "/", "~")):
        index = _hub_index(model)
    else:
        raise ModelUnavailable(f"there is no folder {model}", hint="rf models lists the presets")
    return _like_its_family(model, index, known)


def _hub_index(repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "model_index.json"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{repository} is neither a folder, nor in the hub's cache, nor reachable",
            hint=f"fetch it with: hf download {repository}; --model shapes needs no download",
        ) from error


def _like_its_family(location: str, index: Path, known: list[Preset]) -> Preset:
    """Settings for a pipeline without a preset: those of the first preset of the same class."""
    if not index.is_file():
        raise ModelUnavailable(
            f"{location} is not a diffusers pipeline: it has no model_index.json",
            hint="pass the folder that save_pretrained() of a pipeline wrote",
        )
    pipeline = json.loads(index.read_text("utf-8")).get("_class_name", "")
    family = [preset for preset in known if preset.model.pipeline == pipeline]
    family.sort(key=lambda preset: preset.name == "shapes")
    if not family:
        classes = sorted({preset.model.pipeline for preset in known})
        raise ModelUnavailable(
            f"{location} holds a {pipeline}, rf knows {', '.join(classes)}",
        )
    model = family[0].model.model_copy(update={"location": location, "revision": None})
    return family[0].model_copy(update={"name": location, "model": model, "aliases": []})
