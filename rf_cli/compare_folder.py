"""The output folder of a comparison: finished renders, kept so that an interrupted one can go on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rainfusion_core.errors import OutputError
from rainfusion_core.report import CallRow, RenderReport, SparsityReport, StageTimes
from rainfusion_core.sink import FirstFrame
from rf_cli import arms, media

if TYPE_CHECKING:
    from rainfusion_core.compare import Run
    from rainfusion_core.render import Rendered

RUNS, RECORD, PAGE = "runs", "record.json", "report.html"


def prepare(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Make the folder, or refuse one that holds something, before anything heavy runs."""
    if overwrite and resume:
        raise OutputError("--overwrite and --resume exclude each other")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="--output names a folder")
    if any(path.is_file() for path in folder.rglob("*")) and not (overwrite or resume):
        raise OutputError(
            f"{folder} is not empty",
            hint="--resume goes on with an interrupted comparison, --overwrite starts again",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
    if overwrite:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Remove what an earlier comparison wrote, and nothing else."""
    found = [*(folder / RUNS).glob("*.npz"), *(folder / RUNS).glob("*.json")]
    record = folder / RECORD
    if record.is_file():
        try:
            names = json.loads(record.read_text("utf-8"))["files"]
        except (ValueError, KeyError, TypeError):
            names = []
        found += [folder / name for name in names if "/" not in name]
    for path in found:
        path.unlink(missing_ok=True)


def default_folder(prompt: str) -> Path:
    """A name in this folder that is still free, made of the prompt's first words."""
    stem = "-".join(["rf-compare", *arms.slug(prompt.lower()).split("-")[:6]])
    names = (f"{stem}-{number}" if number else stem for number in range(10_000))
    return next(path for path in map(Path, names) if not path.exists())


class CompareFolder:
    """A `Store` of finished renders, and the names of all other files.

    Args:
        facts: everything beside clip and arm that decides what a render gives: model, versions.
        names: the arms by name, in order.
        clips: how many; with one, file names carry no clip number.
    """

    def __init__(
        self, path: Path, *, facts: Mapping[str, Any], names: Sequence[str], clips: int, fps: int
    ) -> None:
        self.path, self.fps = path, fps
        self.reused: list[str] = []
        self.rendered: list[str] = []
        self.outdated: list[str] = []
        self._facts, self._clips = facts, clips
        (path / RUNS).mkdir(exist_ok=True)
        self._slugs = dict(zip(names, arms.unique(names), strict=True))

    def name(self, clip_index: int, what: str) -> str:
        """A file's name without its ending, for an arm or for what is there once a clip."""
        stem = self._slugs.get(what, what)
        return stem if self._clips == 1 else f"clip-{clip_index + 1:02}-{stem}"

    def video(self, run: "Run") -> Path:
        return self.path / f"{self.name(run.clip_index, run.arm.name)}.mp4"

    def arrays(self, run: "Run") -> Path:
        return self.path / RUNS / f"{self.name(run.clip_index, run.arm.name)}.npz"

    def load(self, run: "Run") -> "Rendered | None":
        import numpy as np

        from rainfusion_core.render import Rendered, Sound

        path = self._report(run)
        if not path.is_file() or not self.arrays(run).is_file():
            return None
        stored = json.loads(path.read_text("utf-8"))
        if stored.get("key") != self._key(run):
            self.outdated.append(self._label(run))
            return None
        with np.load(self.arrays(run)) as arrays:
            frames, latents = arrays["frames"], arrays.get("latents")
            sound = Sound(arrays["sound"], int(arrays["rate"])) if "sound" in arrays else None
        rendered = Rendered(frames, read_report(stored["report"]), latents, sound)
        if run.repeat == 0 and (stored.get("fps") != self.fps or not self.video(run).is_file()):
            self._write_video(run, rendered)
        self.reused.append(self._label(run))
        return rendered

    def save(self, run: "Run", rendered: "Rendered") -> None:
        """Write the frames, the video and last the report: a run without report is not finished."""
        import numpy as np

        if run.repeat == 0:
            more = {} if rendered.latents is None else {"latents": rendered.latents}
            if (sound := rendered.sound) is not None:
                more |= {"sound": sound.samples, "rate": np.array(sound.rate)}
            media.write_arrays(self.arrays(run), frames=rendered.frames, **more)
            self._write_video(run, rendered)
        content = {"key": self._key(run), "fps": self.fps, "report": asdict(rendered.report)}
        media.write_json(self._report(run), content)
        self.rendered.append(self._label(run))

    def _write_video(self, run: "Run", rendered: "Rendered") -> None:
        settings = {**self._facts, **run.clip.settings(), **vars(run.arm.config)}
        media.write_video(
            self.video(run), rendered.frames, fps=self.fps, settings=settings, sound=rendered.sound
        )

    def _report(self, run: "Run") -> Path:
        stem = self.name(run.clip_index, run.arm.name)
        return self.path / RUNS / f"{stem}-{run.repeat + 1}.json"

    def _label(self, run: "Run") -> str:
        clip = "" if self._clips == 1 else f"clip {run.clip_index + 1}, "
        return f"{clip}{run.arm.name}, run {run.repeat + 1}"

    def _key(self, run: "Run") -> str:
        """Changes with every setting that could change the frames or the times."""
        settings = [self._facts, run.clip.settings(), vars(run.arm.config)]
        text = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def read_report(table: dict[str, Any]) -> RenderReport:
    """The report that `dataclasses.asdict` made a table of; the speed of single calls is not in it."""
    times, sparsity = table["times"], table["sparsity"]
    rows = tuple(CallRow(**row) for row in sparsity["rows"])
    frame = sparsity["first_frame"] and FirstFrame(*sparsity["first_frame"])
    return RenderReport(
        StageTimes(**{**times, "steps": tuple(times["steps"])}),
        SparsityReport(**{**sparsity, "rows": rows, "speed": None, "first_frame": frame}),
        table["peak_memory_bytes"],
        table["others"],
    )


def fingerprint(location: Path | None) -> str | None:
    """What tells two states of a local model folder apart: names, sizes and dates of its weights."""
    if location is None:
        return None
    files = sorted(location.rglob("*.safetensors"))
    facts = [(str(f.relative_to(location)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
