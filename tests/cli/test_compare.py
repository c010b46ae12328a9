"""What `rf compare` refuses before anything is rendered, and what it makes of two existing videos."""

import json

import pytest
from typer.testing import CliRunner

from rf_cli import media
from rf_cli.app import app
from tests.cli import comparisons

PROMPT = "a red circle"


def rf(tmp_path, *args: str):
    return CliRunner().invoke(app, ["compare", "-o", str(tmp_path / "out"), *args])


REFUSED = {
    "nothing": ([], "there is nothing to compare"),
    "two-sources": ([PROMPT, "--prompts", "a.txt"], "PROMPT and --prompts exclude each other"),
    "no-prompts-file": (["--prompts", "no.txt"], "the prompts in no.txt cannot be read: No such"),
    "variant-key": ([PROMPT, "--variant", "speed=9"], "no setting of --variant is called 'speed'"),
    "variant-order": ([PROMPT, "--variant", "order=magic"], "no token order is called 'magic'"),
    "sparsity": ([PROMPT, "-s", "80"], "sparsity must be in [0, 1), got 80"),
    "method": ([PROMPT, "--method", "magic"], "no method is called 'magic'"),
    "mass": ([PROMPT, "--mass", "2"], "mass must be in (0, 1), got 2"),
    "mass-and-sparsity": ([PROMPT, "--mass", "0.9", "-s", "0.5"], "--mass and --sparsity exclude"),
    "method-option": (
        [PROMPT, "--method", "adaspa", "--method-option", "search=1.5"],
        "method option search must list shares of the run, got '1.5'",
    ),
    "other-option": ([PROMPT, "--method-option", "strid=8"], "no option of method rainfusion2 is"),
    "same-arms": ([PROMPT, "-s", "0.5", "-s", "0.5"], "two arms are the same"),
    "dense-layers": ([PROMPT, "--dense-layers", "6"], "dense_layers names layer 6"),
    "seeds": ([PROMPT, "--seeds", "one"], "--seeds must be whole numbers, got 'one'"),
    "repeat": ([PROMPT, "--repeat", "0"], "--repeat must be at least 1, got 0"),
    "memory": ([PROMPT, "--frames", "8000001"], "memory is too small: 0.0 GiB for the transformer"),
    "size": ([PROMPT, "--size", "100x7"], "--size 100x7 does not fit shapes"),
    "videos": (["--videos", "a.mp4", "b.mp4"], "there is no video a.mp4"),
    "record": (["--videos", "a.json", "b.mp4"], "a.json is not a record that names a video"),
    "both": ([PROMPT, "--overwrite", "--resume"], "--overwrite and --resume exclude each other"),
}


@pytest.mark.parametrize(("args", "problem"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_clear_line(tmp_path, args, problem):
    result = rf(tmp_path, *args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first.startswith(f"error: {problem}")
    assert len(rest) <= 1 and all(line.startswith(" hint: ") for line in rest)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("size", "frames"), [((32, 48), 3), ((32, 32), 4)])
def test_videos_of_different_size_or_length_are_one_clear_line(tmp_path, size, frames):
    for name, (height, width), count in (("a", (32, 32), 3), ("b", size, frames)):
        pixels = (
            comparisons.frames()[:1, :1, :1].repeat(count, 0).repeat(height, 1).repeat(width, 2)
        )
        media.write_video(tmp_path / f"{name}.mp4", pixels, fps=8, settings={})
    a, b = (str(tmp_path / f"{name}.mp4") for name in "ab")
    result = rf(tmp_path, "--videos", a, b)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 2
    assert result.stderr.startswith(
        f"error: the videos differ: {a} is 32x32 with 3 frames, {b} is "
    )


def test_a_file_that_is_no_video_is_one_clear_line(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    result = rf(tmp_path, "--videos", str(tmp_path / "a.mp4"), str(tmp_path / "a.mp4"))
    assert result.exit_code == 2 and "a.mp4 cannot be read as a video" in result.stderr


def test_an_existing_folder_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = rf(tmp_path, PROMPT)
    assert result.exit_code == 2 and "out is not empty\n hint: --resume" in result.stderr


def test_two_videos_give_metrics_pictures_and_page(tmp_path):
    for name, error in (("a", 0.0), ("b", 0.1)):
        media.write_video(tmp_path / f"{name}.mp4", comparisons.frames(error), fps=8, settings={})
    videos = [str(tmp_path / f"{name}.mp4") for name in "ab"]
    result = rf(tmp_path, "--videos", *videos, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "metrics on decoded videos" in " ".join(result.stdout.split())
    names = sorted(path.name for path in (tmp_path / "out").glob("*.*"))
    assert names == [
        "A-a.mp4", "B-b.mp4", "record.json", "report.html", "side-by-side.mp4", "strip.png",
    ]  # fmt: skip
    record = json.loads((tmp_path / "out" / "record.json").read_text("utf-8"))
    # --overwrite says nothing about what is compared
    assert (
        record["command"] == f"rf compare --videos {' '.join(videos)} --output {tmp_path / 'out'}"
    )
