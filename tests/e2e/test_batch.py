"""Many prompts in a process of its own: killed in the middle, resumed, and every video there once."""

import json
import os
import signal
import subprocess
import sys
import time

from rf_cli import media

SHORT = ["--size", "64x64", "--frames", "5", "--steps", "2"]
PROMPTS = [f"a {colour} circle" for colour in ("red", "blue", "green", "white", "yellow")]


def command(folder, *args):
    file = folder / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    out = folder / "out" / "{index:02}-{slug}-{seed}.mp4"
    return [
        sys.executable, "-m", "rf_cli", "generate", "--prompts", str(file), "--seeds", "1,2",
        *SHORT, "-o", str(out), *args,
    ]  # fmt: skip


def videos(folder):
    return sorted((folder / "out").glob("[!.]*.mp4"))


def test_killed_and_resumed_every_video_is_there_once_and_whole(tmp_path):
    killed = subprocess.Popen(command(tmp_path, "-q"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(videos(tmp_path)) < 3 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in videos(tmp_path)}
    assert 3 <= len(kept) < 10
    done = subprocess.run(command(tmp_path, "--resume", "--json"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {os.path.basename(name) for name in found["kept"]} == set(kept)
    assert len(found["videos"]) == 10 - len(kept)
    _check_all(tmp_path, kept)


def _check_all(folder, kept):
    names = [
        f"{i:02}-a-{p.split()[1]}-circle-{s}" for i, p in enumerate(PROMPTS, 1) for s in (1, 2)
    ]
    files = [f"{name}{suffix}" for name in names for suffix in (".json", ".mp4")]
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(files)
    for path in videos(folder):
        assert media.read_video(path)[0].shape == (5, 64, 64, 3)
        settings = json.loads(path.with_suffix(".json").read_text("utf-8"))["settings"]
        assert path.name.endswith(f"-{settings['seed']}.mp4")
        assert settings["prompt"] in PROMPTS
        if path.name in kept:
            assert path.stat().st_mtime_ns == kept[path.name]
