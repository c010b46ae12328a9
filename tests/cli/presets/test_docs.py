"""docs/presets.md explains every key, and no other."""

import re
from pathlib import Path

from rf_cli.presets import TASKS, Preset

TEXT = (Path(__file__).parents[3] / "docs" / "presets.md").read_text()
NAMES = set(re.findall(r"`\[*([a-z_0-9-]+)\]*`", TEXT))


def test_every_key_and_task_is_in_the_docs():
    schema = Preset.model_json_schema()
    tables = [schema, *schema["$defs"].values()]
    keys = {key for table in tables for key in table.get("properties", ())} - {"name"}
    assert keys | set(TASKS) | {"base"} <= NAMES


def test_the_example_is_a_preset(tmp_path, monkeypatch):
    from rf_cli import presets

    path = tmp_path / "mine.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])
    assert presets.read(path).sampling.steps == 30
