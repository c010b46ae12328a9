"""What the transformer of a render needs, by preset, options and files."""

from dataclasses import replace

import pytest

from rainfusion_core.errors import ConfigError
from rainfusion_core.loading.options import LoadOptions
from rainfusion_core.pipeline import ModelSource
from rf_cli import presets, room
from rf_cli.requests import clip_of, source_of


def source(**changes) -> ModelSource:
    found = source_of(presets.load("wan2.2-t2v"), dtype="bfloat16", device="cpu")
    return replace(found, **changes)


def test_both_transformers_count_and_fewer_bits_need_less():
    preset = presets.load("wan2.2-t2v")
    full = room._weight_bytes(preset, source())
    assert full == 2 * 2 * preset.parameters
    assert room._weight_bytes(preset, source(options=LoadOptions(quantize="int8"))) == full // 2
    assert room._weight_bytes(preset, source(options=LoadOptions(quantize="nf4"))) == full // 4
    assert room._weight_bytes(preset, source(options=LoadOptions(fp8_storage=True))) == full // 2


def test_a_folder_counts_by_its_files(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "model.safetensors").write_bytes(bytes(123))
    assert room._weight_bytes(presets.load("wan2.2-t2v"), source(location=str(tmp_path))) == 123


def test_a_model_that_cannot_fit_is_refused_with_its_name(monkeypatch):
    preset = presets.load("wan2.1-14b")
    clip = clip_of(preset, "a fox", size=None, seed=0)
    monkeypatch.setattr("rainfusion_core.memory.free_bytes", lambda device: 2**30)
    with pytest.raises(ConfigError, match=r"26.6 GiB for the transformer of wan2.1-14b"):
        room.check(preset, source_of(preset, dtype="bfloat16", device="cpu"), clip)
