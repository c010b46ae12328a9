import json
from dataclasses import asdict, replace

import imageio_ffmpeg
import numpy as np
import pytest

from rainfusion_core.compare import Run
from rainfusion_core.errors import OutputError
from rainfusion_core.render import Sound
from rainfusion_core.report import CallRow, RenderReport, SparsityReport, StageTimes
from rainfusion_core.sink import FirstFrame
from rf_cli import compare_folder
from rf_cli.compare_folder import CompareFolder, fingerprint, prepare
from tests.cli import comparisons

RUN = Run(comparisons.ARMS[1], comparisons.CLIP, 0, 0)


@pytest.fixture
def folder(tmp_path):
    prepare(tmp_path, overwrite=False, resume=False)
    return opened(tmp_path)


def opened(path, **facts):
    names = [arm.name for arm in comparisons.ARMS]
    return CompareFolder(path, facts={"model": "shapes", **facts}, names=names, clips=1, fps=8)


def test_a_stored_run_comes_back_exactly(folder, tmp_path):
    saved = comparisons.rendered()
    folder.save(RUN, saved)
    loaded = opened(tmp_path).load(RUN)
    assert np.array_equal(loaded.frames, saved.frames) and loaded.frames.dtype == np.float32
    assert np.array_equal(loaded.latents, saved.latents)
    assert loaded.report == saved.report


def test_the_sound_of_a_run_comes_back_exactly_and_is_in_its_video(folder, tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, (3000, 2)).astype(np.float32)
    folder.save(RUN, replace(comparisons.rendered(), sound=Sound(samples, 8000)))
    folder.video(RUN).unlink()
    sound = opened(tmp_path).load(RUN).sound
    assert np.array_equal(sound.samples, samples) and sound.rate == 8000
    facts = next(imageio_ffmpeg.read_frames(str(folder.video(RUN))))
    assert facts["audio_codec"] == "aac"


def test_a_run_is_reused_only_with_the_same_settings_and_versions(folder, tmp_path):
    folder.save(RUN, comparisons.rendered())
    assert opened(tmp_path, torch="other").load(RUN) is None
    assert folder.load(replace(RUN, clip=replace(RUN.clip, seed=9))) is None
    assert folder.load(replace(RUN, repeat=1)) is None
    changed = replace(RUN.arm, config=replace(RUN.arm.config, order="raster"))
    assert folder.load(replace(RUN, arm=changed)) is None
    assert folder.outdated == ["sparsity 0.5, run 1"] * 2
    assert folder.load(RUN) is not None and folder.reused == ["sparsity 0.5, run 1"]


def test_a_finished_run_has_its_video_even_if_that_was_lost(folder):
    folder.save(RUN, comparisons.rendered())
    folder.video(RUN).unlink()
    folder.load(RUN)
    assert folder.video(RUN).name == "sparsity-0.5.mp4" and folder.video(RUN).is_file()


def test_a_run_without_its_report_does_not_count_as_finished(folder, tmp_path):
    folder.save(RUN, comparisons.rendered())
    (tmp_path / "runs" / "sparsity-0.5-1.json").unlink()
    assert folder.load(RUN) is None


def test_a_folder_with_something_in_it_is_kept_unless_told_otherwise(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        prepare(tmp_path, overwrite=False, resume=False)
    with pytest.raises(OutputError, match="exclude each other"):
        prepare(tmp_path, overwrite=True, resume=True)
    with pytest.raises(OutputError, match="is a file"):
        prepare(tmp_path / "mine.txt", overwrite=True, resume=False)


def test_overwriting_removes_the_earlier_comparison_and_nothing_else(tmp_path):
    opened(tmp_path)
    for name in ("runs/a-1.json", "old.mp4", "mine.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "record.json").write_text('{"files": ["old.mp4", "record.json", "../x"]}')
    prepare(tmp_path, overwrite=True, resume=False)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["mine.txt", "runs"]


def test_other_weights_have_another_fingerprint(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"1")
    before = fingerprint(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"22")
    assert fingerprint(tmp_path) != before and fingerprint(None) is None


@pytest.mark.parametrize("frame", [None, FirstFrame(True, 2, 9), FirstFrame(False, 4, 12)], ids=str)
def test_a_report_that_was_written_reads_as_it_was(frame):
    row = CallRow(0, "cond", "transformer", 0, None, 2, 4, 0.1)
    sparsity = SparsityReport(0.8, (row,), "sparse", "dense", first_frame=frame)
    report = RenderReport(StageTimes(1.0, (1.0,), 1.0, 1.0, 2.0), sparsity, 1, None)
    assert compare_folder.read_report(json.loads(json.dumps(asdict(report)))) == report
