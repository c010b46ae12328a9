"""Writes texts and images: refused before anything heavy runs, and renamed into place at the end."""

import os
from collections.abc import Sequence
from pathlib import Path

from rainfusion_core.errors import OutputError


def check_target(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file that could not be written afterwards, or whose name says another format."""
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{option} must end in {' or '.join(suffixes)}, got {path}")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}", hint=f"make it with: mkdir -p {folder}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder")
    probe = folder / f".{path.stem}.{os.getpid()}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from error


def write(path: Path, content: bytes) -> None:
    """Write beside the final name, then rename; an existing file is replaced."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
