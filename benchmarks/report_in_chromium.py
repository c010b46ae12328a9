"""Opens a report of `rf compare` in headless Chromium: videos in step, no console error, readable at a phone's width.

    rf compare "a large red circle moving right over a blue background" -s 0.8 -s 0.9 -o out/compare
    python benchmarks/report_in_chromium.py out/compare/report.html --screenshots out/

Exits with 1 and says why if anything is wrong.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

WIDTHS = {"desktop": (1200, 1900), "phone": (390, 2400)}
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
PROBE = """<script>
const wait = ms => new Promise(done => setTimeout(done, ms));
const say = value => console.log("PROBE " + JSON.stringify(value));
window.addEventListener("error", event => say({ error: event.message }));
document.addEventListener("securitypolicyviolation", event => say({ error: "csp: " + event.blockedURI }));
(async () => {
  for (const group of document.querySelectorAll(".clip")) {
    const videos = [...group.querySelectorAll("video")], scrub = group.querySelector("input");
    const times = () => videos.map(video => video.currentTime);
    while (!group.dataset.ready) await wait(100);
    scrub.value = 5; scrub.oninput(); await wait(2000);
    say({ what: "scrubbed", times: times(), frame: 5, fps: Number(group.dataset.fps) });
    group.querySelector(".next").onclick(); await wait(2000);
    say({ what: "next", times: times(), frame: 6, fps: Number(group.dataset.fps) });
    group.querySelector(".play").onclick(); await wait(1500);
    say({ what: "playing", moving: videos.every(video => !video.paused) });
    group.querySelector(".play").onclick(); await wait(2000);
    say({ what: "paused", times: times() });
  }
  say({ what: "width", page: document.documentElement.scrollWidth, window: innerWidth });
  say({ what: "done" });
})();
</script></body>"""


def probe(report: Path, browser: str, size: tuple[int, int], patience: float) -> list[dict]:
    """Everything that the page said, with console errors among it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "report.html"
        page.write_text(report.read_text("utf-8").replace("</body>", PROBE), "utf-8")
        command = [
            browser, *FLAGS, f"--user-data-dir={folder}/profile", "--enable-logging=stderr",
            f"--window-size={size[0]},{size[1]}", "--remote-debugging-port=0", page.as_uri(),
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said: list[dict] = []
        alarm = threading.Timer(patience, process.terminate)  # a silent page ends the reading too
        alarm.start()
        assert process.stderr is not None
        for line in process.stderr:
            if "CONSOLE" in line:
                _, found, text = line.partition('"PROBE ')
                said.append(
                    json.loads(text.rpartition('", source')[0]) if found else {"error": line}
                )
            if said and said[-1].get("what") == "done":
                break
        alarm.cancel()
        process.terminate()
        process.wait()
        return said


def problems(said: list[dict]) -> list[str]:
    """What is wrong with what the page said."""
    found = [fact["error"] for fact in said if "error" in fact]
    if not said or said[-1].get("what") != "done":
        found.append("the page did not finish")
    for fact in said:
        times = fact.get("times", [])
        if times and max(times) - min(times) > 1e-3:
            found.append(f"{fact['what']}: the videos are not in step: {times}")
        if times and "frame" in fact and int(times[0] * fact["fps"]) != fact["frame"]:
            found.append(f"{fact['what']}: not at frame {fact['frame']}: {times[0]} s")
        if fact.get("moving") is False:
            found.append("not all videos play")
        if fact.get("what") == "width" and fact["page"] > fact["window"]:
            found.append(f"the page is {fact['page']} wide in a window of {fact['window']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--screenshots", type=Path, help="folder for desktop.png and phone.png")
    parser.add_argument("--patience", type=float, default=120, help="seconds for each width")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        sys.exit("there is no chromium here")
    wrong = []
    for name, size in WIDTHS.items():
        said = probe(arguments.report, browser, size, arguments.patience)
        wrong += [f"{name}: {problem}" for problem in problems(said)]
        print(name, json.dumps(said))
        if arguments.screenshots:
            arguments.screenshots.mkdir(
                parents=True, exist_ok=True
            )  # Chromium says nothing if it is missing
            shot = arguments.screenshots / f"{name}.png"
            flags = [*FLAGS, f"--window-size={size[0]},{size[1]}", f"--screenshot={shot}"]
            url = arguments.report.resolve().as_uri()
            subprocess.run([browser, *flags, url], check=True, stderr=subprocess.DEVNULL)
    print("\n".join(wrong) or "the report works")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
