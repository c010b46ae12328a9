"""The rule of `sink.first_frame`: by hand on small layouts, and where it must not depend on anything else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import order_for, token_order
from rainfusion_core.selectors import SELECTORS
from rainfusion_core.sink import LARGE_SHARE, FirstFrame, first_frame


def rule(*segments, **settings):
    settings = {"block_size": 16, **settings}
    return first_frame(TokenLayout(segments), SparseConfig(**settings))


BY_HAND = {
    # frames of 2 blocks; 20 blocks, of which a row chooses 4, and the sink comes on top: 2 of 6
    "large": ((LatentGrid(10, 4, 8),), {"sparsity": 0.8}, FirstFrame(False, 2, 6)),
    # 10 are chosen: 2 of 12
    "small": ((LatentGrid(10, 4, 8),), {"sparsity": 0.5}, FirstFrame(True, 2, 12)),
    # 2 of 8 is a quarter, which is large already
    "a quarter": ((LatentGrid(10, 4, 8),), {"sparsity": 0.7}, FirstFrame(False, 2, 8)),
    # of 120 pairs the sink's own rows take 40; 80 left for 18 rows are 4 each, its 2 among them
    "paid for": (
        (LatentGrid(10, 4, 8),),
        {"sparsity": 0.7, "budget": "total"},
        FirstFrame(False, 2, 4),
    ),
    # 2 blocks of text are kept as well, and 7 of 22 chosen: 2 of 11
    "text last": (
        (LatentGrid(10, 4, 8), Text(20)), {"sparsity": 0.7}, FirstFrame(True, 2, 11),
    ),
    "text first": (
        (Text(20), LatentGrid(10, 4, 8)), {"sparsity": 0.7}, FirstFrame(True, 2, 11),
    ),
    # frames of 35 tokens take 3 blocks; 44 blocks, 9 chosen
    "ragged": ((LatentGrid(20, 5, 7),), {"sparsity": 0.8}, FirstFrame(False, 3, 12)),
    "image": ((LatentGrid(1, 16, 16),), {"sparsity": 0.5}, FirstFrame(False, 0, 0)),
    # of the video, not of the picture that it starts from
    "picture and video": (
        (LatentGrid(1, 4, 4), LatentGrid(10, 4, 8)), {"sparsity": 0.5}, FirstFrame(True, 2, 13),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("segments", "settings", "found"), BY_HAND.values(), ids=BY_HAND.keys())
def test_the_share_is_counted_as_by_hand(segments, settings, found):
    assert rule(*segments, **settings) == found


@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("frames", [2, 100])
def test_who_says_on_or_off_gets_it(frames, sink):
    assert rule(LatentGrid(frames, 4, 8), sparsity=0.8, sink=sink).sink is sink


def test_an_image_has_no_sink_even_if_asked_for():
    assert not rule(LatentGrid(1, 16, 16), sparsity=0.5, sink=True).sink


def test_another_word_is_refused():
    with pytest.raises(ConfigError) as caught:
        SparseConfig(sink="maybe")
    assert str(caught.value) == """sink must be true, false or "auto", got 'maybe'"""


@given(
    frames=st.integers(2, 60), height=st.integers(1, 12), width=st.integers(1, 12),
    text=st.integers(0, 50), sparsity=st.floats(0.05, 0.95), budget=st.sampled_from(["paper", "total"]),
)  # fmt: skip
def test_it_is_a_sink_just_where_it_is_a_small_share(frames, height, width, text, sparsity, budget):
    settings = {"sparsity": sparsity, "budget": budget}
    found = rule(LatentGrid(frames, height, width), Text(text), **settings)
    assert 0 < found.blocks <= found.row_blocks
    assert found.sink == (found.blocks / found.row_blocks < LARGE_SHARE)


@given(
    frames=st.integers(2, 24), side=st.integers(1, 6), text=st.integers(0, 50),
    sparsity=st.floats(0.05, 0.95),
)  # fmt: skip
def test_the_order_pins_the_first_frame_just_then(frames, side, text, sparsity):
    layout = TokenLayout((LatentGrid(frames, side, side), Text(text)))
    config = SELECTORS["rainfusion2"].complete(SparseConfig(sparsity=sparsity, block_size=16))
    order = order_for(layout, config)
    assert order.sink_tokens == (side * side if first_frame(layout, config).sink else 0)
    told = token_order(layout, block_size=16, sink=order.sink_tokens > 0)
    assert order.pinned.equal(told.pinned) and order.gather.equal(told.gather)


def test_more_frames_never_turn_it_off():
    on = [rule(LatentGrid(frames, 4, 8), sparsity=0.8).sink for frames in range(2, 60)]
    assert on == sorted(on) and len(set(on)) == 2


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_a_method_whose_source_has_no_sink_gets_none_by_itself(name):
    method, long = SELECTORS[name], TokenLayout((LatentGrid(40, 4, 8),))
    config = method.complete(SparseConfig(method=name, sparsity=0.5, block_size=16))
    assert first_frame(long, config).sink is method.sink
    assert first_frame(long, method.complete(replace(config, sink=True))).sink
