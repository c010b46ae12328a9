"""The figures of docs/evidence.md: measures them, writes its tables, and checks each claim that the defaults rest on.

    python benchmarks/evidence.py --out out/evidence              # goes on where it was stopped
    python benchmarks/evidence.py --out out/evidence --write-only # from the records that are there

Between `<!-- RUN: TITLE -->` and `<!-- end -->` the page holds a table of that run; nothing else is touched.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rf_cli.ablate_plan import EQUAL  # noqa: E402
from rf_cli.ablate_sections import interval, sections  # noqa: E402
from rf_cli.sections import Section, text  # noqa: E402

PAGE = ROOT / "docs" / "evidence.md"
RUNS = {
    # the league, the ideas and the renders
    "full": ["--renders"],
    # the sink where the first frame is one of 21 latent ones
    "long": ["--frames", "81", "--size", "128x128", "--clips", "8", "--seeds", "0", "--method", "rainfusion2"],
}  # fmt: skip
CLIP = "a large yellow circle moving right over a striped blue background"
LOOK = ["--seed", "3", "--sink", "on", "--layers", "0,1,2,3", "--query", "4,6,8"]
PLOTS = {"recall-128x128.png": "evidence-recall.png", "cost-128x128.png": "evidence-cost.png"}
BLOCK = re.compile(r"<!-- (\w+): ([^\n]+?) -->\n.*?<!-- end -->", re.DOTALL)
WEIGHTS = "weights.txt"  # what tells the transformer that was measured
Value = Mapping[str, Any]  # a mean with its interval
Records = Mapping[str, Mapping[str, Any]]


def measure(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # records name the command, and no machine's folders
    beside = Path(os.path.relpath(folder, ROOT))
    weights = ROOT / "presets/shapes/weights/transformer/diffusion_pytorch_model.safetensors"
    (folder / WEIGHTS).write_text(hashlib.sha256(weights.read_bytes()).hexdigest()[:12], "utf-8")
    for name, arguments in RUNS.items():
        command = [sys.executable, "-m", "rf_cli", "ablate", *arguments, "-o", str(beside / name)]
        begin = time.monotonic()
        subprocess.run([*command, "--resume"], check=True, cwd=ROOT)
        print(f"{name}: {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
    look = [sys.executable, "-m", "rf_cli", "inspect", CLIP, *LOOK, "-o", str(beside / "look")]
    subprocess.run([*look, "--overwrite"], check=True, cwd=ROOT)


def pictures(folder: Path) -> None:
    """Head types, and what the same heads keep over the frames: to be looked at before they are shown."""
    from PIL import Image

    heads = json.loads((folder / "record.json").read_text("utf-8"))["heads"]
    last = max(head["step"] for head in heads)
    shown: dict[bytes, dict[str, Any]] = {}  # by what is on the picture: some heads keep the same
    for kind in sorted({head["kind"] for head in heads}):
        of_kind = [head for head in heads if (head["kind"], head["step"]) == (kind, last)]
        images = {_kept(folder, head).read_bytes(): head for head in reversed(of_kind)}
        new = [picture for picture in reversed(images) if picture not in shown]
        shown |= {picture: images[picture] for picture in new[:1]}
    shutil.copyfile(folder / "types.png", PAGE.with_name("head-types.png"))
    rows = [Image.open(_kept(folder, head)) for head in shown.values()]
    whole = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    below = 0
    for row in rows:
        whole.paste(row, (0, below))
        below += row.height
    whole.save(PAGE.with_name("kept-blocks.png"))
    print(
        "pictures of:",
        ", ".join(f"{h['kind']} layer {h['layer']} head {h['head']}" for h in shown.values()),
    )


def _kept(folder: Path, head: Mapping[str, Any]) -> Path:
    return folder / f"kept-layer-{head['layer']}-head-{head['head']}.png"


def blocks(records: Records, weights: str) -> dict[tuple[str, str], str]:
    """Everything that the page can hold, as Markdown, by run and title."""
    made = {
        (run, section.title): _body(section)
        for run, record in records.items()
        for section in sections(record)
    }
    made |= {(run, "protocol"): _protocol(record, weights) for run, record in records.items()}
    made["all", "claims"] = _body(_claims(records))
    return made


def written(page: str, made: Mapping[tuple[str, str], str]) -> str:
    """The page with its blocks replaced; one that was not made is an error, never left as it was."""

    def replaced(match: re.Match[str]) -> str:
        run, title = match.groups()
        if (run, title) not in made:
            raise SystemExit(f"nothing was made for <!-- {run}: {title} -->")
        return f"<!-- {run}: {title} -->\n{made[run, title]}\n<!-- end -->"

    return BLOCK.sub(replaced, page)


def _body(section: Section) -> str:
    return text({}, [section], "md").partition("\n\n")[2].strip()


def _protocol(record: Mapping[str, Any], weights: str) -> str:
    settings, machine = record["settings"], record["environment"]
    prompts = {clip["prompt"] for clip in record["prompts"]}
    lines = [
        f"{settings['model']}, transformer {weights}, {settings['dtype']}; "
        f"{len(prompts)} prompts, {len(record['prompts'])} clips of each size ({', '.join(settings['sizes'])}), "
        f"{settings['frames']} frames, {settings['clip_steps']} steps, guidance {settings['guidance']:g}; "
        f"calls of layers {', '.join(map(str, settings['layers']))} in step "
        f"{', '.join(map(str, settings['steps']))}, conditional branch.",
        f"{machine['device_name']}, {machine['threads']} threads, torch {machine['torch']}.",
    ]
    return "\n".join(lines)


def _answers(record: Mapping[str, Any], **factors: Any) -> Iterator[Mapping[str, Any]]:
    """Paired differences, the first value of a factor minus another, in which these factors are so."""
    for answer in record["answers"]:
        if all(answer.get(name) == value for name, value in factors.items()):
            yield answer


def _claims(records: Records) -> Section:
    rows = [
        (claim, _verdict(found, holds),
         _range(found))
        for claim, found, holds in _claimed(records["full"], records.get("long"))
    ]  # fmt: skip
    note = (
        "holds: in each of the comparisons that were made (sizes, densities, sizes of blocks); the "
        "least and the greatest of their differences, each a mean with its 95 % interval"
    )
    return Section("claims", ("claim", "holds", "differences"), rows, note)


def _verdict(found: list[Value], holds: Callable[[Value], bool]) -> str:
    if not found:
        return "not measured"
    return "yes" if all(map(holds, found)) else "**no**"


def _claimed(
    full: Mapping[str, Any], long: Mapping[str, Any] | None
) -> Iterator[tuple[str, list[Value], Callable[[Value], bool]]]:
    """Claims, the differences that they are about, and what has to be true of each."""

    def above(value: Value) -> bool:
        return value["low"] > 0

    def below(value: Value) -> bool:
        return value["high"] < 0

    def of(record: Mapping[str, Any], what: str, **factors: Any) -> list[Value]:
        return _known(answer[what] for answer in _answers(record, **factors))

    means = {"group": "ideas", "factor": "representative", "order": "compact"}
    for kind in ("random", "last", "first", "max", "4 means"):
        yield (
            f"means keep more of the mass than {kind}",
            of(full, "recall", representative=kind, **means),
            above,
        )
    order = {"group": "ideas", "factor": "order", "representative": "mean"}
    yield (
        "compact blocks keep more of the mass than raster",
        of(full, "recall", order="raster", **order),
        above,
    )
    yield (
        "compact blocks have less error than raster",
        of(full, "error", order="raster", **order),
        below,
    )
    ragged = full["settings"]["sizes"][-1]
    found = of(full, "error", order="window", size=ragged, **order)
    yield f"compact blocks have less error than windows with strips ({ragged})", found, below
    oracle = of(full, "error", factor="method", method="oracle")
    yield (
        "means have no more error than the best choice by exact mass",
        oracle,
        lambda value: not above(value),
    )
    for name in ("random", "local"):
        yield (
            f"means have less error than {name}",
            of(full, "error", factor="method", method=name),
            below,
        )
    yield (
        "a sink costs error at equal density (9 latent frames)",
        _known(answer["error"] for answer in _sinks(full)),
        above,
    )
    psnr = _known(row["minus"] for row in full["renders"] if row.get("sink") == "off")
    yield "without the sink renders are nearer to dense (PSNR, 40 %)", psnr, above
    if long is not None:
        yield (
            "a sink gains nothing with 21 latent frames (error)",
            _known(answer["error"] for answer in _sinks(long)),
            lambda v: not below(v),
        )
        small = _known(answer["error"] for answer in _sinks(long) if answer["density"] >= 0.3)
        yield (
            "and costs less than 0.02 of error from 30 % kept on",
            small,
            lambda value: value["high"] < 0.02,
        )


def _known(values: Iterable[Value | None]) -> list[Value]:
    """Those that have an interval."""
    return [value for value in values if value is not None and value["low"] is not None]


def _sinks(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """With the sink minus without, where both kept the same within `EQUAL`."""
    for answer in _answers(record, group="sink"):
        place = (answer["size"], answer["density"])
        kept = [
            row["achieved"]["mean"]
            for row in record["sink"]
            if (row["size"], row["density"]) == place and "achieved" in row
        ]
        if max(kept) - min(kept) <= EQUAL:
            yield answer


def _range(found: list[Value]) -> str:
    ends = sorted(found, key=lambda value: value["mean"])
    return " to ".join(
        dict.fromkeys(interval(value, 3, sign=True) for value in ends[:1] + ends[-1:])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--write-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.write_only:
        measure(arguments.out.resolve())
    records = {
        run: json.loads((arguments.out / run / "record.json").read_text("utf-8")) for run in RUNS
    }
    weights = (arguments.out / WEIGHTS).read_text("utf-8").strip()
    PAGE.write_text(written(PAGE.read_text("utf-8"), blocks(records, weights)), "utf-8")
    for plot, name in PLOTS.items():
        shutil.copyfile(arguments.out / "full" / plot, PAGE.with_name(name))
    pictures(arguments.out / "look")
    for run, record in records.items():
        kept = {key: value for key, value in record.items() if key != "per_layer"}
        path = ROOT / "benchmarks" / "results" / f"evidence-{run}.json"
        path.write_text(json.dumps(kept, ensure_ascii=False) + "\n", "utf-8")
    for claim, holds, found in _claims(records).rows:
        print(f"{holds.strip('*'):>12}  {claim}  {found}")


if __name__ == "__main__":
    main()
