"""The judge against clips that were drawn: it must see what is there, and only that."""

import random

import pytest
import torch

from rainfusion_core.shapes import world
from rainfusion_core.shapes.judge import agreement, judge


def drawn(scene):
    return (world.draw(scene, 9, 64, 64).permute(1, 2, 3, 0) + 1) / 2


@pytest.mark.parametrize("number", range(6))
def test_a_drawn_clip_shows_what_its_prompt_names(number):
    rng = random.Random(number)
    scene = world.random_scene(rng)
    _, named = world.caption(scene, rng)
    assert agreement(named, drawn(scene)) == 1


def test_agreement_counts_the_attributes_that_are_named():
    rng = random.Random(3)
    scene = world.random_scene(rng)
    seen = judge(drawn(scene))
    named = {"colour": seen["colour"], "shape": "no such shape", "size": None, "style": "striped"}
    assert agreement(named, drawn(scene)) == 0.5


def test_an_empty_frame_shows_no_shape():
    frames = torch.tensor(world.BACKGROUNDS["red"]).expand(5, 32, 32, 3)
    assert judge(frames)["shape"] is None and judge(frames)["background"] == "red"


def test_held_out_prompts_are_the_same_every_time_and_differ_from_each_other():
    prompts = [world.held_out_prompt(number)[0] for number in range(8)]
    assert prompts == [world.held_out_prompt(number)[0] for number in range(8)]
    assert len(set(prompts)) == 8
