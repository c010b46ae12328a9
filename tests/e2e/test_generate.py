"""`rf generate` as a user runs it: a process of its own, files on disk, the embedded model."""

import json
import os
import signal
import subprocess
import sys
import time

import imageio_ffmpeg
import numpy as np
import pytest

from tests import pipelines

PROMPT = "a large red circle moving right over a blue background"
# a kernel by name: with "auto" so few tokens would run dense, since that is faster
SHORT = ["--seed", "1", "--frames", "17", "--size", "96x64", "--steps", "6"]
SHORT += ["--kernel", "torch-blocks"]


def rf(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "rf_cli", *map(str, args)], capture_output=True, text=True, **kwargs
    )


def read(path):
    """(facts, (frames, height, width, 3) uint8)."""
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    width, height = facts["size"]
    return facts, np.stack([np.frombuffer(x, np.uint8).reshape(height, width, 3) for x in reader])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    result = rf("generate", PROMPT, *SHORT, "-s", "0.8", "-o", folder / "out.mp4", "--json")
    assert result.returncode == 0, result.stderr
    return folder, json.loads(result.stdout)


def test_the_video_has_the_size_frames_and_rate_asked_for(rendered):
    folder, _ = rendered
    facts, frames = read(folder / "out.mp4")
    assert frames.shape == (17, 64, 96, 3) and facts["fps"] == 16


def test_the_record_beside_it_is_the_one_on_stdout(rendered):
    folder, record = rendered
    assert json.loads((folder / "out.json").read_text("utf-8")) == record
    assert sorted(path.name for path in folder.iterdir()) == ["out.json", "out.mp4"]


def test_achieved_sparsity_follows_from_the_rows_of_the_layers(rendered):
    facts = rendered[1]["sparsity"]
    for rows in (facts["per_layer"], facts["per_step"]):
        kept, pairs = (sum(row[key] for row in rows) for key in ("kept_pairs", "pairs"))
        assert 1 - kept / pairs == pytest.approx(facts["achieved"])
    assert 0 < facts["achieved"] < facts["requested"] == 0.8
    # 40 % of 6 steps, rounded up, and two of six layers in the others; 2 branches
    assert facts["dense_calls_by_reason"] == {"dense step": 3 * 2 * 6, "dense layer": 3 * 2 * 2}


def test_the_record_holds_settings_versions_and_times(rendered):
    record = rendered[1]
    assert record["settings"]["prompt"] == PROMPT and record["settings"]["seed"] == 1
    assert record["environment"]["torch"] and record["environment"]["device"] == "cpu"
    times = record["timing_s"]
    assert len(times["steps"]) == 6 and 0 < times["attention"] < times["denoising"] < times["total"]
    assert record["attention_speed"]["tokens"] == 5 * 8 * 12
    assert record["kernel"] in ("c-blocks", "torch-blocks") and record["peak_memory_bytes"] > 2**20


def test_the_same_command_gives_the_same_video_and_quiet_prints_nothing(rendered, tmp_path):
    again = rf("generate", PROMPT, *SHORT, "-s", "0.8", "-o", tmp_path / "out.mp4", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert np.array_equal(read(rendered[0] / "out.mp4")[1], read(tmp_path / "out.mp4")[1])


def test_tables_are_printed(tmp_path):
    shown = rf("generate", PROMPT, *SHORT, "-o", tmp_path / "a.mp4", "-v")
    for title in ("Timing", "Sparsity", "Speed-up of attention", "Layers", "wrote"):
        assert title in shown.stdout


def test_a_pipeline_given_as_a_folder_renders(tmp_path):
    pipelines.wan().save_pretrained(tmp_path / "wan")
    result = rf(
        "generate",
        "a red circle",
        "-m",
        tmp_path / "wan",
        "--size",
        "96x64",
        "--frames",
        "17",
        "--steps",
        "3",
        "-o",
        tmp_path / "wan.mp4",
        "--json",
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["settings"]["negative"].startswith("Bright tones")
    assert record["sparsity"]["calls"] == 3 * 2 * 3
    assert read(tmp_path / "wan.mp4")[1].shape == (17, 64, 96, 3)


def test_missing_weights_are_one_line_that_says_how_to_get_them(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = rf("generate", "a cat", "-m", "wan2.1", "-o", tmp_path / "a.mp4", env=environment)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: the weights of Wan-AI/Wan2.1-T2V-1.3B-Diffusers are not in the cache and "
        "HF_HUB_OFFLINE is set",
        " hint: fetch them with: rf models pull wan2.1-1.3b; --model shapes needs no download",
    ]


def test_ctrl_c_exits_with_130_and_leaves_no_file(tmp_path):
    command = [sys.executable, "-m", "rf_cli", "generate", PROMPT, "--steps", "400"]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path / "out.mp4")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        time.sleep(12)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert error.splitlines()[-1] == "interrupted: nothing unfinished was written"
    assert list(tmp_path.iterdir()) == []


def heed_ctrl_c():
    """As in a terminal: a command that a script runs in the background is born deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
