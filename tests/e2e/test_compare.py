"""`rf compare` as a user runs it: a process of its own, files on disk, the embedded model."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from rf_cli import media

PROMPT = "a large red circle moving right over a blue background"
# a kernel by name: with "auto" so few tokens would run dense, since that is faster
SMALL = ["--size", "64x64", "--frames", "17", "--steps", "4", "--seeds", "1"]
SMALL += ["--kernel", "torch-blocks"]
ARMS = ["-s", "0.5", "-s", "0.9", "--noise-floor"]


def rf(*args):
    return subprocess.run(
        [sys.executable, "-m", "rf_cli", "compare", *map(str, args)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "out"
    result = rf(PROMPT, *SMALL, *ARMS, "-o", folder, "--json")
    assert result.returncode == 0, result.stderr
    return folder, json.loads(result.stdout)


def test_every_file_that_the_record_names_is_there(compared):
    folder, record = compared
    assert json.loads((folder / "record.json").read_text("utf-8")) == record
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == set(record["files"]) == {
        "dense.mp4", "sparsity-0.5.mp4", "sparsity-0.9.mp4", "noise-floor.mp4",
        "side-by-side.mp4", "strip.png", "record.json", "report.html",
    }  # fmt: skip


def test_dense_equals_itself_and_more_sparsity_is_further_away(compared):
    dense, half, most, floor = (arm["metrics"]["psnr"]["mean"] for arm in compared[1]["arms"])
    assert dense == "Infinity"
    assert most < half < float(floor)


def test_metrics_are_those_of_torchmetrics_on_the_saved_frames(compared):
    folder, record = compared
    clips = [arm["clips"][0] for arm in record["arms"]]
    dense, half = (np.load(folder / clip["frames"])["frames"] for clip in clips[:2])
    a, b = (torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in (dense, half))
    found = clips[1]["metrics"]
    psnr = peak_signal_noise_ratio(b, a, data_range=1.0)
    assert found["psnr"] == pytest.approx(float(psnr), abs=1e-3)
    similarity = structural_similarity_index_measure(b, a, data_range=1.0)
    assert found["ssim"] == pytest.approx(float(similarity), abs=1e-4)


def test_arms_differ_only_in_what_was_asked_for(compared):
    dense, half, most, floor = (arm["config"] for arm in compared[1]["arms"])
    assert {**half, "sparsity": 0.9} == most and {**most, "sparsity": 0.0} == dense
    assert floor["dense_kernel"] not in ("auto", compared[1]["arms"][0]["dense_kernel"])
    kernels = {arm["dense_kernel"] for arm in compared[1]["arms"][:3]}
    assert len(kernels) == 1


def test_side_by_side_is_as_long_as_the_clip(compared):
    frames, fps = media.read_video(compared[0] / "side-by-side.mp4")
    assert len(frames) == 17 and fps == 16


def test_the_page_shows_the_command_and_holds_all_videos(compared):
    folder, record = compared
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:video/mp4;base64,") == 5
    assert record["command"] in page.replace("&#x27;", "'")
    assert "--sparsity 0.5 --sparsity 0.9 --seeds 1 --noise-floor" in record["command"]


def test_resuming_reuses_what_is_finished_and_says_so(compared):
    folder, record = compared
    (folder / "runs" / "sparsity-0.9-1.json").unlink()  # as if it had been interrupted there
    before = (folder / "runs" / "dense-1.json").stat().st_mtime_ns
    result = rf(PROMPT, *SMALL, *ARMS, "-o", folder, "--resume")
    assert result.returncode == 0, result.stderr
    assert (
        "reused 3 finished renders, rendered 1: dense, run 1; sparsity 0.5, run 1" in result.stdout
    )
    assert (folder / "runs" / "dense-1.json").stat().st_mtime_ns == before
    again = json.loads((folder / "record.json").read_text("utf-8"))
    for old, new in zip(record["arms"], again["arms"], strict=True):
        psnr = [float(arm["metrics"]["psnr"]["mean"]) for arm in (old, new)]
        assert psnr[0] == pytest.approx(psnr[1])
