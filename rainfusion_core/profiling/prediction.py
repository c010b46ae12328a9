"""What measured parts predict for a whole render. Plain arithmetic; every result is an estimate."""

from collections.abc import Sequence
from dataclasses import dataclass

from rainfusion_core.budget import chosen_per_row, density_bounds
from rainfusion_core.config import SparseConfig
from rainfusion_core.schedule import plan

FORMULA = (
    "denoising = steps x passes x (rest + (1 - f) x dense attention + f x sparse attention), "
    "f = share of the attention calls that run sparse"
)
FLOPS_FORMULA = (
    "attention share = 4Lnnw / (4Lnnw + 4Lntw + 2pn) operations for L layers, n video tokens, "
    "t text tokens, w = heads x head_dim, p parameters; speed-up as if time were operations and "
    "a kept block cost what it costs dense"
)
GREATEST_SPARSITY = 0.99


@dataclass(frozen=True)
class Render:
    """The denoising loop of one render.

    Attributes:
        passes: forward passes a step, one for each guidance branch.
        sparse_share: share of the attention calls that run sparse, in [0, 1].
    """

    steps: int
    passes: int
    sparse_share: float


@dataclass(frozen=True)
class PassCost:
    """Seconds of one forward pass of all layers, dense."""

    rest: float
    attention: float


@dataclass(frozen=True)
class SparseCost:
    """Seconds of self-attention in one sparse pass.

    Attributes:
        density: share of block pairs that were kept.
        kernel: of `total`; the remainder is ordering, selection and restoring.
    """

    sparsity: float
    density: float
    kernel: float
    total: float


def sparse_share(config: SparseConfig, *, steps: int, layers: int) -> float:
    """Share of the attention calls that the schedule of `config` runs sparse, in [0, 1]."""
    schedule = plan(config, steps=steps, layers=layers)
    calls = [(step, layer) for step in range(steps) for layer in range(layers)]
    return sum(schedule.dense_reason(*call) is None for call in calls) / len(calls)


def denoising_seconds(cost: PassCost, sparse_attention: float, render: Render) -> float:
    """`FORMULA`."""
    share = render.sparse_share
    attention = (1 - share) * cost.attention + share * sparse_attention
    return render.steps * render.passes * (cost.rest + attention)


def speedup(
    cost: PassCost, sparse_attention: float, render: Render, *, other: float = 0.0
) -> float:
    """Dense time over sparse time.

    Args:
        other: seconds that are the same in both, as of text encoding and decoding.
    """
    dense = render.steps * render.passes * (cost.rest + cost.attention) + other
    return dense / (denoising_seconds(cost, sparse_attention, render) + other)


def attention_seconds(costs: Sequence[SparseCost], density: float) -> float:
    """Self-attention of a sparse pass at any density: kernel linear in density, overhead constant.

    The line goes through the measured points by least squares, or through zero if there is one.
    """
    overhead = sum(cost.total - cost.kernel for cost in costs) / len(costs)
    mean_density = sum(cost.density for cost in costs) / len(costs)
    mean_kernel = sum(cost.kernel for cost in costs) / len(costs)
    spread = sum((cost.density - mean_density) ** 2 for cost in costs)
    if spread < 1e-6:
        return overhead + mean_kernel * density / mean_density
    slope = (
        sum((cost.density - mean_density) * (cost.kernel - mean_kernel) for cost in costs) / spread
    )
    return overhead + max(0.0, mean_kernel + slope * (density - mean_density))


def expected_density(blocks: int, pinned_blocks: int, config: SparseConfig) -> float:
    """Density if the scores chose at random; between the bounds of `density_bounds`."""
    if config.budget != "paper":
        return density_bounds(
            blocks, pinned_blocks, sparsity=config.sparsity, budget=config.budget
        )[0]
    chosen = chosen_per_row(blocks, pinned_blocks, sparsity=config.sparsity, budget=config.budget)
    free = blocks - pinned_blocks
    row = pinned_blocks + chosen * free / blocks
    return (pinned_blocks * blocks + free * row) / blocks**2


def sparsity_needed(
    target: float,
    cost: PassCost,
    costs: Sequence[SparseCost],
    render: Render,
    densities: Sequence[tuple[float, float]],
) -> float | None:
    """Least sparsity that brings `target`, or None if none does.

    Args:
        densities: (sparsity, density), ascending in sparsity.
    """
    for sparsity, density in densities:
        if speedup(cost, attention_seconds(costs, density), render) >= target:
            return sparsity
    return None


def flops_share(
    *, tokens: int, text_tokens: int, parameters: int, layers: int, width: int
) -> float:
    """Share of self-attention in the operations of one pass: `FLOPS_FORMULA`."""
    attention = 4 * layers * tokens * tokens * width
    cross = 4 * layers * tokens * text_tokens * width
    return attention / (attention + cross + 2 * parameters * tokens)
