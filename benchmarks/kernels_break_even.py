"""Where sparse attention overtakes dense: the rows of rainfusion_core/measured.json for this device."""

import itertools
import json
from statistics import quantiles
from time import perf_counter

import torch

from rainfusion_core.attention import sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import choose_kernel
from rainfusion_core.kernels.dense import DENSE_KERNELS, choose_dense
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.timing import synchronize
from rainfusion_core.worthwhile import MEASURED, device_class

GRIDS = [(4, 8, 8), (6, 8, 8), (4, 12, 12), (6, 12, 12), (8, 12, 12), (8, 16, 16), (12, 16, 16)]
SPARSITIES, HEAD_DIMS, HEADS = (0.5, 0.7, 0.8, 0.9), (64, 128), 3
# rounds over all points: a disturbance of some seconds meets a part of each point's calls at most
ROUNDS, REPEATS = 4, 5


def measure_break_even(device: torch.device) -> None:
    """Whole sparse calls against the dense kernel of the same call, in turn, at every point."""
    dtypes = [torch.bfloat16] + ([torch.float32] if device.type == "cpu" else [])
    points = list(itertools.product(dtypes, HEAD_DIMS, SPARSITIES, GRIDS))
    times: dict[tuple, list[tuple[float, float]]] = {point: [] for point in points}
    densities = {}
    for number, point in itertools.product(range(ROUNDS), points):
        found, densities[point] = turns(device, *point)
        times[point] += found
        print(number, *point, flush=True)
    kernel, _ = choose_kernel("auto", device, torch.bfloat16, HEAD_DIMS[0])
    rows = []
    for dtype, head_dim, sparsity, grid in points:
        point = (dtype, head_dim, sparsity, grid)
        dense, sparse = (fast(each) for each in zip(*times[point], strict=True))
        rows.append(
            {"dtype": str(dtype).removeprefix("torch."), "head_dim": head_dim,
             "tokens": TokenLayout((LatentGrid(*grid),)).tokens, "sparsity": sparsity,
             "density": round(densities[point], 4), "dense_ms": dense, "sparse_ms": sparse}
        )  # fmt: skip
    known = json.loads(MEASURED.read_text()) if MEASURED.is_file() else {}
    known[device_class(device, kernel)] = {
        "threads": torch.get_num_threads(), "torch": torch.__version__, "heads": HEADS, "points": rows
    }  # fmt: skip
    MEASURED.write_text(json.dumps(known, indent=1) + "\n")


def turns(
    device: torch.device, dtype: torch.dtype, head_dim: int, sparsity: float, grid: tuple
) -> tuple[list[tuple[float, float]], float]:
    """Milliseconds of (dense, sparse) calls in turn, and the share of pairs that is kept."""
    layout = TokenLayout((LatentGrid(*grid),))
    q, k, v = torch.randn(3, 1, HEADS, layout.tokens, head_dim, device=device).to(dtype)
    config = SparseConfig(sparsity=sparsity, sink=False)
    dense = DENSE_KERNELS[choose_dense("auto", q, k, v)]
    found = []
    for run in range(REPEATS + 1):
        stamps = [stamp(device)]
        dense(q, k, v)
        stamps.append(stamp(device))
        _, kept = sparse_attention(q, k, v, layout, config)
        stamps.append(stamp(device))
        if run:
            found.append((1e3 * (stamps[1] - stamps[0]), 1e3 * (stamps[2] - stamps[1])))
    return found, kept.density


def stamp(device: torch.device) -> float:
    synchronize(device)
    return perf_counter()


def fast(times: tuple[float, ...]) -> float:
    """The 20th percentile: calls of a millisecond are disturbed easily, and only ever made slower."""
    return round(quantiles(times, n=5)[0], 4)
