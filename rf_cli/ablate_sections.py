"""The tables of an ablation: what each idea brings, what each method keeps, what the renders show."""

from collections.abc import Mapping, Sequence
from typing import Any

from rf_cli.ablate_plan import IDEAS, METHODS, SINK
from rf_cli.sections import Section

RECORD, PAGE = "record.json", "report.html"
SHORT = ("recall", "of_oracle", "error")
RECALLS = ("recall", "of the oracle", "rank corr.", "error")


def sections(record: Mapping[str, Any]) -> list[Section]:
    """Tables in the order in which they are read; those without rows are left out."""
    made = [_league(record), _representatives(record), _orders(record), _sink(record)]
    made += [_renders(record)] if record["renders"] else []
    return [section for section in made if section.rows]


def brief(record: Mapping[str, Any]) -> list[Section]:
    """The same in fewer columns, half intervals and one density, for a terminal."""
    density = near_a_fifth(record[METHODS])
    league = [
        (
            row["method"], row["size"], _found(row)[0], *(half(row.get(n), 3) for n in SHORT),
            half(row.get("predict_ms"), 2), half(row.get("attention_ms"), 1),
        )
        for row in _sorted(record[METHODS])
        if row["density"] == density
    ]  # fmt: skip
    columns = (
        "method",
        "size",
        "kept",
        "recall",
        "of oracle",
        "error",
        "predict ms",
        "attention ms",
    )
    answers = [
        (
            f"{a['factor']} {a['first']} - {a[a['factor']]}", a["size"], str(a.get("block", "")),
            f"{a['density']:.0%}", half(a["recall"], 3, sign=True), half(a["error"], 3, sign=True),
        )
        for a in record["answers"]
        if a["group"] != METHODS
        if a.get("order", "compact") == "compact" or (a["factor"], a["representative"]) == ("order", "mean")
    ]  # fmt: skip
    made = [
        Section(f"Methods, {density:.0%} asked", columns, league, _clips(record)),
        Section("What each idea brings", ("pair", "size", "block", "asked", "recall", "error"), answers,
                "paired by clip; order compact and block means where the pair says nothing else"),
    ]  # fmt: skip
    made += [_renders(record)] if record["renders"] else []
    return [section for section in made if section.rows]


def near_a_fifth(rows: Sequence[Mapping[str, Any]]) -> float:
    """The density nearest to 20 %, which every scale measures."""
    return min({row["density"] for row in rows}, key=lambda density: abs(density - 0.2))


def half(value: Mapping[str, Any] | None, digits: int, *, sign: bool = False) -> str:
    """A mean with half the width of its interval."""
    if value is None or isinstance(value["mean"], str):
        return interval(value, digits)
    width = "" if value["low"] is None else f" ±{(value['high'] - value['low']) / 2:.{digits}f}"
    return f"{value['mean']:{'+' if sign else ''}.{digits}f}{width}"


def _league(record: Mapping[str, Any]) -> Section:
    rows = [
        (
            row["method"], row["size"], f"{row['density']:.0%}", *_found(row),
            _against(record, METHODS, "method", row, "error"),
            interval(row.get("predict_ms"), 2), interval(row.get("attention_ms"), 1),
            interval(row.get("dense_ms"), 1),
        )
        for row in _sorted(record[METHODS])
    ]  # fmt: skip
    columns = (
        "method", "size", "asked", "kept", *RECALLS, "rainfusion2's error minus it", "predict ms",
        "attention ms", "dense ms",
    )  # fmt: skip
    note = (
        f"{_clips(record)}; kept: share of block pairs, measured; of the oracle: recall over the best "
        "recall of as many blocks in each row of the same order; predict: order and blocks; "
        "attention: the whole sparse call; no block is pinned"
    )
    return Section("Methods at equal density", columns, rows, note)


def _sorted(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By size and density, the best recall first, what a method cannot take last."""

    def place(row: Mapping[str, Any]) -> tuple[str, float, float]:
        return row["size"], row["density"], -row["recall"]["mean"] if row.get("recall") else 1.0

    return sorted((row for row in rows if row["clips"]), key=place)


def _found(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "unsupported" in row:
        return ("cannot", *["-"] * len(RECALLS))
    return (
        f"{row['achieved']['mean']:.1%}",
        *(interval(row[n], 3) for n in ("recall", "of_oracle", "rank_correlation", "error")),
    )


def _representatives(record: Mapping[str, Any]) -> Section:
    rows = [
        (
            row["representative"], row["size"], str(row["block"]), f"{row['density']:.0%}",
            *_found(row), _against(record, IDEAS, "representative", row),
        )
        for row in _sorted(record[IDEAS])
        if row["order"] == "compact"
    ]  # fmt: skip
    columns = ("representative", "size", "block", "asked", "kept", *RECALLS, "mean is better by")
    note = f"{_clips(record)}; order compact; last column: recall of means minus recall, paired by clip"
    return Section("Representatives of a block", columns, rows, note)


def _orders(record: Mapping[str, Any]) -> Section:
    rows = [
        (
            row["order"], row["size"], f"{row['density']:.0%}", *_found(row),
            interval(row.get("best_recall"), 3), _against(record, IDEAS, "order", row),
        )
        for row in _sorted(record[IDEAS])
        if row["representative"] == "mean" and row["block"] != 64
    ]  # fmt: skip
    columns = (
        "order",
        "size",
        "asked",
        "kept",
        *RECALLS,
        "oracle's recall",
        "compact is better by",
    )
    note = f"{_clips(record)}; block means; last column: recall of compact minus recall, paired by clip"
    return Section("Token orders", columns, rows, note)


def _sink(record: Mapping[str, Any]) -> Section:
    rows = [
        (
            row["sink"], row["size"], f"{row['density']:.0%}", *_found(row),
            _against(record, SINK, "sink", row), _against(record, SINK, "sink", row, "error"),
        )
        for row in _sorted(record[SINK])
    ]  # fmt: skip
    columns = (
        "sink", "size", "asked", "kept", *RECALLS, "on minus off: recall", "error",
    )  # fmt: skip
    note = (
        f"{_clips(record)}; block means; the first frame is pinned, and counts against the density"
    )
    return Section("First-frame sink", columns, rows, note)


def _renders(record: Mapping[str, Any]) -> Section:
    rows = [
        (
            row["method"], f"{row['density']:.0%}", f"{row['achieved']['mean']:.1%}",
            interval(row["psnr"], 2), interval(row["ssim"], 4), interval(row["lpips"], 4),
            interval(row["agreement"], 3), interval(row["denoising_speedup"], 2),
            interval(row["attention_speedup"], 2), str(row["clips"]),
        )
        for row in sorted(record["renders"], key=lambda r: (r["density"], -r["psnr"]["mean"]))
    ]  # fmt: skip
    columns = (
        "method", "asked", "kept", "PSNR dB", "SSIM", "LPIPS", "agreement", "denoising x",
        "attention x", "clips",
    )  # fmt: skip
    dense = interval(record["renders"][0]["dense_agreement"], 3)
    note = (
        "against the dense render of the same clip; kept: of sparse calls; agreement: share of what the "
        f"prompt names that the clip shows, dense {dense}; x: times as fast as dense"
    )
    return Section("Renders, end to end", columns, rows, note)


def _against(
    record: Mapping[str, Any], group: str, factor: str, row: Mapping[str, Any], what: str = "recall"
) -> str:
    """The paired difference of the factor's first value and this row's, if this is another."""
    for answer in record["answers"]:
        same = all(
            row.get(key) == answer[key]
            for key in answer
            if key in row and key not in ("error", "recall")
        )
        if answer["group"] == group and answer["factor"] == factor and same:
            return interval(answer[what], 3, sign=True)
    return ""


def _clips(record: Mapping[str, Any]) -> str:
    counts = sorted({row["clips"] for row in record[METHODS] if row["clips"]})
    said = " to ".join(map(str, {counts[0], counts[-1]})) if counts else "no"
    return f"{said} clips of each size, mean [95 % bootstrap interval over prompts]"


def interval(value: Mapping[str, Any] | None, digits: int, *, sign: bool = False) -> str:
    """A mean and its interval as text."""
    if value is None:
        return "-"
    form = f"{'+' if sign else ''}.{digits}f"
    if isinstance(value["mean"], str):
        return "infinite"
    text = f"{value['mean']:{form}}"
    if value["low"] is None:
        return text
    return f"{text} [{value['low']:{form}}, {value['high']:{form}}]"
