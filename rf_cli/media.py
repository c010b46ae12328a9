"""Writes videos and records: each beside its final name first, then renamed into place."""

import glob
import json
import os
import re
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rainfusion_core.errors import OutputError

if TYPE_CHECKING:
    from rainfusion_core.render import Sound

WAVE = ".wav"


def check_suffix(path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise OutputError(
            f"--output must end in {suffix}, got {path}", hint=f"{path.stem or 'out'}{suffix}"
        )


def check_output(path: Path, *, overwrite: bool, suffix: str = ".mp4") -> None:
    """Refuse, before anything heavy runs, an output that could not be written afterwards."""
    check_suffix(path, suffix)
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}", hint=f"make it with: mkdir -p {folder}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint=f"{path / 'video'}{suffix}")
    check_writable(folder)
    for existing in (path, record_path(path)):
        if existing.exists() and not overwrite:
            raise OutputError(f"{existing} exists", hint="--overwrite replaces it")


def check_writable(folder: Path) -> None:
    probe = folder / f".{os.getpid()}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from error


def record_path(video: Path) -> Path:
    return video.with_suffix(".json")


def default_output(prompt: str, seed: int, suffix: str = ".mp4") -> Path:
    """A name in this folder that is still free, made of the prompt's first words."""
    words = re.findall(r"\w+", prompt.lower())[:6]
    stem = "-".join(["rf", *words, str(seed)])
    names = (f"{stem}{(number and f'-{number}') or ''}{suffix}" for number in range(10_000))
    return next(p for p in map(Path, names) if not p.exists() and not record_path(p).exists())


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name to write to; renamed to `path` at the end, removed if anything went wrong."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_video(
    path: Path,
    frames: Any,
    *,
    fps: int,
    settings: Mapping[str, Any],
    sound: "Sound | None" = None,
) -> None:
    """Write H.264 at exactly the frames' size, with AAC beside it where there is sound.

    Args:
        frames: (frames, height, width, 3) float in [0, 1] or uint8, even height and width.
        settings: written into the file's comment as JSON.
    """
    with _beside(path) as partial:
        _encode(partial, _pixels(frames), fps=fps, settings=settings, sound=sound)


def write_render(
    path: Path,
    frames: Any,
    record: Mapping[str, Any],
    *,
    fps: int,
    sound: "Sound | None" = None,
) -> None:
    """Write what was rendered, MP4 or PNG by its name, with its record beside it.

    Where both are there, both are whole, even if the process was killed: the record gets its name
    just before the video does.
    """
    settings = record["settings"]
    with _beside(path) as partial:
        if path.suffix.lower() == ".png":
            _save_png(partial, _pixels(frames)[0], settings)
        else:
            _encode(partial, _pixels(frames), fps=fps, settings=settings, sound=sound)
        path.unlink(missing_ok=True)
        write_json(record_path(path), record)


def _pixels(frames: Any) -> Any:
    """(frames, height, width, 3) uint8."""
    import numpy as np

    pixels = np.asarray(frames)
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


def _save_png(path: Path, pixels: Any, settings: Mapping[str, Any]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    facts = PngInfo()
    facts.add_itxt("comment", json.dumps(settings, ensure_ascii=False))
    Image.fromarray(pixels).save(path, pnginfo=facts)


def _encode(
    path: Path, pixels: Any, *, fps: int, settings: Mapping[str, Any], sound: "Sound | None"
) -> None:
    if sound is None:
        _encode_with(path, pixels, fps=fps, settings=settings, audio=None)
        return
    audio = path.with_suffix(WAVE)  # ffmpeg reads the pixels from its input, the sound from a file
    try:
        _write_wave(audio, sound)
        _encode_with(path, pixels, fps=fps, settings=settings, audio=audio)
    finally:
        audio.unlink(missing_ok=True)


def _write_wave(path: Path, sound: "Sound") -> None:
    import numpy as np

    samples = np.rint(sound.samples.clip(-1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(samples.tobytes())


def _encode_with(
    path: Path, pixels: Any, *, fps: int, settings: Mapping[str, Any], audio: Path | None
) -> None:
    import imageio_ffmpeg
    import numpy as np

    height, width = pixels.shape[1:3]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        macro_block_size=1,
        audio_path=audio and str(audio),
        audio_codec="aac",
        ffmpeg_log_level="error",  # it says that it guessed the channels of the sound
        output_params=[
            "-crf", "15", "-preset", "medium", "-movflags", "+faststart+use_metadata_tags",
            "-metadata", f"comment={json.dumps(settings, ensure_ascii=False)}",
        ],
    )  # fmt: skip
    writer.send(None)
    try:
        for frame in pixels:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
    if not path.is_file() or path.stat().st_size == 0:
        raise OutputError(f"{path} cannot be written: ffmpeg wrote no video")


def remove_partials(path: Path) -> None:
    """Remove what a killed process left beside `path`."""
    for target in (path, record_path(path), path.with_suffix(WAVE)):
        for partial in target.parent.glob(f".{glob.escape(target.stem)}.*.partial{target.suffix}"):
            partial.unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    with _beside(path) as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_text(path: Path, text: str) -> None:
    with _beside(path) as partial:
        partial.write_text(text, "utf-8")


def write_image(path: Path, pixels: Any) -> None:
    """Write (height, width, 3) uint8 as PNG."""
    from PIL import Image

    with _beside(path) as partial:
        Image.fromarray(pixels).save(partial)


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays by name as .npz, without loss."""
    import numpy as np

    with _beside(path) as partial:
        np.savez(partial, **arrays)


def read_video(path: Path) -> tuple[Any, float]:
    """(frames, height, width, 3) float32 in [0, 1] and the frames a second of a video.

    Raises:
        OutputError: there is no such file, or it holds no video.
    """
    import imageio_ffmpeg
    import numpy as np

    if not path.is_file():
        raise OutputError(f"there is no video {path}")
    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        facts = next(reader)
        width, height = facts["size"]
        frames = [np.frombuffer(each, np.uint8).reshape(height, width, 3) for each in reader]
    except (OSError, RuntimeError, StopIteration, KeyError) as error:
        raise OutputError(f"{path} cannot be read as a video") from error
    return np.stack(frames).astype(np.float32) / 255, float(facts["fps"])
