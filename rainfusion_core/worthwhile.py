"""Whether a sparse call is worth it: from how many tokens on it beats the fastest dense kernel, as measured.

`measured.json` holds the points, written by `benchmarks/kernels.py --break-even` on machines of each
class. A class of device that was never measured has no rule, and its calls run sparse.
"""

import json
import math
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import torch

from rainfusion_core.budget import predicted_density
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels.cpu_blocks import multiplies_tiles
from rainfusion_core.layout import TokenLayout
from rainfusion_core.order import order_for
from rainfusion_core.selectors import SELECTORS
from rainfusion_core.selectors.base import OWN

MEASURED = Path(__file__).with_name("measured.json")


@lru_cache(maxsize=256)
def least_tokens(
    config: SparseConfig,
    layout: TokenLayout,
    device: torch.device,
    kernel: str,
    dtype: torch.dtype,
    head_dim: int,
) -> float:
    """`tokens_needed` at the share that the configuration keeps at most; 0 if that is not known.

    What was measured is the method with the cheapest selection, so below this number of tokens no
    method is faster than dense attention.
    """
    config = SELECTORS[config.method].complete(config)
    if config.mass is not None or config.order == OWN:
        return 0.0
    order = order_for(layout, config)
    _, most = predicted_density(order, sparsity=config.sparsity, budget=config.budget)
    return tokens_needed(device, kernel, dtype, head_dim, most)


def device_class(device: torch.device, kernel: str) -> str:
    """What measurements are kept apart by: the device, and the sparse kernel that it would run.

    CPUs count as two devices, as those with AMX are so fast at products that the rest of a sparse call
    weighs more. What they were measured with is two threads, and with more of them it weighs more, too.
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {kernel}"
    with_amx = device.type == "cpu" and multiplies_tiles()
    return f"{device.type}{' with AMX' if with_amx else ''}, {kernel}"


def tokens_needed(
    device: torch.device, kernel: str, dtype: torch.dtype, head_dim: int, density: float
) -> float:
    """Tokens from which on a sparse call is faster than a dense one; 0 where nothing is known.

    Between measured densities the logarithm of the tokens is interpolated; outside of them the
    nearest one stands, and between measured head_dims the next smaller.

    Args:
        density: share of block pairs that is kept, in (0, 1].
    """
    curves = _curves().get((device_class(device, kernel), str(dtype).removeprefix("torch.")), {})
    dims = [dim for dim in curves if dim <= head_dim] or sorted(curves)[:1]
    if not dims:
        return 0.0
    points = curves[max(dims)]
    for (low, below), (high, above) in pairwise(points):
        if low <= density <= high:
            share = (density - low) / (high - low)
            return math.exp((1 - share) * math.log(below) + share * math.log(above))
    return points[0][1] if density < points[0][0] else points[-1][1]


def crossing(points: list[dict[str, Any]]) -> float:
    """Tokens from which on sparse stays ahead of dense, between 1 and the most that were measured.

    Args:
        points: of one density, ascending in tokens.
    """
    needed = 1.0
    for low, high in pairwise(points):
        below, above = (math.log(p["dense_ms"] / p["sparse_ms"]) for p in (low, high))
        if above <= 0:
            needed = float(high["tokens"])
        elif below < 0:
            share = -below / (above - below)
            needed = low["tokens"] * (high["tokens"] / low["tokens"]) ** share
    return needed


@lru_cache
def _curves() -> dict[tuple[str, str], dict[int, list[tuple[float, float]]]]:
    """(device class, dtype) -> head_dim -> (density, tokens needed), ascending in density."""
    found: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = {}
    measured = json.loads(MEASURED.read_text()) if MEASURED.is_file() else {}
    for name, device in measured.items():
        key = lambda p: (p["dtype"], p["head_dim"], p["sparsity"])  # noqa: E731
        for (dtype, dim, _), group in groupby(sorted(device["points"], key=key), key):
            points = sorted(group, key=lambda p: p["tokens"])
            density = sum(p["density"] for p in points) / len(points)
            found.setdefault((name, dtype), {}).setdefault(dim, []).append(
                (density, crossing(points))
            )
    for dims in found.values():
        for curve in dims.values():
            curve.sort()
    return found
