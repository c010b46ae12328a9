"""A check that kernels share which take queries from where they lie."""

from collections.abc import Callable

import torch
from torch import Tensor

from rainfusion_core.kernels import reference
from tests.shapes import DEVICE, Shape


def check_rows(attention: Callable[..., Tensor], shape: Shape, dtype: torch.dtype, bound: float):
    """Queries and output lie in memory as models have them: (batch, tokens, heads, head_dim)."""
    q, k, v = shape.qkv(dtype)
    kept = shape.kept(0.7)
    expected_lse = torch.zeros(q.shape[:3], device=DEVICE)
    expected = reference.attention(q, k, v, kept, lse=expected_lse)
    everywhere = torch.randperm(shape.tokens, device=DEVICE)
    in_each_head = torch.rand(q.shape[:3], device=DEVICE).argsort(-1)
    for rows in (everywhere, in_each_head):
        at = rows.expand(q.shape[:3])
        places = at[..., None].expand_as(q)
        lying = q.transpose(1, 2).contiguous().transpose(1, 2).scatter(2, places, q)
        lying = lying.transpose(1, 2).contiguous().transpose(1, 2)
        lse = torch.full_like(expected_lse, float("nan"))
        out = attention(lying, k, v, kept, lse=lse, rows=rows)
        assert out.stride() == lying.stride()
        torch.testing.assert_close(out.gather(2, places), expected, atol=bound, rtol=bound)
        torch.testing.assert_close(lse.gather(2, at), expected_lse, atol=bound, rtol=bound)
