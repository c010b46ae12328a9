"""The record of an ablation: means over clips with bootstrap intervals, and paired differences, as plain JSON values.

A clip's value is the mean over its captured calls. Seeds of one prompt are drawn together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from statistics import fmean, median
from typing import Any

from rainfusion_core.study.intervals import bootstrap
from rf_cli.ablate_plan import IDEAS, METHODS, SINK, Entry
from rf_cli.ablate_run import Ablation
from rf_cli.compare_record import plain

MEASURED = ("density", "recall", "best_recall", "rank_correlation", "error")
TIMES = ("predict_ms", "attention_ms", "dense_ms")
RENDERED = ("density", "psnr", "ssim", "lpips", "agreement", "dense_agreement")
FIRSTS = {  # by group: the value of each factor that the others are held against
    METHODS: {"method": "rainfusion2"},
    IDEAS: {"representative": "mean", "order": "compact"},
    SINK: {"sink": "on"},
}
Values = dict[int, float]  # by clip
Calls = dict[int, list[dict[str, Any]]]  # outcomes of all calls, by clip


def record(ablation: Ablation, *, command: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was found, from the cells that are finished."""
    plan = ablation.plan
    found = {
        (number, size): _calls(ablation, entry, size)
        for number, entry in enumerate(plan.entries)
        for size in plan.clips
        if entry in plan.entries_of(size)
    }
    rows: dict[str, list[dict[str, Any]]] = {IDEAS: [], SINK: [], METHODS: []}
    layers: list[dict[str, Any]] = []
    for (number, size), calls in found.items():
        entry = plan.entries[number]
        facts = {"size": size, **entry.factors}
        summary = _summary(ablation, size, calls)
        rows[entry.group].append({**facts, **summary})
        if entry.group == METHODS:
            layers += [{**facts, **each} for each in _by_layer(ablation, size, calls)]
    return plain({
        "command": command,
        "environment": dict(environment),
        "settings": {**ablation.facts, "layers": list(plan.layers), "steps": list(plan.steps),
                     **_clip_settings(plan.clips)},
        "prompts": _prompts(plan.clips),
        **rows,
        "per_layer": layers,
        "answers": list(_answers(ablation, found)),
        "renders": _renders(ablation),
        "counts": {"measured": ablation.measured, "reused": ablation.reused,
                   "captured": ablation.captured},
    })  # fmt: skip


def _clip_settings(clips: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    first = next(iter(clips.values()))[0]
    shared = {key: getattr(first, key) for key in ("frames", "guidance")}
    return {**shared, "clip_steps": first.steps, "sizes": list(clips)}


def _prompts(clips: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [{"prompt": clip.prompt, "seed": clip.seed} for clip in next(iter(clips.values()))]


def _calls(ablation: Ablation, entry: Entry, size: str) -> Calls:
    """Outcomes of every clip that has all of its calls."""
    places = [(layer, step) for layer in ablation.plan.layers for step in ablation.plan.steps]
    calls: Calls = {}
    for index in range(len(ablation.plan.clips[size])):
        cells = [ablation.cells.get(ablation.key(entry, size, index, where)) for where in places]
        if all(cell is not None for cell in cells):
            calls[index] = [
                {**cell, "layer": layer}
                for cell, (layer, _) in zip(cells, places, strict=True)
                if cell is not None
            ]
    return calls


def _summary(ablation: Ablation, size: str, calls: Calls) -> dict[str, Any]:
    if not calls:
        return {"clips": 0}
    refusals = [cell["unsupported"] for cells in calls.values() for cell in cells]
    if any(refusals):
        return {"clips": len(calls), "unsupported": next(filter(None, refusals))}
    summary: dict[str, Any] = {"clips": len(calls)}
    for name in MEASURED:
        key = "achieved" if name == "density" else name  # "density" is what was asked for
        summary[key] = _interval(ablation, size, _means(calls, name))
    shares = {
        index: fmean(c["recall"] / c["best_recall"] for c in cells)
        for index, cells in calls.items()
    }
    summary["of_oracle"] = _interval(ablation, size, shares)
    for name in TIMES:
        summary[name] = _interval(ablation, size, _means(calls, name, median))
    return summary


def _by_layer(ablation: Ablation, size: str, calls: Calls) -> Iterator[dict[str, Any]]:
    for layer in ablation.plan.layers:
        own = {i: [c for c in cells if c["layer"] == layer] for i, cells in calls.items()}
        if own and not any(cell["unsupported"] for cells in own.values() for cell in cells):
            values = {n: _interval(ablation, size, _means(own, n)) for n in ("recall", "error")}
            yield {"layer": layer, **values}


def _means(
    calls: Calls, name: str, centre: Callable[[list[float]], float] = fmean
) -> Values | None:
    """Each clip's mean over its calls; None where a clip has no such value."""
    known = {i: [c[name] for c in cells if c[name] is not None] for i, cells in calls.items()}
    return {i: centre(v) for i, v in known.items()} if all(known.values()) else None


def _interval(ablation: Ablation, size: str, values: Values | None) -> dict[str, Any] | None:
    """Mean over clips with its interval, the seeds of a prompt drawn together."""
    if not values:
        return None
    groups: dict[str, list[float]] = {}
    for index, value in values.items():
        groups.setdefault(ablation.plan.clips[size][index].prompt, []).append(value)
    return asdict(bootstrap(list(groups.values())))


def _answers(
    ablation: Ablation, found: Mapping[tuple[int, str], Calls]
) -> Iterator[dict[str, Any]]:
    """Paired differences: of everything the same but one factor, its first value minus another."""
    entries = ablation.plan.entries
    for (number, size), calls in found.items():
        entry = entries[number]
        for factor, first in FIRSTS[entry.group].items():
            other = next(
                (n for n, e in enumerate(entries) if e.group == entry.group
                 and e.factors == {**entry.factors, factor: first}),
                number,
            )  # fmt: skip
            if other == number:
                continue
            pair = found[other, size], calls
            differences = {n: _difference(ablation, size, *pair, n) for n in ("recall", "error")}
            if differences["recall"] is not None:
                yield {
                    "group": entry.group, "factor": factor, "first": first, "size": size,
                    **entry.factors, **differences,
                }  # fmt: skip


def _difference(
    ablation: Ablation, size: str, first: Calls, second: Calls, name: str
) -> dict[str, Any] | None:
    both = sorted(first.keys() & second.keys())
    cells = [cell for calls in (first, second) for i in both for cell in calls[i]]
    if not both or any(cell["unsupported"] or cell[name] is None for cell in cells):
        return None
    values = {
        index: fmean(c[name] for c in first[index]) - fmean(c[name] for c in second[index])
        for index in both
    }
    return _interval(ablation, size, values)


def _renders(ablation: Ablation) -> list[dict[str, Any]]:
    """What was rendered, `minus` being the PSNR minus that of the first of the group on the same clips."""
    size = ablation.plan.first_size
    wanted = {id(entry) for _, entry in ablation.plan.renders()}
    rows = []
    for entry in ablation.plan.entries:
        cells = _rendered(ablation, entry, size) if id(entry) in wanted else {}
        if not cells:
            continue
        values = {
            name: {i: float(cell[name]) for i, cell in cells.items() if cell[name] is not None}
            for name in RENDERED
        }
        for stage in ("denoising", "attention"):
            values[f"{stage}_speedup"] = {
                i: cell["dense_times"][stage] / cell["times"][stage] for i, cell in cells.items()
            }
        summary = {name: _interval(ablation, size, each) for name, each in values.items()}
        minus = _interval(ablation, size, _psnr_minus_first(ablation, entry, size, cells))
        rows.append(
            {
                "size": size, "group": entry.group, **entry.factors, "clips": len(cells),
                "achieved": summary.pop("density"), "minus": minus, **summary,
            }
        )  # fmt: skip
    return rows


def _rendered(ablation: Ablation, entry: Entry | None, size: str) -> dict[int, dict[str, Any]]:
    """Finished renders by clip."""
    return {
        index: cell
        for index in range(len(ablation.plan.clips[size]))
        if entry is not None
        and (cell := ablation.cells.get(ablation.render_key(entry, size, index))) is not None
    }


def _psnr_minus_first(
    ablation: Ablation, entry: Entry, size: str, cells: Mapping[int, Mapping[str, Any]]
) -> Values:
    wanted = {**entry.factors, **FIRSTS[entry.group]}
    alike = (e for e in ablation.plan.entries if (e.group, e.factors) == (entry.group, wanted))
    first = next(alike, None)
    if first is entry:
        return {}
    others = _rendered(ablation, first, size)
    pairs = {i: (cells[i]["psnr"], others[i]["psnr"]) for i in cells.keys() & others.keys()}
    return {i: a - b for i, (a, b) in sorted(pairs.items()) if isfinite(a) and isfinite(b)}
