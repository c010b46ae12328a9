"""What holds for every method: any grid, text anywhere, padding, exact counts, exact attention over what is kept."""

import pytest
import torch

from rainfusion_core import SparseConfig, install, sparse_attention
from rainfusion_core.blocks import kept_mask
from rainfusion_core.kernels import reference
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selectors import SELECTORS, Memory
from tests import pipelines
from tests.selecting import call_of

LAYOUTS = {
    "video": TokenLayout((LatentGrid(4, 8, 8),)),
    "ragged-text-last": TokenLayout((LatentGrid(5, 7, 9), Text(20))),
    "ragged-text-first": TokenLayout((Text(11), LatentGrid(3, 5, 11))),
    "image": TokenLayout((LatentGrid(1, 9, 13),)),
    "two-grids": TokenLayout((LatentGrid(1, 6, 7), LatentGrid(3, 6, 7), Text(5))),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
every = pytest.mark.parametrize("method", SELECTORS)
# What random tokens do not move: no block is alike in itself, no head has a type, one tile holds all.
# Their own tests do these checks on tokens that do.
UNMOVED = {
    "look": {"rainfusion1"}, "sparsity": {"sliding-tile", "radial"},
    "mass": {"sparge", "rainfusion1"},
}  # fmt: skip
STATIC = [name for name in SELECTORS if SELECTORS[name].static]
BY_MASS = [n for n in SELECTORS if SELECTORS[n].takes_mass and not SELECTORS[n].static]
BY_MASS = [name for name in BY_MASS if name not in UNMOVED["mass"]]
# A row of these keeps one number of blocks; no mask of a shape, no head or gate decides otherwise.
EXACT = ["rainfusion2", "svg2", "xattention", "vsa", "oracle", "random", "local"]


def qkv(layout, batch=2, heads=3):
    return torch.randn(3, batch, heads, layout.tokens, 16)


def chosen(method, q, k, layout, **settings):
    """(order, kept blocks) of one call."""
    call = call_of(layout, method, block_size=16, **settings)
    order = SELECTORS[method].ordered(q, k, call)
    kept = SELECTORS[method].select(order.permute(q), order.permute_keys(k), order, call)
    return order, kept


@every
@layouts
def test_every_token_is_in_every_order_once(method, layout):
    q, k, _ = qkv(layout)
    order, _ = chosen(method, q, k, layout)
    places = torch.arange(layout.tokens)
    for gather in (order.gather, order.gather if order.keys is None else order.keys):
        assert gather.sort(dim=-1).values.eq(places).all()
    assert order.unpermute(order.permute(q)).equal(q)


@every
@layouts
def test_pinned_blocks_are_dense_and_every_query_block_keeps_something(method, layout):
    q, k, _ = qkv(layout)
    order, kept = chosen(method, q, k, layout, sparsity=0.8, sink=True)
    mask = kept_mask(kept)
    assert kept.count.min() >= 1
    assert mask[:, :, order.pinned].all() and mask[..., order.pinned].all()
    listed = torch.arange(kept.index.shape[-1]) < kept.count[..., None]
    assert mask.sum(-1).equal(kept.count.long())
    ascending = kept.index.diff(dim=-1) > 0
    assert (ascending | ~listed[..., 1:]).all()


@every
@layouts
def test_text_is_in_the_last_places_of_every_order(method, layout):
    q, k, _ = qkv(layout)
    order, _ = chosen(method, q, k, layout)
    text, start = [], 0
    for segment in layout.segments:
        text += range(start, start + segment.tokens) if isinstance(segment, Text) else []
        start += segment.tokens
    for gather in (order.gather, order.gather if order.keys is None else order.keys):
        last = gather[..., layout.tokens - len(text) :]
        assert (last == torch.tensor(text)).all()


@every
def test_padding_is_never_kept_and_never_looked_at(method):
    layout = LAYOUTS["ragged-text-last"]  # text is the places 315 to 334
    q, k, _ = qkv(layout, batch=3)
    lengths = torch.tensor([317, 320, 335])
    _, clean = chosen(method, q, k, layout, sparsity=0.7, key_lengths=lengths)
    k[0, :, 317:], k[1, :, 320:] = 1e4, -1e4
    _, kept = chosen(method, q, k, layout, sparsity=0.7, key_lengths=lengths)
    mask = kept_mask(kept)
    # 317 keys end in block 19, 320 end with it
    assert not mask[:2, :, :, 20:].any() and mask[2, :, :, 20].any()
    assert mask.equal(kept_mask(clean))


@every
@layouts
def test_attention_is_exact_over_what_is_kept(method, layout):
    """Against masked attention in the model's order, from the gathers alone."""
    q, k, v = qkv(layout)
    settings = dict(method=method, block_size=16, sparsity=0.7)
    out, kept = sparse_attention(q, k, v, layout, SparseConfig(**settings))
    order, _ = chosen(method, q, k, layout, sparsity=0.7, scale=0.25)
    keys = order.gather if order.keys is None else order.keys
    mask = reference.token_mask(kept, layout.tokens, layout.tokens)
    rows = order.gather.expand(2, 3, -1).argsort(-1)[..., None].expand_as(mask)
    columns = keys.expand(2, 3, -1).argsort(-1)[..., None, :].expand_as(mask)
    allowed = mask.gather(-2, rows).gather(-1, columns)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", STATIC)
@layouts
def test_static_methods_do_not_look_at_queries_and_keys(method, layout):
    (q, k, _), (other_q, other_k, _) = qkv(layout), qkv(layout)
    _, kept = chosen(method, q, k, layout, sparsity=0.6)
    _, other = chosen(method, other_q * 9, other_k, layout, sparsity=0.6)
    assert kept.index.equal(other.index) and kept.count.equal(other.count)


@pytest.mark.parametrize("method", sorted({*SELECTORS} - {*STATIC} - UNMOVED["look"]))
def test_other_methods_do(method):
    layout = LAYOUTS["video"]
    (q, k, _), (other_q, other_k, _) = qkv(layout) * 3, qkv(layout) * 3
    order, kept = chosen(method, q, k, layout, sparsity=0.6)
    other, others = chosen(method, other_q, other_k, layout, sparsity=0.6)
    same = kept_mask(kept).equal(kept_mask(others))
    assert not (same and order.gather.equal(other.gather))


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
@layouts
def test_a_fixed_share_is_exact(method, sparsity, layout):
    q, k, _ = qkv(layout)
    order, kept = chosen(method, q, k, layout, sparsity=sparsity, budget="total", sink=False)
    free = kept.count[:, :, ~order.pinned]
    assert len(free.unique()) == 1
    least = 1 - (1 - order.pinned_blocks / order.blocks) ** 2 + 1 / order.blocks
    if 1 - sparsity > least:
        assert kept.density == pytest.approx(1 - sparsity, abs=0.5 / order.blocks)


@pytest.mark.parametrize("method", sorted({*SELECTORS} - UNMOVED["sparsity"]))
def test_a_larger_sparsity_keeps_no_more(method):
    layout = LAYOUTS["video"]
    q, k, _ = qkv(layout)
    densities = [
        chosen(method, q, k, layout, sparsity=sparsity, sink=False)[1].density
        for sparsity in (0.2, 0.5, 0.7, 0.9)
    ]
    assert densities == sorted(densities, reverse=True) and densities[0] > densities[-1]


@pytest.mark.parametrize("method", BY_MASS)
@pytest.mark.parametrize("budget", ["paper", "total"])
def test_a_mass_target_reaches_it_by_the_methods_own_prediction(method, budget):
    layout = LAYOUTS["ragged-text-last"]
    q, k, _ = qkv(layout)
    counts = []
    for mass in (0.3, 0.6, 0.9):
        memory = Memory()
        call = call_of(
            layout, method, block_size=16, mass=mass, budget=budget, sparsity=1e-3, memory=memory
        )
        order = SELECTORS[method].ordered(q, k, call)
        q_in, k_in = order.permute(q), order.permute_keys(k)
        kept = SELECTORS[method].select(q_in, k_in, order, call)
        counts.append(kept.density)
        if SELECTORS[method].scores is not None:
            predicted = SELECTORS[method].scores(q_in, k_in, order, call).softmax(-1)
            assert ((predicted * kept_mask(kept)).sum(-1) >= mass - 1e-4).all()
    assert counts == sorted(counts) and counts[0] < counts[-1]


@every
def test_a_model_renders_with_it(method):
    pipeline = pipelines.wan()
    config = SparseConfig(method=method, sparsity=0.6, block_size=16, kernel="torch-blocks")
    with install(pipeline, config) as handle:
        video = pipelines.run(pipeline, num_inference_steps=2)
        rows = handle.report().sparse_rows
    assert len(rows) == 2 * 2 * 3 and video.isfinite().all()


@every
def test_half_precision_is_served_and_gradients_are_not_kept(method):
    layout = LAYOUTS["video"]
    q, k, v = qkv(layout).to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        out, _ = sparse_attention(q, k, v, layout, SparseConfig(method=method, block_size=16))
    assert out.dtype == torch.bfloat16 and out.isfinite().all()


@every
def test_a_block_size_of_64_is_served(method):
    layout = TokenLayout((LatentGrid(5, 10, 11), Text(30)))
    q, k, _ = qkv(layout, batch=1)
    call = call_of(layout, method, block_size=64)
    order = SELECTORS[method].ordered(q, k, call)
    kept = SELECTORS[method].select(order.permute(q), order.permute_keys(k), order, call)
    assert (kept.key_blocks, kept.block_size) == (10, 64)
