"""The record of a profile as sections: every table says whether it was measured or estimated."""

from collections.abc import Mapping, Sequence
from typing import Any

from rf_cli.sections import Section

RANDOM_WEIGHTS = "Random weights prove speed, not quality."


def sections(record: Mapping[str, Any]) -> list[Section]:
    if "models" in record:
        return [models(record)]
    found = [breakdown(record), predictions(record), what_it_takes(record), sizes(record)]
    if record["stages"]:
        found.insert(1, stages(record))
    return [*found, measured(record)] if record["measured"] else found


def breakdown(record: Mapping[str, Any]) -> Section:
    work, arms = record["workload"], record["arms"]
    names = dict.fromkeys(part for arm in arms for part in arm["parts_s"])
    ordered = sorted(names, key=lambda part: not part.startswith("attention"))
    rows = [(part, *(_ms(arm["parts_s"].get(part)) for arm in arms)) for part in ordered]
    rows += [
        ("sum of parts", *(_ms(arm["sum_of_parts_s"]) for arm in arms)),
        ("forward pass", *(_ms(arm["seconds"]) for arm in arms)),
        ("sum / pass", *(f"{arm['sum_of_parts_s'] / arm['seconds']:.1%}" for arm in arms)),
        ("block pairs kept", *(f"{arm['density']:.1%}" for arm in arms)),
        ("kernel", *(arm["kernel"] for arm in arms)),
    ]
    if work["layers_run"] < work["layers"]:
        label = f"all {work['layers']} layers (estimate)"
        rows.append((label, *(_ms(arm["estimate_all_layers_s"]) for arm in arms)))
    return Section(
        f"{work['model']}, {work['size']} x {work['frames']} frames: "
        f"{work['tokens']} tokens, ms of a forward pass",
        [
            "part",
            *map(arm_name, arms),
        ],
        rows,
        _breakdown_note(work, arms),
    )


def arm_name(arm: Mapping[str, Any]) -> str:
    return f"{arm['method']} {arm['sparsity']:g}" if arm["sparsity"] else "dense"


def _breakdown_note(work: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> str:
    repeats, sparse = len(arms[0]["seconds_of_all"]), arms[-1]
    alike = (
        " The layers are alike, so theirs are multiplied."
        if work["layers_run"] < work["layers"]
        else ""
    )
    lines = [
        f"Measured on {work['device']} in {work['dtype']}: {work['layers_run']} of {work['layers']} "
        f"layers, median of {repeats} passes; a step has {work['passes']}.{alike}",
        '"rest": rotary embedding, modulation and residuals, what is left of a module without its '
        "submodules.",
    ]
    settings = {"order": sparse["order"], **sparse["options"]}
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    lines.append(f"{sparse['method']}: {told}. {_sinks(arms)}")
    if work["cut"]:
        lines.append(f"Cut: {work['cut']}.")
    if work["weights"] == "random":
        lines.append(RANDOM_WEIGHTS)
    return "\n".join(lines)


def _sinks(arms: Sequence[Mapping[str, Any]]) -> str:
    """At which sparsities every query keeps the first frame."""
    at = [f"{a['sparsity']:g}" for a in arms if a["first_frame"] and a["first_frame"]["sink"]]
    return f"First frame: a sink at sparsity {', '.join(at)}." if at else "First frame: no sink."


def predictions(record: Mapping[str, Any]) -> Section:
    work = record["workload"]
    other = sum(record["stages"].values()) if record["stages"] else 0.0
    columns = [
        "sparsity", "dense steps", "dense layers", "attention", "dense s", "sparse s", "speed-up"
    ]  # fmt: skip
    rows = []
    for row in record["predictions"]:
        cells = [
            f"{row['sparsity']:g}",
            _schedule(row),
            ", ".join(map(str, row["dense_layers"])) or "none",
            _times(row["attention_speedup"]),
            _s(row["dense_s"]),
            _s(row["denoising_s"]),
            _times(row["speedup"]),
        ]
        if other:
            cells.append(_times((row["dense_s"] + other) / (row["denoising_s"] + other)))
        rows.append(cells)
    if other:
        columns.append("whole render")
    return Section(
        f"Predicted denoising of {work['steps']} steps (estimate)",
        columns,
        rows,
        f"Estimate: {record['formula']}.",
    )


def _schedule(row: Mapping[str, Any]) -> str:
    first, last = row["dense_steps"], row["dense_last_steps"]
    return (f"{first:g}" + (f",{last:g}" if last else "")) if first or last else "none"


def what_it_takes(record: Mapping[str, Any]) -> Section:
    rows = [
        (
            f"sparsity for {target}x",
            f"{least:g}" if least is not None else "not reached",
            "estimate",
        )
        for target, least in record["sparsity_needed"].items()
    ]
    rows += [
        (f"break-even at {each['sparsity']:g}", each["text"], "measured, interpolated")
        for each in record["break_even"]
    ]
    return Section(
        "What it takes",
        ["", "value", ""],
        rows,
        "Sparsity with the dense steps and layers, kernel time taken as linear in the kept pairs. "
        "Break-even: one attention call alone, sparse as fast as dense.",
    )


def sizes(record: Mapping[str, Any]) -> Section:
    return Section(
        "Sizes of the preset",
        ["size", "frames", "tokens", "weights", "activations"],
        [
            (
                row["size"],
                str(row["frames"]),
                str(row["tokens"]),
                f"{row['weights_gib']:.2f} GiB",
                f"{row['activations_gib']:.2f} GiB",
            )
            for row in record["sizes"]
        ],
        "Memory is an estimate for the transformer: parameters x bytes, and tokens x (9 widths or "
        "3 widths + 2 inner widths of the MLP, whichever is more, and 2 widths in float32).",
    )


def stages(record: Mapping[str, Any]) -> Section:
    return Section(
        "Other stages",
        ["stage", "seconds"],
        [(name, _s(seconds)) for name, seconds in record["stages"].items()],
        "Measured with random weights; a text encoder of many layers by two of them. The same in "
        "a dense and in a sparse render.",
    )


def measured(record: Mapping[str, Any]) -> Section:
    columns = ["sparsity", "what", "dense s", "sparse s", "speed-up", "predicted", "off by"]
    rows = [
        (
            f"{row['sparsity']:g}",
            row["what"],
            _s(row["dense_s"]),
            _s(row["sparse_s"]),
            _times(row["speedup"]),
            _times(row["predicted_speedup"]),
            f"{row['predicted_speedup'] / row['speedup'] - 1:+.1%}",
        )
        for row in record["measured"]
    ]
    return Section(
        "Prediction and measurement",
        columns,
        rows,
        "Measured: one render each after a discarded one, with the dense steps and layers. The "
        "prediction of the whole render takes text encoding and decoding as both renders had them.",
    )


def models(record: Mapping[str, Any]) -> Section:
    rows: Sequence[Mapping[str, Any]] = record["models"]
    return Section(
        "All presets (estimates by formula)",
        ["model", "clip", "tokens", "attention", "sparsity", "sparse calls", "speed-up"],
        [
            (
                row["model"],
                f"{row['size']}x{row['frames']}",
                str(row["tokens"]),
                f"{row['attention_share']:.0%}",
                f"{row['sparsity']:g}",
                f"{row['sparse_share']:.0%}",
                _times(row["speedup"]),
            )
            for row in rows
        ],
        f"Estimate: {record['formula']}.",
    )


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.1f}"


def _s(seconds: float) -> str:
    return f"{seconds:.2f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"
