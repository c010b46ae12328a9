"""How much faster sparse attention is than dense on one real call, measured here and now."""

from statistics import median

from torch import Tensor

from rainfusion_core.attention import sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import choose_kernel
from rainfusion_core.kernels.dense import DENSE_KERNELS, choose_dense
from rainfusion_core.layout import TokenLayout
from rainfusion_core.report import AttentionSpeed
from rainfusion_core.selectors import Memory
from rainfusion_core.timing import Span, synchronize


def attention_speed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: TokenLayout,
    config: SparseConfig,
    *,
    scale: float | None = None,
    memory: Memory | None = None,
    repeats: int = 3,
) -> AttentionSpeed:
    """Time the whole sparse call (order, selection, kernel, restoring) and the dense one in turn.

    Args:
        q, k, v: (batch, heads, tokens, head_dim) of a real call.
        memory: of the call; what a method searches for only once is found in the untimed run.
        repeats: timed runs of each, after one untimed; the medians are reported.
    """
    dense_name = choose_dense(config.dense_kernel, q, k, v)
    dense, memory = DENSE_KERNELS[dense_name], memory or Memory()
    arms = {
        "dense": lambda: dense(q, k, v, scale=scale),
        "sparse": lambda: sparse_attention(q, k, v, layout, config, scale=scale, memory=memory),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for run in range(repeats + 1):
        for name, arm in arms.items():
            synchronize(q.device)
            span = Span(q.device)
            arm()
            seconds = span.stop().seconds
            if run > 0:
                times[name].append(seconds)
    kernel, _ = choose_kernel(config.kernel, q.device, q.dtype, q.shape[-1], config.block_size)
    _, heads, tokens, head_dim = q.shape
    return AttentionSpeed(
        tokens=tokens,
        heads=heads,
        head_dim=head_dim,
        dtype=str(q.dtype).removeprefix("torch."),
        sparse_ms=1e3 * median(times["sparse"]),
        dense_ms=1e3 * median(times["dense"]),
        kernel=kernel,
        dense_kernel=dense_name,
        repeats=repeats,
    )
