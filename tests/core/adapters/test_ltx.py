import pytest
import torch

from rainfusion_core.adapters.ltx import LTX
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests import image_pipelines, ltx_pipelines
from tests.core.adapters.contract import AdapterContract, Case

# diffusers hands a tensor to numpy where a list of timesteps is meant
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
VIDEO, FRAME = LatentGrid(5, 6, 10), LatentGrid(1, 6, 10)


def image_to_video(pipeline):
    return ltx_pipelines.run(pipeline, image=image_pipelines.picture(160, 96))


def conditions(pipeline):
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    picture = image_pipelines.picture(160, 96)
    given = [LTXVideoCondition(image=picture, frame_index=index) for index in (0, 8)]
    return ltx_pipelines.run(pipeline, conditions=given)


def case(kind, run, *grids):
    return Case(
        make=lambda: ltx_pipelines.ltx(kind),
        run=run,
        layout=TokenLayout(grids),
        layers=3,
        branches=("cond_uncond",),
        axes=(1,),
    )


CASES = {
    "text-to-video": case("LTXPipeline", ltx_pipelines.run, VIDEO),
    "image-to-video": case("LTXImageToVideoPipeline", image_to_video, VIDEO),
    "no-conditions": case("LTXConditionPipeline", ltx_pipelines.run, VIDEO),
    "first-and-later-frame": case("LTXConditionPipeline", conditions, FRAME, VIDEO),
}


class TestContract(AdapterContract):
    cases = CASES


def test_neither_sizes_nor_coordinates_are_not_understood():
    assert LTX.grids(None, {"hidden_states": torch.empty(2, 300, 8)}) == ()
