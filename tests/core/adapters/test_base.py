import re

from rainfusion_core.adapters import ModelAdapter
from rainfusion_core.layout import LatentGrid, Text, TokenLayout

GRIDS = (LatentGrid(2, 3, 4), LatentGrid(1, 2, 2))


def adapter(text):
    return ModelAdapter(
        self_attention=re.compile("attn"), grids=lambda c, a: GRIDS, text=text, inputs=lambda m: {}
    )


def test_what_the_grids_leave_is_text_on_its_side():
    assert adapter("first").layout(GRIDS, 35) == TokenLayout((Text(7), *GRIDS))
    assert adapter("last").layout(GRIDS, 35) == TokenLayout((*GRIDS, Text(7)))


def test_without_text_there_is_no_text_segment():
    assert adapter("last").layout(GRIDS, 28) == TokenLayout(GRIDS)


def test_fewer_tokens_than_the_grids_hold_are_not_explained():
    assert adapter("last").layout(GRIDS, 27) is None


def test_a_call_whose_grids_are_unknown_is_not_taken_for_text():
    assert adapter("first").layout((), 35) is None
