"""Finds preset files, shipped and a user's own, and reads them."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rainfusion_core.errors import ConfigError, ModelUnavailable, UnknownName
from rf_cli.presets.schema import FOLDER, Preset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def user_folder() -> Path:
    """Where a user's own presets are, `~/.config/rf/presets` on Linux."""
    import platformdirs

    return platformdirs.user_config_path("rf") / "presets"


def paths() -> dict[str, Path]:
    """Name -> file; a user's own preset goes before a shipped one of the same name."""
    folders = (FOLDER, user_folder())
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def names() -> list[str]:
    return sorted(paths())


def load(name: str) -> Preset:
    """Read a preset by its name or an alias."""
    found = paths()
    if name in found:
        return read(found[name])
    aliases = {
        alias: path for path in found.values() for alias in _readable(path).get("aliases", [])
    }
    if re.match(r"open-?sora", name.lower()):
        raise ModelUnavailable(
            f"{name}: Open-Sora Plan, of the first RainFusion paper, is not in diffusers",
            hint="use hunyuanvideo or cogvideox-5b, the other two models of that paper",
        )
    if name not in aliases:
        raise UnknownName("model", name, [*found, *aliases], listed="rf models lists all")
    return read(aliases[name])


def all_presets() -> list[Preset]:
    """Every preset that can be read, by name; one broken file of a user's does not hide the others."""
    return [each for each in scan() if isinstance(each, Preset)]


def scan() -> list[Preset | ConfigError]:
    """Every preset by name, or what is wrong with it."""
    found: list[Preset | ConfigError] = []
    for _, path in sorted(paths().items()):
        try:
            found.append(read(path))
        except ConfigError as error:
            if path.parent == FOLDER:
                raise
            found.append(error)
    return found


def read(path: Path) -> Preset:
    """Read a preset file; every error names the file, the key and what it may hold."""
    table = _with_base(path, _table(path), ())
    try:
        return Preset(**{**table, "name": path.stem})
    except ValidationError as error:
        from rf_cli.presets.explain import problem

        text, hint = problem(error)
        raise ConfigError(f"{path.name}: {text}", hint=hint) from None


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, ValueError) else error.strerror
        raise ConfigError(f"{path} cannot be read: {reason}") from None


def _readable(path: Path) -> Mapping[str, Any]:
    """The table, or nothing of a file that is broken: it is named only when it is asked for."""
    try:
        return _table(path)
    except ConfigError:
        return {}


def _with_base(path: Path, table: dict[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
    """The table laid over the one of the preset that its `base` names, key by key."""
    base = table.pop("base", None)
    if base is None:
        return table
    known = paths()
    if base not in known or base in inside or known[base] == path:
        others = ", ".join(sorted(set(known) - {path.stem, *inside}))
        raise ConfigError(f"{path.name}: base must be one of {others}, got {base!r}")
    below = _with_base(known[base], _table(known[base]), (*inside, path.stem))
    return _sourced(_laid_over(below, table), table, path.name)


def _sourced(result: dict[str, Any], above: Mapping[str, Any], here: str) -> dict[str, Any]:
    """The source of what a preset changes is never that of its base."""
    told = above.get("sources", {})
    sources = dict(result.get("sources", {}))
    for key, value in above.items():
        inner = value if isinstance(value, dict) and key not in ("tasks", "sources") else {}
        for name in [f"{key}.{each}" for each in inner] or [key]:
            sources[name] = told.get(name) or told.get(key) or here
    return {**result, "sources": sources}


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in below.items() if key != "aliases"}
    for key, value in above.items():
        old = result.get(key)
        if key != "tasks" and isinstance(old, dict) and isinstance(value, dict):
            kept = {k: v for k, v in old.items() if k != "revision" or "location" not in value}
            result[key] = {**kept, **value}
        else:
            result[key] = value
    return result
