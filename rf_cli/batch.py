"""Many renders with one model: their names, what is finished already, and what is left to do."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rainfusion_core.errors import ConfigError, OutputError
from rf_cli import arms, media

if TYPE_CHECKING:
    from rainfusion_core.render import Clip

NAME = "{index:03}-{slug}-{seed}"


@dataclass(frozen=True)
class Job:
    """One render.

    Attributes:
        settings: what its record will say, as JSON reads it.
    """

    clip: "Clip"
    output: Path
    settings: Mapping[str, Any]


def outputs(template: Path, clips: Sequence["Clip"], suffix: str, *, seeds: int) -> list[Path]:
    """A file for every clip; `seeds` clips in turn have one prompt.

    Args:
        template: a folder, or a name with fields such as out/{index:03}-{slug}-{seed}.mp4; `index`
            counts prompts from 1, `slug` is made of the prompt's first words.
    """
    text = str(template)
    text = text if "{" in text else str(template / f"{NAME}{suffix}")
    paths = [Path(_filled(text, clip, i // seeds + 1)) for i, clip in enumerate(clips)]
    for path in paths:
        media.check_suffix(path, suffix)
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise OutputError(
            f"--output names {twice} more than once",
            hint="use {index} for the prompt and {seed} for the seed, as in out/{index:03}-{seed}"
            + suffix,
        )
    return paths


def _filled(template: str, clip: "Clip", index: int) -> str:
    words = arms.slug(clip.prompt.lower()).split("-")[:6]
    try:
        return template.format(index=index, slug="-".join(words)[:60], seed=clip.seed)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise OutputError(
            f"--output {template} cannot be filled in: {error}",
            hint="its fields are {index}, {slug} and {seed}",
        ) from None


def left_to_do(jobs: Sequence[Job], *, overwrite: bool, resume: bool) -> list[Job]:
    """The jobs without those that are finished; makes their folders. Refuses before it writes.

    A job is finished if its video and its record are there and the record's settings are the job's.

    Raises:
        OutputError: something is in the way that is not a finished or interrupted render of the job.
    """
    if overwrite and resume:
        raise ConfigError("--overwrite and --resume exclude each other")
    todo = [job for job in jobs if overwrite or not _finished(job, resume=resume)]
    for folder in dict.fromkeys(job.output.parent for job in todo):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
        media.check_writable(folder)
    for job in todo:
        media.remove_partials(job.output)
    return todo


def _finished(job: Job, *, resume: bool) -> bool:
    path, record = job.output, media.record_path(job.output)
    if not path.exists() and not record.exists():
        return False
    if not resume:
        found = path if path.exists() else record
        raise OutputError(
            f"{found} exists", hint="--resume keeps what is finished, --overwrite starts again"
        )
    if not record.exists():
        raise OutputError(
            f"{path} exists without a record, so rf did not finish it",
            hint="--overwrite replaces it",
        )
    if difference := _difference(record, job.settings):
        raise OutputError(
            f"{path} was rendered with {difference}",
            hint="--overwrite renders it again; another --output keeps both",
        )
    return path.exists()


def _difference(record: Path, settings: Mapping[str, Any]) -> str | None:
    try:
        found = json.loads(record.read_text("utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return "settings that its record does not tell"
    for key in sorted({*found, *settings}):
        if found.get(key) != settings.get(key):
            return f"{key} {_short(found.get(key))}, not {_short(settings.get(key))}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
