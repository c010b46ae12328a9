import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.absence import LEFT_OUT
from rainfusion_core.adapters.ltx import LTX
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests import ltx_pipelines
from tests.core.adapters.contract import SMALL, AdapterContract, Case


def run(pipeline, **changes):
    """Video and audio latents in one tensor: the audio listens to the video."""
    video, audio = ltx_pipelines.run_ltx2(pipeline, **{"stg_scale": 0.0} | changes)
    return torch.cat([video.flatten(), audio.flatten()])


CASES = {
    "video-and-audio": Case(
        make=ltx_pipelines.ltx2,
        run=lambda pipeline: run(pipeline, audio_stg_scale=0.0),
        layout=TokenLayout((LatentGrid(5, 4, 12),)),
        layers=3,
        branches=("cond_uncond", "uncond_modality"),
        axes=(1,),
    )
}


class TestContract(AdapterContract):
    cases = CASES


def test_only_the_video_attends_sparsely():
    names = [name for name, _ in ltx_pipelines.ltx2_transformer().named_modules()]
    served = [name for name in names if LTX.self_attention.fullmatch(name)]
    assert served == [f"transformer_blocks.{layer}.attn1" for layer in range(3)]


def test_a_block_that_guidance_leaves_out_calls_no_attention():
    pipeline = ltx_pipelines.ltx2()
    with install(pipeline, SparseConfig(**SMALL)) as handle:  # strict
        run(pipeline, stg_scale=1.0, spatio_temporal_guidance_blocks=[1])
        report = handle.report()
    perturbed = [row.layer for row in report.rows if row.branch == "uncond_stg"]
    assert perturbed == [0, 2] * 2
    assert report.absent_by_reason == {LEFT_OUT: 2}


def test_frames_behind_the_video_are_grids_of_their_own():
    video = torch.cartesian_prod(*(torch.arange(n) for n in (5, 4, 12)))
    frame = torch.cartesian_prod(torch.tensor([2]), torch.arange(4), torch.arange(12))
    begins = torch.cat([video, frame]).T.float()  # (3, tokens)
    arguments = dict(
        hidden_states=torch.empty(1, 288, 8), num_frames=5, height=4, width=12,
        video_coords=torch.stack([begins, begins + 1], -1)[None],
    )  # fmt: skip
    assert LTX.grids(None, arguments) == (LatentGrid(5, 4, 12), LatentGrid(1, 4, 12))
