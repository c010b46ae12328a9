"""One training run: its folder with checkpoints and log, and its clock."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass
class Run:
    """Minutes are of work: wall time on a GPU, and on a CPU time of the process over its threads, so that
    other work beside the training slows it down and changes nothing else."""

    folder: Path
    device: torch.device
    minutes: float
    seed: int
    shares: dict[str, float]
    spent: dict[str, float] = field(default_factory=dict)
    reported: dict[str, float] = field(default_factory=dict)
    aside: float = 0.0  # seconds of work inside a stage that do not count for it

    def now(self) -> float:
        """Seconds of work."""
        if self.device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        return time.monotonic()

    def loop(self, stage: str, save: Callable[[], None]) -> Iterator[float]:
        """Yields the stage's progress in [0, 1) until its share of the minutes is spent."""
        if self.minutes == 0:  # only export what is there
            return
        budget, saved = 60 * self.minutes * self.shares[stage], time.monotonic()
        begin = self.now() - self.aside
        before = self.spent.get(stage, 0.0)
        while (spent := before + self.now() - self.aside - begin) < budget:
            self.spent[stage] = spent
            yield spent / budget
            if time.monotonic() - saved > 60:
                save()
                saved = time.monotonic()
        self.spent[stage] = max(budget, before)
        save()

    def due(self, stage: str, progress: float) -> bool:
        """Whether another hundredth of the stage has passed since its last report."""
        if progress - self.reported.get(stage, -1.0) < 0.01:
            return False
        self.reported[stage] = progress
        return True

    def log(self, stage: str, **values: Any) -> None:
        row = {"stage": stage, "seconds": round(self.spent.get(stage, 0.0), 1), **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def save(self, name: str, **state: object) -> None:
        unfinished = self.path(name).with_suffix(".partial")
        torch.save({**state, "spent": self.spent}, unfinished)
        os.replace(unfinished, self.path(name))

    def load(self, name: str) -> dict | None:
        if not self.path(name).is_file():
            return None
        state = torch.load(self.path(name), map_location="cpu", weights_only=True)
        for stage, seconds in state["spent"].items():
            self.spent[stage] = max(seconds, self.spent.get(stage, 0.0))
        return state


def resume(run: Run, name: str, **parts: Any) -> int:
    """Give each part what a stage's checkpoint has of it, if there is one; the step at which it goes on."""
    state = run.load(name)
    if state is None:
        return 0
    for part, value in parts.items():
        value.load_state_dict(state[part])
    return state["step"]


def stage_at(stages: Sequence[tuple], progress: float) -> tuple:
    """The stage that is on at `progress`; the first entry of each is its share."""
    for share, *stage in stages:
        if progress < share:
            return tuple(stage)
        progress -= share
    return tuple(stages[-1][1:])


def start_from(folder: Path, name: str, model: nn.Module) -> None:
    """Take over the tensors of an earlier checkpoint that have the same name and shape."""
    state = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    known = model.state_dict()
    old = state.get("ema") or state["model"]
    model.load_state_dict(
        {k: v for k, v in old.items() if k in known and v.shape == known[k].shape}, strict=False
    )
