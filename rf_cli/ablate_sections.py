"""The tables of an ablation: what each idea brings, what each method keeps, what the renders show."""

from collections.abc import Mapping, Sequence
from typing import Any

from rf_cli.ablate_plan import EQUAL, IDEAS, METHODS, REACHED, SINK, near_a_fifth
from rf_cli.sections import Section

RECORD, PAGE, TABLES = "record.json", "report.html", "tables.md"
SHORT = ("recall", "of_oracle", "error")
RECALLS = ("recall", "of the oracle", "rank corr.", "error")


def sections(record: Mapping[str, Any]) -> list[Section]:
    """Tables in the order in which they are read; those without rows are left out."""
    made = [*_league(record), verdicts(record)]
    made += [_layers(record), _representatives(record), _orders(record), _sink(record)]
    made += [_renders(record)] if record["renders"] else []
    return [section for section in made if section.rows]


def brief(record: Mapping[str, Any]) -> list[Section]:
    """The same in fewer columns, half intervals and one density, for a terminal."""
    density = near_a_fifth({row["density"] for row in record[METHODS]})
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
        _layers(record),
        Section("What each idea brings", ("pair", "size", "block", "asked", "recall", "error"), answers,
                "paired by clip; order compact and block means where the pair says nothing else"),
    ]  # fmt: skip
    made += [_renders(record)] if record["renders"] else []
    return [section for section in made if section.rows]


def half(value: Mapping[str, Any] | None, digits: int, *, sign: bool = False) -> str:
    """A mean with half the width of its interval."""
    if value is None or isinstance(value["mean"], str):
        return interval(value, digits)
    width = "" if value["low"] is None else f" ±{(value['high'] - value['low']) / 2:.{digits}f}"
    return f"{value['mean']:{'+' if sign else ''}.{digits}f}{width}"


def _league(record: Mapping[str, Any]) -> list[Section]:
    """A table a density, by error; what misses the density last."""
    return [_of_density(record, density) for density in sorted(_densities(record[METHODS]))]


def _of_density(record: Mapping[str, Any], density: float) -> Section:
    renders = {
        row["method"]: row
        for row in record["renders"]
        if row["group"] == METHODS and row["density"] == density
    }
    rows = []
    for row in sorted((r for r in record[METHODS] if r["density"] == density), key=_by_error):
        rendered = renders.get(row["method"], {})
        rows.append((
            row["method"], *_found(row),
            negated(_difference(record, METHODS, "method", row, "error"), 3),
            interval(rendered.get("psnr"), 1), interval(rendered.get("minus"), 1, sign=True),
            str(rendered.get("clips", "-")), interval(row.get("predict_ms"), 2),
            interval(row.get("attention_ms"), 1), interval(row.get("dense_ms"), 1),
        ))  # fmt: skip
    columns = (
        "method", "kept", *RECALLS, "error minus rainfusion2's", "PSNR dB",
        "PSNR minus rainfusion2's", "rendered", "predict ms", "attention ms", "dense ms",
    )  # fmt: skip
    note = (
        f"{record['settings']['sizes'][0]}, {_clips(record)}; kept: share of block pairs, measured; of "
        "the oracle: recall over the best recall of as many blocks in each row of the same order; PSNR: "
        "against the dense render of the same clip, as many clips as rendered; predict: order and blocks; "
        "attention: the whole sparse call; no block is pinned"
    )
    return Section(f"Methods at {density:.0%}", columns, rows, note)


def verdicts(record: Mapping[str, Any]) -> Section:
    """Who is better or worse than rainfusion2, where the interval of the difference leaves out 0."""
    rows: list[tuple[str, ...]] = []
    for density in sorted(_densities(record[METHODS])):
        level = [r for r in record[METHODS] if r["density"] == density and reached(r)]
        kept = {row["method"]: row["achieved"]["mean"] for row in level}
        if "rainfusion2" not in kept:
            continue
        errors = {
            row["method"]: _difference(record, METHODS, "method", row, "error") for row in level
        }
        psnr = {
            row["method"]: row["minus"]
            for row in record["renders"]
            if row["group"] == METHODS and row["density"] == density and row["method"] in kept
        }
        for name, differences in (("error", errors), ("PSNR", psnr)):
            rows.append((f"{density:.0%}", name, *_sides(differences, kept)))
    columns = (
        "asked", "measure", "better than rainfusion2", "no difference seen", "worse",
        "better with more", "worse with less",
    )  # fmt: skip
    note = (
        "paired by clip; better or worse: the 95 % interval of the difference leaves out 0; with more, with "
        f"less: it keeps over {EQUAL:.0%} of the pairs more or less than rainfusion2, which may be why; without "
        "the methods that miss the density"
    )
    return Section(
        "RainFusion2.0 against the others", columns, [r for r in rows if any(r[2:])], note
    )


def _sides(
    differences: Mapping[str, Mapping[str, Any] | None], kept: Mapping[str, float]
) -> tuple[str, ...]:
    """Names in the columns of `verdicts`; a difference is positive where a method is better."""
    sides: dict[str, list[str]] = {"better": [], "same": [], "worse": [], "more": [], "less": []}
    for name, value in differences.items():
        if value is None or value["low"] is None:
            continue
        beyond = kept[name] - kept["rainfusion2"]
        if value["low"] > 0:
            sides["more" if beyond > EQUAL else "better"].append(name)
        elif value["high"] < 0:
            sides["less" if beyond < -EQUAL else "worse"].append(name)
        else:
            sides["same"].append(name)
    return tuple(", ".join(names) for names in sides.values())


def _layers(record: Mapping[str, Any]) -> Section:
    """Where sparsity costs most: the layers that `--dense-layers` is for."""
    rows = [row for row in record["per_layer"] if row["size"] == record["settings"]["sizes"][0]]
    names = [row["method"] for row in rows]
    method = "rainfusion2" if "rainfusion2" in names else next(iter(names), "")
    rows = [row for row in rows if row["method"] == method]
    density = near_a_fifth([row["density"] for row in rows]) if rows else 0.0
    found = [row for row in rows if row["density"] == density]
    cells = [
        (str(row["layer"]), interval(row["recall"], 3), interval(row["error"], 3))
        for row in sorted(found, key=lambda row: row["recall"]["mean"])
    ]
    note = (
        f"{record['settings']['sizes'][0]}, {_clips(record)}; {method}, {density:.0%} asked; the lowest "
        "recall first: --dense-layers gains most there; --layers chooses which are measured"
    )
    return Section("Layers", ("layer", "recall", "error"), cells if len(cells) > 1 else [], note)


def _densities(rows: Sequence[Mapping[str, Any]]) -> set[float]:
    return {row["density"] for row in rows if row["clips"]}


def reached(row: Mapping[str, Any]) -> bool:
    """Whether a method kept about what was asked."""
    return "achieved" in row and abs(row["achieved"]["mean"] - row["density"]) <= REACHED


def _by_error(row: Mapping[str, Any]) -> tuple[bool, float]:
    return not reached(row), row["error"]["mean"] if row.get("error") else 0.0


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
            _against(record, IDEAS, "order", row, "error"),
        )
        for row in _sorted(record[IDEAS])
        if row["representative"] == "mean" and row["block"] != 64
    ]  # fmt: skip
    columns = (
        "order", "size", "asked", "kept", *RECALLS, "oracle's recall", "compact minus it: recall", "error",
    )  # fmt: skip
    note = f"{_clips(record)}; block means; differences are paired by clip"
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
            _rendered_with(row), f"{row['density']:.0%}", f"{row['achieved']['mean']:.1%}",
            interval(row["psnr"], 2), interval(row["minus"], 2, sign=True), interval(row["ssim"], 4),
            interval(row["lpips"], 4), interval(row["agreement"], 3),
            interval(row["denoising_speedup"], 2), interval(row["attention_speedup"], 2),
            str(row["clips"]),
        )
        for row in sorted(record["renders"], key=lambda r: (r["density"], -float(r["psnr"]["mean"])))
    ]  # fmt: skip
    columns = (
        "method", "asked", "kept", "PSNR dB", "minus the first", "SSIM", "LPIPS", "agreement",
        "denoising x", "attention x", "clips",
    )  # fmt: skip
    settings = record["settings"]
    dense = interval(record["renders"][0]["dense_agreement"], 3)
    note = (
        f"{settings['sizes'][0]}, {settings['frames']} frames, {settings['clip_steps']} steps; against the "
        "dense render of the same clip; kept: of sparse calls; the first: rainfusion2, or with the sink; "
        f"agreement: share of what the prompt names that the clip shows, dense {dense}; x: times as fast as dense"
    )
    return Section("Renders, end to end", columns, rows, note)


def _rendered_with(row: Mapping[str, Any]) -> str:
    return row["method"] if row["group"] == METHODS else f"sink {row['sink']}"


def _difference(
    record: Mapping[str, Any], group: str, factor: str, row: Mapping[str, Any], what: str
) -> Mapping[str, Any] | None:
    """The paired difference of the factor's first value and this row's, if this is another."""
    for answer in record["answers"]:
        same = all(
            row.get(key) == answer[key]
            for key in answer
            if key in row and key not in ("error", "recall")
        )
        if answer["group"] == group and answer["factor"] == factor and same:
            return answer[what]
    return None


def _against(
    record: Mapping[str, Any], group: str, factor: str, row: Mapping[str, Any], what: str = "recall"
) -> str:
    found = _difference(record, group, factor, row, what)
    return "" if found is None else interval(found, 3, sign=True)


def negated(value: Mapping[str, Any] | None, digits: int) -> str:
    """The other way round: what is subtracted minus what it was subtracted from."""
    if value is None:
        return ""
    low, high = (None if value[end] is None else -value[end] for end in ("high", "low"))
    return interval({"mean": -value["mean"], "low": low, "high": high}, digits, sign=True)


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
