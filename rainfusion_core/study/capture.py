"""Keeps q, k and v of chosen attention calls of a render, and packs them into one safetensors file a clip."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.recording import CapturedCall, Enough, Recorder
from rainfusion_core.render import Clip, Progress, render


def capture(
    pipeline: Any,
    clip: Clip,
    *,
    layers: Collection[int] | None = None,
    steps: Collection[int] | None = None,
    progress: Progress | None = None,
) -> list[CapturedCall]:
    """Render densely until the last wanted step, and return the calls of these layers and steps.

    Raises:
        ConfigError: no call was caught, because no such layer or step exists.
    """
    recorder = Recorder(layers=layers, steps=steps, stops=True)
    with suppress(Enough):
        dense = SparseConfig(sparsity=0)
        render(pipeline, clip, dense, progress=progress, measure_speed=False, recorder=recorder)
    if not recorder.calls:
        raise ConfigError(
            f"nothing was captured: no call of layers {_named(layers)} in steps {_named(steps)}",
            hint=f"the clip has {clip.steps} steps, counted from 0",
        )
    return recorder.calls


def _named(numbers: Collection[int] | None) -> str:
    return "0 to the last" if numbers is None else ", ".join(map(str, sorted(numbers)))


def pack(calls: Sequence[CapturedCall], facts: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file: the tensors of every call, and `facts` as metadata.

    Args:
        facts: JSON values that say where the calls come from: model, weights, prompt, seed.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    listed = []
    for number, call in enumerate(calls):
        named = {"q": call.q, "k": call.k, "v": call.v, "key_lengths": call.key_lengths}
        tensors |= {f"{number}.{name}": x for name, x in named.items() if x is not None}
        listed.append({
            "layout": [[type(s).__name__, asdict(s)] for s in call.layout.segments],
            **{key: getattr(call, key) for key in ("scale", "step", "branch", "transformer", "layer")},
        })  # fmt: skip
    return save(tensors, {"facts": json.dumps(facts), "calls": json.dumps(listed)})


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `pack` was given, without reading a tensor."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"])


def unpack(path: Path) -> list[CapturedCall]:
    """The calls of a file that holds what `pack` made."""
    from safetensors import safe_open

    kinds = {"LatentGrid": LatentGrid, "Text": Text}
    calls = []
    with safe_open(path, framework="pt") as file:
        present = set(file.keys())
        for number, facts in enumerate(json.loads(file.metadata()["calls"])):
            segments = tuple(kinds[kind](**sizes) for kind, sizes in facts.pop("layout"))
            q, k, v = (file.get_tensor(f"{number}.{name}") for name in "qkv")
            padded = f"{number}.key_lengths"
            lengths = file.get_tensor(padded) if padded in present else None
            calls.append(CapturedCall(q, k, v, TokenLayout(segments), key_lengths=lengths, **facts))
    return calls
