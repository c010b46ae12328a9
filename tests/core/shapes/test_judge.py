"""The judge against clips that were drawn: it must see what is there, and only that."""

import random

import pytest
import torch

from rainfusion_core.shapes import world
from rainfusion_core.shapes.drawing import draw
from rainfusion_core.shapes.judge import agreement, judge
from rainfusion_core.shapes.world import Scene, Subject


def drawn(scene, frames=17, size=96):
    return (draw(scene, frames, size, size).permute(1, 2, 3, 0) + 1) / 2


def one(motion="up", shape="star", colour="red", size="large", haste="quickly", **ground):
    subject = Subject(shape, size, colour, motion, haste, (0.5, 0.5))
    settings = {"background": "blue", "second": None, "style": "plain", "pan": None, **ground}
    return Scene((subject,), "", phase=0.3, **settings)


@pytest.mark.parametrize("number", range(8))
def test_a_drawn_clip_shows_what_its_prompt_names(number):
    _, named, scene = world.held_out(number, subjects=1)
    assert all(agreement(named, drawn(scene)).values())


@pytest.mark.parametrize("motion", world.MOTIONS)
def test_every_motion_is_told_from_the_others(motion):
    assert judge(drawn(one(motion)))["motion0"] == motion


@pytest.mark.parametrize("shape", world.SHAPES)
@pytest.mark.parametrize("size", world.SIZES)
def test_every_shape_and_size_is_told_from_the_others(shape, size):
    seen = judge(drawn(one(shape=shape, size=size)))
    assert (seen["shape0"], seen["size0"]) == (shape, size)


def test_a_few_frames_with_another_outline_do_not_decide():
    clip, circle = (drawn(one(shape=shape)) for shape in ("star", "circle"))
    clip[2:7] = circle[2:7]  # larger than the star, and 5 of 17
    assert judge(clip)["shape0"] == "star"


@pytest.mark.parametrize("style", world.TWO_COLOURED)
def test_both_colours_of_a_background_are_seen(style):
    seen = judge(drawn(one(background="green", second="yellow", style=style)))
    assert {seen["background"], seen["second"]} == {"green", "yellow"}


def test_two_shapes_are_counted_and_compared_whichever_comes_first():
    places = [Subject("circle", "small", "red", "up", "slowly", (0.27, 0.5)),
              Subject("square", "small", "white", "fading", "slowly", (0.73, 0.5))]  # fmt: skip
    _, named = world.caption(
        Scene(tuple(places), "and", "blue", None, "plain", None, 0.0), random.Random(0)
    )
    for subjects in (places, places[::-1]):
        clip = drawn(Scene(tuple(subjects), "and", "blue", None, "plain", None, 0.0))
        assert all(agreement(named, clip).values())


@pytest.mark.parametrize("background", [name for name in world.BACKGROUNDS if name != "orange"])
def test_a_fading_shape_that_blends_into_its_background_is_one_shape(background):
    """Orange that fades over cyan is green half-way: that is no second shape."""
    seen = judge(drawn(one("fading", "ring", "orange", background=background)))
    assert (seen["count"], seen["colour0"], seen["motion0"]) == (1, "orange", "fading")


def test_what_is_not_named_is_not_judged_and_what_is_wrong_counts_against():
    scene = one()
    named = {
        "colour0": "red",
        "shape0": "circle",
        "size0": None,
        "background": "blue",
        "second": None,
    }
    found = agreement(named, drawn(scene))
    assert found == {"colour": True, "shape": False, "background": True, "count": True}


def test_an_empty_frame_shows_no_shape():
    seen = judge(torch.tensor(world.BACKGROUNDS["red"]).expand(5, 32, 32, 3))
    assert seen["count"] == 0 and seen["background"] == "red" and "shape0" not in seen
