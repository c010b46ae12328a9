import pytest

from rainfusion_core.errors import ConfigError
from rf_cli import presets, tasks

SHAPES = presets.load("shapes")
I2V, FLF, VACE = (presets.load(f"wan2.1-{name}") for name in ("i2v-480p", "flf2v", "vace-1.3b"))
FLUX2, EDIT, COSMOS = (presets.load(name) for name in ("flux2", "qwen-image-edit", "cosmos2"))
MOCHI = presets.load("mochi")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    return path


def chosen(preset, images=(), last_image=None, video=None, strength=None):
    return tasks.choose(preset, images, last_image, video, strength)


def test_the_task_follows_from_what_is_given(file):
    assert chosen(SHAPES).name == "text-to-video" and chosen(FLUX2).name == "text-to-image"
    for preset in (I2V, VACE, SHAPES):
        assert chosen(preset, [file]).name == "image-to-video"
    assert chosen(FLF, [file], file).name == "first-last-frame"
    assert chosen(SHAPES, video=file).name == "video-to-video"
    assert chosen(EDIT, [file, file]).name == "edit" == chosen(FLUX2, [file]).name


def test_the_pipeline_and_the_format_follow_from_the_task(file):
    assert chosen(SHAPES, video=file).pipeline == "WanVideoToVideoPipeline"
    assert (chosen(SHAPES).suffix, chosen(FLUX2).suffix, chosen(EDIT, [file]).suffix) == (
        ".mp4", ".png", ".png",
    )  # fmt: skip


REFUSED = {
    "not-done": (lambda f: chosen(MOCHI, [f]), "mochi does not do image-to-video; it does"),
    "needs-image": (lambda f: chosen(I2V), "wan2.1-i2v-480p does image-to-video: it needs --image"),
    "needs-both": (lambda f: chosen(FLF), "it needs --image and --last-image"),
    "both": (lambda f: chosen(I2V, [f], None, f), "--video and --image exclude each other"),
    "last-alone": (lambda f: chosen(FLF, (), f), "--last-image needs the first one too"),
    "many": (lambda f: chosen(I2V, [f, f]), "--image may be given once for image-to-video, got 2"),
    "missing": (lambda f: chosen(I2V, [f / "b"]), "--image: there is no file"),
    "missing-last": (lambda f: chosen(FLF, [f], f / "b"), "--last-image: there is no file"),
    "strength-alone": (lambda f: chosen(SHAPES, strength=0.5), "--strength goes with --video"),
    "strength": (
        lambda f: chosen(SHAPES, video=f, strength=1.5), r"--strength must be in \(0, 1\], got 1.5",
    ),
    "no-strength": (
        lambda f: chosen(COSMOS, video=f, strength=0.5),
        "--strength: Cosmos2VideoToWorldPipeline has no such argument",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(file, call, problem):
    with pytest.raises(ConfigError, match=problem):
        call(file)
