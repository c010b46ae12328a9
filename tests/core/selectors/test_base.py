"""What a method sets where the user sets nothing, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rainfusion_core import SparseConfig, sparse_attention
from rainfusion_core.blocks import dense_blocks
from rainfusion_core.errors import ConfigError, UnknownName, UnsupportedLayout
from rainfusion_core.kernels.reference import attention
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import per_head, token_order
from rainfusion_core.selectors import SELECTORS
from rainfusion_core.selectors.base import OWN, Method
from tests.selecting import call_of

LAYOUT = TokenLayout((Text(5), LatentGrid(3, 5, 7)))


def select(q, k, order, call):
    return SELECTORS["rainfusion2"].select(q, k, order, call)


def own_order(q, k, call):
    orders = [token_order(LAYOUT, name=name, block_size=16) for name in ("compact", "window")]
    return per_head(orders, torch.tensor([[0, 1, 1], [1, 0, 1]]))


PLAIN = Method(select=select, order="raster", options={"stride": 16, "share": 0.5, "kind": "mean"})
OWNING = Method(select=select, arrange=own_order, order=OWN, sink=True)
STATIC = Method(select=select, static=True)


def test_what_is_left_open_is_the_methods():
    config = PLAIN.complete(SparseConfig(options={"stride": 8}))
    assert (config.order, config.sink) == ("raster", False)
    assert config.options == {"stride": 8, "share": 0.5, "kind": "mean"}
    given = PLAIN.complete(SparseConfig(order="frame", sink=True))
    assert (given.order, given.sink) == ("frame", True)
    assert PLAIN.complete(config) == config


@pytest.mark.parametrize(
    ("method", "settings", "problem", "hint"),
    [
        pytest.param(
            PLAIN, {"order": OWN}, "method x does not order the tokens itself, order is 'own'",
            "its own choice is 'raster'", id="has-no-order-of-its-own",
        ),
        pytest.param(
            OWNING, {"order": "raster"}, "method x orders the tokens itself, order is 'raster'",
            "leave the order out", id="has-only-an-order-of-its-own",
        ),
        pytest.param(
            STATIC, {"mass": 0.9}, "method x predicts no mass, so it takes no mass target",
            "set the sparsity instead", id="static-with-a-mass-target",
        ),
        pytest.param(
            PLAIN, {"options": {"stride": 8.5}},
            "method option stride must be a whole number, got 8.5",
            "where it is not given it is 16", id="whole-number",
        ),
        pytest.param(
            PLAIN, {"options": {"stride": True}},
            "method option stride must be a whole number, got True",
            "where it is not given it is 16", id="truth-is-no-number",
        ),
        pytest.param(
            PLAIN, {"options": {"kind": True}}, "method option kind must be a word, got True",
            "where it is not given it is 'mean'", id="word",
        ),
    ],
)  # fmt: skip
def test_what_a_method_does_not_take_is_refused(method, settings, problem, hint):
    with pytest.raises(ConfigError) as caught:
        method.complete(SparseConfig(method="x", **settings))
    assert (str(caught.value), caught.value.hint) == (problem, hint)


def test_a_whole_number_is_a_number():
    assert PLAIN.complete(SparseConfig(options={"share": 1})).options["share"] == 1


@pytest.mark.parametrize(("value", "word"), [(1, "1"), (0.2, "0.2"), ("max", "max")])
def test_a_number_is_a_word_where_the_method_wants_one(value, word):
    assert PLAIN.complete(SparseConfig(options={"kind": value})).options["kind"] == word


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(UnknownName) as caught:
        PLAIN.complete(SparseConfig(method="x", options={"strid": 8}))
    assert str(caught.value) == (
        "no option of method x is called 'strid'; known: kind, share, stride"
    )


def test_every_head_in_its_own_order_is_attention_of_that_head_in_that_order(monkeypatch):
    """Through the whole of `sparse_attention`, head by head against one order for all."""
    monkeypatch.setitem(SELECTORS.targets, "own", f"{__name__}:OWNING")
    q, k, v = torch.randn(3, 2, 3, LAYOUT.tokens, 8)
    settings = dict(sparsity=0.6, block_size=16, kernel="reference")
    out, _ = sparse_attention(q, k, v, LAYOUT, SparseConfig(method="own", **settings))
    kinds = own_order(q, k, None).found
    for kind, name in enumerate(["compact", "window"]):
        whole, _ = sparse_attention(
            q, k, v, LAYOUT, SparseConfig(order=name, sink=True, **settings)
        )
        assert torch.equal(out[kinds == kind], whole[kinds == kind])


def test_keys_may_have_an_order_of_their_own():
    order = token_order(LAYOUT, block_size=16)
    keys = torch.stack([torch.randperm(LAYOUT.tokens) for _ in range(6)]).view(2, 3, -1)
    order = replace(order, keys=keys, _copies={})
    q, k, v = torch.randn(3, 2, 3, LAYOUT.tokens, 8)
    kept = dense_blocks(2, 3, order.blocks, block_size=16)
    out = attention(order.permute(q), order.permute_keys(k), order.permute_keys(v), kept)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(order.unpermute(out), dense)


def test_heads_that_share_keys_cannot_have_orders_of_their_own():
    q, k = torch.zeros(1, 4, LAYOUT.tokens, 8), torch.zeros(1, 2, LAYOUT.tokens, 8)
    call = call_of(LAYOUT, "svg1")
    with pytest.raises(UnsupportedLayout) as caught:
        SELECTORS["svg1"].ordered(q, k, call)
    assert str(caught.value) == (
        "method svg1 orders every head by itself, but 4 query heads share 2 key heads"
    )


def test_the_page_on_methods_has_a_row_for_each_and_names_all_their_options():
    page = Path(__file__).parents[3].joinpath("docs", "methods.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.count("|") == 7]
    for name, method in SELECTORS.items():
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        assert ("| static |" in row) == method.static
        assert all(f"`{option}`" in row for option in method.options), f"options of {name}"
