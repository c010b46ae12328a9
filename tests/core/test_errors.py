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


@pytest.mark.parametrize(("names", "more"), [(20, 0), (21, 16), (60, 55)])
def test_of_a_long_table_only_the_nearest_names_are_shown(names, more):
    known = {"red", *(f"colour-{number}" for number in range(1, names))}
    error = UnknownName("colour", "rad", known, listed="paint lists all")
    listed, _, rest = str(error).partition("; known: ")[2].partition(" and ")
    shown = listed.split(", ")
    assert len(shown) == names - more and set(shown) <= known and "red" in shown
    assert rest == (f"{more} more" if more else "")
    assert error.hint == "did you mean 'red'? paint lists all"


def test_where_all_names_are_listed_is_told_even_if_none_is_near():
    error = UnknownName("colour", "xyz", ["green"], listed="paint lists all")
    assert error.hint == "paint lists all"
