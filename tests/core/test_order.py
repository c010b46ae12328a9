"""Every order on every kind of grid; the published ones against their formulas, token by token."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rainfusion_core import paths
from rainfusion_core.errors import ConfigError, UnknownName, UnsupportedLayout
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import (
    ORDERS,
    TokenOrder,
    compactness,
    per_head,
    token_order,
    token_places,
)
from tests.layouts import layout, layouts, orders_of

# Grids of the tests of MindIE-SD, and what is odd about them
MINDIE = [
    pytest.param((3, 40, 80), id="mindie-aligned-3x40x80"),
    pytest.param((3, 30, 52), id="mindie-both-remainders-3x30x52"),
    pytest.param((2, 21, 32), id="mindie-rows-remain-2x21x32"),
    pytest.param((2, 24, 45), id="mindie-columns-remain-2x24x45"),
]
REMAINDERS = [
    pytest.param((3, 8 + rows, 16 + columns), id=f"rows{rows}-columns{columns}")
    for rows, columns in product(range(8), repeat=2)
]


def assert_bijection(order: TokenOrder) -> None:
    every = torch.arange(order.layout.tokens)
    assert order.gather[order.restore].equal(every)
    assert order.restore[order.gather].equal(every)


def model_tokens(order: TokenOrder, kind: str) -> list[int]:
    """Numbers of the text tokens, or of the first frame, in the model's sequence."""
    tokens, start = [], 0
    for segment in order.layout.segments:
        if kind == "text" and isinstance(segment, Text):
            tokens += range(start, start + segment.tokens)
        if kind == "first frame" and isinstance(segment, LatentGrid):
            tokens += range(start, start + segment.height * segment.width)
        start += segment.tokens
    return tokens


@given(layouts, st.sampled_from([1, 16, 24, 128]), st.booleans())
def test_every_order_is_a_bijection_with_an_exact_inverse(layout, block_size, sink):
    for order in orders_of(layout, block_size, sink):
        assert_bijection(order)
        assert order.tokens == layout.tokens
        assert order.blocks == -(-layout.tokens // block_size)


@pytest.mark.parametrize("grid", REMAINDERS + MINDIE)
def test_text_and_video_come_back_whatever_remains_beside_the_windows(grid):
    for order in orders_of(layout(grid, before=5, after=7), block_size=16):
        x = torch.randn(2, 2, order.tokens, 3)
        assert order.unpermute(order.permute(x)).equal(x)
        assert order.permute(x).equal(x[:, :, order.gather])


@given(layouts, st.sampled_from([16, 128]), st.booleans())
def test_pinned_blocks_are_exactly_those_that_touch_the_first_frame_or_the_text(
    layout, block_size, sink
):
    for order in orders_of(layout, block_size, sink):
        touched = model_tokens(order, "text")
        if sink and layout.grids[0].frames > 1:
            touched += model_tokens(order, "first frame")
        blocks = {place // block_size for place in order.restore[touched].tolist()}
        assert blocks == set(order.pinned.nonzero().flatten().tolist())
        assert order.pinned_blocks == len(blocks)
        assert order.sink_tokens == len(touched) - layout.text_tokens


@given(layouts)
def test_text_is_always_last_and_keeps_its_own_order(layout):
    for order in orders_of(layout, 16):
        text = model_tokens(order, "text")
        assert order.gather[order.tokens - len(text) :].tolist() == text


def test_compact_puts_the_first_frame_between_the_video_and_the_text():
    order = token_order(layout((3, 5, 7), before=4, after=6), block_size=16)
    assert sorted(order.gather[70:105].tolist()) == model_tokens(order, "first frame")


def test_without_a_sink_the_first_frame_is_like_any_other():
    order = token_order(layout((4, 16, 16)), sink=False)
    assert order.pinned_blocks == 0
    # 2x8x8 windows fit all four frames, the first included
    assert {tuple(sorted(b.tolist())) for b in order.gather.split(128)} == {
        tuple(
            sorted(
                (2 * f + t) * 256 + (8 * h + y) * 16 + 8 * w + x
                for t, y, x in product(range(2), range(8), range(8))
            )
        )
        for f, h, w in product(range(2), repeat=3)
    }


def test_windows_of_images_are_two_dimensional_and_each_image_has_its_own():
    order = token_order(
        TokenLayout((Text(5), LatentGrid(1, 17, 33), LatentGrid(1, 8, 32))), name="window"
    )
    assert_bijection(order)
    first, second = 5, 5 + 17 * 33
    windows = [(first + y * 33 + x) for y in range(8) for x in range(16)]
    assert order.gather[:128].tolist() == windows
    # the row below and the column beside the windows end the first image
    image = order.gather[17 * 33 : 17 * 33 + 128].tolist()
    assert image == [second + y * 32 + x for y in range(8) for x in range(16)]


@pytest.mark.parametrize("name", ORDERS)
def test_an_image_has_no_sink(name):
    order = token_order(layout((1, 9, 9), after=10), name=name, block_size=16)
    assert order.sink_tokens == 0
    assert order.pinned.tolist() == [False] * 5 + [True]


def test_the_sink_is_the_first_frame_of_the_first_video_not_of_a_reference_image():
    segments = LatentGrid(1, 4, 8), LatentGrid(3, 4, 8), Text(3), LatentGrid(2, 4, 8)
    order = token_order(TokenLayout(segments), block_size=16)
    assert_bijection(order)
    # reference image, rest of the first video, second video, first frame, text
    wanted = [range(32), range(64, 128), range(131, 195), range(32, 64), range(128, 131)]
    parts = order.gather.split([len(part) for part in wanted])
    assert [sorted(part.tolist()) for part in parts] == [list(part) for part in wanted]
    assert order.pinned.tolist() == [False] * 10 + [True] * 3


def test_frames_that_condition_a_later_part_are_not_the_sink():
    order = token_order(TokenLayout((LatentGrid(2, 4, 4), LatentGrid(5, 4, 4))), block_size=16)
    assert order.pinned.tolist() == [False] * 6 + [True]
    assert sorted(order.gather[-16:].tolist()) == list(range(32, 48))


def test_every_grid_is_cut_at_the_block_boundaries_of_the_whole_sequence():
    images = LatentGrid(1, 5, 5), LatentGrid(1, 16, 16)
    order = token_order(TokenLayout(images), block_size=16)
    second = torch.arange(25, 281).view(1, 16, 16)
    assert order.gather[25:].equal(paths.compact(second, start=25, block_size=16))
    assert compactness(order) < 3.5


def window_place(t: int, h: int, w: int, grid: tuple[int, int, int]) -> int:
    """Place of a token in order "window", as public code has it for grids with odd frames."""
    frames, height, width = grid
    rows, columns = height % 8, width % 8
    below, beside, f = height - rows, width - columns, t - 1
    rest = frames - 1
    if t == 0:
        return rest * height * width + h * width + w
    if h >= below:
        return rest * below * width + (f * rows + h - below) * width + w - rest * below * columns
    if w >= beside:
        start = rest * below * beside + rest * rows * width
        return start + (f * below + h) * columns + w - beside
    window = ((f // 2) * (below // 8) + h // 8) * (beside // 8) + w // 8
    return window * 128 + (f % 2) * 64 + (h % 8) * 8 + w % 8


def frame_place(t: int, h: int, w: int, grid: tuple[int, int, int]) -> int:
    """Place of a token in order "frame", as public code has it."""
    _, height, width = grid
    rows, columns = height % 8, width % 8
    below, beside = height - rows, width - columns
    start = t * height * width
    if t == 0 and (rows or columns):
        return h * width + w
    if h >= below:
        return start + below * beside + (h - below) * width + w
    if w >= beside:
        return start + below * beside + rows * width + h * columns + w - beside
    return start + ((h // 8) * (beside // 8) + w // 8) * 64 + (h % 8) * 8 + w % 8


@pytest.mark.parametrize(("name", "place"), [("window", window_place), ("frame", frame_place)])
@pytest.mark.parametrize(
    "grid", [*REMAINDERS, *MINDIE[:2], pytest.param((5, 5, 6), id="smaller-than-a-window")]
)
def test_published_orders_follow_their_formulas(name, place, grid):
    order = token_order(layout(grid, before=3), name=name)
    places = [place(*token, grid) for token in product(*map(range, grid))]
    assert order.restore[3:].tolist() == places


@pytest.mark.parametrize("grid", MINDIE[2:])
def test_frame_order_takes_an_even_number_of_frames(grid):
    places = [frame_place(*token, grid) for token in product(*map(range, grid))]
    assert token_order(layout(grid), name="frame").restore.tolist() == places


def test_raster_is_the_order_of_the_model_with_the_text_behind():
    order = token_order(layout((2, 3, 4), before=5), name="raster", block_size=16)
    assert order.gather.tolist() == [*range(5, 29), *range(5)]


def test_an_order_is_built_once_and_copied_once_per_device():
    order = token_order(layout((2, 3, 5)), block_size=16)
    meta = torch.device("meta")
    assert token_order(layout((2, 3, 5)), block_size=16) is order
    assert order.on(torch.device("cpu")) is order
    assert order.on(meta) is order.on(meta)
    assert {t.device for t in (order.on(meta).gather, order.on(meta).pinned)} == {meta}
    assert order.on(meta).pinned_blocks == order.pinned_blocks


def test_an_order_is_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        order = token_order(layout((3, 11, 13)), block_size=16)
        assert compactness(order) > 0
    assert order.gather.device.type == order.pinned.device.type == "cpu"


def test_window_refuses_an_even_number_of_frames():
    with pytest.raises(UnsupportedLayout) as caught:
        token_order(layout((4, 8, 8)), name="window")
    assert str(caught.value) == (
        "order 'window' needs an even number of frames after the first, got 3"
    )
    assert caught.value.hint == "order 'compact' takes any number of frames"


@pytest.mark.parametrize("name", ["window", "frame"])
def test_published_orders_refuse_more_than_one_grid(name):
    with pytest.raises(UnsupportedLayout) as caught:
        token_order(TokenLayout((LatentGrid(1, 8, 8), LatentGrid(3, 8, 8))), name=name)
    assert str(caught.value) == f"order {name!r} is defined for one latent grid, got 2"
    assert caught.value.hint == "order 'compact' takes any number of grids"


def test_a_sequence_of_text_alone_is_refused():
    with pytest.raises(UnsupportedLayout) as caught:
        token_order(TokenLayout((Text(9),)))
    assert str(caught.value) == "the sequence holds no latent grid, only text"
    assert caught.value.hint == "run this attention dense"


def test_a_block_size_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"^block_size must be at least 1, got 0$"):
        token_order(layout((2, 3, 3)), block_size=0)


def test_an_unknown_order_suggests_the_nearest():
    with pytest.raises(UnknownName) as caught:
        token_order(layout((2, 3, 3)), name="windows")
    assert caught.value.hint == "did you mean 'window'?"


@pytest.mark.parametrize("name", ["thw", "twh", "htw", "hwt", "wth", "wht"])
def test_an_order_by_axes_sorts_the_places_by_them_with_the_sink_and_the_text_last(name):
    order = token_order(layout((4, 3, 5), before=6), name=name, block_size=4)
    places = token_places(order).tolist()
    axes = ["thw".index(axis) for axis in name]
    by_axes = sorted(places[:45], key=lambda place: [place[axis] for axis in axes])
    assert places[:45] == by_axes and {place[0] for place in places[:45]} == {1, 2, 3}
    sink = [[0, h, w] for h in range(3) for w in range(5)]
    assert places[45:60] == sorted(sink, key=lambda place: [place[axis] for axis in axes])
    assert places[60:] == [[-1] * 3] * 6


def test_cells_follow_each_other_and_are_cut_at_the_sides():
    order = token_order(layout((3, 3, 5)), name="2x2x3", block_size=4, sink=False)
    cells = [(t // 2, h // 2, w // 3) for t, h, w in token_places(order).tolist()]
    assert cells == sorted(cells)
    inside = token_places(order)[:12].tolist()
    assert inside == sorted(inside) and len(inside) == 12


@pytest.mark.parametrize("name", ["0x4x4", "4x4", "4x4x4x4", "-1x4x4", "4x4x", "cube"])
def test_other_cells_are_unknown(name):
    with pytest.raises(UnknownName, match="no token order is called"):
        token_order(layout((3, 3, 5)), name=name)


def test_any_leading_share_of_the_dither_lies_evenly_in_every_frame():
    order = token_order(layout((5, 8, 12)), name="dither", block_size=16)
    places = token_places(order)[:384]  # without the first frame
    for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2):
        frames = places[: int(384 * share)]
        assert frames[:, 0].bincount().tolist() == [0, *[int(96 * share)] * 4]
        quarters = frames[:, 1] // 4 * 3 + frames[:, 2] // 4
        assert quarters.bincount().tolist() == [int(384 * share / 6)] * 6


def test_places_of_later_grids_count_on():
    images = TokenLayout((LatentGrid(1, 2, 2), LatentGrid(2, 1, 2)))
    order = token_order(images, name="raster", block_size=4)
    assert token_places(order)[:, 0].tolist() == [0] * 4 + [1] * 2 + [2] * 2


def test_heads_may_have_orders_of_their_own():
    orders = [token_order(layout((3, 4, 5), after=3), name=n, block_size=8) for n in ("thw", "hwt")]
    kinds = torch.tensor([[0, 1, 1], [1, 0, 1]])
    order = per_head(orders, kinds)
    x = torch.randn(2, 3, 63, 4)
    assert (order.tokens, order.blocks, order.name) == (63, 8, "thw+hwt")
    for b, h in product(range(2), range(3)):
        alone = orders[kinds[b, h]].permute(x[b : b + 1, h : h + 1])
        assert order.permute(x)[b, h].equal(alone[0, 0])
        assert order.permute_keys(x)[b, h].equal(alone[0, 0])
    assert order.unpermute(order.permute(x)).equal(x)
    assert order.unpermute(order.permute(x.transpose(2, 3).contiguous().transpose(2, 3))).equal(x)
