import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from rainfusion_core.errors import OutputError
from rainfusion_core.render import Sound
from rf_cli import media


def clip(frames=5, height=48, width=80):
    ramp = np.linspace(0, 1, width, dtype=np.float32)
    return np.broadcast_to(ramp[None, None, :, None], (frames, height, width, 3))


def read(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    width, height = facts["size"]
    return facts, [np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]


def test_video_has_the_frames_size_and_rate(tmp_path):
    path = tmp_path / "clip.mp4"
    media.write_video(path, clip(), fps=12, settings={})
    facts, frames = read(path)
    assert facts["size"] == (80, 48) and facts["fps"] == 12 and len(frames) == 5
    assert facts["codec"] == "h264"


def test_pixels_are_rounded_not_cut(tmp_path):
    path = tmp_path / "clip.mp4"
    grey = np.full((3, 32, 32, 3), 127.6 / 255, np.float32)
    media.write_video(path, grey, fps=8, settings={})
    assert abs(float(read(path)[1][1].mean()) - 128) < 1


def test_settings_are_in_the_file(tmp_path):
    path = tmp_path / "clip.mp4"
    media.write_video(path, clip(), fps=8, settings={"prompt": 'a "red" circle; é', "seed": 3})
    assert b'a \\"red\\" circle' in path.read_bytes()


def tones(rate=24_000, seconds=1.0, hertz=(440, 1200)):
    """A tone a channel."""
    time = np.arange(int(rate * seconds)) / rate
    waves = [np.sin(2 * np.pi * frequency * time) for frequency in hertz]
    return Sound(0.5 * np.stack(waves, axis=1).astype(np.float32), rate)


def heard(path, *, rate, channels):
    """(samples, channels) in [-1, 1] of the file's sound."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    output = ["-f", "s16le", "-ar", str(rate), "-ac", str(channels), "-"]
    done = subprocess.run([*ffmpeg, *output], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.int16).reshape(-1, channels) / 32768


def test_sound_is_heard_beside_the_frames(tmp_path, capfd):
    path, sound = tmp_path / "clip.mp4", tones()
    media.write_video(path, clip(frames=8), fps=8, settings={}, sound=sound)
    assert capfd.readouterr() == ("", "")
    facts, frames = read(path)
    assert len(frames) == 8 and facts["audio_codec"] == "aac"
    assert list(tmp_path.iterdir()) == [path]
    samples = heard(path, rate=24_000, channels=2)
    assert abs(len(samples) - 24_000) < 3000  # the codec works in frames of 1024
    middle = samples[4000:20_000]
    loudest = abs(np.fft.rfft(middle, axis=0)).argmax(axis=0) * 24_000 / len(middle)
    np.testing.assert_allclose(loudest, (440, 1200), atol=2)
    np.testing.assert_allclose(middle.std(axis=0), 0.5 / 2**0.5, atol=0.02)


def test_without_sound_the_video_is_silent(tmp_path):
    path = tmp_path / "clip.mp4"
    media.write_render(path, clip(), {"settings": {}}, fps=8)
    assert "audio_codec" not in read(path)[0]


def test_what_a_killed_process_left_is_removed_with_its_sound(tmp_path):
    for suffix in ("mp4", "json", "wav"):
        (tmp_path / f".clip.77.partial.{suffix}").touch()
    media.remove_partials(tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        media.write_json(tmp_path / "record.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_record_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("old")
    media.write_json(path, {"prompt": "é"})
    assert json.loads(path.read_text("utf-8")) == {"prompt": "é"}


def test_default_names_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = media.default_output("A red, RED circle!", 7)
    assert first.name == "rf-a-red-red-circle-7.mp4"
    first.touch()
    assert media.default_output("A red, RED circle!", 7).name == "rf-a-red-red-circle-7-1.mp4"


def test_outputs_that_cannot_be_written_are_refused(tmp_path):
    taken = tmp_path / "taken.mp4"
    taken.touch()
    for path, problem in [
        (tmp_path / "clip.avi", "--output must end in .mp4"),
        (tmp_path / "none" / "clip.mp4", "there is no folder"),
        (taken, "taken.mp4 exists"),
    ]:
        with pytest.raises(OutputError, match=problem):
            media.check_output(path, overwrite=False)
    media.check_output(taken, overwrite=True)


def test_an_existing_record_is_not_replaced_either(tmp_path):
    (tmp_path / "clip.json").touch()
    with pytest.raises(OutputError, match=r"clip\.json exists"):
        media.check_output(tmp_path / "clip.mp4", overwrite=False)
