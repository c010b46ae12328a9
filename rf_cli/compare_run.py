"""Runs a comparison into its folder: renders or reads the arms, then writes pictures, record and page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rainfusion_core.errors import ConfigError, OutputError
from rf_cli import compare_record, console, media
from rf_cli.compare_folder import PAGE, RECORD, CompareFolder
from rf_cli.progress import Report, live

if TYPE_CHECKING:
    from rainfusion_core.compare import Arm, ClipResult, Run
    from rainfusion_core.metrics import Perceptual
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.render import Clip

LOSSLESS = "metrics on lossless frames"
DECODED = "metrics on decoded videos, their compression included"


def render_arms(
    source: "ModelSource",
    arms: Sequence["Arm"],
    clips: Sequence["Clip"],
    folder: CompareFolder,
    *,
    repeats: int,
    perceptual: "Perceptual | None",
    quiet: bool,
) -> dict[str, Any]:
    """Render what the folder does not have yet, and return the part of the record it fills."""
    import torch

    from rainfusion_core.compare import compare
    from rainfusion_core.pipeline import load
    from rainfusion_core.timing import peak_memory_bytes

    results: list[ClipResult] = []
    prompts: list[dict[str, Any]] = []
    entries: list[list[dict[str, Any]]] = []  # by clip, then by arm
    total = len(arms) * len(clips) * repeats

    def memory() -> int:
        return peak_memory_bytes(torch.device(source.device))

    with live(quiet=quiet, memory_bytes=memory) as report:
        progress = _labelled(report, folder, total)
        for result in compare(
            lambda: load(source), arms, clips, folder,
            repeats=repeats, perceptual=perceptual, progress=progress,
        ):  # fmt: skip
            report("writing pictures", 0, 1)
            prompts.append(_pictures_of(result, folder))
            entries.append(_entries(result, arms, folder))
            results.append(_without_frames(result))
    by_arm = [[clip[i] for clip in entries] for i in range(len(arms))]
    return {
        "clips": len(clips),
        "prompts": prompts,
        "arms": [
            compare_record.arm_entry([r.arms[i] for r in results], by_arm[i], by_arm[0])
            for i in range(len(arms))
        ],
        "reused": folder.reused,
        "rendered": folder.rendered,
        "outdated": folder.outdated,
    }


def _labelled(
    report: Report, folder: CompareFolder, total: int
) -> Callable[["Run | None"], Report]:
    def progress(run: "Run | None") -> Report:
        number = len(folder.reused) + len(folder.rendered) + 1
        label = "warm-up" if run is None else f"{number}/{total} {run.arm.name}"
        return lambda stage, step, steps: report(f"{label}: {stage}", step, steps)

    return progress


def _without_frames(result: "ClipResult") -> "ClipResult":
    from dataclasses import replace

    return replace(result, frames=())


def _entries(
    result: "ClipResult", arms: Sequence["Arm"], folder: CompareFolder
) -> list[dict[str, Any]]:
    from rainfusion_core.compare import Run

    entries = []
    for arm, found in zip(arms, result.arms, strict=True):
        run = Run(arm, result.clip, result.index, 0)
        video, frames = (
            str(path.relative_to(folder.path)) for path in (folder.video(run), folder.arrays(run))
        )
        entries.append(compare_record.clip_entry(result, found, video=video, frames=frames))
    return entries


def _pictures_of(result: "ClipResult", folder: CompareFolder) -> dict[str, Any]:
    names = [each.arm.name for each in result.arms]
    notes = [_note(each.metrics.psnr) for each in result.arms]
    files = [folder.name(result.index, what) for what in ("side-by-side", "strip")]
    written = pictures(folder.path, files, names, result.frames, notes, fps=folder.fps)
    return {"prompt": result.clip.prompt, "seed": result.clip.seed, **written}


def _note(psnr: float) -> str:
    return "equal to it" if psnr == float("inf") else f"{psnr:.1f} dB"


def pictures(
    folder: Path,
    files: Sequence[str],
    names: Sequence[str],
    frames: Sequence[Any],
    notes: Sequence[str],
    *,
    fps: float,
) -> dict[str, str]:
    """Write the side-by-side video and the strip; returns their names."""
    from rf_cli import montage

    video, strip = f"{files[0]}.mp4", f"{files[1]}.png"
    beside = montage.side_by_side(names, frames, notes)
    media.write_video(folder / video, beside, fps=round(fps), settings={"arms": list(names)})
    media.write_image(folder / strip, montage.strip(names, frames))
    return {"side_by_side": video, "strip": strip}


def compare_videos(
    paths: tuple[Path, Path], folder: Path, *, perceptual: "Perceptual | None"
) -> dict[str, Any]:
    """Compare two existing videos, or the videos of two records."""
    from rainfusion_core.metrics import clip_metrics
    from rf_cli.arms import unique

    videos = [_video_of(path) for path in paths]
    (first, fps), (second, other_fps) = (media.read_video(video) for video in videos)
    if first.shape != second.shape:
        shapes = [f"{s[2]}x{s[1]} with {s[0]} frames" for s in (first.shape, second.shape)]
        raise ConfigError(
            f"the videos differ: {videos[0]} is {shapes[0]}, {videos[1]} is {shapes[1]}",
            hint="render both with the same --size and --frames",
        )
    names = [f"{label} {video.stem}" for label, video in zip("AB", videos, strict=True)]
    found = [clip_metrics(first, each, perceptual=perceptual) for each in (first, second)]
    copies = [f"{name}.mp4" for name in unique(names)]
    for copy, frames, rate in zip(copies, (first, second), (fps, other_fps), strict=True):
        media.write_video(folder / copy, frames, fps=round(rate), settings={"copy_of": copy})
    notes = [_note(each.psnr) for each in found]
    files = ["side-by-side", "strip"]
    written = pictures(folder, files, names, (first, second), notes, fps=fps)
    shown = " and ".join(video.name for video in videos)
    return {
        "clips": 1,
        "prompts": [{"prompt": shown, "seed": None, **written}],
        "video": {
            "width": first.shape[2], "height": first.shape[1], "frames": len(first), "fps": round(fps),
        },
        "arms": [
            compare_record.video_entry(*each) for each in zip(names, copies, found, strict=True)
        ],
    }  # fmt: skip


def _video_of(path: Path) -> Path:
    """The path itself, or the video that a record of rf names."""
    if path.suffix.lower() != ".json":
        return path
    import json

    try:
        named = Path(json.loads(path.read_text("utf-8"))["video"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is not a record that names a video") from error
    return named if named.is_file() else path.with_name(named.name)


def finish(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write record and page, and return the record as it was written."""
    from rf_cli.report_page import page

    named = [clip["video"] for arm in record["arms"] for clip in arm["clips"]]
    named += [clip[key] for clip in record["prompts"] for key in ("side_by_side", "strip")]
    record = compare_record.plain({**record, "files": [*named, RECORD, PAGE]})
    media.write_text(folder / PAGE, page(record, folder))
    media.write_json(folder / RECORD, record)
    return record


def show(record: dict[str, Any], folder: Path) -> None:
    from rf_cli.compare_tables import rich_tables

    for table in rich_tables(record):
        console.out.print(table)
    if reused := record.get("reused"):
        rendered = len(record["rendered"])
        text = f"reused {len(reused)} finished renders, rendered {rendered}: {'; '.join(reused)}"
        console.out.print(text, highlight=False, soft_wrap=True)
    if outdated := record.get("outdated"):
        console.warn(
            f"{len(outdated)} stored renders have other settings, weights or versions and were "
            f"rendered again: {'; '.join(outdated)}"
        )
    console.out.print(f"wrote {folder / PAGE}", highlight=False, soft_wrap=True)
