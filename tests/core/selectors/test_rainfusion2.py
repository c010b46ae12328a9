"""The selection, against hand-worked cases and a plain loop over rows in float64."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rainfusion_core.attention import choose
from rainfusion_core.budget import BUDGETS, chosen_per_row, predicted_density
from rainfusion_core.errors import ConfigError, UnknownName, UnsupportedLayout
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import TokenOrder, token_order
from rainfusion_core.selectors import SELECTORS
from tests import selecting
from tests.selecting import call_of, kept_lists, one_number_keys, order_of, qk

select = partial(selecting.select, "rainfusion2")
IMAGE = order_of(LatentGrid(1, 10, 16))
ORDERS = [
    pytest.param(IMAGE, id="nothing-pinned"),
    pytest.param(order_of(LatentGrid(4, 8, 8)), id="first-frame"),
    pytest.param(order_of(LatentGrid(5, 7, 9), Text(20)), id="first-frame-and-text-ragged"),
    pytest.param(order_of(LatentGrid(1, 11, 13), Text(9)), id="image-and-text-ragged"),
    pytest.param(order_of(LatentGrid(3, 3, 3), Text(3)), id="two-of-three-blocks-pinned"),
    pytest.param(order_of(LatentGrid(2, 4, 4), block_size=32), id="one-block"),
]
# Grids of the tests of MindIE-SD
MINDIE = [
    pytest.param((3, 40, 80), id="mindie-aligned-3x40x80"),
    pytest.param((3, 30, 52), id="mindie-both-remainders-3x30x52"),
    pytest.param((2, 21, 32), id="mindie-rows-remain-2x21x32"),
    pytest.param((2, 24, 45), id="mindie-columns-remain-2x24x45"),
]


def rows_by_hand(
    q: Tensor, k: Tensor, order: TokenOrder, *, chosen: int, budget: str, keys: int
) -> list[list[int]]:
    """Kept key blocks of one head, row by row, from (tokens, head_dim) and `keys` real keys."""
    pinned = order.pinned.tolist()
    queries = [block.double().mean(0) for block in q.split(order.block_size)]
    means = [block.double().mean(0) for block in k[:keys].split(order.block_size)]
    rows = []
    for number, query in enumerate(queries):
        if pinned[number]:
            rows.append(list(range(len(means))))
            continue
        able = [j for j in range(len(means)) if budget == "paper" or not pinned[j]]
        able.sort(key=lambda j: (query @ means[j]).item(), reverse=True)
        forced = {j for j in range(len(means)) if pinned[j]}
        rows.append(sorted({*able[:chosen], *forced}))
    return rows


def assert_as_by_hand(q, k, order, *, sparsity, budget, key_lengths=None):
    kept = select(q, k, order, sparsity=sparsity, budget=budget, key_lengths=key_lengths)
    chosen = chosen_per_row(order.blocks, order.pinned_blocks, sparsity=sparsity, budget=budget)
    group = q.shape[1] // k.shape[1]
    for b, item in enumerate(kept_lists(kept)):
        keys = order.tokens if key_lengths is None else int(key_lengths[b])
        for h, head in enumerate(item):
            assert head == rows_by_hand(
                q[b, h], k[b, h // group], order, chosen=chosen, budget=budget, keys=keys
            )


def test_a_row_keeps_its_best_key_blocks():
    order = order_of(LatentGrid(1, 1, 8), block_size=2, name="raster")
    kept = select(*one_number_keys([1, 4, -2, 3], 2), order, sparsity=0.5)
    assert kept_lists(kept) == [[[[1, 3]] * 4]]
    assert kept.index.shape[-1] == 2


def test_a_negative_query_keeps_the_least_keys():
    order = order_of(LatentGrid(1, 1, 8), block_size=2, name="raster")
    q, k = one_number_keys([1, 4, -2, 3], 2)
    assert kept_lists(select(-q, k, order, sparsity=0.5)) == [[[[0, 2]] * 4]]


@pytest.mark.parametrize(
    ("budget", "free_row"),
    [
        # 5 blocks, 25 pairs, block 4 is text: dense in row and column
        pytest.param("paper", [1, 3, 4], id="paper-chooses-2-of-5-and-adds-the-text"),
        # 40 % of 25 is 10; the text takes 5 + 4; the nearest to 1 over 4 rows is the least: 1 each
        pytest.param("total", [1, 4], id="total-pays-for-the-text-first"),
    ],
)
def test_text_is_kept_on_top_or_inside_the_budget(budget, free_row):
    order = order_of(LatentGrid(1, 1, 8), Text(2), block_size=2, name="raster")
    q, k = one_number_keys([1, 4, -2, 3, -9], 2)
    kept = select(q, k, order, sparsity=0.6, budget=budget)
    assert kept_lists(kept) == [[[free_row] * 4 + [[0, 1, 2, 3, 4]]]]


def test_pinned_blocks_compete_in_the_paper_budget():
    order = order_of(LatentGrid(1, 1, 8), Text(2), block_size=2, name="raster")
    q, k = one_number_keys([1, 4, -2, 3, 9], 2)
    assert kept_lists(select(q, k, order, sparsity=0.6))[0][0][0] == [1, 4]


def test_equal_scores_keep_no_extra_block():
    q, k = torch.ones(2, 1, 1, IMAGE.tokens, 8)
    kept = select(q, k, IMAGE, sparsity=0.7)
    assert kept.count.unique().tolist() == [3]
    assert kept.density == 0.3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.99])
def test_every_batch_item_and_head_keeps_what_a_plain_loop_keeps(order, budget, sparsity):
    assert_as_by_hand(*qk(order), order, sparsity=sparsity, budget=budget)


@pytest.mark.parametrize("kernel", ["torch-blocks", "c-blocks"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_blocks_chosen_where_the_tokens_lie_are_those_of_tokens_in_order(order, padded, kernel):
    q, k = qk(order)
    lengths = torch.tensor([order.tokens - 2] * len(q)) if padded else None
    call = call_of(order.layout, block_size=order.block_size, key_lengths=lengths)
    kept = choose(q, k, order, SELECTORS["rainfusion2"], call, kernel)
    in_order = SELECTORS["rainfusion2"].select(order.permute(q), order.permute(k), order, call)
    assert kept_lists(kept) == kept_lists(in_order)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_pooled_and_scored_in_float32(dtype):
    q, k = qk(IMAGE, dtype=dtype)
    assert_as_by_hand(q, k, IMAGE, sparsity=0.5, budget="paper")
    with torch.autocast("cpu", torch.bfloat16):
        assert_as_by_hand(q, k, IMAGE, sparsity=0.5, budget="paper")


def test_scores_that_a_softmax_would_flush_to_zero_are_still_ranked():
    order = order_of(LatentGrid(1, 1, 8), block_size=2, name="raster")
    q, k = one_number_keys([1000, -2000, -3000, -1000], 2)
    assert kept_lists(select(q, k, order, sparsity=0.5))[0][0][0] == [0, 3]


@pytest.mark.parametrize("key_heads", [1, 2])
def test_query_heads_share_the_key_head_of_their_group(key_heads):
    q, k = qk(IMAGE, heads=4, key_heads=key_heads)
    assert_as_by_hand(q, k, IMAGE, sparsity=0.6, budget="paper")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_padding_is_in_no_mean_and_no_row(order, budget):
    lengths = torch.tensor([order.tokens, order.tokens - 1, order.tokens // 2 + 1, 1])
    q, k = qk(order, batch=4)
    for item, length in zip(k, lengths, strict=True):
        item[:, length:] = float("nan")
    assert_as_by_hand(q, k, order, sparsity=0.5, budget=budget, key_lengths=lengths)


def test_a_block_of_padding_is_never_kept_though_rows_are_dense():
    order = order_of(LatentGrid(3, 4, 4), Text(40))
    q, k = qk(order, batch=3)
    lengths = torch.tensor([49, 64, 65], dtype=torch.int32)
    kept = select(q, k, order, sparsity=0.0, key_lengths=lengths)
    assert [item[0][-1][-1] for item in kept_lists(kept)] == [3, 3, 4]
    assert kept.count.amax(dim=(1, 2)).tolist() == [4, 4, 5]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_sparsity_zero_keeps_every_pair(order, budget):
    kept = select(*qk(order), order, sparsity=0.0, budget=budget)
    assert kept.density == 1
    assert (kept.key_blocks, kept.block_size) == (order.blocks, order.block_size)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8, 0.95])
def test_measured_density_lies_within_its_prediction(order, budget, sparsity):
    lower, upper = predicted_density(order, sparsity=sparsity, budget=budget)
    density = select(*qk(order), order, sparsity=sparsity, budget=budget).density
    assert lower - 1e-9 <= density <= upper + 1e-9


@pytest.mark.parametrize("grid", MINDIE)
@pytest.mark.parametrize("sparsity", [0.1, 0.4])
def test_total_budget_achieves_what_is_asked_for_up_to_half_a_block_a_row(grid, sparsity):
    order = token_order(TokenLayout((LatentGrid(*grid),)), sink=grid[0] > 2)
    kept = select(*qk(order, heads=1), order, sparsity=sparsity, budget="total")
    assert kept.density == pytest.approx(1 - sparsity, abs=0.5 / order.blocks)


@pytest.mark.parametrize("grid", MINDIE)
def test_public_test_grids_keep_what_a_plain_loop_keeps(grid):
    order = token_order(TokenLayout((LatentGrid(*grid), Text(77))))
    assert_as_by_hand(*qk(order, batch=1, heads=2), order, sparsity=0.8, budget="paper")


@pytest.mark.parametrize("order", ORDERS)
def test_index_is_contiguous_int32_and_holds_valid_blocks_in_its_padding_too(order):
    kept = select(*qk(order), order, sparsity=0.7)
    assert kept.index.is_contiguous() and kept.count.is_contiguous()
    assert kept.index.dtype == kept.count.dtype == torch.int32
    assert kept.index.min() >= 0 and kept.index.max() < order.blocks


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_no_value_of_a_tensor_is_read_on_the_host(order, budget):
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k = torch.empty(2, 2, 3, order.tokens, 8)
        lengths = torch.empty(2, dtype=torch.int32)
        kept = select(q, k, order, sparsity=0.5, budget=budget, key_lengths=lengths)
    assert kept.count.shape == (2, 3, order.blocks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_gpu_and_the_selection_is_that_of_the_cpu():
    order = order_of(LatentGrid(5, 7, 9), Text(20))
    q, k = qk(order)
    lengths = torch.tensor([order.tokens, order.tokens - 18])
    wanted = select(q, k, order, sparsity=0.6, key_lengths=lengths)
    q, k, lengths = q.cuda(), k.cuda(), lengths.cuda()
    order.on(q.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        kept = select(q, k, order, sparsity=0.6, key_lengths=lengths)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert kept_lists(kept) == kept_lists(wanted)


def test_nothing_is_saved_for_a_backward_pass():
    q, k = (x.requires_grad_() for x in qk(IMAGE))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x):
        select(q, k, IMAGE, sparsity=0.5)
    assert saved == []


def test_tokens_that_the_layout_does_not_explain_are_refused():
    q, k = torch.ones(2, 1, 1, 161, 8)
    with pytest.raises(UnsupportedLayout) as caught:
        SELECTORS["rainfusion2"].ordered(q, k[:, :, :160], call_of(IMAGE.layout))
    assert str(caught.value) == "the layout has 160 tokens, got 161 queries and 160 keys"
    assert caught.value.hint == "run this attention dense"


def test_key_heads_that_do_not_divide_the_query_heads_are_refused():
    with pytest.raises(UnsupportedLayout) as caught:
        SELECTORS["rainfusion2"].ordered(*qk(IMAGE, heads=3, key_heads=2), call_of(IMAGE.layout))
    assert str(caught.value) == "3 query heads cannot share 2 key heads"


@pytest.mark.parametrize("kind", ["mean", "max", "first", "last"])
@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_the_best_pair_of_parts_scores_for_its_blocks(kind, parts, padded):
    order = order_of(LatentGrid(1, 10, 11), Text(21))
    q, k = qk(order, heads=2, key_heads=1)
    lengths = torch.tensor([order.tokens, 118]) if padded else None
    options = {"representative": kind, "parts": parts}
    call = call_of(order.layout, options=options, key_lengths=lengths)
    scores = SELECTORS["rainfusion2"].scores(q, k, order, call)
    of = {"mean": lambda x: x.mean(0), "max": lambda x: x.amax(0)}
    of |= {"first": lambda x: x[0], "last": lambda x: x[-1]}
    for b, h in ((0, 0), (1, 1)):
        end = order.tokens if lengths is None else int(lengths[b])
        queries = [[of[kind](p) for p in x.split(16 // parts)] for x in q[b, h].split(16)]
        keys = [[of[kind](p) for p in x.split(16 // parts)] for x in k[b, 0, :end].split(16)]
        for i, query_parts in enumerate(queries):
            for j, key_parts in enumerate(keys):
                wanted = max((x @ y).item() for x in query_parts for y in key_parts)
                assert scores[b, h, i, j].item() == pytest.approx(wanted, abs=1e-5)


def test_parts_that_do_not_divide_the_block_are_refused():
    with pytest.raises(ConfigError) as caught:
        select(*qk(IMAGE), IMAGE, options={"parts": 3})
    assert str(caught.value) == "method option parts must divide the block size, got 3 and 128"


def test_an_unknown_representative_is_refused_before_anything_runs():
    with pytest.raises(UnknownName, match="no representative is called 'median'"):
        call_of(IMAGE.layout, options={"representative": "median"})
