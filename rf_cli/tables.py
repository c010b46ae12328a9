"""Results as Rich tables: short, one fact a row."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from rf_cli.presets import Preset

SHORT = {
    "text-to-video": "t2v",
    "image-to-video": "i2v",
    "first-last-frame": "flf2v",
    "video-to-video": "v2v",
    "text-to-image": "t2i",
    "edit": "edit",
}


def _table(title: str, *columns: str, rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for number, column in enumerate(columns):
        first = number == 0
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for row in rows:
        table.add_row(*row)
    return table


def timing(record: dict[str, Any]) -> Table:
    times = record["timing_s"]
    steps, denoising = times["steps"], times["denoising"]
    share = times["attention"] / denoising if denoising else 0.0
    return _table(
        "Timing",
        "stage",
        "seconds",
        "",
        rows=[
            ("load model", f"{times['load']:.2f}", "not part of the total"),
            ("encode text", f"{times['text_encoding']:.2f}", ""),
            ("denoise", f"{denoising:.2f}", f"{len(steps)} steps"),
            ("  of it attention", f"{times['attention']:.2f}", f"{share:.0%} of denoising"),
            ("decode", f"{times['decoding']:.2f}", ""),
            (
                "total",
                f"{times['total']:.2f}",
                f"{record['peak_memory_bytes'] / 2**30:.2f} GiB peak",
            ),
        ],
    )


def sparsity(record: dict[str, Any]) -> Table:
    facts = record["sparsity"]
    reasons = facts["dense_calls_by_reason"]
    asked = ("requested", f"{facts['requested']:.1%}", "of the key blocks of each query block")
    if facts["requested"] and (mass := record["settings"].get("mass")):
        asked = ("requested", f"mass {mass:g}", "kept, as the method predicts it")
    rows = [
        asked,
        ("achieved", f"{facts['achieved']:.1%}", "of all block pairs of the whole run"),
        ("sparse calls", f"{facts['sparse_calls']} of {facts['calls']}", record["kernel"] or ""),
    ]
    rows += [("first frame", *first_frame(found)) for found in [facts["first_frame"]] if found]
    rows += [
        (f"dense: {reason}", f"{count}", record["dense_kernel"] or "")
        for reason, count in reasons.items()
    ]
    rows += [
        (f"no call: {reason}", f"{count}", "in no number above")
        for reason, count in facts["absent_calls_by_reason"].items()
    ]
    return _table("Sparsity", "", "value", "", rows=rows)


def first_frame(found: Mapping[str, Any]) -> tuple[str, str]:
    """Whether every query keeps the first frame, and by what share that was decided."""
    if not found["blocks"]:
        return "no sink", "an image has none"
    share = f"{found['blocks']} of {found['row_blocks']} key blocks that a query block keeps"
    return ("sink", share) if found["sink"] else ("no sink", f"it would be {share}")


def renders(records: Sequence[dict[str, Any]]) -> Table:
    """One row a render of many."""
    rows = [
        (
            Path(record["video"]).name,
            f"{record['timing_s']['total']:.2f}",
            f"{record['sparsity']['achieved']:.1%}",
            f"{record['sparsity']['sparse_calls']}/{record['sparsity']['calls']}",
        )
        for record in records
    ]
    title = f"{len(records)} renders in {Path(records[0]['video']).parent}"
    return _table(title, "file", "seconds", "sparsity", "sparse calls", rows=rows)


def is_idle(record: dict[str, Any]) -> bool:
    """Whether a cache was asked for and skipped nothing."""
    return record["settings"]["cache"] != "none" and not record["sparsity"]["absent_calls"]


def speedup(record: dict[str, Any]) -> Table | None:
    speed = record["attention_speed"]
    if speed is None:
        return None
    shape = (
        f"{speed['tokens']} tokens x {speed['heads']} heads x {speed['head_dim']}, {speed['dtype']}"
    )
    return _table(
        "Speed-up of attention, measured on one call of this run",
        "kernel",
        "ms",
        "",
        rows=[
            (f"dense: {speed['dense_kernel']}", f"{speed['dense_ms']:.2f}", shape),
            (f"sparse: {speed['kernel']}", f"{speed['sparse_ms']:.2f}", "selection included"),
            ("speed-up", f"{speed['speedup']:.2f}x", "of attention, not of the whole render"),
        ],
    )


def layers(record: dict[str, Any]) -> Table:
    return _table(
        "Layers",
        "layer",
        "sparse calls",
        "achieved",
        "attention s",
        rows=[
            (
                f"{row['transformer']} {row['layer']}",
                f"{row['sparse_calls']} of {row['calls']}",
                f"{row['sparsity']:.1%}",
                f"{row['attention_s']:.2f}",
            )
            for row in record["sparsity"]["per_layer"]
        ],
    )


def models(presets: Iterable[tuple[Preset, bool]]) -> Table:
    """A line a preset, within the 80 columns of a small terminal."""
    table = Table(
        title="Models", title_justify="left", title_style="bold", header_style="dim",
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False,
        caption="weights: parameters of the transformer; here: on this machine",
        caption_justify="left",
    )  # fmt: skip
    for column in ("name", "does", "weights", "size", "here"):
        left = column in ("name", "does")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for preset, here in presets:
        video = preset.video
        table.add_row(
            preset.name + (f" ({', '.join(preset.aliases)})" if preset.aliases else ""),
            " ".join(SHORT[task] for task in preset.tasks),
            ("2x" if preset.transformer.count == 2 else "") + _count(preset.parameters),
            f"{video.width}x{video.height}",
            "yes" if here else "no",
        )
    return table


def tokens(preset: Preset) -> int:
    video = preset.video
    return video.tokens(video.width, video.height, video.frames)


def weights_gib(preset: Preset) -> float:
    """Memory of the transformers' weights in the preset's dtype; an estimate without activations."""
    size = {"float32": 4, "bfloat16": 2, "float16": 2}[preset.model.dtype]
    return preset.transformer.count * preset.parameters * size / 2**30


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e8 else f"{parameters / 1e6:.1f}M"
