import pytest
import torch

from rainfusion_core.blocks import KeptBlocks, dense_blocks, kept_from_mask


def test_density_is_the_mean_kept_share():
    count = torch.tensor([[[1, 3]]], dtype=torch.int32)
    index = torch.zeros(1, 1, 2, 3, dtype=torch.int32)
    kept = KeptBlocks(index, count, key_blocks=4, block_size=16)
    assert (kept.kept_pairs.item(), kept.pairs, kept.density) == (4, 8, 0.5)


def test_kept_pairs_are_counted_in_int64():
    assert dense_blocks(1, 1, 2, block_size=16).kept_pairs.dtype == torch.int64


def test_index_lists_the_true_blocks_ascending_and_then_the_others():
    mask = torch.tensor([[[[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]]]).bool()
    kept = kept_from_mask(mask, 16)
    assert kept.index[0, 0].tolist() == [[1, 3, 0, 2], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert kept.count[0, 0].tolist() == [2, 4, 0, 1]
    assert (kept.key_blocks, kept.block_size) == (4, 16)


def test_width_cuts_off_padding_alone():
    mask = torch.tensor([[[[0, 1, 0, 1], [0, 0, 1, 0]]]]).bool()
    kept = kept_from_mask(mask, 16, width=2)
    assert kept.index[0, 0].tolist() == [[1, 3], [2, 0]]
    assert kept.key_blocks == 4


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_a_mask_is_recovered_from_its_index_lists(density):
    mask = torch.rand(2, 3, 11, 13) < density
    kept = kept_from_mask(mask, 16)
    found = torch.zeros_like(mask)
    for row in torch.cartesian_prod(*map(torch.arange, mask.shape[:3])).tolist():
        found[(*row, kept.index[tuple(row)][: kept.count[tuple(row)]].long())] = True
    assert found.equal(mask)


@pytest.mark.parametrize(
    "kept",
    [
        kept_from_mask(torch.ones(2, 3, 4, 4).bool(), 16, width=4),
        dense_blocks(2, 3, 4, block_size=16),
    ],
    ids=["from-mask", "dense"],
)
def test_every_block_is_kept_in_contiguous_int32_lists(kept):
    assert kept.index.equal(torch.arange(4, dtype=torch.int32).expand(2, 3, 4, 4))
    assert kept.count.equal(torch.full((2, 3, 4), 4, dtype=torch.int32))
    assert kept.index.is_contiguous() and kept.count.is_contiguous()
    assert kept.index.dtype == kept.count.dtype == torch.int32
    assert kept.density == 1
