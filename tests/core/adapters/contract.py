"""What every adapter is tested for, on tiny random models: one subclass of `AdapterContract` a family."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rainfusion_core import SparseConfig, install
from rainfusion_core.adapters import ADAPTERS
from rainfusion_core.budget import chosen_per_row, density_bounds
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.loading.random_weights import draw_weights, random_inputs
from rainfusion_core.order import token_order

SMALL = {"block_size": 16, "kernel": "torch-blocks", "strict": True}


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A tiny model, and what its self-attention calls have to look like.

    Attributes:
        make: builds a pipeline, or a transformer alone.
        run: (what `make` built) -> its output; the same every time.
        layout: of every call.
        layers: self-attention layers, of all transformers.
        branches: guidance branches that a step counts its calls under, in the order of the calls.
        padded: text tokens that the mask hides, for each batch item of a branch.
        calls: attention calls of one layer in one forward pass.
        axes: of `hidden_states`, that hold frames, rows and columns; or the one axis that holds
            tokens, where the pipeline patchifies.
        others: runs as `run`, each with another picture, video or mask in the place of one.
    """

    make: Callable[[], Any]
    run: Callable[[Any], Tensor]
    layout: TokenLayout
    layers: int
    branches: tuple[str, ...] = ("cond", "uncond")
    padded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    calls: int = 1
    axes: tuple[int, ...] = (2, 3, 4)
    others: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)


@cache
def built(case: Case) -> Any:
    torch.manual_seed(0)
    return case.make()


@torch.no_grad()
def rendered(case: Case) -> Tensor:
    return case.run(built(case))


@cache
def dense_output(case: Case) -> Tensor:
    """Without the core, so call it before `installed`."""
    return rendered(case)


def transformers(model: Any) -> list[nn.Module]:
    if isinstance(model, nn.Module):
        return [model]
    found = (model.components.get(name) for name in ("transformer", "transformer_2"))
    return [each for each in found if each is not None]


def installed(case: Case, **settings: Any) -> Any:
    return install(built(case), SparseConfig(**{**SMALL, **settings}))


class AdapterContract:
    """Inherit it as `class TestContract(AdapterContract)` and fill `cases`."""

    cases: Mapping[str, Case]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases.values(), ids=list(self.cases))

    def test_keeping_every_block_equals_dense_attention(self, case):
        dense = dense_output(case)
        # strict: a call that is not understood is an error
        with installed(case, sparsity=1e-6) as handle:
            sparse = rendered(case)
            report = handle.report()
        assert len(report.sparse_rows) == len(report.rows) > 0
        assert report.achieved == 0 or case.padded
        assert dense.isfinite().all()
        size = max(1.0, dense.abs().max().item())  # latents are not bounded as pixels are
        torch.testing.assert_close(sparse, dense, atol=1e-5 * size, rtol=0)

    def test_every_layer_and_branch_runs_in_every_step(self, case):
        with installed(case, sparsity=0.8) as handle:
            rendered(case)
            rows, layers = handle.report().rows, handle.session.layers
        assert len(layers) == case.layers
        served = len({row.transformer for row in rows})
        assert served == len(transformers(built(case)))
        steps = sorted({row.step for row in rows})
        assert steps == list(range(len(steps)))
        for step in steps:
            branches = [row.branch for row in rows if row.step == step]
            assert list(dict.fromkeys(branches)) == list(case.branches)
            names = {row.transformer for row in rows if row.step == step}
            mine = sum(layer.transformer in names for layer in layers)
            assert len(branches) == mine * len(case.branches) * case.calls
        assert {(row.transformer, row.layer) for row in rows} == {
            (layer.transformer, layer.index) for layer in layers
        }

    def test_total_budget_skips_exactly_what_its_arithmetic_says(self, case):
        dense = dense_output(case)
        with installed(case, sparsity=0.8, budget="total", sink=True) as handle:
            sparse = rendered(case)
            rows = handle.report().rows
        assert sparse.isfinite().all() and not torch.equal(sparse, dense)
        order = token_order(case.layout, block_size=16)
        blocks, pinned = order.blocks, order.pinned_blocks
        free_row = chosen_per_row(blocks, pinned, sparsity=0.8, budget="total") + pinned
        kept_whole = pinned * blocks + (blocks - pinned) * free_row
        assert kept_whole < blocks**2, "this case is too small to skip anything"
        for row in rows:
            empty = padding_blocks(case, row.branch)
            heads, rest = divmod(row.pairs, len(empty) * blocks**2)
            assert heads and not rest
            # a block of padding alone counts as pinned, and is left out of every row
            assert row.kept_pairs == heads * sum(kept_whole - blocks * n for n in empty)

    def test_paper_budget_stays_between_its_bounds(self, case):
        with installed(case, sparsity=0.8, budget="paper", sink=True) as handle:
            rendered(case)
            rows = handle.report().rows
        order = token_order(case.layout, block_size=16)
        least, most = density_bounds(
            order.blocks, order.pinned_blocks, sparsity=0.8, budget="paper"
        )
        for row in rows:
            empty = max(padding_blocks(case, row.branch)) / order.blocks
            assert least - empty - 1e-9 <= row.kept_pairs / row.pairs <= most + 1e-9

    def test_every_grid_is_larger_and_more_ragged_than_a_window(self, case):
        for grid in case.layout.grids:
            assert grid.frames == 1 or grid.frames >= 5
            assert grid.height % 8 and grid.width % 8 and grid.height != grid.width

    @torch.no_grad()
    def test_a_latent_feeds_the_token_that_the_layout_says(self, case):
        """Changing one latent changes one query of the first layer: that of its place."""
        transformer = transformers(built(case))[0]
        arguments = first_arguments(case, transformer)
        latents = arguments["hidden_states"]
        adapter = ADAPTERS[type(transformer).__name__]
        grids = adapter.grids(transformer.config, arguments)
        assert adapter.layout(grids, case.layout.tokens) == case.layout
        for number, token in odd_tokens(case.layout):
            nudged = latents.clone()
            latents_of(nudged, case, number).add_(1)
            changed = first_queries(case, transformer, arguments, latents).ne(
                first_queries(case, transformer, arguments, nudged)
            )
            seen_by_token = changed.any(dim=-1).any(dim=1).any(dim=0)
            assert seen_by_token.nonzero().flatten().tolist() == [token]

    @torch.no_grad()
    def test_made_up_arguments_run_sparsely_in_bfloat16(self, case):
        """As `rf profile` runs a model without weights, and as weights are usually loaded."""
        original = transformers(built(case))[0]
        adapter = ADAPTERS[type(original).__name__]
        transformer = draw_weights(
            lambda: type(original).from_config(original.config),
            device=torch.device("cpu"), dtype=torch.bfloat16,
        )  # fmt: skip
        grid = case.layout.grids[-1]  # the video stands behind what conditions it
        latents = grid.frames, grid.height, grid.width
        if len(case.axes) == 3:
            sizes = first_arguments(case, original)["hidden_states"].shape
            latents = tuple(sizes[axis] for axis in case.axes)
        text = case.layout.text_tokens or 7
        made = random_inputs(transformer, latents, text)
        with install(transformer, SparseConfig(**SMALL)) as handle:
            out = transformer(**made, return_dict=False)[0]
            assert out.isfinite().all() and handle.report().sparse_rows
        tokens = grid.tokens + (text if adapter.text != "none" else 0)
        layout = adapter.layout(adapter.grids(transformer.config, made), tokens)
        assert layout is not None and layout.grids == (grid,)

    def test_uninstalling_is_bit_exact_and_leaves_nothing_behind(self, case):
        model, dense = built(case), dense_output(case)
        before = footprint(model)
        with installed(case, sparsity=0.8):
            rendered(case)
        assert torch.equal(rendered(case), dense)
        assert footprint(model) == before


class ConditionedContract(AdapterContract):
    """For families that start from pictures or videos, too: their cases have `others`."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "other" not in metafunc.fixturenames:
            super().pytest_generate_tests(metafunc)
            return
        given = {
            f"{id}-{what}": (case, run)
            for id, case in self.cases.items()
            for what, run in case.others.items()
        }
        metafunc.parametrize(("case", "other"), given.values(), ids=list(given))

    @torch.no_grad()
    def test_what_is_given_decides_about_the_output(self, case, other):
        """Every picture, video and mask is seen: with another one, all else the same, it differs."""
        with installed(case, sparsity=0.5) as handle:
            first, again, changed = rendered(case), rendered(case), other(built(case))
            assert len(handle.report().sparse_rows) == len(handle.report().rows) > 0
        assert torch.equal(first, again)
        assert (changed - first).abs().max() > 1e-3 * first.abs().max()


def padding_blocks(case: Case, branch: str) -> list[int]:
    """Blocks of padding alone, for each batch item; the order keeps the text last."""
    blocks, padded = -(-case.layout.tokens // 16), case.padded.get(branch, (0,))
    return [blocks - -(-(case.layout.tokens - tokens) // 16) for tokens in padded]


def first_arguments(case: Case, transformer: nn.Module) -> dict[str, Any]:
    """Arguments of the first forward pass of a run, by name."""
    caught: list[dict[str, Any]] = []

    def catch(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        caught.append({name: x for name, x in bound.arguments.items() if name != "self"})

    hook = transformer.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        rendered(case)
    finally:
        hook.remove()
    return caught[0]


def first_queries(
    case: Case, transformer: nn.Module, arguments: Mapping[str, Any], latents: Tensor
) -> Tensor:
    """What the first attention call of a forward pass is given as queries."""
    queries: list[Tensor] = []
    with installed(case, sparsity=0) as handle:
        attend = handle.session.attend

        def spied(layer, q, *others):
            queries.append(q.clone())
            return attend(layer, q, *others)

        handle.session.attend = spied
        transformer(**{**arguments, "hidden_states": latents})
    return queries[0]


def odd_place(grid: LatentGrid) -> tuple[int, int, int]:
    return grid.frames - 1, grid.height - 2, grid.width - 1


def raster(grid: LatentGrid, place: tuple[int, int, int]) -> int:
    frame, row, column = place
    return (frame * grid.height + row) * grid.width + column


def odd_tokens(layout: TokenLayout) -> list[tuple[int, int]]:
    """(number of the grid, number of the token at its odd place), for every grid."""
    tokens, start = [], 0
    for segment in layout.segments:
        if isinstance(segment, LatentGrid):
            tokens.append((len(tokens), start + raster(segment, odd_place(segment))))
        start += segment.tokens
    return tokens


def latents_of(latents: Tensor, case: Case, number: int) -> Tensor:
    """The view of `hidden_states` that makes the token at the odd place of a grid."""
    grid = case.layout.grids[number]
    place = odd_place(grid)
    if len(case.axes) == 1:
        before = sum(other.tokens for other in case.layout.grids[:number])
        return latents.narrow(case.axes[0], before + raster(grid, place), 1)
    for axis, index, size in zip(
        case.axes, place, (grid.frames, grid.height, grid.width), strict=True
    ):
        patch = latents.shape[axis] // size
        latents = latents.narrow(axis, index * patch, patch)
    return latents


def footprint(model: Any) -> list[Any]:
    """What an installation could leave behind."""
    found: list[Any] = []
    for transformer in transformers(model):
        found += [sorted(transformer.__dict__), len(transformer._forward_pre_hooks)]
        found += [m.processor for m in transformer.modules() if hasattr(m, "processor")]
    return [*found, sorted(getattr(model, "scheduler", model).__dict__)]
