from types import SimpleNamespace

import pytest
import torch

from rainfusion_core.errors import ConfigError
from rainfusion_core.loading.positions import interpolate
from tests import pipelines

TRAINED = (3, 4, 5)


def rotary(trained=None):
    transformer = pipelines.wan_transformer()
    if trained:
        interpolate(transformer, trained)
    return transformer.rope


def angles(rope, *grid):
    """Cosines and sines by (frames, height, width) in tokens, which cover 1x2x2 latents."""
    frames, height, width = grid
    latents = torch.empty(1, 16, frames, 2 * height, 2 * width)
    return torch.stack(rope(latents)).view(2, *grid, -1)


@pytest.mark.parametrize("grid", [TRAINED, (1, 4, 2)])
def test_grids_that_are_no_larger_are_left_as_they_are(grid):
    assert torch.equal(angles(rotary(TRAINED), *grid), angles(rotary(), *grid))


def test_a_longer_axis_spans_the_positions_of_the_trained_one():
    fine = angles(rotary(TRAINED), 6, 8, 15)
    torch.testing.assert_close(fine[:, ::2, ::2, ::3], angles(rotary(), 3, 4, 5))
    assert not torch.allclose(fine[:, 1], fine[:, 0])


def test_an_axis_that_is_no_longer_keeps_its_positions_beside_one_that_is():
    wide = angles(rotary(TRAINED), 2, 4, 10)
    torch.testing.assert_close(wide[:, :, :, ::2], angles(rotary(), 2, 4, 5))


def test_nothing_is_added_to_what_is_saved(tmp_path):
    plain, stretched = pipelines.wan_transformer(), pipelines.wan_transformer()
    interpolate(stretched, TRAINED)
    assert list(stretched.state_dict()) == list(plain.state_dict())
    stretched.save_pretrained(tmp_path)
    again = type(plain).from_pretrained(tmp_path)
    assert torch.equal(angles(again.rope, 3, 8, 5), angles(plain.rope, 3, 8, 5))


def test_other_positions_are_refused():
    with pytest.raises(ConfigError, match="positions of SimpleNamespace can't be interpolated"):
        interpolate(SimpleNamespace(rope=torch.nn.Identity()), TRAINED)
