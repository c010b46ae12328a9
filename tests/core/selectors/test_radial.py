"""The decay that a pair of tokens needs, by the paper's rules in words; and the blocks that follow."""

import math

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.selectors.radial import decay_needed, reach
from tests.selecting import order_of, qk, select


def kept_by_rule(frames: int, places: int, frame_tokens: int, least: int, decay: float) -> bool:
    """Whether the source keeps a pair of tokens that are so far apart."""
    if frames <= 1:
        return True
    group = frames.bit_length()
    share = 2 ** frame_tokens.bit_length() / 2**group
    if share < least and frames % int(least / share) != 0:
        return False
    return places <= max(share * decay, least)


@pytest.mark.parametrize("frame_tokens", [100, 128, 300])
@pytest.mark.parametrize("least", [8, 32])
@pytest.mark.parametrize("decay", [0.1, 0.5, 0.95])
def test_a_pair_is_kept_from_the_decay_on_that_it_needs(frame_tokens, least, decay):
    frames, places = torch.meshgrid(torch.arange(40), torch.arange(frame_tokens), indexing="ij")
    needed = decay_needed(frames, places, frame_tokens, least)
    for frame in range(40):
        for place in range(0, frame_tokens, 3):
            wanted = kept_by_rule(frame, place, frame_tokens, least, decay)
            assert (needed[frame, place] <= decay) == wanted


def test_blocks_of_a_frame_reach_by_the_rule_and_thinned_frames_never():
    # a frame is a block of 16 tokens, bands are never narrower than 8
    order = order_of(LatentGrid(12, 4, 4), name="raster", sink=False)
    found = reach(order, 8)
    by_distance = {abs(i - j): found[i, j].item() for i in range(12) for j in range(12)}
    assert by_distance[0] == by_distance[1] == 0
    # two and three frames: half of the band of 32, so a quarter of a frame and more is within the least width
    assert by_distance[2] == by_distance[3] == 0
    # from four frames on a band has 4 tokens and less: of every 2 frames one is kept, then of 4
    assert by_distance[4] == by_distance[6] == by_distance[8] == 0
    assert all(math.isinf(by_distance[d]) for d in (5, 7, 9, 10, 11))


def test_a_smaller_decay_is_chosen_for_a_larger_sparsity_and_the_density_is_near():
    order = order_of(LatentGrid(8, 16, 16), name="raster", sink=False)
    q, k = qk(order, batch=1, heads=1)
    settings = dict(sink=False, options={"least_width": 4})
    densities = {}
    for sparsity in (0.2, 0.4, 0.6):
        kept = select("radial", q, k, order, sparsity=sparsity, **settings)
        densities[sparsity] = kept.density
    # frames next to each other are whole: 22 of 64 pairs of frames
    assert all(d == pytest.approx(1 - s, abs=0.1) for s, d in densities.items())
    least = select("radial", q, k, order, sparsity=0.95, **settings).density
    assert 22 / 64 <= least <= densities[0.6] < densities[0.2]


def test_it_is_symmetric_and_keeps_neighbouring_frames_and_the_first_one():
    order = order_of(LatentGrid(8, 16, 16), Text(7), name="raster")
    q, k = qk(order, batch=1, heads=1)
    mask = kept_mask(select("radial", q, k, order, sparsity=0.9))[0, 0]
    assert mask.equal(mask.T)
    frame = torch.arange(128) // 16
    near = (frame[:, None] - frame).abs() <= 1
    assert mask[:128, :128][near].all() and mask[:, :16].all() and mask[:, 128].all()
