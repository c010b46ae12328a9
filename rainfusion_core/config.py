"""What one sparse run is asked to do. Plain values: no tensors, no models, no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rainfusion_core.budget import BUDGETS
from rainfusion_core.errors import ConfigError, UnknownName

CORRECTIONS = ("none", "pooled")
AUTO = "auto"  # a setting whose value depends on others


@dataclass(frozen=True, kw_only=True)
class SparseConfig:
    """Settings of one run, checked when built.

    Attributes:
        method: name in `SELECTORS`.
        sparsity: fraction of key blocks a query block may skip, in [0, 1); 0 runs everything dense.
        mass: share of the softmax mass that a query block keeps by the method's own prediction,
            in (0, 1), with as few key blocks as that takes; `sparsity` then only says, by 0, that
            everything runs dense. None: a fixed share of the key blocks.
        order: name in `ORDERS`, how tokens are grouped into blocks; "auto" leaves it to the method.
        sink: every query keeps the first latent frame, and its queries keep everything. "auto":
            where the method's source has it, unless it would be too large a share of what is kept
            (`sink.first_frame`).
        budget: "paper" keeps pinned blocks on top of the budget, "total" counts them against it.
        block_size: tokens per block, on both sides.
        dense_steps: leading denoising steps that run dense; a whole number counts steps, a
            fraction in (0, 1) is a share of all steps, rounded up.
        dense_last_steps: the same for the trailing steps.
        dense_layers: layers of each transformer that always run dense, counted from 0; negative
            numbers count from the end.
        correction: "pooled" lets dropped blocks stay in the softmax through their means, "none"
            drops them altogether.
        kernel: name in `KERNELS`, or "auto" for the fastest. With "auto" a call runs dense where
            that was measured to be faster (`worthwhile`); a kernel asked for by name always runs.
        dense_kernel: name in `DENSE_KERNELS` for the calls that run dense, or "auto" for the
            fastest one, found by measuring it on a call of the run.
        options: of the method, by name; what is not given is as in the method's source.
        strict: a call that the core does not understand is an error instead of a dense call, and so
            is a layer that makes no call, unless a cache or guidance left it out.
    """

    method: str = "rainfusion2"
    sparsity: float = 0.8
    mass: float | None = None
    order: str = "auto"
    sink: bool | str = AUTO
    budget: str = "paper"
    block_size: int = 128
    dense_steps: float = 0
    dense_last_steps: float = 0
    dense_layers: tuple[int, ...] = ()
    correction: str = "none"
    kernel: str = "auto"
    dense_kernel: str = "auto"
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict, hash=False)
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            percent = 5 <= self.sparsity < 100  # who writes 1.2 or 2 may not mean percent
            raise ConfigError(
                f"sparsity must be in [0, 1), got {self.sparsity:g}",
                hint=f"for {self.sparsity:g} % write {self.sparsity / 100:g}" if percent else None,
            )
        if self.mass is not None and not 0 < self.mass < 1:
            raise ConfigError(
                f"mass must be in (0, 1), got {self.mass:g}",
                hint="0.9 keeps the blocks that hold nine tenths of the predicted softmax mass",
            )
        if self.sink not in (True, False, AUTO):
            raise ConfigError(f'sink must be true, false or "{AUTO}", got {self.sink!r}')
        if self.budget not in BUDGETS:
            raise UnknownName("budget", self.budget, BUDGETS)
        if self.correction not in CORRECTIONS:
            raise UnknownName("correction", self.correction, CORRECTIONS)
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise ConfigError(
                f"block_size must be a power of two and at least 16, got {self.block_size}",
                hint="the published methods use 128",
            )
        _check_steps("dense_steps", self.dense_steps)
        _check_steps("dense_last_steps", self.dense_last_steps)


def _check_steps(name: str, value: float) -> None:
    if value < 0 or (value >= 1 and value != int(value)):
        raise ConfigError(
            f"{name} must be a whole number of steps or a share in (0, 1), got {value:g}",
            hint="4 leaves four steps dense, 0.1 a tenth of all steps",
        )
