import numpy as np
import pytest
from PIL import Image

from rainfusion_core.errors import ConfigError
from rf_cli import inputs, media, presets
from rf_cli.tasks import Task

WAN = presets.load("wan2.1-14b")  # 1280x720, 832x480 and both upright


@pytest.fixture
def picture(tmp_path):
    """A file with a picture of this size: red at the left, blue at the right."""

    def made(width, height, name="a.png"):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return made


@pytest.fixture
def video(tmp_path):
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    frames[:, :, :, 1] = np.arange(6)[:, None, None] * 40
    media.write_video(tmp_path / "a.mp4", frames, fps=8, settings={})
    return tmp_path / "a.mp4"


def test_without_a_size_the_shape_of_the_input_decides(picture, video):
    def size(width, height):
        task = Task("image-to-video", images=(picture(width, height),))
        return inputs.size_of(WAN, task)

    assert size(400, 225) == (1280, 720) and size(90, 160) == (720, 1280)
    assert size(208, 120) == (832, 480)
    assert inputs.size_of(WAN, Task("text-to-video")) == (1280, 720)
    assert inputs.size_of(WAN, Task("video-to-video", video=video)) == (832, 480)


def test_a_picture_covers_the_size_without_being_stretched(picture):
    task = Task("image-to-video", "WanImageToVideoPipeline", (picture(200, 50),))
    found = inputs.read(task, (64, 64), 5)
    image = found.arguments["image"]
    assert image.size == (64, 64)
    assert image.getpixel((8, 32))[0] > 200 and image.getpixel((56, 32))[2] > 200
    assert found.given["image"].startswith("a.png ") and len(found.given["image"]) == 6 + 16


def test_first_and_last_frame_go_by_the_pipelines_names(picture):
    first, last = picture(64, 64), picture(64, 32, "b.png")
    task = Task("first-last-frame", "WanImageToVideoPipeline", (first,), last)
    found = inputs.read(task, (32, 32), 5)
    assert found.arguments["last_image"].size == (32, 32)
    assert set(found.given) == {"image", "last_image"}
    task = Task("first-last-frame", "WanVACEPipeline", (first,), last)
    masked = inputs.read(task, (32, 32), 5).arguments
    assert [mask.getpixel((0, 0)) for mask in masked["mask"]] == [0, 255, 255, 255, 0]
    assert masked["video"][2].getpixel((0, 0)) == (128, 128, 128) and len(masked["video"]) == 5
    task = Task("first-last-frame", "CogVideoXImageToVideoPipeline", (first,), last)
    with pytest.raises(ConfigError, match="--last-image: CogVideoXImageToVideoPipeline has no"):
        inputs.read(task, (32, 32), 5)


def test_references_of_an_edit_keep_their_sizes(picture):
    files = (picture(70, 30), picture(20, 40, "b.png"))
    found = inputs.read(Task("edit", "QwenImageEditPlusPipeline", files), (64, 64), 1)
    assert [each.size for each in found.arguments["image"]] == [(70, 30), (20, 40)]
    assert found.given["image"].count(", ") == 1


def test_a_video_gives_its_first_frames(video):
    task = Task("video-to-video", "WanVideoToVideoPipeline", video=video, strength=0.5)
    found = inputs.read(task, (32, 32), 5)
    assert [each.size for each in found.arguments["video"]] == [(32, 32)] * 5
    green = [each.getpixel((16, 16))[1] for each in found.arguments["video"]]
    assert green == sorted(green) and found.arguments["strength"] == 0.5
    with pytest.raises(ConfigError, match="has 6 frames, 9 are asked for"):
        inputs.read(task, (32, 32), 9)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("text")
    task = Task("image-to-video", "WanImageToVideoPipeline", (tmp_path / "a.png",))
    with pytest.raises(ConfigError, match=r"--image: .* cannot be read as a picture"):
        inputs.read(task, (64, 64), 5)
