import pytest

from rainfusion_core import errors
from rainfusion_core.errors import ConfigError, RainfusionError, UnknownName

KINDS = [
    errors.UnknownName,
    errors.ConfigError,
    errors.UnsupportedLayout,
    errors.KernelUnavailable,
    errors.ModelUnavailable,
    errors.OutputError,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_can_be_caught_as_one_and_stands_in_the_tree(kind):
    assert issubclass(kind, RainfusionError)
    assert f"├── {kind.__name__} " in errors.__doc__ or f"└── {kind.__name__} " in errors.__doc__


def test_an_error_keeps_the_problem_and_the_hint_apart():
    error = ConfigError("sparsity must be in [0, 1), got 80", hint="for 80 % write 0.8")
    assert (str(error), error.hint) == ("sparsity must be in [0, 1), got 80", "for 80 % write 0.8")


def test_an_error_needs_no_hint():
    assert ConfigError("no").hint is None


def test_an_unknown_name_is_answered_with_all_names_sorted_and_the_nearest():
    error = UnknownName("colour", "blu", {"green", "blue"})
    assert str(error) == "no colour is called 'blu'; known: blue, green"
    assert error.hint == "did you mean 'blue'?"


def test_a_name_near_to_none_gets_no_hint():
    assert UnknownName("colour", "xyz", iter(["green", "blue"])).hint is None
