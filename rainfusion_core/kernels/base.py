"""The contract of a kernel."""

from typing import Protocol

from torch import Tensor

from rainfusion_core.blocks import KeptBlocks


class Kernel(Protocol):
    """Attention over kept blocks. Every kernel agrees with `kernels.reference.attention`.

    A kernel's own docstring says what is peculiar to it: what it takes, what memory it needs. All
    but the reference are forward only.

    Args:
        q: (batch, heads, queries, head_dim), in the token order of `kept`.
        k, v: (batch, kv_heads, keys, head_dim); `kv_heads` divides `heads`, and consecutive
            query heads share a key head.
        kept: key blocks per query block.
        scale: factor on the logits; None means head_dim ** -0.5.
        key_lengths: (batch,) int, keys that are not padding; those behind them are left out.
        lse: (batch, heads, queries) float32, contiguous, on the device of `q`; if given, the natural
            logarithm of the softmax's denominator is written into it, from which two attentions
            over disjoint keys are merged exactly: -inf where a query has no key.
        rows: of kernels that gather, (queries,) or (batch, heads, queries) int64: where each query,
            in the order of `kept`, lies in q, `lse` and the output. None: in that order.
        key_rows: of kernels that gather keys too, (keys,) or (batch, kv_heads, keys) int64: where
            each key, in the order of `kept`, lies in k and v. None: in that order.

    Returns:
        (batch, heads, queries, head_dim), the dtype of `q`; zeros where a query has no key.
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kept: KeptBlocks,
        *,
        scale: float | None = None,
        key_lengths: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor: ...
