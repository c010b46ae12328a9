"""Every number that needs a GPU, in under ten minutes: right or wrong first, then how fast, then the whole call.

    python benchmarks/gpu_session.py --out benchmarks/results

Each part runs in a process of its own with a time limit, for a kernel that hangs says nothing. Rows go to gpu.jsonl
as they are measured, and what they say of the targets comes last. `--tiny --device cpu` runs the same code on a size
that Triton's interpreter (TRITON_INTERPRET=1) can take.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gpu_stages import ARMS, MODELS, STAGES, Bench

SESSION_SECONDS = 570
BIG = "wan-14b-720p"
# stage, its argument, seconds it may take; what everything else rests on comes first
PLAN = [
    ("machine", "", 60),
    *[("check", arm, 100) for arm in ARMS],
    ("check-front", "", 60),
    *[("kernel", arm, 45) for arm in ARMS],
    ("call", BIG, 70),
    ("flex", BIG, 90),
    ("sweep", BIG, 60),
    *[("call", model, 60) for model in MODELS if model != BIG],
    *[("sweep", model, 40) for model in MODELS if model != BIG],
]


def session(out: Path, device: str, tiny: bool) -> None:
    """Run the plan as far as the time goes; a kernel that is wrong is not timed."""
    out.mkdir(parents=True, exist_ok=True)
    begin, rows, wrong = time.monotonic(), [], set()
    with (out / "gpu.jsonl").open("w") as file, (out / "gpu.log").open("w") as log:
        for stage, argument, limit in PLAN:
            left = SESSION_SECONDS - (time.monotonic() - begin)
            if argument in wrong or left < 20:
                found = [{"stage": stage, "of": argument, "error": "left out"}]
            else:
                found = part(stage, argument, min(limit, left), device, tiny, log)
            if stage == "check" and "error" in found[-1] and "good" not in found[-1]:
                wrong.add(argument)
            for row in found:
                print(json.dumps(row), file=file, flush=True)
                print(json.dumps(row), flush=True)
            rows += found
    for line in verdicts(rows):
        print(line)


def part(
    stage: str, argument: str, limit: float, device: str, tiny: bool, log: TextIO
) -> list[dict[str, Any]]:
    """The rows of one stage, and a last one with an error if it failed or ran out of time."""
    command = [sys.executable, __file__, "--device", device, "--stage", stage, "--of", argument]
    begin = time.monotonic()
    with subprocess.Popen(
        command + ["--tiny"] * tiny, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:
        try:
            text, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate()
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if process.returncode or not rows:
        error = f"exit {process.returncode} after {time.monotonic() - begin:.0f} s, see gpu.log"
        rows.append({"stage": stage, "of": argument, "error": error})
    return rows


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """What the rows say of each target; a line a target, "not measured" where rows are missing."""
    of_model = [row for row in rows if row.get("model") == BIG and "error" not in row]
    kernels = [row for row in rows if row["stage"] == "kernel" and row.get("sparsity") == 0.8]
    best = max(kernels, key=lambda row: row["tflops"], default=None)
    dense = max((row["tflops"] for row in of_model if row["stage"] == "dense"), default=None)
    calls = [row for row in of_model if row["stage"] == "call" and not row["sink"]]
    ratio = calls[1]["ms"] / calls[0]["ms"] if len(calls) > 1 else None
    front = [row for row in of_model if row["stage"] == "front" and row["arm"] == "all"]
    lines = [
        ("kernel, at least 600 TFLOPS", best and f"{best['tflops']} ({best['arm']})"),
        ("kernel over dense, at least 0.85", best and dense and f"{best['tflops'] / dense:.3f}"),
        ("whole call over dense, at least 4", calls and f"{calls[0]['speedup']}"),
        ("before the kernel, at most 0.02 of dense", front and f"{front[0]['of_dense']}"),
        (
            "extra memory, at most q + k + v + out",
            calls and f"{calls[0].get('extra_bytes')} of {calls[0].get('qkv_and_out_bytes')} bytes",
        ),
    ]
    lines.append(("whole call with the correction, at most 1.1 of it", ratio and f"{ratio:.3f}"))
    return [f"{target}: {value or 'not measured'}" for target, value in lines]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--stage", choices=STAGES, help="run this part alone, here")
    parser.add_argument("--of", default="", help="the arm or model of the part")
    options = parser.parse_args()
    if options.stage:
        STAGES[options.stage](Bench(options.device, options.tiny), options.of)
    else:
        session(options.out, options.device, options.tiny)


if __name__ == "__main__":
    main()
