import json
from pathlib import Path

import pytest

from rainfusion_core.errors import ConfigError, OutputError
from rainfusion_core.render import Clip
from rf_cli import batch, media


def clip(prompt="a red circle", seed=1):
    return Clip(
        prompt=prompt, width=64, height=64, frames=5, steps=2, guidance=3.0, seed=seed
    )  # fmt: skip


CLIPS = [clip(prompt, seed) for prompt in ("A red, red circle!", "blue") for seed in (1, 22)]


def job(path, **settings):
    return batch.Job(clip(), path, {"steps": 4, "prompt": "a", **settings})


def finish(job):
    media.write_json(media.record_path(job.output), {"settings": dict(job.settings)})
    job.output.write_bytes(b"video")


def test_a_folder_gets_names_by_prompt_and_seed():
    names = [path.name for path in batch.outputs(Path("out"), CLIPS, ".mp4", seeds=2)]
    assert names == [
        "001-a-red-red-circle-1.mp4",
        "001-a-red-red-circle-22.mp4",
        "002-blue-1.mp4",
        "002-blue-22.mp4",
    ]


def test_a_template_is_filled_in():
    template = Path("out/{slug}/{index}-{seed:04}.mp4")
    paths = batch.outputs(template, CLIPS, ".mp4", seeds=2)
    assert paths[-1] == Path("out/blue/2-0022.mp4")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("out/{index}.mp4", "--output names out/1.mp4 more than once"),
        ("out/{nmae}.mp4", "cannot be filled in: 'nmae'"),
        ("out/{index:x!}.mp4", "cannot be filled in"),
        ("out/{0}.mp4", "cannot be filled in"),
        ("out/{index}-{seed}.gif", "--output must end in .mp4"),
    ],
)
def test_templates_that_cannot_name_every_render_are_refused(template, problem):
    with pytest.raises(OutputError, match=problem):
        batch.outputs(Path(template), CLIPS, ".mp4", seeds=2)


def test_what_is_finished_is_left_out_and_folders_are_made(tmp_path):
    done, open_, killed = (job(tmp_path / "new" / f"{name}.mp4") for name in "abc")
    done.output.parent.mkdir()
    finish(done)
    media.write_json(media.record_path(killed.output), {"settings": dict(killed.settings)})
    left = done.output.with_name(".b.123.partial.mp4")
    left.write_bytes(b"half")
    foreign = done.output.with_name(".other.123.partial.mp4")
    foreign.write_bytes(b"of another")
    jobs = [done, open_, killed, job(tmp_path / "newer" / "d.mp4")]
    assert batch.left_to_do(jobs, overwrite=False, resume=True) == jobs[1:]
    assert (tmp_path / "newer").is_dir() and not left.exists() and foreign.exists()
    assert batch.left_to_do(jobs, overwrite=True, resume=False) == jobs


def test_nothing_is_replaced_unasked(tmp_path):
    done = job(tmp_path / "a.mp4")
    finish(done)
    with pytest.raises(OutputError, match=r"a\.mp4 exists") as caught:
        batch.left_to_do([done], overwrite=False, resume=False)
    assert caught.value.hint.startswith("--resume keeps what is finished")
    with pytest.raises(OutputError, match="was rendered with steps 4, not 5"):
        batch.left_to_do([job(done.output, steps=5)], overwrite=False, resume=True)
    media.record_path(done.output).unlink()
    with pytest.raises(OutputError, match="exists without a record"):
        batch.left_to_do([done], overwrite=False, resume=True)
    media.record_path(done.output).write_text("no json")
    with pytest.raises(OutputError, match="settings that its record does not tell"):
        batch.left_to_do([done], overwrite=False, resume=True)
    with pytest.raises(ConfigError, match="--overwrite and --resume exclude each other"):
        batch.left_to_do([done], overwrite=True, resume=True)
    assert done.output.read_bytes() == b"video"


def test_a_refusal_makes_no_folder(tmp_path):
    done = job(tmp_path / "a.mp4")
    finish(done)
    jobs = [job(tmp_path / "new" / "b.mp4"), done]
    with pytest.raises(OutputError):
        batch.left_to_do(jobs, overwrite=False, resume=False)
    assert not (tmp_path / "new").exists()


def test_the_record_is_there_when_the_video_gets_its_name(tmp_path, monkeypatch):
    import numpy as np

    replaced = []
    real = media.os.replace

    def spy(source, target):
        real(source, target)
        replaced.append(Path(target).name)

    monkeypatch.setattr(media.os, "replace", spy)
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    record = {"settings": {"prompt": "ä"}}
    media.write_render(tmp_path / "a.mp4", frames, record, fps=8)
    media.write_render(tmp_path / "b.png", frames[:1], record, fps=1)
    assert replaced == ["a.json", "a.mp4", "b.json", "b.png"]
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == record
    from PIL import Image

    with Image.open(tmp_path / "b.png") as image:
        assert json.loads(image.text["comment"]) == record["settings"]
