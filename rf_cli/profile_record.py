"""The record of one profile: what was measured, and what follows from it, as plain JSON values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rainfusion_core.config import SparseConfig
from rainfusion_core.profiling.prediction import (
    PassCost,
    Render,
    SparseCost,
    denoising_seconds,
    expected_density,
    flops_share,
    sparse_share,
    sparsity_needed,
    speedup,
)
from rainfusion_core.sink import first_frame
from rf_cli.presets import Preset

if TYPE_CHECKING:
    from rainfusion_core.layout import TokenLayout
    from rainfusion_core.profile import Architecture, Arm, StepProfile
    from rainfusion_core.profiling.breakeven import BreakEven

TARGETS = (1.5, 2.0)


def arms(profile: "StepProfile", configs: Sequence[SparseConfig]) -> list[dict[str, Any]]:
    """One entry an arm: seconds of a forward pass, as measured and for all layers.

    Args:
        configs: of the sparse arms, completed by their method; the dense one has no method, no order
            and no sink.
    """
    return [
        {
            "sparsity": arm.sparsity,
            "method": config.method if config else None,
            "order": config.order if config else None,
            "options": dict(config.options) if config else {},
            "first_frame": first_frame(profile.layout, config)._asdict() if config else None,
            "kernel": arm.kernel,
            "density": arm.density,
            "seconds": arm.seconds,
            "seconds_of_all": list(arm.seconds_of_all),
            "parts_s": arm.parts.scaled(1),
            "sum_of_parts_s": arm.parts.total,
            "estimate_all_layers_s": sum(profile.whole(arm).values()),
        }
        for arm, config in zip(profile.arms, [None, *configs], strict=True)
    ]


def predictions(
    profile: "StepProfile", configs: Sequence[SparseConfig], steps: int, passes: int
) -> list[dict[str, Any]]:
    """One entry a sparsity and schedule: denoising time and speed-up, estimates."""

    dense, *sparse = profile.arms
    cost = PassCost(profile.rest_seconds(), profile.attention_seconds(dense))
    rows = []
    for arm, config in zip(sparse, configs, strict=True):
        attention = profile.attention_seconds(arm)
        every_step = replace(config, dense_steps=0, dense_last_steps=0)
        for schedule in dict.fromkeys((every_step, config)):
            share = sparse_share(schedule, steps=steps, layers=profile.layers)
            render = Render(steps, passes, share)
            rows.append(
                {
                    "sparsity": arm.sparsity,
                    "dense_steps": schedule.dense_steps,
                    "dense_last_steps": schedule.dense_last_steps,
                    "dense_layers": list(schedule.dense_layers),
                    "sparse_share": share,
                    "attention_speedup": cost.attention / attention,
                    "dense_s": denoising_seconds(cost, cost.attention, render),
                    "denoising_s": denoising_seconds(cost, attention, render),
                    "speedup": speedup(cost, attention, render),
                }
            )
    return rows


def needed(profile: "StepProfile", config: SparseConfig, render: Render) -> dict[str, float | None]:
    """Sparsity that brings each of `TARGETS` with the schedule of `config`, an estimate."""
    ladder = [
        (each / 100, _expected_density(profile.layout, replace(config, sparsity=each / 100)))
        for each in range(1, 100)
    ]
    dense, *sparse = profile.arms
    cost = PassCost(profile.rest_seconds(), profile.attention_seconds(dense))
    costs = [
        SparseCost(arm.sparsity, arm.density, _kernel(profile, arm), profile.attention_seconds(arm))
        for arm in sparse
    ]
    return {
        f"{target:g}": sparsity_needed(target, cost, costs, render, ladder) for target in TARGETS
    }


def _expected_density(layout: "TokenLayout", config: SparseConfig) -> float:
    from rainfusion_core.order import order_for
    from rainfusion_core.selectors import SELECTORS
    from rainfusion_core.selectors.base import OWN

    config = SELECTORS[config.method].complete(config)
    # a method's own orders pin as many blocks as any
    name = "compact" if config.order == OWN else config.order
    order = order_for(layout, config, name=name)
    return expected_density(order.blocks, order.pinned_blocks, config)


def _kernel(profile: "StepProfile", arm: "Arm") -> float:
    return profile.whole(arm).get("attention: kernel", 0.0)


def break_even(found: Sequence["BreakEven"]) -> list[dict[str, Any]]:
    return [
        {
            "sparsity": each.sparsity,
            "tokens": each.tokens,
            "text": each.text,
            "points": [
                {"tokens": p.tokens, "dense_ms": p.dense_ms, "sparse_ms": p.sparse_ms}
                for p in each.points
            ],
        }
        for each in found
    ]


def sizes(preset: Preset, architecture: "Architecture", itemsize: int) -> list[dict[str, Any]]:
    """Tokens and memory of each size of the preset at its number of frames; memory is an estimate."""
    from rainfusion_core.memory import activation_bytes

    video, width = preset.video, architecture.heads * architecture.head_dim
    ffn_dim = int(architecture.settings().get("ffn_dim") or 4 * width)
    rows = []
    for size in video.sizes:
        columns, lines = map(int, size.split("x"))
        tokens = video.tokens(columns, lines, video.frames)
        weights = preset.parameters * itemsize
        activations = activation_bytes(tokens, width, ffn_dim, itemsize)
        rows.append(
            {
                "size": size,
                "frames": video.frames,
                "tokens": tokens,
                "weights_gib": weights / 2**30,
                "activations_gib": activations / 2**30,
            }
        )
    return rows


def summary(preset: Preset, architecture: "Architecture") -> dict[str, Any]:
    """One line of `rf profile --all`: by formula alone, nothing is measured."""
    from rainfusion_core.layout import LatentGrid, TokenLayout

    video, steps = preset.video, preset.sampling.steps
    config = SparseConfig(**preset.sparse.model_dump())
    grid = LatentGrid(*video.grid(video.width, video.height, video.frames))
    share = flops_share(
        tokens=grid.tokens,
        text_tokens=preset.transformer.text_tokens,
        parameters=preset.parameters,
        layers=architecture.layers,
        width=architecture.heads * architecture.head_dim,
    )
    density = _expected_density(TokenLayout((grid,)), config)
    sparse = sparse_share(config, steps=steps, layers=architecture.layers)
    cost = PassCost(rest=1 - share, attention=share)
    return {
        "model": preset.name,
        "size": f"{video.width}x{video.height}",
        "frames": video.frames,
        "tokens": grid.tokens,
        "attention_share": share,
        "sparsity": config.sparsity,
        "sparse_share": sparse,
        "density": density,
        "speedup": speedup(cost, density * share, Render(steps, 1, sparse)),
    }
