"""FlexAttention as a kernel; each shape compiles, so there are few."""

import pytest
import torch

from rainfusion_core.errors import KernelUnavailable
from rainfusion_core.kernels import flex, reference
from tests import shapes
from tests.shapes import Shape

REASON = flex.unavailable(torch.device(shapes.DEVICE))
COMPILED = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@COMPILED
@pytest.mark.parametrize(
    ("shape", "dtype", "padded"),
    [
        (Shape(1, 4, 2, 300, 64, 128), torch.bfloat16, False),
        (Shape(2, 2, 2, 330, 64, 128), torch.float32, True),
    ],
    ids=["ragged-grouped-heads", "padding"],
)
@pytest.mark.filterwarnings("ignore")
def test_matches_reference(shape: Shape, dtype: torch.dtype, padded: bool):
    q, k, v = shape.qkv(dtype)
    kept, lengths = shape.kept(0.5), shape.lengths() if padded else None
    expected = reference.attention(q, k, v, kept, scale=0.3, key_lengths=lengths)
    ours = flex.attention(q, k, v, kept, scale=0.3, key_lengths=lengths)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, expected, atol=bound, rtol=bound)


def test_no_log_sum_exp_on_a_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "DEVICE", "cpu")
    shape = Shape(1, 1, 1, 40, 16, 16)
    q, k, v = shape.qkv()
    with pytest.raises(KernelUnavailable, match="tells no log-sum-exp on a CPU"):
        flex.attention(q, k, v, shape.kept(0.5), lse=torch.empty(1, 1, 40))


def test_the_block_mask_holds_exactly_the_kept_blocks():
    shape = Shape(1, 2, 2, 300, 16, 64)
    kept = shape.kept(0.4)
    mask = flex.block_mask(kept, 300, 300, None).to_dense().bool()
    hits = reference.token_mask(kept, 300, 300)[..., ::64, ::64]
    assert torch.equal(mask, hits)


def test_without_a_compiler_the_reason_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flex, "CPP_COMPILERS", ("no-such-compiler",))
    assert flex.unavailable(torch.device("cpu")) == "it needs a C++ compiler"
    assert "device is mps" in str(flex.unavailable(torch.device("mps")))
