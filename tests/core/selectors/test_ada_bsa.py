"""The first and the last block stay, and a share caps the mass target."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text
from tests.selecting import kept_lists, order_of, qk, select

TWELVE = order_of(LatentGrid(1, 1, 192), name="raster")


def column(block, height=40.0):
    """q and k whose every query attends to one key block of `TWELVE`."""
    k = torch.zeros(1, 1, 192, 1)
    k[..., block * 16 : (block + 1) * 16, 0] = height
    return torch.ones(1, 1, 192, 1), k


def test_the_first_and_the_last_block_are_kept_on_top():
    kept = select("ada-bsa", *column(5), TWELVE, sparsity=0.99)
    assert kept_lists(kept) == [[[[0, 5, 11]] * 12]]


@pytest.mark.parametrize(
    ("options", "row"), [({"sink": False}, [5, 11]), ({"sink": False, "recent": False}, [5])]
)
def test_both_can_be_switched_off(options, row):
    kept = select("ada-bsa", *column(5), TWELVE, sparsity=0.99, options=options)
    assert kept_lists(kept) == [[[row] * 12]]


def test_the_last_block_is_the_last_that_is_not_padding():
    order = order_of(LatentGrid(1, 1, 80), Text(48), name="raster")
    q, k = qk(order, batch=2, heads=1)
    lengths = torch.tensor([96, 128])
    kept = select(
        "ada-bsa", q, k, order, sparsity=0.9, key_lengths=lengths, options={"sink": False}
    )
    mask = kept_mask(kept)
    assert mask[0, :, :, 5].all() and not mask[0, :, :, 6:].any() and mask[1, :, :, 7].all()


def test_the_total_budget_pays_for_both():
    q, k = qk(TWELVE)
    kept = select("ada-bsa", q, k, TWELVE, sparsity=0.75, budget="total")
    assert kept.count.unique().tolist() == [3]
    mask = kept_mask(kept)
    assert mask[..., 0].all() and mask[..., 11].all()


def test_a_share_caps_the_mass_target_from_ten_blocks_on():
    q, k = qk(TWELVE)
    options = {"sink": False, "recent": False}
    capped = select("ada-bsa", q / 99, k, TWELVE, mass=0.9, sparsity=0.5, options=options)
    assert capped.count.unique().tolist() == [6]
    free = select("ada-bsa", q / 99, k, TWELVE, mass=0.9, sparsity=1e-3, options=options)
    assert free.count.unique().tolist() == [11]
    eight = order_of(LatentGrid(1, 1, 128), name="raster")
    q, k = qk(eight)
    kept = select("ada-bsa", q / 99, k, eight, mass=0.9, sparsity=0.5, options=options)
    assert kept.count.unique().tolist() == [8]
