"""Finished measurements as lines of JSON: written one by one, so that a killed run loses none of them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rainfusion_core.errors import OutputError


class Cells:
    """What a file of cells holds. A key is any JSON value; the last line of a key counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        try:
            _drop_torn_line(path)
            for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
                cell = json.loads(line)
                self._found[_text(cell["key"])] = cell["value"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{path} does not hold finished cells: {error}",
                hint="--overwrite starts again",
            ) from error

    def get(self, key: Any) -> dict[str, Any] | None:
        return self._found.get(_text(key))

    def put(self, key: Any, value: Mapping[str, Any]) -> None:
        """Keep a value, in the file as well."""
        self._found[_text(key)] = dict(value)
        line = json.dumps({"key": key, "value": value}, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def __len__(self) -> int:
        return len(self._found)


def _text(key: Any) -> str:
    return json.dumps(key, sort_keys=True, ensure_ascii=False)


def _drop_torn_line(path: Path) -> None:
    """Cut off what a killed run left of its last line."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
