from functools import partial

import pytest
import torch

from rainfusion_core.adapters.ltx import LTX
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests import image_pipelines, ltx_pipelines
from tests.core.adapters.contract import Case, ConditionedContract

# diffusers hands a tensor to numpy where a list of timesteps is meant
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
VIDEO, FRAME = LatentGrid(5, 6, 10), LatentGrid(1, 6, 10)


def image_to_video(pipeline, seed=None):
    return ltx_pipelines.run(pipeline, image=image_pipelines.picture(160, 96, seed))


def conditions(pipeline, first=None, later=None):
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    given = [
        LTXVideoCondition(image=image_pipelines.picture(160, 96, seed), frame_index=index)
        for index, seed in ((0, first), (8, later))
    ]
    return ltx_pipelines.run(pipeline, conditions=given)


def case(kind, run, *grids, others=()):
    return Case(
        make=lambda: ltx_pipelines.ltx(kind),
        run=run,
        layout=TokenLayout(grids),
        layers=3,
        branches=("cond_uncond",),
        axes=(1,),
        others={name: partial(run, **{name: 7}) for name in others},
    )


CASES = {
    "text-to-video": case("LTXPipeline", ltx_pipelines.run, VIDEO),
    "image-to-video": case("LTXImageToVideoPipeline", image_to_video, VIDEO, others=["seed"]),
    "no-conditions": case("LTXConditionPipeline", ltx_pipelines.run, VIDEO),
    "first-and-later-frame": case(
        "LTXConditionPipeline", conditions, FRAME, VIDEO, others=["first", "later"]
    ),
}


class TestContract(ConditionedContract):
    cases = CASES


def test_neither_sizes_nor_coordinates_are_not_understood():
    assert LTX.grids(None, {"hidden_states": torch.empty(2, 300, 8)}) == ()
