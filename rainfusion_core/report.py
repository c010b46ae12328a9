"""What a render measured, as plain values: no tensors, ready for tables and JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rainfusion_core.sink import FirstFrame


@dataclass(frozen=True)
class CallRow:
    """One attention call.

    Attributes:
        reason: why it ran dense, or None if it ran sparse.
        kept_pairs, pairs: (query block, key block) pairs, over heads and batch; a dense call keeps all.
        seconds: order, selection, kernel and restoring together.
    """

    step: int
    branch: str
    transformer: str
    layer: int
    reason: str | None
    kept_pairs: int
    pairs: int
    seconds: float


@dataclass(frozen=True)
class AttentionSpeed:
    """One real attention call, timed sparse and dense in turn on this machine, in milliseconds."""

    tokens: int
    heads: int
    head_dim: int
    dtype: str
    sparse_ms: float
    dense_ms: float
    kernel: str
    dense_kernel: str
    repeats: int

    @property
    def speedup(self) -> float:
        return self.dense_ms / self.sparse_ms


@dataclass(frozen=True)
class SparsityReport:
    """What was asked for and what was skipped.

    Attributes:
        requested: the `sparsity` of the configuration.
        kernel, dense_kernel: names, empty if no call needed one.
        absent_by_reason: layers of forward passes that made no attention call, because a cache or
            guidance left them out or the model computed them where the core does not look; in no
            other number.
        first_frame: what it was to the first sparse call; None if all calls ran dense.
    """

    requested: float
    rows: tuple[CallRow, ...]
    kernel: str
    dense_kernel: str
    speed: AttentionSpeed | None = None
    absent_by_reason: Mapping[str, int] = field(default_factory=dict)
    first_frame: FirstFrame | None = None

    @property
    def absent(self) -> int:
        return sum(self.absent_by_reason.values())

    @property
    def achieved(self) -> float:
        """Share of all block pairs that were skipped, dense steps and layers included, in [0, 1)."""
        return sparsity_of(self.rows)

    @property
    def sparse_rows(self) -> tuple[CallRow, ...]:
        return tuple(row for row in self.rows if row.reason is None)

    @property
    def attention_seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def dense_reasons(self) -> dict[str, int]:
        """Calls that ran dense, counted by reason."""
        counts: dict[str, int] = {}
        for row in self.rows:
            if row.reason is not None:
                counts[row.reason] = counts.get(row.reason, 0) + 1
        return counts

    def per_layer(self) -> list[dict]:
        """One entry a layer: calls, kept pairs, all pairs and achieved sparsity."""
        return _grouped(self.rows, lambda row: {"transformer": row.transformer, "layer": row.layer})

    def per_step(self) -> list[dict]:
        return _grouped(self.rows, lambda row: {"step": row.step})


def sparsity_of(rows: Iterable[CallRow]) -> float:
    rows = tuple(rows)
    pairs = sum(row.pairs for row in rows)
    return 1 - sum(row.kept_pairs for row in rows) / pairs if pairs else 0.0


def _grouped(rows: Iterable[CallRow], key) -> list[dict]:  # type: ignore[no-untyped-def]
    groups: dict[tuple, list[CallRow]] = {}
    for row in rows:
        groups.setdefault(tuple(key(row).items()), []).append(row)
    return [
        {
            **dict(group),
            "calls": len(members),
            "sparse_calls": sum(row.reason is None for row in members),
            "kept_pairs": sum(row.kept_pairs for row in members),
            "pairs": sum(row.pairs for row in members),
            "sparsity": sparsity_of(members),
            "attention_s": sum(row.seconds for row in members),
        }
        for group, members in sorted(groups.items())
    ]


@dataclass(frozen=True)
class StageTimes:
    """Seconds of one render; a step is a forward pass of each guidance branch and the scheduler."""

    text_encoding: float
    steps: tuple[float, ...]
    attention: float
    decoding: float
    total: float

    @property
    def denoising(self) -> float:
        return sum(self.steps)


@dataclass(frozen=True)
class RenderReport:
    """What one render measured.

    Attributes:
        others: share of the cores that other programs used meanwhile, in [0, 1]; None if unknown.
    """

    times: StageTimes
    sparsity: SparsityReport
    peak_memory_bytes: int
    others: float | None = None
