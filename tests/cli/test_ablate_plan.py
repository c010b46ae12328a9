"""Which variants are asked about which size, and how many clips of each are rendered."""

from dataclasses import replace

import pytest

from rainfusion_core.config import SparseConfig
from rainfusion_core.render import Clip
from rf_cli import ablate_plan
from rf_cli.ablate_plan import FULL, METHODS, QUICK, SINK


def plan(scale=FULL, clips=4, methods=("rainfusion2", "random")):
    def of(width):
        return [
            Clip(prompt="x", width=width, height=64, frames=5, steps=4, guidance=1.0, seed=seed)
            for seed in range(clips)
        ]

    return ablate_plan.Plan(
        clips={"64x64": of(64), "48x64": of(48)}, named=[None] * clips, layers=(0,), steps=(2,),
        entries=ablate_plan.entries(scale, SparseConfig(), methods), scale=scale,
    )  # fmt: skip


def counts(made):
    """Rendered clips by group and density."""
    found = {}
    for index, entry in made.renders():
        name = entry.factors.get("method", entry.factors.get("sink"))
        found.setdefault((entry.group, entry.factors["density"], name), []).append(index)
    return found


def test_methods_are_asked_about_the_first_size_and_ideas_about_all():
    made = plan()
    groups = {size: {entry.group for entry in made.entries_of(size)} for size in made.clips}
    assert groups["48x64"] == groups["64x64"] - {METHODS} != set()


def test_every_method_is_rendered_with_all_clips_at_a_fifth_and_with_few_elsewhere():
    found = counts(plan())
    for name in ("rainfusion2", "random"):
        assert found.pop((METHODS, 0.2, name)) == [0, 1, 2, 3]
        assert found.pop((METHODS, 0.1, name)) == found.pop((METHODS, 0.3, name)) == [0, 1]
    assert found == {(SINK, 0.4, each): [0, 1, 2, 3] for each in ("on", "off")}


def test_no_more_clips_are_rendered_than_there_are():
    assert max(map(len, counts(plan(clips=1)).values())) == 1
    assert set(map(len, counts(plan(replace(QUICK, render_clips=3), clips=2)).values())) == {2}


def test_what_all_clips_get_comes_first_and_clip_after_clip():
    indices = [index for index, entry in plan(clips=9).renders() if entry.factors["density"] == 0.2]
    assert indices == sorted(indices) and len(indices) == 18
    first = [entry.factors["density"] for _, entry in plan(clips=9).renders()[:18]]
    assert set(first) == {0.2}


def test_a_mass_target_is_never_rendered():
    made = plan()
    assert any(entry.variant.config.mass for entry in made.entries)
    assert not any(entry.variant.config.mass for _, entry in made.renders())


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_a_fifth_is_measured_on_every_scale(scale):
    assert ablate_plan.near_a_fifth(scale.densities) == 0.2
