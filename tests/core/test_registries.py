"""Rules every table obeys, so that a new entry is tested the day it is written."""

from inspect import signature
from pathlib import Path

import pytest

from rainfusion_core.adapters import ADAPTERS, ModelAdapter
from rainfusion_core.kernels import KERNELS
from rainfusion_core.kernels.base import Kernel
from rainfusion_core.order import order_path
from rainfusion_core.selectors import SELECTORS
from rainfusion_core.selectors.base import OWN, Method

ROOT = Path(__file__).parents[2]
TABLES = [SELECTORS, KERNELS, ADAPTERS]
SELECT = ["q", "k", "order", "call"]
ENTRIES = [
    pytest.param(table, name, id=f"{table.kind}-{name}") for table in TABLES for name in table
]


def module_path(target: str) -> list[str]:
    return target.partition(":")[0].split(".")


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_entry_meets_its_contract(table, name):
    entry = table[name]
    if table is ADAPTERS:
        assert isinstance(entry, ModelAdapter)
        return
    if table is SELECTORS:
        assert isinstance(entry, Method)
        for function in filter(None, (entry.select, entry.scores)):
            assert list(signature(function).parameters) == SELECT
        assert (entry.order == OWN) == (entry.arrange is not None)
        assert entry.order == OWN or order_path(entry.order)
        return
    wanted = [p for p in signature(Kernel.__call__).parameters if p != "self"]
    assert list(signature(entry).parameters)[: len(wanted)] == wanted
    assert entry.__doc__


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_entry_has_a_test_file(table, name):
    *folders, module = module_path(table.targets[name])
    path = ROOT.joinpath("tests", "core", *folders[1:], f"test_{module}.py")
    assert path.is_file(), f"{path} is missing"


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_every_transformer_class_is_in_the_documentation(name):
    assert f"`{name}`" in ROOT.joinpath("docs", "models.md").read_text("utf-8")
