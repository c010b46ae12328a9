"""Clusters that can be seen: tokens of a few directions, scattered over the video."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selectors import SELECTORS, Memory
from tests.selecting import call_of, kept_lists

LAYOUT = TokenLayout((LatentGrid(4, 8, 8), Text(10)))


def scattered(clusters=4, heads=2, noise=0.05):
    """q, k of scattered tokens, 64 of each of four directions in every head, and which is which."""
    kinds = torch.stack([torch.randperm(256) % clusters for _ in range(heads)])
    tokens = torch.nn.functional.one_hot(kinds, 8).float() * 4
    text = torch.zeros(heads, 10, 8)
    both = torch.cat([tokens, text], dim=1)[None]
    return both + noise * torch.randn_like(both), both + noise * torch.randn_like(both), kinds


def right_start():
    """A memory of an earlier step whose centroids are the directions."""
    directions = torch.eye(8)[:4].expand(1, 2, -1, -1) * 4
    return Memory(found={"query": directions, "key": directions})


def chosen(q, k, memory=None, **settings):
    options = {"query_clusters": 4, "key_clusters": 4, **settings.pop("options", {})}
    call = call_of(LAYOUT, "svg2", block_size=16, memory=memory, options=options, **settings)
    order = SELECTORS["svg2"].ordered(q, k, call)
    q, k = order.permute(q), order.permute_keys(k)
    return order, SELECTORS["svg2"].select(q, k, order, call), call


def test_tokens_of_one_direction_stand_together_for_queries_and_for_keys():
    q, k, kinds = scattered()
    order, _, _ = chosen(q, k, right_start())
    for head in range(2):
        for gather in (order.gather, order.keys):
            in_order = kinds[head][gather[0, head, :256]]
            runs = (in_order.diff() != 0).sum() + 1
            assert runs == 4
    assert not order.gather.equal(order.keys)


def test_a_query_block_keeps_the_key_blocks_of_its_direction():
    q, k, kinds = scattered()
    order, kept, _ = chosen(q, k, right_start(), sparsity=0.8, budget="paper")
    mask = kept_mask(kept)
    # 17 blocks: 16 of clusters, one with text; a row chooses 4 of them: those of its direction
    for head in range(2):
        of_query = kinds[head][order.gather[0, head, :256:16]]
        of_key = kinds[head][order.keys[0, head, :256:16]]
        assert mask[0, head, :16, :16].equal(of_query[:, None] == of_key)


def test_scores_are_the_mass_of_clusters_shared_by_their_tokens():
    q, k, _ = scattered(noise=0.5)
    order, _, call = chosen(q, k)
    scores = SELECTORS["svg2"].scores(None, None, order, call)
    queries, keys = order.found
    for head in range(2):
        labels = keys.labels[0, head]
        logits = queries.centroids[0, head] @ keys.centroids[0, head].T
        sizes = labels.bincount(minlength=5)[:4]
        mass = sizes * logits.exp() / (sizes * logits.exp()).sum(-1, keepdim=True)
        rows = queries.labels[0, head]
        for i, j in ((0, 0), (3, 9), (15, 2)):
            wanted = sum(
                mass[a, b] / sizes[b]
                for a in rows[i * 16 : (i + 1) * 16]
                for b in labels[j * 16 : (j + 1) * 16]
            )
            torch.testing.assert_close(scores[0, head, i, j].exp(), wanted, rtol=1e-3, atol=1e-6)


def test_clusters_go_on_from_those_of_the_step_before():
    q, k, _ = scattered(noise=1.0)
    memory = Memory()
    chosen(q, k, memory, options={"first_rounds": 1, "rounds": 0})
    first = memory.found["query"]
    chosen(q, k, memory, options={"first_rounds": 1, "rounds": 0})
    assert memory.found["query"].equal(first)
    chosen(q, k, memory, options={"first_rounds": 1, "rounds": 1})
    assert not memory.found["query"].equal(first)


@pytest.mark.parametrize(("floor", "least"), [(0.0, 1), (0.1, 2), (0.5, 9)])
def test_with_a_mass_target_a_row_keeps_a_floor(floor, least):
    q, k, _ = scattered(noise=0.0)
    _, kept, _ = chosen(q * 3, k * 3, mass=0.01, budget="total", options={"floor": floor})
    # the text's block is kept besides, and pays for nothing here
    assert kept.count[..., :16].min() in (least, least + 1)


def test_there_are_as_many_clusters_as_blocks_unless_options_say_otherwise():
    q, k, _ = scattered()
    order, _, _ = chosen(q, k, options={"query_clusters": 0, "key_clusters": 7})
    assert [clusters.centroids.shape[-2] for clusters in order.found] == [16, 7]
    assert kept_lists(chosen(q, k)[1])
