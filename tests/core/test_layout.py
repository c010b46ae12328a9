from rainfusion_core.layout import LatentGrid, Text, TokenLayout

LAYOUT = TokenLayout((Text(7), LatentGrid(1, 4, 6), LatentGrid(3, 4, 6), Text(5)))


def test_a_grid_has_a_token_for_every_place():
    assert LatentGrid(21, 45, 80).tokens == 75_600


def test_tokens_are_the_sum_of_all_segments():
    assert LAYOUT.tokens == 7 + 24 + 72 + 5


def test_text_tokens_are_the_sum_of_the_text_segments_alone():
    assert LAYOUT.text_tokens == 12


def test_grids_keep_their_order():
    assert LAYOUT.grids == (LatentGrid(1, 4, 6), LatentGrid(3, 4, 6))


def test_equal_layouts_are_one_cache_key():
    twin = TokenLayout((Text(7), LatentGrid(1, 4, 6), LatentGrid(3, 4, 6), Text(5)))
    assert {LAYOUT: "found"}[twin] == "found"


def test_a_layout_with_its_segments_swapped_is_another():
    assert TokenLayout(LAYOUT.segments[::-1]) != LAYOUT
