"""Presets: what a model is, and the settings it is used with. One TOML a model, shipped or a user's own."""

from rf_cli.presets.files import all_presets, load, names, read, scan, user_folder
from rf_cli.presets.resolve import hub_file, resolve
from rf_cli.presets.schema import FOLDER, TASKS, Lora, Preset
from rf_cli.presets.video import Video

__all__ = [
    "FOLDER",
    "TASKS",
    "Lora",
    "Preset",
    "Video",
    "all_presets",
    "hub_file",
    "load",
    "names",
    "read",
    "resolve",
    "scan",
    "user_folder",
]
