"""The arms and clips of a comparison, read from its options."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName
from rf_cli import options

if TYPE_CHECKING:
    from rainfusion_core.compare import Arm

OPTION = "options."  # before the name of an option of the method


def read_variant(text: str) -> dict[str, Any]:
    """Settings of `SparseConfig` from text such as sparsity=0.8,dense_steps=0.1,dense_layers=0,-1."""
    pairs: list[list[str]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if "=" in part:
            key, _, value = part.partition("=")
            pairs.append([key.strip(), value.strip()])
        elif pairs:
            pairs[-1][1] += f",{part}"  # a list goes on: dense_layers=0,1
        else:
            break
    if not pairs:
        raise ConfigError(
            f"--variant must be settings as name=value, got {text!r}",
            hint='as in --variant "sparsity=0.8,dense_steps=0.1,order=raster"',
        )
    settings: dict[str, Any] = {}
    for key, value in pairs:
        if key.startswith(OPTION):
            option = {key.removeprefix(OPTION): options.read_value(value)}
            settings["options"] = {**settings.get("options", {}), **option}
        else:
            settings |= _setting(key, value)
    return settings


def _setting(key: str, text: str) -> dict[str, Any]:
    types = {field.name: _kind(field.type) for field in fields(SparseConfig)}
    if key not in types or key == "options":
        raise UnknownName("setting of --variant", key, types)
    if key == "dense_steps":
        first, last = options.read_dense_steps(text)
        return {key: first, **({"dense_last_steps": last} if "," in text else {})}
    if key == "dense_layers":
        return {key: options.read_dense_layers(text)}
    if key == "sink":
        return {key: options.read_sink(text, "sink of --variant")}
    if types[key] is bool:
        if text.lower() not in options.TRUTH:
            raise ConfigError(f"{key} of --variant must be true or false, got {text!r}")
        return {key: options.TRUTH[text.lower()]}
    if types[key] in (int, float):
        try:
            return {key: types[key](text)}
        except ValueError:
            raise ConfigError(f"{key} of --variant must be a number, got {text!r}") from None
    return {key: text}


def _kind(annotation: Any) -> Any:
    """The type beside None in an annotation such as `float | None`."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kinds[0] if NoneType in get_args(annotation) else annotation


def arms_of(
    base: SparseConfig,
    *,
    sparsities: Sequence[float],
    methods: Sequence[str],
    variants: Sequence[str],
) -> list["Arm"]:
    """The dense arm, every method at every sparsity, then every variant on top of `base`."""
    from rainfusion_core.compare import DENSE, Arm, check_arms

    if base.mass is not None and sparsities:
        raise ConfigError(
            "--mass and --sparsity exclude each other: with a mass target the sparsity is found",
            hint="as arms of one comparison: --sparsity 0.8 --variant mass=0.9",
        )
    arms = [Arm(DENSE, replace(base, sparsity=0.0, mass=None, options={}))]
    level: dict[str, Any] = (
        {"sparsity": base.sparsity} if base.mass is None else {"mass": base.mass}
    )
    if sparsities or methods or not variants:
        named: list[dict[str, Any]] = [{"method": method} for method in methods] or [{}]
        levels: list[dict[str, Any]] = [{"sparsity": sparsity} for sparsity in sparsities] or [
            level
        ]
        for of_method, asked in itertools.product(named, levels):
            settings = {**asked, **of_method}
            arms.append(Arm(_name(settings), replace(base, **settings)))
    for text in variants:
        settings = {**level, **_on_top(base, read_variant(text))}
        name = _name({key: value for key, value in settings.items() if value not in (None, {})})
        arms.append(Arm(name, replace(base, **settings)))
    _check_dense(arms)
    check_arms(arms)
    return arms


def _on_top(base: SparseConfig, variant: dict[str, Any]) -> dict[str, Any]:
    """The settings of a variant; what they replace in `base` goes, options of the method stay with it."""
    if base.mass is not None and "sparsity" in variant:
        variant = {"mass": None, **variant}
    same = variant.get("method", base.method) == base.method
    if same and "options" in variant:
        return {**variant, "options": {**base.options, **variant["options"]}}
    return variant if same else {"options": {}, **variant}


def _check_dense(arms: Sequence["Arm"]) -> None:
    for arm in arms[1:]:
        if arm.config.sparsity == 0:
            raise ConfigError(
                f"{arm.name} is dense, as the arm that all others are compared with",
                hint="--noise-floor compares two dense runs",
            )


def _name(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in settings.items())


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return "+".join(f"{name}={_text(each)}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_seeds(text: str) -> list[int]:
    """Seeds from a list such as 1,2,3, without repetitions."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d+", part) for part in parts):
        raise ConfigError(
            f"--seeds must be whole numbers, got {text!r}", hint="as in --seeds 1,2,3"
        )
    return list(dict.fromkeys(map(int, parts)))


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines and lines that begin with # are left out."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, ValueError) else error.strerror
        raise ConfigError(f"the prompts in {path} cannot be read: {reason}") from error
    prompts = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not prompts:
        raise ConfigError(f"{path} holds no prompt", hint="write one a line; # begins a comment")
    return prompts


def slug(text: str) -> str:
    """A file name for an arm."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")


def unique(names: Iterable[str]) -> list[str]:
    """Slugs of the names, numbered where two would be the same."""
    seen: dict[str, int] = {}
    result = []
    for name in map(slug, names):
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result
