"""From the pictures and videos that are given to the task that they mean."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainfusion_core.errors import ConfigError
from rf_cli.presets import Preset

IMAGES = ("text-to-image", "edit")  # what these make is one image
FROM_TEXT = ("text-to-video", "text-to-image")
NEEDS = {
    "image-to-video": "--image",
    "edit": "--image",
    "video-to-video": "--video",
    "first-last-frame": "--image and --last-image",
}


@dataclass(frozen=True)
class Task:
    """What is to be done, and the files that it starts from.

    Attributes:
        strength: how much of the video is made anew, in (0, 1]; None is the pipeline's default.
    """

    name: str
    pipeline: str = ""
    images: tuple[Path, ...] = ()
    last_image: Path | None = None
    video: Path | None = None
    strength: float | None = None

    @property
    def suffix(self) -> str:
        return ".png" if self.name in IMAGES else ".mp4"

    @property
    def files(self) -> list[tuple[str, Path]]:
        """(option, file) of everything that it starts from."""
        single = (("--last-image", self.last_image), ("--video", self.video))
        found = [(option, path) for option, path in single if path is not None]
        return [*(("--image", path) for path in self.images), *found]


def default(preset: Preset) -> Task:
    name = next(iter(preset.tasks))
    return Task(name, preset.pipeline_for(name))


def choose(
    preset: Preset,
    images: Sequence[Path],
    last_image: Path | None,
    video: Path | None,
    strength: float | None = None,
) -> Task:
    """The task that the given files mean.

    Raises:
        ConfigError: the model does not do it, the files do not go together, or one is missing.
    """
    if video is not None and (images or last_image):
        raise ConfigError("--video and --image exclude each other")
    if last_image is not None and not images:
        raise ConfigError("--last-image needs the first one too", hint="--image FIRST.png")
    name = _name(preset, bool(images), last_image is not None, video is not None)
    if name not in preset.tasks and name in FROM_TEXT:
        needs = " or ".join(NEEDS[task] for task in preset.tasks)
        raise ConfigError(f"{preset.name} does {', '.join(preset.tasks)}: it needs {needs}")
    task = Task(name, preset.pipeline_for(name), tuple(images), last_image, video, strength)
    _check(task)
    return task


def _name(preset: Preset, image: bool, last_image: bool, video: bool) -> str:
    if video:
        return "video-to-video"
    if last_image:
        return "first-last-frame"
    makes_images = any(task in IMAGES for task in preset.tasks)
    if image:
        return "edit" if makes_images else "image-to-video"
    return "text-to-image" if makes_images else "text-to-video"


def _check(task: Task) -> None:
    if len(task.images) > 1 and task.name != "edit":
        raise ConfigError(f"--image may be given once for {task.name}, got {len(task.images)}")
    for option, path in task.files:
        if not path.is_file():
            raise ConfigError(f"{option}: there is no file {path}")
    if task.strength is None:
        return
    if task.name != "video-to-video":
        raise ConfigError("--strength goes with --video: it says how much of it is made anew")
    if not 0 < task.strength <= 1:
        raise ConfigError(f"--strength must be in (0, 1], got {task.strength:g}")
    if "strength" not in arguments_of(task.pipeline):
        raise ConfigError(f"--strength: {task.pipeline} has no such argument")


def arguments_of(pipeline: str) -> set[str]:
    """Names of what a pipeline of diffusers can be given."""
    import diffusers

    from rainfusion_core.loading.quiet import quiet

    quiet()  # pipelines are imported here, and some of their imports hint at what is not installed
    return set(inspect.signature(getattr(diffusers, pipeline).__call__).parameters)
