"""What a session lets a method remember: by layer and guidance branch, and no longer than one run."""

import pytest

from rainfusion_core import SparseConfig, install
from tests import pipelines, selecting


@pytest.fixture
def seen(monkeypatch):
    """The (step, layer, number of earlier calls) of every call, as a method sees it."""
    monkeypatch.setattr(selecting, "SEEN", [])
    targets = selecting.SELECTORS.targets
    monkeypatch.setitem(targets, "probe", "tests.selecting:PROBE")
    return selecting.SEEN


CONFIG = SparseConfig(method="probe", block_size=16, kernel="torch-blocks")


def test_a_method_remembers_by_layer_and_branch_from_step_to_step(seen):
    pipeline = pipelines.wan()
    with install(pipeline, CONFIG):
        pipelines.run(pipeline)
    # conditional and unconditional pass of three layers: neither sees the other's calls
    assert seen == [
        (step, 3, layer, step) for step in range(3) for _ in range(2) for layer in range(3)
    ]


def test_a_new_run_remembers_nothing(seen):
    pipeline = pipelines.wan()
    with install(pipeline, CONFIG):
        for _ in range(2):
            pipelines.run(pipeline)
    assert seen[:18] == seen[18:]


def test_clearing_forgets(seen):
    pipeline = pipelines.wan()
    with install(pipeline, CONFIG) as handle:
        pipelines.run(pipeline, num_inference_steps=1)
        handle.clear()
        pipelines.run(pipeline, num_inference_steps=1)
    assert {calls for *_, calls in seen} == {0}
