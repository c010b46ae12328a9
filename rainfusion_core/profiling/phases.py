"""Self-attention with each of its phases timed: what `attention.sparse_attention` does, in four spans."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rainfusion_core import fused
from rainfusion_core.absence import UNSEEN
from rainfusion_core.attention import KERNELS_THAT_REORDER, attend, choose
from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.kernels import choose_kernel
from rainfusion_core.kernels.base import Kernel
from rainfusion_core.kernels.correction import corrected
from rainfusion_core.kernels.dense import DENSE_KERNELS, choose_dense
from rainfusion_core.layout import TokenLayout
from rainfusion_core.masks import key_lengths_of, without_padding
from rainfusion_core.order import TokenOrder
from rainfusion_core.profiling.parts import DENSE, KERNEL, PERMUTE, RESTORE, SELECT, PartTimer
from rainfusion_core.selectors import SELECTORS, Call, Memory


@dataclass
class PhasedAttention:
    """Computes every caught call of a forward pass, all of them dense or all of them sparse.

    Attributes:
        layout: what the tokens of each call are.
        config: of the calls; sparsity 0 runs the dense kernel.
        kernel: name of the kernel that ran last.
        kept: blocks of the last sparse call.
    """

    timer: PartTimer
    layout: TokenLayout
    config: SparseConfig
    kernel: str = ""
    kept: KeptBlocks | None = None
    _memories: dict[tuple[str, int], Memory] = field(default_factory=dict)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        """Same contract as `Session.attend`, without a schedule."""
        lengths, refusal = key_lengths_of(mask, self.layout, batch=q.shape[0])
        if refusal is not None:
            raise UnsupportedLayout(f"this attention cannot be profiled: {refusal}")
        if self.config.sparsity == 0:
            k, v, mask = without_padding(k, v, mask, lengths, self.layout)
            return self._dense(q, k, v, mask, scale)
        config = SELECTORS[self.config.method].complete(self.config)
        memory = self._memories.setdefault((repr(config), layer), Memory(layer=layer))
        return self._sparse(q, k, v, Call(self.layout, config, scale, lengths, memory))

    def left_dense(self, layer: int, q: Tensor, reason: str) -> None:
        raise UnsupportedLayout(f"this attention cannot be profiled: {reason}")

    def made_no_call(self, layer: int, on_purpose: bool) -> None:
        if not on_purpose:
            raise UnsupportedLayout(f"this attention cannot be profiled: {UNSEEN}")

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        with self.timer.part(DENSE):
            if mask is not None:
                self.kernel = "sdpa with a mask"
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, scale=scale
                )
            self.kernel = choose_dense(self.config.dense_kernel, q, k, v)
            return DENSE_KERNELS[self.kernel](q, k, v, scale=scale)

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
        config, method = call.config, SELECTORS[call.config.method]
        with self.timer.part(PERMUTE):
            order = method.ordered(q, k, call)
        self.kernel, kernel = choose_kernel(
            config.kernel, q.device, q.dtype, q.shape[-1], order.block_size
        )
        if fused.can_fuse(method, call, self.kernel, q.device):
            return self._fused(q, k, v, order, call, kernel)
        if self.kernel in KERNELS_THAT_REORDER:
            return self._in_place(q, k, v, order, call, kernel)
        with self.timer.part(PERMUTE):
            q, k, v = order.permute(q), order.permute_keys(k), order.permute_keys(v)
        with self.timer.part(SELECT):
            self.kept = method.select(q, k, order, call)
        with self.timer.part(KERNEL):
            if config.correction != "none":
                kernel = corrected(self.kernel, kernel)
            out = kernel(q, k, v, self.kept, scale=call.scale, key_lengths=call.key_lengths)
        with self.timer.part(RESTORE):
            return order.unpermute(out)

    def _fused(
        self, q: Tensor, k: Tensor, v: Tensor, order: TokenOrder, call: Call, kernel: Kernel
    ) -> Tensor:
        """Averages count as ordering; there is nothing to restore."""
        with self.timer.part(PERMUTE):
            ordered = fused.put_in_order(q, k, v, order, call)
        with self.timer.part(SELECT):
            method = SELECTORS[call.config.method]
            self.kept = fused.choose(ordered.q_means, ordered.k_means, order, method, call)
        with self.timer.part(KERNEL):
            return fused.attend(ordered, self.kept, order, call, kernel)

    def _in_place(
        self, q: Tensor, k: Tensor, v: Tensor, order: TokenOrder, call: Call, kernel: Kernel
    ) -> Tensor:
        """The kernel takes tokens from where they lie: there is nothing to permute and to restore."""
        with self.timer.part(SELECT):
            self.kept = choose(q, k, order, SELECTORS[call.config.method], call, self.kernel)
        with self.timer.part(KERNEL):
            if call.config.correction != "none":
                kernel = corrected(self.kernel, kernel)
            return attend(q, k, v, self.kept, order, call, kernel)
