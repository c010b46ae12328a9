"""Runs an ablation into its folder: captures calls, asks every variant, renders; keeps each finished cell."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rainfusion_core.config import SparseConfig
from rf_cli import media, saving
from rf_cli.ablate_plan import REACHED, Entry, Plan
from rf_cli.cells import Cells
from rf_cli.progress import Report

if TYPE_CHECKING:
    from rainfusion_core.metrics import Perceptual
    from rainfusion_core.recording import CapturedCall
    from rainfusion_core.render import Clip
    from rainfusion_core.report import StageTimes

CAPTURES, RENDERS, CELLS = "captures", "renders", "cells.jsonl"


def clear(folder: Path) -> None:
    """Remove what an earlier ablation keeps for the next one, and nothing else."""
    kept = [*(folder / CAPTURES).glob("*.safetensors"), *(folder / RENDERS).glob("*.npz")]
    for path in (folder / CELLS, *kept):
        path.unlink(missing_ok=True)


class Ablation:
    """What is measured with one model, and what of it is there.

    Args:
        load: returns the pipeline; called only if something must be captured or rendered.
        facts: the model, its weights and the versions that measure it.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        load: Callable[[], Any],
        facts: Mapping[str, Any],
        perceptual: "Perceptual | None" = None,
    ) -> None:
        self.folder, self.plan, self.facts = folder, plan, dict(facts)
        self.perceptual = perceptual
        self.cells = Cells(folder / CELLS)
        self.reused = self.measured = self.captured = 0
        self._load, self._pipeline = load, None
        self._dense_judged: dict[int, float | None] = {}  # by clip: every method asks for it
        for part in (CAPTURES, RENDERS):
            (folder / part).mkdir(parents=True, exist_ok=True)

    @property
    def pipeline(self) -> Any:
        if self._pipeline is None:
            self._pipeline = self._load()
        return self._pipeline

    def measure(self, report: Report) -> None:
        """All variants on all captured calls, clip after clip, so that an early end is a fair one."""
        from rainfusion_core.study.ablation import examine

        total = sum(map(len, self.plan.clips.values()))
        for number, (size, index, clip) in enumerate(self._clips()):
            report("measuring clips", number, total)
            asked = len(self.plan.entries_of(size))
            if not any(self._missing(size, index, where) for where in self._places()):
                self.reused += len(self._places()) * asked
                continue
            for call in self._calls(size, index, clip):
                missing = self._missing(size, index, (call.layer, call.step))
                self.reused += asked - len(missing)
                variants = [entry.variant for entry in missing]
                found = examine(call, variants, steps=clip.steps)
                for entry, (_, outcome) in zip(missing, found, strict=True):
                    key = self.key(entry, size, index, (call.layer, call.step))
                    self.cells.put(key, asdict(outcome))
                    self.measured += 1

    def render(self, report: Report) -> None:
        """End to end, each clip against its dense render; not what misses the density on the calls."""
        size = self.plan.first_size
        wanted = [each for each in self.plan.renders() if self._reaches(each[1], size)]
        for number, (index, entry) in enumerate(wanted):
            report("rendering clips", number, len(wanted))
            key = self.render_key(entry, size, index)
            if self.cells.get(key) is not None:
                self.reused += 1
                continue
            self.cells.put(key, self._rendered(size, index, entry))
            self.measured += 1

    def _reaches(self, entry: Entry, size: str) -> bool:
        """Whether a variant keeps, on the calls that were measured, about what it is asked for."""
        found = [
            cell
            for index in range(len(self.plan.clips[size]))
            for where in self._places()
            if (cell := self.cells.get(self.key(entry, size, index, where))) is not None
        ]
        if not found:
            return True
        if any(cell["unsupported"] for cell in found):
            return False
        kept = sum(cell["density"] for cell in found) / len(found)
        return abs(kept - entry.factors["density"]) <= REACHED

    def key(self, entry: Entry, size: str, index: int, where: tuple[int, int]) -> dict[str, Any]:
        """Everything that decides the value of a cell, but for what `facts` says of all of them."""
        layer, step = where
        return {
            "clip": self._clip_key(size, index),
            "layer": layer,
            "step": step,
            "variant": _variant_key(entry),
        }

    def render_key(self, entry: Entry, size: str, index: int) -> dict[str, Any]:
        return {"render": self._clip_key(size, index), "variant": _variant_key(entry)}

    def _clip_key(self, size: str, index: int) -> dict[str, Any]:
        return {**self.facts, **_clip_facts(self.plan.clips[size][index])}

    def _clips(self) -> Iterator[tuple[str, int, "Clip"]]:
        for index in range(max(map(len, self.plan.clips.values()))):
            for size, clips in self.plan.clips.items():
                yield size, index, clips[index]

    def _places(self) -> list[tuple[int, int]]:
        return [(layer, step) for step in self.plan.steps for layer in self.plan.layers]

    def _missing(self, size: str, index: int, where: tuple[int, int]) -> list[Entry]:
        return [
            entry
            for entry in self.plan.entries_of(size)
            if self.cells.get(self.key(entry, size, index, where)) is None
        ]

    def _calls(self, size: str, index: int, clip: "Clip") -> list["CapturedCall"]:
        """The captured calls of a clip, from its file if it holds them all."""
        from rainfusion_core.study.capture import capture, pack, unpack

        path = self.folder / CAPTURES / f"{size}-clip-{index + 1:02}.safetensors"
        places = self._places()
        facts = {**self._clip_key(size, index), "places": [list(place) for place in places]}
        if not _holds(path, facts):
            calls = capture(self.pipeline, clip, layers=self.plan.layers, steps=self.plan.steps)
            saving.write(path, pack(calls, facts))
            self.captured += 1
        return [call for call in unpack(path) if (call.layer, call.step) in places]

    def _rendered(self, size: str, index: int, entry: Entry) -> dict[str, Any]:
        """One clip through one method, measured against its dense render."""
        from rainfusion_core.metrics import clip_metrics
        from rainfusion_core.render import render

        clip = self.plan.clips[size][index]
        reference, dense_times = self._dense(size, index)
        config = replace(entry.variant.config, sparsity=1 - entry.factors["density"])
        found = render(self.pipeline, clip, config, measure_speed=False)
        metrics = clip_metrics(reference, found.frames, perceptual=self.perceptual)
        if index not in self._dense_judged:
            self._dense_judged[index] = self._agreement(index, reference)
        rows = found.report.sparsity.sparse_rows
        kept, pairs = (sum(getattr(row, key) for row in rows) for key in ("kept_pairs", "pairs"))
        return {
            "density": kept / pairs if pairs else 1.0,
            "psnr": metrics.psnr,
            "ssim": metrics.ssim,
            "lpips": metrics.lpips,
            "agreement": self._agreement(index, found.frames),
            "dense_agreement": self._dense_judged[index],
            "times": _times(found.report.times),
            "dense_times": dense_times,
        }

    def _dense(self, size: str, index: int) -> tuple[Any, dict[str, float]]:
        """Frames and times of the dense render of a clip; kept, because every method asks for it."""
        import numpy as np

        from rainfusion_core.render import render

        path = self.folder / RENDERS / f"{size}-clip-{index + 1:02}-dense.npz"
        key = {"dense": self._clip_key(size, index)}
        times = self.cells.get(key)
        if times is not None and path.is_file():
            with np.load(path) as arrays:
                return arrays["frames"], times
        clip = self.plan.clips[size][index]
        dense = replace(self.plan.entries[0].variant.config, sparsity=0.0, options={})
        found = render(self.pipeline, clip, dense, measure_speed=False)
        media.write_arrays(path, frames=found.frames)
        self.cells.put(key, _times(found.report.times))
        return found.frames, _times(found.report.times)

    def _agreement(self, index: int, frames: Any) -> float | None:
        """Share of what the prompt names that the clip shows; None where no judge knows the words."""
        named = self.plan.named[index]
        if named is None:
            return None
        from rainfusion_core.shapes.judge import agreement

        right = agreement(named, frames).values()
        return sum(right) / len(right)


def _holds(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a file of captured calls is of this very clip and has all wanted layers and steps."""
    from rainfusion_core.study.capture import read_facts

    if not path.is_file():
        return False
    there = read_facts(path)
    wanted, found = ({tuple(place) for place in each.get("places", ())} for each in (facts, there))
    return wanted <= found and {**there, "places": None} == {**facts, "places": None}


def _times(times: "StageTimes") -> dict[str, float]:
    return {"denoising": times.denoising, "attention": times.attention}


def _clip_facts(clip: "Clip") -> dict[str, Any]:
    return {key: value for key, value in vars(clip).items() if key != "extra"} | dict(clip.extra)


def _variant_key(entry: Entry) -> dict[str, Any]:
    """The settings that differ from the defaults, whatever the variant is called."""
    variant = entry.variant
    defaults = SparseConfig()
    settings = {k: v for k, v in vars(variant.config).items() if v != getattr(defaults, k)}
    return {**settings, "at_density": variant.density}
