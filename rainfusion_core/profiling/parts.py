"""Where the time of a forward pass goes: spans around its modules, in which every second counts once."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rainfusion_core.timing import Span

MATRICES, CROSS, NORMS, REST = "projections and MLP", "cross-attention", "norms", "rest"
DENSE, PERMUTE, SELECT, KERNEL, RESTORE = (
    "attention: dense",
    "attention: permute",
    "attention: select",
    "attention: kernel",
    "attention: restore",
)
ATTENTION = (DENSE, PERMUTE, SELECT, KERNEL, RESTORE)
PARTS = (*ATTENTION, MATRICES, CROSS, NORMS, REST)


@dataclass(frozen=True)
class PartTimes:
    """Seconds of one forward pass by part, within the layers and outside of them.

    "rest" is what a module spends outside of its submodules: rotary embedding, modulation, residuals.
    """

    layers: dict[str, float]
    outside: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.layers.values()) + sum(self.outside.values())

    def scaled(self, factor: float) -> dict[str, float]:
        """Seconds by part, with the layers counted `factor` times."""
        both = {
            name: factor * self.layers.get(name, 0.0) + self.outside.get(name, 0.0)
            for name in PARTS
        }
        return {name: seconds for name, seconds in both.items() if seconds > 0}


@dataclass
class _Record:
    part: str
    in_layer: bool
    span: Span
    within: list["_Record"] = field(default_factory=list)


class PartTimer:
    """Times the modules of one transformer from `watch` to `remove`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stack: list[_Record] = []
        self._records: list[_Record] = []
        self._undo: list[Callable[[], object]] = []

    def watch(self, transformer: nn.Module, self_attention: re.Pattern[str]) -> None:
        """Hook into every module that has a part of its own."""
        layers = layer_names(transformer, self_attention)
        for name, part in _own_parts(transformer, self_attention).items():
            module = transformer.get_submodule(name)
            before, after = self._hooks(part, name in layers)
            self._undo.append(module.register_forward_pre_hook(before).remove)
            self._undo.append(module.register_forward_hook(after).remove)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`, not as the module's."""
        self._open(name, False)
        try:
            yield
        finally:
            self._close()

    def take(self) -> PartTimes:
        """The times since the last call. Waits for the device."""
        times = PartTimes({}, {})
        for record in self._records:
            own = record.span.seconds - sum(each.span.seconds for each in record.within)
            where = times.layers if record.in_layer else times.outside
            where[record.part] = where.get(record.part, 0.0) + own
        self._records.clear()
        self._stack.clear()
        return times

    def remove(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _hooks(self, part: str, is_layer: bool) -> tuple[Callable, Callable]:
        def before(module: nn.Module, args: Any) -> None:
            self._open(part, is_layer)

        def after(module: nn.Module, args: Any, output: Any) -> None:
            self._close()

        return before, after

    def _open(self, part: str, is_layer: bool) -> None:
        outer = self._stack[-1] if self._stack else None
        in_layer = is_layer or (outer is not None and outer.in_layer)
        record = _Record(part, in_layer, Span(self.device))
        if outer is not None:
            outer.within.append(record)
        self._stack.append(record)
        self._records.append(record)

    def _close(self) -> None:
        self._stack.pop().span.stop()


def layer_names(transformer: nn.Module, self_attention: re.Pattern[str]) -> set[str]:
    """Names of the modules that hold one self-attention each: "blocks.0", "blocks.1", ..."""
    names = (name for name, _ in transformer.named_modules())
    return {name.rpartition(".")[0] for name in names if self_attention.fullmatch(name)}


def _own_parts(transformer: nn.Module, self_attention: re.Pattern[str]) -> dict[str, str]:
    """Part by module name. Submodules of one that counts as a whole are left out."""
    parts: dict[str, str] = {}
    whole: list[str] = []
    for name, module in transformer.named_modules():
        if any(name.startswith(f"{outer}.") for outer in whole):
            continue
        part = _part(name, module, self_attention)
        parts[name] = part
        if part in (MATRICES, CROSS):
            whole.append(name)
    return parts


def _part(name: str, module: nn.Module, self_attention: re.Pattern[str]) -> str:
    kind = type(module).__name__
    if hasattr(module, "processor") and not self_attention.fullmatch(name):
        return CROSS
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) or "FeedForward" in kind:
        return MATRICES
    return NORMS if "Norm" in kind else REST
