"""Layouts of one grid and text, and every order of them."""

from hypothesis import strategies as st

from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import ORDERS, TokenOrder, token_order


def layout(grid: tuple[int, int, int], *, before: int = 0, after: int = 0) -> TokenLayout:
    text = [(Text(before),) if before else (), (Text(after),) if after else ()]
    return TokenLayout((*text[0], LatentGrid(*grid), *text[1]))


def orders_of(layout: TokenLayout, block_size: int, sink: bool = True) -> list[TokenOrder]:
    """Every order that exists for the layout."""
    grid = layout.grids[0]
    names = [name for name in ORDERS if name != "window" or grid.frames % 2]
    return [token_order(layout, name=name, block_size=block_size, sink=sink) for name in names]


layouts = st.builds(
    layout,
    st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20)),
    before=st.sampled_from([0, 0, 1, 13]),
    after=st.sampled_from([0, 0, 1, 40]),
)
