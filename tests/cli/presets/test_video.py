import pytest
from pydantic import ValidationError

from rainfusion_core.errors import ConfigError
from rf_cli import presets
from rf_cli.presets import Video

SHAPES = presets.load("shapes")
FACTS = dict(
    width=832, height=480, frames=81, fps=16, frame_rule="4k+1", sizes=["832x480"], multiple=16,
    token=(4, 16, 16),
)  # fmt: skip


def video(**changes):
    return Video(**{**FACTS, **changes})


@pytest.mark.parametrize(
    ("changes", "frames", "grid"),
    [
        ({}, 81, (21, 30, 52)),
        ({"frame_rule": "4k", "frames": 88}, 88, (22, 30, 52)),
        ({"token": (8, 16, 16)}, 81, (11, 30, 52)),  # two latent frames a token, the last one alone
        ({"token": (8, 16, 16)}, 85, (11, 30, 52)),
        ({"frame_rule": "1", "frames": 1, "token": (1, 16, 16)}, 1, (1, 30, 52)),
    ],
)
def test_grid_of_a_clip(changes, frames, grid):
    assert video(**changes).grid(832, 480, frames) == grid


def test_a_size_between_two_that_fit_is_refused_with_both():
    with pytest.raises(ConfigError) as caught:
        presets.load("wan2.1").video.check("wan2.1", 832, 476, 81)
    assert str(caught.value) == (
        "--size 832x476 does not fit wan2.1: width and height must be multiples of 16"
    )
    assert caught.value.hint == "the nearest are 832x480 and 832x464"


def test_a_size_that_is_too_large_is_refused():
    with pytest.raises(ConfigError, match="multiples of 16 up to 512") as caught:
        SHAPES.video.check("shapes", 1024, 512, 33)
    assert caught.value.hint == "the nearest are 512x512"


def test_a_model_of_fixed_sizes_takes_no_other():
    fixed = video(any_size=False, sizes=["832x480", "480x832"])
    fixed.check("it", 480, 832, 81)
    with pytest.raises(ConfigError, match="it takes 832x480 and 480x832 alone"):
        fixed.check("it", 640, 480, 81)


@pytest.mark.parametrize(
    ("rule", "frames", "problem", "near"),
    [
        ("4k+1", 80, "1 more than a multiple of 4", "are 77 and 81"),
        ("4k+1", 0, "1 more than a multiple of 4", "are 1 and 5"),
        ("4k+1", -3, "1 more than a multiple of 4", "are 1 and 5"),
        ("4k", 81, "a multiple of 4", "are 80 and 84"),
        ("4k", 0, "a multiple of 4", "are 4 and 8"),
        ("6k+1", 84, "1 more than a multiple of 6", "are 79 and 85"),
    ],
)
def test_frames_that_do_not_fit_are_refused_with_the_nearest(rule, frames, problem, near):
    legal = {"4k+1": 81, "4k": 88, "6k+1": 85}[rule]
    with pytest.raises(ConfigError, match=f"frames must be {problem}$") as caught:
        video(frame_rule=rule, frames=legal).check("it", 832, 480, frames)
    assert caught.value.hint == f"the nearest {near}"


def test_more_frames_than_the_model_has_positions_for_are_refused():
    with pytest.raises(ConfigError, match="a multiple of 4, 81 at most") as caught:
        video(max_frames=81).check("it", 832, 480, 97)
    assert caught.value.hint == "the nearest is 81"


def test_a_picture_has_one_frame():
    picture = video(frame_rule="1", frames=1)
    assert picture.is_picture and not video().is_picture
    picture.check("it", 832, 480, 1)
    with pytest.raises(ConfigError, match="--frames 5 does not fit it: it makes pictures"):
        picture.check("it", 832, 480, 5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"width": 830}, "size 830x480 does not fit it"),
        ({"sizes": ["832x480", "1280x721"]}, "size 1280x721 does not fit it"),
        ({"frames": 82}, "frames 82 does not fit it"),
        ({"sizes": []}, "must list at least one size"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(changes, problem):
    with pytest.raises(ValidationError, match=problem):
        video(**changes)


@pytest.mark.parametrize("key", ["fps", "frame_rule"])
def test_a_video_needs_a_rate_and_a_rule(key):
    with pytest.raises(ValidationError, match=f"{key} is missing"):
        Video(**{k: v for k, v in FACTS.items() if k != key})
