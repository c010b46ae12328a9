"""The tables of a comparison, once as rows for the report page and once as Rich tables."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from rf_cli import tables
from rf_cli.console import of_others


class Rows(NamedTuple):
    """A table without a look: the first column is text, the others are values."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def all_rows(record: dict[str, Any]) -> Iterator[Rows]:
    """Quality of any comparison; times and sparsity where arms were rendered."""
    arms = record["arms"]
    if "timing_s" in arms[0]:
        yield _times(arms, record["environment"]["device"])
        yield _sparsity(arms)
    yield _quality(record)


def rich_tables(record: dict[str, Any]) -> Iterator[Table]:
    for rows in all_rows(record):
        table = Table(
            title=rows.title, title_justify="left", title_style="bold", header_style="dim",
            caption=rows.note or None, caption_justify="left",
        )  # fmt: skip
        for number, column in enumerate(rows.columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows.rows:
            table.add_row(*row)
        yield table


def _times(arms: list[dict[str, Any]], device: str) -> Rows:
    count = arms[0]["timing_s"]["total"]["count"]
    note = (
        f"median of {count}, lowest to highest, speed-up"
        if count > 1
        else "one run each: no spread known"
    )
    if not device.startswith("cuda"):
        note += "; memory: the highest of the whole process until then"
    runs = [run for arm in arms for clip in arm["clips"] for run in clip["runs"]]
    if (others := of_others(run["others"] for run in runs)) is not None:
        note += f"; {others}"
    rows = [
        (arm["name"], *(_time(arm, stage) for stage in ("total", "denoising", "attention")),
         f"{arm['peak_memory_bytes'] / 2**30:.2f} GiB")
        for arm in arms
    ]  # fmt: skip
    columns = ("arm", "whole render", "denoising", "attention", "peak memory")
    return Rows("Time and speed-up over dense", columns, rows, note)


def _time(arm: dict[str, Any], stage: str) -> str:
    seconds, speedup = arm["timing_s"][stage], arm["speedup"][stage]
    text = f"{seconds['median']:.2f} s"
    if seconds["count"] > 1:
        text += f"\n{seconds['min']:.2f} to {seconds['max']:.2f}"
    return f"{text}\n{_mean(speedup, 2)}x" if speedup else text


def _sparsity(arms: list[dict[str, Any]]) -> Rows:
    rows = [
        (
            arm["name"],
            _requested(arm),
            f"{arm['sparsity']['achieved']:.1%}",
            _first_frame(arm["sparsity"]["first_frame"]),
            arm["kernel"] or "none",
            arm["dense_kernel"] or "none",
            _left_dense(arm["sparsity"]),
        )
        for arm in arms
    ]
    columns = (
        "arm",
        "requested",
        "achieved",
        "first frame",
        "kernel",
        "dense kernel",
        "left dense",
    )
    note = "achieved: of all block pairs, dense steps and layers included"
    return Rows("Sparsity", columns, rows, note)


def _requested(arm: dict[str, Any]) -> str:
    sparsity, mass = arm["sparsity"]["requested"], arm["config"].get("mass")
    return f"mass {mass:g}" if mass and sparsity else f"{sparsity:.1%}"


def _first_frame(found: dict[str, Any] | None) -> str:
    return "-" if found is None else tables.first_frame(found)[0]


def _left_dense(sparsity: dict[str, Any]) -> str:
    texts = []
    for group in sparsity["left_dense"]:
        if group["reason"] == "sparsity 0":
            texts.append("everything")
        elif group["reason"] == "dense step":
            texts.append(f"steps {ranges(group['steps'])}")
        elif group["reason"] == "dense layer":
            texts.append(f"layers {ranges(group['layers'])}")
        else:
            texts.append(f"{group['calls']} calls: {group['reason']}")
    absent = sparsity["absent_calls_by_reason"].items()
    texts += [f"{count} layers without a call: {reason}" for reason, count in absent]
    return "; ".join(texts) or "nothing"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, runs joined: 0-3, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _quality(record: dict[str, Any]) -> Rows:
    rows = []
    for arm in record["arms"]:
        metrics = arm["metrics"]
        flicker = _mean(metrics["flicker"], 5)
        rows.append((
            arm["name"], _mean(metrics["psnr"], 2), _mean(metrics["ssim"], 4),
            _mean(metrics["lpips"], 4), flicker, _mean(metrics["latent_cosine"], 5),
        ))  # fmt: skip
    clips = record["clips"]
    note = "against the first arm; "
    note += f"mean and 95 % interval (Student t) over {clips} clips" if clips > 1 else "one clip"
    note += f"; {record['source']}"
    columns = ("arm", "PSNR dB", "SSIM", "LPIPS", "flicker", "latent cosine")
    return Rows("Quality", columns, rows, note)


def _mean(value: dict[str, Any] | None, digits: int) -> str:
    if value is None:
        return "-"
    if value["mean"] == "Infinity":
        return "infinite"
    text = f"{value['mean']:.{digits}f}"
    # an arm against itself does not vary
    return f"{text} ± {value['half_width']:.{digits}f}" if value["half_width"] else text
