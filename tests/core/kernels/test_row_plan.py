import pytest
import torch

from rainfusion_core.kernels.torch_blocks import kept_tokens
from tests.shapes import FULL_SIZE, SHAPES, Shape

row_plan = pytest.importorskip("rainfusion_core.kernels.row_plan")


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("shape", [*SHAPES, *FULL_SIZE])
def test_tokens_of_a_row_are_those_that_torch_counts(shape: Shape, padded: bool):
    kept, lengths = shape.kept(0.5), shape.lengths() if padded else None
    expected = kept_tokens(kept, shape.tokens, lengths)
    tokens = row_plan.row_tokens(kept, shape.tokens, lengths)
    assert torch.equal(tokens.long(), expected)


def test_long_rows_start_first_and_equal_ones_in_order():
    tokens = torch.tensor([[[5, 9, 5, 9, 0], [1, 1, 2, 1, 2]]])
    order = row_plan.launch_order(tokens)
    assert order.tolist() == [[[1, 3, 0, 2, 4], [2, 4, 0, 1, 3]]]
