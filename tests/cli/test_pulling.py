"""`rf models pull` against a hub on this machine."""

import json
import os
import subprocess
import sys

import pytest

from tests.cli.hub import COMMIT, serving

FILES = {
    "model_index.json": json.dumps(
        {"_class_name": "WanPipeline", "vae": ["diffusers", "A"], "transformer": ["diffusers", "B"],
         "transformer_2": [None, None]}
    ),
    "vae/config.json": "{}",
    "vae/diffusion_pytorch_model.safetensors": "v" * 3000,
    "vae/diffusion_pytorch_model.bin": "pickle",
    "transformer/config.json": "{}",
    "transformer/diffusion_pytorch_model.safetensors": "t" * 5000,
    "transformer/diffusion_pytorch_model.fp16.safetensors": "h" * 2500,
    "examples/picture.png": "picture",
    "whole.safetensors": "w" * 9000,
}  # fmt: skip
WANTED = {
    "model_index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def root(tmp_path, config_home):
    for name, text in FILES.items():
        path = tmp_path / "hub" / "somebody" / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lora = tmp_path / "hub" / "somebody" / "fast" / "lora.safetensors"
    lora.parent.mkdir(parents=True)
    lora.write_text("l" * 700)
    own = config_home / "rf" / "presets"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text('base = "wan2.1-1.3b"\n[model]\nlocation = "somebody/model"\n')
    (own / "half.toml").write_text('base = "mine"\n[model]\nvariant = "fp16"\n')
    (own / "fast.toml").write_text(
        'base = "mine"\n[[loras]]\nlocation = "somebody/fast"\nfile = "lora.safetensors"\n'
    )
    (own / "lost.toml").write_text('base = "mine"\n[model]\nlocation = "somebody/lost"\n')
    return tmp_path / "hub"


def command(address, home, *words, offline="0"):
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_OFFLINE": offline, "COLUMNS": "200"}
    return {
        "args": [sys.executable, "-m", "rf_cli", "models", *words],
        "env": {**os.environ, **settings},
    }


def rf(*words, **settings):
    return subprocess.run(**command(*words, **settings), capture_output=True, text=True)


def snapshot(home, repository="models--somebody--model"):
    folder = home / "hub" / repository / "snapshots" / COMMIT
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_pipeline_is_pulled_without_what_it_does_not_need(root, tmp_path):
    home = tmp_path / "home"
    with serving(root) as (address, _):
        result = rf(address, home, "pull", "mine")
        assert result.returncode == 0, result.stderr
        assert f"somebody/model at {COMMIT}: 5 files" in result.stderr
        assert snapshot(home) == WANTED
        again = rf(address, home, "pull", "mine")
        assert again.returncode == 0 and "0.00 MiB of them to fetch" in again.stderr
    assert "weights here        yes" in rf(address, home, "show", "mine").stdout


def test_a_variant_is_pulled_where_there_is_one(root, tmp_path):
    with serving(root) as (address, _):
        assert rf(address, tmp_path / "home", "pull", "half").returncode == 0
    assert snapshot(tmp_path / "home") == {
        name.replace("model.safe", "model.fp16.safe") if name.startswith("transformer") else name
        for name in WANTED
    }


def test_the_loras_of_a_preset_are_pulled_with_it(root, tmp_path):
    with serving(root) as (address, _):
        result = rf(address, tmp_path / "home", "pull", "fast")
    assert result.returncode == 0, result.stderr
    assert snapshot(tmp_path / "home", "models--somebody--fast") == {"lora.safetensors"}


def test_a_killed_pull_goes_on_and_is_not_here_before(root, tmp_path):
    home, name = tmp_path / "home", "transformer/diffusion_pytorch_model.safetensors"
    with serving(root) as (address, handler):
        handler.stop_after[name] = 2000
        with subprocess.Popen(**command(address, home, "pull", "mine"), stderr=-1) as process:
            assert handler.stalled.wait(60)
            process.kill()
        handler.released.set()
        assert name not in snapshot(home)
        assert "no: rf models pull mine" in rf(address, home, "show", "mine").stdout
        handler.stop_after.clear()
        assert rf(address, home, "pull", "mine").returncode == 0
    assert snapshot(home) == WANTED


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["pull", "lost"], "the hub has no repository somebody/lost"),
        (["pull", "mine", "--revision", "nothing"], "somebody/model has no revision nothing"),
        (["pull", "shapes"], "shapes is a folder"),
        (["pull"], "rf models pull needs the NAME of a model"),
        (["show", "mine", "--revision", "x"], "--revision goes with rf models pull alone"),
    ],
)
def test_what_cannot_be_pulled_is_refused_in_one_line(root, tmp_path, words, problem):
    with serving(root) as (address, _):
        result = rf(address, tmp_path / "home", *words)
    assert result.returncode == 2 and problem in result.stderr
    assert "Traceback" not in result.stderr


def test_a_gated_repository_says_how_to_get_in(root, tmp_path):
    with serving(root, gated=("somebody/model",)) as (address, _):
        result = rf(address, tmp_path / "home", "pull", "mine")
    assert result.returncode == 2 and "hf auth login" in result.stderr


def test_without_the_network_nothing_is_pulled(root, tmp_path):
    result = rf("http://127.0.0.1:9", tmp_path / "home", "pull", "mine", offline="1")
    assert result.returncode == 2 and "HF_HUB_OFFLINE is set" in result.stderr


def test_a_hub_out_of_reach_is_one_line():
    from huggingface_hub.errors import LocalEntryNotFoundError

    from rainfusion_core.errors import ModelUnavailable
    from rf_cli import pulling

    with (
        pytest.raises(ModelUnavailable, match="the hub is out of reach, a/b cannot be pulled"),
        pulling._clear("a/b", None),
    ):
        raise LocalEntryNotFoundError("many lines")


def test_a_full_disk_is_seen_before_anything_is_fetched(root, tmp_path, monkeypatch):
    from rainfusion_core.errors import OutputError
    from rf_cli import presets, pulling

    preset = presets.load("mine")
    with pytest.raises(OutputError, match=r"pulling mine needs 1048576\.00 GiB, .* free") as caught:
        pulling.check_space(preset, 2**50)
    assert "HF_HOME=" in caught.value.hint
    pulling.check_space(preset, 1)
