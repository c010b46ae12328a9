"""Clips as they are drawn, at any size."""

import pytest
import torch

from rainfusion_core.shapes import world
from rainfusion_core.shapes.drawing import draw, draw_parts
from rainfusion_core.shapes.world import Scene, Subject

RED, WHITE = (torch.tensor(world.COLOURS[name]) for name in ("red", "white"))


def scene(motion="up", relation="", second=None, **ground):
    subjects = [Subject("circle", "large", "red", motion, "slowly", (0.5, 0.5))]
    if second:
        subjects.append(second)
    settings = {"background": "blue", "second": None, "style": "plain", "pan": None, **ground}
    return Scene(tuple(subjects), relation, phase=0.0, **settings)


def colour_at(clip, frame, y, x):
    return (clip[:, frame, y, x] + 1) / 2


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (7, 48, 80), (5, 33, 31)])
def test_any_size_is_drawn_and_stays_in_range(frames, height, width):
    clip, cover = draw_parts(scene(style="dotted", pan="left"), frames, height, width)
    assert clip.shape == (3, frames, height, width) and cover.shape == (1, frames, height, width)
    assert clip.abs().max() <= 1 and cover.min() >= 0 and cover.max() == 1


def test_a_shape_stands_where_its_path_goes():
    _, cover = draw_parts(scene("down right"), 9, 64, 64)
    columns, rows = cover[0].sum(1), cover[0].sum(2)
    at = torch.arange(64).float()
    x, y = ((mass @ at) / mass.sum(1) for mass in (columns, rows))
    assert (x.diff() > 0).all() and (y.diff() > 0).all()


def test_the_one_in_front_hides_the_one_behind():
    other = Subject("square", "small", "white", "up", "slowly", (0.5, 0.5))
    front, behind = (
        draw(scene("spinning", relation, other), 3, 64, 64)
        for relation in ("in front of", "behind")
    )
    assert torch.allclose(colour_at(front, 1, 32, 32), RED, atol=1e-5)
    assert torch.allclose(colour_at(behind, 1, 32, 32), WHITE, atol=1e-5)


def test_fading_leaves_little_and_growing_covers_more():
    _, fading = draw_parts(scene("fading"), 5, 64, 64)
    assert fading[0, -1].max() == pytest.approx(0.2, abs=1e-5) and fading[0, 0].max() == 1
    _, growing = draw_parts(scene("growing"), 5, 64, 64)
    assert (growing[0].sum((1, 2)).diff() > 0).all()


def test_a_panning_camera_moves_the_background_and_not_the_shape():
    still, panned = (
        draw(scene("fading", style="striped", pan=pan), 5, 64, 64) for pan in (None, "left")
    )
    assert torch.equal(still[:, 0, :8], still[:, -1, :8])
    assert not torch.allclose(panned[:, 0, :8], panned[:, -1, :8], atol=0.05)
    assert torch.allclose(colour_at(panned, 0, 32, 32), RED, atol=1e-5)
