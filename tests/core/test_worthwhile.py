"""Where dense attention is left alone because it was measured to be faster."""

import json

import pytest
import torch

from rainfusion_core import SparseConfig, install, worthwhile
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.worthwhile import crossing, device_class, least_tokens, tokens_needed
from tests import pipelines

CPU = torch.device("cpu")


def points(dtype: str, dim: int, sparsity: float, *speedups: tuple[int, float]) -> list[dict]:
    return [
        {
            "dtype": dtype, "head_dim": dim, "sparsity": sparsity, "density": 1 - sparsity,
            "tokens": tokens, "dense_ms": speedup, "sparse_ms": 1.0,
        }
        for tokens, speedup in speedups
    ]  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """A function that takes the points of the CPU class "cpu, k" as what was measured."""
    monkeypatch.setattr(worthwhile, "multiplies_tiles", lambda: False)

    def write(*found: list[dict], name: str = "cpu, k") -> None:
        file = tmp_path / "measured.json"
        file.write_text(json.dumps({name: {"points": [p for each in found for p in each]}}))
        monkeypatch.setattr(worthwhile, "MEASURED", file)
        worthwhile._curves.cache_clear()
        least_tokens.cache_clear()

    yield write
    worthwhile._curves.cache_clear()
    least_tokens.cache_clear()


@pytest.mark.parametrize(
    ("speedups", "tokens"),
    [
        (((256, 0.5), (1024, 2.0)), 512),
        (((256, 1.5), (1024, 2.0)), 1),
        (((256, 0.5), (1024, 0.8)), 1024),
        (((256, 2.0), (512, 0.5), (2048, 2.0)), 1024),
    ],
    ids=["between", "always", "never", "the-last-crossing"],
)
def test_crossing(speedups, tokens):
    assert crossing(points("float32", 64, 0.5, *speedups)) == pytest.approx(tokens)


def test_between_densities_the_logarithm_is_interpolated(measured):
    measured(
        points("float32", 64, 0.5, (512, 0.5), (2048, 2.0)),
        points("float32", 64, 0.9, (128, 0.5), (512, 2.0)),
    )
    needed = [tokens_needed(CPU, "k", torch.float32, 64, d) for d in (0.05, 0.1, 0.3, 0.5, 0.9)]
    assert needed == pytest.approx([256, 256, 512, 1024, 1024])


def test_what_was_never_measured_has_no_rule(measured):
    measured(points("float32", 64, 0.5, (512, 0.5), (2048, 2.0)))
    assert tokens_needed(CPU, "other", torch.float32, 64, 0.5) == 0
    assert tokens_needed(CPU, "k", torch.bfloat16, 64, 0.5) == 0
    assert tokens_needed(CPU, "k", torch.float32, 80, 0.5) == pytest.approx(1024)


def test_pinned_blocks_count(measured):
    measured(
        points("float32", 64, 0.1, (512, 0.5), (2048, 2.0)),
        points("float32", 64, 0.9, (128, 0.5), (512, 2.0)),
    )
    layout = TokenLayout((LatentGrid(2, 16, 16),))
    free, pinned = (
        least_tokens(SparseConfig(sparsity=0.75, sink=sink), layout, CPU, "k", torch.float32, 64)
        for sink in (False, True)
    )
    assert 256 < free < pinned < 1024
    assert least_tokens(SparseConfig(mass=0.9), layout, CPU, "k", torch.float32, 64) == 0


def run(kernel: str) -> dict[str, int]:
    pipeline = pipelines.wan()
    config = SparseConfig(block_size=16, kernel=kernel)
    with install(pipeline, config) as handle:
        pipelines.run(pipeline)
        return handle.session.report().dense_reasons()


def test_a_session_runs_dense_where_sparse_does_not_pay_and_says_so(measured):
    kernel = automatic()
    measured(points("float32", 16, 0.5, (512, 0.5), (2048, 2.0)), name=device_class(CPU, kernel))
    assert list(run("auto")) == ["sparse pays from 1024 tokens on"]


def test_a_kernel_asked_for_by_name_always_runs(measured):
    measured(points("float32", 16, 0.5, (512, 0.5), (2048, 2.0)), name="cpu, torch-blocks")
    assert run("torch-blocks") == {}


def test_a_session_stays_sparse_where_it_pays(measured):
    kernel = automatic()
    measured(points("float32", 16, 0.5, (2, 0.5), (8, 2.0)), name=device_class(CPU, kernel))
    assert run("auto") == {}


def automatic() -> str:
    from rainfusion_core.kernels import choose_kernel

    return choose_kernel("auto", CPU, torch.float32, 16, 16)[0]


def test_cpus_with_amx_are_a_class_of_their_own(monkeypatch):
    monkeypatch.setattr(worthwhile, "multiplies_tiles", lambda: True)
    assert device_class(CPU, "k") == "cpu with AMX, k"
    assert device_class(torch.device("mps"), "k") == "mps, k"


def test_the_shipped_table_leaves_the_embedded_model_sparse(monkeypatch):
    layout = TokenLayout((LatentGrid(9, 16, 16),))
    found = json.loads(worthwhile.MEASURED.read_text())
    assert found
    for name in found:
        monkeypatch.setattr(worthwhile, "multiplies_tiles", lambda name=name: "AMX" in name)
        least_tokens.cache_clear()
        for dtype in (torch.float32, torch.bfloat16):
            kernel = name.split(", ")[1]
            assert 1 < least_tokens(SparseConfig(), layout, CPU, kernel, dtype, 64) < 2304, name
    least_tokens.cache_clear()
