"""What the heads of `shapes` attend to on real renders: how concentrated they are, and of which type.

    python benchmarks/shapes_attention.py -o benchmarks/results/shapes-attention.json

Runs `rf inspect` for a few held-out prompts over all layers and prints a table for the model card. A head's type is
the one that RainFusion's recognition module gives it most often; its concentration is the share of attention that the
best fifth of the key blocks hold, averaged over query blocks, steps and prompts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean, quantiles

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rainfusion_core.shapes import world  # noqa: E402


def looked_at(prompt: str, seed: int, model: str, layers: int, folder: Path) -> list[dict]:
    subprocess.run(
        [sys.executable, "-m", "rf_cli", "inspect", prompt, "-m", model, "--seed", str(seed), "--layers",
         ",".join(map(str, range(layers))), "-o", folder, "--quiet"],
        check=True,
    )  # fmt: skip
    return json.loads((folder / "record.json").read_text("utf-8"))["heads"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("-o", "--out", type=Path, help="JSON file")
    given = parser.parse_args()
    shares, kinds = defaultdict(list), defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.prompts):
            prompt = world.held_out(number)[0]
            for row in looked_at(
                prompt, number, given.model, given.layers, Path(folder, str(number))
            ):
                place = row["layer"], row["head"]
                shares[place].append(row["top_fifth"])
                kinds[place][row["kind"]] += 1
    rows = []
    for layer, head in sorted(shares):
        tenths = quantiles(shares[layer, head], n=10)
        kind, count = kinds[layer, head].most_common(1)[0]
        rows.append({"layer": layer, "head": head, "top_fifth": mean(shares[layer, head]),
                     "low": tenths[0], "high": tenths[-1], "kind": kind,
                     "kind_share": count / kinds[layer, head].total()})  # fmt: skip
    for row in rows:
        print(
            f"| {row['layer']} | {row['head']} | {row['top_fifth']:.0%} ({row['low']:.0%} to {row['high']:.0%}) "
            f"| {row['kind']} ({row['kind_share']:.0%}) |"
        )
    if given.out:
        given.out.write_text(json.dumps({"prompts": given.prompts, "heads": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
