"""Reads the pictures and videos that a task starts from, and makes of them what its pipeline takes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import log
from pathlib import Path
from typing import Any

from rainfusion_core.errors import ConfigError
from rf_cli.presets import Preset
from rf_cli.tasks import Task, arguments_of

MADE, GIVEN = 255, 0  # of a mask: what is to be made, and what is there
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Inputs:
    """Arguments of the pipeline, and what they are in words."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)


def size_of(preset: Preset, task: Task) -> tuple[int, int]:
    """(width, height) to render where none is asked for: the preset's size shaped most like the input."""
    video = preset.video
    own = video.width, video.height
    if not task.files or task.name == "edit":
        return own
    width, height = _shape(task)
    sizes = [own, *(_numbers(size) for size in video.sizes)]

    def misfit(size: tuple[int, int]) -> tuple[float, int]:
        ratio = abs(log(size[0] / size[1]) - log(width / height))
        return round(ratio, 3), abs(size[0] * size[1] - own[0] * own[1])

    return min(sizes, key=misfit)


def _numbers(size: str) -> tuple[int, int]:
    width, height = map(int, size.split("x"))
    return width, height


def _shape(task: Task) -> tuple[int, int]:
    if task.video is not None:
        return _frames(task.video)[0].size
    return _open("--image", task.images[0]).size


@lru_cache(maxsize=1)  # the clips of a batch start from the same files
def read(task: Task, size: tuple[int, int], frames: int) -> Inputs:
    """Read the files of a task. Pictures are scaled to cover the size, and cropped to it.

    Args:
        size: (width, height) in pixels of the render.
        frames: of the render.
    """
    given: dict[str, str] = {}
    for option, path in task.files:
        name = option.removeprefix("--").replace("-", "_")
        given[name] = ", ".join([*([given[name]] if name in given else []), _said(path)])
    if task.video is not None:
        return Inputs(_video(task, size, frames), given | _strength(task))
    pictures = [_open("--image", path) for path in task.images]
    if not pictures:
        return Inputs()
    if task.name == "edit":  # pipelines that edit scale their references themselves
        return Inputs({"image": pictures if len(pictures) > 1 else pictures[0]}, given)
    first = _fitted(pictures[0], size)
    last = _fitted(_open("--last-image", task.last_image), size) if task.last_image else None
    return Inputs(_ends(task.pipeline, first, last, frames), given)


def _ends(pipeline: str, first: Any, last: Any, frames: int) -> dict[str, Any]:
    """The first and perhaps the last frame, in the words of the pipeline."""
    taken = arguments_of(pipeline)
    if "image" not in taken:
        return _masked(first, last, frames)
    if last is not None and "last_image" not in taken:
        raise ConfigError(f"--last-image: {pipeline} has no such argument")
    return {"image": first} | ({} if last is None else {"last_image": last})


def _masked(first: Any, last: Any, frames: int) -> dict[str, Any]:
    """VACE is given a video, grey where it is to be made, and a mask that says where that is."""
    from PIL import Image

    ends = [] if last is None else [last]
    between = frames - 1 - len(ends)
    video = [first, *[Image.new("RGB", first.size, GREY)] * between, *ends]
    masks = [GIVEN, *[MADE] * between, *[GIVEN] * len(ends)]
    return {"video": video, "mask": [Image.new("L", first.size, value) for value in masks]}


def _strength(task: Task) -> dict[str, str]:
    return {} if task.strength is None else {"strength": f"{task.strength:g}"}


def _video(task: Task, size: tuple[int, int], frames: int) -> dict[str, Any]:
    assert task.video is not None
    found = _frames(task.video)
    if len(found) < frames:
        raise ConfigError(
            f"--video {task.video} has {len(found)} frames, {frames} are asked for",
            hint="--frames asks for fewer",
        )
    strength = {} if task.strength is None else {"strength": task.strength}
    return {"video": [_fitted(frame, size) for frame in found[:frames]], **strength}


def _frames(path: Path) -> Sequence[Any]:
    from PIL import Image

    from rf_cli import media

    frames, _ = media.read_video(path)
    return [Image.fromarray((frame * 255).round().astype("uint8")) for frame in frames]


def _open(option: str, path: Path) -> Any:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read as a picture") from error


def _fitted(picture: Any, size: tuple[int, int]) -> Any:
    from PIL import ImageOps

    return ImageOps.fit(picture, size)


def _said(path: Path) -> str:
    """A file's name and what is in it: another picture of the same name is another input."""
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
