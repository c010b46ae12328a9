"""Scenes and their words."""

import random
from dataclasses import replace

from rainfusion_core.shapes import world


def scenes(count=300, **options):
    rng = random.Random(5)
    return [world.random_scene(rng, **options) for _ in range(count)]


def test_training_never_meets_what_is_held_out():
    def combination(scene):
        return scene.subjects[0].shape, scene.subjects[0].colour, scene.background

    seen = {combination(scene) for scene in scenes()}
    assert seen.isdisjoint(combination(scene) for scene in scenes(held_out=True))


def test_held_out_prompts_are_the_same_every_time_and_differ_from_each_other():
    prompts = [world.held_out(number)[0] for number in range(8)]
    assert prompts == [world.held_out(number)[0] for number in range(8)]
    assert len(set(prompts)) == 8


def test_every_word_of_a_caption_is_in_the_list_of_words():
    rng = random.Random(1)
    said = {word for scene in scenes() for word in world.caption(scene, rng)[0].split()}
    assert said <= set(world.words())


def test_every_attribute_that_a_caption_names_is_one_that_it_can_name():
    rng, known = random.Random(2), world.attributes()
    for scene in scenes():
        text, named = world.caption(scene, rng)
        for key, value in named.items():
            assert value is None or value in known[key]
        colours = [subject.colour for subject in scene.subjects]
        assert all(colour in text for colour in colours) and scene.background in text


def test_as_many_shapes_are_drawn_as_are_asked_for():
    assert {len(scene.subjects) for scene in scenes(50, subjects=1)} == {1}
    assert {len(scene.subjects) for scene in scenes(50, subjects=2)} == {2}
    assert {len(scene.subjects) for scene in scenes()} == {1, 2}


def test_the_same_scene_with_another_motion_differs_in_nothing_else():
    rng = random.Random(4)
    for _ in range(300):
        scene = world.random_scene(rng)
        other = world.with_another_motion(scene, rng)
        (first, *rest), (changed, *same) = scene.subjects, other.subjects
        assert first.motion != changed.motion and rest == same
        assert replace(changed, motion=first.motion) == first
        assert replace(other, subjects=scene.subjects) == scene
        assert changed.motion != "spinning" or changed.shape not in world.ROUND


def test_the_same_scene_with_another_outline_differs_in_nothing_else():
    rng = random.Random(3)
    for _ in range(300):
        scene = world.random_scene(rng)
        other = world.with_another_outline(scene, rng)
        (first, *rest), (changed, *same) = scene.subjects, other.subjects
        assert first.shape != changed.shape and rest == same
        assert replace(changed, shape=first.shape) == first
        assert replace(other, subjects=scene.subjects) == scene
        assert changed.motion != "spinning" or changed.shape not in world.ROUND
