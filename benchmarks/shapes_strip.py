"""A strip of 12 frames for six prompts, rendered by `rf generate` with its defaults.

python benchmarks/shapes_strip.py -o docs/shapes.png
python benchmarks/shapes_strip.py --prompts hard -o docs/shapes-hard.png

The prompts are chosen: "clean" are six that the embedded model does well, "hard" six that it does badly.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rf_cli import media  # noqa: E402
from rf_cli.montage import Panel, grid, pixels_of  # noqa: E402

FRAMES = 12
PROMPTS = {
    "clean": [
        "a large red circle moving right over a blue background",
        "a small yellow star moving up right over a striped green and blue background",
        "a large green triangle growing over a checkered red background",
        "a large white square shrinking over a gradient orange background",
        "a small yellow circle orbiting over a striped green and blue background",
        "a large orange square moving down over a split cyan and blue background",
    ],
    "hard": [
        "a small yellow star orbiting over a striped green and blue background",
        "a large cyan heart growing over a dotted purple background",
        "a large white square spinning over a gradient orange background",
        "a large white ring shrinking over a gradient orange background",
        "a large purple cross growing over a checkered yellow background",
        "a large cyan heart fading over a dotted purple background",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("shapes.png"))
    parser.add_argument("--prompts", choices=PROMPTS, default="clean")
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, prompt in enumerate(PROMPTS[given.prompts]):
            video = Path(folder, f"{number}.mp4")
            run = subprocess.run(
                [sys.executable, "-m", "rf_cli", "generate", prompt, "-m", given.model, "--seed",
                 str(given.seed), "-o", video, "--quiet"],
            )  # fmt: skip
            if run.returncode:  # it has said why
                sys.exit(run.returncode)
            frames, _ = media.read_video(video)
            chosen = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
            rows.append([Panel(prompt, np.concatenate(pixels_of(frames[chosen]), axis=1))])
    media.write_image(given.output, grid(rows, 1))


if __name__ == "__main__":
    main()
