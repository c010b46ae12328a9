import pytest

from rainfusion_core.errors import UnknownName
from rainfusion_core.registry import Registry

COLOURS = Registry("colour", {"sea-green": "colorsys:rgb_to_hls", "navy": "no_such_module:navy"})


def test_a_name_is_imported_when_looked_up():
    assert COLOURS["sea-green"].__name__ == "rgb_to_hls"


def test_listing_imports_nothing():
    assert list(COLOURS) == ["sea-green", "navy"]
    assert len(COLOURS) == 2


def test_a_target_that_cannot_be_imported_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        COLOURS["navy"]


def test_unknown_name_lists_all_and_suggests_the_nearest():
    with pytest.raises(UnknownName) as caught:
        COLOURS["seagreen"]
    assert str(caught.value) == "no colour is called 'seagreen'; known: navy, sea-green"
    assert caught.value.hint == "did you mean 'sea-green'?"
